/** The HTTP edge: every request passes the same stages, in the order in which `handle` has them. */
import { type Exchange, readExchange } from "../exchange.ts";
import { checkAnnouncedLength } from "../limits/body.ts";
import type { Slots } from "../limits/slots.ts";
import type { GatewayMetrics, RouteMetrics } from "../metrics.ts";
import { errorResponse, fromServiceError, GatewayError } from "../problem.ts";
import type { RouteTable } from "../routes.ts";
import type { Caller, Remote, Stages } from "../stages.ts";
import type { ConnectEdge } from "./connect.ts";
import { CONSOLE_TEMPLATE, type ConsoleEdge } from "./console.ts";
import type { RpcEdge } from "./rpc.ts";
import type { SocketEndpoint } from "./socket_endpoint.ts";
import type { SystemEdge } from "./system.ts";
import { wantsWebSocket } from "./websocket.ts";

/** Log of the gateway. */
export interface EdgeLog {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** What the edge is made of. */
export interface HttpEdgeDeps {
  readonly routes: RouteTable;
  readonly rpc: RpcEdge;
  readonly connect: ConnectEdge;
  readonly system: SystemEdge;
  readonly console: ConsoleEdge;
  readonly sockets: readonly SocketEndpoint[];
  readonly metrics: GatewayMetrics;
  readonly stages: Stages;
  readonly requestSlots: Slots;
  readonly limits: { readonly bodyBytes: number; readonly headerBytes: number; readonly urlBytes: number };
  readonly requestTimeoutMs: number;
  readonly clock: { now(): number };
  newRequestId(): string;
  readonly log: EdgeLog;
}

/** Label of requests that are nobody's; their paths are not a label, since clients choose them. */
const UNMATCHED = "unmatched";

/** The handler that the HTTP server calls. Never rejects. */
export type HttpHandler = (request: Request, remote: Remote) => Promise<Response>;

/** Creates the handler. */
export function createHttpEdge(deps: HttpEdgeDeps): HttpHandler {
  const { stages } = deps;

  return async function handle(request, remote) {
    // 1. request id (and all else that is read off the request)
    const exchange = readExchange(request, deps.clock.now(), deps.requestTimeoutMs, deps.newRequestId);
    const socket = deps.sockets.find((endpoint) => endpoint.matches(exchange.path));
    if (socket === undefined) {
      exchange.match = deps.routes.match(exchange.method, exchange.path, exchange.query) ??
        // The handshake of a WebSocket is a GET, whatever the stream's own method is.
        (wantsWebSocket(request) ? deps.routes.match("POST", exchange.path, exchange.query) : undefined);
    }
    const own: Own = socket ?? (exchange.match === undefined ? ownerOf(exchange) : undefined);
    // 2. access log and 3. metrics, around what follows
    const metrics = deps.metrics.route(labelOf(exchange, own), exchange.method);
    metrics.begin();
    exchange.trace = stages.tracing.begin(exchange); // 4. trace
    exchange.trace?.routed(exchange);
    let response: Response;
    let failure: unknown;
    try {
      exchange.client = stages.clients.of(remote, exchange.headers); // 5. client address
      response = stages.cors.preflight(exchange) ?? // 6. CORS
        await pass(request, exchange, own);
    } catch (error) {
      failure = error;
      response = answerError(error, exchange);
    }
    stages.cors.apply(exchange, response.headers);
    stages.rateLimits.describe(exchange, response.headers);
    for (const [name, value] of exchange.answerHeaders ?? []) response.headers.append(name, value);
    exchange.trace?.end(response.status, failure);
    finish(exchange, response, metrics);
    return response;
  };

  function ownerOf(exchange: Exchange): Own {
    if (deps.console.takes(exchange)) return "console";
    return deps.system.paths.has(exchange.path) ? "system" : undefined;
  }

  async function pass(request: Request, exchange: Exchange, own: Own): Promise<Response> {
    refuseOversized(exchange); // 7. limits
    stages.rateLimits.admit(exchange); // 8. rate limit
    // Whoever is to sign in must get the page first, with a cookie that has run out too.
    if (own === "console") return await deps.console.answer(exchange);
    const caller = stages.authentication.authenticate(exchange); // 9. authentication, or protected mode
    if (caller instanceof Promise) {
      const expected = mayRunAhead(exchange) ? stages.authentication.expected(exchange) : undefined;
      if (expected !== undefined) return await runAhead(request, exchange, expected, caller);
      exchange.caller = await caller;
    } else exchange.caller = caller;
    return await passCaller(request, exchange, own);
  }

  /** Asks the service while it is being asked who calls, which saves a read one of two times across. What it answers goes out only if
   *  the caller is who was expected; else it is dropped, and the service is asked again in the right name. */
  async function runAhead(
    request: Request,
    exchange: Exchange,
    expected: Caller,
    asked: Promise<Caller>,
  ): Promise<Response> {
    exchange.caller = expected;
    const answer = passCaller(request, exchange, undefined);
    answer.catch(ignore); // told below, if it is the caller's to hear
    const caller = exchange.caller = await asked;
    return await (caller.encoded === expected.encoded ? answer : passCaller(request, exchange, undefined));
  }

  async function passCaller(request: Request, exchange: Exchange, own: Own): Promise<Response> {
    stages.rateLimits.admitCaller(exchange);
    stages.authorization.authorize(exchange); // 10. authorisation
    if (own === "system") return await answerSystem(request, exchange);
    if (own !== undefined && own !== "console") return await answerSocket(own, request, exchange);
    if (exchange.match === undefined) return answerUnmatched(exchange);
    if (exchange.idempotencyKey === undefined) return await answerRpc(request, exchange);
    // 11. idempotency, 12. route
    return await stages.idempotency.run(request, exchange, (whole) => answerRpc(whole, exchange));
  }

  function refuseOversized(exchange: Exchange): void {
    const { limits } = deps;
    if (exchange.urlLength > limits.urlBytes) {
      throw new GatewayError(
        "url_too_long",
        `the URL is longer than ${limits.urlBytes} bytes (gateway.limits.urlBytes)`,
      );
    }
    if (exchange.headerBytes > limits.headerBytes) {
      throw new GatewayError(
        "headers_too_large",
        `the headers are larger than ${limits.headerBytes} bytes (gateway.limits.headerBytes)`,
      );
    }
    checkAnnouncedLength(exchange.contentLength, limits.bodyBytes);
  }

  function answerRpc(request: Request, exchange: Exchange): Promise<Response> {
    const { protocol } = exchange.match!.route;
    return inSlot(() => (protocol === "rpc" ? deps.connect : deps.rpc).answer(request, exchange));
  }

  async function inSlot(answer: () => Response | Promise<Response>): Promise<Response> {
    const slots = deps.requestSlots;
    if (!slots.tryEnter()) {
      throw new GatewayError(
        "too_many_requests",
        `${slots.max} requests are under way (gateway.limits.concurrentRequests)`,
      );
    }
    try {
      return await answer();
    } finally {
      slots.leave();
    }
  }

  async function answerSocket(
    endpoint: SocketEndpoint,
    request: Request,
    exchange: Exchange,
  ): Promise<Response> {
    const allow = endpoint.methods.join(", ");
    if (exchange.method === "OPTIONS") return optionsResponse(`${allow}, OPTIONS`, exchange);
    if (!endpoint.methods.includes(exchange.method)) throw methodNotAllowed(exchange, allow);
    return await inSlot(() => endpoint.answer(request, exchange));
  }

  // Health must be told even when all request slots are taken, so these take none.
  async function answerSystem(request: Request, exchange: Exchange): Promise<Response> {
    if (exchange.method === "OPTIONS") return optionsResponse("GET, HEAD, OPTIONS", exchange);
    if (exchange.method !== "GET" && exchange.method !== "HEAD") {
      throw methodNotAllowed(exchange, "GET, HEAD");
    }
    const response = await deps.system.answer(request);
    response.headers.set("x-request-id", exchange.requestId);
    return response;
  }

  function answerUnmatched(exchange: Exchange): Response {
    const allow = deps.routes.methodsOf(exchange.path).join(", ");
    if (allow === "") {
      throw new GatewayError("route_not_found", "nothing is served at this path; / lists what is");
    }
    if (exchange.method === "OPTIONS") return optionsResponse(`${allow}, OPTIONS`, exchange);
    throw methodNotAllowed(exchange, allow);
  }

  function answerError(error: unknown, exchange: Exchange): Response {
    const mapped = fromServiceError(error);
    if (mapped.isFault) {
      const { requestId, trace, path } = exchange;
      deps.log.error("request failed", { requestId, traceId: trace?.traceId, path, error: mapped });
    } else if (mapped.cause === undefined) deps.metrics.refused(mapped.code);
    const route = exchange.match?.route;
    return route?.protocol === "rpc"
      ? deps.connect.refuse(exchange, mapped)
      : errorResponse(mapped, exchange.requestId, route?.dialect ?? "aetherflow");
  }

  function finish(exchange: Exchange, response: Response, metrics: RouteMetrics): void {
    const status = exchange.errorStatus ?? response.status;
    const durationMs = deps.clock.now() - exchange.startedAtMs;
    metrics.end(status, durationMs, exchange.requestBytes, exchange.responseBytes);
    const fields = {
      requestId: exchange.requestId,
      traceId: exchange.trace?.traceId,
      method: exchange.method,
      path: exchange.path,
      status,
      durationMs,
    };
    // Not for 4xx: a missing key is an answer like any other, and clients could fill the log.
    if (status >= 500) deps.log.info("request", fields);
    else deps.log.debug("request", fields);
  }
}

/** Reads by one call, which change nothing and hold nothing open if they are dropped. */
function mayRunAhead({ match, method }: Exchange): boolean {
  const route = match?.route;
  return route !== undefined && route.isRead && route.protocol === "rest" && method === "GET" &&
    route.rpc.methodKind === "unary" && !route.mayWait;
}

function ignore(): void {}

/** Whose a path is that is no route's. */
type Own = "system" | "console" | SocketEndpoint | undefined;

function labelOf(exchange: Exchange, own: Own): string {
  if (exchange.match !== undefined) return exchange.match.route.template;
  if (own === undefined) return UNMATCHED;
  if (own === "console") return exchange.path === "/" ? "/" : CONSOLE_TEMPLATE;
  return own === "system" ? exchange.path : own.template;
}

function methodNotAllowed(exchange: Exchange, allow: string): GatewayError {
  return new GatewayError(
    "method_not_allowed",
    `${exchange.method.slice(0, 32)} is not possible here, only ${allow}`,
    {
      allow,
    },
  );
}

function optionsResponse(allow: string, exchange: Exchange): Response {
  return new Response(null, { status: 204, headers: { allow, "x-request-id": exchange.requestId } });
}
