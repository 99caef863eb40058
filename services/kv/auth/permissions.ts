/** What a user may read and write: the ranges of all of the user's roles, merged. */
import { type KeyRange, toBinaryString } from "../key.ts";

/** Ranges of keys without overlaps, in order; what touches is one range. Keys are binary strings (see key.ts), an end that
 *  is undefined is "no end". */
export class KeySpans {
  readonly #starts: string[] = [];
  readonly #ends: (string | undefined)[] = [];

  /** Merges the ranges; those that hold no key count for nothing. */
  constructor(ranges: readonly Span[]) {
    const sorted = ranges.filter(([start, end]) => end === undefined || start < end)
      .sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0);
    for (const [start, end] of sorted) {
      const last = this.#starts.length - 1;
      const lastEnd = this.#ends[last];
      if (last >= 0 && (lastEnd === undefined || start <= lastEnd)) {
        if (lastEnd !== undefined && (end === undefined || end > lastEnd)) this.#ends[last] = end;
      } else {
        this.#starts.push(start);
        this.#ends.push(end);
      }
    }
  }

  /** How many ranges are left after merging. */
  get size(): number {
    return this.#starts.length;
  }

  /** Whether every key of the range is covered. A range that holds no key must lie inside a covered one, as in etcd. */
  covers([start, end]: Span): boolean {
    const isEmpty = end !== undefined && end <= start;
    const first = isEmpty ? end : start;
    const index = this.#lastAtOrBefore(first);
    if (index < 0) return false;
    const coveredEnd = this.#ends[index];
    if (isEmpty) return this.#starts[index]! < end && (coveredEnd === undefined || coveredEnd > start);
    return coveredEnd === undefined || (end !== undefined && end <= coveredEnd);
  }

  /** Index of the last range that starts at or before `key`, or -1. */
  #lastAtOrBefore(key: string): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle]! <= key) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

/** The keys `start <= key < end` as binary strings. */
export type Span = readonly [start: string, end: string | undefined];

/** No key is smaller: the empty key does not exist, so a range from there on starts here. */
const FIRST_KEY = "\0";

/** What a request's key and range are as a span. */
export function spanOf(key: Uint8Array, range: KeyRange | "single"): Span {
  if (range === "single") {
    const only = toBinaryString(key);
    return [only, only + "\0"];
  }
  const start = range.start.length === 0 ? FIRST_KEY : toBinaryString(range.start);
  return [start, range.end === undefined ? undefined : toBinaryString(range.end)];
}
