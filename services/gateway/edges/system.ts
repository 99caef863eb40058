/** What the gateway answers itself: health, version, metrics, the API's description, and a list of all this. */
import { type Context, Hono } from "hono";
import type { MetricsCollector } from "../metrics_collector.ts";
import type { Readiness, ReadinessProbe } from "../readiness.ts";

/** What the endpoints are made of. */
export interface SystemEdgeDeps {
  readonly readiness: ReadinessProbe;
  readonly collector: MetricsCollector;
  /** Answer of /version. */
  readonly version: Readonly<Record<string, string>>;
  /** The OpenAPI document, as text. */
  readonly openapi: () => string;
  /** Where the gateway listens, by edge. */
  addresses(): Readonly<Record<string, string>>;
  /** The public keys that verify access tokens, as JSON; undefined while they are not known. */
  jwks(): string | undefined;
}

/** The endpoints. */
export interface SystemEdge {
  /** Paths that exist; each takes GET and HEAD. */
  readonly paths: ReadonlySet<string>;
  answer(request: Request): Response | Promise<Response>;
}

/** Content type of Prometheus' text format. */
const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** How long others may keep the public keys, in seconds. */
const JWKS_AGE_S = 300;

/** Creates the endpoints. */
export function createSystemEdge(deps: SystemEdgeDeps): SystemEdge {
  const app = new Hono();
  // Browsers get the console here.
  app.get("/", (c) => c.json(index(deps.version), 200, { vary: "Accept" }));
  app.get("/livez", (c) => c.text("ok\n"));
  app.get("/readyz", ready);
  app.get("/healthz", ready);
  app.get("/health", async (c) => {
    // The form that etcd's clients and probes know.
    const readiness = await deps.readiness.read();
    if (readiness.ready) return c.json({ health: "true", reason: "" });
    return c.json({ health: "false", reason: reasons(readiness) }, 503);
  });
  app.get("/version", (c) => c.json(deps.version));
  app.get(
    "/metrics",
    async (c) => c.body(await deps.collector.collect(), 200, { "content-type": METRICS_TYPE }),
  );
  app.get("/.well-known/jwks.json", (c) => {
    const jwks = deps.jwks();
    if (jwks === undefined) {
      c.header("retry-after", "1");
      return c.text("the keys are not known yet\n", 503);
    }
    // Not long: a key that was taken back shall be forgotten.
    c.header("cache-control", `public, max-age=${JWKS_AGE_S}`);
    return c.body(jwks === "" ? '{"keys":[]}' : jwks, 200, { "content-type": "application/jwk-set+json" });
  });
  app.get("/openapi.json", (c) => c.body(deps.openapi(), 200, { "content-type": "application/json" }));

  async function ready(c: Context): Promise<Response> {
    const readiness = without(await deps.readiness.read(), c.req.queries("exclude") ?? []);
    const status = readiness.ready ? 200 : 503;
    c.header("cache-control", "no-store");
    if (c.req.query("verbose") === undefined) {
      return c.text(readiness.ready ? "ok\n" : `${reasons(readiness)}\n`, status);
    }
    return c.json({ ...readiness, addresses: deps.addresses() }, status);
  }

  return {
    paths: new Set(app.routes.map((route) => route.path)),
    answer: (request) => app.fetch(request),
  };
}

function without(readiness: Readiness, excluded: readonly string[]): Readiness {
  const workers = readiness.workers.filter((worker) => !excluded.includes(worker.name));
  return { ready: workers.every((worker) => worker.state === "ready"), workers };
}

function reasons(readiness: Readiness): string {
  return readiness.workers.filter((worker) => worker.state !== "ready")
    .map((worker) => `${worker.name}: ${worker.state}${worker.reason === "" ? "" : ` (${worker.reason})`}`)
    .join("; ");
}

function index(version: Readonly<Record<string, string>>): unknown {
  return {
    ...version,
    endpoints: {
      "GET, PUT, DELETE /api/v1/kv/{key}": "one key; the body is the value",
      "GET /api/v1/kv?prefix=": "the keys under a prefix, in pages",
      "GET /api/v1/kv/{key}?watch=true, /api/v1/kv?prefix=&watch=true":
        "changes as server-sent events, or as frames of a WebSocket",
      "GET /api/v1/kv/{key}?history=true": "the changes of a key, newest first",
      "POST /api/v1/kv:batchGet, :batchPut, :txn": "many keys at one revision",
      "POST, GET, DELETE /api/v1/kv?key=": "keys and values that are text, JSON or form",
      "POST /v3/…": "etcd's JSON gateway, also on the gRPC port",
      "GET, POST /api/v1/documents; GET, PATCH, DELETE /api/v1/documents/{id}": "documents",
      "POST, GET /api/v1/documents/{id}/operations; /events, /locks, /conflicts, /versions":
        "edits of a document, and what there is beside them",
      "GET /api/v1/documents/{id}/sync, /api/v1/sync": "Yjs clients: y-websocket, Hocuspocus (WebSocket)",
      "GET /ws, /sse?channel=; POST /api/v1/channels/{channel}": "channels, live, with history and presence",
      "GET /livez, /readyz?verbose, /health": "health",
      "GET /metrics": "Prometheus figures of all workers",
      "POST /api/v1/auth/login, /refresh, /logout; GET /api/v1/auth/me": "signing in and out",
      "GET /.well-known/jwks.json": "the public keys that verify access tokens",
      "GET /openapi.json": "this API as an OpenAPI document",
      "GET /version": "what runs here",
    },
  };
}
