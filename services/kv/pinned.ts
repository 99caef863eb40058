/** The store held still at one revision, for what reads all of it while writes go on: backups and hashes. */
import type { Mvcc } from "./mvcc.ts";
import type { Identity } from "./record.ts";

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
    this.#old = found.inOrder();
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

  /** Sorted by revision and order within it, digit by digit: comparing a million rows would hold up writes for a second. */
  inOrder(): Int32Array {
    let order = Int32Array.from({ length: this.#size }, (_, i) => i);
    for (
      const [column, largest] of [[this.#subs, maxOf(this.#subs, this.#size)], [
        this.#mods,
        maxOf(this.#mods, this.#size),
      ]] as const
    ) {
      for (let scale = 1; scale <= largest; scale *= DIGITS) order = sortByDigit(order, column, scale);
    }
    return order.map((index) => this.#rows[index]!);
  }
}

/** Stable, by the digit of weight `scale`. */
function sortByDigit(order: Int32Array, column: ArrayLike<number>, scale: number): Int32Array<ArrayBuffer> {
  const starts = new Uint32Array(DIGITS + 1);
  const digitOf = (index: number) => Math.floor(column[index]! / scale) % DIGITS;
  for (const index of order) starts[digitOf(index) + 1]!++;
  for (let digit = 1; digit <= DIGITS; digit++) starts[digit]! += starts[digit - 1]!;
  const sorted = new Int32Array(order.length);
  for (const index of order) sorted[starts[digitOf(index)]!++] = index;
  return sorted;
}

function maxOf(column: ArrayLike<number>, size: number): number {
  let largest = 0;
  for (let i = 0; i < size; i++) largest = Math.max(largest, column[i]!);
  return largest;
}
