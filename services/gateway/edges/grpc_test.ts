/** The edge between our client of gRPC, and for once one that nobody here wrote, and RPC over a memory channel. */
import { Buffer } from "node:buffer";
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Registry } from "prom-client";
import { ErrorInfoSchema } from "$proto/google/rpc/error_details_pb.ts";
import { StatusSchema } from "$proto/google/rpc/status_pb.ts";
import { Health, HealthCheckResponse_ServingStatus as Status } from "$proto/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "$proto/grpc/reflection/v1/reflection_pb.ts";
import { runForeignClient } from "../../../tests/support/foreign_grpc.ts";
import { CERTIFICATE, KEY } from "../../../tests/bench/transport/localhost_certificate.ts";
import { requireBinary } from "../../../tests/support/server.ts";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { GrpcConnection } from "../../../transport/grpc/connection.ts";
import { dial } from "../../../transport/grpc/dial.ts";
import { prefixOf } from "../../../transport/grpc/message_reader.ts";
import {
  GRPC,
  type GrpcCall,
  GrpcChannel,
  type GrpcChannelOptions,
  GrpcError,
  type GrpcStatus,
  type GrpcTls,
} from "../../../transport/grpc/mod.ts";
import { valueOf } from "../../../transport/http2/fields.ts";
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
import { STATUS_DETAILS_BYTES_MAX } from "./connect/failure.ts";
import { createGrpcEdge, type GrpcEdge } from "./grpc.ts";
import { createHealth } from "./grpc/health.ts";
import { listenTcp } from "./grpc/listener.ts";
import { createGrpcMethods } from "./grpc/method.ts";
import { createGrpcMetrics } from "./grpc/metrics.ts";
import { createPlainHttp } from "./grpc/plain_http.ts";
import { createReflection } from "./grpc/reflection.ts";

type Request = MessageInitShape<typeof TestMessageSchema>;
type Answer = MessageShape<typeof TestMessageSchema>;

interface World extends AsyncDisposable {
  readonly edge: GrpcEdge;
  readonly port: number;
  readonly client: GrpcChannel;
  readonly registry: Registry;
  readonly logged: string[];
  /** A further client, at the edge's address, with its own connection. */
  connect(options?: Partial<GrpcChannelOptions>): GrpcChannel;
}

interface Setup {
  readonly impl?: Partial<ServiceImpl<typeof TestService>>;
  readonly limits?: Partial<GatewayConfig["grpc"]>;
  readonly tls?: TlsTexts;
  /** The client's certificates. */
  readonly clientTls?: GrpcTls;
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
  const clients: GrpcChannel[] = [];
  const connect = (options: Partial<GrpcChannelOptions> = {}) => {
    const client = new GrpcChannel({
      address: edge.address,
      ...(setup.clientTls === undefined ? {} : { tls: setup.clientTls }),
      maxReceiveBytes: Infinity,
      reconnectFirstMs: 10,
      clock: { now: () => performance.now() },
      fraction: () => 0.5,
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
      for (const client of clients) client[Symbol.dispose]();
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

/** Calls a unary method. @throws {GrpcError} */
async function unary(
  client: GrpcChannel,
  request: Request = {},
  options: { headers?: Record<string, string>; method?: string; timeoutMs?: number } = {},
): Promise<Answer> {
  const { headers = {}, method = pathOf(TestService.method.unary), ...rest } = options;
  return decode(await client.unary(method, encode(request), { ...rest, metadata: headers }));
}

/** A call with streams: what is sent, and answers to read. */
class Streams<I extends DescMessage, O extends DescMessage> implements AsyncIterable<MessageShape<O>> {
  readonly #method: DescMethod & { input: I; output: O };
  readonly #call: GrpcCall;
  readonly #answers: MessageShape<O>[] = [];
  #status: GrpcStatus | undefined;
  #wake = () => {};

  /** With `request` a call of one request. `path` is the method's when left out. */
  constructor(
    client: GrpcChannel,
    method: DescMethod & { input: I; output: O },
    request?: MessageInitShape<I>,
    path = pathOf(method),
  ) {
    this.#method = method;
    this.#call = client.start(path, {
      onMessage: (bytes) => {
        this.#answers.push(fromBinary(method.output, bytes));
        this.#wake();
      },
      onEnd: (status) => {
        this.#status = status;
        this.#wake();
      },
    }, request === undefined ? {} : { request: toBinary(method.input, create(method.input, request)) });
  }

  write(request: MessageInitShape<I>): void {
    this.#call.send(toBinary(this.#method.input, create(this.#method.input, request)));
  }

  end(): void {
    this.#call.endSending();
  }

  cancel(): void {
    this.#call.cancel();
  }

  /** The next answer; undefined at a good end. @throws {GrpcError} at another. */
  async next(): Promise<MessageShape<O> | undefined> {
    while (this.#answers.length === 0 && this.#status === undefined) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    const answer = this.#answers.shift();
    if (answer === undefined && this.#status!.code !== GRPC.OK) throw new GrpcError(this.#status!);
    return answer;
  }

  async *[Symbol.asyncIterator](): AsyncIterator<MessageShape<O>> {
    for (let answer = await this.next(); answer !== undefined; answer = await this.next()) yield answer;
  }
}

const chat = (client: GrpcChannel) => new Streams(client, TestService.method.chat);

async function failure(promise: Promise<unknown>): Promise<[code: number, message: string]> {
  try {
    await promise;
  } catch (error) {
    const { code, message } = error as GrpcError;
    return [code, message];
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
  const answer = await unary(world.client, { text: "you" }, { headers, timeoutMs: 60_000 });
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
  const down = new Streams(world.client, download, { number: 3_000 });
  assertEquals(await collect(down), Array.from({ length: 3_000 }, (_, i) => String(i)));
  const up = new Streams(world.client, upload);
  for (const text of ["a", "b", "c"]) up.write({ text });
  up.end();
  assertEquals(await collect(up), ["a,b,c"]);
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

Deno.test("the gRPC edge passes a service's error details on as grpc-status-details-bin", async () => {
  const info = { reason: "WHY", domain: "test", metadata: { n: "1" } };
  const detailed = (size: number) =>
    new ConnectError("refused", Code.Aborted, undefined, [
      { desc: ErrorInfoSchema, value: { ...info, metadata: { n: "1".repeat(size) } } },
    ]);
  await using world = await open({
    impl: {
      unary: ({ number }) => {
        throw detailed(number);
      },
      async *chat() {
        yield { text: "one" };
        throw detailed(1);
      },
    },
  });
  const detailsOf = async (failing: Promise<unknown>) => {
    const { code, trailers } = await assertRejects(() => failing, GrpcError);
    assertEquals(code, Code.Aborted);
    const field = valueOf(trailers, "grpc-status-details-bin");
    if (field === undefined) return undefined;
    const status = fromBinary(StatusSchema, Buffer.from(field, "base64"));
    assertEquals([status.code, status.message], [Code.Aborted, "refused"]);
    return status.details.map((any) => {
      const { reason, domain, metadata } = anyUnpack(any, ErrorInfoSchema)!;
      return { reason, domain, metadata };
    });
  };
  assertEquals(await detailsOf(unary(world.client, { number: 1 })), [info]);
  assertEquals(await detailsOf(collect(chat(world.client))), [info]);
  // A client drops the whole status when its headers are too large for it.
  assertEquals(await detailsOf(unary(world.client, { number: STATUS_DETAILS_BYTES_MAX })), undefined);
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
  const [code] = await failure(unary(world.client, {}, { timeoutMs: 50 }));
  assertEquals(code, Code.DeadlineExceeded);
  await aborted.promise;
});

for (const how of ["cancels", "loses its connection"] as const) {
  Deno.test(`the gRPC edge tells the worker when a client ${how}`, async () => {
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
    await stream.next();
    const ended = failure(collect(stream));
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
  await first.next();
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
  const as = (name: string) => world.connect({ authority: name });
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
  const plain = { ca: CERTIFICATE, serverName: "localhost" };
  const mutual = { ...plain, cert: CERTIFICATE, key: KEY };
  const impl = { unary: () => ({ text: "hi" }) };
  {
    await using world = await open({ impl, tls: { ...texts, clientCa: undefined }, clientTls: plain });
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
    await using world = await open({ impl, tls: { ...texts, clientCa: CERTIFICATE }, clientTls: mutual });
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
  await stream.next();
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
  const ask = async <O extends DescMessage>(method: DescMethod & { output: O }, service: string) =>
    fromBinary(
      method.output,
      await world.client.unary(pathOf(method), toBinary(check.input, create(check.input, { service }))),
    );
  assertEquals((await ask(check, "")).status, Status.SERVING);
  assertEquals((await ask(check, TestService.typeName)).status, Status.SERVING);
  assertEquals(await failure(ask(check, "no.Such")), [Code.NotFound, "unknown service"]);
  const all = await ask(list, "");
  assertEquals(Object.keys(all.statuses), ["", TestService.typeName]);

  const watching = new Streams(world.client, watch, { service: "" });
  assertEquals((await watching.next())?.status, Status.SERVING);
  state = "restarting";
  assertEquals((await watching.next())?.status, Status.NOT_SERVING);
  assertEquals((await ask(check, TestService.typeName)).status, Status.NOT_SERVING);
  watching.cancel();
});

Deno.test("server reflection lists the services and their files", async () => {
  await using world = await open();
  const { serverReflectionInfo: method } = ServerReflection.method;
  for (const version of ["v1", "v1alpha"]) {
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
    const stream = new Streams(world.client, method, undefined, path);
    const ask = async (messageRequest: MessageShape<typeof method.input>["messageRequest"]) => {
      stream.write({ messageRequest });
      return (await stream.next())!.messageResponse;
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
    assertEquals(await stream.next(), undefined);
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
  // The edge hears of the goodbyes in its own time.
  for (;;) {
    try {
      assertEquals((await unary(world.client)).text, "hi");
      break;
    } catch (error) {
      if (!(error instanceof GrpcError && error.isUnsent)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
});

// Clients of HTTP/2 that are not gRPC's, and more than fits a window.

/** A connection of HTTP/2 alone. */
async function connectHttp2(port: number): Promise<GrpcConnection & Disposable> {
  const socket = await dial(`127.0.0.1:${port}`, undefined, new AbortController().signal);
  const connection = new GrpcConnection(socket, {
    clock: { now: () => performance.now() },
    keepaliveTimeMs: 0,
    keepaliveTimeoutMs: 0,
    onReady() {},
    onClosing() {},
    onEnd() {},
  });
  return Object.assign(connection, { [Symbol.dispose]: () => connection.close("the test is over") });
}

/** One request: status, trailers and body of its answer. */
function request(
  connection: GrpcConnection,
  fields: [name: string, value: string][],
  body: Uint8Array,
): Promise<{ status: number; trailers: readonly string[]; body: Uint8Array }> {
  return new Promise((resolve, reject) => {
    const parts: Uint8Array[] = [];
    let status = 0;
    const end = (trailers: readonly string[]) => resolve({ status, trailers, body: Buffer.concat(parts) });
    connection.http2.request(encodeFields(fields), new Uint8Array(0), body, {
      onHead(head, isWhole) {
        ({ status } = head);
        if (isWhole) end([]);
      },
      onBody: (part) => void parts.push(part),
      onBodyEnd: end,
      onReset: (code, cause) => reject(new Error(`reset: ${code}, ${cause}`)),
      onWritable() {},
    });
  });
}

const postTo = (path: string): [string, string][] => [
  [":method", "POST"],
  [":scheme", "http"],
  [":path", path],
  [":authority", "localhost"],
];
const GRPC_FIELDS: [string, string][] = [
  ...postTo(pathOf(TestService.method.unary)),
  ["content-type", "application/grpc"],
  ["te", "trailers"],
];

Deno.test("the gRPC edge speaks HTTP/2, gRPC or not", async () => {
  await using world = await open({ impl: { unary: ({ text }) => ({ text }) } });
  using connection = await connectHttp2(world.port);
  const nothing = new Uint8Array(0);
  const get = (path: string): [string, string][] => [[":method", "GET"], ...postTo(path).slice(1)];
  const version = await request(connection, get("/version"), nothing);
  assertEquals([version.status, JSON.parse(new TextDecoder().decode(version.body)).etcdserver], [
    200,
    "3.5.21",
  ]);
  assertEquals((await request(connection, get("/nothing"), nothing)).status, 404);
  // Larger than both windows.
  const large = new Uint8Array(2_000_000).fill(0x78);
  const echo = await request(connection, postTo("/v3/kv/put"), large);
  assertEquals([echo.status, JSON.parse(new TextDecoder().decode(echo.body)).body.length], [200, 2_000_000]);
  const answers = await Promise.all(
    Array.from(
      { length: 300 },
      (_, i) => request(connection, GRPC_FIELDS, prefixed(encode({ text: String(i) }))),
    ),
  );
  answers.forEach(({ status, trailers, body }, i) => {
    assertEquals([status, valueOf(trailers, "grpc-status"), decode(body.subarray(5)).text], [
      200,
      "0",
      String(i),
    ]);
  });
  const put: [string, string][] = [[":method", "PUT"], ...GRPC_FIELDS.slice(1)];
  assertEquals((await request(connection, put, nothing)).status, 405);
});

Deno.test("the gRPC edge works with clients that nobody here wrote: @grpc/grpc-js and node:http2", async () => {
  await using world = await open({
    limits: { maxMessageBytes: 1_000_000 },
    impl: {
      async unary({ text, number, body }, { signal, requestHeader }) {
        if (text === "fail") throw new ConnectError("etcdserver: 100 % ☃", Code.FailedPrecondition);
        if (text === "wait") await new Promise((resolve) => signal.addEventListener("abort", resolve));
        return {
          text: `${text} ${requestHeader.get("token")}`,
          body: new Uint8Array(number),
          number: body.length,
        };
      },
      async *download({ number }) {
        for (let i = 0; i < number; i++) yield { number: i };
      },
      async *chat(requests) {
        for await (const { text } of requests) {
          if (text === "fail") throw new ConnectError("no more", Code.OutOfRange);
          yield { text: text.toUpperCase() };
        }
      },
    },
  });
  assertEquals(await runForeignClient(world.edge.address), {
    unary: "hi t",
    large: [900_000, 3_000_000],
    parallel: 500,
    download: 3_000,
    chat: ["X", "Y"],
    failure: [Code.FailedPrecondition, "etcdserver: 100 % ☃"],
    chatFailure: [Code.OutOfRange, "no more"],
    unknown: [Code.Unimplemented, "unknown method Nope for service aetherflow.test.v1.TestService"],
    tooLarge: [Code.ResourceExhausted, "grpc: received message larger than max (3000005 vs. 1000000)"],
    deadline: Code.DeadlineExceeded,
    cancel: Code.Canceled,
    http2: [200, 404, "3.5.21", 2_000_000],
  });
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
    return stream.next().then(() => {
      stream.cancel();
      return failure(collect(stream));
    });
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
  using connection = await connectHttp2(world.port);
  // Half-open: a head, half a message, and no more.
  const half = prefixed(new Uint8Array(1_000)).subarray(0, 500);
  for (let i = 0; i < 50; i++) {
    const idle = { onHead() {}, onBody() {}, onBodyEnd() {}, onReset() {}, onWritable() {} };
    connection.http2.open(encodeFields(GRPC_FIELDS), idle)!.write(half);
  }
  const large = prefixed(encode({ body: new Uint8Array(2_000_000) }));
  const { body } = await request(connection, GRPC_FIELDS, large);
  assertEquals(decode(body.subarray(5)).number, 2_000_000);
  const upload = new Streams(world.client, TestService.method.upload);
  for (let i = 0; i < 20; i++) upload.write({ body: new Uint8Array(1_000_000) });
  upload.end();
  const number = (await upload.next())?.number;
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
