/** An entry of a Bag knows its place. */
export interface Bagged {
  /** Place in the bag; -1 outside. The bag's to change. */
  bagIndex: number;
}

/** An unordered collection of entries that come and go quickly, in constant time. Bounded by its owner.
 *  Not a `Set`, for the reason that IdMap gives: dead tables of a `Set` keep what passed through it alive. */
export class Bag<T extends Bagged> {
  readonly #entries: T[] = [];

  /** Entries held. */
  get size(): number {
    return this.#entries.length;
  }

  /** Puts an entry in that is in no bag. */
  add(entry: T): void {
    entry.bagIndex = this.#entries.length;
    this.#entries.push(entry);
  }

  /** Takes an entry out; nothing happens when it is not in. */
  delete(entry: T): void {
    const index = entry.bagIndex;
    if (index < 0) return;
    entry.bagIndex = -1;
    const last = this.#entries.pop()!;
    if (last === entry) return;
    last.bagIndex = index;
    this.#entries[index] = last;
  }

  /** The entries at this moment. */
  snapshot(): T[] {
    return [...this.#entries];
  }
}
