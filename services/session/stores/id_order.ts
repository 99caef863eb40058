/** What is kept in the order of ids. */
export interface Ordered {
  readonly id: string;
  /** Whether it is no longer there. */
  isGone: boolean;
}

/** Places of gone entries after which they are cleared away, if they are as many as the others. */
const GONE_MIN = 1_024;

/** Entries in the order of their ids. Ids rise with time, so that nearly every entry comes last; what is gone leaves its
 *  place when half of all are. */
export class IdOrder<T extends Ordered> {
  #entries: T[] = [];
  #gone = 0;

  add(entry: T): void {
    const last = this.#entries.at(-1);
    if (last === undefined || last.id < entry.id) this.#entries.push(entry);
    // The clock was set back since the last id was made.
    else this.#entries.splice(this.#placeAfter(entry.id), 0, entry);
  }

  /** Says that an entry is gone. */
  delete(entry: T): void {
    entry.isGone = true;
    this.#gone++;
    if (this.#gone < GONE_MIN || this.#gone * 2 < this.#entries.length) return;
    this.#entries = this.#entries.filter((other) => !other.isGone);
    this.#gone = 0;
  }

  /** The entries with ids greater than `after`. */
  *after(after: string): Generator<T, void, void> {
    for (let i = this.#placeAfter(after); i < this.#entries.length; i++) {
      const entry = this.#entries[i]!;
      if (!entry.isGone) yield entry;
    }
  }

  #placeAfter(id: string): number {
    let low = 0, high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#entries[middle]!.id <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
