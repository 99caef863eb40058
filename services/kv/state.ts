/** The multi-version store as a pure machine on memory: no I/O, no clock, no chance.
 *
 *  Every change of a key is a row: revision, order within the revision, create revision, version, value. Rows of one key
 *  form a chain from the newest back; a deletion is a row too (a tombstone). All rows since the last compaction are also
 *  in `history`, in the order in which they were written, which is what watchers read and what compaction walks.
 *
 *      history   … [row 7: b@5] [row 9: a@6] [row 2: b@6] [row 4: a@7]      (key@revision)
 *      chains    a: 4 → 9        b: 2 → 7
 *
 *  Writes go to revision `revision + 1` until `commit`, which makes it the newest, or `rollback`, which undoes them.
 *  A key is written at most once in one revision. */
import { Arena, storedBytes } from "./memory/arena.ts";
import { KvError } from "./errors.ts";
import { History } from "./memory/history.ts";
import { compareBytes, type KeyRange } from "./key.ts";
import { grownInt32, grownUint32, KEY_OVERHEAD_BYTES, KeyIndex } from "./memory/key_index.ts";
import { LeaseSlots } from "./memory/lease_slots.ts";
import {
  hasFilters,
  isCutBeforeSort,
  type KeyValue,
  type Mvcc,
  type PageRows,
  RANGE_BYTES_MAX,
  type RangeQuery,
  type RangeResult,
} from "./mvcc.ts";
import { ArenaValues, type RowValues } from "./memory/row_values.ts";

/** Marks a tombstone in the column of value lengths. */
const TOMBSTONE = 0xffff_ffff;
/** Bytes of columns and history that one row takes. */
const ROW_BYTES = 52;
/** Columns grow by this factor. */
const GROWTH = 1.5;
/** Keys that one slice of reclaiming looks at: about a millisecond. */
const RECLAIM_SLICE_KEYS = 2_048;
const NO_BYTES = new Uint8Array(0);

/** The store. Not more than one write at a time: `put`, `delete` …, then `commit` or `rollback`. */
export class MvccState implements Mvcc {
  /** Newest revision; an empty store is at 1, so the first write gets 2. */
  revision = 1;
  /** Reads below it are refused; 0 when nothing was compacted. */
  compactRevision = 0;
  readonly history = new History();
  /** Bytes that superseded values and tombstones take: what compaction can give back. */
  historyBytes = 0;

  readonly #arena = new Arena();
  readonly #values: RowValues;
  readonly #keys: KeyIndex;
  readonly #leases: LeaseSlots;
  #mod: Float64Array = new Float64Array(1_024);
  #create: Float64Array = new Float64Array(1_024);
  #version: Float64Array = new Float64Array(1_024);
  #sub: Uint32Array = new Uint32Array(1_024);
  #key: Int32Array = new Int32Array(1_024);
  #address: Uint32Array = new Uint32Array(1_024);
  #length: Uint32Array = new Uint32Array(1_024);
  #lease: Uint32Array = new Uint32Array(1_024);
  /** Next older row of the same key, or -1; links free rows too. */
  #prev: Int32Array = new Int32Array(1_024);
  #rowsMade = 0;
  #rowsUsed = 0;
  #freeRow = -1;
  /** Rows written since the last commit. */
  #changes = 0;
  /** Rows of history before this index have nothing older behind them any more. */
  #trimmed = 0;
  /** Purging waits while a snapshot reads the rows. */
  #purgeHolds = 0;

  /** `seed` of the key hash: 32 unpredictable bits. `values` of the rows are in memory unless said otherwise. */
  constructor(seed: number, values?: RowValues) {
    this.#keys = new KeyIndex(this.#arena, seed);
    this.#leases = new LeaseSlots(seed);
    this.#values = values ?? new ArenaValues(this.#arena);
  }

  /** Live keys, uncommitted writes included. */
  get keyCount(): number {
    return this.#keys.live;
  }

  /** Bytes of keys, values and bookkeeping: what the quota counts. */
  get bytes(): number {
    return this.#arena.usedBytes + this.#values.usedBytes + this.#rowsUsed * ROW_BYTES +
      this.#keys.size * KEY_OVERHEAD_BYTES;
  }

  /** Bytes of memory that are set aside for what `bytes` counts, and not given back while it shrinks. */
  get reservedBytes(): number {
    return this.#arena.reservedBytes + this.#values.usedBytes + this.#mod.length * ROW_BYTES +
      this.#keys.size * KEY_OVERHEAD_BYTES;
  }

  /** Bytes that a put of a new key takes at most. */
  costOfPut(keyBytes: number, valueBytes: number): number {
    return storedBytes(keyBytes) + this.#values.costOf(valueBytes) + ROW_BYTES + KEY_OVERHEAD_BYTES;
  }

  // ---- writing ----

  /** Puts `value`, or the value the key has when undefined (the key must be live then). Returns the new row. */
  put(key: Uint8Array, value: Uint8Array | undefined, lease = 0n): number {
    let id = this.#keys.find(key);
    const isNew = id < 0;
    const before = isNew ? -1 : this.#keys.head[id]!;
    const wasLive = before >= 0 && this.#length[before] !== TOMBSTONE;
    if (value === undefined && !wasLive) throw new RangeError("Cannot keep the value: the key is not live");
    if (isNew) id = this.#keys.insert(key, true);
    else if (!wasLive) this.#keys.setLive(id, true);
    const bytes = value ?? this.valueOf(before);
    const row = this.#newRow(id, before);
    this.#create[row] = wasLive ? this.#create[before]! : this.revision + 1;
    this.#version[row] = wasLive ? this.#version[before]! + 1 : 1;
    this.#address[row] = this.#values.store(bytes);
    this.#length[row] = bytes.length;
    this.#lease[row] = this.#leases.take(lease);
    if (wasLive) this.historyBytes += this.#rowBytes(before);
    return row;
  }

  /** Deletes one key; false, and no change, if it is not there. */
  delete(key: Uint8Array): boolean {
    const id = this.#keys.find(key);
    if (id < 0 || !this.#keys.isLive(id)) return false;
    this.#keys.setLive(id, false);
    this.#bury(id);
    return true;
  }

  /** Deletes the keys of a range and returns how many there were. */
  deleteRange(range: KeyRange): number {
    const [from, to] = this.#positions(range);
    if (to <= from) return 0;
    let deleted = 0;
    this.#keys.takeLive(from, to, (id) => {
      this.#bury(id);
      deleted++;
    });
    return deleted;
  }

  /** Whether anything was written since the last commit. */
  get hasChanges(): boolean {
    return this.#changes > 0;
  }

  /** Makes the writes the newest revision and returns it; without writes the revision stays. */
  commit(): number {
    if (this.#changes === 0) return this.revision;
    this.#changes = 0;
    this.revision++;
    return this.revision;
  }

  /** Undoes the writes since the last commit. */
  rollback(): void {
    for (; this.#changes > 0; this.#changes--) {
      const row = this.history.pop();
      const id = this.#key[row]!;
      const before = this.#prev[row]!;
      const wasLive = before >= 0 && this.#length[before] !== TOMBSTONE;
      this.#keys.head[id] = before;
      if (wasLive) this.historyBytes -= this.#rowBytes(before);
      if (this.#length[row] === TOMBSTONE) this.historyBytes -= ROW_BYTES;
      this.#freeRowOf(row);
      if (before < 0) this.#keys.remove(id);
      else {
        this.#keys.setLive(id, wasLive);
        // The tombstone may have left history while the undone put kept the key.
        if (!wasLive && !this.#isInHistory(before)) this.#forget(id);
      }
    }
  }

  // ---- reading ----

  /** Row of `key` visible at `revision`, or -1 when the key does not exist there. Not checked against compaction. */
  rowAt(key: Uint8Array, revision: number): number {
    const id = this.#keys.find(key);
    return id < 0 ? -1 : this.#visible(id, revision);
  }

  /** The whole record of a row that is not a tombstone. */
  keyValue(row: number, keysOnly = false): KeyValue {
    return this.#record(row, keysOnly ? NO_BYTES : this.valueOf(row));
  }

  #record(row: number, value: Uint8Array): KeyValue {
    return {
      key: this.#keys.keyOf(this.#key[row]!),
      value,
      createRevision: this.#create[row]!,
      modRevision: this.#mod[row]!,
      version: this.#version[row]!,
      lease: this.leaseOf(row),
    };
  }

  /** A copy of a row's value; empty for a tombstone. */
  valueOf(row: number): Uint8Array {
    const length = this.#length[row]!;
    return length === TOMBSTONE ? NO_BYTES : this.#values.copy(this.#address[row]!, length);
  }

  /** A copy of a row's key. */
  keyOf(row: number): Uint8Array {
    return this.#keys.keyOf(this.#key[row]!);
  }

  modRevision(row: number): number {
    return this.#mod[row]!;
  }

  createRevision(row: number): number {
    return this.#create[row]!;
  }

  version(row: number): number {
    return this.#version[row]!;
  }

  /** Lease of a row; 0 for none. */
  leaseOf(row: number): bigint {
    return this.#leases.idOf(this.#lease[row]!);
  }

  /** Order of a row within its revision. */
  subOf(row: number): number {
    return this.#sub[row]!;
  }

  /** Where a row's value, or its deletion, is kept: as RowValues numbered it. */
  addressOf(row: number): number {
    return this.#address[row]!;
  }

  isTombstone(row: number): boolean {
    return this.#length[row] === TOMBSTONE;
  }

  /** Bytes of a row's key and value, for bounds on answers. */
  payloadBytes(row: number): number {
    const length = this.#length[row]!;
    return this.#keys.keyLength(this.#key[row]!) + (length === TOMBSTONE ? 0 : length);
  }

  /** Whether the row's key is in the range. */
  isRowWithin(row: number, range: KeyRange): boolean {
    return this.#keys.isWithin(this.#key[row]!, range.start, range.end);
  }

  /** The row that `row` superseded if that was a value and its revision can still be read, else -1. */
  previousOf(row: number): number {
    if (this.#mod[row]! - 1 < this.compactRevision) return -1;
    const before = this.#prev[row]!;
    return before >= 0 && this.#length[before] !== TOMBSTONE ? before : -1;
  }

  /** Lease of the value that `row` superseded; 0 for none. */
  previousLeaseOf(row: number): bigint {
    const before = this.#prev[row]!;
    return before < 0 ? 0n : this.leaseOf(before);
  }

  /** Calls `visit` with the row of every live key that has a lease. */
  visitLeased(visit: (row: number) => void): void {
    if (this.#leases.size === 0) return;
    this.#keys.walk(0, this.#keys.endPosition, (id) => {
      const row = this.#keys.head[id]!;
      if (row >= 0 && this.#lease[row] !== 0) visit(row);
      return true;
    });
  }

  /** Rows of a key with revisions of `from` to `to`, oldest first, appended to `into`. */
  rowsOfKey(key: Uint8Array, from: number, to: number, into: number[]): void {
    const id = this.#keys.find(key);
    if (id < 0) return;
    const first = into.length;
    for (let row = this.#keys.head[id]!; row >= 0 && this.#mod[row]! >= from; row = this.#prev[row]!) {
      if (this.#mod[row]! <= to) into.push(row);
    }
    for (let low = first, high = into.length - 1; low < high; low++, high--) {
      const other = into[low]!;
      into[low] = into[high]!;
      into[high] = other;
    }
  }

  /** Answers a query for a reader to whom `newest` is the newest revision.
   *  @throws {KvError} `compacted`, `futureRevision`. */
  range(query: RangeQuery, newest: number): RangeResult {
    const revision = this.checkRevision(query.revision ?? 0, newest);
    if (query.range === "single") return this.#single(query, revision, newest);
    const [from, to] = this.#positions(query.range);
    if (to <= from) return { revision: newest, kvs: [], more: false, count: 0 };
    if (query.countOnly === true) {
      return { revision: newest, kvs: [], more: false, count: this.#count(from, to, query.range, revision) };
    }
    const limit = query.limit ?? 0;
    if (limit > 0 && isCutBeforeSort(query)) {
      const rows = this.#collect(from, to, revision, limit + 1);
      const more = rows.length > limit;
      const count = more ? this.#count(from, to, query.range, revision) : rows.length;
      this.#sort(rows, query);
      if (more) rows.length = limit;
      return { revision: newest, kvs: this.#materialise(rows, query), more, count };
    }
    const all = this.#collect(from, to, revision, Infinity);
    const count = all.length;
    const rows = hasFilters(query) ? all.filter((row) => this.#passes(row, query)) : all;
    this.#sort(rows, query);
    const more = limit > 0 && rows.length > limit;
    if (more) rows.length = limit;
    return { revision: newest, kvs: this.#materialise(rows, query), more, count };
  }

  /** Keys of a range visible at `revision`, as rows in key order. */
  rowsInRange(range: KeyRange, revision: number): number[] {
    const [from, to] = this.#positions(range);
    return to <= from ? [] : this.#collect(from, to, revision, Infinity);
  }

  /** The first `limit` keys of a range visible at `revision`, as rows in key order; fewer, with `isCut`, when their keys
   *  and values would exceed `bytesMax`, but always one if there is one. */
  pageRows(
    range: KeyRange,
    revision: number,
    limit: number,
    bytesMax: number,
  ): PageRows {
    const [from, to] = this.#positions(range);
    const rows: number[] = [];
    let bytes = 0;
    let isCut = false;
    this.#keys.walk(from, to, (id) => {
      const row = this.#visible(id, revision);
      if (row < 0) return true;
      bytes += this.payloadBytes(row);
      isCut = bytes > bytesMax && rows.length > 0;
      if (!isCut) rows.push(row);
      return !isCut && rows.length < limit;
    });
    return { rows, isCut };
  }

  /** The revision to read at, for a wish of `wanted`.
   *  @throws {KvError} `compacted`, `futureRevision`. */
  checkRevision(wanted: number, newest: number): number {
    if (wanted <= 0) return newest;
    if (wanted > newest) throw new KvError("futureRevision");
    if (wanted < this.compactRevision) throw new KvError("compacted");
    return wanted;
  }

  // ---- compaction ----

  /** Gives up history below `revision`, which must be above the last one and at most `newest`. The rows go with `purge`. */
  compact(revision: number, newest: number): void {
    if (revision <= this.compactRevision) throw new KvError("compacted");
    if (revision > newest) throw new KvError("futureRevision");
    this.compactRevision = revision;
  }

  /** Rows that wait to be looked at by `purge`; 0 while nothing is to be done or a hold stops it. */
  get purgeBacklog(): number {
    if (this.#purgeHolds > 0) return 0;
    const { history, compactRevision } = this;
    const kept = this.indexOfRevision(compactRevision);
    const trimmable = this.indexOfRevision(compactRevision + 1);
    return kept - history.start + Math.max(0, trimmable - Math.max(kept, this.#trimmed));
  }

  /** Looks at up to `budget` rows and frees what nobody can read any more: rows below the compact revision leave
   *  history, and what they, and the rows of that revision, superseded is freed. */
  purge(budget: number): void {
    if (this.#purgeHolds > 0) return;
    const history = this.history;
    for (; budget > 0 && history.length > 0; budget--) {
      const row = history.first;
      if (this.#mod[row]! >= this.compactRevision) break;
      history.shift();
      this.#trim(row);
      const id = this.#key[row]!;
      if (this.#keys.head[id] === row && this.#length[row] === TOMBSTONE) this.#forget(id);
    }
    this.#trimmed = Math.max(this.#trimmed, history.start);
    for (; budget > 0 && this.#trimmed < history.end; budget--) {
      const row = history.at(this.#trimmed);
      // Not before the loop above is done: it goes first through what is older.
      if (this.#mod[row]! !== this.compactRevision) return;
      this.#trim(row);
      this.#trimmed++;
    }
  }

  /** Stops purging until the returned function is called, so that a reader finds every row of its revision. */
  holdPurge(): () => void {
    this.#purgeHolds++;
    let held = true;
    return () => {
      if (held) this.#purgeHolds--;
      held = false;
    };
  }

  /** Index after the newest row of history. */
  get historyEnd(): number {
    return this.history.end;
  }

  /** Row at an index of history. */
  historyAt(index: number): number {
    return this.history.at(index);
  }

  /** First index of history whose row is of `revision` or later; `history.end` if there is none. */
  indexOfRevision(revision: number): number {
    let low = this.history.start;
    let high = this.history.end;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.#mod[this.history.at(middle)]! < revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Gives memory that lies free between values back to the system, a slice of keys at a time: writes may come between
   *  the slices. Columns keep their length, as rows keep their numbers. */
  *reclaim(): Generator<void, void, void> {
    this.#arena.closeSparse();
    let after: Uint8Array | undefined;
    for (let isDone = false; !isDone;) {
      isDone = true;
      let keys = 0;
      this.#keys.walk(
        after === undefined ? 0 : this.#keys.lowerBound(after),
        this.#keys.endPosition,
        (id) => {
          this.#keys.relocate(id);
          for (let row = this.#keys.head[id]!; row >= 0; row = this.#prev[row]!) this.#relocateValue(row);
          isDone = ++keys < RECLAIM_SLICE_KEYS;
          if (!isDone) after = this.#keys.keyOf(id);
          return isDone;
        },
      );
      yield;
    }
  }

  #relocateValue(row: number): void {
    if (this.#length[row] === TOMBSTONE || this.#values.relocate === undefined) return;
    this.#address[row] = this.#values.relocate(this.#address[row]!, this.#length[row]!);
  }

  // ---- snapshot and load ----

  /** Calls `visit` with keys after `after` in key order and the rows of each that a reader of revisions
   *  `compactRevision` to `revision` can see, newest first, until `visit` returns false. */
  visitRows(
    after: Uint8Array | undefined,
    compactRevision: number,
    revision: number,
    visit: (key: Uint8Array, rows: readonly number[]) => boolean,
  ): void {
    const from = after === undefined ? 0 : this.#keys.lowerBound(after);
    const rows: number[] = [];
    this.#keys.walk(from, this.#keys.endPosition, (id) => {
      rows.length = 0;
      for (let row = this.#keys.head[id]!; row >= 0; row = this.#prev[row]!) {
        const rowRevision = this.#mod[row]!;
        if (rowRevision > revision) continue;
        if (rowRevision < compactRevision && this.#length[row] === TOMBSTONE) break;
        rows.push(row);
        if (rowRevision <= compactRevision) break;
      }
      if (rows.length === 0) return true;
      const key = this.#keys.keyOf(id);
      // `after` itself is where the walk begins again; it was visited before.
      if (after !== undefined && compareBytes(key, after) === 0) return true;
      return visit(key, rows);
    });
  }

  /** Starts loading a snapshot into an empty state. */
  beginLoad(revision: number, compactRevision: number): void {
    if (this.#rowsUsed > 0) throw new RangeError("Cannot load a snapshot: the state is not empty");
    this.revision = revision;
    this.compactRevision = compactRevision;
  }

  /** Starts a key of the snapshot; keys come in key order, `live` says whether its newest row is a value. */
  loadKey(key: Uint8Array, live: boolean): number {
    return this.#keys.insert(key, live);
  }

  /** Adds the next newer row of the key; `value` undefined for a tombstone. */
  loadRow(
    id: number,
    modRevision: number,
    sub: number,
    createRevision: number,
    version: number,
    lease: bigint,
    value: Uint8Array | undefined,
  ): void {
    const address = value === undefined ? this.#values.storeTombstone() : this.#values.store(value);
    const length = value === undefined ? TOMBSTONE : value.length;
    this.#loadStored(id, modRevision, sub, createRevision, version, lease, address, length);
  }

  #loadStored(
    id: number,
    modRevision: number,
    sub: number,
    createRevision: number,
    version: number,
    lease: bigint,
    address: number,
    length: number,
  ): void {
    const before = this.#keys.head[id]!;
    const row = this.#takeRow();
    this.#mod[row] = modRevision;
    this.#sub[row] = sub;
    this.#create[row] = createRevision;
    this.#version[row] = version;
    this.#key[row] = id;
    this.#prev[row] = before;
    this.#address[row] = address;
    this.#length[row] = length;
    this.#lease[row] = this.#leases.take(lease);
    this.#keys.head[id] = row;
    if (before >= 0 && this.#length[before] !== TOMBSTONE) this.historyBytes += this.#rowBytes(before);
    if (length === TOMBSTONE) this.historyBytes += ROW_BYTES;
  }

  /** Adds a row to a state that is being loaded in the order in which its rows were written, as an alternative to `loadKey`,
   *  `loadRow` and `endLoad`. Rows that nobody can read any more are dropped: those superseded at or below the compact
   *  revision, and deletions below it. */
  appendRow(
    key: Uint8Array,
    modRevision: number,
    sub: number,
    createRevision: number,
    version: number,
    lease: bigint,
    value: Uint8Array | undefined,
  ): void {
    const address = value === undefined ? this.#values.storeTombstone() : this.#values.store(value);
    const length = value === undefined ? -1 : value.length;
    this.appendStored(key, modRevision, sub, createRevision, version, lease, address, length);
  }

  /** As appendRow, with a value that is where values are: at `address`, `length` bytes long; -1 for a tombstone. */
  appendStored(
    key: Uint8Array,
    modRevision: number,
    sub: number,
    createRevision: number,
    version: number,
    lease: bigint,
    address: number,
    length: number,
  ): void {
    const isLive = length >= 0;
    let id = this.#keys.find(key);
    if (id >= 0) this.#keys.setLive(id, isLive);
    else if (!isLive && modRevision < this.compactRevision) return this.#values.freeTombstone(address);
    else id = this.#keys.insert(key, isLive);
    this.#loadStored(
      id,
      modRevision,
      sub,
      createRevision,
      version,
      lease,
      address,
      isLive ? length : TOMBSTONE,
    );
    const row = this.#keys.head[id]!;
    if (modRevision <= this.compactRevision) this.#trim(row);
    if (modRevision >= this.compactRevision) this.history.push(row);
    else if (!isLive) this.#forget(id);
  }

  /** Says that many writes follow and no range is read meanwhile, or no longer: see KeyIndex.deferOrder. */
  deferOrder(isDeferred: boolean): void {
    this.#keys.deferOrder(isDeferred);
  }

  /** Ends loading: puts the rows that watchers may ask for in the order in which they were written. */
  endLoad(): void {
    const first = this.compactRevision;
    // Counting sort: revisions are dense, comparing a million rows would cost a second.
    const starts = new Uint32Array(Math.max(0, this.revision - first) + 2);
    let total = 0;
    for (let row = 0; row < this.#rowsMade; row++) {
      if (this.#mod[row]! < first) continue;
      starts[this.#mod[row]! - first + 1]!++;
      total++;
    }
    for (let i = 1; i < starts.length; i++) starts[i]! += starts[i - 1]!;
    const ordered = new Int32Array(total);
    const next = starts.slice();
    for (let row = 0; row < this.#rowsMade; row++) {
      if (this.#mod[row]! >= first) ordered[next[this.#mod[row]! - first]!++] = row;
    }
    for (let i = 0; i + 1 < starts.length; i++) {
      if (starts[i + 1]! - starts[i]! > 1) {
        ordered.subarray(starts[i]!, starts[i + 1]!).sort((a, b) => this.#sub[a]! - this.#sub[b]!);
      }
    }
    for (const row of ordered) this.history.push(row);
  }

  // ---- helpers ----

  /** Frees the row that `row` superseded. */
  #trim(row: number): void {
    const before = this.#prev[row]!;
    if (before < 0) return;
    this.#prev[row] = -1;
    this.historyBytes -= this.#rowBytes(before);
    this.#freeRowOf(before);
  }

  #bury(id: number): void {
    const before = this.#keys.head[id]!;
    this.historyBytes += this.#rowBytes(before) + ROW_BYTES;
    const row = this.#newRow(id, before);
    this.#create[row] = 0;
    this.#version[row] = 0;
    this.#address[row] = this.#values.storeTombstone();
    this.#length[row] = TOMBSTONE;
    this.#lease[row] = 0;
  }

  /** A row of the next revision at the head of its key's chain and at the end of history. */
  #newRow(id: number, before: number): number {
    const row = this.#takeRow();
    this.#mod[row] = this.revision + 1;
    this.#sub[row] = this.#changes++;
    this.#key[row] = id;
    this.#prev[row] = before;
    this.#keys.head[id] = row;
    this.history.push(row);
    return row;
  }

  #takeRow(): number {
    this.#rowsUsed++;
    if (this.#freeRow >= 0) {
      const row = this.#freeRow;
      this.#freeRow = this.#prev[row]!;
      return row;
    }
    if (this.#rowsMade === this.#mod.length) this.#growRows(Math.ceil(this.#rowsMade * GROWTH));
    return this.#rowsMade++;
  }

  #growRows(rows: number): void {
    this.#mod = grownFloat64(this.#mod, rows);
    this.#create = grownFloat64(this.#create, rows);
    this.#version = grownFloat64(this.#version, rows);
    this.#sub = grownUint32(this.#sub, rows);
    this.#key = grownInt32(this.#key, rows);
    this.#address = grownUint32(this.#address, rows);
    this.#length = grownUint32(this.#length, rows);
    this.#lease = grownUint32(this.#lease, rows);
    this.#prev = grownInt32(this.#prev, rows);
  }

  #freeRowOf(row: number): void {
    if (this.#length[row] === TOMBSTONE) this.#values.freeTombstone(this.#address[row]!);
    else this.#values.free(this.#address[row]!, this.#length[row]!);
    this.#leases.release(this.#lease[row]!);
    this.#prev[row] = this.#freeRow;
    this.#freeRow = row;
    this.#rowsUsed--;
  }

  /** Drops a key of which only a tombstone outside history is left. */
  #forget(id: number): void {
    this.historyBytes -= ROW_BYTES;
    this.#freeRowOf(this.#keys.head[id]!);
    this.#keys.remove(id);
  }

  #isInHistory(row: number): boolean {
    const revision = this.#mod[row]!;
    for (let i = this.indexOfRevision(revision); i < this.history.end; i++) {
      const other = this.history.at(i);
      if (other === row) return true;
      if (this.#mod[other]! > revision) return false;
    }
    return false;
  }

  #rowBytes(row: number): number {
    const length = this.#length[row]!;
    return ROW_BYTES + (length === TOMBSTONE ? 0 : this.#values.costOf(length));
  }

  #visible(id: number, revision: number): number {
    let row = this.#keys.head[id]!;
    while (row >= 0 && this.#mod[row]! > revision) row = this.#prev[row]!;
    return row >= 0 && this.#length[row] !== TOMBSTONE ? row : -1;
  }

  #positions(range: KeyRange): [number, number] {
    const from = this.#keys.lowerBound(range.start);
    return [from, range.end === undefined ? this.#keys.endPosition : this.#keys.lowerBound(range.end)];
  }

  #single(query: RangeQuery, revision: number, newest: number): RangeResult {
    const row = this.rowAt(query.key, revision);
    if (row < 0) return { revision: newest, kvs: [], more: false, count: 0 };
    if (query.countOnly === true || (hasFilters(query) && !this.#passes(row, query))) {
      return { revision: newest, kvs: [], more: false, count: 1 };
    }
    return { revision: newest, kvs: [this.keyValue(row, query.keysOnly)], more: false, count: 1 };
  }

  #collect(from: number, to: number, revision: number, limit: number): number[] {
    const rows: number[] = [];
    this.#keys.walk(from, to, (id) => {
      const row = this.#visible(id, revision);
      if (row >= 0) rows.push(row);
      return rows.length < limit;
    });
    return rows;
  }

  /** Keys of a range visible at `revision`: live keys now, corrected by what was written since, when that is less work. */
  #count(from: number, to: number, range: KeyRange, revision: number): number {
    const since = this.indexOfRevision(revision + 1);
    if (this.history.end - since > this.#keys.spanAtMost(from, to)) {
      let count = 0;
      this.#keys.walk(from, to, (id) => {
        if (this.#visible(id, revision) >= 0) count++;
        return true;
      });
      return count;
    }
    let count = this.#keys.countLive(from, to);
    for (let i = since; i < this.history.end; i++) {
      const row = this.history.at(i);
      const before = this.#prev[row]!;
      // Only a key's first row after `revision` knows what the key was then.
      if (before >= 0 && this.#mod[before]! > revision) continue;
      if (!this.isRowWithin(row, range)) continue;
      if (before >= 0 && this.#length[before] !== TOMBSTONE) count++;
      if (this.#keys.isLive(this.#key[row]!)) count--;
    }
    return count;
  }

  #passes(row: number, query: RangeQuery): boolean {
    const mod = this.#mod[row]!;
    const created = this.#create[row]!;
    const { minModRevision = 0, maxModRevision = 0, minCreateRevision = 0, maxCreateRevision = 0 } = query;
    return !(minModRevision !== 0 && mod < minModRevision) &&
      !(maxModRevision !== 0 && mod > maxModRevision) &&
      !(minCreateRevision !== 0 && created < minCreateRevision) &&
      !(maxCreateRevision !== 0 && created > maxCreateRevision);
  }

  /** Sorts rows that are in key order; among equals the smaller key comes first, whichever way the rest is sorted. */
  #sort(rows: number[], query: RangeQuery): void {
    const isDescending = query.sortOrder === "descend";
    const target = query.sortTarget ?? "key";
    if (target === "key") {
      if (isDescending) rows.reverse();
      return;
    }
    const sign = isDescending ? -1 : 1;
    if (target === "value") {
      this.#sortByValue(rows, sign);
      return;
    }
    const column = target === "version" ? this.#version : target === "create" ? this.#create : this.#mod;
    rows.sort((a, b) => sign * (column[a]! - column[b]!));
  }

  #sortByValue(rows: number[], sign: number): void {
    const values = this.#values;
    if (values.compare !== undefined) {
      rows.sort((a, b) =>
        sign * values.compare!(this.#address[a]!, this.#length[a]!, this.#address[b]!, this.#length[b]!)
      );
      return;
    }
    const read = rows.map((row) => ({ row, value: this.valueOf(row) }));
    read.sort((a, b) => sign * compareBytes(a.value, b.value));
    for (let i = 0; i < rows.length; i++) rows[i] = read[i]!.row;
  }

  #materialise(rows: readonly number[], query: RangeQuery): KeyValue[] {
    let bytes = 0;
    for (const row of rows) {
      bytes += query.keysOnly ? this.#keys.keyLength(this.#key[row]!) : this.payloadBytes(row);
    }
    if (bytes > RANGE_BYTES_MAX) throw new KvError("answerTooLarge");
    const values = this.#values;
    if (values.copyAll !== undefined && !query.keysOnly && rows.length > 1) {
      const copies = values.copyAll(
        rows.map((row) => this.#address[row]!),
        rows.map((row) => this.#length[row]!),
      );
      return rows.map((row, i) => this.#record(row, copies[i]!));
    }
    return rows.map((row) => this.keyValue(row, query.keysOnly));
  }
}

function grownFloat64(column: Float64Array, rows: number): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(rows);
  larger.set(column);
  return larger;
}
