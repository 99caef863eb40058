/** The sent ledger: which packets are outstanding and what they carried. SPEC §6. */

import { invariant } from "../errors.ts";
import { MAX_SENT_PACKETS } from "../params.ts";
import type { Stream } from "./stream.ts";

/** One outstanding packet. Frames lie in parallel arrays that live on with the pooled record: entry i is
 *  `kinds[i]`, `streams[i]`, `firsts[i]`, `seconds[i]`; only the first `frameCount` are valid. */
export class SentPacket {
  sequence = 0;
  sentAt = 0;
  bytes = 0;
  truesize = 0;
  isMtuProbe = false;
  frameCount = 0;
  /** Frame type; STREAM with its fin bit. */
  readonly kinds: number[] = [];
  readonly streams: (Stream | undefined)[] = [];
  /** STREAM: offset. */
  readonly firsts: number[] = [];
  /** STREAM: data bytes. */
  readonly seconds: number[] = [];

  /** Adds a frame. */
  push(kind: number, stream: Stream | undefined, first: number, second: number): void {
    const i = this.frameCount++;
    this.kinds[i] = kind;
    this.streams[i] = stream;
    this.firsts[i] = first;
    this.seconds[i] = second;
  }
}

/** Outstanding packets by number: a ring that grows up to MAX_SENT_PACKETS. Numbers that were not tracked, or that are
 *  settled, are holes. */
export class SentLedger {
  /** The next packet number. */
  next = 0;
  /** The lowest outstanding number, or `next`. */
  base = 0;
  #ring: (SentPacket | undefined)[] = new Array(64).fill(undefined);
  #outstanding = 0;
  readonly #free: SentPacket[] = [];

  /** Packets outstanding. */
  get outstanding(): number {
    return this.#outstanding;
  }

  /** Whether no further packet may be tracked. SPEC §6.6. */
  get isFull(): boolean {
    return this.next - this.base >= MAX_SENT_PACKETS;
  }

  /** Whether not even a probe may be tracked: probes pass `isFull`, the ring does not grow for ever. */
  get isExhausted(): boolean {
    return this.next - this.base >= 2 * MAX_SENT_PACKETS - 1;
  }

  /** A blank record, not yet in the ledger. */
  blank(): SentPacket {
    return this.#free.pop() ?? new SentPacket();
  }

  /** Enters a record under its sequence number, which is `next` - 1. */
  enter(packet: SentPacket): void {
    if (this.#outstanding === 0) this.base = packet.sequence;
    if (packet.sequence - this.base >= this.#ring.length) this.#grow();
    this.#ring[packet.sequence & (this.#ring.length - 1)] = packet;
    this.#outstanding++;
  }

  /** The outstanding packet of that number. */
  get(sequence: number): SentPacket | undefined {
    if (sequence < this.base || sequence >= this.next) return undefined;
    const packet = this.#ring[sequence & (this.#ring.length - 1)];
    // Numbers that were never tracked can lie beyond the ring and share a slot.
    return packet !== undefined && packet.sequence === sequence ? packet : undefined;
  }

  /** Takes a packet out; the caller gives it to `recycle` when done. */
  remove(packet: SentPacket): void {
    this.#ring[packet.sequence & (this.#ring.length - 1)] = undefined;
    this.#outstanding--;
  }

  /** Moves `base` over holes. */
  settle(): void {
    if (this.#outstanding === 0) {
      this.base = this.next;
      return;
    }
    const mask = this.#ring.length - 1;
    while (this.#ring[this.base & mask] === undefined) this.base++;
  }

  /** Keeps a record for use by a later packet. */
  recycle(packet: SentPacket): void {
    for (let i = 0; i < packet.frameCount; i++) packet.streams[i] = undefined;
    packet.frameCount = 0;
    packet.isMtuProbe = false;
    if (this.#free.length < MAX_SENT_PACKETS) this.#free.push(packet);
  }

  #grow(): void {
    const old = this.#ring;
    let size = old.length;
    const span = this.next - this.base + 1;
    while (size < span) size *= 2;
    invariant(size <= 2 * MAX_SENT_PACKETS, "sent ledger is bounded");
    const ring: (SentPacket | undefined)[] = new Array(size).fill(undefined);
    for (const packet of old) if (packet !== undefined) ring[packet.sequence & (size - 1)] = packet;
    this.#ring = ring;
  }
}
