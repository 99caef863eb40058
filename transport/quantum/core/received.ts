/** Packet numbers received: what to acknowledge, and what to refuse as a replay. SPEC §3.2-§3.5. */

import { MAX_RECEIVED_RANGES, MAX_SACK_BLOCKS, PACKET_THRESHOLD } from "../params.ts";
import { SACK_BLOCK_BYTES, writeU32 } from "../wire/header.ts";

/** What an arriving packet number was. */
export type Arrival = "in_order" | "out_of_order";

/** Received packet numbers of one direction. */
export class ReceivedPackets {
  /** Everything below is received or excused: the header's ack field. */
  next = 0;
  /** Numbers below are refused though never received: their ranges were forgotten. */
  #refuseBelow = 0;
  // Disjoint, ascending, above `next` with a gap between any two; inclusive.
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /** Ranges above `next`. */
  get rangeCount(): number {
    return this.#starts.length;
  }

  /** Highest number received, or -1. */
  get largest(): number {
    return this.#ends.length > 0 ? this.#ends[this.#ends.length - 1]! : this.next - 1;
  }

  /** Says whether the number was seen, or lies where memory of it was given up. */
  isReplay(sequence: number): boolean {
    if (sequence < this.next || sequence < this.#refuseBelow) return true;
    for (let i = this.#starts.length - 1; i >= 0; i--) {
      if (sequence > this.#ends[i]!) return false;
      if (sequence >= this.#starts[i]!) return true;
    }
    return false;
  }

  /** Records a number that is not a replay. */
  add(sequence: number): Arrival {
    const starts = this.#starts;
    const ends = this.#ends;
    if (sequence === this.next) {
      this.next++;
      if (starts.length === 0) return "in_order";
      this.#absorb();
      return "out_of_order";
    }
    let i = starts.length - 1;
    while (i >= 0 && sequence < starts[i]!) i--;
    // Range i begins below the number, range i + 1 above it.
    const joinsLow = i >= 0 && ends[i]! + 1 === sequence;
    const joinsHigh = i + 1 < starts.length && starts[i + 1]! - 1 === sequence;
    if (joinsLow && joinsHigh) {
      ends[i] = ends[i + 1]!;
      starts.splice(i + 1, 1);
      ends.splice(i + 1, 1);
    } else if (joinsLow) {
      ends[i] = sequence;
      // Once the sender has heard of enough numbers behind the gap to call it a loss, the rest is order again.
      if (i === starts.length - 1 && sequence - starts[i]! >= PACKET_THRESHOLD) return "in_order";
    } else if (joinsHigh) starts[i + 1] = sequence;
    else {
      starts.splice(i + 1, 0, sequence);
      ends.splice(i + 1, 0, sequence);
      if (starts.length > MAX_RECEIVED_RANGES) {
        // SPEC §3.4: forget the lowest; the numbers up to its end can no longer be told from replays.
        this.#refuseBelow = ends.shift()! + 1;
        starts.shift();
      }
    }
    return "out_of_order";
  }

  /** ACK_FLOOR: everything below `floor` counts as received. SPEC §3.5. */
  raiseFloor(floor: number): void {
    if (floor <= this.next) return;
    this.next = floor;
    this.#absorb();
  }

  /** Blocks that a datagram would carry now. */
  get sackBlocks(): number {
    return Math.min(this.#starts.length, MAX_SACK_BLOCKS);
  }

  /** Writes those blocks at `at`, ascending. */
  writeSack(bytes: Uint8Array, at: number): void {
    const starts = this.#starts;
    for (let i = starts.length - this.sackBlocks; i < starts.length; i++) {
      writeU32(bytes, at, starts[i]!);
      writeU32(bytes, at + 4, this.#ends[i]!);
      at += SACK_BLOCK_BYTES;
    }
  }

  #absorb(): void {
    let count = 0;
    while (count < this.#starts.length && this.#starts[count]! <= this.next) {
      this.next = Math.max(this.next, this.#ends[count]! + 1);
      count++;
    }
    if (count > 0) {
      this.#starts.splice(0, count);
      this.#ends.splice(0, count);
    }
  }
}
