/** The multi-version machine as the service, transactions and watchers see it. state.ts keeps it in memory.
 *
 *  A row is one change of one key at one revision; its number is valid until compaction or `rollback` takes it. Methods are
 *  synchronous: a request runs in one turn, so what it decides on cannot change under it. */
import type { KeyRange } from "./key.ts";

/** One key at one revision. Arrays are the receiver's to keep. */
export interface KeyValue {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  /** Puts since creation, from 1. */
  readonly version: number;
  /** Lease the key is attached to; 0 for none. */
  readonly lease: bigint;
}

/** What a range is sorted by. */
export type SortTarget = "key" | "version" | "create" | "mod" | "value";

/** What to read. Unset options do not restrict. */
export interface RangeQuery {
  readonly key: Uint8Array;
  /** The range, or "single" for the one key. */
  readonly range: KeyRange | "single";
  /** Most keys to return; 0 is no limit. */
  readonly limit?: number;
  /** Revision to read at; 0 or less is the newest. */
  readonly revision?: number;
  /** Unset: key order when the target is the key, else ascending. */
  readonly sortOrder?: "ascend" | "descend";
  readonly sortTarget?: SortTarget;
  readonly keysOnly?: boolean;
  readonly countOnly?: boolean;
  /** 0 is no bound, here and below. */
  readonly minModRevision?: number;
  readonly maxModRevision?: number;
  readonly minCreateRevision?: number;
  readonly maxCreateRevision?: number;
}

/** What a range found. */
export interface RangeResult {
  /** Newest revision the reader may see. */
  readonly revision: number;
  readonly kvs: KeyValue[];
  /** Whether `limit` cut the answer. */
  readonly more: boolean;
  /** Keys in the range, whatever the limit and filters. */
  readonly count: number;
}

/** Rows of a page, in key order. */
export interface PageRows {
  readonly rows: number[];
  /** Whether the bytes ended it. */
  readonly isCut: boolean;
}

/** The machine. Not more than one write at a time: `put`, `delete` …, then `commit` or `rollback`. */
export interface Mvcc {
  /** Newest revision; an empty store is at 1, so the first write gets 2. */
  readonly revision: number;
  /** Reads below it are refused; 0 when nothing was compacted. */
  readonly compactRevision: number;
  /** Live keys, uncommitted writes included. */
  readonly keyCount: number;
  /** Bytes of keys, values and bookkeeping: what the quota counts. */
  readonly bytes: number;
  /** Bytes that superseded values and tombstones take: what compaction can give back. */
  readonly historyBytes: number;

  /** Bytes that a put of a new key takes at most. */
  costOfPut(keyBytes: number, valueBytes: number): number;

  /** Puts `value` (undefined keeps the one the key has; it must be live then) and attaches the key to `lease` (0: to none).
   *  Returns the new row. */
  put(key: Uint8Array, value: Uint8Array | undefined, lease?: bigint): number;
  /** Deletes one key; false, and no change, if it is not there. */
  delete(key: Uint8Array): boolean;
  /** Deletes the keys of a range and returns how many there were. */
  deleteRange(range: KeyRange): number;
  /** Whether anything was written since the last commit. */
  readonly hasChanges: boolean;
  /** Makes the writes the newest revision and returns it; without writes the revision stays. */
  commit(): number;
  /** Undoes the writes since the last commit. */
  rollback(): void;

  /** Row of `key` visible at `revision`, or -1 when the key does not exist there. Not checked against compaction. */
  rowAt(key: Uint8Array, revision: number): number;
  /** The whole record of a row that is not a tombstone. */
  keyValue(row: number, keysOnly?: boolean): KeyValue;
  /** A copy of a row's value; empty for a tombstone. */
  valueOf(row: number): Uint8Array;
  /** A copy of a row's key. */
  keyOf(row: number): Uint8Array;
  modRevision(row: number): number;
  createRevision(row: number): number;
  version(row: number): number;
  /** Lease of a row; 0 for none and for tombstones. */
  leaseOf(row: number): bigint;
  isTombstone(row: number): boolean;
  /** Bytes of a row's key and value, for bounds on answers. */
  payloadBytes(row: number): number;
  /** Whether the row's key is in the range. */
  isRowWithin(row: number, range: KeyRange): boolean;
  /** The row that `row` superseded if that was a value and its revision can still be read, else -1. */
  previousOf(row: number): number;
  /** Lease of the value that `row` superseded, whether or not that can still be read; 0 for none. */
  previousLeaseOf(row: number): bigint;
  /** Rows of a key with revisions of `from` to `to`, oldest first, appended to `into`. */
  rowsOfKey(key: Uint8Array, from: number, to: number, into: number[]): void;

  /** Answers a query for a reader to whom `newest` is the newest revision.
   *  @throws {KvError} `compacted`, `futureRevision`. */
  range(query: RangeQuery, newest: number): RangeResult;
  /** Keys of a range visible at `revision`, as rows in key order. */
  rowsInRange(range: KeyRange, revision: number): number[];
  /** The first `limit` keys of a range visible at `revision`, as rows in key order; fewer, with `isCut`, when their keys
   *  and values would exceed `bytesMax`, but always one if there is one. */
  pageRows(range: KeyRange, revision: number, limit: number, bytesMax: number): PageRows;
  /** The revision to read at, for a wish of `wanted`.
   *  @throws {KvError} `compacted`, `futureRevision`. */
  checkRevision(wanted: number, newest: number): number;
  /** Calls `visit` with the row of every live key that has a lease. */
  visitLeased(visit: (row: number) => void): void;

  /** Rows in the order in which they were written, since the last compaction: first index of one of `revision` or later
   *  (`historyEnd` if there is none), the index after the newest, and the row at an index. */
  indexOfRevision(revision: number): number;
  readonly historyEnd: number;
  historyAt(index: number): number;

  /** Gives up history below `revision`, which must be above the last one and at most `newest`. The rows go with `purge`. */
  compact(revision: number, newest: number): void;
  /** Rows that wait to be looked at by `purge`; 0 while nothing is to be done or a hold stops it. */
  readonly purgeBacklog: number;
  /** Looks at up to `budget` rows and frees what nobody can read any more. */
  purge(budget: number): void;
  /** Stops purging until the returned function is called, so that a reader finds every row of its revision. */
  holdPurge(): () => void;
  /** Calls `visit` with keys after `after` in key order and the rows of each that a reader of revisions
   *  `compactRevision` to `revision` can see, newest first, until `visit` returns false. */
  visitRows(
    after: Uint8Array | undefined,
    compactRevision: number,
    revision: number,
    visit: (key: Uint8Array, rows: readonly number[]) => boolean,
  ): void;
  /** Order of a row within its revision, from 0. */
  subOf(row: number): number;
}

/** Whether `limit` cuts the keys in key order, one key late, before what is left is sorted and cut again. etcd does so
 *  for a sort target without an order, and clients see it in which keys come. */
export function isCutBeforeSort(query: RangeQuery): boolean {
  if (hasFilters(query) || query.sortOrder === "descend") return false;
  return query.sortOrder === undefined || (query.sortTarget ?? "key") === "key";
}

/** Key and value bytes that a range may answer with: more does not fit in an answer between workers, and would only be
 *  gathered to be refused. */
export const RANGE_BYTES_MAX = 64 * 1_024 * 1_024;

/** Whether a query asks for some revisions only. */
export function hasFilters(query: RangeQuery): boolean {
  return (query.minModRevision ?? 0) !== 0 || (query.maxModRevision ?? 0) !== 0 ||
    (query.minCreateRevision ?? 0) !== 0 || (query.maxCreateRevision ?? 0) !== 0;
}
