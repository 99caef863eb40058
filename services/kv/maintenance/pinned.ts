/** The store held still at one revision, for what reads all of it while writes go on: backups and hashes. */
import type { Mvcc } from "../mvcc.ts";
import type { Identity } from "../record.ts";

/** Keys looked at in one turn while rows are gathered: about a millisecond. */
const KEYS_PER_TURN = 2_048;
const DIGITS = 65_536;

/** What is held. */
export interface PinnedScope {
  readonly revision: number;
  readonly compactRevision: number;
  readonly identity: Identity;
  /** Named entries as of that revision. */
  readonly entries: ReadonlyMap<string, Uint8Array>;
}

/** A store at one revision. Nothing of it is purged until `release`. */
export class PinnedStore implements PinnedScope {
  readonly revision: number;
  readonly compactRevision: number;
  readonly identity: Identity;
  readonly entries: ReadonlyMap<string, Uint8Array>;
  readonly #release: () => void;
  /** Rows older than the compact revision that can still be read, in the order in which they were written. */
  #old: Int32Array | undefined;

  /** `onRelease` is called once when purging may go on. */
  constructor(readonly state: Mvcc, scope: PinnedScope, onRelease: () => void) {
    this.revision = scope.revision;
    this.compactRevision = scope.compactRevision;
    this.identity = scope.identity;
    this.entries = scope.entries;
    const release = state.holdPurge();
    let isHeld = true;
    this.#release = () => {
      if (!isHeld) return;
      isHeld = false;
      release();
      onRelease();
    };
  }

  /** Gathers what `rows` needs, over several turns. Call it once, first. */
  async prepare(pause: () => Promise<void>): Promise<void> {
    const { state, compactRevision } = this;
    const found = new OldRows();
    for (let after: Uint8Array | undefined, isDone = compactRevision === 0; !isDone;) {
      let keys = 0;
      isDone = true;
      state.visitRows(after, compactRevision, compactRevision, (key, rows) => {
        const row = rows[0]!;
        if (state.modRevision(row) < compactRevision) {
          found.add(row, state.modRevision(row), state.subOf(row));
        }
        after = key;
        isDone = ++keys < KEYS_PER_TURN;
        return isDone;
      });
      await pause();
    }
    this.#old = await found.inOrder(pause);
  }

  /** Every row that can be read at the revisions held, in the order in which they were written. Deletions of the compact
   *  revision itself are left out, as nobody can tell them from keys that never were. */
  *rows(): Generator<number, void, void> {
    const { state, compactRevision } = this;
    if (this.#old === undefined) throw new Error("prepare() was not called");
    yield* this.#old;
    const end = state.indexOfRevision(this.revision + 1);
    for (let index = state.indexOfRevision(Math.max(compactRevision, 1)); index < end; index++) {
      const row = state.historyAt(index);
      if (state.modRevision(row) > compactRevision || !state.isTombstone(row)) yield row;
    }
  }

  /** Lets purging go on. Idempotent. */
  release(): void {
    this.#release();
  }
}

/** Rows with what they are ordered by, in columns. */
class OldRows {
  #size = 0;
  #rows: Int32Array = new Int32Array(1_024);
  #mods: Float64Array = new Float64Array(1_024);
  #subs: Uint32Array = new Uint32Array(1_024);

  add(row: number, mod: number, sub: number): void {
    if (this.#size === this.#rows.length) {
      const rows = new Int32Array(this.#size * 2);
      const mods = new Float64Array(this.#size * 2);
      const subs = new Uint32Array(this.#size * 2);
      rows.set(this.#rows);
      mods.set(this.#mods);
      subs.set(this.#subs);
      [this.#rows, this.#mods, this.#subs] = [rows, mods, subs];
    }
    this.#rows[this.#size] = row;
    this.#mods[this.#size] = mod;
    this.#subs[this.#size++] = sub;
  }

  /** Sorted by revision and order within it, digit by digit and a turn each: comparing a million rows would hold up writes
   *  for a second. */
  async inOrder(pause: () => Promise<void>): Promise<Int32Array> {
    const size = this.#size;
    let order = new Int32Array(size);
    for (let i = 0; i < size; i++) order[i] = i;
    for (const column of [this.#subs, this.#mods]) {
      const largest = maxOf(column, size);
      for (let scale = 1; scale <= largest; scale *= DIGITS) {
        await pause();
        order = sortByDigit(order, column, scale);
      }
    }
    await pause();
    const rows = this.#rows;
    for (let i = 0; i < size; i++) order[i] = rows[order[i]!]!;
    return order;
  }
}

/** Stable, by the digit of weight `scale`. */
function sortByDigit(
  order: Int32Array,
  column: Float64Array | Uint32Array,
  scale: number,
): Int32Array<ArrayBuffer> {
  const size = order.length;
  const digits = new Uint16Array(size);
  const starts = new Uint32Array(DIGITS + 1);
  for (let i = 0; i < size; i++) {
    const digit = Math.floor(column[order[i]!]! / scale) % DIGITS;
    digits[i] = digit;
    starts[digit + 1]!++;
  }
  for (let digit = 1; digit <= DIGITS; digit++) starts[digit]! += starts[digit - 1]!;
  const sorted = new Int32Array(size);
  for (let i = 0; i < size; i++) sorted[starts[digits[i]!]!++] = order[i]!;
  return sorted;
}

function maxOf(column: Float64Array | Uint32Array, size: number): number {
  let largest = 0;
  for (let i = 0; i < size; i++) if (column[i]! > largest) largest = column[i]!;
  return largest;
}
