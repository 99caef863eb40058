/** The edge between a client that nobody here wrote (grpc-js) and RPC over a memory channel. */
import { Buffer } from "node:buffer";
import { type ClientHttp2Session, connect } from "node:http2";
import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import * as grpc from "@grpc/grpc-js";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Registry } from "prom-client";
import { Health, HealthCheckResponse_ServingStatus as Status } from "$proto/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "$proto/grpc/reflection/v1/reflection_pb.ts";
import { CERTIFICATE, KEY } from "../../../tests/bench/transport/localhost_certificate.ts";
import { requireBinary } from "../../../tests/support/server.ts";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { encodeFields } from "../../../transport/http2/hpack.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { TestMessageSchema, TestService } from "../../../transport/testing/test_service.ts";
import { type GatewayConfig, gatewayConfigSchema, type TlsTexts } from "../config.ts";
import { OPEN_GATE } from "../auth/call_gate.ts";
import { ProtectedMode } from "../limits/protected_mode.ts";
import { NO_LIMITS } from "../limits/rate_limits.ts";
import type { Readiness } from "../readiness.ts";
import { systemTimer } from "../timer.ts";
import { createTracing } from "../tracing.ts";
import { createTestUpstreams } from "../testing/upstreams.ts";
import { createGrpcEdge, type GrpcEdge } from "./grpc.ts";
import { createHealth } from "./grpc/health.ts";
import { listenTcp } from "./grpc/listener.ts";
import { prefixOf } from "../../../transport/grpc/message_reader.ts";
import { createGrpcMethods } from "./grpc/method.ts";
import { createGrpcMetrics } from "./grpc/metrics.ts";
import { createPlainHttp } from "./grpc/plain_http.ts";
import { createReflection } from "./grpc/reflection.ts";

type Request = MessageInitShape<typeof TestMessageSchema>;
type Answer = MessageShape<typeof TestMessageSchema>;

interface World extends AsyncDisposable {
  readonly edge: GrpcEdge;
  readonly port: number;
  readonly client: grpc.Client;
  readonly registry: Registry;
  readonly logged: string[];
  /** A further client, at the edge's address, with its own connection. */
  connect(credentials?: grpc.ChannelCredentials, options?: grpc.ClientOptions): grpc.Client;
}

interface Setup {
  readonly impl?: Partial<ServiceImpl<typeof TestService>>;
  readonly limits?: Partial<GatewayConfig["grpc"]>;
  readonly tls?: TlsTexts;
  readonly credentials?: grpc.ChannelCredentials;
  readonly readiness?: () => Readiness;
}

const READY: Readiness = {
  ready: true,
  workers: [{ name: "test", state: "ready", reason: "", restarts: 0, sinceMs: 1 }],
};

async function open(setup: Setup = {}): Promise<World> {
  const [near, far] = createMemoryChannelPair();
  createRpcServer().service(TestService, setup.impl ?? {}).accept(far);
  const transport = createChannelTransport({ channel: () => near });
  const exposures = [{ service: TestService, peer: "test", dialect: "etcd" as const }];
  const registry = new Registry();
  const metrics = createGrpcMetrics(registry);
  const logged: string[] = [];
  const log = (message: string, fields?: Record<string, unknown>) => {
    logged.push(`${message} ${fields?.method} ${fields?.code}`);
  };
  const readiness = { read: () => Promise.resolve(setup.readiness?.() ?? READY) };
  const edge = createGrpcEdge({
    methods: createGrpcMethods(exposures, createTestUpstreams(transport), [
      ...createHealth({ exposures, readiness, timer: systemTimer }),
      ...createReflection([TestService, Health]),
    ], metrics),
    http: createPlainHttp({
      handler: async (request) => {
        const { pathname } = new URL(request.url);
        if (pathname === "/metrics") {
          return new Response('a 1\nprocess_resident_memory_bytes{worker="gateway"} 42\n');
        }
        return Response.json({ pathname, host: request.headers.get("host"), body: await request.text() });
      },
      requestTimeoutMs: 10_000,
      isSecure: false,
      maxHeaderBytes: 16_384,
    }),
    metrics,
    limits: { ...gatewayConfigSchema.parse(undefined).grpc, ...setup.limits },
    rateLimits: NO_LIMITS.calls,
    gate: OPEN_GATE,
    protectedMode: new ProtectedMode([]),
    isSecure: false,
    tracing: createTracing(false),
    clock: { now: () => performance.now() },
    timer: systemTimer,
    newRequestId: () => "id",
    log: { debug: log, info: log, error: log },
    listen: (accept, onTlsError) =>
      listenTcp({ host: "127.0.0.1", port: 0, isShared: false, tls: setup.tls }, accept, onTlsError),
  });
  await edge.listening;
  const clients: grpc.Client[] = [];
  const connect = (credentials = setup.credentials ?? grpc.credentials.createInsecure(), options = {}) => {
    const client = new grpc.Client(edge.address, credentials, {
      "grpc.max_receive_message_length": -1,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.ssl_target_name_override": "localhost",
      ...options,
    });
    clients.push(client);
    return client;
  };
  return {
    edge,
    port: Number(edge.address.split(":")[1]),
    client: connect(),
    registry,
    logged,
    connect,
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.close();
      const drained = edge.drain();
      edge.close();
      await drained;
      near.close(0, "the test is over");
    },
  };
}

const pathOf = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;
const encode = (message: Request) =>
  Buffer.from(toBinary(TestMessageSchema, create(TestMessageSchema, message)));
const prefixed = (message: Uint8Array) => Buffer.concat([prefixOf(message), message]);
const decode = (bytes: Uint8Array) => fromBinary(TestMessageSchema, bytes);

/** Calls a unary method. @throws {grpc.ServiceError} */
function unary(
  client: grpc.Client,
  request: Request = {},
  options: grpc.CallOptions & { headers?: Record<string, string>; method?: string } = {},
): Promise<Answer> {
  const { headers, method, ...callOptions } = options;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      method ?? pathOf(TestService.method.unary),
      encode,
      decode,
      request,
      metadataOf(headers),
      callOptions,
      (error, answer) => error ? reject(error) : resolve(answer!),
    );
  });
}

function metadataOf(headers: Record<string, string> = {}): grpc.Metadata {
  const metadata = new grpc.Metadata({ waitForReady: true });
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
}

function chat(client: grpc.Client, options: grpc.CallOptions = {}): grpc.ClientDuplexStream<Request, Answer> {
  return client.makeBidiStreamRequest(
    pathOf(TestService.method.chat),
    encode,
    decode,
    new grpc.Metadata(),
    options,
  );
}

async function failure(promise: Promise<unknown>): Promise<[code: number, details: string]> {
  try {
    await promise;
  } catch (error) {
    const { code, details } = error as grpc.ServiceError;
    return [code, details];
  }
  throw new Error("the call did not fail");
}

/** All answers of a stream. */
async function collect(stream: AsyncIterable<Answer>): Promise<string[]> {
  const texts: string[] = [];
  for await (const { text } of stream) texts.push(text);
  return texts;
}

Deno.test("the gRPC edge passes a unary call on with its metadata and deadline, and counts it", async () => {
  const seen: unknown[] = [];
  await using world = await open({
    impl: {
      unary(request, context) {
        const { requestHeader } = context;
        seen.push(
          ["token", "authorization", "traceparent", "x-request-id", "other"].map((n) => requestHeader.get(n)),
        );
        seen.push(context.timeoutMs()! > 1_000);
        context.responseTrailer.set("x-trail", "t");
        return { text: `hello ${request.text}`, body: request.body };
      },
    },
  });
  const headers = {
    token: "t",
    authorization: "a",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-request-id": "r",
    other: "o",
  };
  const answer = await unary(world.client, { text: "you" }, { headers, deadline: Date.now() + 60_000 });
  assertEquals(answer.text, "hello you");
  assertEquals(seen, [["t", "a", headers.traceparent, "r", null], true]);
  assertStringIncludes(
    await world.registry.metrics(),
    'aetherflow_gateway_grpc_calls_total{method="/aetherflow.test.v1.TestService/Unary",code="OK"} 1',
  );
  assertEquals(world.logged, ["call /aetherflow.test.v1.TestService/Unary OK"]);
});

Deno.test("the gRPC edge carries all three kinds of streams", async () => {
  await using world = await open({
    impl: {
      async *download({ number }) {
        for (let i = 0; i < number; i++) yield { text: String(i) };
      },
      async upload(requests) {
        const texts: string[] = [];
        for await (const { text } of requests) texts.push(text);
        return { text: texts.join() };
      },
      async *chat(requests) {
        for await (const { text } of requests) yield { text: text.toUpperCase() };
      },
    },
  });
  const { download, upload } = TestService.method;
  const down = world.client.makeServerStreamRequest(pathOf(download), encode, decode, { number: 3_000 });
  assertEquals(await collect(down), Array.from({ length: 3_000 }, (_, i) => String(i)));
  const uploaded = await new Promise<Answer>((resolve, reject) => {
    const up = world.client.makeClientStreamRequest<Request, Answer>(
      pathOf(upload),
      encode,
      decode,
      (error, answer) => error ? reject(error) : resolve(answer!),
    );
    for (const text of ["a", "b", "c"]) up.write({ text });
    up.end();
  });
  assertEquals(uploaded.text, "a,b,c");
  const both = chat(world.client);
  for (const text of ["x", "y"]) both.write({ text });
  both.end();
  assertEquals(await collect(both), ["X", "Y"]);
});

Deno.test("the gRPC edge keeps a service's code and text, also in mid-stream", async () => {
  await using world = await open({
    impl: {
      unary: () => {
        throw new ConnectError("etcdserver: 100 % ☃", Code.FailedPrecondition);
      },
      async *chat() {
        yield { text: "one" };
        throw new ConnectError("no more", Code.OutOfRange);
      },
    },
  });
  assertEquals(await failure(unary(world.client)), [Code.FailedPrecondition, "etcdserver: 100 % ☃"]);
  const texts: string[] = [];
  const stream = chat(world.client);
  const failed = failure((async () => {
    for await (const { text } of stream) texts.push(text);
  })());
  assertEquals([await failed, texts], [[Code.OutOfRange, "no more"], ["one"]]);
});

Deno.test("the gRPC edge answers what it does not know as Go's server does", async () => {
  await using world = await open();
  const cases = [
    ["/no.Such/Method", "unknown service no.Such"],
    [
      "/aetherflow.test.v1.TestService/Nope",
      "unknown method Nope for service aetherflow.test.v1.TestService",
    ],
    ["/nothing", 'malformed method name: "/nothing"'],
  ] as const;
  for (const [method, text] of cases) {
    assertEquals(await failure(unary(world.client, {}, { method })), [Code.Unimplemented, text]);
  }
});

Deno.test("the gRPC edge ends a call at its deadline and tells the worker", async () => {
  const aborted = Promise.withResolvers<void>();
  await using world = await open({
    impl: {
      async unary(_, { signal }) {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        aborted.resolve();
        return {};
      },
    },
  });
  const [code] = await failure(unary(world.client, {}, { deadline: Date.now() + 50 }));
  assertEquals(code, Code.DeadlineExceeded);
  await aborted.promise;
});

for (const how of ["cancels", "loses its connection"] as const) {
  Deno.test(`the gRPC edge tells the worker when a client ${how}`, async () => {
    const started = Promise.withResolvers<void>();
    const aborted = Promise.withResolvers<void>();
    await using world = await open({
      impl: {
        async *chat(_, { signal }) {
          yield { text: "started" };
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          aborted.resolve();
        },
      },
    });
    const client = world.connect();
    const stream = chat(client);
    const ended = new Promise<void>((resolve) => stream.on("error", () => resolve()));
    stream.on("data", () => started.resolve());
    await started.promise;
    if (how === "cancels") stream.cancel();
    else world.edge.close();
    await Promise.all([aborted.promise, ended]);
  });
}

Deno.test("the gRPC edge takes large answers, and refuses large requests in etcd's words", async () => {
  await using world = await open({
    limits: { maxMessageBytes: 100_000 },
    impl: { unary: ({ number, body }) => ({ body: new Uint8Array(number).fill(body[0] ?? 7) }) },
  });
  const { body } = await unary(world.client, { number: 10_000_000 });
  assert(body.length === 10_000_000 && body.every((byte) => byte === 7));
  const request = { body: new Uint8Array(100_001) };
  assertEquals(await failure(unary(world.client, request)), [
    Code.ResourceExhausted,
    `grpc: received message larger than max (${encode(request).length} vs. 100000)`,
  ]);
  const stream = chat(world.client);
  stream.write(request);
  assertEquals((await failure(collect(stream)))[0], Code.ResourceExhausted);
});

Deno.test("the gRPC edge bounds streams, and frees their places", async () => {
  await using world = await open({
    limits: { maxStreamCalls: 1 },
    impl: {
      async *chat(requests) {
        yield { text: "started" };
        for await (const _ of requests);
      },
    },
  });
  const first = chat(world.client);
  await new Promise((resolve) => first.once("data", resolve));
  assertEquals(await failure(collect(chat(world.client))), [
    Code.ResourceExhausted,
    "1 streams are open (gateway.grpc.maxStreamCalls)",
  ]);
  first.end();
  await collect(first);
  const second = chat(world.client);
  second.end();
  assertEquals(await collect(second), ["started"]);
});

Deno.test("the gRPC edge refuses calls for a foreign name", async () => {
  await using world = await open({ impl: { unary: () => ({ text: "hi" }) } });
  const as = (name: string) => world.connect(undefined, { "grpc.default_authority": name });
  assertEquals((await failure(unary(as("evil.example:2379"))))[0], Code.PermissionDenied);
  assertEquals((await unary(as("localhost:2379"))).text, "hi");
});

Deno.test("plain HTTP/1.1 on the gRPC port answers as etcd's port does", async () => {
  await using world = await open();
  const ask = async (path: string, init?: RequestInit) => {
    const response = await fetch(`http://${world.edge.address}${path}`, init);
    return [response.status, await response.text()];
  };
  assertEquals(await ask("/version"), [200, '{"etcdserver":"3.5.21","etcdcluster":"3.5.0"}']);
  assertEquals(await ask("/health"), [200, '{"health":"true"}']);
  assertEquals(await ask("/metrics"), [200, "a 1\nprocess_resident_memory_bytes 42\n"]);
  assertEquals(await ask("/api/v1/kv/a"), [404, "404 page not found\n"]);
  assertEquals(
    (await ask("/v3/kv/range", { method: "POST", body: "{}" }))[1],
    JSON.stringify({
      pathname: "/v3/kv/range",
      host: world.edge.address,
      body: "{}",
    }),
  );
});

Deno.test("the gRPC edge speaks TLS, with HTTP/1.1 beside it, and asks for certificates when told to", async () => {
  const texts = { cert: CERTIFICATE, key: KEY };
  const root = Buffer.from(CERTIFICATE);
  const plain = grpc.credentials.createSsl(root);
  const mutual = grpc.credentials.createSsl(root, Buffer.from(KEY), root);
  const impl = { unary: () => ({ text: "hi" }) };
  {
    await using world = await open({ impl, tls: { ...texts, clientCa: undefined }, credentials: plain });
    assertEquals((await unary(world.client)).text, "hi");
    using http = Deno.createHttpClient({ caCerts: [CERTIFICATE], http2: false });
    const response = await fetch(`https://localhost:${world.port}/version`, { client: http });
    assertEquals([response.status, Object.keys(await response.json())], [200, ["etcdserver", "etcdcluster"]]);
    using http2 = Deno.createHttpClient({ caCerts: [CERTIFICATE], http1: false });
    const posted = await fetch(`https://localhost:${world.port}/v3/kv/put`, {
      client: http2,
      method: "POST",
      body: "b".repeat(300_000),
    });
    assertEquals((await posted.json()).body.length, 300_000);
  }
  {
    await using world = await open({ impl, tls: { ...texts, clientCa: CERTIFICATE }, credentials: mutual });
    assertEquals((await unary(world.client)).text, "hi");
    // The server's refusal comes after what is a whole handshake to a TLS 1.3 client: with its first read.
    using stranger = await Deno.connectTls({
      hostname: "localhost",
      port: world.port,
      caCerts: [CERTIFICATE],
    });
    await assertRejects(() => stranger.read(new Uint8Array(1)));
    assertStringIncludes(await world.registry.metrics(), 'connections_refused_total{reason="tls"} 1');
  }
});

Deno.test("the gRPC edge ends streams with unavailable when it drains, and lets unary calls finish", async () => {
  const started = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  await using world = await open({
    impl: {
      async unary() {
        started.resolve();
        await gate.promise;
        return { text: "finished" };
      },
      async *chat(requests) {
        yield { text: "started" };
        for await (const _ of requests);
      },
    },
  });
  const stream = chat(world.client);
  await new Promise((resolve) => stream.once("data", resolve));
  const slow = unary(world.client);
  await started.promise;
  const drained = world.edge.drain();
  assertEquals(await failure(collect(stream)), [Code.Unavailable, "the gateway is draining"]);
  gate.resolve();
  assertEquals((await slow).text, "finished");
  world.client.close();
  await drained;
});

Deno.test("grpc.health.v1 tells of the server and of each service", async () => {
  let state = "ready";
  await using world = await open({
    readiness: () => ({ ready: state === "ready", workers: [{ ...READY.workers[0]!, state }] }),
  });
  const { check, list, watch } = Health.method;
  const ask = <O>(method: DescMethod, service: string) =>
    new Promise<O>((resolve, reject) => {
      world.client.makeUnaryRequest(
        pathOf(method),
        (name: string) => Buffer.from(toBinary(check.input, create(check.input, { service: name }))),
        (bytes) => fromBinary(method.output, bytes) as O,
        service,
        (error, answer) => error ? reject(error) : resolve(answer!),
      );
    });
  type Checked = MessageShape<typeof check.output>;
  assertEquals((await ask<Checked>(check, "")).status, Status.SERVING);
  assertEquals((await ask<Checked>(check, TestService.typeName)).status, Status.SERVING);
  assertEquals(await failure(ask(check, "no.Such")), [Code.NotFound, "unknown service"]);
  const all = await ask<MessageShape<typeof list.output>>(list, "");
  assertEquals(Object.keys(all.statuses), ["", TestService.typeName]);

  const watching = world.client.makeServerStreamRequest(
    pathOf(watch),
    (service: string) => Buffer.from(toBinary(watch.input, create(watch.input, { service }))),
    (bytes) => fromBinary(watch.output, bytes),
    "",
  );
  watching.on("error", () => {});
  const next = () => new Promise<Checked>((resolve) => watching.once("data", resolve));
  assertEquals((await next()).status, Status.SERVING);
  state = "restarting";
  assertEquals((await next()).status, Status.NOT_SERVING);
  assertEquals((await ask<Checked>(check, TestService.typeName)).status, Status.NOT_SERVING);
  watching.cancel();
});

Deno.test("server reflection lists the services and their files", async () => {
  await using world = await open();
  const { serverReflectionInfo: method } = ServerReflection.method;
  for (const version of ["v1", "v1alpha"]) {
    const stream = world.client.makeBidiStreamRequest(
      `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
      (request: MessageInitShape<typeof method.input>) =>
        Buffer.from(toBinary(method.input, create(method.input, request))),
      (bytes) => fromBinary(method.output, bytes),
    );
    const ask = (messageRequest: MessageShape<typeof method.input>["messageRequest"]) => {
      const answer = new Promise<MessageShape<typeof method.output>>((resolve) =>
        stream.once("data", resolve)
      );
      stream.write({ messageRequest });
      return answer.then(({ messageResponse }) => messageResponse);
    };
    const listed = await ask({ case: "listServices", value: "" });
    assert(listed.case === "listServicesResponse");
    assertEquals(listed.value.service.map(({ name }) => name), [
      "aetherflow.test.v1.TestService",
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
    ]);
    for (
      const symbol of ["grpc.health.v1.Health.Check", "grpc.health.v1.HealthCheckResponse.ServingStatus"]
    ) {
      const found = await ask({ case: "fileContainingSymbol", value: symbol });
      assert(found.case === "fileDescriptorResponse" && found.value.fileDescriptorProto.length === 1, symbol);
    }
    const missing = await ask({ case: "fileByFilename", value: "none.proto" });
    assert(missing.case === "errorResponse");
    assertEquals([missing.value.errorCode, missing.value.errorMessage], [5, "File not found: none.proto"]);
    stream.end();
    await new Promise((resolve) => stream.once("end", resolve));
  }
});

// What a client may not do, byte by byte.

const PREFACE = new TextEncoder().encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const TYPE = { RST_STREAM: 3, SETTINGS: 4, PING: 6, GOAWAY: 7 } as const;

function frame(type: number, streamId = 0, payload: ArrayLike<number> = [], flags = 0): Uint8Array {
  const { length } = payload;
  const id = [streamId >>> 24, streamId >>> 16, streamId >>> 8, streamId].map((byte) => byte & 0xff);
  return Uint8Array.from([
    length >> 16,
    length >> 8 & 0xff,
    length & 0xff,
    type,
    flags,
    ...id,
    ...Array.from(payload),
  ]);
}

/** Sends bytes and returns everything that comes back until the server closes the connection. */
async function talk(port: number, parts: readonly Uint8Array[]): Promise<Uint8Array> {
  using connection = await Deno.connect({ port });
  const received: number[] = [];
  const buffer = new Uint8Array(16_384);
  const reading = (async () => {
    for (let n = await connection.read(buffer); n !== null; n = await connection.read(buffer)) {
      received.push(...buffer.subarray(0, n));
    }
  })().catch(() => {}); // a reset is an end, too
  for (const part of parts) await connection.write(part).catch(() => {});
  await reading;
  return Uint8Array.from(received);
}

Deno.test("the gRPC edge sends a client that pings or resets without end away, and lives", async () => {
  await using world = await open({ impl: { unary: () => ({ text: "hi" }) } });
  const start = [PREFACE, frame(TYPE.SETTINGS)];
  const pings = Array.from({ length: 5 }, () => frame(TYPE.PING, 0, new Uint8Array(8)));
  assertStringIncludes(
    new TextDecoder().decode(await talk(world.port, [...start, ...pings])),
    "too_many_pings",
  );
  const headers = [0x83, 0x86, 0x84, 0x41, 0x09, ...new TextEncoder().encode("localhost")];
  const flood = Array.from({ length: 1_500 }, (_, i) => [
    frame(1, 2 * i + 1, headers, 0x04),
    frame(TYPE.RST_STREAM, 2 * i + 1, [0, 0, 0, 8]),
  ]).flat();
  await talk(world.port, [...start, Uint8Array.from(flood.flatMap((part) => [...part]))]);
  assertStringIncludes(await world.registry.metrics(), 'connections_refused_total{reason="resets"} 1');
  assertEquals((await unary(world.client)).text, "hi");
});

Deno.test("the gRPC edge lives through malformed frames and clients that say goodbye", async () => {
  await using world = await open({ impl: { unary: () => ({ text: "hi" }) } });
  await talk(world.port, [PREFACE, frame(TYPE.SETTINGS, 0, [1, 2, 3])]);
  await talk(world.port, [PREFACE, frame(TYPE.SETTINGS), frame(1, 1, [0xff, 0xff, 0xff], 0x05)]);
  await talk(world.port, [PREFACE, new Uint8Array(200).fill(0xff)]);
  await talk(world.port, [new TextEncoder().encode("PRI nonsense that is neither\r\n\r\n")]);
  for (let i = 0; i < 20; i++) {
    using connection = await Deno.connect({ port: world.port });
    const headers = [0x83, 0x86, 0x84, 0x41, 0x09, ...new TextEncoder().encode("localhost")];
    const streams = [1, 3, 5].map((id) => frame(1, id, headers, 0x05));
    const goodbye = frame(TYPE.GOAWAY, 0, new Uint8Array(8));
    const all = [PREFACE, frame(TYPE.SETTINGS), ...streams, goodbye, frame(TYPE.PING, 0, new Uint8Array(8))];
    await connection.write(Uint8Array.from(all.flatMap((part) => [...part])));
    await connection.read(new Uint8Array(1_000));
  }
  assertEquals((await unary(world.client)).text, "hi");
});

Deno.test("the gRPC edge closes connections over its limit, half-open ones included", async () => {
  await using world = await open({ impl: { unary: () => ({ text: "hi" }) }, limits: { maxConnections: 3 } });
  const silent = await Promise.all([1, 2, 3].map(() => Deno.connect({ port: world.port })));
  assertEquals((await talk(world.port, [])).length, 0);
  assertStringIncludes(await world.registry.metrics(), 'connections_refused_total{reason="connections"} 1');
  for (const connection of silent) connection.close();
  assertEquals((await unary(world.client, {}, { deadline: Date.now() + 10_000 })).text, "hi");
});

// Clients of HTTP/2 that are not gRPC's, and more than fits a window.

/** One request through node:http2's client: status, fields and body. */
function request(
  session: ClientHttp2Session,
  fields: Record<string, string>,
  body?: Uint8Array,
): Promise<{ status: number; trailers: Record<string, unknown>; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":method": body === undefined ? "GET" : "POST", ...fields });
    const parts: Buffer[] = [];
    let status = 0;
    let trailers: Record<string, unknown> = {};
    stream.on("response", (headers) => status = headers[":status"]!);
    stream.on("trailers", (headers) => trailers = headers);
    stream.on("data", (part: Buffer) => parts.push(part));
    stream.on("end", () => resolve({ status, trailers, body: Buffer.concat(parts) }));
    stream.on("error", reject);
    stream.end(body);
  });
}

function connectHttp2(port: number): ClientHttp2Session & Disposable {
  const session = connect(`http://127.0.0.1:${port}`);
  return Object.assign(session, { [Symbol.dispose]: () => session.destroy() });
}

Deno.test("the gRPC edge speaks HTTP/2 with node:http2's client, gRPC or not", async () => {
  await using world = await open({ impl: { unary: ({ text }) => ({ text }) } });
  using session = connectHttp2(world.port);
  const version = await request(session, { ":path": "/version" });
  assertEquals([version.status, JSON.parse(version.body.toString()).etcdserver], [200, "3.5.21"]);
  assertEquals((await request(session, { ":path": "/nothing" })).status, 404);
  // Larger than both windows.
  const large = new Uint8Array(2_000_000).fill(0x78);
  const echo = await request(session, { ":path": "/v3/kv/put" }, large);
  assertEquals([echo.status, JSON.parse(echo.body.toString()).body.length], [200, 2_000_000]);
  const path = pathOf(TestService.method.unary);
  const grpcFields = { ":path": path, "content-type": "application/grpc", te: "trailers" };
  const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => {
    return request(session, grpcFields, prefixed(encode({ text: String(i) })));
  }));
  answers.forEach(({ status, trailers, body }, i) => {
    assertEquals([status, trailers["grpc-status"], decode(body.subarray(5)).text], [200, "0", String(i)]);
  });
  assertEquals((await request(session, { ...grpcFields, ":method": "PUT" }, new Uint8Array())).status, 405);
});

Deno.test("the gRPC edge speaks HTTP/2 with curl", async (t) => {
  if (!await requireBinary(t, "curl", "curl")) return;
  await using world = await open();
  const curl = (args: string[]) =>
    new Deno.Command("curl", { args: ["-s", "--http2-prior-knowledge", "--max-time", "20", ...args] })
      .output();
  const url = `http://127.0.0.1:${world.port}`;
  const { stdout } = await curl(["-w", "%{http_version} %{http_code}", `${url}/health`]);
  assertEquals(new TextDecoder().decode(stdout), '{"health":"true"}2 200');
  const posted = await curl(["-d", "x".repeat(100_000), `${url}/v3/kv/range`]);
  assertEquals(JSON.parse(new TextDecoder().decode(posted.stdout)).body.length, 100_000);
});

Deno.test("the gRPC edge carries many calls at once beside calls that are cancelled", async () => {
  let aborted = 0;
  await using world = await open({
    impl: {
      unary: ({ text, body }) => ({ text, body }),
      async *chat(_, { signal }) {
        yield { text: "started" };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        aborted++;
      },
    },
  });
  const cancelled = Array.from({ length: 100 }, () => {
    const stream = chat(world.client);
    stream.on("data", () => stream.cancel());
    return failure(collect(stream));
  });
  const body = new Uint8Array(3_000).fill(5);
  const answers = await Promise.all(
    Array.from({ length: 2_000 }, (_, i) => unary(world.client, { text: String(i), body })),
  );
  answers.forEach(({ text, body }, i) => assertEquals([text, body.length], [String(i), 3_000]));
  for (const [code] of await Promise.all(cancelled)) assertEquals(code, Code.Canceled);
  // What was sent before this call has arrived.
  await unary(world.client);
  assertEquals(aborted, 100);
});

Deno.test("the gRPC edge takes requests larger than its windows, beside streams whose requests never end", async () => {
  await using world = await open({
    impl: {
      unary: ({ body }) => ({ number: body.length }),
      async upload(requests) {
        let number = 0;
        for await (const { body } of requests) number += body.length;
        return { number };
      },
    },
  });
  using session = connectHttp2(world.port);
  const fields = {
    ":method": "POST",
    ":path": pathOf(TestService.method.unary),
    "content-type": "application/grpc",
  };
  // Half-open: a head, half a message, and no more.
  for (let i = 0; i < 50; i++) {
    const stream = session.request(fields);
    stream.on("error", () => {});
    stream.write(prefixed(new Uint8Array(1_000)).subarray(0, 500));
  }
  const large = prefixed(encode({ body: new Uint8Array(2_000_000) }));
  const { body } = await request(session, { ...fields, te: "trailers" }, large);
  assertEquals(decode(body.subarray(5)).number, 2_000_000);
  const number = await new Promise<number>((resolve, reject) => {
    const stream = world.client.makeClientStreamRequest<Request, Answer>(
      pathOf(TestService.method.upload),
      encode,
      decode,
      (error, answer) => error ? reject(error) : resolve(answer!.number),
    );
    for (let i = 0; i < 20; i++) stream.write({ body: new Uint8Array(1_000_000) });
    stream.end();
  });
  assertEquals(number, 20_000_000);
});

/** A client that opens windows without end, asks for one thing and reads when it is told to. */
async function slowReader(port: number, method: DescMethod, message: Request): Promise<Deno.TcpConn> {
  const connection = await Deno.connect({ port });
  const head = encodeFields([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", pathOf(method)],
    [":authority", "localhost"],
    ["content-type", "application/grpc"],
  ]);
  const parts = [
    PREFACE,
    frame(TYPE.SETTINGS, 0, [0, 4, 0x7f, 0xff, 0xff, 0xff]),
    frame(8, 0, [0x7f, 0xfe, 0, 0]),
    frame(1, 1, head, 0x04),
    frame(0, 1, prefixed(encode(message)), 0x01),
  ];
  for (const part of parts) await connection.write(part);
  return connection;
}

Deno.test("the gRPC edge holds a stream back whose client does not read, and serves others", async () => {
  let yielded = 0;
  await using world = await open({
    impl: {
      unary: () => ({ text: "hi" }),
      async *download() {
        const body = new Uint8Array(100_000);
        while (true) {
          yielded++;
          yield { body };
        }
      },
    },
  });
  using _slow = await slowReader(world.port, TestService.method.download, {});
  let before = -1;
  for (let i = 0; i < 1_000 && before !== yielded; i++) {
    before = yielded;
    for (let i = 0; i < 20; i++) assertEquals((await unary(world.client)).text, "hi");
  }
  // The kernel's buffers are some megabytes each way.
  assert(before > 0 && before === yielded && yielded < 200, String(yielded));
});

Deno.test("the gRPC edge keeps a large answer for a client that reads late, and serves others", async () => {
  const size = 60_000_000;
  const big = new Uint8Array(size).fill(7);
  await using world = await open({
    impl: { unary: ({ number }) => number === 1 ? { body: big } : { text: "hi" } },
  });
  using slow = await slowReader(world.port, TestService.method.unary, { number: 1 });
  for (let i = 0; i < 50; i++) assertEquals((await unary(world.client)).text, "hi");
  const buffer = new Uint8Array(1_000_000);
  let received = 0;
  while (received < size) received += (await slow.read(buffer))!;
  assertEquals((await unary(world.client)).text, "hi");
});

Deno.test("the gRPC edge ends a connection that floods it with CONTINUATION", async () => {
  await using world = await open({ impl: { unary: () => ({ text: "hi" }) } });
  const flood = Array.from({ length: 1_000 }, () => frame(9, 1, [0x00, 0x01, 0x61, 0x01, 0x61]));
  const said = await talk(world.port, [PREFACE, frame(TYPE.SETTINGS), frame(1, 1, [0x82], 0x01), ...flood]);
  assertStringIncludes(new TextDecoder().decode(said), "too_many_continuations");
  assertStringIncludes(await world.registry.metrics(), 'connections_refused_total{reason="frames"} 1');
  assertEquals((await unary(world.client)).text, "hi");
});
