/** The edge between clients that nobody here wrote (connect-es, in both protocols and codecs) and RPC over a memory channel,
 *  through all the stages of the HTTP edge. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type ServiceImpl, type Transport } from "@connectrpc/connect";
import { createFetchClient } from "@connectrpc/connect/protocol";
import { createTransport as createConnect } from "@connectrpc/connect/protocol-connect";
import { createTransport as createGrpcWeb } from "@connectrpc/connect/protocol-grpc-web";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Registry } from "prom-client";
import { ErrorInfoSchema, RetryInfoSchema } from "$proto/google/rpc/error_details_pb.ts";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { GrpcConnection } from "../../../transport/grpc/connection.ts";
import { dial } from "../../../transport/grpc/dial.ts";
import { encodeFields } from "../../../transport/http2/hpack.ts";
import { createChannelTransport, createRpcServer, startRawCall } from "../../../transport/rpc/mod.ts";
import { TestMessageSchema, TestService } from "../../../transport/testing/test_service.ts";
import { Slots } from "../limits/slots.ts";
import { createGatewayMetrics } from "../metrics.ts";
import { GatewayError } from "../problem.ts";
import { buildRouteTable } from "../routes.ts";
import type { Stages } from "../stages.ts";
import { systemTimer, TimeoutQueue } from "../timer.ts";
import { Departures } from "./departures.ts";
import { createConnectEdge } from "./connect.ts";
import { createHttpEdge } from "./http.ts";
import { listenHttp } from "./listener.ts";

interface World extends AsyncDisposable {
  readonly url: string;
  readonly registry: Registry;
  readonly logged: string[];
  drain(): void;
}

interface Setup {
  readonly impl?: Partial<ServiceImpl<typeof TestService>>;
  readonly stages?: Partial<Stages>;
  readonly bodyBytes?: number;
  readonly streams?: number;
  readonly requestTimeoutMs?: number;
}

const UNUSED = { answer: () => Promise.reject(new Error("not this edge")) };

function open(setup: Setup = {}): World {
  const [near, far] = createMemoryChannelPair();
  createRpcServer().service(TestService, setup.impl ?? {}).accept(far);
  const transport = createChannelTransport({ channel: () => near });
  const registry = new Registry();
  const logged: string[] = [];
  const log = (message: string) => void logged.push(message);
  const clock = { now: () => performance.now() };
  const bodyBytes = setup.bodyBytes ?? 4 * 1_024 * 1_024;
  const requestTimeoutMs = setup.requestTimeoutMs ?? 5_000;
  const timeouts = new TimeoutQueue(requestTimeoutMs, clock, systemTimer);
  const departures = new Departures(new TimeoutQueue(10, clock, systemTimer));
  const metrics = createGatewayMetrics(registry, () => 0);
  const connect = createConnectEdge({
    follow: () => () => {},
    calls: { unary: () => Promise.reject(new Error("nobody signs in here")) },
    start: (route, handler, options) => startRawCall(transport, route.rpc, handler, options),
    timer: systemTimer,
    clock,
    metrics,
    bodyLimits: { bytesMax: bodyBytes, timeouts },
    streamSlots: new Slots(setup.streams ?? 16),
    departures,
    onFault: (error) => log(`fault ${error.code}`),
  });
  const handler = createHttpEdge({
    routes: buildRouteTable([{ service: TestService, peer: "test", dialect: "aetherflow" }]),
    rpc: { ...UNUSED, drain() {} },
    connect,
    sockets: [],
    system: { ...UNUSED, paths: new Set() },
    console: { ...UNUSED, takes: () => false },
    metrics,
    stages: {
      tracing: { begin: () => undefined, beginCall: () => undefined },
      clients: { of: ({ hostname, port, isSecure }) => ({ ip: hostname, port, isSecure }) },
      cors: { preflight: () => undefined, apply() {} },
      rateLimits: { admit() {}, admitCaller() {}, describe() {} },
      authentication: { authenticate: () => undefined as never, expected: () => undefined },
      authorization: { authorize() {} },
      idempotency: { run: (request, _exchange, answer) => answer(request) },
      ...setup.stages,
    },
    requestSlots: new Slots(64),
    limits: { bodyBytes, headerBytes: 65_536, urlBytes: 65_536 },
    requestTimeoutMs,
    clock,
    newRequestId: () => "id-1",
    log: { debug: log, info: log, error: log },
  });
  const listener = listenHttp(handler, { host: "127.0.0.1", port: 0, isShared: false, timer: systemTimer });
  return {
    url: listener.url,
    registry,
    logged,
    drain: () => connect.drain(),
    async [Symbol.asyncDispose]() {
      connect.drain();
      await listener.shutdown();
      timeouts.close();
      departures.close();
      near.close(0, "test ended");
      await far.closed;
    },
  };
}

const OPTIONS = {
  httpClient: createFetchClient(fetch),
  interceptors: [],
  acceptCompression: [],
  sendCompression: null,
  compressMinBytes: 1_024,
  readMaxBytes: 0xffff_ffff,
  writeMaxBytes: 0xffff_ffff,
};

/** Every way that clients speak. */
const CLIENTS: Readonly<Record<string, (baseUrl: string) => Transport>> = {
  "Connect, protobuf": (baseUrl) => createConnect({ ...OPTIONS, baseUrl, useBinaryFormat: true }),
  "Connect, JSON": (baseUrl) => createConnect({ ...OPTIONS, baseUrl, useBinaryFormat: false }),
  "gRPC-Web, protobuf": (baseUrl) => createGrpcWeb({ ...OPTIONS, baseUrl, useBinaryFormat: true }),
  "gRPC-Web, JSON": (baseUrl) => createGrpcWeb({ ...OPTIONS, baseUrl, useBinaryFormat: false }),
};

function everyClient(
  what: string,
  setup: () => Setup,
  test: (client: ReturnType<typeof createClient<typeof TestService>>, world: World) => Promise<void>,
): void {
  async function run(connect: (baseUrl: string) => Transport): Promise<void> {
    await using world = open(setup());
    await test(createClient(TestService, connect(world.url)), world);
  }
  for (const [name, connect] of Object.entries(CLIENTS)) {
    // The clients stop reading at what ends a call, and leave the end of the body to the garbage collector.
    Deno.test({ name: `${name}: ${what}`, sanitizeResources: false, fn: () => run(connect) });
  }
}

/** Aborts a call and reads what is left, as clients do that are told of it. */
async function leaveStream(leave: AbortController, answers: AsyncIterator<unknown>): Promise<void> {
  leave.abort();
  await assertRejects(async () => {
    for (let next = await answers.next(); next.done !== true;) next = await answers.next();
  }, ConnectError);
}

async function* pieces(...numbers: number[]) {
  for (const number of numbers) yield { number };
}

everyClient("a unary call, with metadata both ways", () => ({
  impl: {
    unary(request, context) {
      assertEquals(context.requestHeader.get("x-request-id"), "mine");
      assertEquals(context.requestHeader.get("x-unknown"), null);
      context.responseHeader.set("x-served-by", "test");
      context.responseTrailer.set("x-cost", "3");
      return { ...request, text: `${request.text}!` };
    },
  },
}), async (client) => {
  let head: Headers | undefined, trailers: Headers | undefined;
  const body = new Uint8Array([0, 1, 254, 255]);
  const answer = await client.unary({ body, number: -7, text: "ümlaut" }, {
    headers: { "x-request-id": "mine", "x-unknown": "kept here" },
    onHeader: (each) => head = each,
    onTrailer: (each) => trailers = each,
  });
  assertEquals([answer.number, answer.text, [...answer.body]], [-7, "ümlaut!", [...body]]);
  assertEquals([head?.get("x-served-by"), trailers?.get("x-cost")], ["test", "3"]);
});

everyClient("a unary call's error with details and metadata", () => ({
  impl: {
    unary() {
      throw new ConnectError("no, 100 % not\n", Code.FailedPrecondition, { "x-why": "because" }, [
        { desc: DurationSchema, value: { seconds: 5n } },
      ]);
    },
  },
}), async (client, world) => {
  const error = await assertRejects(() => client.unary({}), ConnectError) as ConnectError;
  assertEquals([error.code, error.rawMessage], [Code.FailedPrecondition, "no, 100 % not\n"]);
  assertEquals(error.findDetails(DurationSchema), [create(DurationSchema, { seconds: 5n })]);
  assertEquals(error.metadata.get("x-why"), "because");
  assertEquals(world.logged.includes("fault failed_precondition"), false);
});

everyClient("a fault's cause stays in the log", () => ({
  impl: {
    unary() {
      throw new Error("secret");
    },
  },
}), async (client, world) => {
  const error = await assertRejects(() => client.unary({}), ConnectError) as ConnectError;
  assertEquals(error.code, Code.Internal);
  assert(!error.message.includes("secret"));
  assert(world.logged.includes("fault internal"));
});

everyClient("a stream of answers, then an error behind them", () => ({
  impl: {
    async *download({ number }, context) {
      context.responseHeader.set("x-first", "head");
      context.responseTrailer.set("x-last", "tail");
      for (let i = 0; i < number; i++) yield { number: i };
      throw new ConnectError("that was all", Code.ResourceExhausted, undefined, [
        { desc: DurationSchema, value: { seconds: 1n } },
      ]);
    },
  },
}), async (client) => {
  let head: Headers | undefined, trailers: Headers | undefined;
  const seen: number[] = [];
  const error = await assertRejects(async () => {
    const answers = client.download({ number: 3 }, {
      onHeader: (each) => head = each,
      onTrailer: (each) => trailers = each,
    });
    for await (const { number } of answers) seen.push(number);
  }, ConnectError) as ConnectError;
  assertEquals(seen, [0, 1, 2]);
  assertEquals([error.code, error.rawMessage], [Code.ResourceExhausted, "that was all"]);
  assertEquals(error.findDetails(DurationSchema).length, 1);
  assertEquals([head?.get("x-first"), (trailers ?? error.metadata).get("x-last")], ["head", "tail"]);
});

everyClient("a stream of requests, and both ways at half duplex", () => ({
  impl: {
    async upload(requests) {
      let sum = 0;
      for await (const { number } of requests) sum += number;
      return { number: sum };
    },
    async *chat(requests) {
      for await (const { number } of requests) yield { number: number * 2 };
    },
  },
}), async (client) => {
  assertEquals((await client.upload(pieces(1, 2, 3))).number, 6);
  assertEquals((await client.upload(pieces())).number, 0);
  const doubled = await Array.fromAsync(client.chat(pieces(5, 6)));
  assertEquals(doubled.map(({ number }) => number), [10, 12]);
});

everyClient("large messages pass whole, too large ones do not", () => ({
  bodyBytes: 3_000_000,
  impl: {
    unary: (request) => request,
    async *download(request) {
      yield request;
      yield request;
    },
  },
}), async (client) => {
  const body = new Uint8Array(2_000_000).map((_, i) => i * 7);
  assertEquals((await client.unary({ body })).body, body);
  for await (const answer of client.download({ body })) assertEquals(answer.body, body);
  const tooLarge = { body: new Uint8Array(3_000_001) };
  const refused = await assertRejects(() => client.unary(tooLarge), ConnectError) as ConnectError;
  assertEquals(refused.code, Code.ResourceExhausted);
  assertEquals(refused.findDetails(ErrorInfoSchema).map(({ reason }) => reason), ["BODY_TOO_LARGE"]);
});

everyClient("a deadline ends the call and reaches the service", () => ({
  impl: {
    async unary(_, context) {
      assert((context.timeoutMs() ?? Infinity) <= 50);
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
      return {};
    },
  },
}), async (client) => {
  const error = await assertRejects(() => client.unary({}, { timeoutMs: 50 }), ConnectError) as ConnectError;
  assertEquals(error.code, Code.DeadlineExceeded);
});

everyClient("a client that leaves ends its call", () => {
  const left = Promise.withResolvers<void>();
  ended = left.promise;
  return {
    impl: {
      async unary(_, context) {
        await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
        left.resolve();
        return {};
      },
    },
  };
}, async (client, world) => {
  const leave = new AbortController();
  const call = client.unary({}, { signal: leave.signal });
  setTimeout(() => leave.abort(), 50); // after the client is looked after, before the call's time runs out
  const error = await assertRejects(() => call, ConnectError) as ConnectError;
  assertEquals(error.code, Code.Canceled);
  await ended;
  assertEquals(world.logged.includes("fault canceled"), false);
});

everyClient("a client that leaves a stream ends its call", () => {
  const left = Promise.withResolvers<void>();
  ended = left.promise;
  return {
    impl: {
      async *download(_, context) {
        try {
          for (let number = 0; !context.signal.aborted; number++) {
            yield { number };
            await new Promise((resolve) => setTimeout(resolve, 0));
          }
        } finally {
          left.resolve();
        }
      },
    },
  };
}, async (client) => {
  const leave = new AbortController();
  const answers = client.download({}, { signal: leave.signal })[Symbol.asyncIterator]();
  await answers.next();
  await leaveStream(leave, answers);
  await ended;
});
let ended: Promise<void>;

Deno.test("a slow reader stops the service", async () => {
  let sent = 0;
  await using world = open({
    impl: {
      async *download() {
        for (;;) {
          sent++;
          yield { body: new Uint8Array(100_000) };
        }
      },
    },
  });
  for (
    const [type, body] of [
      ["application/connect+json", enveloped(0, new TextEncoder().encode("{}"))],
      ["application/grpc-web", enveloped(0, new Uint8Array(0))],
    ] as const
  ) {
    sent = 0;
    const url = `${world.url}/aetherflow.test.v1.TestService/Download`;
    const response = await fetch(url, { method: "POST", headers: { "content-type": type }, body });
    const reader = response.body!.getReader();
    await reader.read();
    for (let quiet = 0, before = -1; quiet < 10;) {
      quiet = sent === before ? quiet + 1 : 0;
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert(sent < 400, `${sent} messages wait for a reader of one`);
    await reader.cancel();
  }
});

everyClient("a drain ends streams with unavailable and refuses new ones", () => ({
  impl: {
    async *download(_, context) {
      yield { number: 1 };
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
    },
  },
}), async (client, world) => {
  const answers = client.download({})[Symbol.asyncIterator]();
  assertEquals((await answers.next()).value?.number, 1);
  world.drain();
  const cut = await assertRejects(() => answers.next(), ConnectError) as ConnectError;
  assertEquals([cut.code, cut.findDetails(RetryInfoSchema).length], [Code.Unavailable, 1]);
  const refused = await assertRejects(
    () => Array.fromAsync(client.download({})),
    ConnectError,
  ) as ConnectError;
  assertEquals(refused.code, Code.Unavailable);
});

everyClient("streams take slots", () => ({
  streams: 1,
  impl: {
    async *download(_, context) {
      yield { number: 1 };
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
    },
  },
}), async (client) => {
  const leave = new AbortController();
  const answers = client.download({}, { signal: leave.signal })[Symbol.asyncIterator]();
  await answers.next();
  const refused = await assertRejects(
    () => Array.fromAsync(client.download({})),
    ConnectError,
  ) as ConnectError;
  assertEquals(refused.code, Code.Unavailable);
  assertEquals(refused.findDetails(ErrorInfoSchema).map(({ reason }) => reason), ["TOO_MANY_STREAMS"]);
  await leaveStream(leave, answers);
});

everyClient("a stage's refusal is told in the client's protocol", () => ({
  stages: {
    rateLimits: {
      admit() {
        throw new GatewayError("rate_limited", "slower");
      },
      admitCaller() {},
      describe() {},
    },
  },
}), async (client, world) => {
  for (const call of [() => client.unary({}), () => Array.fromAsync(client.download({}))]) {
    const error = await assertRejects(call as () => Promise<unknown>, ConnectError) as ConnectError;
    assertEquals([error.code, error.rawMessage], [Code.ResourceExhausted, "slower"]);
    assertEquals(error.findDetails(ErrorInfoSchema)[0]?.metadata, { requestId: "id-1" });
    assertEquals(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 1n);
  }
  const metrics = await world.registry.metrics();
  assertStringIncludes(metrics, 'route="/aetherflow.test.v1.TestService/Unary",status="429"} 1');
  assertStringIncludes(metrics, 'route="/aetherflow.test.v1.TestService/Download",status="429"} 1');
});

everyClient("an RPC that the service lacks, and one that nobody has", () => ({}), async (client, world) => {
  const absent = await assertRejects(() => client.unary({}), ConnectError) as ConnectError;
  assertEquals(absent.code, Code.Unimplemented);
  const response = await fetch(`${world.url}/aetherflow.test.v1.TestService/Nothing`, { method: "POST" });
  assertEquals(response.status, 404);
  await response.body?.cancel();
});

// ---------------------------------------------------------------------------------------------------------------
// What a well-behaved client does not send

const ECHO: Setup = {
  impl: {
    unary: (request) => request,
    async *download(request) {
      yield request;
    },
    async *chat(requests) {
      for await (const request of requests) yield request;
    },
  },
};

const MESSAGE = toBinary(TestMessageSchema, create(TestMessageSchema, { text: "hello" }));

function enveloped(flag: number, message: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(5 + message.length);
  bytes[0] = flag;
  new DataView(bytes.buffer).setUint32(1, message.length);
  bytes.set(message, 5);
  return bytes;
}

function twice(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array([...bytes, ...bytes]);
}

interface Case {
  readonly name: string;
  readonly method?: string;
  readonly rpc?: string;
  readonly type?: string;
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array<ArrayBuffer> | string;
  readonly status: number;
  /** Code that the answer tells; undefined: the status is all. */
  readonly code?: string;
}

const ONE = enveloped(0, MESSAGE);
const GRPC_WEB = "application/grpc-web+proto";
const STREAM = "application/connect+proto";

// The unexpected requests of the public conformance suite, and further ones.
const CASES: readonly Case[] = [
  { name: "unexpected content type", type: "image/jpeg", body: "12345678", status: 415 },
  {
    name: "unexpected codec",
    type: "application/foo",
    body: MESSAGE as Uint8Array<ArrayBuffer>,
    status: 415,
  },
  { name: "unexpected charset", type: "application/json; charset=latin1", body: "{}", status: 415 },
  { name: "no content type", body: new Uint8Array(0), status: 415 },
  { name: "unexpected verb", method: "DELETE", type: "application/proto", status: 405 },
  { name: "unexpected verb of gRPC-Web", method: "PUT", type: GRPC_WEB, body: ONE, status: 405 },
  { name: "GET of what may have side effects", method: "GET", status: 405 },
  { name: "a unary RPC as a stream", type: STREAM, body: ONE, status: 415 },
  { name: "a stream as a unary RPC", rpc: "Download", type: "application/proto", body: "", status: 415 },
  {
    name: "compressed body",
    type: "application/proto",
    headers: { "content-encoding": "gzip" },
    body: MESSAGE as Uint8Array<ArrayBuffer>,
    status: 501,
    code: "unimplemented",
  },
  { name: "no request of a stream", rpc: "Download", type: STREAM, status: 200, code: "unimplemented" },
  {
    name: "two requests of a stream of answers",
    rpc: "Download",
    type: STREAM,
    body: twice(ONE),
    status: 200,
    code: "unimplemented",
  },
  {
    name: "compressed message without a compression",
    rpc: "Download",
    type: STREAM,
    headers: { "connect-content-encoding": "identity" },
    body: enveloped(1, MESSAGE),
    status: 200,
    code: "internal",
  },
  {
    name: "compressed message",
    rpc: "Download",
    type: STREAM,
    headers: { "connect-content-encoding": "zstd" },
    body: enveloped(1, MESSAGE),
    status: 200,
    code: "unimplemented",
  },
  {
    name: "compressed message on a stream of requests",
    rpc: "Chat",
    type: STREAM,
    body: enveloped(1, MESSAGE),
    status: 200,
    code: "internal",
  },
  {
    name: "half a message on a stream of requests",
    rpc: "Chat",
    type: STREAM,
    body: ONE.slice(0, 7),
    status: 200,
    code: "internal",
  },
  {
    name: "half a message",
    rpc: "Download",
    type: STREAM,
    body: ONE.slice(0, 7),
    status: 200,
    code: "internal",
  },
  { name: "gRPC-Web: no request", type: GRPC_WEB, status: 200, code: "12" },
  { name: "gRPC-Web: two requests", type: GRPC_WEB, body: twice(ONE), status: 200, code: "12" },
  { name: "gRPC-Web: no request of a stream", rpc: "Download", type: GRPC_WEB, status: 200, code: "12" },
  {
    name: "gRPC-Web: unknown compression",
    type: "application/grpc-web",
    headers: { "grpc-encoding": "foo" },
    body: enveloped(1, MESSAGE),
    status: 200,
    code: "12",
  },
  {
    name: "gRPC-Web: compressed message without a compression",
    type: GRPC_WEB,
    headers: { "grpc-encoding": "identity" },
    body: enveloped(1, MESSAGE),
    status: 200,
    code: "13",
  },
  {
    name: "gRPC-Web: a timeout that is none",
    type: GRPC_WEB,
    headers: { "grpc-timeout": "soon" },
    body: ONE,
    status: 200,
    code: "3",
  },
  {
    name: "gRPC-Web text that is no base64",
    type: "application/grpc-web-text",
    body: "!!!!",
    status: 200,
    code: "3",
  },
  { name: "JSON that is none", type: "application/json", body: "{", status: 400, code: "invalid_argument" },
  { name: "an empty JSON body", type: "application/json", body: "", status: 400, code: "invalid_argument" },
  {
    name: "JSON of another type",
    type: "application/json",
    body: '{"number":"x"}',
    status: 400,
    code: "invalid_argument",
  },
  {
    name: "JSON nested too deeply",
    type: "application/json",
    body: `{"x":${"[".repeat(200)}${"]".repeat(200)}}`,
    status: 400,
    code: "invalid_argument",
  },
  {
    name: "another version of the protocol",
    type: "application/json",
    headers: { "connect-protocol-version": "2" },
    body: "{}",
    status: 400,
    code: "invalid_argument",
  },
  {
    name: "a timeout that is none",
    type: "application/json",
    headers: { "connect-timeout-ms": "12345678901" },
    body: "{}",
    status: 400,
    code: "invalid_argument",
  },
  {
    name: "no time at all",
    type: "application/json",
    headers: { "connect-timeout-ms": "0" },
    body: "{}",
    status: 504,
    code: "deadline_exceeded",
  },
];

Deno.test("requests that no client should send get the protocol's answers", async (t) => {
  await using world = open(ECHO);
  for (const { name, method = "POST", rpc = "Unary", type, headers, body, status, code } of CASES) {
    await t.step(name, async () => {
      const response = await fetch(`${world.url}/aetherflow.test.v1.TestService/${rpc}`, {
        method,
        headers: { ...headers, ...(type === undefined ? {} : { "content-type": type }) },
        ...(body === undefined ? {} : { body }),
      });
      assertEquals(response.status, status);
      const bytes = new Uint8Array(await response.arrayBuffer());
      assertEquals(toldCode(response, bytes), code);
      if (status === 415) assertStringIncludes(response.headers.get("accept-post")!, "application/grpc-web");
      if (status === 405) assertEquals(response.headers.get("allow"), "POST");
    });
  }
});

/** The code that an answer tells in the protocol of its content type. */
function toldCode(response: Response, bytes: Uint8Array<ArrayBuffer>): string | undefined {
  const type = response.headers.get("content-type")!;
  if (type === "application/json") return JSON.parse(new TextDecoder().decode(bytes)).code;
  if (type === "application/problem+json") return undefined;
  const body = type.startsWith("application/grpc-web-text")
    ? Uint8Array.fromBase64(new TextDecoder().decode(bytes))
    : bytes;
  const size = new DataView(body.buffer, body.byteOffset).getUint32(1);
  assertEquals(size, body.length - 5, "one envelope is all");
  const text = new TextDecoder().decode(body.subarray(5));
  if (type.startsWith("application/connect+")) {
    assertEquals(body[0], 2);
    return JSON.parse(text).error.code;
  }
  assertEquals(body[0], 0x80);
  return /^grpc-status: (\d+)\r\n/.exec(text)![1];
}

Deno.test("gRPC-Web as text is base64 both ways, in pieces padded each on its own", async () => {
  await using world = open(ECHO);
  const half = ONE.slice(0, 4).toBase64() + ONE.slice(4).toBase64(); // padded in the middle
  for (const [rpc, text] of [["Unary", ONE.toBase64()], ["Download", half], ["Chat", half]] as const) {
    const response = await fetch(`${world.url}/aetherflow.test.v1.TestService/${rpc}`, {
      method: "POST",
      headers: { "content-type": "application/grpc-web-text+proto" },
      body: text,
    });
    assertEquals(response.headers.get("content-type"), "application/grpc-web-text+proto");
    const frames = [...(await response.text()).matchAll(/[A-Za-z0-9+/]+={0,2}/g)];
    const bytes = frames.flatMap(([each]) => [...Uint8Array.fromBase64(each)]);
    assertEquals(bytes.slice(0, ONE.length), [...ONE]);
    assertEquals(new TextDecoder().decode(new Uint8Array(bytes.slice(ONE.length + 5))), "grpc-status: 0\r\n");
  }
});

Deno.test("JSON answers leave out zeros; unknown fields of newer clients are no error", async () => {
  await using world = open(ECHO);
  const response = await fetch(`${world.url}/aetherflow.test.v1.TestService/Unary`, {
    method: "POST",
    headers: { "content-type": "application/json; charset=utf-8" },
    body: '{"text":"x","newer":{"a":1}}',
  });
  assertEquals(await response.text(), '{"text":"x"}');
  assertEquals(response.headers.get("x-content-type-options"), "nosniff");
});

Deno.test("both ways at full duplex over HTTP/2, and the head comes before the first answer does", async () => {
  await using world = open(ECHO);
  const { hostname, port } = new URL(world.url);
  const socket = await dial(`${hostname}:${port}`, undefined, new AbortController().signal);
  const ended = Promise.withResolvers<void>();
  const connection = new GrpcConnection(socket, {
    clock: { now: () => performance.now() },
    keepaliveTimeMs: 0,
    keepaliveTimeoutMs: 0,
    onReady() {},
    onClosing() {},
    onEnd: ended.resolve,
  });
  const chunks: Uint8Array[] = [];
  let wake = () => {};
  const head = encodeFields([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", "/aetherflow.test.v1.TestService/Chat"],
    [":authority", `${hostname}:${port}`],
    ["content-type", "application/connect+proto"],
  ]);
  const stream = connection.http2.open(head, {
    onHead() {},
    onBody(chunk) {
      chunks.push(chunk);
      wake();
    },
    onBodyEnd() {},
    onReset() {},
    onWritable() {},
  })!;
  const received = async (bytes: number) => {
    while (chunks.reduce((sum, each) => sum + each.length, 0) < bytes) {
      await new Promise<void>((resolve) => wake = resolve);
    }
    return new Uint8Array(chunks.flatMap((each) => [...each]));
  };
  stream.write(ONE);
  await received(ONE.length);
  stream.write(ONE);
  const two = await received(2 * ONE.length);
  assertEquals(fromBinary(TestMessageSchema, two.subarray(ONE.length + 5)).text, "hello");
  stream.end();
  const whole = await received(2 * ONE.length + 7);
  assertEquals(new TextDecoder().decode(whole.subarray(2 * ONE.length + 5)), "{}");
  connection.shutdown();
  await ended.promise;
});
