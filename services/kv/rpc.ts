/** The service on the wire: etcd's KV and Watch, and KeyValueService. Messages are made as plain literals with their type
 *  name, which serialise as they are: `create` would copy each one. */
import {
  type CompactionRequest,
  type CompactionResponse,
  type Compare as CompareMessage,
  Compare_CompareResult,
  Compare_CompareTarget,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  type KV,
  type PutRequest,
  type PutResponse,
  type RangeRequest,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  type RangeResponse,
  type RangeStreamResponse,
  type RequestOp,
  type ResponseHeader,
  type ResponseOp,
  type TxnRequest,
  type TxnResponse,
  type WatchCreateRequest,
  WatchCreateRequest_FilterType,
  type WatchRequest,
  type WatchResponse,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { type Event, Event_EventType } from "$proto/mvccpb/kv_pb.ts";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import type { KvBackend } from "./api.ts";
import type { Guard, Permit } from "./auth/guard.ts";
import { rangeOf } from "./key.ts";
import type { LeaseService } from "./lease/lease_service.ts";
import type { Logins } from "./auth/logins.ts";
import { createAuthHandlers } from "./auth/rpc_auth.ts";
import { createEntryHandlers } from "./rpc_entries.ts";
import { createLeaseHandlers } from "./lease/rpc_lease.ts";
import { createLockHandlers } from "./locks/rpc_lock.ts";
import { createClusterHandlers, createMaintenanceHandlers } from "./maintenance/rpc_maintenance.ts";
import type { Alarms } from "./maintenance/alarms.ts";
import type { Maintenance } from "./maintenance/maintenance.ts";
import type { KvHandlers } from "./served.ts";
import type { KvLogger, KvService, RangePiece } from "./service.ts";
import type { KeyValue, RangeResult, SortTarget } from "./mvcc.ts";
import { keyValueMessage } from "./key_value_message.ts";
import { mapped, toConnectError } from "./rpc_errors.ts";
import {
  checkRange,
  type Compare,
  type CompareTarget,
  type DeleteOp,
  type Op,
  type OpResult,
  type PutOp,
  type RangeOp,
  type Txn,
} from "./txn.ts";
import type { WatchAnswer, WatchCreate, WatchEvent, WatchStream } from "./watch.ts";
import { answersOf } from "./watch_answers.ts";

/** What the handlers work on. */
export interface HandlerDeps {
  readonly service: KvService;
  readonly leases: LeaseService;
  readonly alarms: Alarms;
  readonly maintenance: Maintenance;
  readonly backend: KvBackend;
  readonly guard: Guard;
  readonly logins: Logins;
  readonly log: KvLogger;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** The implementation of every service, unchecked. */
export function createHandlers(deps: HandlerDeps): KvHandlers {
  const { service, leases, alarms, maintenance, backend, guard, logins, log, pause } = deps;
  const { clusterId, memberId } = service.identity;
  const header: MakeHeader = (revision) => ({
    $typeName: "etcdserverpb.ResponseHeader",
    clusterId,
    memberId,
    revision: BigInt(revision),
    raftTerm: RAFT_TERM,
  });
  return {
    auth: createAuthHandlers({ service, logins, header }),
    cluster: createClusterHandlers({ service, alarms, maintenance, header }),
    maintenance: createMaintenanceHandlers({ service, alarms, maintenance, header }),
    kv: createKv(service, header),
    watch: { watch: (requests, context) => watch(service, header, pause, guard, requests, context) },
    lease: createLeaseHandlers(service, leases, header),
    ...createLockHandlers({
      backend,
      header,
      pause,
      log,
      grantLease: async (ttlSeconds) => (await leases.grant(0n, ttlSeconds)).id,
    }),
    keyValue: createEntryHandlers({
      backend,
      pause,
      maxKeyBytes: service.config.maxKeyBytes,
      maxValueBytes: service.config.maxValueBytes,
    }),
  };
}

type MakeHeader = (revision: number) => ResponseHeader;

/** One member, one term. */
const RAFT_TERM = 1n;
/** What a fragment may exceed the request bound by; etcd's figure. */
const FRAGMENT_EXTRA_BYTES = 512 * 1_024;
/** Size of a piece of a large revision: with keys and values as text too it stays below the RPC layer's 4 MiB. */
const PIECE_BYTES = 1_024 * 1_024;
const NO_BYTES = new Uint8Array(0);

// ---- etcdserverpb.KV ----

function createKv(service: KvService, header: MakeHeader): ServiceImpl<typeof KV> {
  return {
    range: (request) =>
      mapped(() => {
        const op = toRange(request);
        checkRange(op);
        return rangeMessage(service.range(op.query), header);
      }),
    rangeStream: (request) => rangeStream(service, header, request),
    async put(request): Promise<PutResponse> {
      try {
        const result = await service.put(toPut(request));
        return {
          $typeName: "etcdserverpb.PutResponse",
          header: header(result.revision),
          prevKv: result.prevKv === undefined ? undefined : keyValueMessage(result.prevKv),
        };
      } catch (error) {
        throw toConnectError(error);
      }
    },
    async deleteRange(request): Promise<DeleteRangeResponse> {
      try {
        const result = await service.delete(toDelete(request));
        return deleteMessage(result.deleted, result.prevKvs, header(result.revision));
      } catch (error) {
        throw toConnectError(error);
      }
    },
    async txn(request): Promise<TxnResponse> {
      try {
        const result = await service.txn(toTxn(request));
        return {
          $typeName: "etcdserverpb.TxnResponse",
          header: header(result.revision),
          succeeded: result.succeeded,
          responses: result.results.map(opMessage),
        };
      } catch (error) {
        throw toConnectError(error);
      }
    },
    async compact(request: CompactionRequest): Promise<CompactionResponse> {
      try {
        const revision = await service.compact(Number(request.revision), request.physical);
        return { $typeName: "etcdserverpb.CompactionResponse", header: header(revision) };
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}

/** A range in pieces, all of one revision; header, count and more come with the last, as etcd has it. */
async function* rangeStream(
  service: KvService,
  header: MakeHeader,
  request: RangeRequest,
): AsyncGenerator<RangeStreamResponse, void, void> {
  const pieces = mapped(() => {
    const op = toRange(request);
    checkRange(op);
    return service.rangePieces(op.query, PIECE_BYTES);
  });
  for (;;) {
    const { value, done } = mapped(() => pieces.next());
    if (done === true) return;
    yield { $typeName: "etcdserverpb.RangeStreamResponse", rangeResponse: pieceMessage(value, header) };
    await service.pause();
  }
}

function pieceMessage({ kvs, last }: RangePiece, header: MakeHeader): RangeResponse {
  return {
    $typeName: "etcdserverpb.RangeResponse",
    header: last === undefined ? undefined : header(last.revision),
    kvs: kvs.map(keyValueMessage),
    more: last?.more ?? false,
    count: BigInt(last?.count ?? 0),
  };
}

const SORT_TARGETS: Readonly<Record<RangeRequest_SortTarget, SortTarget>> = {
  [RangeRequest_SortTarget.KEY]: "key",
  [RangeRequest_SortTarget.VERSION]: "version",
  [RangeRequest_SortTarget.CREATE]: "create",
  [RangeRequest_SortTarget.MOD]: "mod",
  [RangeRequest_SortTarget.VALUE]: "value",
};

/** A range as the domain has it. */
export function toRange(request: RangeRequest): RangeOp {
  const sortTarget = SORT_TARGETS[request.sortTarget];
  const hasValidSort = sortTarget !== undefined && request.sortOrder in RangeRequest_SortOrder;
  const query = {
    key: request.key,
    range: rangeOf(request.key, request.rangeEnd),
    limit: Number(request.limit),
    revision: Number(request.revision),
    sortTarget: sortTarget ?? "key",
    keysOnly: request.keysOnly,
    countOnly: request.countOnly,
    minModRevision: Number(request.minModRevision),
    maxModRevision: Number(request.maxModRevision),
    minCreateRevision: Number(request.minCreateRevision),
    maxCreateRevision: Number(request.maxCreateRevision),
  };
  if (request.sortOrder === RangeRequest_SortOrder.NONE) return { kind: "range", query, hasValidSort };
  const sortOrder = request.sortOrder === RangeRequest_SortOrder.DESCEND ? "descend" : "ascend";
  return { kind: "range", query: { ...query, sortOrder }, hasValidSort };
}

/** A put as the domain has it. */
export function toPut(request: PutRequest): PutOp {
  return {
    kind: "put",
    key: request.key,
    value: request.value,
    lease: request.lease,
    prevKv: request.prevKv,
    ignoreValue: request.ignoreValue,
    ignoreLease: request.ignoreLease,
  };
}

/** A deletion as the domain has it. */
export function toDelete(request: DeleteRangeRequest): DeleteOp {
  return {
    kind: "delete",
    key: request.key,
    range: rangeOf(request.key, request.rangeEnd),
    prevKv: request.prevKv,
  };
}

/** A transaction as the domain has it. */
export function toTxn(request: TxnRequest): Txn {
  return {
    compares: request.compare.map(toCompare),
    success: request.success.map(toOp),
    failure: request.failure.map(toOp),
  };
}

function toOp(message: RequestOp): Op | undefined {
  const { request } = message;
  switch (request.case) {
    case "requestRange":
      return toRange(request.value);
    case "requestPut":
      return toPut(request.value);
    case "requestDeleteRange":
      return toDelete(request.value);
    case "requestTxn":
      return { kind: "txn", txn: toTxn(request.value) };
    default:
      return undefined;
  }
}

const COMPARE_TARGETS: Readonly<Record<Compare_CompareTarget, CompareTarget>> = {
  [Compare_CompareTarget.VERSION]: "version",
  [Compare_CompareTarget.CREATE]: "create",
  [Compare_CompareTarget.MOD]: "mod",
  [Compare_CompareTarget.VALUE]: "value",
  [Compare_CompareTarget.LEASE]: "lease",
};

const COMPARE_RESULTS: Readonly<Record<Compare_CompareResult, Compare["result"]>> = {
  [Compare_CompareResult.EQUAL]: "equal",
  [Compare_CompareResult.GREATER]: "greater",
  [Compare_CompareResult.LESS]: "less",
  [Compare_CompareResult.NOT_EQUAL]: "not_equal",
};

/** Field of the union that each target compares with; another one set counts as not set. */
const OPERAND_FIELDS: Readonly<Record<CompareTarget, CompareMessage["targetUnion"]["case"]>> = {
  version: "version",
  create: "createRevision",
  mod: "modRevision",
  value: "value",
  lease: "lease",
};

function toCompare(message: CompareMessage): Compare {
  const target = COMPARE_TARGETS[message.target];
  const result = COMPARE_RESULTS[message.result];
  if (target === undefined || result === undefined) {
    throw new ConnectError("kv: unknown comparison", Code.InvalidArgument);
  }
  const given = message.targetUnion.case === OPERAND_FIELDS[target] ? message.targetUnion.value : undefined;
  const operand = operandOf(target, given);
  return { key: message.key, range: rangeOf(message.key, message.rangeEnd), target, result, operand };
}

function operandOf(target: CompareTarget, given: bigint | Uint8Array | undefined): Compare["operand"] {
  if (target === "value") return given as Uint8Array | undefined ?? NO_BYTES;
  return target === "lease" ? given as bigint | undefined ?? 0n : Number(given ?? 0n);
}

/** Answers inside a transaction carry the revision alone, nested transactions none: as etcd has it. */
function innerHeader(revision: number): ResponseHeader {
  return {
    $typeName: "etcdserverpb.ResponseHeader",
    clusterId: 0n,
    memberId: 0n,
    revision: BigInt(revision),
    raftTerm: 0n,
  };
}

function opMessage(result: OpResult): ResponseOp {
  const $typeName = "etcdserverpb.ResponseOp";
  switch (result.kind) {
    case "range":
      return {
        $typeName,
        response: { case: "responseRange", value: rangeMessage(result.result, innerHeader) },
      };
    case "put": {
      const value: PutResponse = {
        $typeName: "etcdserverpb.PutResponse",
        header: innerHeader(result.revision),
        prevKv: result.prevKv === undefined ? undefined : keyValueMessage(result.prevKv),
      };
      return { $typeName, response: { case: "responsePut", value } };
    }
    case "delete": {
      const value = deleteMessage(result.deleted, result.prevKvs, innerHeader(result.revision));
      return { $typeName, response: { case: "responseDeleteRange", value } };
    }
    case "txn": {
      const value: TxnResponse = {
        $typeName: "etcdserverpb.TxnResponse",
        header: innerHeader(0),
        succeeded: result.succeeded,
        responses: result.results.map(opMessage),
      };
      return { $typeName, response: { case: "responseTxn", value } };
    }
  }
}

function rangeMessage(result: RangeResult, header: MakeHeader): RangeResponse {
  return {
    $typeName: "etcdserverpb.RangeResponse",
    header: header(result.revision),
    kvs: result.kvs.map(keyValueMessage),
    more: result.more,
    count: BigInt(result.count),
  };
}

function deleteMessage(
  deleted: number,
  prevKvs: readonly KeyValue[],
  header: ResponseHeader,
): DeleteRangeResponse {
  return {
    $typeName: "etcdserverpb.DeleteRangeResponse",
    header,
    deleted: BigInt(deleted),
    prevKvs: prevKvs.map(keyValueMessage),
  };
}

// ---- etcdserverpb.Watch ----

async function* watch(
  service: KvService,
  header: MakeHeader,
  pause: () => Promise<void>,
  guard: Guard,
  requests: AsyncIterable<WatchRequest>,
  context: HandlerContext,
): AsyncGenerator<WatchResponse, void, void> {
  const fragmentBytes = service.config.maxRequestBytes + FRAGMENT_EXTRA_BYTES;
  const permit = guard.permitOf(context);
  const create = (stream: WatchStream, request: WatchCreateRequest) =>
    stream.create(toWatch(request, fragmentBytes, permit));
  let failure: unknown;
  let onTaken = () => {};
  const start = (stream: WatchStream) => {
    readRequests(requests, stream, create, () => new Promise<void>((resolve) => onTaken = resolve))
      .catch((error) => {
        failure = error;
        stream.close();
      });
  };
  const answers = answersOf({
    open: (onReady) => service.watches.openStream(onReady),
    start,
    isStopped: () => service.isClosed,
    pause,
    signal: context.signal,
  });
  for await (const answer of answers) {
    onTaken();
    yield watchMessage(answer, header);
  }
  if (failure !== undefined) throw failure;
}

/** Passes a client's requests on; the end of its half leaves the watchers as they are. */
async function readRequests(
  requests: AsyncIterable<WatchRequest>,
  stream: WatchStream,
  create: (stream: WatchStream, request: WatchCreateRequest) => void,
  taken: () => Promise<void>,
): Promise<void> {
  for await (const { requestUnion } of requests) {
    if (stream.isClosed) return;
    if (requestUnion.case === "createRequest") create(stream, requestUnion.value);
    else if (requestUnion.case === "cancelRequest") stream.cancel(requestUnion.value.watchId);
    else if (requestUnion.case === "progressRequest") stream.requestProgress();
    while (!stream.acceptsRequests && !stream.isClosed) await taken();
  }
}

function toWatch(request: WatchCreateRequest, fragmentBytes: number, permit: Permit): WatchCreate {
  const asked = rangeOf(request.key, request.rangeEnd);
  const refusal = permit.watchRefusal(request.key, asked);
  const range = refusal === undefined && permit.isChecked ? permit.seen(asked) : asked;
  return {
    key: range === "single" ? request.key : range.start,
    range,
    startRevision: Number(request.startRevision),
    watchId: request.watchId,
    prevKv: request.prevKv,
    progressNotify: request.progressNotify,
    fragmentBytes: request.fragment ? fragmentBytes : 0,
    noPut: request.filters.includes(WatchCreateRequest_FilterType.NOPUT),
    noDelete: request.filters.includes(WatchCreateRequest_FilterType.NODELETE),
    ...(refusal === undefined ? {} : { refusal }),
  };
}

function watchMessage(answer: WatchAnswer, header: MakeHeader): WatchResponse {
  return {
    $typeName: "etcdserverpb.WatchResponse",
    header: header(answer.revision),
    watchId: answer.watchId,
    created: answer.created ?? false,
    canceled: answer.canceled ?? false,
    compactRevision: BigInt(answer.compactRevision ?? 0),
    cancelReason: answer.cancelReason ?? "",
    fragment: answer.fragment ?? false,
    events: answer.events.map(eventMessage),
  };
}

function eventMessage(event: WatchEvent): Event {
  return {
    $typeName: "mvccpb.Event",
    type: event.kind === "put" ? Event_EventType.PUT : Event_EventType.DELETE,
    kv: keyValueMessage(event.kv),
    prevKv: event.prevKv === undefined ? undefined : keyValueMessage(event.prevKv),
  };
}
