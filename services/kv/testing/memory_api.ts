/** A store in memory behind KvApi, for tests of what stands on it: writes are durable at the end of the turn, or when the
 *  test says so, and time passes when the test says so. */
import type { ApiWatch, Caller, Decision, KvApi, KvBackend } from "../api.ts";
import { KvError } from "../errors.ts";
import { toBinaryString } from "../key.ts";
import type { KeyValue, RangeQuery, RangeResult } from "../mvcc.ts";
import { MvccState } from "../state.ts";
import type { DeleteResult, PutResult, TxnResult } from "../service.ts";
import type { DeleteOp, PutOp } from "../txn.ts";
import { WatchHub } from "../watch.ts";

const NO_LEASE = 0n;

/** The store, and its own one caller. */
export class MemoryApi implements Pick<KvApi, "range" | "put" | "delete" | "transact"> {
  readonly state = new MvccState(1);
  readonly watches = new WatchHub(this.state, {
    watchersMax: 100_000,
    batchBytes: 256 * 1_024,
    batchRevisions: 1_000,
  });
  /** Revision that readers see. */
  revision = 1;
  /** Time in milliseconds, for leases. */
  nowMs = 1_000_000;
  /** Whether writes wait for `sync`. */
  isManual = false;
  /** What writes are refused with. */
  refusal: KvError | undefined;
  readonly #deadlines = new Map<bigint, number>();
  #nextLease = 1n;
  #waiting: (() => void)[] = [];

  get backend(): KvBackend {
    // deno-lint-ignore no-this-alias -- a getter's object needs it by another name
    const api = this;
    return {
      get revision() {
        return api.revision;
      },
      callerOf: () => ({ user: undefined }),
      login: (user: string, password: string): Promise<Caller> =>
        password === "right"
          ? Promise.resolve({ user })
          : Promise.reject(new KvError(user === "root" ? "authFailed" : "authNotEnabled")),
      as: () => api,
    } as unknown as KvBackend;
  }

  range(query: RangeQuery): RangeResult {
    this.#expire();
    return this.state.range(query, this.revision);
  }

  async put(op: PutOp): Promise<PutResult> {
    this.#write([op]);
    await this.#durable();
    return { revision: this.state.revision, version: 1, prevKv: undefined };
  }

  async delete(op: DeleteOp): Promise<DeleteResult> {
    const before = this.state.keyCount;
    this.#write([op]);
    await this.#durable();
    return { revision: this.state.revision, deleted: before - this.state.keyCount, prevKvs: [] };
  }

  txn(): Promise<TxnResult> {
    return Promise.reject(new Error("not for these tests"));
  }

  async transact<T>(
    keys: readonly Uint8Array[],
    decide: (found: readonly (KeyValue | undefined)[]) => Decision<T>,
  ): Promise<T> {
    this.#expire();
    const found = keys.map((key) => {
      const row = this.state.rowAt(key, Infinity);
      return row < 0 ? undefined : this.state.keyValue(row);
    });
    const { writes, result } = decide(found);
    const names = new Set(writes.map((op) => toBinaryString(op.key)));
    if (names.size !== writes.length) throw new KvError("duplicateKey");
    this.#write(writes);
    await this.#durable();
    return result;
  }

  leaseTtlMs(lease: bigint): number | undefined {
    const deadline = this.#deadlines.get(lease);
    return deadline === undefined ? undefined : deadline - this.nowMs;
  }

  openWatch(onReady: () => void): ApiWatch {
    return this.watches.openStream(onReady);
  }

  /** Makes what was written durable, with `isManual`. */
  sync(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#show();
    for (const resolve of waiting) resolve();
  }

  #durable(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (!this.isManual && this.#waiting.length === 1) setImmediate(() => this.sync());
    });
  }

  #show(): void {
    this.revision = this.state.revision;
    this.watches.publish(this.revision);
  }

  #write(ops: readonly (PutOp | DeleteOp)[]): void {
    if (this.refusal !== undefined) throw this.refusal;
    for (const op of ops) {
      if (op.kind === "delete") {
        if (op.range === "single") this.state.delete(op.key);
        else this.state.deleteRange(op.range);
        continue;
      }
      const row = this.state.rowAt(op.key, Infinity);
      const old = row < 0 ? undefined : this.state.keyValue(row);
      if ((op.ignoreValue || op.ignoreLease) && old === undefined) throw new KvError("keyNotFound");
      let lease = op.ignoreLease ? old!.lease : op.lease;
      if (op.ttlMs !== undefined) {
        if (lease !== NO_LEASE) throw new KvError("leaseProvided");
        lease = this.#nextLease++;
        this.#deadlines.set(lease, this.nowMs + op.ttlMs);
      }
      this.state.put(op.key, op.ignoreValue ? undefined : op.value, lease);
    }
    this.state.commit();
  }

  /** Deletes what ran out. */
  #expire(): void {
    for (const [lease, deadline] of this.#deadlines) {
      if (deadline > this.nowMs) continue;
      this.#deadlines.delete(lease);
      const all = this.state.range({ key: FIRST, range: { start: FIRST, end: undefined } }, Infinity);
      for (const kv of all.kvs) if (kv.lease === lease) this.state.delete(kv.key);
      this.state.commit();
      if (this.#waiting.length === 0) this.#show();
    }
  }
}

const FIRST = new Uint8Array(1);
