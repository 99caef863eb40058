/** An entry of the heap knows its place. */
export interface Expiring {
  /** When it is due at the earliest, as the heap has it; the entry itself may be later by now. */
  dueAtMs: number;
  /** Place in the heap; -1 outside. The heap's to change. */
  heapIndex: number;
}

/** Entries by the time at which they are due: a binary heap that entries can leave from anywhere. */
export class ExpiryHeap<T extends Expiring> {
  readonly #entries: T[] = [];

  /** The entry that is due first. */
  get first(): T | undefined {
    return this.#entries[0];
  }

  /** Puts an entry in that is in no heap. */
  add(entry: T): void {
    this.#entries.push(entry);
    this.#up(this.#entries.length - 1, entry);
  }

  /** Takes an entry out; nothing happens when it is not in. */
  delete(entry: T): void {
    const index = entry.heapIndex;
    if (index < 0) return;
    entry.heapIndex = -1;
    const last = this.#entries.pop()!;
    if (last === entry) return;
    this.#up(index, last);
    this.#down(last.heapIndex, last);
  }

  /** Moves an entry to its place after its `dueAtMs` grew. */
  later(entry: T): void {
    this.#down(entry.heapIndex, entry);
  }

  #up(from: number, entry: T): void {
    const entries = this.#entries;
    let index = from;
    while (index > 0) {
      const above = (index - 1) >> 1;
      const parent = entries[above]!;
      if (parent.dueAtMs <= entry.dueAtMs) break;
      entries[index] = parent;
      parent.heapIndex = index;
      index = above;
    }
    entries[index] = entry;
    entry.heapIndex = index;
  }

  #down(from: number, entry: T): void {
    const entries = this.#entries;
    let index = from;
    for (;;) {
      let below = 2 * index + 1;
      if (below >= entries.length) break;
      if (below + 1 < entries.length && entries[below + 1]!.dueAtMs < entries[below]!.dueAtMs) below++;
      const child = entries[below]!;
      if (child.dueAtMs >= entry.dueAtMs) break;
      entries[index] = child;
      child.heapIndex = index;
      index = below;
    }
    entries[index] = entry;
    entry.heapIndex = index;
  }
}
