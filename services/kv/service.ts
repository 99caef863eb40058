/** The key-value store as its clients see it: the state, made durable, and shown only when it is.
 *
 *  A write is applied and appended to the log in one go, then waits for its group commit. Until that is durable nobody is
 *  told: the writer gets no answer, readers read at the durable revision, watchers are not woken.
 *
 *      put ─► state (revision 8) ─► log ─┐
 *      put ─► state (revision 9) ─► log ─┴─ one fsync ─► durable revision 9 ─► watchers, then answers
 *      get ─► reads at revision 7 until then
 *
 *  Comparisons of writing transactions see what is applied, since that is what they will follow; their answers, refusals
 *  included, wait until what they saw is durable. */
import type { Decision } from "./api.ts";
import type { KvConfig } from "./config.ts";
import { KvError } from "./errors.ts";
import { compareBytes, type KeyRange, prefixRange, successorOf } from "./key.ts";
import { decodePageToken, encodePageToken } from "./page_token.ts";
import { Queue } from "./queue.ts";
import { PinnedStore } from "./maintenance/pinned.ts";
import { hasFilters, type KeyValue, type Mvcc, type RangeQuery, type RangeResult } from "./mvcc.ts";
import { compactRecord, type EntryChange, type Identity, snapshotRecords, WriteRecord } from "./record.ts";
import { type KvStore, StoreError } from "./store.ts";
import {
  checkChosen,
  checkPut,
  checkPutOn,
  checkTxn,
  chooseBranches,
  type DeleteOp,
  forEachOp,
  hasPuts,
  isReadOnly,
  type LeaseTable,
  type OpResult,
  type PutOp,
  runChosen,
  runDelete,
  runPut,
  type Txn,
  txnBytes,
  type WriteLog,
} from "./txn.ts";
import { changeOf, type WatchEvent, WatchHub } from "./watch.ts";

/** What the service logs to. */
export interface KvLogger {
  info(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** What the service is made of. */
export interface KvServiceDeps {
  readonly state: Mvcc;
  readonly store: KvStore;
  /** Named entries that were replayed; the service's from now on. */
  readonly entries: Map<string, Uint8Array>;
  readonly identity: Identity;
  readonly config: KvConfig;
  readonly log: KvLogger;
  /** Monotonic time in milliseconds. */
  readonly clock: { now(): number };
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** Rows that one slice of purging looks at: well under a millisecond. */
const PURGE_SLICE_ROWS = 2_048;
/** Automatic compaction runs when history exceeds what is retained by this share, not at every write. */
const RETAIN_SLACK = 1 / 16;
/** Share of history that is given up at a time when its bytes are too many. */
const HISTORY_SHARE = 1 / 8;
/** From this share of the quota on, history makes room for data. */
const QUOTA_PRESSURE = 0.9;
/** History below this share of the quota is not worth compacting for room. */
const HISTORY_WORTH = 1 / 32;
/** Largest and default number of entries on a page of a list. */
export const PAGE_SIZE_MAX = 1_000;
const PAGE_SIZE_DEFAULT = 100;
/** Key and value bytes after which a page ends: a message between workers carries 4 MiB. */
const PAGE_BYTES_MAX = 1_024 * 1_024;
/** Rows of a piece of a range: what one turn may read. */
const PAGE_ROWS_MAX = 10_000;

/** Something appended to the log that is not yet durable. */
interface Pending {
  readonly seq: number;
  readonly revision: number;
  readonly kind: "write" | "compact";
  readonly entries: readonly EntryChange[];
}

/** Keeps a kind of named entries: those whose names begin with its prefix. */
export interface EntryOwner {
  /** Takes one entry of the replayed store, or a change right after it was appended (it is durable before whoever asked for
   *  it is answered). */
  load(name: string, value: Uint8Array | undefined): void;
}

/** A revision that was applied: its rows are the newest of history. */
export type AppliedListener = (revision: number) => void;

/** What refuses writes besides the store itself: alarms.ts. */
export interface WriteGuard {
  /** @throws {KvError} `corrupt`. */
  checkWrite(): void;
  /** Whether nothing may be added, whether or not there is room. */
  readonly isFull: boolean;
  /** Called when a write did not fit into the quota, before its writer is told. */
  onNoSpace(): Promise<void>;
}

const NO_GUARD: WriteGuard = { checkWrite() {}, isFull: false, onNoSpace: () => Promise.resolve() };
const NO_ENTRIES: readonly EntryChange[] = [];
const NO_LEASES: LeaseTable = {
  has: () => false,
  makeOwn() {
    throw new KvError("leaseNotFound");
  },
  endOwn() {},
};

/** What a put came to. */
export interface PutResult {
  readonly revision: number;
  readonly version: number;
  readonly prevKv: KeyValue | undefined;
}

/** What a deletion came to; `revision` is the newest one when nothing was deleted. */
export interface DeleteResult {
  readonly revision: number;
  readonly deleted: number;
  readonly prevKvs: readonly KeyValue[];
}

/** What a transaction came to: the chosen branch and the result of each of its operations. */
export interface TxnResult {
  readonly revision: number;
  readonly succeeded: boolean;
  readonly results: readonly OpResult[];
}

/** A piece of a range that is read bit by bit. */
export interface RangePiece {
  readonly kvs: readonly KeyValue[];
  /** Set on the last piece alone. */
  readonly last: { readonly revision: number; readonly more: boolean; readonly count: number } | undefined;
}

/** A page of the keys under a prefix. */
export interface ListQuery {
  readonly prefix: Uint8Array;
  /** 1 to PAGE_SIZE_MAX; 0 is 100. */
  readonly pageSize: number;
  readonly pageToken: string;
  readonly keysOnly: boolean;
  /** Nothing before this key is told or counted. */
  readonly from?: Uint8Array;
}

/** The keys that all pages of a list tell. */
export function listRange({ prefix, from }: Pick<ListQuery, "prefix" | "from">): KeyRange {
  const range = prefixRange(prefix);
  return from !== undefined && compareBytes(from, range.start) > 0 ? { start: from, end: range.end } : range;
}

/** Where a page begins. A token is its client's to write, so it does not lead before the list's first key. */
export function pageStart(whole: KeyRange, after: Uint8Array | undefined): Uint8Array {
  if (after === undefined || compareBytes(after, whole.start) < 0) return whole.start;
  return successorOf(after);
}

/** The page; all pages of one list are read at the same revision. `nextPageToken` is empty on the last. */
export interface ListPage {
  readonly entries: readonly KeyValue[];
  readonly nextPageToken: string;
  readonly revision: number;
  readonly count: number;
}

/** Changes of one key, newest first. */
export interface HistoryPage {
  readonly changes: readonly WatchEvent[];
  /** Whether older ones are kept. */
  readonly more: boolean;
  readonly revision: number;
}

/** Figures for metrics; totals count from the start of the process. */
export interface KvFigures {
  readonly keys: number;
  readonly revision: number;
  readonly compactRevision: number;
  readonly bytes: number;
  readonly historyBytes: number;
  readonly watchers: number;
  readonly slowWatchers: number;
  readonly puts: number;
  readonly ranges: number;
  readonly deletes: number;
  readonly txns: number;
  readonly compactions: number;
  readonly snapshotFailures: number;
}

/** The service. Methods throw KvError for what clients caused and for what the store refuses. */
export class KvService {
  readonly watches: WatchHub;
  readonly identity: Identity;
  readonly config: KvConfig;
  readonly #state: Mvcc;
  readonly #store: KvStore;
  readonly #log: KvLogger;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
  readonly #clock: { now(): number };
  #leases: LeaseTable = NO_LEASES;
  #guard: WriteGuard = NO_GUARD;
  readonly #record = new WriteRecord();
  /** Named entries as of the durable revision. */
  readonly #entries: Map<string, Uint8Array>;
  readonly #owners: { readonly prefix: string; readonly owner: EntryOwner }[] = [];
  readonly #appliedListeners: AppliedListener[] = [];
  /** Bounded by the log's pending bytes: append throws `full` before it grows beyond them. */
  readonly #pending = new Queue<Pending>();
  #durableRevision: number;
  /** Last record of the log that the durable revision and compaction reflect. */
  #shownSeq: number;
  #lastSeq: number;
  /** Compaction that was asked for last; durable or on its way. */
  #compactWanted: number;
  #failure: StoreError | undefined;
  #isClosed = false;
  #isPurging = false;
  #snapshotting: Promise<void> | undefined;
  /** Record bytes since the last snapshot, and where the next one is made. */
  #logBytes: number;
  #snapshotAtBytes: number;
  #puts = 0;
  #ranges = 0;
  #deletes = 0;
  #txns = 0;
  #compactions = 0;
  #snapshotFailures = 0;

  constructor(deps: KvServiceDeps) {
    this.#state = deps.state;
    this.#store = deps.store;
    this.#entries = deps.entries;
    this.identity = deps.identity;
    this.config = deps.config;
    this.#log = deps.log;
    this.pause = deps.pause;
    this.#clock = deps.clock;
    this.#durableRevision = deps.state.revision;
    this.#shownSeq = deps.store.durableSeq;
    this.#lastSeq = deps.store.durableSeq;
    this.#compactWanted = deps.state.compactRevision;
    this.#logBytes = deps.store.openedLogBytes;
    this.#snapshotAtBytes = Math.max(deps.config.snapshotLogBytes, deps.state.bytes);
    const { watch } = deps.config;
    this.watches = new WatchHub(deps.state, {
      watchersMax: watch.watchersMax,
      batchBytes: watch.batchBytes,
      batchRevisions: watch.batchRevisions,
    });
    deps.store.onDurable(() => this.#advance());
    deps.store.stopped.then((error) => this.#fail(error));
  }

  /** Newest revision that is durable: what readers see. */
  get revision(): number {
    return this.#durableRevision;
  }

  /** Oldest revision that can be read. */
  get compactRevision(): number {
    return this.#state.compactRevision;
  }

  /** Whether `close` was called. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Why writes are refused; undefined while they are taken. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Time of the service's clock, in milliseconds. */
  now(): number {
    return this.#clock.now();
  }

  /** Gives `owner` every named entry whose name begins with `prefix`, now and as they change. Prefixes do not overlap. */
  ownEntries(prefix: string, owner: EntryOwner): void {
    this.#owners.push({ prefix, owner });
    for (const [name, value] of this.#entries) if (name.startsWith(prefix)) owner.load(name, value);
  }

  /** Calls `listener` when a revision has been applied and appended, before it is durable. */
  onApplied(listener: AppliedListener): void {
    this.#appliedListeners.push(listener);
  }

  /** Takes the table of leases that puts are checked against. */
  useLeases(leases: LeaseTable): void {
    this.#leases = leases;
  }

  /** Takes what is asked before every write. */
  useGuard(guard: WriteGuard): void {
    this.#guard = guard;
  }

  /** Holds the store still at the newest durable revision, for a reader of all of it, who must release it. */
  pin(): PinnedStore {
    const state = this.#state;
    const scope = {
      revision: this.#durableRevision,
      compactRevision: state.compactRevision,
      identity: this.identity,
      entries: new Map(this.#entries),
    };
    return new PinnedStore(state, scope, () => {
      if (state.purgeBacklog > 0) this.#purgeInBackground();
    });
  }

  /** Writes a snapshot of the store now, so that what the log no longer needs goes. Does nothing where the engine keeps
   *  no log. A failure is logged and tried again later. */
  async checkpoint(): Promise<void> {
    while (this.#snapshotting !== undefined) await this.#snapshotting;
    if (!this.#store.takesSnapshots || this.#isClosed || this.#failure !== undefined) return;
    this.#startSnapshot();
    await this.#snapshotting;
  }

  /** The machine, for what runs inside `mutate` or reads on behalf of it. */
  get state(): Mvcc {
    return this.#state;
  }

  /** Reads a range at one revision.
   *  @throws {KvError} `emptyKey`, `compacted`, `futureRevision`. */
  range(query: RangeQuery): RangeResult {
    this.#ranges++;
    if (query.key.length === 0) throw new KvError("emptyKey");
    return this.#state.range(query, this.#durableRevision);
  }

  /** Reads a range in pieces of about `pieceBytes` of keys and values, all at one revision; the last piece says how it
   *  ended. Only in key order and without filters.
   *  @throws {KvError} at any piece: `compacted` when compaction overtakes it. */
  rangePieces(query: RangeQuery, pieceBytes: number): Generator<RangePiece, void, void> {
    this.#ranges++;
    if (query.key.length === 0) throw new KvError("emptyKey");
    if ((query.sortTarget ?? "key") !== "key" || query.sortOrder !== undefined) {
      throw new KvError("streamSort");
    }
    if (hasFilters(query)) throw new KvError("streamFilters");
    const newest = this.#durableRevision;
    return this.#pieces(query, this.#state.checkRevision(query.revision ?? 0, newest), newest, pieceBytes);
  }

  *#pieces(
    query: RangeQuery,
    revision: number,
    newest: number,
    pieceBytes: number,
  ): Generator<RangePiece, void, void> {
    const state = this.#state;
    const range = query.range === "single" ? { start: query.key, end: successorOf(query.key) } : query.range;
    const limit = query.limit ?? 0;
    let left = query.countOnly === true ? 0 : limit > 0 ? limit : Infinity;
    let start = range.start;
    while (left > 0) {
      state.checkRevision(revision, newest);
      const want = Math.min(left, PAGE_ROWS_MAX);
      const { rows, isCut } = state.pageRows({ start, end: range.end }, revision, want, pieceBytes);
      left -= rows.length;
      if (rows.length === 0) break;
      start = successorOf(state.keyOf(rows.at(-1)!));
      yield { kvs: rows.map((row) => state.keyValue(row, query.keysOnly)), last: undefined };
      if (rows.length < want && !isCut) break;
    }
    state.checkRevision(revision, newest);
    const { count } = state.range({ key: query.key, range: query.range, countOnly: true, revision }, newest);
    yield {
      kvs: [],
      last: { revision: newest, more: query.countOnly !== true && limit > 0 && count > limit, count },
    };
  }

  /** Puts one key; resolves when that is durable. With `ifModRevision` only if that is the key's mod revision (0: absent).
   *  @throws {KvError} */
  put(op: PutOp, ifModRevision?: number): Promise<PutResult> {
    this.#checkWritable();
    this.#puts++;
    checkPut(op);
    this.#checkSizes(op);
    return this.mutate((log) => {
      if (this.#guard.isFull) throw new KvError("noSpace"); // told before what else is wrong, as etcd does
      // A put by itself looks at the lease first, one in a transaction last: as etcd does.
      if (op.lease !== 0n && !this.#leases.has(op.lease)) throw new KvError("leaseNotFound");
      checkPutOn(this.#state, this.#leases, op);
      this.#checkModRevision(op.key, ifModRevision);
      this.checkSpace(this.#state.costOfPut(op.key.length, op.value.length));
      const { prevKv } = runPut(this.#state, this.#leases, op, log);
      const state = this.#state;
      const version = state.version(state.rowAt(op.key, Infinity));
      return { revision: state.revision + 1, version, prevKv };
    });
  }

  /** Deletes a key or range; resolves when that is durable.
   *  @throws {KvError} */
  delete(op: DeleteOp, ifModRevision?: number): Promise<DeleteResult> {
    this.#checkWritable();
    this.#deletes++;
    if (op.key.length === 0) throw new KvError("emptyKey");
    return this.mutate((log) => {
      this.#checkModRevision(op.key, ifModRevision);
      return runDelete(this.#state, op, this.#state.revision, log);
    });
  }

  /** Runs a transaction; resolves when what it did, or what it saw, is durable.
   *  @throws {KvError} */
  txn(txn: Txn): Promise<TxnResult> {
    this.#txns++;
    checkTxn(txn);
    const state = this.#state;
    if (isReadOnly(txn)) return Promise.resolve(this.#readOnlyTxn(txn));
    this.#checkWritable();
    if (txnBytes(txn) > this.config.maxRequestBytes) throw new KvError("requestTooLarge");
    return this.mutate((log) => {
      // As etcd: the branch that is not chosen counts as well.
      if (this.#guard.isFull && hasPuts(txn)) throw new KvError("noSpace");
      const chosen = chooseBranches(state, txn, Infinity);
      checkChosen(state, this.#leases, chosen, state.revision);
      let cost = 0;
      forEachOp(chosen, (op) => {
        if (op.kind !== "put") return;
        this.#checkSizes(op);
        cost += this.#state.costOfPut(op.key.length, op.value.length);
      });
      if (cost > 0) this.checkSpace(cost);
      const results = runChosen(state, this.#leases, chosen, state.revision, log);
      const revision = state.hasChanges ? state.revision + 1 : state.revision;
      return { revision, succeeded: chosen.succeeded, results };
    });
  }

  /** Reads keys as of the newest write, lets `decide` choose what to write, and writes that, atomically; resolves with its
   *  result when all of it is durable. `decide` is called once and must not write keys outside `keys`.
   *  @throws {KvError} and what `decide` throws; then nothing is written. */
  transact<T>(
    keys: readonly Uint8Array[],
    decide: (found: readonly (KeyValue | undefined)[]) => Decision<T>,
  ): Promise<T> {
    return this.mutate((log) => {
      const state = this.#state;
      const found = keys.map((key) => {
        const row = state.rowAt(key, Infinity);
        return row < 0 ? undefined : state.keyValue(row);
      });
      const { writes, result } = decide(found);
      let bytes = 0;
      let cost = 0;
      for (const op of writes) {
        if (op.kind === "delete") continue;
        checkPut(op);
        this.#checkSizes(op);
        checkPutOn(state, this.#leases, op);
        bytes += op.key.length + op.value.length;
        cost += state.costOfPut(op.key.length, op.value.length);
      }
      if (bytes > this.config.maxRequestBytes) throw new KvError("requestTooLarge");
      if (cost > 0) this.checkSpace(cost);
      for (const op of writes) {
        if (op.kind === "put") runPut(state, this.#leases, op, log);
        else runDelete(state, op, state.revision, log);
      }
      return result;
    });
  }

  /** Gives up history below `revision`; resolves with the store's revision when that is durable and, with `physical`,
   *  when the memory is free.
   *  @throws {KvError} `compacted`, `futureRevision`. */
  async compact(revision: number, physical: boolean): Promise<number> {
    this.#checkWritable();
    try {
      this.#guard.checkWrite();
      if (revision <= this.#compactWanted) throw new KvError("compacted");
      if (revision > this.#durableRevision) throw new KvError("futureRevision");
    } catch (error) {
      // What it rests on, an alarm or another compaction, may not be durable yet.
      await this.#settled(this.#lastSeq);
      throw error;
    }
    await this.#settled(this.#appendCompaction(revision));
    if (physical) {
      await this.#snapshotting;
      await this.#purge();
    }
    return this.#durableRevision;
  }

  /** Lists the keys under a prefix, a page at a time; all pages of one list are read at the first one's revision.
   *  A page may be shorter than asked when its entries are large.
   *  @throws {KvError} `badPageSize`, `badPageToken`, `compacted` when the list's revision is gone. */
  list(query: ListQuery): ListPage {
    const pageSize = query.pageSize === 0 ? PAGE_SIZE_DEFAULT : query.pageSize;
    if (!(pageSize >= 1 && pageSize <= PAGE_SIZE_MAX)) {
      throw new KvError("badPageSize", `it is ${query.pageSize}, expected 1 to ${PAGE_SIZE_MAX}`);
    }
    this.#ranges++;
    const state = this.#state;
    const token = query.pageToken === "" ? undefined : decodePageToken(query.pageToken, query.prefix);
    const whole = listRange(query);
    const revision = state.checkRevision(token?.revision ?? 0, this.#durableRevision);
    const start = pageStart(whole, token?.after);
    const { rows, isCut } = state.pageRows(
      { start, end: whole.end },
      revision,
      pageSize + 1,
      PAGE_BYTES_MAX,
    );
    const hasMore = rows.length > pageSize || isCut;
    const entries = rows.slice(0, pageSize).map((row) => state.keyValue(row, query.keysOnly));
    const last = entries.at(-1);
    return {
      entries,
      nextPageToken: hasMore && last !== undefined ? encodePageToken({ revision, after: last.key }) : "",
      revision,
      count: state.range({ key: whole.start, range: whole, countOnly: true, revision }, revision).count,
    };
  }

  /** Changes of a key before revision `before`, newest first, at most `limit`, as far back as history is kept.
   *  @throws {KvError} `emptyKey`. */
  history(key: Uint8Array, before: number, limit: number): HistoryPage {
    if (key.length === 0) throw new KvError("emptyKey");
    this.#ranges++;
    const state = this.#state;
    const revision = this.#durableRevision;
    const rows: number[] = [];
    state.rowsOfKey(key, state.compactRevision, Math.min(before - 1, revision), rows);
    const taken = rows.slice(Math.max(0, rows.length - limit)).reverse();
    return {
      changes: taken.map((row) => changeOf(state, row)),
      more: rows.length > taken.length,
      revision,
    };
  }

  /** Tells the watchers that asked for progress where the store is. Call every watch.progressIntervalMs. */
  tickProgress(): void {
    this.watches.tickProgress();
  }

  figures(): KvFigures {
    return {
      keys: this.#state.keyCount,
      revision: this.#durableRevision,
      compactRevision: this.#state.compactRevision,
      bytes: this.#state.bytes,
      historyBytes: this.#state.historyBytes,
      watchers: this.watches.watcherCount,
      slowWatchers: this.watches.laggingCount(this.config.watch.laggingRevisions),
      puts: this.#puts,
      ranges: this.#ranges,
      deletes: this.#deletes,
      txns: this.#txns,
      compactions: this.#compactions,
      snapshotFailures: this.#snapshotFailures,
    };
  }

  /** Takes no more writes, ends the watchers and makes what was taken durable. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const last = this.#lastSeq;
    if (last > this.#store.durableSeq && this.#failure === undefined) {
      // Writers in flight get their answers before the watchers go.
      await this.#store.durable(last).catch((error: StoreError) => this.#fail(error));
    }
    this.watches.close();
    await this.#store.close();
    await this.#snapshotting;
  }

  // ---- writing ----

  /** Runs `change` on the state, logs what it did and resolves when that is durable: the one door for writes. `change` is
   *  synchronous; it must tell the log of every write, which runPut and runDelete do. One that throws leaves no trace, and
   *  the rejection waits until what it saw is durable. `despiteAlarms` is for what ends an alarm.
   *  @throws {KvError} */
  async mutate<T>(change: (log: WriteLog) => T, despiteAlarms = false): Promise<T> {
    this.#checkWritable();
    const state = this.#state;
    const record = this.#record;
    record.begin(state.revision + 1);
    let result: T;
    try {
      if (!despiteAlarms) this.#guard.checkWrite();
      result = change(record);
      if (state.hasChanges) this.#leases.endOwn(state, record);
    } catch (error) {
      state.rollback();
      // The refusal may rest on a write that is not durable yet: telling it would show that write.
      await this.#settled(this.#lastSeq);
      if (error instanceof KvError && error.kind === "noSpace") await this.#guard.onNoSpace();
      throw error;
    }
    if (state.hasChanges) this.#appendWrite(record.payload, record.entries);
    else if (record.entries.length > 0) this.#appendWrite(record.entriesPayload, record.entries);
    await this.#settled(this.#lastSeq);
    return result;
  }

  #appendWrite(payload: Uint8Array, entries: readonly EntryChange[]): void {
    const state = this.#state;
    let seq: number;
    try {
      seq = this.#store.append(payload, entries);
    } catch (error) {
      state.rollback();
      throw refusedBy(error);
    }
    this.#logBytes += payload.length;
    this.#lastSeq = seq;
    const hasRows = state.hasChanges;
    const revision = state.commit();
    this.#pending.push({ seq, revision, kind: "write", entries });
    for (const { name, value } of entries) this.#ownerOf(name)?.load(name, value);
    if (hasRows) { for (const listener of this.#appliedListeners) listener(revision); }
  }

  #ownerOf(name: string): EntryOwner | undefined {
    return this.#owners.find(({ prefix }) => name.startsWith(prefix))?.owner;
  }

  #appendCompaction(revision: number): number {
    let seq: number;
    try {
      seq = this.#store.append(compactRecord(revision), NO_ENTRIES);
    } catch (error) {
      throw refusedBy(error);
    }
    this.#compactWanted = revision;
    this.#lastSeq = seq;
    this.#pending.push({ seq, revision, kind: "compact", entries: NO_ENTRIES });
    return seq;
  }

  /** Resolves when everything that was written so far is durable and shown.
   *  @throws {KvError} `notDurable`. */
  settled(): Promise<void> {
    return this.#settled(this.#lastSeq);
  }

  /** Resolves when everything up to record `seq` is durable and shown. */
  async #settled(seq: number): Promise<void> {
    if (seq <= this.#shownSeq) return;
    try {
      await this.#store.durable(seq);
    } catch (error) {
      throw new KvError("notDurable", undefined, { cause: error });
    }
    this.#advance();
  }

  /** Shows what became durable. */
  #advance(): void {
    const durableSeq = this.#store.durableSeq;
    if (durableSeq <= this.#shownSeq) return;
    this.#shownSeq = durableSeq;
    let revision = this.#durableRevision;
    let compactRevision = 0;
    for (let next = this.#pending.first; next !== undefined && next.seq <= durableSeq;) {
      this.#pending.shift();
      if (next.kind === "write") revision = next.revision;
      else compactRevision = next.revision;
      for (const { name, value } of next.entries) {
        if (value === undefined) this.#entries.delete(name);
        else this.#entries.set(name, value);
      }
      next = this.#pending.first;
    }
    this.#durableRevision = revision;
    if (compactRevision > this.#state.compactRevision) {
      this.#state.compact(compactRevision, revision);
      this.#compactions++;
    }
    this.watches.publish(revision);
    this.#maintain();
  }

  /** Keeps history and log within their bounds. */
  #maintain(): void {
    if (this.#isClosed || this.#failure !== undefined) return;
    this.#compactIfDue();
    if (this.#state.purgeBacklog > 0) this.#purgeInBackground();
    if (
      this.#store.takesSnapshots && this.#logBytes >= this.#snapshotAtBytes &&
      this.#snapshotting === undefined
    ) {
      this.#startSnapshot();
    }
  }

  #startSnapshot(): void {
    // Begun on a later turn: the snapshot's own first steps may make something durable and come here again.
    this.#snapshotting = Promise.resolve()
      .then(() => this.#snapshot())
      .finally(() => this.#snapshotting = undefined);
  }

  #compactIfDue(): void {
    if (this.config.autoCompaction.mode !== "retain") return;
    // One at a time: what the last one frees is not known before it is done.
    if (this.#compactWanted > this.#state.compactRevision) return;
    const wanted = Math.max(this.#revisionToRetain(), this.#revisionForRoom());
    if (wanted <= this.#compactWanted || wanted > this.#durableRevision) return;
    try {
      this.#appendCompaction(wanted);
    } catch (error) {
      // Not urgent: the next durable write tries again.
      if (!(error instanceof KvError)) throw error;
    }
  }

  /** Revision to compact to because history is longer than configured, or 0. */
  #revisionToRetain(): number {
    const { retainRevisions } = this.config;
    const slack = Math.ceil(retainRevisions * RETAIN_SLACK);
    const oldest = Math.max(this.#compactWanted, 1);
    return this.#durableRevision - oldest > retainRevisions + slack
      ? this.#durableRevision - retainRevisions
      : 0;
  }

  /** Revision to compact to because history takes too much memory, or 0. */
  #revisionForRoom(): number {
    const state = this.#state;
    if (this.#snapshotting !== undefined || state.purgeBacklog > 0) return 0;
    const { quotaBytes, retainHistoryBytes } = this.config;
    const isPressed = state.bytes > quotaBytes * QUOTA_PRESSURE &&
      state.historyBytes > quotaBytes * HISTORY_WORTH;
    if (state.historyBytes <= retainHistoryBytes && !isPressed) return 0;
    const start = state.indexOfRevision(0);
    const end = state.historyEnd;
    const index = start + Math.ceil((end - start) * HISTORY_SHARE);
    if (index >= end) return this.#durableRevision;
    return Math.min(state.modRevision(state.historyAt(index)), this.#durableRevision);
  }

  #purgeInBackground(): void {
    if (this.#isPurging) return;
    this.#isPurging = true;
    this.#purge().finally(() => this.#isPurging = false);
  }

  /** Purges a slice at a time until nothing is left to purge. */
  async #purge(): Promise<void> {
    for (;;) {
      this.#state.purge(PURGE_SLICE_ROWS);
      if (this.#state.purgeBacklog === 0 || this.#isClosed) return;
      await this.pause();
    }
  }

  /** Writes a snapshot beside the running writes. Never rejects: a failed one is tried again later. */
  async #snapshot(): Promise<void> {
    const state = this.#state;
    const release = state.holdPurge();
    const coveredBytes = this.#logBytes;
    const scope = {
      revision: this.#durableRevision,
      compactRevision: state.compactRevision,
      identity: this.identity,
      entries: new Map(this.#entries),
    };
    let bytes = 0;
    const counted = function* () {
      for (const record of snapshotRecords(state, scope)) {
        bytes += record.length;
        yield record;
      }
    };
    try {
      await this.#store.snapshot(counted(), this.#shownSeq);
      this.#logBytes -= coveredBytes;
      this.#snapshotAtBytes = Math.max(this.config.snapshotLogBytes, bytes);
    } catch (error) {
      if (!this.#isClosed) {
        this.#snapshotFailures++;
        this.#snapshotAtBytes = this.#logBytes + this.config.snapshotLogBytes;
        this.#log.error("the snapshot could not be written; the log is kept", { error });
      }
    } finally {
      release();
    }
    if (state.purgeBacklog > 0) this.#purgeInBackground();
  }

  // ---- checks ----

  #readOnlyTxn(txn: Txn): TxnResult {
    const state = this.#state;
    const revision = this.#durableRevision;
    const chosen = chooseBranches(state, txn, revision);
    checkChosen(state, this.#leases, chosen, revision);
    // Nothing in it writes, so nothing reaches the record.
    const results = runChosen(state, this.#leases, chosen, revision, this.#record);
    return { revision, succeeded: chosen.succeeded, results };
  }

  #checkWritable(): void {
    if (this.#failure !== undefined) throw new KvError("readOnly", this.#failure.message);
    if (this.#isClosed) throw new KvError("stopped");
  }

  #checkSizes(op: PutOp): void {
    const { maxKeyBytes, maxValueBytes, maxRequestBytes } = this.config;
    if (
      op.key.length > maxKeyBytes || op.value.length > maxValueBytes ||
      op.key.length + op.value.length > maxRequestBytes
    ) throw new KvError("requestTooLarge");
  }

  /** Checks that there is room for `bytes` more; 0 asks whether there may be more at all.
   *  @throws {KvError} `noSpace`; inside `mutate` the alarm is then raised. */
  checkSpace(bytes: number): void {
    if (this.#guard.isFull) throw new KvError("noSpace");
    if (this.#state.bytes + bytes > this.config.quotaBytes) throw new KvError("noSpace");
  }

  #checkModRevision(key: Uint8Array, expected: number | undefined): void {
    if (expected === undefined) return;
    const row = this.#state.rowAt(key, Infinity);
    const actual = row < 0 ? 0 : this.#state.modRevision(row);
    if (actual === expected) return;
    const describe = (revision: number) => revision === 0 ? "0 (absent)" : String(revision);
    throw new KvError("revisionMismatch", `expected ${describe(expected)}, found ${describe(actual)}`);
  }

  #fail(error: StoreError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#log.error("the log failed; the store is read-only", { error });
  }
}

/** What a store's refusal means to the client. */
function refusedBy(error: unknown): unknown {
  if (!(error instanceof StoreError)) return error;
  return new KvError(error.code === "full" ? "tooManyRequests" : "readOnly", error.message, { cause: error });
}
