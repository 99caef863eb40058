/** One request is one connected trace: from the gateway over Quantum into the service and its store, exported as OTLP. */
import { assert, assertEquals } from "@std/assert";
import { startProduct } from "../support/product.ts";

interface ExportedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
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

Deno.test("a request is one connected trace from the gateway to the store", async () => {
  await using collector = new Collector();
  await using product = await startProduct({
    keeper: true,
    args: [
      "--set",
      `telemetry.otlp.endpoint=${collector.url}`,
      "--set",
      "telemetry.otlp.protocol=http/json",
      "--set",
      "log.level=error",
    ],
  });
  const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
  const clientSpan = "00f067aa0ba902b7";
  const answer = await fetch(`${product.url}/api/v1/kv/traced`, {
    method: "PUT",
    body: "v",
    headers: { traceparent: `00-${traceId}-${clientSpan}-01` },
  });
  assertEquals(answer.status, 200);
  await answer.body?.cancel();

  const put = "aetherflow.kv.v1.KeyValueService/Put";
  const spans = await collector.trace(
    traceId,
    (all) =>
      all.some(({ name }) => name === "kv store append") && all.some(({ name }) => name.startsWith("PUT ")),
  );
  const one = (name: string, kind: number) => {
    const found = spans.filter((span) => span.name === name && span.kind === kind);
    assertEquals(
      found.length,
      1,
      `${name} of kind ${kind} among ${spans.map(({ name }) => name).join(", ")}`,
    );
    return found[0]!;
  };
  const [INTERNAL, SERVER, CLIENT] = [1, 2, 3];
  const request = one("PUT /api/v1/kv/{key=**}", SERVER);
  const call = one(put, CLIENT);
  const served = one(put, SERVER);
  const stored = one("kv store append", INTERNAL);
  assertEquals(
    [request, call, served, stored].map(({ parentSpanId }) => parentSpanId),
    [clientSpan, request.spanId, call.spanId, served.spanId],
  );
  assertEquals(attribute(request, "http.route"), "/api/v1/kv/{key=**}");
  assertEquals(attribute(call, "peer.service"), "kv");
  assertEquals(attribute(served, "aetherflow.worker"), "kv");
  assertEquals(await product.stop(), 0);
});

function attribute(span: ExportedSpan, key: string): unknown {
  return Object.values(span.attributes?.find((entry) => entry.key === key)?.value ?? {})[0];
}
