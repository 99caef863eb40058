/** Transactions: what a request may contain, which branches its comparisons choose, and running them on the state. */
import { KvError } from "./errors.ts";
import { compareBytes, type KeyRange, toBinaryString } from "./key.ts";
import type { KeyValue, Mvcc, RangeQuery, RangeResult } from "./mvcc.ts";

/** Most comparisons, and most operations of a branch, in one transaction; nested ones get what is left. etcd's default. */
export const TXN_OPS_MAX = 128;

/** Writes one key. `ignoreValue` keeps the value that is there, `ignoreLease` its lease. */
export interface PutOp {
  readonly kind: "put";
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly lease: bigint;
  readonly prevKv: boolean;
  readonly ignoreValue: boolean;
  readonly ignoreLease: boolean;
  /** Gives the key a lease of its own that runs out after so many milliseconds (1 or more) and ends with the key; not
   *  together with `lease`. */
  readonly ttlMs?: number;
}

/** Deletes one key or a range. */
export interface DeleteOp {
  readonly kind: "delete";
  readonly key: Uint8Array;
  readonly range: KeyRange | "single";
  readonly prevKv: boolean;
}

/** A put of one key and nothing else asked for. `lease` 0 is none. */
export function plainPut(key: Uint8Array, value: Uint8Array, lease = 0n): PutOp {
  return { kind: "put", key, value, lease, prevKv: false, ignoreValue: false, ignoreLease: false };
}

/** A deletion of one key. */
export function plainDelete(key: Uint8Array): DeleteOp {
  return { kind: "delete", key, range: "single", prevKv: false };
}

/** Reads one key or a range. */
export interface RangeOp {
  readonly kind: "range";
  readonly query: RangeQuery;
  /** False when the request named a sort order or target that does not exist. */
  readonly hasValidSort: boolean;
}

/** A transaction within a transaction. */
export interface TxnOp {
  readonly kind: "txn";
  readonly txn: Txn;
}

/** An operation that is not a transaction itself, and any operation. */
export type PlainOp = PutOp | DeleteOp | RangeOp;
export type Op = PlainOp | TxnOp;

/** What of a key is compared. */
export type CompareTarget = "version" | "create" | "mod" | "value" | "lease";

/** One comparison; on a range it must hold for every key in it. */
export interface Compare {
  readonly key: Uint8Array;
  readonly range: KeyRange | "single";
  readonly target: CompareTarget;
  readonly result: "equal" | "greater" | "less" | "not_equal";
  /** What to compare with: bytes for the value, the id for the lease, a number for the rest. */
  readonly operand: Uint8Array | number | bigint;
}

/** When every comparison holds, `success` runs, else `failure`. */
export interface Txn {
  readonly compares: readonly Compare[];
  /** An operation may be undefined when the request left it empty; checkTxn refuses those. */
  readonly success: readonly (Op | undefined)[];
  readonly failure: readonly (Op | undefined)[];
}

/** What one operation came to. */
export type OpResult =
  | { readonly kind: "put"; readonly revision: number; readonly prevKv: KeyValue | undefined }
  | {
    readonly kind: "delete";
    readonly revision: number;
    readonly deleted: number;
    readonly prevKvs: readonly KeyValue[];
  }
  | { readonly kind: "range"; readonly result: RangeResult }
  | { readonly kind: "txn"; readonly succeeded: boolean; readonly results: readonly OpResult[] };

/** What a write did, for the log: enough to do it again on the state it was done on. */
export interface WriteLog {
  put(key: Uint8Array, value: Uint8Array, lease: bigint): void;
  /** A put that kept the value. */
  touch(key: Uint8Array, lease: bigint): void;
  delete(key: Uint8Array): void;
  deleteRange(range: KeyRange): void;
  /** Sets what the store keeps under a name besides its keys, or removes it. */
  meta(name: string, value: Uint8Array | undefined): void;
}

/** Which leases there are, and those that belong to a key alone. */
export interface LeaseTable {
  has(id: bigint): boolean;
  /** Writes a lease of a key's own into a write's record and returns its id. `current` is the lease that the key has, which
   *  is used again if it is nobody else's.
   *  @throws {KvError} `tooManyRequests` when there are too many leases. */
  makeOwn(ttlMs: number, current: bigint, log: WriteLog): bigint;
  /** Writes into the record of an uncommitted write the end of the own leases that it leaves without a key. */
  endOwn(state: Mvcc, log: WriteLog): void;
}

/** Checks what can be checked without the state.
 *  @throws {KvError} `emptyKey`, `tooManyOps`, `keyNotFound` (an empty operation), `duplicateKey` and those of checkPut. */
export function checkTxn(txn: Txn): void {
  checkShape(txn, TXN_OPS_MAX);
  checkOverlaps(txn.success);
  checkOverlaps(txn.failure);
}

/** Checks a put's options against one another.
 *  @throws {KvError} `emptyKey`, `valueProvided`, `leaseProvided`. */
export function checkPut(op: PutOp): void {
  if (op.key.length === 0) throw new KvError("emptyKey");
  if (op.ignoreValue && op.value.length > 0) throw new KvError("valueProvided");
  const hasLease = op.lease !== 0n || op.ttlMs !== undefined;
  if ((op.ignoreLease && hasLease) || (op.lease !== 0n && op.ttlMs !== undefined)) {
    throw new KvError("leaseProvided");
  }
}

/** Checks a range's request: etcd looks at the key first.
 *  @throws {KvError} `emptyKey`, `invalidSortOption`. */
export function checkRange(op: RangeOp): void {
  if (op.query.key.length === 0) throw new KvError("emptyKey");
  if (!op.hasValidSort) throw new KvError("invalidSortOption");
}

/** Checks a put in a transaction against the state: the lease must exist, and only an existing key has a value or lease to
 *  keep.
 *  @throws {KvError} `keyNotFound`, `leaseNotFound`. */
export function checkPutOn(state: Mvcc, leases: LeaseTable, op: PutOp): void {
  if ((op.ignoreValue || op.ignoreLease) && state.rowAt(op.key, Infinity) < 0) {
    throw new KvError("keyNotFound");
  }
  if (op.lease !== 0n && !leases.has(op.lease)) throw new KvError("leaseNotFound");
}

/** Whether no operation of any branch can write. */
export function isReadOnly(txn: Txn): boolean {
  const reads = (op: Op | undefined) =>
    op === undefined || op.kind === "range" || (op.kind === "txn" && isReadOnly(op.txn));
  return txn.success.every(reads) && txn.failure.every(reads);
}

/** Whether there is a put in it, in whichever branch. */
export function hasPuts(txn: Txn): boolean {
  const puts = (op: Op | undefined) => op?.kind === "put" || (op?.kind === "txn" && hasPuts(op.txn));
  return txn.success.some(puts) || txn.failure.some(puts);
}

/** Bytes of keys and values in the request. */
export function txnBytes(txn: Txn): number {
  let bytes = 0;
  for (const compare of txn.compares) {
    bytes += compare.key.length + (typeof compare.operand === "object" ? compare.operand.length : 8);
  }
  for (const op of [...txn.success, ...txn.failure]) {
    if (op === undefined) continue;
    if (op.kind === "txn") bytes += txnBytes(op.txn);
    else if (op.kind === "range") bytes += op.query.key.length;
    else bytes += op.key.length + (op.kind === "put" ? op.value.length : 0);
  }
  return bytes;
}

/** A transaction whose branches are chosen: comparisons of nested ones see the state before the first write too. */
export interface ChosenTxn {
  readonly succeeded: boolean;
  readonly ops: readonly (PlainOp | ChosenTxn)[];
}

/** Evaluates every comparison of a checked transaction on the state as `revision` sees it. */
export function chooseBranches(state: Mvcc, txn: Txn, revision: number): ChosenTxn {
  const succeeded = txn.compares.every((compare) => holds(state, compare, revision));
  const ops = (succeeded ? txn.success : txn.failure).map((op) =>
    op?.kind === "txn" ? chooseBranches(state, op.txn, revision) : op as PlainOp
  );
  return { succeeded, ops };
}

/** Checks the chosen operations against the state before any of them runs, so that a transaction happens whole or not.
 *  @throws {KvError} `keyNotFound`, `leaseNotFound`, `futureRevision`, `compacted`. */
export function checkChosen(state: Mvcc, leases: LeaseTable, chosen: ChosenTxn, newest: number): void {
  // All puts before all ranges, as etcd does: it decides which of two errors is told.
  forEachOp(chosen, (op) => {
    if (op.kind === "put") checkPutOn(state, leases, op);
  });
  forEachOp(chosen, (op) => {
    if (op.kind !== "range") return;
    const wanted = op.query.revision ?? 0;
    // Outside transactions a negative revision is the newest; inside, etcd takes it for one long gone.
    if (wanted < 0) throw new KvError("compacted");
    state.checkRevision(wanted, newest);
  });
}

/** Calls `visit` with every operation of the chosen branches, in order. */
export function forEachOp(chosen: ChosenTxn, visit: (op: PlainOp) => void): void {
  for (const op of chosen.ops) {
    if ("succeeded" in op) forEachOp(op, visit);
    else visit(op);
  }
}

/** Runs the chosen operations in order. Reads see the writes before them. The caller commits.
 *  `newest` is the revision readers see when nothing was written yet. */
export function runChosen(
  state: Mvcc,
  leases: LeaseTable,
  chosen: ChosenTxn,
  newest: number,
  log: WriteLog,
): OpResult[] {
  return chosen.ops.map((op): OpResult => {
    if ("succeeded" in op) {
      return { kind: "txn", succeeded: op.succeeded, results: runChosen(state, leases, op, newest, log) };
    }
    const visible = state.hasChanges ? state.revision + 1 : newest;
    if (op.kind === "range") return { kind: "range", result: state.range(op.query, visible) };
    if (op.kind === "put") return runPut(state, leases, op, log);
    return runDelete(state, op, visible, log);
  });
}

/** Runs one put; the caller commits. */
export function runPut(
  state: Mvcc,
  leases: LeaseTable,
  op: PutOp,
  log: WriteLog,
): OpResult & { readonly kind: "put" } {
  const ttlMs = op.ttlMs;
  const before = op.prevKv || op.ignoreLease || ttlMs !== undefined ? state.rowAt(op.key, Infinity) : -1;
  const prevKv = before < 0 || !op.prevKv ? undefined : state.keyValue(before);
  const current = before < 0 ? 0n : state.leaseOf(before);
  const lease = ttlMs !== undefined
    ? leases.makeOwn(ttlMs, current, log)
    : op.ignoreLease
    ? current
    : op.lease;
  state.put(op.key, op.ignoreValue ? undefined : op.value, lease);
  if (op.ignoreValue) log.touch(op.key, lease);
  else log.put(op.key, op.value, lease);
  return { kind: "put", revision: state.revision + 1, prevKv };
}

/** Runs one deletion; the caller commits. `visible` is the revision of the answer when nothing was deleted. */
export function runDelete(
  state: Mvcc,
  op: DeleteOp,
  visible: number,
  log: WriteLog,
): OpResult & { readonly kind: "delete" } {
  const prevKvs = op.prevKv ? keysBefore(state, op) : [];
  const deleted = op.range === "single" ? (state.delete(op.key) ? 1 : 0) : state.deleteRange(op.range);
  if (deleted > 0) {
    if (op.range === "single") log.delete(op.key);
    else log.deleteRange(op.range);
  }
  return { kind: "delete", revision: deleted > 0 ? state.revision + 1 : visible, deleted, prevKvs };
}

function keysBefore(state: Mvcc, op: DeleteOp): KeyValue[] {
  if (op.range !== "single") {
    return state.rowsInRange(op.range, Infinity).map((row) => state.keyValue(row));
  }
  const row = state.rowAt(op.key, Infinity);
  return row < 0 ? [] : [state.keyValue(row)];
}

function holds(state: Mvcc, compare: Compare, revision: number): boolean {
  if (compare.range !== "single") {
    const rows = state.rowsInRange(compare.range, revision);
    if (rows.length > 0) return rows.every((row) => rowHolds(state, compare, row));
  } else {
    const row = state.rowAt(compare.key, revision);
    if (row >= 0) return rowHolds(state, compare, row);
  }
  // An absent key has numbers of 0 and no value: a comparison of values fails whatever it asks.
  return compare.target !== "value" && outcome(compare, 0 - signOf(compare.operand as number | bigint));
}

function rowHolds(state: Mvcc, compare: Compare, row: number): boolean {
  const operand = compare.operand;
  if (typeof operand === "object") return outcome(compare, compareBytes(state.valueOf(row), operand));
  if (typeof operand === "bigint") return outcome(compare, signOf(state.leaseOf(row) - operand));
  switch (compare.target) {
    case "version":
      return outcome(compare, state.version(row) - operand);
    case "create":
      return outcome(compare, state.createRevision(row) - operand);
    default:
      return outcome(compare, state.modRevision(row) - operand);
  }
}

function signOf(value: number | bigint): number {
  return value > 0 ? 1 : value < 0 ? -1 : 0;
}

function outcome(compare: Compare, difference: number): boolean {
  switch (compare.result) {
    case "equal":
      return difference === 0;
    case "not_equal":
      return difference !== 0;
    case "greater":
      return difference > 0;
    case "less":
      return difference < 0;
  }
}

function checkShape(txn: Txn, opsMax: number): void {
  const ops = Math.max(txn.compares.length, txn.success.length, txn.failure.length);
  if (ops > opsMax) throw new KvError("tooManyOps");
  for (const compare of txn.compares) {
    if (compare.key.length === 0) throw new KvError("emptyKey");
  }
  for (const op of txn.success) checkOp(op, opsMax - ops);
  for (const op of txn.failure) checkOp(op, opsMax - ops);
}

function checkOp(op: Op | undefined, opsLeft: number): void {
  if (op === undefined) throw new KvError("keyNotFound");
  if (op.kind === "txn") return checkShape(op.txn, opsLeft);
  if (op.kind === "put") return checkPut(op);
  if (op.kind === "range") return checkRange(op);
  if (op.key.length === 0) throw new KvError("emptyKey");
}

/** What a list of operations and everything nested in it may write. */
interface Writes {
  readonly puts: Set<string>;
  /** [first, end) as binary strings; an undefined end has none. */
  readonly deletes: [string, string | undefined][];
}

/** Refuses lists in which a key could be written twice: a revision holds one change of a key.
 *  Both branches of one nested transaction may write the same key, since only one of them runs. */
function checkOverlaps(ops: readonly (Op | undefined)[]): Writes {
  const writes: Writes = { puts: new Set(), deletes: [] };
  for (const op of ops) {
    if (op?.kind === "txn") {
      const then = checkOverlaps(op.txn.success);
      const otherwise = checkOverlaps(op.txn.failure);
      refuseClash(writes, then);
      refuseClash(writes, otherwise);
      for (const branch of [then, otherwise]) {
        for (const key of branch.puts) writes.puts.add(key);
        writes.deletes.push(...branch.deletes);
      }
    } else if (op?.kind === "put" || op?.kind === "delete") {
      const own = writesOf(op);
      refuseClash(writes, own);
      for (const key of own.puts) writes.puts.add(key);
      writes.deletes.push(...own.deletes);
    }
  }
  return writes;
}

function writesOf(op: PutOp | DeleteOp): Writes {
  const key = toBinaryString(op.key);
  if (op.kind === "put") return { puts: new Set([key]), deletes: [] };
  if (op.range === "single") return { puts: new Set(), deletes: [[key, key + "\0"]] };
  const end = op.range.end;
  return { puts: new Set(), deletes: [[key, end === undefined ? undefined : toBinaryString(end)]] };
}

function refuseClash(a: Writes, b: Writes): void {
  for (const key of b.puts) {
    if (a.puts.has(key) || isDeleted(key, a.deletes)) throw new KvError("duplicateKey");
  }
  if (b.deletes.length === 0) return;
  for (const key of a.puts) {
    if (isDeleted(key, b.deletes)) throw new KvError("duplicateKey");
  }
}

function isDeleted(key: string, deletes: Writes["deletes"]): boolean {
  return deletes.some(([start, end]) => key >= start && (end === undefined || key < end));
}
