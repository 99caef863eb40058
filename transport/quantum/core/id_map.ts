/** Smallest table, in slots: enough for the calls that a quiet connection has under way. */
const MIN_SLOTS = 64;

/** A map from small ids that come and go quickly, such as the streams of a connection.
 *
 *  A `Map` would do, but for the garbage collector: each time a `Map` makes itself a new table, the old one keeps a
 *  reference to it. Once one old table has reached the old generation, every later one, with all it ever held, stays
 *  alive until the next full collection, and each scavenge copies them: 7 ms instead of 0.3 ms at 64 calls under way.
 *
 *  Open addressing with linear probing; a deletion moves later entries of the run back, so no slot stays marked. The
 *  table only grows, to twice the most entries it ever held at once, which its owner bounds. */
export class IdMap<T> {
  #keys: number[] = new Array(MIN_SLOTS).fill(-1);
  #values: (T | undefined)[] = new Array(MIN_SLOTS).fill(undefined);
  #mask = MIN_SLOTS - 1;
  #size = 0;

  /** Entries held. */
  get size(): number {
    return this.#size;
  }

  /** The value of `id`. */
  get(id: number): T | undefined {
    return this.#values[this.#slotOf(id)];
  }

  /** Sets the value of `id`, a whole number >= 0. */
  set(id: number, value: T): void {
    let slot = this.#slotOf(id);
    if (this.#keys[slot] !== id) {
      if (2 * (this.#size + 1) > this.#mask + 1) {
        this.#grow();
        slot = this.#slotOf(id);
      }
      this.#keys[slot] = id;
      this.#size++;
    }
    this.#values[slot] = value;
  }

  /** Takes `id` out; false when it was not in. */
  delete(id: number): boolean {
    let hole = this.#slotOf(id);
    if (this.#keys[hole] !== id) return false;
    const mask = this.#mask;
    for (let slot = (hole + 1) & mask; this.#keys[slot] !== -1; slot = (slot + 1) & mask) {
      const key = this.#keys[slot]!;
      // An entry may fill the hole if its probe sequence, from its home to its slot, passes it.
      if (((slot - homeOf(key)) & mask) < ((slot - hole) & mask)) continue;
      this.#keys[hole] = key;
      this.#values[hole] = this.#values[slot];
      hole = slot;
    }
    this.#keys[hole] = -1;
    this.#values[hole] = undefined;
    this.#size--;
    return true;
  }

  /** The values, in no particular order. */
  values(): T[] {
    return this.#values.filter((_, slot) => this.#keys[slot] !== -1) as T[];
  }

  /** Takes everything out. */
  clear(): void {
    this.#keys.fill(-1);
    this.#values.fill(undefined);
    this.#size = 0;
  }

  /** The slot of `id`, or the free one where it would go. */
  #slotOf(id: number): number {
    const mask = this.#mask;
    let slot = homeOf(id) & mask;
    while (this.#keys[slot] !== id && this.#keys[slot] !== -1) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const slots = 2 * keys.length;
    this.#keys = new Array(slots).fill(-1);
    this.#values = new Array(slots).fill(undefined);
    this.#mask = slots - 1;
    keys.forEach((key, from) => {
      if (key === -1) return;
      const slot = this.#slotOf(key);
      this.#keys[slot] = key;
      this.#values[slot] = values[from];
    });
  }
}

/** Where the search for an id begins, before the mask: the ids of one side, all even or all odd, are neighbours. */
function homeOf(id: number): number {
  return (id >>> 1) + (id & 1) * 0x2f0b;
}
