/** What the edges inside the worker (REST, Redis) need of a key-value store, whichever engine is behind it. */
import type { DeleteResult, HistoryPage, ListPage, ListQuery, PutResult, TxnResult } from "./service.ts";
import type { KeyValue, RangeQuery, RangeResult } from "./mvcc.ts";
import type { DeleteOp, PutOp, Txn } from "./txn.ts";
import type { WatchAnswer, WatchCreate } from "./watch.ts";

/** What an atomic change came to: what to write, and what to tell the caller once it is durable. */
export interface Decision<T> {
  /** In order; a key at most once. */
  readonly writes: readonly (PutOp | DeleteOp)[];
  readonly result: T;
}

/** One caller's view of the store: every method checks what the caller may do.
 *  Keys whose lease has run out are not seen, whether or not their deletion has happened yet.
 *  All reject (or throw) with KvError. */
export interface KvApi {
  /** Reads a range at one revision. Synchronous on the embedded engines. */
  range(query: RangeQuery): RangeResult | Promise<RangeResult>;
  /** Lists the keys under a prefix, a page at a time, every page at the first one's revision. */
  list(query: ListQuery): ListPage | Promise<ListPage>;
  /** Changes of a key before revision `before` (Infinity: from the newest on), newest first, at most `limit`. */
  history(key: Uint8Array, before: number, limit: number): HistoryPage | Promise<HistoryPage>;
  /** Puts one key; with `ifModRevision` only if that is the key's mod revision (0: absent). */
  put(op: PutOp, ifModRevision?: number): Promise<PutResult>;
  /** Deletes a key or range. */
  delete(op: DeleteOp, ifModRevision?: number): Promise<DeleteResult>;
  txn(txn: Txn): Promise<TxnResult>;
  /** Reads `keys`, lets `decide` choose what to write, and writes it, atomically. `decide` sees the keys as of the newest
   *  write, in the order of `keys`, undefined where a key is absent; it must not write keys outside `keys`, and it may be
   *  called again when another writer came between (engines that are not embedded). What it throws rejects the call and
   *  nothing is written. The result is given when it, and all that it was decided on, is durable. */
  transact<T>(
    keys: readonly Uint8Array[],
    decide: (found: readonly (KeyValue | undefined)[]) => Decision<T>,
  ): Promise<T>;
  /** Time the lease has left, in milliseconds; undefined when there is no such lease. */
  leaseTtlMs(lease: bigint): number | undefined | Promise<number | undefined>;
  /** Opens a stream of watchers; `onReady` is called when `take` has something. */
  openWatch(onReady: () => void): ApiWatch;
}

/** A stream of watchers, as WatchStream has it. */
export interface ApiWatch {
  readonly isClosed: boolean;
  /** @throws {KvError} if the caller may not read what is watched. */
  create(request: WatchCreate): void;
  cancel(watchId: bigint): void;
  /** The next answer; "again" when others should have the turn first; undefined when there is none now. */
  take(): WatchAnswer | "again" | undefined;
  close(): void;
}

/** Who calls: what the edges know of the client. Its shape is the backend's own. */
export interface Caller {
  /** User name; undefined for a client that gave no credentials. */
  readonly user: string | undefined;
}

/** A store behind whichever engine. */
export interface KvBackend {
  /** Newest revision that is durable, as far as it is known here. */
  readonly revision: number;
  /** Oldest revision that can be read, as far as it is known here. */
  readonly compactRevision: number;
  /** Whether it has stopped taking requests. */
  readonly isClosed: boolean;
  /** Who the metadata of a call (`token` or `authorization`) says the caller is; it is not read when it does not matter.
   *  @throws {KvError} `invalidAuthToken`. */
  callerOf(call: { readonly requestHeader: Headers }): Caller | Promise<Caller>;
  /** Checks a name and password. @throws {KvError} `authFailed`, `authNotEnabled`. */
  login(user: string, password: string): Promise<Caller>;
  /** The store as this caller may use it. */
  as(caller: Caller): KvApi;
}
