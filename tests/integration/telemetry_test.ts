/** One request is one connected trace: from the gateway over Quantum into the service and its store, exported as OTLP. */
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { GetSessionRequestSchema } from "$proto/aetherflow/session/v1/session_pb.ts";
import { GrpcChannel, GrpcError } from "../../transport/grpc/mod.ts";
import { startProduct } from "../support/product.ts";

interface ExportedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly status?: { readonly code?: number };
  readonly attributes?: readonly { readonly key: string; readonly value: Record<string, unknown> }[];
}

/** How long spans may take until they are exported: batches wait some seconds. */
const EXPORT_MS = 30_000;

/** Takes spans as the OTLP/HTTP JSON exporter sends them. */
class Collector implements AsyncDisposable {
  readonly spans: ExportedSpan[] = [];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  #changed = Promise.withResolvers<void>();

  constructor() {
    this.#server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
      const body = await request.json();
      if (new URL(request.url).pathname === "/v1/traces") {
        for (const { scopeSpans } of body.resourceSpans) {
          for (const { spans } of scopeSpans) this.spans.push(...spans);
        }
        this.#changed.resolve();
        this.#changed = Promise.withResolvers();
      }
      return Response.json({});
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  /** The spans of a trace once they satisfy `isWhole`. */
  async trace(
    traceId: string,
    isWhole: (spans: readonly ExportedSpan[]) => boolean,
  ): Promise<ExportedSpan[]> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#changed.resolve();
    }, EXPORT_MS);
    try {
      for (;;) {
        const spans = this.spans.filter((span) => span.traceId === traceId);
        if (isWhole(spans)) return spans;
        assert(!isLate, `the trace is not whole: ${JSON.stringify(spans.map(({ name }) => name))}`);
        await this.#changed.promise;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

const [INTERNAL, SERVER, CLIENT] = [1, 2, 3];
const CLIENT_SPAN = "00f067aa0ba902b7";

/** The product with traces on, and where they go. */
function startTraced(collector: Collector) {
  const settings = [
    `telemetry.otlp.endpoint=${collector.url}`,
    "telemetry.otlp.protocol=http/json",
    "log.level=error",
  ];
  return startProduct({
    keeper: true,
    args: settings.flatMap((setting) => ["--set", setting]),
    env: { OTEL_BSP_SCHEDULE_DELAY: "200" }, // instead of 5 s
  });
}

/** The one span of a name and kind. */
function oneOf(spans: readonly ExportedSpan[], name: string, kind: number): ExportedSpan {
  const found = spans.filter((span) => span.name === name && span.kind === kind);
  assertEquals(found.length, 1, `${name} of kind ${kind} among ${spans.map(({ name }) => name).join(", ")}`);
  return found[0]!;
}

/** Whether the spans have all these names. */
const hasAll = (...names: string[]) => (spans: readonly ExportedSpan[]) =>
  names.every((name) => spans.some((span) => span.name === name));

Deno.test("a request is one connected trace from the gateway to the store", async (t) => {
  await using collector = new Collector();
  await using product = await startTraced(collector);
  const { hostname, port } = new URL(`http://${product.grpc}`);
  using grpc = new GrpcChannel({
    address: `${hostname}:${port}`,
    maxReceiveBytes: 65_536,
    clock: { now: () => performance.now() },
    fraction: () => 0.5,
  });

  await t.step("a key written over HTTP", async () => {
    const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
    const answer = await fetch(`${product.url}/api/v1/kv/traced`, {
      method: "PUT",
      body: "v",
      headers: { traceparent: `00-${traceId}-${CLIENT_SPAN}-01` },
    });
    assertEquals(answer.status, 200);
    await answer.body?.cancel();

    const put = "aetherflow.kv.v1.KeyValueService/Put";
    const route = "PUT /api/v1/kv/{key=**}";
    const spans = await collector.trace(traceId, hasAll("kv store append", route));
    const request = oneOf(spans, route, SERVER);
    const call = oneOf(spans, put, CLIENT);
    const served = oneOf(spans, put, SERVER);
    const stored = oneOf(spans, "kv store append", INTERNAL);
    assertEquals(
      [request, call, served, stored].map(({ parentSpanId }) => parentSpanId),
      [CLIENT_SPAN, request.spanId, call.spanId, served.spanId],
    );
    assertEquals(attribute(request, "http.route"), "/api/v1/kv/{key=**}");
    assertEquals(attribute(call, "peer.service"), "kv");
    assertEquals(attribute(served, "aetherflow.worker"), "kv");
  });

  await t.step("a session created over HTTP", async () => {
    const traceId = "5bf92f3577b34da6a3ce929d0e0e4736";
    const answer = await fetch(`${product.url}/api/v1/sessions`, {
      method: "POST",
      body: JSON.stringify({ userId: "ann" }),
      headers: { traceparent: `00-${traceId}-${CLIENT_SPAN}-01` },
    });
    assertEquals(answer.status, 200);
    await answer.body?.cancel();

    const create = "aetherflow.session.v1.SessionService/CreateSession";
    const spans = await collector.trace(traceId, hasAll("session store create", "POST /api/v1/sessions"));
    const request = oneOf(spans, "POST /api/v1/sessions", SERVER);
    const call = oneOf(spans, create, CLIENT);
    const served = oneOf(spans, create, SERVER);
    const stored = oneOf(spans, "session store create", INTERNAL);
    assertEquals(
      [request, call, served, stored].map(({ parentSpanId }) => parentSpanId),
      [CLIENT_SPAN, request.spanId, call.spanId, served.spanId],
    );
    assertEquals(attribute(stored, "db.system.name"), "sqlite");
    assertEquals(attribute(served, "aetherflow.worker"), "session");
  });

  await t.step("a gRPC call that the service refuses: told of, and no fault", async () => {
    const traceId = "6bf92f3577b34da6a3ce929d0e0e4736";
    const get = "aetherflow.session.v1.SessionService/GetSession";
    const { code } = await assertRejects(
      () =>
        grpc.unary(`/${get}`, encodeGet("01ARYZ6S410000000000000000"), {
          metadata: { traceparent: `00-${traceId}-${CLIENT_SPAN}-01` },
        }),
      GrpcError,
    );
    assertEquals(code, Code.NotFound);
    const isWhole = (all: readonly ExportedSpan[]) =>
      all.filter(({ name }) => name === get).length === 2 && hasAll("session store get")(all);
    const spans = await collector.trace(traceId, isWhole);
    const stored = oneOf(spans, "session store get", INTERNAL);
    const [request, served] = spans.filter(({ name }) => name === get)
      .sort((a) => a.parentSpanId === CLIENT_SPAN ? -1 : 1);
    assertEquals(
      [request, served, stored].map((span) => span!.parentSpanId),
      [CLIENT_SPAN, request!.spanId, served!.spanId],
    );
    for (const span of [request!, served!]) {
      assertEquals(String(attribute(span, "rpc.grpc.status_code")), String(Code.NotFound));
      assertEquals(attribute(span, "error.type"), undefined);
    }
  });

  await t.step("a gRPC call that runs out of time: an error", async () => {
    const traceId = "7bf92f3577b34da6a3ce929d0e0e4736";
    const watch = "etcdserverpb.Watch/Watch";
    const ended = Promise.withResolvers<number>();
    grpc.start(`/${watch}`, { onMessage() {}, onEnd: ({ code }) => ended.resolve(code) }, {
      // Not as the client's own time, which could run out first.
      metadata: { traceparent: `00-${traceId}-${CLIENT_SPAN}-01`, "grpc-timeout": "100m" },
    });
    assertEquals(await ended.promise, Code.DeadlineExceeded);
    const spans = await collector.trace(traceId, (all) => all.some(isFromClient));
    const request = spans.find(isFromClient);
    assertEquals(
      [request!.name, attribute(request!, "error.type"), request!.status?.code],
      [watch, "DeadlineExceeded", 2],
    );
  });

  await t.step("all of them are counted", async () => {
    const page = await (await fetch(`${product.url}/metrics`)).text();
    const count = /^aetherflow_gateway_traces_total\{.*sampled="true".*\} (\d+)$/m.exec(page)?.[1];
    assert(Number(count) >= 4, `${count} traces`);
  });

  assertEquals(await product.stop(), 0);
});

function isFromClient({ parentSpanId }: ExportedSpan): boolean {
  return parentSpanId === CLIENT_SPAN;
}

function encodeGet(sessionId: string): Uint8Array {
  return toBinary(GetSessionRequestSchema, create(GetSessionRequestSchema, { sessionId }));
}

function attribute(span: ExportedSpan, key: string): unknown {
  return Object.values(span.attributes?.find((entry) => entry.key === key)?.value ?? {})[0];
}
