/** The domain's requests as etcd's messages, and etcd's answers as the domain's results. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  Compare_CompareResult,
  Compare_CompareTarget,
  type CompareSchema,
  type DeleteRangeRequestSchema,
  type DeleteRangeResponse,
  type PutRequestSchema,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  type RangeRequestSchema,
  type RangeResponse,
  type RequestOpSchema,
  type ResponseHeader,
  type ResponseOp,
  type TxnRequestSchema,
  WatchCreateRequest_FilterType,
  type WatchRequest,
  WatchRequestSchema,
  type WatchResponse,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { Event_EventType, type KeyValue as KeyValueMessage } from "$proto/mvccpb/kv_pb.ts";
import { KvError } from "../../errors.ts";
import type { KeyRange } from "../../key.ts";
import type { KeyValue, RangeQuery, RangeResult, SortTarget } from "../../mvcc.ts";
import type { Compare, CompareTarget, DeleteOp, Op, OpResult, PutOp, Txn } from "../../txn.ts";
import type { WatchAnswer, WatchCreate, WatchEvent } from "../../watch.ts";

/** Lease to attach a put to: the one it names, or the one made for its time to live. */
export type LeaseOf = (op: PutOp) => bigint;

const NO_KEYS = new Uint8Array(0);
const FIRST_KEY = new Uint8Array(1);

/** `key` and `range_end` of a range. An empty start is the first key there can be. */
export function rangeFields(
  key: Uint8Array,
  range: KeyRange | "single",
): { key: Uint8Array; rangeEnd: Uint8Array } {
  if (range === "single") return { key, rangeEnd: NO_KEYS };
  return { key: range.start.length === 0 ? FIRST_KEY : range.start, rangeEnd: range.end ?? FIRST_KEY };
}

const SORT_TARGETS: Readonly<Record<SortTarget, RangeRequest_SortTarget>> = {
  key: RangeRequest_SortTarget.KEY,
  version: RangeRequest_SortTarget.VERSION,
  create: RangeRequest_SortTarget.CREATE,
  mod: RangeRequest_SortTarget.MOD,
  value: RangeRequest_SortTarget.VALUE,
};

/** etcd's request of a range. */
export function rangeRequest(query: RangeQuery): MessageInitShape<typeof RangeRequestSchema> {
  return {
    ...rangeFields(query.key, query.range),
    limit: BigInt(query.limit ?? 0),
    revision: BigInt(query.revision ?? 0),
    sortOrder: query.sortOrder === undefined
      ? RangeRequest_SortOrder.NONE
      : query.sortOrder === "ascend"
      ? RangeRequest_SortOrder.ASCEND
      : RangeRequest_SortOrder.DESCEND,
    sortTarget: SORT_TARGETS[query.sortTarget ?? "key"],
    keysOnly: query.keysOnly ?? false,
    countOnly: query.countOnly ?? false,
    minModRevision: BigInt(query.minModRevision ?? 0),
    maxModRevision: BigInt(query.maxModRevision ?? 0),
    minCreateRevision: BigInt(query.minCreateRevision ?? 0),
    maxCreateRevision: BigInt(query.maxCreateRevision ?? 0),
  };
}

function putRequest(op: PutOp, leaseOf: LeaseOf): MessageInitShape<typeof PutRequestSchema> {
  const { key, value, prevKv, ignoreValue, ignoreLease } = op;
  return { key, value, prevKv, ignoreValue, ignoreLease, lease: leaseOf(op) };
}

/** etcd's request of a deletion. */
export function deleteRequest(op: DeleteOp): MessageInitShape<typeof DeleteRangeRequestSchema> {
  return { ...rangeFields(op.key, op.range), prevKv: op.prevKv };
}

/** etcd's request of a transaction. */
export function txnRequest(txn: Txn, leaseOf: LeaseOf): MessageInitShape<typeof TxnRequestSchema> {
  return {
    compare: txn.compares.map(compareMessage),
    success: txn.success.map((op) => opMessage(op, leaseOf)),
    failure: txn.failure.map((op) => opMessage(op, leaseOf)),
  };
}

/** An operation of a transaction; an empty one for undefined, which etcd refuses. */
export function opMessage(
  op: Op | undefined,
  leaseOf: LeaseOf,
): MessageInitShape<typeof RequestOpSchema> {
  switch (op?.kind) {
    case undefined:
      return {};
    case "range":
      return { request: { case: "requestRange", value: rangeRequest(op.query) } };
    case "put":
      return { request: { case: "requestPut", value: putRequest(op, leaseOf) } };
    case "delete":
      return { request: { case: "requestDeleteRange", value: deleteRequest(op) } };
    case "txn":
      return { request: { case: "requestTxn", value: txnRequest(op.txn, leaseOf) } };
  }
}

/** Holds when `key` was last written at `revision`; 0: when it is not there. */
export function modRevisionIs(key: Uint8Array, revision: number): MessageInitShape<typeof CompareSchema> {
  return {
    key,
    target: Compare_CompareTarget.MOD,
    result: Compare_CompareResult.EQUAL,
    targetUnion: { case: "modRevision", value: BigInt(revision) },
  };
}

const COMPARE_TARGETS: Readonly<Record<CompareTarget, Compare_CompareTarget>> = {
  version: Compare_CompareTarget.VERSION,
  create: Compare_CompareTarget.CREATE,
  mod: Compare_CompareTarget.MOD,
  value: Compare_CompareTarget.VALUE,
  lease: Compare_CompareTarget.LEASE,
};

const COMPARE_RESULTS: Readonly<Record<Compare["result"], Compare_CompareResult>> = {
  equal: Compare_CompareResult.EQUAL,
  greater: Compare_CompareResult.GREATER,
  less: Compare_CompareResult.LESS,
  not_equal: Compare_CompareResult.NOT_EQUAL,
};

function compareMessage(
  { key, range, target, result, operand }: Compare,
): MessageInitShape<typeof CompareSchema> {
  return {
    ...rangeFields(key, range),
    target: COMPARE_TARGETS[target],
    result: COMPARE_RESULTS[result],
    targetUnion: targetUnion(target, operand),
  };
}

function targetUnion(
  target: CompareTarget,
  operand: Compare["operand"],
): NonNullable<MessageInitShape<typeof CompareSchema>["targetUnion"]> {
  if (typeof operand === "object") return { case: "value", value: operand };
  const value = BigInt(operand);
  switch (target) {
    case "version":
      return { case: "version", value };
    case "create":
      return { case: "createRevision", value };
    case "mod":
      return { case: "modRevision", value };
    case "lease":
      return { case: "lease", value };
    case "value":
      throw new TypeError("Cannot compare a value with a number");
  }
}

// ---- answers ----

/** The revision a header names; 0 without one. */
export function revisionOf(header: ResponseHeader | undefined): number {
  return Number(header?.revision ?? 0n);
}

/** A record of etcd's as the domain has it. */
export function keyValueOf(kv: KeyValueMessage): KeyValue {
  return {
    key: kv.key,
    value: kv.value,
    createRevision: Number(kv.createRevision),
    modRevision: Number(kv.modRevision),
    version: Number(kv.version),
    lease: kv.lease,
  };
}

/** What a range came to. */
export function rangeResultOf(answer: RangeResponse): RangeResult {
  return {
    revision: revisionOf(answer.header),
    kvs: answer.kvs.map(keyValueOf),
    more: answer.more,
    count: Number(answer.count),
  };
}

/** What a deletion came to. */
export function deleteResultOf(answer: DeleteRangeResponse): {
  revision: number;
  deleted: number;
  prevKvs: readonly KeyValue[];
} {
  return {
    revision: revisionOf(answer.header),
    deleted: Number(answer.deleted),
    prevKvs: answer.prevKvs.map(keyValueOf),
  };
}

/** `revision` is the transaction's: answers inside it may carry none. */
export function opResultOf({ response }: ResponseOp, revision: number): OpResult {
  switch (response.case) {
    case "responseRange":
      return { kind: "range", result: rangeResultOf(response.value) };
    case "responsePut": {
      const prevKv = response.value.prevKv;
      return { kind: "put", revision, prevKv: prevKv && keyValueOf(prevKv) };
    }
    case "responseDeleteRange":
      return { kind: "delete", ...deleteResultOf(response.value), revision };
    case "responseTxn": {
      const { succeeded, responses } = response.value;
      return { kind: "txn", succeeded, results: responses.map((each) => opResultOf(each, revision)) };
    }
    case undefined:
      throw new KvError("clusterFailed", "an operation of a transaction has no answer");
  }
}

// ---- watches ----

/** etcd's request of a watcher. It chooses the size of fragments itself. */
export function watchCreateRequest(request: WatchCreate): WatchRequest {
  const filters: WatchCreateRequest_FilterType[] = [];
  if (request.noPut) filters.push(WatchCreateRequest_FilterType.NOPUT);
  if (request.noDelete) filters.push(WatchCreateRequest_FilterType.NODELETE);
  return create(WatchRequestSchema, {
    requestUnion: {
      case: "createRequest",
      value: {
        ...rangeFields(request.key, request.range),
        startRevision: BigInt(request.startRevision),
        watchId: request.watchId,
        prevKv: request.prevKv,
        progressNotify: request.progressNotify,
        fragment: request.fragmentBytes > 0,
        filters,
      },
    },
  });
}

/** An answer to a watcher as the domain has it. */
export function watchAnswerOf(answer: WatchResponse): WatchAnswer {
  const events = answer.events.map((event): WatchEvent => ({
    kind: event.type === Event_EventType.PUT ? "put" : "delete",
    kv: keyValueOf(event.kv!),
    prevKv: event.prevKv && keyValueOf(event.prevKv),
  }));
  // The header may be ahead of what was delivered while a watcher catches up.
  const revision = events.at(-1)?.kv.modRevision ?? revisionOf(answer.header);
  return {
    watchId: answer.watchId,
    revision,
    events,
    ...(answer.created ? { created: true } : {}),
    ...(answer.canceled ? { canceled: true } : {}),
    ...(answer.compactRevision > 0n ? { compactRevision: Number(answer.compactRevision) } : {}),
    ...(answer.cancelReason === "" ? {} : { cancelReason: answer.cancelReason }),
    ...(answer.fragment ? { fragment: true } : {}),
  };
}
