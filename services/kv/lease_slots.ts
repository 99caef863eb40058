/** Leases of rows as small numbers: a 64-bit id in every row would cost twice the memory, and nearly all rows have none. */

/** Ids by slot, counted by the rows that use them. Slot 0 is no lease. */
export class LeaseSlots {
  readonly #ids: bigint[] = [0n];
  readonly #uses: number[] = [0];
  readonly #slots = new Map<bigint, number>();
  readonly #free: number[] = [];

  /** Ids in use; at most one a row. */
  get size(): number {
    return this.#slots.size;
  }

  /** The id in a slot. */
  idOf(slot: number): bigint {
    return this.#ids[slot]!;
  }

  /** The slot of an id, used once more. */
  take(id: bigint): number {
    if (id === 0n) return 0;
    let slot = this.#slots.get(id);
    if (slot === undefined) {
      slot = this.#free.pop() ?? this.#ids.length;
      this.#ids[slot] = id;
      this.#uses[slot] = 0;
      this.#slots.set(id, slot);
    }
    this.#uses[slot]!++;
    return slot;
  }

  /** A row with this slot is gone. */
  release(slot: number): void {
    if (slot === 0 || --this.#uses[slot]! > 0) return;
    this.#slots.delete(this.#ids[slot]!);
    this.#free.push(slot);
  }
}
