/** The embedded store as REST and Redis use it. */
import type { ApiWatch, Caller, Decision, KvApi, KvBackend } from "./api.ts";
import type { KeyValue, RangeQuery, RangeResult } from "./mvcc.ts";
import type {
  DeleteResult,
  HistoryPage,
  KvService,
  ListPage,
  ListQuery,
  PutResult,
  TxnResult,
} from "./service.ts";
import type { DeleteOp, PutOp, Txn } from "./txn.ts";

const NOBODY: Caller = { user: undefined };

/** KvBackend on the service of this worker. */
export class LocalBackend implements KvBackend {
  readonly #api: LocalApi;

  constructor(readonly service: KvService) {
    this.#api = new LocalApi(service);
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

class LocalApi implements KvApi {
  constructor(readonly service: KvService) {}

  range(query: RangeQuery): RangeResult {
    return this.service.range(query);
  }

  list(query: ListQuery): ListPage {
    return this.service.list(query);
  }

  history(key: Uint8Array, before: number, limit: number): HistoryPage {
    return this.service.history(key, before, limit);
  }

  put(op: PutOp, ifModRevision?: number): Promise<PutResult> {
    return this.service.put(op, ifModRevision);
  }

  delete(op: DeleteOp, ifModRevision?: number): Promise<DeleteResult> {
    return this.service.delete(op, ifModRevision);
  }

  txn(txn: Txn): Promise<TxnResult> {
    return this.service.txn(txn);
  }

  transact<T>(
    keys: readonly Uint8Array[],
    decide: (found: readonly (KeyValue | undefined)[]) => Decision<T>,
  ): Promise<T> {
    return this.service.transact(keys, decide);
  }

  leaseTtlMs(_lease: bigint): number | undefined {
    return undefined;
  }

  openWatch(onReady: () => void): ApiWatch {
    return this.service.watches.openStream(onReady);
  }
}
