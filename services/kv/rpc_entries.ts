/** KeyValueService, the REST side of the store, on whichever engine is behind. */
import {
  type BatchGetRequest,
  type BatchGetResponse,
  type BatchPutRequest,
  type BatchPutResponse,
  type Change,
  Change_Kind,
  type Condition,
  type DeleteRequest,
  type DeleteResponse,
  type DeleteTextResponse,
  type Entry,
  type GetRequest,
  type GetResponse,
  type GetTextResponse,
  type HistoryRequest,
  type HistoryResponse,
  type Keys,
  type KeyValueService,
  type ListRequest,
  type ListResponse,
  type Operation,
  type OperationResult,
  type PutEntry,
  type PutRequest,
  type PutResponse,
  type PutTextRequest,
  type PutTextResponse,
  type TxnRequest,
  type TxnResponse,
  type WatchRequest,
  type WatchResponse,
} from "$proto/aetherflow/kv/v1/kv_pb.ts";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { ApiWatch, KvApi, KvBackend } from "./api.ts";
import { KvError } from "./errors.ts";
import { keyForMessage, prefixRange } from "./key.ts";
import type { KeyValue, RangeQuery, RangeResult } from "./mvcc.ts";
import { mappedAsync, toConnectError } from "./rpc_errors.ts";
import {
  type Compare,
  type Op,
  type OpResult,
  plainDelete,
  plainPut,
  type PutOp,
  TXN_OPS_MAX,
} from "./txn.ts";
import type { WatchAnswer, WatchEvent } from "./watch.ts";
import { answersOf } from "./watch_answers.ts";

/** What the handlers are made of. */
export interface EntryHandlersDeps {
  readonly backend: KvBackend;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
  readonly maxKeyBytes: number;
  readonly maxValueBytes: number;
}

/** Size of a piece of a large revision: with keys and values as text too it stays below the RPC layer's bound. */
const PIECE_BYTES = 1_024 * 1_024;
/** Most keys of a BatchGet, and most changes of a History. */
const BATCH_MAX = 1_000;
const HISTORY_DEFAULT = 100;
/** Value bytes after which a History ends early. */
const HISTORY_BYTES_MAX = 1_024 * 1_024;
const NO_LEASE = 0n;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The implementation of KeyValueService. */
export function createEntryHandlers(deps: EntryHandlersDeps): ServiceImpl<typeof KeyValueService> {
  const { backend } = deps;

  /** Runs `call` as whoever the metadata says the caller is. */
  async function as<T>(context: HandlerContext, call: (api: KvApi) => Promise<T> | T): Promise<T> {
    try {
      const caller = backend.callerOf(context);
      return await call(backend.as(caller instanceof Promise ? await caller : caller));
    } catch (error) {
      throw toConnectError(error);
    }
  }

  return {
    get: (request, context) => as(context, (api) => getEntry(api, request)),
    put: (request, context) => as(context, (api) => putEntry(api, request, deps)),
    delete: (request, context) => as(context, (api) => deleteEntry(api, request)),
    list: (request, context) => as(context, (api) => listEntries(api, request)),
    history: (request, context) => as(context, (api) => history(api, request)),
    batchGet: (request, context) => as(context, (api) => batchGet(api, request)),
    batchPut: (request, context) => as(context, (api) => batchPut(api, request)),
    txn: (request, context) => as(context, (api) => runTxn(api, request)),
    putText: (request, context) => as(context, (api) => putText(api, request)),
    getText: (request, context) => as(context, (api) => getText(api, request.key)),
    deleteText: (request, context) => as(context, (api) => deleteText(api, request.key)),
    watch: (request, context) => watchEntries(deps, request, context),
  };
}

// ---- one key ----

async function getEntry(api: KvApi, request: GetRequest): Promise<GetResponse> {
  const { key } = request;
  const result = await api.range({ key, range: "single", revision: Number(request.revision) });
  const kv = result.kvs[0];
  if (kv === undefined) throw new KvError("notFound", keyForMessage(key));
  return {
    $typeName: "aetherflow.kv.v1.GetResponse",
    entry: entryMessage(kv),
    revision: BigInt(result.revision),
    ttlMs: await ttlOf(api, kv, request),
  };
}

async function ttlOf(api: KvApi, kv: KeyValue, { revision }: GetRequest): Promise<bigint> {
  if (kv.lease === NO_LEASE || revision > 0n) return 0n;
  return BigInt(Math.ceil(await api.leaseTtlMs(kv.lease) ?? 0));
}

async function putEntry(
  api: KvApi,
  request: PutRequest,
  { maxKeyBytes, maxValueBytes }: EntryHandlersDeps,
): Promise<PutResponse> {
  const { key, value } = request;
  if (key.length > maxKeyBytes) {
    throw new KvError("keyTooLarge", `${key.length} bytes, at most ${maxKeyBytes} (kv.maxKeyBytes)`);
  }
  if (value.length > maxValueBytes) {
    throw new KvError("valueTooLarge", `${value.length} bytes, at most ${maxValueBytes} (kv.maxValueBytes)`);
  }
  const result = await api.put(putOp(key, value, request.ttlMs), toOptionalNumber(request.ifModRevision));
  return {
    $typeName: "aetherflow.kv.v1.PutResponse",
    modRevision: BigInt(result.revision),
    version: BigInt(result.version),
  };
}

async function deleteEntry(api: KvApi, request: DeleteRequest): Promise<DeleteResponse> {
  const result = await api.delete(plainDelete(request.key), toOptionalNumber(request.ifModRevision));
  return {
    $typeName: "aetherflow.kv.v1.DeleteResponse",
    deleted: result.deleted > 0,
    revision: BigInt(result.revision),
  };
}

// ---- many keys ----

async function listEntries(api: KvApi, request: ListRequest): Promise<ListResponse> {
  const page = await api.list(request);
  return {
    $typeName: "aetherflow.kv.v1.ListResponse",
    entries: page.entries.map((kv) => entryWithText(kv, !request.keysOnly)),
    nextPageToken: page.nextPageToken,
    revision: BigInt(page.revision),
    count: BigInt(page.count),
  };
}

async function history(api: KvApi, request: HistoryRequest): Promise<HistoryResponse> {
  const limit = request.limit === 0 ? HISTORY_DEFAULT : request.limit;
  if (!(limit >= 1 && limit <= BATCH_MAX)) {
    throw invalid(`limit is ${request.limit}, expected 1 to ${BATCH_MAX}`);
  }
  const before = request.beforeRevision > 0n ? Number(request.beforeRevision) : Infinity;
  const page = await api.history(request.key, before, limit);
  let bytes = 0;
  // Always one, or a client could not go on.
  const cut = page.changes.findIndex(({ kv }, i) => (bytes += kv.value.length) > HISTORY_BYTES_MAX && i > 0);
  const changes = cut < 0 ? page.changes : page.changes.slice(0, cut);
  return {
    $typeName: "aetherflow.kv.v1.HistoryResponse",
    changes: changes.map(changeMessage),
    more: page.more || cut >= 0,
    revision: BigInt(page.revision),
  };
}

async function batchGet(api: KvApi, request: BatchGetRequest): Promise<BatchGetResponse> {
  const keys = [...request.keys, ...request.keyTexts.map((text) => encoder.encode(text))];
  if (keys.length === 0 || keys.length > BATCH_MAX) {
    throw invalid(`${keys.length} keys, expected 1 to ${BATCH_MAX}`);
  }
  const found: KeyValue[] = [];
  let revision = 0;
  for (const key of keys) {
    // The first read fixes the revision of the others.
    const result = await api.range({ key, range: "single", revision });
    revision ||= result.revision;
    found.push(...result.kvs);
  }
  return {
    $typeName: "aetherflow.kv.v1.BatchGetResponse",
    entries: found.map((kv) => entryWithText(kv, true)),
    revision: BigInt(revision),
  };
}

async function batchPut(api: KvApi, { entries }: BatchPutRequest): Promise<BatchPutResponse> {
  if (entries.length === 0 || entries.length > TXN_OPS_MAX) {
    throw invalid(`${entries.length} entries, expected 1 to ${TXN_OPS_MAX}`);
  }
  const compares = entries.flatMap((entry): Compare[] =>
    entry.ifModRevision === undefined
      ? []
      : [compareOf(bytesOf(entry.key, entry.keyText, "key"), "mod", Number(entry.ifModRevision))]
  );
  const result = await api.txn({ compares, success: entries.map(entryPut), failure: [] });
  if (!result.succeeded) throw new KvError("revisionMismatch", "so none of the keys was written");
  return { $typeName: "aetherflow.kv.v1.BatchPutResponse", revision: BigInt(result.revision) };
}

async function runTxn(api: KvApi, request: TxnRequest): Promise<TxnResponse> {
  const result = await api.txn({
    compares: request.conditions.flatMap(comparesOf),
    success: request.then.map(operationOf),
    failure: request.otherwise.map(operationOf),
  });
  return {
    $typeName: "aetherflow.kv.v1.TxnResponse",
    succeeded: result.succeeded,
    revision: BigInt(result.revision),
    results: result.results.map(resultMessage),
  };
}

function comparesOf(condition: Condition): Compare[] {
  const key = bytesOf(condition.key, condition.keyText, "key");
  const compares: Compare[] = [];
  if (condition.exists !== undefined) {
    compares.push({ ...compareOf(key, "version", 0), result: condition.exists ? "greater" : "equal" });
  }
  if (condition.modRevision !== undefined) {
    compares.push(compareOf(key, "mod", Number(condition.modRevision)));
  }
  if (condition.version !== undefined) compares.push(compareOf(key, "version", Number(condition.version)));
  const value = condition.value ??
    (condition.valueText === undefined ? undefined : encoder.encode(condition.valueText));
  if (value !== undefined) compares.push(compareOf(key, "value", value));
  if (compares.length === 0) {
    throw invalid("a condition sets none of exists, mod_revision, version, value and value_text");
  }
  return compares;
}

function compareOf(
  key: Uint8Array,
  target: Compare["target"],
  operand: Compare["operand"],
): Compare {
  return { key, range: "single", target, result: "equal", operand };
}

function operationOf({ kind }: Operation): Op {
  switch (kind.case) {
    case "put":
      if (kind.value.ifModRevision !== undefined) {
        throw invalid("in a transaction if_mod_revision is a condition: put it in conditions");
      }
      return entryPut(kind.value);
    case "get": {
      const { key, range } = keysOf(kind.value);
      return { kind: "range", query: { key, range }, hasValidSort: true };
    }
    case "delete":
      return { kind: "delete", ...keysOf(kind.value), prevKv: false };
    default:
      throw invalid("an operation is none of put, get and delete");
  }
}

function keysOf(keys: Keys): Pick<RangeQuery, "key" | "range"> {
  if (!keys.prefix) return { key: bytesOf(keys.key, keys.keyText, "key"), range: "single" };
  const prefix = keys.key.length > 0 ? keys.key : encoder.encode(keys.keyText);
  // Every key begins with nothing; the first key that there can be is a zero byte.
  const range = prefix.length > 0 ? prefixRange(prefix) : { start: new Uint8Array(1), end: undefined };
  return { key: range.start, range };
}

function resultMessage(result: OpResult): OperationResult {
  const empty: OperationResult = {
    $typeName: "aetherflow.kv.v1.OperationResult",
    entries: [],
    deleted: 0n,
    modRevision: 0n,
  };
  if (result.kind === "put") return { ...empty, modRevision: BigInt(result.revision) };
  if (result.kind === "delete") return { ...empty, deleted: BigInt(result.deleted) };
  if (result.kind === "txn") return empty;
  return { ...empty, entries: entriesOf(result.result) };
}

function entriesOf(result: RangeResult): Entry[] {
  return result.kvs.map((kv) => entryWithText(kv, true));
}

// ---- text ----

async function putText(api: KvApi, { key, value, ttlMs }: PutTextRequest): Promise<PutTextResponse> {
  if (key === "") throw invalid("key is empty");
  await api.put(putOp(encoder.encode(key), encoder.encode(value), ttlMs));
  return {
    $typeName: "aetherflow.kv.v1.PutTextResponse",
    message: "success",
    key,
    value,
    success: true,
  };
}

async function getText(api: KvApi, key: string): Promise<GetTextResponse> {
  if (key === "") throw invalid("key is empty");
  const { kvs: [kv] } = await api.range({ key: encoder.encode(key), range: "single" });
  const value = kv === undefined ? "" : textOf(kv.value);
  if (value === undefined) throw invalid("the value is not text; read it at /api/v1/kv/{key}");
  return {
    $typeName: "aetherflow.kv.v1.GetTextResponse",
    key,
    value,
    found: kv !== undefined,
    shared: false,
  };
}

async function deleteText(api: KvApi, key: string): Promise<DeleteTextResponse> {
  if (key === "") throw invalid("key is empty");
  await api.delete(plainDelete(encoder.encode(key)));
  return { $typeName: "aetherflow.kv.v1.DeleteTextResponse", message: "deleted", key, success: true };
}

// ---- watch ----

/** One message a revision. The first, empty one names the revision before the first that will be delivered, so that a
 *  client that goes on after the last revision it saw misses nothing. A revision too large for one message comes in
 *  pieces; for the same reason all of them but the last name the revision before it. */
async function* watchEntries(
  { backend, pause }: EntryHandlersDeps,
  request: WatchRequest,
  context: HandlerContext,
): AsyncGenerator<WatchResponse, void, void> {
  const startRevision = Number(request.startRevision);
  const api = await mappedAsync(async () => backend.as(await backend.callerOf(context)));
  if (startRevision !== 0 && startRevision < backend.compactRevision) {
    throw toConnectError(new KvError("compacted"));
  }
  const isKey = request.key.length > 0;
  const start = (stream: ApiWatch) =>
    stream.create({
      key: isKey ? request.key : request.prefix,
      range: isKey ? "single" : prefixRange(request.prefix),
      startRevision,
      watchId: 0n,
      prevKv: false,
      progressNotify: false,
      fragmentBytes: PIECE_BYTES,
      noPut: false,
      noDelete: false,
    });
  const answers = answersOf({
    open: (onReady) => api.openWatch(onReady),
    start,
    isStopped: () => backend.isClosed,
    pause,
    signal: context.signal,
  });
  for await (const answer of answers) {
    if (answer.canceled === true) throw toConnectError(cancelledBy(answer));
    if (answer.created === true) {
      yield watchMessage(startRevision > 0 ? startRevision - 1 : answer.revision, []);
    } else yield* byRevision(answer);
  }
}

function cancelledBy(answer: WatchAnswer): KvError {
  if (answer.created !== true || (answer.compactRevision ?? 0) > 0) return new KvError("compacted");
  return new KvError("tooManyRequests", answer.cancelReason);
}

function* byRevision({ events, fragment }: WatchAnswer): Generator<WatchResponse, void, void> {
  for (let from = 0; from < events.length;) {
    const revision = events[from]!.kv.modRevision;
    let to = from + 1;
    while (to < events.length && events[to]!.kv.modRevision === revision) to++;
    const seen = fragment === true ? revision - 1 : revision;
    yield watchMessage(seen, events.slice(from, to).map(changeMessage));
    from = to;
  }
}

// ---- messages ----

function watchMessage(revision: number, changes: Change[]): WatchResponse {
  return { $typeName: "aetherflow.kv.v1.WatchResponse", revision: BigInt(revision), changes };
}

function changeMessage(event: WatchEvent): Change {
  const isPut = event.kind === "put";
  return {
    $typeName: "aetherflow.kv.v1.Change",
    kind: isPut ? Change_Kind.PUT : Change_Kind.DELETE,
    entry: entryWithText(event.kv, isPut),
  };
}

function entryMessage(kv: KeyValue): Entry {
  return {
    $typeName: "aetherflow.kv.v1.Entry",
    key: kv.key,
    value: kv.value,
    createRevision: BigInt(kv.createRevision),
    modRevision: BigInt(kv.modRevision),
    version: BigInt(kv.version),
  };
}

function entryWithText(kv: KeyValue, withValue: boolean): Entry {
  const entry = entryMessage(kv);
  const keyText = textOf(kv.key);
  const valueText = withValue ? textOf(kv.value) : undefined;
  if (keyText !== undefined) entry.keyText = keyText;
  if (valueText !== undefined) entry.valueText = valueText;
  return entry;
}

function entryPut(entry: PutEntry): PutOp {
  if (entry.value.length > 0 && entry.valueText !== "") throw invalid("give value or value_text, not both");
  const value = entry.value.length > 0 ? entry.value : encoder.encode(entry.valueText);
  return putOp(bytesOf(entry.key, entry.keyText, "key"), value, entry.ttlMs);
}

function putOp(key: Uint8Array, value: Uint8Array, ttlMs: bigint): PutOp {
  if (ttlMs < 0n || ttlMs > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw invalid(`ttl_ms is ${ttlMs}, expected 0 to ${Number.MAX_SAFE_INTEGER}`);
  }
  const op = plainPut(key, value);
  return ttlMs === 0n ? op : { ...op, ttlMs: Number(ttlMs) };
}

/** What was given as bytes or as text; it may not be empty. */
function bytesOf(bytes: Uint8Array, text: string, name: string): Uint8Array {
  if (bytes.length > 0 && text !== "") throw invalid(`give ${name} or ${name}_text, not both`);
  if (bytes.length === 0 && text === "") throw invalid(`${name} (or ${name}_text) is missing`);
  return bytes.length > 0 ? bytes : encoder.encode(text);
}

function textOf(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    // Not UTF-8: the field stays unset, the bytes say it all.
    return undefined;
  }
}

function toOptionalNumber(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

function invalid(detail: string): KvError {
  return new KvError("invalidEntryRequest", detail);
}
