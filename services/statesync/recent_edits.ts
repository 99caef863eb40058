/** The last edits of an open document, for stale operations to meet (SPEC §3). */
import type { LaterEdit } from "./crdt/stale.ts";
import type { Touch } from "./crdt/touch.ts";
import type { Entry } from "./records.ts";

/** Edits remembered while there are some under way: all who were late at once find them here. */
const EDITS_MAX = 256;
/** Edits remembered otherwise; for an operation that is staler they are read from the store. Of many open documents what is
 *  remembered outlives what is young, and makes collecting garbage dear. */
const EDITS_KEPT = 16;
/** Bytes that they take. One edit is remembered whatever its size. */
const BYTES_MAX = 262_144;
/** The part of a hybrid logical clock that counts within a millisecond. */
const HLC_PER_MS = 65_536n;

/** The entries that made versions, without a hole up to the present one. */
export class RecentEdits {
  /** What came after this version is here. */
  #since: number;
  #edits: Entry[] = [];
  #bytes = 0;

  /** Remembers what comes after `version`. */
  constructor(version: number) {
    this.#since = version;
  }

  /** The oldest version after which everything is remembered. */
  get since(): number {
    return this.#since;
  }

  /** Bytes that it takes, about. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds the entry that made the next version. */
  add(edit: Entry): void {
    this.#edits.push(edit);
    this.#bytes += bytesOf(edit);
    // Half of them go at once, so that adding stays cheap.
    if (this.#edits.length >= 2 * EDITS_MAX) this.#drop(EDITS_MAX);
    while (this.#bytes > BYTES_MAX && this.#edits.length > 1) this.#drop(this.#edits.length >>> 1);
  }

  /** Nothing is under way: only the last ones are remembered. */
  settle(): void {
    if (this.#edits.length >= 2 * EDITS_KEPT) this.#drop(this.#edits.length - EDITS_KEPT);
  }

  /** All that made versions after that one, in their order; undefined when they are not all remembered. */
  after(version: number): readonly Entry[] | undefined {
    if (version < this.#since) return undefined;
    return this.#edits.slice(version - this.#since);
  }

  #drop(count: number): void {
    for (const edit of this.#edits.splice(0, count)) {
      this.#bytes -= bytesOf(edit);
      this.#since = edit.version;
    }
  }
}

/** Bytes of an entry besides its update, about. */
const ENTRY_BYTES = 1_024;

function bytesOf({ update }: Entry): number {
  return ENTRY_BYTES + (update?.length ?? 0);
}

const NOTHING: Touch = { properties: new Map(), texts: new Map(), hasOthers: false };

/** The edits as those who are late meet them; `touchOf` says what an update touched. */
export function laterEdits(edits: readonly Entry[], touchOf: (update: Uint8Array) => Touch): LaterEdit[] {
  return edits.map(({ update, operation, operationKey, atMs }) => ({
    touch: update === undefined ? NOTHING : touchOf(update),
    hlc: operation?.hlc ?? BigInt(atMs) * HLC_PER_MS,
    ...(operationKey === undefined ? {} : { key: operationKey }),
  }));
}

/** The next hybrid logical clock of a document, and the one that an operation gets which brings its own (SPEC §2.3). */
export function nextHlc(newest: bigint, nowMs: number): bigint {
  const now = BigInt(nowMs) * HLC_PER_MS;
  return newest >= now ? newest + 1n : now;
}

/** How far ahead of the server's time a client's clock may be, in milliseconds. */
const AHEAD_MAX_MS = 1_000;

/** A client's clock, cut to the server's time where it lies too far ahead (SPEC §2.3). */
export function cutHlc(hlc: bigint, nowMs: number): bigint {
  return hlc > BigInt(nowMs + AHEAD_MAX_MS) * HLC_PER_MS ? BigInt(nowMs) * HLC_PER_MS : hlc;
}
