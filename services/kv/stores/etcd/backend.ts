/** The store of an etcd cluster as REST and Redis use it. */
import {
  type DescMessage,
  type DescMethod,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { KV, Lease, type TxnResponse } from "$proto/etcdserverpb/rpc_pb.ts";
import { EtcdError, GRPC } from "../../../../storage/etcd/mod.ts";
import type { ApiWatch, Caller, Decision, KvApi, KvBackend } from "../../api.ts";
import { KV_ERRORS, KvError, type KvErrorKind } from "../../errors.ts";
import type { KeyValue, RangeQuery, RangeResult } from "../../mvcc.ts";
import { decodePageToken, encodePageToken } from "../../page_token.ts";
import {
  type DeleteResult,
  type HistoryPage,
  type ListPage,
  type ListQuery,
  listRange,
  PAGE_SIZE_MAX,
  pageStart,
  type PutResult,
  type TxnResult,
} from "../../service.ts";
import { type DeleteOp, isReadOnly, type Op, type PutOp, type Txn, TXN_OPS_MAX } from "../../txn.ts";
import type { WatchAnswer, WatchCreate, WatchEvent } from "../../watch.ts";
import type { ClusterCall, Credentials, EtcdCluster } from "./cluster.ts";
import { credentialsOf, type ForwardOptions, watchSource } from "./forward.ts";
import {
  deleteRequest,
  deleteResultOf,
  keyValueOf,
  modRevisionIs,
  opMessage,
  opResultOf,
  rangeRequest,
  rangeResultOf,
  revisionOf,
  txnRequest,
  watchAnswerOf,
  watchCreateRequest,
} from "./messages.ts";
import { ResumingWatch } from "./watch_resume.ts";

/** Tries of an optimistic transaction before it is given up: with the pauses about one second of being overtaken. */
const TRANSACT_TRIES_MAX = 24;
const TRANSACT_TRIES_AT_ONCE = 3;
const TRANSACT_PAUSE_MAX_MS = 100;
/** Keys on a page of a list when nothing is asked for. */
const PAGE_SIZE_DEFAULT = 100;
/** Key and value bytes after which a page ends: a message between workers carries 4 MiB. */
const PAGE_BYTES_MAX = 1_024 * 1_024;
const NO_LEASE = 0n;

interface EtcdCaller extends Caller, Credentials {
  /** Set for callers that came with a name and password: a new token when theirs has run out. */
  readonly password?: string;
}

/** KvBackend on a cluster. */
export class EtcdBackend implements KvBackend {
  readonly #options: ForwardOptions;
  #isClosed = false;

  constructor(options: ForwardOptions) {
    this.#options = options;
  }

  get revision(): number {
    return Number(this.#options.cluster.revision);
  }

  /** Not known: the cluster compacts when it likes. */
  get compactRevision(): number {
    return 0;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Takes no more requests. */
  close(): void {
    this.#isClosed = true;
  }

  callerOf(call: { readonly requestHeader: Headers }): Caller {
    const { token } = credentialsOf(call);
    // Whose a token is, only the cluster knows.
    return token === undefined ? NOBODY : { user: "token", token } as EtcdCaller;
  }

  async login(user: string, password: string): Promise<Caller> {
    const token = await mapped(() => this.#options.cluster.authenticate(user, password));
    return { user, password, token } as EtcdCaller;
  }

  as(caller: Caller): KvApi {
    return new EtcdApi(this.#options, caller as EtcdCaller, this);
  }
}

const NOBODY: Caller = { user: undefined };

class EtcdApi implements KvApi {
  readonly #options: ForwardOptions;
  readonly #cluster: EtcdCluster;
  readonly #caller: EtcdCaller;
  readonly #backend: KvBackend;
  #token: string | undefined;

  constructor(options: ForwardOptions, caller: EtcdCaller, backend: KvBackend) {
    this.#options = options;
    this.#cluster = options.cluster;
    this.#caller = caller;
    this.#backend = backend;
    this.#token = caller.token;
  }

  async range(query: RangeQuery): Promise<RangeResult> {
    return rangeResultOf(await this.#read(KV.method.range, rangeRequest(query)));
  }

  async list(query: ListQuery): Promise<ListPage> {
    const pageSize = query.pageSize === 0 ? PAGE_SIZE_DEFAULT : query.pageSize;
    if (!(pageSize >= 1 && pageSize <= PAGE_SIZE_MAX)) {
      throw new KvError("badPageSize", `it is ${query.pageSize}, expected 1 to ${PAGE_SIZE_MAX}`);
    }
    const token = query.pageToken === "" ? undefined : decodePageToken(query.pageToken, query.prefix);
    const whole = listRange(query);
    const start = pageStart(whole, token?.after);
    const found = await this.#rangeThatFits({
      key: start,
      range: { start, end: whole.end },
      limit: pageSize + 1,
      revision: token?.revision ?? 0,
      keysOnly: query.keysOnly,
    });
    const revision = token?.revision ?? found.revision;
    const count = token === undefined
      ? found.count
      : (await this.range({ key: whole.start, range: whole, countOnly: true, revision })).count;
    const entries = pageOf(found.kvs, pageSize);
    const hasMore = found.more || entries.length < found.kvs.length;
    const last = entries.at(-1);
    return {
      entries,
      nextPageToken: hasMore && last !== undefined ? encodePageToken({ revision, after: last.key }) : "",
      revision,
      count,
    };
  }

  /** Puts since the key was created, one read each. etcd has no way to ask for deletions, nor for what was before them. */
  async history(key: Uint8Array, before: number, limit: number): Promise<HistoryPage> {
    const changes: WatchEvent[] = [];
    let newest: number | undefined;
    let at = before === Infinity ? 0 : before - 1;
    let more = false;
    for (;;) {
      let found: RangeResult;
      try {
        found = await this.range({ key, range: "single", revision: at });
      } catch (error) {
        if (newest !== undefined && error instanceof KvError && error.kind === "compacted") break;
        throw error;
      }
      newest ??= found.revision;
      const kv = found.kvs[0];
      if (kv === undefined) break;
      if (changes.length === limit) {
        more = true;
        break;
      }
      changes.push({ kind: "put", kv, prevKv: undefined });
      if (kv.version === 1) break;
      at = kv.modRevision - 1;
    }
    return { changes, more, revision: newest };
  }

  async put(op: PutOp, ifModRevision?: number): Promise<PutResult> {
    return await this.#withLeases([op], async (leaseOf) => {
      // The answer to a put does not say the version, which a read right behind it does.
      const { key } = op;
      const read = { case: "requestRange" as const, value: { key, keysOnly: true } };
      const answer = await this.#write(KV.method.txn, {
        compare: ifModRevision === undefined ? [] : [modRevisionIs(key, ifModRevision)],
        success: [opMessage(op, leaseOf), { request: read }],
        failure: [{ request: read }],
      });
      if (!answer.succeeded) throw mismatch(ifModRevision, answer);
      const put = answer.responses[0]?.response;
      const prevKv = put?.case === "responsePut" ? put.value.prevKv : undefined;
      return {
        isTaken: true,
        value: {
          revision: revisionOf(answer.header),
          version: rangeIn(answer, 1)[0]?.version ?? 1,
          prevKv: prevKv && keyValueOf(prevKv),
        },
      };
    });
  }

  async delete(op: DeleteOp, ifModRevision?: number): Promise<DeleteResult> {
    if (ifModRevision === undefined) {
      return deleteResultOf(await this.#write(KV.method.deleteRange, deleteRequest(op)));
    }
    const answer = await this.#write(KV.method.txn, {
      compare: [modRevisionIs(op.key, ifModRevision)],
      success: [opMessage(op, () => NO_LEASE)],
      failure: [{ request: { case: "requestRange", value: { key: op.key, keysOnly: true } } }],
    });
    if (!answer.succeeded) throw mismatch(ifModRevision, answer);
    const result = opResultOf(answer.responses[0]!, revisionOf(answer.header));
    if (result.kind !== "delete") {
      throw new KvError("clusterFailed", "a delete was answered as something else");
    }
    return result;
  }

  async txn(txn: Txn): Promise<TxnResult> {
    return await this.#withLeases([...txn.success, ...txn.failure], async (leaseOf) => {
      const request = txnRequest(txn, leaseOf);
      const answer = isReadOnly(txn)
        ? await this.#read(KV.method.txn, request)
        : await this.#write(KV.method.txn, request);
      const revision = revisionOf(answer.header);
      const value = {
        revision,
        succeeded: answer.succeeded,
        results: answer.responses.map((each) => opResultOf(each, revision)),
      };
      return { isTaken: true, value };
    });
  }

  async transact<T>(
    keys: readonly Uint8Array[],
    decide: (found: readonly (KeyValue | undefined)[]) => Decision<T>,
  ): Promise<T> {
    if (keys.length > TXN_OPS_MAX) throw new KvError("tooManyOps");
    const reads = keys.map((key) => ({ request: { case: "requestRange" as const, value: { key } } }));
    const read = () => this.#read(KV.method.txn, { success: reads });
    let answer = await read();
    for (let tries = 1;; tries++) {
      const found = keys.map((_, i) => rangeIn(answer, i)[0]);
      const { writes, result } = decide(found);
      if (writes.length === 0) return result;
      if (writes.length > TXN_OPS_MAX) throw new KvError("tooManyOps");
      answer = await this.#withLeases(writes, async (leaseOf) => {
        const value = await this.#write(KV.method.txn, {
          compare: keys.map((key, i) => modRevisionIs(key, found[i]?.modRevision ?? 0)),
          success: writes.map((op) => opMessage(op, leaseOf)),
          failure: reads,
        });
        return { isTaken: value.succeeded, value };
      });
      if (answer.succeeded) return result;
      if (tries >= TRANSACT_TRIES_MAX) {
        throw new KvError("tooManyRequests", `overtaken by other writers ${tries} times`);
      }
      // The failure branch has read what is there now. Where that was not enough many write at once: step aside.
      if (tries < TRANSACT_TRIES_AT_ONCE) continue;
      await this.#options.pause(this.#options.fraction() * Math.min(TRANSACT_PAUSE_MAX_MS, 2 ** tries));
      answer = await read();
    }
  }

  async leaseTtlMs(lease: bigint): Promise<number | undefined> {
    const { TTL, grantedTTL } = await this.#read(Lease.method.leaseTimeToLive, { ID: lease });
    // etcd says whole seconds, rounded down: this is the middle of what it may be.
    return TTL < 0n ? undefined : Math.min(Number(TTL) * 1_000 + 500, Number(grantedTTL) * 1_000);
  }

  openWatch(onReady: () => void): ApiWatch {
    const token = this.#token;
    return new EtcdApiWatch(
      new ResumingWatch(watchSource(this.#options, token === undefined ? {} : { token }), onReady),
    );
  }

  // ---- calls ----

  #read<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { readonly input: I; readonly output: O },
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    return this.#call(method, request, true);
  }

  #write<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { readonly input: I; readonly output: O },
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    return this.#call(method, request, false);
  }

  async #call<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { readonly input: I; readonly output: O },
    request: MessageInitShape<I>,
    isRepeatable: boolean,
  ): Promise<MessageShape<O>> {
    if (this.#backend.isClosed) throw new KvError("stopped");
    return await mapped(async () => {
      const call = (): ClusterCall => ({
        isRepeatable,
        ...(this.#token === undefined ? {} : { token: this.#token }),
      });
      const { user, password } = this.#caller;
      try {
        return await this.#cluster.unary(method, request, call());
      } catch (error) {
        const isStale = error instanceof EtcdError && error.code === GRPC.UNAUTHENTICATED;
        if (!isStale || user === undefined || password === undefined) throw error;
        this.#token = await this.#cluster.authenticate(user, password);
        return await this.#cluster.unary(method, request, call());
      }
    });
  }

  /** The first answer, with fewer keys when so many do not fit in a message. */
  async #rangeThatFits(query: RangeQuery & { readonly limit: number }): Promise<RangeResult> {
    let { limit } = query;
    for (;;) {
      try {
        return await this.range({ ...query, limit });
      } catch (error) {
        const isTooLarge = error instanceof KvError && error.cause instanceof EtcdError &&
          error.cause.code === GRPC.RESOURCE_EXHAUSTED && !error.cause.isFromServer;
        if (!isTooLarge || limit <= 1) throw error;
        limit = Math.ceil(limit / 4);
      }
    }
  }

  // ---- leases of keys with a time to live ----

  /** Makes a lease for each put with a time to live, runs `write`, and revokes those that nothing was attached to. */
  async #withLeases<T>(
    ops: readonly (Op | undefined)[],
    write: (leaseOf: (op: PutOp) => bigint) => Promise<{ readonly isTaken: boolean; readonly value: T }>,
  ): Promise<T> {
    const leases = new Map<PutOp, bigint>();
    let mayBeTaken = false;
    try {
      for (const op of ops) await this.#grantFor(op, leases);
      const { isTaken, value } = await write((op) => leases.get(op) ?? op.lease);
      mayBeTaken = isTaken;
      return value;
    } catch (error) {
      mayBeTaken = error instanceof KvError && isOutcomeUnknown(error);
      throw error;
    } finally {
      if (!mayBeTaken) { for (const lease of leases.values()) this.#giveUp(lease); }
    }
  }

  async #grantFor(op: Op | undefined, into: Map<PutOp, bigint>): Promise<void> {
    if (op?.kind === "txn") {
      for (const inner of [...op.txn.success, ...op.txn.failure]) await this.#grantFor(inner, into);
    } else if (op?.kind === "put" && op.ttlMs !== undefined) {
      const TTL = BigInt(Math.max(1, Math.ceil(op.ttlMs / 1_000)));
      const { ID } = await this.#write(Lease.method.leaseGrant, { TTL });
      into.set(op, ID);
    }
  }

  /** Revokes a lease that is not needed; it would run out by itself as well. */
  #giveUp(lease: bigint): void {
    this.#cluster.unary(Lease.method.leaseRevoke, { ID: lease }, {
      isRepeatable: false,
      ...(this.#token === undefined ? {} : { token: this.#token }),
    }).catch(() => {});
  }
}

class EtcdApiWatch implements ApiWatch {
  readonly #stream: ResumingWatch;

  constructor(stream: ResumingWatch) {
    this.#stream = stream;
  }

  get isClosed(): boolean {
    return this.#stream.isClosed;
  }

  create(request: WatchCreate): void {
    this.#stream.request(watchCreateRequest(request));
  }

  cancel(watchId: bigint): void {
    this.#stream.cancel(watchId);
  }

  take(): WatchAnswer | undefined {
    const answer = this.#stream.take();
    return answer && watchAnswerOf(answer);
  }

  close(): void {
    this.#stream.close();
  }
}

/** The texts of etcd that the table of outcomes has as well. */
const KIND_BY_TEXT: ReadonlyMap<string, KvErrorKind> = new Map(
  (Object.keys(KV_ERRORS) as KvErrorKind[])
    .filter((kind) => KV_ERRORS[kind].text.startsWith("etcdserver:"))
    .map((kind) => [KV_ERRORS[kind].text, kind]),
);

/** Runs `call`; what the cluster says becomes an outcome of the domain. */
async function mapped<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof EtcdError)) throw error;
    const kind = KIND_BY_TEXT.get(error.message);
    if (kind !== undefined) throw new KvError(kind, undefined, { cause: error });
    if (error.code === GRPC.UNAVAILABLE) {
      throw new KvError("clusterUnavailable", error.message, { cause: error });
    }
    if (error.code === GRPC.DEADLINE_EXCEEDED) {
      throw new KvError("clusterTimeout", undefined, { cause: error });
    }
    throw new KvError("clusterFailed", error.message, { cause: error });
  }
}

/** Whether what was asked for may have been done nevertheless. */
function isOutcomeUnknown({ kind }: KvError): boolean {
  return kind === "clusterTimeout" || kind === "clusterUnavailable" || kind === "clusterFailed";
}

function rangeIn({ responses }: TxnResponse, index: number): KeyValue[] {
  const response = responses[index]?.response;
  return response?.case === "responseRange" ? response.value.kvs.map(keyValueOf) : [];
}

function mismatch(expected: number | undefined, answer: TxnResponse): KvError {
  const describe = (revision: number) => revision === 0 ? "0 (absent)" : String(revision);
  const actual = rangeIn(answer, 0)[0]?.modRevision ?? 0;
  return new KvError("revisionMismatch", `expected ${describe(expected ?? 0)}, found ${describe(actual)}`);
}

/** The first entries of a page, as many as fit; always one if there is one. */
function pageOf(kvs: readonly KeyValue[], pageSize: number): KeyValue[] {
  const entries: KeyValue[] = [];
  let bytes = 0;
  for (const kv of kvs) {
    bytes += kv.key.length + kv.value.length;
    if (entries.length === pageSize || (bytes > PAGE_BYTES_MAX && entries.length > 0)) break;
    entries.push(kv);
  }
  return entries;
}
