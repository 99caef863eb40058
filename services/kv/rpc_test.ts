import { createManualClock } from "../runtime/clock.ts";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { KV, type RangeRequest_SortTarget, Watch, type WatchResponse } from "$proto/etcdserverpb/rpc_pb.ts";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assertEquals, assertInstanceOf, assertStringIncludes } from "@std/assert";
import { createMemoryChannelPair } from "../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../transport/rpc/mod.ts";
import { kvConfigSchema } from "./config.ts";
import { KV_ERRORS, KvError, type KvErrorKind } from "./errors.ts";
import { createKvModule } from "./mod.ts";
import { toConnectError } from "./rpc_errors.ts";
import { ManualStore, newDisk } from "./testing/manual_store.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

/** The three services behind RPC on a memory channel. */
async function open(config: Record<string, unknown> = {}) {
  const { service, handlers, close } = await createKvModule({
    openStore: (replay) => {
      const store = new ManualStore(newDisk(), replay);
      store.isAutomatic = true;
      return Promise.resolve(store);
    },
    config: kvConfigSchema.parse(config),
    random: { fill: (target) => target.fill(7) },
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer({
    onError: (method, error) => {
      throw new Error(`${method} failed`, { cause: error });
    },
  });
  server.service(KV, handlers.kv).service(Watch, handlers.watch).service(KeyValueService, handlers.keyValue);
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  return {
    service,
    kv: createClient(KV, transport),
    watch: createClient(Watch, transport),
    keyValue: createClient(KeyValueService, transport),
    async [Symbol.asyncDispose]() {
      await close();
      near.close(0, "end of test");
      await server.drain();
    },
  };
}

async function refusal(action: () => Promise<unknown>): Promise<[Code, string]> {
  try {
    await action();
  } catch (error) {
    assertInstanceOf(error, ConnectError);
    return [error.code, error.rawMessage];
  }
  throw new Error("expected a refusal");
}

async function nextOf<T>(messages: AsyncIterator<T>): Promise<T> {
  const { done, value } = await messages.next();
  if (done === true) throw new Error("the stream ended");
  return value;
}

/** A queue of requests that a test adds to while the call runs. */
function requests<T>() {
  const waiting: T[] = [];
  let wake = () => {};
  let ended = false;
  return {
    send(item: T) {
      waiting.push(item);
      wake();
    },
    end() {
      ended = true;
      wake();
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        while (waiting.length > 0) yield waiting.shift()!;
        if (ended) return;
        await new Promise<void>((resolve) => wake = resolve);
      }
    },
  };
}

Deno.test("toConnectError() maps every outcome to its code and keeps its text", () => {
  const codes: Record<string, Code> = {
    invalid_argument: Code.InvalidArgument,
    not_found: Code.NotFound,
    out_of_range: Code.OutOfRange,
    resource_exhausted: Code.ResourceExhausted,
    failed_precondition: Code.FailedPrecondition,
    unimplemented: Code.Unimplemented,
    unavailable: Code.Unavailable,
    permission_denied: Code.PermissionDenied,
    unauthenticated: Code.Unauthenticated,
    deadline_exceeded: Code.DeadlineExceeded,
    data_loss: Code.DataLoss,
    unknown: Code.Unknown,
  };
  for (const kind of Object.keys(KV_ERRORS) as KvErrorKind[]) {
    const error = toConnectError(new KvError(kind));
    assertInstanceOf(error, ConnectError);
    assertEquals([error.code, error.rawMessage], [codes[KV_ERRORS[kind].code], KV_ERRORS[kind].text]);
  }
  const other = new RangeError("a bug");
  assertEquals(toConnectError(other), other);
});

Deno.test("KV puts, ranges, deletes and compacts over RPC with etcd's headers and texts", async () => {
  await using bench = await open();
  const { kv } = bench;
  const first = await kv.put({ key: bytes("a"), value: bytes("1") });
  assertEquals([first.header?.revision, first.header?.raftTerm, first.prevKv], [2n, 1n, undefined]);
  const second = await kv.put({ key: bytes("a"), value: bytes("2"), prevKv: true });
  assertEquals(text(second.prevKv?.value), "1");
  assertEquals(second.header?.clusterId, bench.service.identity.clusterId);
  await kv.put({ key: bytes("b"), value: bytes("3") });
  const range = await kv.range({ key: bytes("a"), rangeEnd: bytes("\0"), limit: 1n });
  const [only] = range.kvs;
  assertEquals(
    [
      range.count,
      range.more,
      range.kvs.length,
      only?.createRevision,
      only?.modRevision,
      only?.version,
      only?.lease,
    ],
    [2n, true, 1, 2n, 3n, 2n, 0n],
  );
  const deleted = await kv.deleteRange({ key: bytes("a"), rangeEnd: bytes("c"), prevKv: true });
  assertEquals([deleted.deleted, deleted.prevKvs.map(({ value }) => text(value))], [2n, ["2", "3"]]);
  assertEquals((await kv.compact({ revision: 4n, physical: true })).header?.revision, 5n);
  assertEquals(await refusal(() => kv.range({ key: bytes("a"), revision: 3n })), [
    Code.OutOfRange,
    "etcdserver: mvcc: required revision has been compacted",
  ]);
  assertEquals(await refusal(() => kv.range({ key: bytes("a"), revision: 9n })), [
    Code.OutOfRange,
    "etcdserver: mvcc: required revision is a future revision",
  ]);
  assertEquals(await refusal(() => kv.range({})), [Code.InvalidArgument, "etcdserver: key is not provided"]);
  assertEquals(await refusal(() => kv.range({ key: bytes("a"), sortTarget: 9 as RangeRequest_SortTarget })), [
    Code.InvalidArgument,
    "etcdserver: invalid sort option",
  ]);
  assertEquals(await refusal(() => kv.put({ key: bytes("a"), lease: 5n })), [
    Code.NotFound,
    "etcdserver: requested lease not found",
  ]);
});

Deno.test("KV.Txn runs nested branches over RPC and refuses what etcd refuses", async () => {
  await using bench = await open();
  const { kv } = bench;
  const putOf = (key: string, value = "v") => ({
    request: { case: "requestPut" as const, value: { key: bytes(key), value: bytes(value) } },
  });
  const answer = await kv.txn({
    compare: [{ key: bytes("a"), target: 1, result: 0, targetUnion: { case: "createRevision", value: 0n } }],
    success: [putOf("a", "1"), {
      request: {
        case: "requestTxn",
        value: {
          // Sees the state before the transaction: "a" is not there yet.
          compare: [{ key: bytes("a"), target: 0, result: 1, targetUnion: { case: "version", value: 0n } }],
          success: [putOf("b", "wrong")],
          failure: [putOf("b", "right"), {
            request: { case: "requestRange", value: { key: bytes("a"), rangeEnd: bytes("\0") } },
          }],
        },
      },
    }],
  });
  assertEquals([answer.succeeded, answer.header?.revision, answer.responses.length], [true, 2n, 2]);
  const nested = answer.responses[1]?.response;
  if (nested?.case !== "responseTxn") throw new Error("expected a nested answer");
  const read = nested.value.responses[1]?.response;
  if (read?.case !== "responseRange") throw new Error("expected a range");
  assertEquals(read.value.kvs.map((one) => [text(one.key), text(one.value), one.modRevision]), [
    ["a", "1", 2n],
    ["b", "right", 2n],
  ]);
  const duplicate = [Code.InvalidArgument, "etcdserver: duplicate key given in txn request"];
  const tooMany = [Code.InvalidArgument, "etcdserver: too many operations in txn request"];
  const deleteOf = (key: string, rangeEnd: string) => ({
    request: { case: "requestDeleteRange" as const, value: { key: bytes(key), rangeEnd: bytes(rangeEnd) } },
  });
  const inner = (success: ReturnType<typeof putOf>[], failure: ReturnType<typeof putOf>[] = []) => ({
    request: { case: "requestTxn" as const, value: { success, failure } },
  });
  assertEquals(await refusal(() => kv.txn({ success: [putOf("x"), putOf("x")] })), duplicate);
  assertEquals(await refusal(() => kv.txn({ success: [putOf("x"), deleteOf("a", "z")] })), duplicate);
  assertEquals(
    await refusal(() => kv.txn({ success: [deleteOf("a", "\0"), inner([putOf("x")])] })),
    duplicate,
  );
  assertEquals(
    await refusal(() => kv.txn({ success: [inner([putOf("x")]), inner([], [putOf("x")])] })),
    duplicate,
  );
  await kv.txn({ success: [inner([putOf("x")], [putOf("x")])] });
  const many = (count: number) => Array.from({ length: count }, (_, i) => putOf(`k${i}`));
  await kv.txn({ success: many(128) });
  assertEquals(await refusal(() => kv.txn({ success: many(129) })), tooMany);
  // A nested transaction has what the outer one leaves: 128 - 1.
  await kv.txn({ success: [inner(many(127))] });
  assertEquals(await refusal(() => kv.txn({ success: [inner(many(128))] })), tooMany);
  assertEquals(await refusal(() => kv.txn({ success: [{}] })), [
    Code.InvalidArgument,
    "etcdserver: key not found",
  ]);
});

Deno.test("Watch serves many watchers on one stream over RPC", async () => {
  await using bench = await open();
  const asked = requests<
    Parameters<typeof bench.watch.watch>[0] extends AsyncIterable<infer T> ? T : never
  >();
  const abort = new AbortController();
  const answers = bench.watch.watch(asked, { signal: abort.signal })[Symbol.asyncIterator]();
  const next = (): Promise<WatchResponse> => nextOf(answers);
  asked.send({ requestUnion: { case: "createRequest", value: { key: bytes("a"), prevKv: true } } });
  assertEquals([(await next()).created, bench.service.watches.watcherCount], [true, 1]);
  asked.send({
    requestUnion: { case: "createRequest", value: { key: bytes("b"), rangeEnd: bytes("c"), filters: [1] } },
  });
  assertEquals((await next()).watchId, 1n);
  await bench.kv.put({ key: bytes("a"), value: bytes("1") });
  const put = await next();
  assertEquals([put.watchId, put.header?.revision, put.events[0]?.type, text(put.events[0]?.kv?.value)], [
    0n,
    2n,
    0,
    "1",
  ]);
  await bench.kv.deleteRange({ key: bytes("a") });
  const gone = await next();
  assertEquals([gone.events[0]?.type, gone.events[0]?.kv?.modRevision, text(gone.events[0]?.prevKv?.value)], [
    1,
    3n,
    "1",
  ]);
  asked.send({ requestUnion: { case: "progressRequest", value: {} } });
  const progress = await next();
  assertEquals([progress.watchId, progress.header?.revision, progress.events.length], [-1n, 3n, 0]);
  asked.send({ requestUnion: { case: "cancelRequest", value: { watchId: 0n } } });
  assertEquals((await next()).canceled, true);
  // The end of the client's half leaves the watchers as they are.
  asked.end();
  await bench.kv.put({ key: bytes("bb"), value: bytes("1") });
  assertEquals((await next()).watchId, 1n);
  abort.abort();
  const [code] = await refusal(next);
  assertEquals(code, Code.Canceled);
  while (bench.service.watches.watcherCount > 0) await new Promise((resolve) => setTimeout(resolve, 0));
});

Deno.test("Watch ends with etcd's text when the service stops", async () => {
  await using bench = await open();
  const asked = requests<
    Parameters<typeof bench.watch.watch>[0] extends AsyncIterable<infer T> ? T : never
  >();
  const answers = bench.watch.watch(asked)[Symbol.asyncIterator]();
  asked.send({ requestUnion: { case: "createRequest", value: { key: bytes("a") } } });
  await answers.next();
  await bench.service.close();
  assertEquals(await refusal(() => answers.next()), [Code.Unavailable, "etcdserver: server stopped"]);
});

Deno.test("KeyValueService gets, puts and deletes with compare-and-set", async () => {
  await using bench = await open({ maxKeyBytes: 8, maxValueBytes: 8 });
  const { keyValue } = bench;
  assertEquals(await refusal(() => keyValue.get({ key: bytes("a") })), [
    Code.NotFound,
    `kv: key not found: "a"`,
  ]);
  const created = await keyValue.put({ key: bytes("a"), value: bytes("1"), ifModRevision: 0n });
  assertEquals([created.modRevision, created.version], [2n, 1n]);
  assertEquals(await refusal(() => keyValue.put({ key: bytes("a"), value: bytes("2"), ifModRevision: 9n })), [
    Code.FailedPrecondition,
    "kv: the key's mod revision is not if_mod_revision: expected 9, found 2",
  ]);
  assertEquals((await keyValue.put({ key: bytes("a"), value: bytes("2"), ifModRevision: 2n })).version, 2n);
  const got = await keyValue.get({ key: bytes("a") });
  assertEquals([text(got.entry?.value), got.entry?.modRevision, got.revision], ["2", 3n, 3n]);
  assertEquals(text((await keyValue.get({ key: bytes("a"), revision: 2n })).entry?.value), "1");
  assertEquals(
    (await refusal(() => keyValue.delete({ key: bytes("a"), ifModRevision: 2n })))[0],
    Code.FailedPrecondition,
  );
  assertEquals((await keyValue.delete({ key: bytes("a") })).deleted, true);
  const again = await keyValue.delete({ key: bytes("a") });
  assertEquals([again.deleted, again.revision], [false, 4n]);
  assertStringIncludes(
    (await refusal(() => keyValue.put({ key: bytes("123456789") })))[1],
    "9 bytes, at most 8 (kv.maxKeyBytes)",
  );
  assertStringIncludes(
    (await refusal(() => keyValue.put({ key: bytes("a"), value: bytes("123456789") })))[1],
    "9 bytes, at most 8 (kv.maxValueBytes)",
  );
  assertEquals(await refusal(() => keyValue.put({ value: bytes("1") })), [
    Code.InvalidArgument,
    "etcdserver: key is not provided",
  ]);
});

Deno.test("KeyValueService.List gives text where there is text, in pages", async () => {
  await using bench = await open();
  const { keyValue } = bench;
  await keyValue.put({ key: bytes("p/a"), value: Uint8Array.of(0xff) });
  await keyValue.put({ key: bytes("p/b"), value: bytes("ü") });
  const first = await keyValue.list({ prefix: bytes("p/"), pageSize: 1 });
  assertEquals([first.entries[0]?.keyText, first.entries[0]?.valueText, first.count], ["p/a", undefined, 2n]);
  const second = await keyValue.list({ prefix: bytes("p/"), pageSize: 1, pageToken: first.nextPageToken });
  assertEquals([second.entries[0]?.valueText, second.nextPageToken, second.revision], ["ü", "", 3n]);
  const keys = await keyValue.list({ prefix: bytes("p/"), keysOnly: true });
  assertEquals(keys.entries.map(({ keyText, value, valueText }) => [keyText, value.length, valueText]), [
    ["p/a", 0, undefined],
    ["p/b", 0, undefined],
  ]);
});

Deno.test("KeyValueService.Watch says when it is in place, then one message a revision, and resumes", async () => {
  await using bench = await open();
  const { keyValue, kv } = bench;
  await keyValue.put({ key: bytes("p/a"), value: bytes("1") });
  const abort = new AbortController();
  const live = keyValue.watch({ prefix: bytes("p/") }, { signal: abort.signal })[Symbol.asyncIterator]();
  const placed = await nextOf(live);
  assertEquals([placed.revision, placed.changes.length], [2n, 0]);
  await kv.txn({
    success: ["p/a", "p/b"].map((key) => ({
      request: { case: "requestPut" as const, value: { key: bytes(key), value: bytes("2") } },
    })),
  });
  await keyValue.delete({ key: bytes("p/a") });
  const changed = await nextOf(live);
  assertEquals([
    changed.revision,
    changed.changes.map(({ kind, entry }) => [kind, entry?.keyText, entry?.valueText]),
  ], [
    3n,
    [[1, "p/a", "2"], [1, "p/b", "2"]],
  ]);
  const deleted = await nextOf(live);
  assertEquals([deleted.revision, deleted.changes.map(({ kind, entry }) => [kind, entry?.keyText])], [4n, [[
    2,
    "p/a",
  ]]]);
  const resumed = keyValue.watch({ key: bytes("p/a"), startRevision: 3n }, { signal: abort.signal })
    [Symbol.asyncIterator]();
  assertEquals((await resumed.next()).value?.revision, 2n);
  assertEquals((await resumed.next()).value?.revision, 3n);
  assertEquals((await resumed.next()).value?.revision, 4n);
  await kv.compact({ revision: 4n });
  const late = keyValue.watch({ key: bytes("p/a"), startRevision: 3n })[Symbol.asyncIterator]();
  assertEquals((await refusal(() => late.next()))[0], Code.OutOfRange);
  abort.abort();
  await live.return?.();
  await resumed.return?.();
});

Deno.test("KeyValueService.Watch sends a revision too large for one message in pieces that can be resumed", async () => {
  await using bench = await open();
  const { keyValue, kv, service } = bench;
  const puts = Array.from({ length: 20_000 }, (_, i) =>
    service.put({
      kind: "put",
      key: bytes(`k/${String(i).padStart(60, "0")}`),
      value: bytes(""),
      lease: 0n,
      prevKv: false,
      ignoreValue: false,
      ignoreLease: false,
    }));
  await Promise.all(puts);
  await kv.deleteRange({ key: bytes("k/"), rangeEnd: bytes("k0") });
  const abort = new AbortController();
  const watched = keyValue.watch({ prefix: bytes("k/"), startRevision: 20_002n }, { signal: abort.signal });
  const messages = watched[Symbol.asyncIterator]();
  assertEquals((await nextOf(messages)).revision, 20_001n);
  const pieces: [bigint, number][] = [];
  for (let deleted = 0; deleted < 20_000;) {
    const { revision, changes } = await nextOf(messages);
    pieces.push([revision, changes.length]);
    deleted += changes.length;
  }
  assertEquals(pieces.map(([revision]) => revision), [20_001n, 20_001n, 20_002n]);
  assertEquals(pieces.reduce((sum, [, count]) => sum + count, 0), 20_000);
  abort.abort();
  await messages.return?.();
});
