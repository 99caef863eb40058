/** What a channel carried lately: a bounded run of messages without a gap. */

/** A place in a channel: everything up to `offset` has been seen, of the life of offsets that `epoch` names. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A message of a channel, as it was encoded once for everybody. */
export interface Publication {
  /** Rises within an epoch. */
  readonly offset: number;
  /** Name of the event, which filters go by. */
  readonly event: string;
  /** The whole `notify` message. */
  readonly text: string;
}

/** Most messages of one answer to a question for history. */
export const HISTORY_ENTRIES_MAX = 1_000;

/** How much is kept. */
export interface HistoryLimits {
  readonly messages: number;
  readonly bytes: number;
}

/** Bytes that a message takes besides its text: the object, and its place in the list. */
const ENTRY_BYTES = 128;

/** The run: all messages with `floor < offset <= newest`. */
export class History {
  #entries: Publication[] = [];
  #bytes = 0;
  #floor: number;

  /** Begins empty behind `floor`. `onBytes` hears of what it takes more or less. */
  constructor(
    floor: number,
    readonly limits: HistoryLimits,
    readonly onBytes: (change: number) => void = () => {},
  ) {
    this.#floor = floor;
  }

  /** Offset behind which nothing is missing. */
  get floor(): number {
    return this.#floor;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Adds the next message; the oldest make room. */
  push(entry: Publication): void {
    this.#entries.push(entry);
    this.#count(bytesOf(entry));
    while (this.#entries.length > this.limits.messages || this.#bytes > this.limits.bytes) this.dropOldest();
  }

  /** Forgets the oldest message. False when there is none. */
  dropOldest(): boolean {
    const gone = this.#entries.shift();
    if (gone === undefined) return false;
    this.#floor = gone.offset;
    this.#count(-bytesOf(gone));
    return true;
  }

  /** Forgets everything; what follows begins behind `floor`. */
  reset(floor: number): void {
    this.#entries = [];
    this.#floor = floor;
    this.#count(-this.#bytes);
  }

  /** All behind `offset`; undefined when some of it is not here any more. */
  since(offset: number): readonly Publication[] | undefined {
    if (offset < this.#floor) return undefined;
    let from = this.#entries.length;
    while (from > 0 && this.#entries[from - 1]!.offset > offset) from--;
    return this.#entries.slice(from);
  }

  /** The newest `limit`, oldest first. */
  newest(limit: number): readonly Publication[] {
    return this.#entries.slice(Math.max(0, this.#entries.length - limit));
  }

  /** Puts what another run has before this one's floor in front, as much as there is room for. */
  prepend(older: History): void {
    for (const entry of older.#entries.toReversed()) {
      if (entry.offset > this.#floor) continue;
      if (this.#entries.length >= this.limits.messages) return this.#raise(entry.offset);
      if (this.#bytes + bytesOf(entry) > this.limits.bytes) return this.#raise(entry.offset);
      this.#entries.unshift(entry);
      this.#count(bytesOf(entry));
    }
    this.#floor = Math.min(this.#floor, older.#floor);
  }

  #raise(offset: number): void {
    this.#floor = Math.min(this.#floor, offset);
  }

  #count(change: number): void {
    this.#bytes += change;
    this.onBytes(change);
  }
}

function bytesOf({ text }: Publication): number {
  return text.length + ENTRY_BYTES;
}
