/** Leases of rows as small numbers: a 64-bit id in every row would cost twice the memory, and nearly all rows have none. */
import { LeaseIndex } from "../lease/lease_index.ts";

/** Ids by slot, counted by the rows that use them. Slot 0 is no lease. */
export class LeaseSlots {
  readonly #index: LeaseIndex;
  #uses: Uint32Array;

  /** `seed`: 32 unpredictable bits. */
  constructor(seed: number) {
    this.#index = new LeaseIndex(seed);
    this.#uses = new Uint32Array(this.#index.capacity);
  }

  /** Ids in use; at most one a row. */
  get size(): number {
    return this.#index.size;
  }

  /** The id in a slot. */
  idOf(slot: number): bigint {
    return slot === 0 ? 0n : this.#index.idOf(slot - 1);
  }

  /** The slot of an id, used once more. */
  take(id: bigint): number {
    if (id === 0n) return 0;
    let place = this.#index.find(id);
    if (place < 0) {
      place = this.#index.add(id);
      if (this.#index.capacity > this.#uses.length) {
        const larger = new Uint32Array(this.#index.capacity);
        larger.set(this.#uses);
        this.#uses = larger;
      }
      this.#uses[place] = 0;
    }
    this.#uses[place]!++;
    return place + 1;
  }

  /** A row with this slot is gone. */
  release(slot: number): void {
    if (slot === 0 || --this.#uses[slot - 1]! > 0) return;
    this.#index.remove(slot - 1);
  }
}
