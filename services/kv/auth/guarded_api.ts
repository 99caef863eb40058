/** KvApi and KvBackend with every method checked by the guard: what REST and Redis get. */
import type { ApiWatch, Caller, Decision, KvApi, KvBackend } from "../api.ts";
import { type Call, type Guard, type GuardedCaller, NOBODY, type Permit } from "./guard.ts";
import { type KeyRange, prefixRange } from "../key.ts";
import type { KeyValue, RangeQuery, RangeResult } from "../mvcc.ts";
import type { DeleteResult, HistoryPage, ListPage, ListQuery, PutResult, TxnResult } from "../service.ts";
import { checkPut, checkTxn, type DeleteOp, type Op, type PutOp, type Txn } from "../txn.ts";
import type { WatchAnswer, WatchCreate } from "../watch.ts";

/** A backend whose callers may do what their roles grant. */
export class GuardedBackend implements KvBackend {
  readonly #nobody: KvApi;

  constructor(readonly inner: KvBackend, readonly guard: Guard, readonly logins: Pick<KvBackend, "login">) {
    this.#nobody = new GuardedApi(inner.as(NOBODY), guard, NOBODY);
  }

  get revision(): number {
    return this.inner.revision;
  }

  get compactRevision(): number {
    return this.inner.compactRevision;
  }

  get isClosed(): boolean {
    return this.inner.isClosed;
  }

  callerOf(call: Call): GuardedCaller {
    return this.guard.callerOf(call);
  }

  login(user: string, password: string): Promise<Caller> {
    return this.logins.login(user, password);
  }

  as(caller: GuardedCaller): KvApi {
    return caller === NOBODY ? this.#nobody : new GuardedApi(this.inner.as(caller), this.guard, caller);
  }
}

/** Each method is checked when it is called: connections outlive changes of users and roles. */
class GuardedApi implements KvApi {
  readonly #inner: KvApi;
  readonly #permit: Permit;

  constructor(inner: KvApi, guard: Guard, caller: GuardedCaller) {
    this.#inner = inner;
    this.#permit = guard.permitOf(caller);
  }

  get #isChecked(): boolean {
    return this.#permit.isChecked;
  }

  range(query: RangeQuery): RangeResult | Promise<RangeResult> {
    return this.#inner.range(this.#isChecked ? this.#checkedRange(query) : query);
  }

  #checkedRange(query: RangeQuery): RangeQuery {
    this.#permit.keys("read", query.key, query.range);
    return this.#seen(query);
  }

  /** What takes a range, as the caller sees it. */
  #seen<T extends { readonly key: Uint8Array; readonly range: KeyRange | "single" }>(op: T): T {
    const range = this.#permit.seen(op.range);
    return range === op.range || range === "single" ? op : { ...op, key: range.start, range };
  }

  list(query: ListQuery): ListPage | Promise<ListPage> {
    if (!this.#isChecked) return this.#inner.list(query);
    const whole = prefixRange(query.prefix);
    this.#permit.keys("read", query.prefix, whole);
    const seen = this.#permit.seen(whole);
    if (seen === whole || seen === "single") return this.#inner.list(query);
    const { prefix, pageSize, pageToken, keysOnly } = query;
    return this.#inner.list({ prefix, pageSize, pageToken, keysOnly, from: seen.start });
  }

  history(key: Uint8Array, before: number, limit: number): HistoryPage | Promise<HistoryPage> {
    if (this.#isChecked) this.#permit.keys("read", key, "single");
    return this.#inner.history(key, before, limit);
  }

  put(op: PutOp, ifModRevision?: number): Promise<PutResult> {
    if (this.#isChecked) {
      checkPut(op);
      this.#permit.put(op);
      if (ifModRevision !== undefined) this.#permit.compare({ key: op.key, range: "single" });
    }
    return this.#inner.put(op, ifModRevision);
  }

  delete(op: DeleteOp, ifModRevision?: number): Promise<DeleteResult> {
    if (!this.#isChecked) return this.#inner.delete(op, ifModRevision);
    this.#permit.delete(op);
    if (ifModRevision !== undefined) this.#permit.compare(op);
    return this.#inner.delete(this.#seen(op), ifModRevision);
  }

  txn(txn: Txn): Promise<TxnResult> {
    if (!this.#isChecked) return this.#inner.txn(txn);
    checkTxn(txn);
    this.#permit.txn(txn);
    return this.#inner.txn(this.#seenTxn(txn));
  }

  #seenTxn({ compares, success, failure }: Txn): Txn {
    const op = (each: Op | undefined): Op | undefined => each && this.#seenOp(each);
    return {
      compares: compares.map((compare) => this.#seen(compare)),
      success: success.map(op),
      failure: failure.map(op),
    };
  }

  #seenOp(op: Op): Op {
    if (op.kind === "range") return { ...op, query: this.#seen(op.query) };
    if (op.kind === "txn") return { ...op, txn: this.#seenTxn(op.txn) };
    return op.kind === "delete" ? this.#seen(op) : op;
  }

  transact<T>(
    keys: readonly Uint8Array[],
    decide: (found: readonly (KeyValue | undefined)[]) => Decision<T>,
  ): Promise<T> {
    if (!this.#isChecked) return this.#inner.transact(keys, decide);
    // What is decided depends on what is read, and tells it.
    for (const key of keys) this.#permit.keys("read", key, "single");
    return this.#inner.transact(keys, (found) => {
      const decision = decide(found);
      for (const op of decision.writes) {
        if (op.kind === "put") this.#permit.put(op);
        else this.#permit.delete(op);
      }
      return decision;
    });
  }

  leaseTtlMs(lease: bigint): number | undefined | Promise<number | undefined> {
    if (this.#isChecked) this.#permit.user();
    return this.#inner.leaseTtlMs(lease);
  }

  openWatch(onReady: () => void): ApiWatch {
    return new GuardedWatch(this.#inner.openWatch(onReady), this.#permit);
  }
}

class GuardedWatch implements ApiWatch {
  constructor(readonly inner: ApiWatch, readonly permit: Permit) {}

  get isClosed(): boolean {
    return this.inner.isClosed;
  }

  create(request: WatchCreate): void {
    if (!this.permit.isChecked) return this.inner.create(request);
    this.permit.watch(request.key, request.range);
    const range = this.permit.seen(request.range);
    this.inner.create(range === "single" ? request : { ...request, key: range.start, range });
  }

  cancel(watchId: bigint): void {
    this.inner.cancel(watchId);
  }

  take(): WatchAnswer | "again" | undefined {
    return this.inner.take();
  }

  close(): void {
    this.inner.close();
  }
}
