/** Answers in place of those of a service that fails, by route and as configured. Each says that it is one. */
import type { RpcEdge } from "../edges/rpc.ts";
import type { Exchange } from "../exchange.ts";
import type { CacheMetrics } from "../metrics.ts";
import { fromServiceError, type GatewayError, type ProblemCode } from "../problem.ts";
import type { Route } from "../routes.ts";
import type { FallbackConfig } from "./config.ts";

/** Header that names the strategy an answer comes from. */
export const FALLBACK_HEADER = "x-aetherflow-fallback";

/** Bytes of bodies that a gateway worker keeps for `cacheFirst`; the oldest answers make room. */
export const CACHE_BYTES_MAX = 16 * 1024 * 1024;
/** Answers that it keeps: small bodies cost more in what surrounds them. */
export const CACHE_ENTRIES_MAX = 10_000;
/** Largest body that is kept. */
export const CACHE_BODY_BYTES_MAX = 256 * 1024;

/** What is trouble of a service, and not of the request. */
const FAILURES: ReadonlySet<ProblemCode> = new Set<ProblemCode>([
  "unavailable",
  "breaker_open",
  "too_many_requests",
  "deadline_exceeded",
  "internal",
  "data_loss",
]);

/** What fallbacks are made with. */
export interface FallbacksDeps {
  readonly config: readonly FallbackConfig[];
  readonly routes: readonly Route[];
  readonly clock: { now(): number };
  onFallback(route: string, strategy: string): void;
  readonly cacheMetrics: CacheMetrics;
}

/** The edge with fallbacks around it; the edge itself when none are configured.
 *  @throws {Error} for a route that there is not, and for a cache of what is no read with one answer. */
export function withFallbacks(edge: RpcEdge, deps: FallbacksDeps): RpcEdge {
  const byRoute = new Map<Route, FallbackConfig>();
  for (const fallback of deps.config) byRoute.set(findRoute(fallback, deps.routes), fallback);
  if (byRoute.size === 0) return edge;
  const cache = new AnswerCache(deps.cacheMetrics);

  async function answer(request: Request, exchange: Exchange): Promise<Response> {
    const fallback = byRoute.get(exchange.match!.route);
    if (fallback === undefined) return await edge.answer(request, exchange);
    let response: Response;
    try {
      response = await edge.answer(request, exchange);
    } catch (error) {
      const failure = fromServiceError(error);
      const instead = FAILURES.has(failure.code) ? answerInstead(fallback, exchange, failure) : undefined;
      if (instead === undefined) throw error;
      deps.onFallback(fallback.route, fallback.strategy);
      return instead;
    }
    return fallback.strategy === "cacheFirst"
      ? await cache.keep(exchange, response, deps.clock.now())
      : response;
  }

  function answerInstead(
    fallback: FallbackConfig,
    exchange: Exchange,
    failure: GatewayError,
  ): Response | undefined {
    const headers = new Headers({ "x-request-id": exchange.requestId, [FALLBACK_HEADER]: fallback.strategy });
    switch (fallback.strategy) {
      case "cacheFirst":
        return cache.find(exchange, fallback.ttlMs, deps.clock.now(), headers);
      case "defaultResponse": {
        headers.set("warning", `199 aetherflow "${failure.code}: this is the configured answer"`);
        headers.set("x-content-type-options", "nosniff");
        if (NO_BODY.has(fallback.status)) return new Response(null, { status: fallback.status, headers });
        headers.set("content-type", fallback.contentType);
        return new Response(fallback.body, { status: fallback.status, headers });
      }
      case "silent":
        headers.set("warning", `199 aetherflow "${failure.code}: nothing was answered"`);
        return new Response(null, { status: 204, headers });
      case "failFast": // how such calls are made is in the policies of upstreams.ts
      case "retry":
        return undefined;
    }
  }

  return { answer, drain: () => edge.drain() };
}

/** Statuses whose answers have no body. */
const NO_BODY: ReadonlySet<number> = new Set([204, 205, 304]);

function findRoute({ route: name, strategy }: FallbackConfig, routes: readonly Route[]): Route {
  const found = routes.find(({ httpMethod, template }) => name === `${httpMethod} ${template}`);
  if (found === undefined) throw new Error(`config: gateway.fallbacks: there is no route ${name}`);
  if (strategy === "cacheFirst" && (!found.isRead || found.rpc.methodKind !== "unary")) {
    throw new Error(
      `config: gateway.fallbacks: ${name} is no read with one answer, so nothing can be kept of it`,
    );
  }
  return found;
}

interface Kept {
  readonly atMs: number;
  readonly body: Uint8Array<ArrayBuffer>;
  readonly headers: Headers;
}

/** The last good answers, by who asked for what. */
class AnswerCache {
  readonly #kept = new Map<string, Kept>(); // in the order of age
  readonly #metrics: CacheMetrics;
  #bytes = 0;

  constructor(metrics: CacheMetrics) {
    this.#metrics = metrics;
  }

  /** Keeps a good answer and gives it back. */
  async keep(exchange: Exchange, response: Response, nowMs: number): Promise<Response> {
    if (response.status !== 200) return response;
    const body = new Uint8Array(await response.arrayBuffer());
    const { headers } = response;
    if (body.length <= CACHE_BODY_BYTES_MAX) {
      const key = keyOf(exchange);
      this.#drop(key);
      this.#kept.set(key, { atMs: nowMs, body, headers: new Headers(headers) });
      this.#bytes += body.length;
      while (this.#bytes > CACHE_BYTES_MAX || this.#kept.size > CACHE_ENTRIES_MAX) {
        this.#drop(this.#kept.keys().next().value!);
        this.#metrics.evicted();
      }
    }
    return new Response(body, { headers });
  }

  /** The answer kept for this request, if it is not older than `ttlMs`. */
  find(exchange: Exchange, ttlMs: number, nowMs: number, headers: Headers): Response | undefined {
    const key = keyOf(exchange);
    const kept = this.#kept.get(key);
    if (kept === undefined || nowMs - kept.atMs > ttlMs) {
      this.#drop(key);
      this.#metrics.miss();
      return undefined;
    }
    this.#metrics.hit();
    for (const [name, value] of kept.headers) if (!headers.has(name)) headers.set(name, value);
    headers.set("warning", '110 aetherflow "Response is Stale"');
    headers.set("age", String(Math.floor((nowMs - kept.atMs) / 1000)));
    return new Response(kept.body, { headers });
  }

  #drop(key: string): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#bytes -= kept.body.length;
    this.#kept.delete(key);
  }
}

/** Never the same for two callers. */
function keyOf({ path, query, caller, authorization, token, headers }: Exchange): string {
  return JSON.stringify([caller?.encoded, path, query, authorization, token, headers.get("accept")]);
}
