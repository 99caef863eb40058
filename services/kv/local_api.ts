/** The embedded store as REST and Redis use it. */
import type { ApiWatch, Caller, Decision, KvApi, KvBackend } from "./api.ts";
import { type KeyRange, toBinaryString } from "./key.ts";
import type { LeaseService } from "./lease/lease_service.ts";
import type { KeyValue, RangeQuery, RangeResult } from "./mvcc.ts";
import {
  type DeleteResult,
  type HistoryPage,
  type KvService,
  type ListPage,
  type ListQuery,
  listRange,
  type PutResult,
  type TxnResult,
} from "./service.ts";
import type { DeleteOp, PutOp, Txn } from "./txn.ts";

const NOBODY: Caller = { user: undefined };

/** KvBackend on the service of this worker. */
export class LocalBackend implements KvBackend {
  readonly #api: LocalApi;

  constructor(readonly service: KvService, leases: LeaseService) {
    this.#api = new LocalApi(service, leases);
  }

  get revision(): number {
    return this.service.revision;
  }

  get compactRevision(): number {
    return this.service.compactRevision;
  }

  get isClosed(): boolean {
    return this.service.isClosed;
  }

  callerOf(_call: { readonly requestHeader: Headers }): Caller {
    return NOBODY;
  }

  login(_user: string, _password: string): Promise<Caller> {
    return Promise.resolve(NOBODY);
  }

  as(_caller: Caller): KvApi {
    return this.#api;
  }
}

/** Keys that ran out looked up one by one; when there are more, the keys of the range are. */
const GONE_KEYS_MAX = 4_096;

/** Reads leave out keys whose lease has run out; a write that meets one ends the lease first, so that its deletion is a
 *  revision of its own. Reads of the past show it as it was. */
class LocalApi implements KvApi {
  constructor(readonly service: KvService, readonly leases: LeaseService) {}

  range(query: RangeQuery): RangeResult {
    const isOfPast = (query.revision ?? 0) > 0 && query.revision !== this.service.revision;
    if (this.leases.isSettled || isOfPast || query.key.length === 0) return this.service.range(query);
    this.leases.expire();
    const gone = this.#goneIn(query.range === "single" ? query.key : query.range);
    const limit = query.limit ?? 0;
    const found = this.service.range(limit > 0 ? { ...query, limit: limit + gone.size } : query);
    const kvs = found.kvs.filter((kv) => !gone.has(toBinaryString(kv.key)));
    const more = found.more || (limit > 0 && kvs.length > limit);
    if (more) kvs.length = limit;
    return { revision: found.revision, kvs, more, count: found.count - gone.size };
  }

  list(query: ListQuery): ListPage {
    const page = this.service.list(query);
    // The pages after the first are of the past.
    if (this.leases.isSettled || query.pageToken !== "") return page;
    this.leases.expire();
    const gone = this.#goneIn(listRange(query));
    const entries = page.entries.filter((kv) => !gone.has(toBinaryString(kv.key)));
    return { ...page, entries, count: page.count - gone.size };
  }

  history(key: Uint8Array, before: number, limit: number): HistoryPage {
    return this.service.history(key, before, limit);
  }

  put(op: PutOp, ifModRevision?: number): Promise<PutResult> {
    this.#endIfExpired(op.key);
    return this.service.put(op, ifModRevision);
  }

  delete(op: DeleteOp, ifModRevision?: number): Promise<DeleteResult> {
    if (op.range !== "single") return this.#afterExpiry(() => this.service.delete(op, ifModRevision));
    this.#endIfExpired(op.key);
    return this.service.delete(op, ifModRevision);
  }

  txn(txn: Txn): Promise<TxnResult> {
    return this.#afterExpiry(() => this.service.txn(txn));
  }

  transact<T>(
    keys: readonly Uint8Array[],
    decide: (found: readonly (KeyValue | undefined)[]) => Decision<T>,
  ): Promise<T> {
    for (const key of keys) this.#endIfExpired(key);
    return this.service.transact(keys, decide);
  }

  leaseTtlMs(lease: bigint): number | undefined {
    const remainingMs = this.leases.lessor.remainingMsOf(lease, this.service.now());
    return remainingMs !== undefined && remainingMs > 0 ? remainingMs : undefined;
  }

  openWatch(onReady: () => void): ApiWatch {
    return this.service.watches.openStream(onReady);
  }

  #endIfExpired(key: Uint8Array): void {
    if (!this.leases.hasExpired) return;
    const { state } = this.service;
    const row = state.rowAt(key, Infinity);
    if (row >= 0) this.leases.endIfExpired(state.leaseOf(row));
  }

  /** Runs `write` when no lease is left that has run out. */
  async #afterExpiry<T>(write: () => Promise<T>): Promise<T> {
    if (this.leases.hasExpired) await this.leases.expire();
    return await write();
  }

  /** Keys, as binary strings, that the newest durable revision shows though their lease has run out. */
  #goneIn(keys: KeyRange | Uint8Array): Set<string> {
    const { leases, service: { state, revision } } = this;
    const gone = new Set<string>();
    if (keys instanceof Uint8Array) {
      const row = state.rowAt(keys, revision);
      if (row >= 0 && leases.isGone(state.leaseOf(row))) gone.add(toBinaryString(keys));
      return gone;
    }
    let looked = 0;
    leases.visitGone((id, names) => {
      looked += 1 + names.length;
      if (looked > GONE_KEYS_MAX) return false;
      for (const name of names) {
        const row = state.rowAt(name, revision);
        if (row >= 0 && state.leaseOf(row) === id && state.isRowWithin(row, keys)) {
          gone.add(toBinaryString(name));
        }
      }
      return true;
    });
    if (looked <= GONE_KEYS_MAX) return gone;
    for (const row of state.rowsInRange(keys, revision)) {
      if (leases.isGone(state.leaseOf(row))) gone.add(toBinaryString(state.keyOf(row)));
    }
    return gone;
  }
}
