/** The multi-version machine by statements: keys, values and history in the file, memory for its pages only.
 *
 *  A row's number is its id in `rows`: its place in history. Ids have no gaps from the oldest revision that can be read on,
 *  so history is the ids themselves. `heads` has the newest row of every key in key order and `olds` the superseded ones,
 *  so a reader of the present looks at one entry a key however long its history is.
 *
 *      put a (2nd time)   rows + [9: a@7]    heads a: 4 → 9    olds + [a@5: 4]
 *      purge up to 7      rows - [4: a@5]                      olds - [a@5: 4] */
import { type Database, SqliteError, type SqlRow, type Statement } from "../../../../storage/sqlite/mod.ts";
import { KvError } from "../../errors.ts";
import { compareBytes, type KeyRange, successorOf } from "../../key.ts";
import {
  hasFilters,
  isCutBeforeSort,
  type KeyValue,
  type Mvcc,
  type PageRows,
  RANGE_BYTES_MAX,
  type RangeQuery,
  type RangeResult,
} from "../../mvcc.ts";
import type { GroupWriter, SqliteStore } from "./store.ts";
import { leaseOfSql, leaseToSql, Meta, readNewest } from "./tables.ts";

/** What a row and a key take in the file besides key and value, about: numbers, and places in pages. */
const ROW_BYTES = 40;
const KEY_BYTES = 40;
/** Rows whose numbers are kept in memory after they were used: what one request, or one watcher's batch, comes back to. */
const RECENT_ROWS = 4_096;
/** Keys above this are not kept with them: RECENT_ROWS of them are 4 MiB. */
const RECENT_KEY_BYTES_MAX = 1_024;
/** Newest revisions of which the first row and the number of keys are known without looking. */
const RECENT_REVISIONS = 16_384;
/** Rows of a piece of a scan. */
const SCAN_ROWS = 512;
/** Rows that one call of purge looks at when few wait: a millisecond or two. A purge without a bound takes them all. */
const PURGE_ROWS = 128;
/** When many wait it looks at one in so many, or writers could outrun it for good. */
const PURGE_SHARE = 64;
/** Rows that may be gathered to be sorted: some 100 MB. More is refused. */
const SORT_ROWS_MAX = 500_000;
/** Rows of the first piece that is read with values, and bytes that later ones should have. */
const FIRST_VALUES = 32;
const VALUES_BYTES = 4 * 1_024 * 1_024;
/** Pages that a write changes, about: the end of `rows`, and a place in the index. */
const PAGES_A_WRITE = 2;
const NO_BYTES = new Uint8Array(0);
const NO_END = undefined;

/** Columns of the index, in the order of IndexRow. */
const INDEX_COLUMNS = "key, mod, id, sub, created, version, CAST(lease AS TEXT), size";

/** The numbers of a row. */
interface Row {
  readonly id: number;
  readonly key: Uint8Array;
  readonly mod: number;
  readonly sub: number;
  readonly created: number;
  readonly version: number;
  readonly lease: bigint;
  /** Length of the value; -1 for a deletion. */
  readonly size: number;
  /** The row it superseded, null for none; undefined when that is not known without looking. */
  before: Row | null | undefined;
}

/** A statement on a range of keys, with and without an end. */
interface RangeStatement {
  readonly bounded: Statement;
  readonly open: Statement;
}

/** What was written since the last commit: the row, and the head before it. */
interface Change {
  readonly row: Row;
  readonly before: Row | undefined;
}

/** Mvcc on a database. What it throws of the file's making is a KvError: `readOnly` for writes, `unreadable` for reads. */
export class DiskIndex implements Mvcc, GroupWriter {
  revision = 1;
  compactRevision = 0;
  keyCount = 0;
  bytes = 0;
  historyBytes = 0;
  readonly #database: Database;
  readonly #store: SqliteStore;
  readonly #sql: ReturnType<typeof prepareStatements>;
  readonly #recent: (Row | undefined)[] = new Array(RECENT_ROWS);
  /** First row of a revision, and keys that were live at it, at the revision's place modulo their length. */
  readonly #firstIds = new Float64Array(RECENT_REVISIONS);
  readonly #liveKeys = new Float64Array(RECENT_REVISIONS);
  /** Oldest revision of which they are known. */
  #knownFrom = 1;
  #changes: Change[] = [];
  /** Id of the next row, and of the first that is not committed. */
  #nextId = 1;
  #committedEnd = 1;
  /** First row that purging has not gone past. */
  #historyStart = 1;
  /** Rows before it have nothing older behind them any more. */
  #trimmed = 1;
  /** First rows of the compact revision and of the one after it. */
  #kept = 0;
  #trimmable = 0;
  #purgeHolds = 0;
  #groupWrites = 0;
  #isChanged = false;

  constructor(database: Database, store: SqliteStore) {
    this.#database = database;
    this.#store = store;
    this.#sql = prepareStatements(database);
    this.#load();
  }

  costOfPut(keyBytes: number, valueBytes: number): number {
    return 2 * keyBytes + valueBytes + ROW_BYTES + KEY_BYTES;
  }

  // ---- writing ----

  put(key: Uint8Array, value: Uint8Array | undefined, lease = 0n): number {
    const before = this.#head(key);
    const wasLive = before !== undefined && before.size >= 0;
    if (value === undefined && !wasLive) throw new RangeError("Cannot keep the value: the key is not live");
    const bytes = value ?? this.valueOf(before!.id);
    const row: Row = {
      id: this.#nextId,
      key: key.slice(),
      mod: this.revision + 1,
      sub: this.#changes.length,
      created: wasLive ? before.created : this.revision + 1,
      version: wasLive ? before.version + 1 : 1,
      lease,
      size: bytes.length,
      before: undefined,
    };
    this.#write(row, bytes, before);
    return row.id;
  }

  delete(key: Uint8Array): boolean {
    const before = this.#head(key);
    if (before === undefined || before.size < 0) return false;
    this.#bury(before);
    return true;
  }

  deleteRange(range: KeyRange): number {
    let deleted = 0;
    this.#walk(range, NO_END, (head) => {
      if (head.size >= 0) {
        this.#bury(head);
        deleted++;
      }
      return true;
    });
    return deleted;
  }

  get hasChanges(): boolean {
    return this.#changes.length > 0;
  }

  commit(): number {
    if (this.#changes.length === 0) return this.revision;
    this.revision++;
    const place = this.revision % RECENT_REVISIONS;
    this.#firstIds[place] = this.#committedEnd;
    this.#liveKeys[place] = this.keyCount;
    this.#committedEnd = this.#nextId;
    this.#changes = [];
    return this.revision;
  }

  rollback(): void {
    const changes = this.#changes;
    this.#changes = [];
    const { deleteRow, deleteHead, deleteOld } = this.#sql;
    for (let i = changes.length - 1; i >= 0; i--) {
      const { row, before } = changes[i]!;
      this.#count(row, before, -1);
      this.#forgetRecent(row.id);
      this.#nextId--;
      this.#store.attempt(() => {
        deleteRow.run(row.id);
        if (before === undefined) deleteHead.run(row.key);
        else {
          deleteOld.run(row.key, before.mod);
          this.#putHead(before);
        }
      });
    }
  }

  #bury(before: Row): void {
    const row: Row = {
      id: this.#nextId,
      key: before.key,
      mod: this.revision + 1,
      sub: this.#changes.length,
      created: 0,
      version: 0,
      lease: 0n,
      size: -1,
      before: undefined,
    };
    this.#write(row, null, before);
  }

  #write(row: Row, value: Uint8Array | null, before: Row | undefined): void {
    this.#store.begin();
    this.#store.attempt(() => {
      const { insertRow, insertOld } = this.#sql;
      const lease = leaseToSql(row.lease);
      insertRow.run(row.id, row.mod, row.sub, row.created, row.version, lease, row.key, value);
      if (before !== undefined) bindIndexRow(insertOld, before);
      this.#putHead(row);
    });
    row.before = before ?? null;
    // Or every row would keep all before it in memory.
    if (before !== undefined) before.before = undefined;
    this.#nextId++;
    this.#changes.push({ row, before });
    this.#count(row, before, 1);
    this.#remember(row);
  }

  #putHead(row: Row): void {
    bindIndexRow(this.#sql.putHead, row);
  }

  /** Counts a write, or takes it back. */
  #count(row: Row, before: Row | undefined, sign: 1 | -1): void {
    const wasLive = before !== undefined && before.size >= 0;
    const isLive = row.size >= 0;
    this.keyCount += sign * (Number(isLive) - Number(wasLive));
    this.bytes += sign * (rowBytes(row) + (before === undefined ? keyBytes(row) : 0));
    if (wasLive) this.historyBytes += sign * rowBytes(before);
    if (!isLive) this.historyBytes += sign * rowBytes(row);
    this.#groupWrites++;
    this.#isChanged = true;
  }

  // ---- reading ----

  rowAt(key: Uint8Array, revision: number): number {
    const row = this.#visible(this.#head(key), revision);
    return row === undefined ? -1 : row.id;
  }

  keyValue(row: number, keysOnly = false): KeyValue {
    return toKeyValue(this.#row(row), keysOnly ? NO_BYTES : this.valueOf(row));
  }

  valueOf(row: number): Uint8Array {
    return (read(() => this.#sql.valueById.get(row))?.[0] ?? NO_BYTES) as Uint8Array;
  }

  keyOf(row: number): Uint8Array {
    return this.#row(row).key.slice();
  }

  modRevision(row: number): number {
    return this.#row(row).mod;
  }

  createRevision(row: number): number {
    return this.#row(row).created;
  }

  version(row: number): number {
    return this.#row(row).version;
  }

  leaseOf(row: number): bigint {
    return this.#row(row).lease;
  }

  subOf(row: number): number {
    return this.#row(row).sub;
  }

  isTombstone(row: number): boolean {
    return this.#row(row).size < 0;
  }

  payloadBytes(row: number): number {
    const { key, size } = this.#row(row);
    return key.length + Math.max(0, size);
  }

  isRowWithin(row: number, range: KeyRange): boolean {
    return isWithin(this.#row(row).key, range);
  }

  previousOf(row: number): number {
    const found = this.#row(row);
    if (found.mod - 1 < this.compactRevision) return -1;
    const before = this.#before(found);
    return before !== undefined && before.size >= 0 ? before.id : -1;
  }

  previousLeaseOf(row: number): bigint {
    return this.#before(this.#row(row))?.lease ?? 0n;
  }

  visitLeased(visit: (row: number) => void): void {
    for (let after: Uint8Array = NO_BYTES;;) {
      const rows = read(() => this.#sql.leasedAfter.all(after)).map(toRow);
      for (const row of rows) {
        this.#remember(row);
        visit(row.id);
      }
      if (rows.length < SCAN_ROWS) return;
      after = rows.at(-1)!.key;
    }
  }

  rowsOfKey(key: Uint8Array, from: number, to: number, into: number[]): void {
    const head = this.#head(key);
    if (head === undefined) return;
    for (const one of read(() => this.#sql.oldsOfKey.all(key, from, Math.min(to, this.revision + 1)))) {
      const row = toRow(one);
      this.#remember(row);
      into.push(row.id);
    }
    if (head.mod >= from && head.mod <= to) into.push(head.id);
  }

  range(query: RangeQuery, newest: number): RangeResult {
    const revision = this.checkRevision(query.revision ?? 0, newest);
    if (query.range === "single") return this.#single(query, revision, newest);
    const { range } = query;
    if (query.countOnly === true) {
      return { revision: newest, kvs: [], more: false, count: this.#countKeys(range, revision) };
    }
    const limit = query.limit ?? 0;
    const inKeyOrder = query.sortOrder !== "descend" && (query.sortTarget ?? "key") === "key";
    if (inKeyOrder && !hasFilters(query)) {
      const found = this.#keyValues(
        range,
        revision,
        limit > 0 ? limit + 1 : Infinity,
        query.keysOnly === true,
      );
      const more = limit > 0 && found.length > limit;
      const count = more ? this.#countKeys(range, revision) : found.length;
      if (more) found.length = limit;
      return { revision: newest, kvs: found, more, count };
    }
    const { rows, count } = this.#gather(range, revision, query);
    if (limit > 0 && rows.length > limit + 1 && isCutBeforeSort(query)) rows.length = limit + 1;
    this.#sort(rows, query);
    const more = limit > 0 && rows.length > limit;
    if (more) rows.length = limit;
    checkAnswer(rows, query.keysOnly === true);
    const kvs = rows.map((row) => toKeyValue(row, query.keysOnly ? NO_BYTES : this.valueOf(row.id)));
    return { revision: newest, kvs, more, count };
  }

  rowsInRange(range: KeyRange, revision: number): number[] {
    const rows: number[] = [];
    this.#walk(range, NO_END, (head) => {
      const row = this.#visible(head, revision);
      if (row !== undefined) rows.push(row.id);
      return true;
    });
    return rows;
  }

  pageRows(range: KeyRange, revision: number, limit: number, bytesMax: number): PageRows {
    const rows: number[] = [];
    let bytes = 0;
    let isCut = false;
    this.#walk(range, limit, (head) => {
      const row = this.#visible(head, revision);
      if (row === undefined) return true;
      bytes += row.key.length + row.size;
      isCut = bytes > bytesMax && rows.length > 0;
      if (!isCut) rows.push(row.id);
      return !isCut && rows.length < limit;
    });
    return { rows, isCut };
  }

  checkRevision(wanted: number, newest: number): number {
    if (wanted <= 0) return newest;
    if (wanted > newest) throw new KvError("futureRevision");
    if (wanted < this.compactRevision) throw new KvError("compacted");
    return wanted;
  }

  // ---- history and compaction ----

  get historyEnd(): number {
    return this.#nextId;
  }

  historyAt(index: number): number {
    return index;
  }

  indexOfRevision(revision: number): number {
    if (revision > this.revision) return this.#committedEnd;
    if (revision >= this.#oldestKnown) return this.#firstIds[revision % RECENT_REVISIONS]!;
    let low = this.#historyStart;
    let high = this.#committedEnd;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.modRevision(middle) < revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  compact(revision: number, newest: number): void {
    if (revision <= this.compactRevision) throw new KvError("compacted");
    if (revision > newest) throw new KvError("futureRevision");
    this.compactRevision = revision;
    this.#placeCompaction();
  }

  get purgeBacklog(): number {
    if (this.#purgeHolds > 0) return 0;
    return this.#kept - this.#historyStart +
      Math.max(0, this.#trimmable - Math.max(this.#kept, this.#trimmed));
  }

  /** As Mvcc has it, but when it has a bound it stays well below it: each row is a change of the file. */
  purge(budget: number): void {
    if (this.#purgeHolds > 0 || this.hasChanges || this.#store.isStopped) return;
    try {
      const rows = Math.max(PURGE_ROWS, Math.floor(this.purgeBacklog / PURGE_SHARE));
      this.#purge(budget === Infinity ? Infinity : Math.min(budget, rows));
    } catch (error) {
      // Nobody waits for it: what is wrong with the file is told by the store, which stops.
      if (!(error instanceof KvError && error.cause instanceof SqliteError)) throw error;
      this.#store.stop(error.cause);
    }
  }

  #purge(budget: number): void {
    let left = budget;
    for (; left > 0 && this.#historyStart < this.#kept; left--) {
      const row = this.#row(this.#historyStart);
      this.#trim(row);
      if (row.size < 0 && this.#head(row.key)?.id === row.id) this.#forget(row);
      this.#historyStart++;
      this.#isChanged = true;
    }
    this.#trimmed = Math.max(this.#trimmed, this.#historyStart);
    // Not before the loop above is done: it goes first through what is older.
    for (; left > 0 && this.#historyStart === this.#kept && this.#trimmed < this.#trimmable; left--) {
      this.#trim(this.#row(this.#trimmed));
      this.#trimmed++;
    }
  }

  holdPurge(): () => void {
    this.#purgeHolds++;
    let held = true;
    return () => {
      if (held) this.#purgeHolds--;
      held = false;
    };
  }

  visitRows(
    after: Uint8Array | undefined,
    compactRevision: number,
    revision: number,
    visit: (key: Uint8Array, rows: readonly number[]) => boolean,
  ): void {
    const start = after === undefined ? NO_BYTES : successorOf(after);
    this.#walk({ start, end: undefined }, NO_END, (head) => {
      const rows: number[] = [];
      for (let row: Row | undefined = head; row !== undefined; row = this.#before(row)) {
        if (row.mod > revision) continue;
        if (row.mod < compactRevision && row.size < 0) break;
        rows.push(row.id);
        if (row.mod <= compactRevision) break;
      }
      return rows.length === 0 || visit(head.key.slice(), rows);
    });
  }

  writeGroup(meta: Meta): number {
    if (this.#isChanged) {
      meta.set("keys", this.keyCount);
      meta.set("bytes", this.bytes);
      meta.set("history_bytes", this.historyBytes);
      meta.set("history_start", this.#historyStart);
      this.#isChanged = false;
    }
    const writes = this.#groupWrites;
    this.#groupWrites = 0;
    return writes * PAGES_A_WRITE + 1;
  }

  /** Purging deletes rows itself, so nothing is held back. */
  sweep(): void {}
  readonly isSweeping = false;

  /** Goes back to what is durable. */
  undone(): void {
    this.#changes = [];
    this.#recent.fill(undefined);
    this.#load();
  }

  #load(): void {
    const meta = new Meta(this.#database);
    const newest = readNewest(this.#database);
    this.revision = newest.revision;
    this.#knownFrom = newest.revision + 1;
    this.#nextId = newest.id + 1;
    this.#committedEnd = this.#nextId;
    this.compactRevision = meta.number("compact_revision");
    this.keyCount = meta.number("keys");
    this.bytes = meta.number("bytes");
    this.historyBytes = meta.number("history_bytes");
    this.#historyStart = meta.number("history_start");
    this.#trimmed = this.#historyStart;
    this.#placeCompaction();
  }

  #placeCompaction(): void {
    this.#kept = Math.max(this.#historyStart, this.indexOfRevision(this.compactRevision));
    this.#trimmable = this.indexOfRevision(this.compactRevision + 1);
  }

  /** Deletes the row that `row` superseded. */
  #trim(row: Row): void {
    const before = this.#before(row);
    if (before === undefined) return;
    this.#store.begin();
    this.#store.attempt(() => {
      this.#sql.deleteOld.run(row.key, before.mod);
      this.#sql.deleteRow.run(before.id);
    });
    row.before = null;
    this.#forgetRecent(before.id);
    this.bytes -= rowBytes(before);
    this.historyBytes -= rowBytes(before);
    this.#groupWrites++;
    this.#isChanged = true;
  }

  /** Drops a key of which only a tombstone outside history is left. */
  #forget(row: Row): void {
    this.#store.begin();
    this.#store.attempt(() => {
      this.#sql.deleteHead.run(row.key);
      this.#sql.deleteRow.run(row.id);
    });
    this.#forgetRecent(row.id);
    this.bytes -= rowBytes(row) + keyBytes(row);
    this.historyBytes -= rowBytes(row);
    this.#groupWrites++;
  }

  // ---- helpers ----

  get #oldestKnown(): number {
    return Math.max(this.#knownFrom, this.revision - RECENT_REVISIONS + 1);
  }

  #row(id: number): Row {
    const recent = this.#recent[id % RECENT_ROWS];
    if (recent !== undefined && recent.id === id) return recent;
    const found = read(() => this.#sql.rowById.get(id));
    if (found === undefined) throw new RangeError(`There is no row ${id}`);
    const row = toRow(found);
    this.#remember(row);
    return row;
  }

  #remember(row: Row): void {
    if (row.key.length <= RECENT_KEY_BYTES_MAX) this.#recent[row.id % RECENT_ROWS] = row;
  }

  #forgetRecent(id: number): void {
    if (this.#recent[id % RECENT_ROWS]?.id === id) this.#recent[id % RECENT_ROWS] = undefined;
  }

  /** Newest row of a key, a deletion too. */
  #head(key: Uint8Array): Row | undefined {
    const found = read(() => this.#sql.headOf.get(key));
    return found === undefined ? undefined : this.#known(found);
  }

  /** The row of an answer of the index, as it is known already if it is. */
  #known(found: SqlRow): Row {
    const id = found[2] as number;
    const recent = this.#recent[id % RECENT_ROWS];
    if (recent !== undefined && recent.id === id) return recent;
    const row = toRow(found);
    this.#remember(row);
    return row;
  }

  #before(row: Row): Row | undefined {
    if (row.before === undefined) {
      const found = read(() => this.#sql.oldAt.get(row.key, row.mod - 1));
      return found === undefined ? undefined : this.#known(found);
    }
    return row.before ?? undefined;
  }

  /** The value row that a reader at `revision` sees of the key whose newest row is `head`. */
  #visible(head: Row | undefined, revision: number): Row | undefined {
    let row = head;
    if (row !== undefined && row.mod > revision) {
      const found = read(() => this.#sql.oldAt.get(row!.key, revision));
      row = found === undefined ? undefined : this.#known(found);
    }
    return row !== undefined && row.size >= 0 ? row : undefined;
  }

  /** Calls `visit` with the heads of a range in key order until it returns false. `visit` may write the key it is given.
   *  `about` is how many will do. */
  #walk(range: KeyRange, about: number | undefined, visit: (head: Row) => boolean): void {
    let rows = Math.min(SCAN_ROWS, (about ?? SCAN_ROWS) + 1);
    for (let start = range.start;; rows = SCAN_ROWS) {
      const found = this.#scan(this.#sql.headsFrom, start, range.end, rows);
      for (const one of found) if (!visit(toRow(one))) return;
      if (found.length < rows) return;
      start = successorOf(found.at(-1)![0] as Uint8Array);
    }
  }

  #scan(statement: RangeStatement, start: Uint8Array, end: Uint8Array | undefined, rows: number): SqlRow[] {
    return read(() =>
      end === undefined ? statement.open.all(start, rows) : statement.bounded.all(start, end, rows)
    );
  }

  /** The rows of a range that pass the query's filters, and how many there are with those that do not. */
  #gather(range: KeyRange, revision: number, query: RangeQuery): { rows: Row[]; count: number } {
    const rows: Row[] = [];
    let count = 0;
    this.#walk(range, NO_END, (head) => {
      const row = this.#visible(head, revision);
      if (row === undefined) return true;
      count++;
      if (passes(row, query)) rows.push(row);
      if (rows.length > SORT_ROWS_MAX) throw new KvError("answerTooLarge");
      return true;
    });
    return { rows, count };
  }

  /** The first `limit` keys of a range with their values. */
  #keyValues(range: KeyRange, revision: number, limit: number, keysOnly: boolean): KeyValue[] {
    const statement = keysOnly ? this.#sql.headsFrom : this.#sql.valuesFrom;
    const into: KeyValue[] = [];
    let bytes = 0;
    let start = range.start;
    for (let rows = Math.min(keysOnly ? SCAN_ROWS : FIRST_VALUES, limit);;) {
      const found = this.#scan(statement, start, range.end, rows);
      for (const one of found) {
        const isShown = (one[1] as number) <= revision;
        const row = isShown ? toRow(one) : this.#visible(toRow(one), revision);
        if (row === undefined || row.size < 0) continue;
        const value = keysOnly ? NO_BYTES : isShown ? one[8] as Uint8Array : this.valueOf(row.id);
        bytes += row.key.length + value.length;
        if (bytes > RANGE_BYTES_MAX) throw new KvError("answerTooLarge");
        into.push(toKeyValue(row, value));
        if (into.length >= limit) return into;
      }
      if (found.length < rows) return into;
      start = successorOf(found.at(-1)![0] as Uint8Array);
      // As many as should fit, as far as those before can tell.
      const fitting = Math.floor(VALUES_BYTES * into.length / Math.max(bytes, 1));
      rows = keysOnly ? SCAN_ROWS : Math.max(4, Math.min(SCAN_ROWS, fitting));
    }
  }

  /** Keys of a range visible at `revision`: looks at every entry of the index in it, inside SQLite, unless the range is
   *  everything and the revision recent. */
  #countKeys(range: KeyRange, revision: number): number {
    if (range.end === undefined && isBeforeAllKeys(range.start)) {
      if (revision === this.revision && !this.hasChanges) return this.keyCount;
      if (revision <= this.revision && revision >= this.#oldestKnown) {
        return this.#liveKeys[revision % RECENT_REVISIONS]!;
      }
    }
    const { countFrom } = this.#sql;
    const at = Math.min(revision, this.revision + 1);
    const row = read(() =>
      range.end === undefined
        ? countFrom.open.get(range.start, at)
        : countFrom.bounded.get(range.start, at, range.end)
    );
    return row![0] as number;
  }

  #single(query: RangeQuery, revision: number, newest: number): RangeResult {
    // The usual question, in one statement: the newest value of a key.
    if (query.countOnly !== true && query.keysOnly !== true && !hasFilters(query)) {
      const found = read(() => this.#sql.headWithValue.get(query.key));
      if (found === undefined) return { revision: newest, kvs: [], more: false, count: 0 };
      if ((found[1] as number) <= revision && (found[7] as number) >= 0) {
        const kvs = [toKeyValue(toRow(found), found[8] as Uint8Array)];
        return { revision: newest, kvs, more: false, count: 1 };
      }
    }
    const row = this.#visible(this.#head(query.key), revision);
    if (row === undefined) return { revision: newest, kvs: [], more: false, count: 0 };
    if (query.countOnly === true || (hasFilters(query) && !passes(row, query))) {
      return { revision: newest, kvs: [], more: false, count: 1 };
    }
    const value = query.keysOnly ? NO_BYTES : this.valueOf(row.id);
    return { revision: newest, kvs: [toKeyValue(row, value)], more: false, count: 1 };
  }

  /** Sorts rows that are in key order; among equals the smaller key comes first, whichever way the rest is sorted. */
  #sort(rows: Row[], query: RangeQuery): void {
    const isDescending = query.sortOrder === "descend";
    const target = query.sortTarget ?? "key";
    if (target === "key") {
      if (isDescending) rows.reverse();
      return;
    }
    const sign = isDescending ? -1 : 1;
    if (target === "value") {
      const withValues = rows.map((row) => ({ row, value: this.valueOf(row.id) }));
      withValues.sort((a, b) => sign * compareBytes(a.value, b.value));
      for (let i = 0; i < rows.length; i++) rows[i] = withValues[i]!.row;
      return;
    }
    const column = target === "create" ? "created" : target;
    rows.sort((a, b) => sign * (a[column] - b[column]));
  }
}

/** Makes the figures of the index that was just made from the rows, without what can no longer be read. */
export function measureIndex(database: Database): void {
  const meta = new Meta(database);
  const compacted = meta.number("compact_revision");
  // Superseded at or before the compact revision, or a deletion before it.
  const olds = database.prepare(
    "DELETE FROM olds WHERE ?1 >= (SELECT min(mod) FROM (SELECT mod FROM olds AS later WHERE later.key = olds.key " +
      "AND later.mod > olds.mod UNION ALL SELECT mod FROM heads WHERE heads.key = olds.key))",
  ).run(compacted);
  const heads = database.prepare(
    "DELETE FROM heads WHERE size < 0 AND mod < ? AND NOT EXISTS (SELECT 1 FROM olds WHERE olds.key = heads.key)",
  ).run(compacted);
  if (olds + heads > 0) {
    database.execute(
      "DELETE FROM rows WHERE NOT EXISTS (SELECT 1 FROM heads WHERE heads.key = rows.key AND heads.id = rows.id) " +
        "AND NOT EXISTS (SELECT 1 FROM olds WHERE olds.key = rows.key AND olds.mod = rows.mod)",
    );
  }
  const sum = (expression: string, from: string) =>
    (database.prepare(`SELECT coalesce(sum(${expression}), 0) FROM ${from}`).get()![0]) as number;
  const cost = `${ROW_BYTES} + length(key) + max(size, 0)`;
  meta.set("keys", sum("1", "heads WHERE size >= 0"));
  meta.set("bytes", sum(`${cost} + ${KEY_BYTES} + length(key)`, "heads") + sum(cost, "olds"));
  meta.set("history_bytes", sum(cost, "heads WHERE size < 0") + sum(cost, "olds"));
  const first = database.prepare("SELECT min(id) FROM rows WHERE mod >= ?").get(compacted)![0];
  meta.set("history_start", first ?? readNewest(database).id + 1);
}

function prepareStatements(database: Database) {
  const onRange = (select: string, tail: string): RangeStatement => ({
    bounded: database.prepare(`${select} WHERE key >= ? AND key < ? ${tail}`),
    open: database.prepare(`${select} WHERE key >= ? ${tail}`),
  });
  const places = "(?, ?, ?, ?, ?, ?, ?, ?)";
  const sizeAt =
    "CASE WHEN mod <= ?2 THEN size ELSE (SELECT olds.size FROM olds WHERE olds.key = heads.key " +
    "AND olds.mod <= ?2 ORDER BY olds.mod DESC LIMIT 1) END >= 0";
  return {
    insertRow: database.prepare(`INSERT INTO rows VALUES ${places}`),
    deleteRow: database.prepare("DELETE FROM rows WHERE id = ?"),
    rowById: database.prepare(
      "SELECT key, mod, id, sub, created, version, CAST(lease AS TEXT), " +
        "CASE version WHEN 0 THEN -1 ELSE length(value) END FROM rows WHERE id = ?",
    ),
    valueById: database.prepare("SELECT value FROM rows WHERE id = ?"),
    headOf: database.prepare(`SELECT ${INDEX_COLUMNS} FROM heads WHERE key = ?`),
    headWithValue: database.prepare(withValues("h.key = ?", "")),
    putHead: database.prepare(
      `INSERT INTO heads VALUES ${places} ON CONFLICT(key) DO UPDATE SET mod = excluded.mod, id = excluded.id, ` +
        "sub = excluded.sub, created = excluded.created, version = excluded.version, lease = excluded.lease, " +
        "size = excluded.size",
    ),
    deleteHead: database.prepare("DELETE FROM heads WHERE key = ?"),
    insertOld: database.prepare(`INSERT INTO olds VALUES ${places}`),
    deleteOld: database.prepare("DELETE FROM olds WHERE key = ? AND mod = ?"),
    oldAt: database.prepare(
      `SELECT ${INDEX_COLUMNS} FROM olds WHERE key = ? AND mod <= ? ORDER BY mod DESC LIMIT 1`,
    ),
    oldsOfKey: database.prepare(
      `SELECT ${INDEX_COLUMNS} FROM olds WHERE key = ? AND mod BETWEEN ? AND ? ORDER BY mod`,
    ),
    leasedAfter: database.prepare(
      `SELECT ${INDEX_COLUMNS} FROM heads INDEXED BY leased WHERE lease IS NOT NULL AND key > ? ` +
        `ORDER BY key LIMIT ${SCAN_ROWS}`,
    ),
    headsFrom: onRange(`SELECT ${INDEX_COLUMNS} FROM heads`, "ORDER BY key LIMIT ?"),
    valuesFrom: {
      bounded: database.prepare(withValues("h.key >= ? AND h.key < ?", "ORDER BY h.key LIMIT ?")),
      open: database.prepare(withValues("h.key >= ?", "ORDER BY h.key LIMIT ?")),
    },
    countFrom: {
      bounded: database.prepare(`SELECT count(*) FROM heads WHERE key >= ?1 AND key < ?3 AND ${sizeAt}`),
      open: database.prepare(`SELECT count(*) FROM heads WHERE key >= ?1 AND ${sizeAt}`),
    },
  };
}

function withValues(where: string, tail: string): string {
  return "SELECT h.key, h.mod, h.id, h.sub, h.created, h.version, CAST(h.lease AS TEXT), h.size, r.value " +
    `FROM heads h CROSS JOIN rows r ON r.id = h.id WHERE ${where} ${tail}`;
}

function bindIndexRow(statement: Statement, row: Row): void {
  const { key, mod, id, sub, created, version, lease, size } = row;
  statement.run(key, mod, id, sub, created, version, leaseToSql(lease), size);
}

function toRow([key, mod, id, sub, created, version, lease, size]: SqlRow): Row {
  return {
    id: id as number,
    key: key as Uint8Array,
    mod: mod as number,
    sub: sub as number,
    created: created as number,
    version: version as number,
    lease: leaseOfSql(lease!),
    size: size as number,
    before: undefined,
  };
}

function toKeyValue(row: Row, value: Uint8Array): KeyValue {
  return {
    key: row.key.slice(),
    value,
    createRevision: row.created,
    modRevision: row.mod,
    version: row.version,
    lease: row.lease,
  };
}

function rowBytes(row: Row): number {
  return ROW_BYTES + row.key.length + Math.max(0, row.size);
}

function keyBytes(row: Row): number {
  return KEY_BYTES + row.key.length;
}

function passes(row: Row, query: RangeQuery): boolean {
  const { minModRevision = 0, maxModRevision = 0, minCreateRevision = 0, maxCreateRevision = 0 } = query;
  return !(minModRevision !== 0 && row.mod < minModRevision) &&
    !(maxModRevision !== 0 && row.mod > maxModRevision) &&
    !(minCreateRevision !== 0 && row.created < minCreateRevision) &&
    !(maxCreateRevision !== 0 && row.created > maxCreateRevision);
}

/** @throws {KvError} `answerTooLarge`. */
function checkAnswer(rows: readonly Row[], keysOnly: boolean): void {
  const bytes = rows.reduce((sum, row) => sum + row.key.length + (keysOnly ? 0 : row.size), 0);
  if (bytes > RANGE_BYTES_MAX) throw new KvError("answerTooLarge");
}

function isWithin(key: Uint8Array, range: KeyRange): boolean {
  return compareBytes(key, range.start) >= 0 && (range.end === undefined || compareBytes(key, range.end) < 0);
}

/** Whether every key is at or after `start`: keys are not empty. */
function isBeforeAllKeys(start: Uint8Array): boolean {
  return start.length === 0 || (start.length === 1 && start[0] === 0);
}

/** Runs a step that reads. @throws {KvError} `unreadable`. */
function read<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (!(error instanceof SqliteError)) throw error;
    throw new KvError("unreadable", error.message, { cause: error });
  }
}
