/** The stages that a request passes before its route, as the edges see them. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Exchange } from "./exchange.ts";

/** Who sent a request, as far as the connection and trusted proxies tell. */
export interface Client {
  /** Text of an IP address, without brackets or a zone. */
  readonly ip: string;
  /** 0 when a proxy told the address without a port. */
  readonly port: number;
  /** Whether the client speaks TLS, with us or with a trusted proxy. */
  readonly isSecure: boolean;
}

/** The other end of a connection. */
export interface Remote {
  readonly hostname: string;
  readonly port: number;
  readonly isSecure: boolean;
}

/** Tells who sent a request. */
export interface ClientAddresses {
  /** Believes forwarding headers only from the proxies that are configured. */
  of(remote: Remote, headers: Headers): Client;
}

/** Who calls, and how that was shown. */
export interface Caller {
  readonly principal: Principal;
  /** The principal as metadata of calls to services. */
  readonly encoded: string;
  /** `none`: nothing was shown. */
  readonly credential: "none" | "access_token" | "cookie" | "session_token" | "api_key" | "etcd_token";
}

/** Finds out who calls. */
export interface Authentication {
  /** @throws {GatewayError} `unauthenticated` for a credential that is none (any more); `unavailable` when that cannot be
   *  found out; `csrf_refused` for a cookie that another site's page may have sent. */
  authenticate(exchange: Exchange): Caller | Promise<Caller>;
  /** Whom the request's credential stood for when it was last asked about: a guess at what `authenticate` will say. */
  expected(exchange: Exchange): Caller | undefined;
}

/** Says whether a caller may use a route at all; what of a service's things, the service judges. */
export interface Authorization {
  /** @throws {GatewayError} `unauthenticated` when it takes somebody; `permission_denied` when it takes somebody else. */
  authorize(exchange: Exchange): void;
}

/** Bounds how often requests come. */
export interface RateLimits {
  /** Before it is known who calls: global, by address, by route.
   *  @throws {GatewayError} `rate_limited`, with Retry-After. */
  admit(exchange: Exchange): void;
  /** By caller. @throws {GatewayError} `rate_limited`. */
  admitCaller(exchange: Exchange): void;
  /** Adds RateLimit and RateLimit-Policy, of the limit that is nearest to its end. */
  describe(exchange: Exchange, headers: Headers): void;
}

/** Cross-origin requests of browsers. */
export interface Cors {
  /** The answer to a preflight; undefined when the request is none. */
  preflight(exchange: Exchange): Response | undefined;
  /** Adds what lets an allowed origin read the answer. */
  apply(exchange: Exchange, headers: Headers): void;
}

/** Repeats answers to repeated requests (`Idempotency-Key`). */
export interface Idempotency {
  /** Answers with `answer()`, or with what it answered before. `request` may be read by this stage, so `answer` is given
   *  the one to read. */
  run(
    request: Request,
    exchange: Exchange,
    answer: (request: Request) => Promise<Response>,
  ): Promise<Response>;
}

/** The trace that a request belongs to: a span over it where spans are recorded, else what the client sent. */
export interface RequestTrace {
  /** `traceparent` of calls that belong to it. */
  readonly traceparent: string;
  /** For logs. */
  readonly traceId: string | undefined;
  /** Names the span by its route. */
  routed(exchange: Exchange): void;
  /** A span over a call to a service; undefined where nothing is recorded. */
  call(service: string, method: string, peer: string): CallTrace | undefined;
  /** Of an HTTP request, by its status. */
  end(status: number, error: unknown): void;
  /** Of a gRPC call; `error` is undefined when it succeeded. */
  endCall(error: unknown): void;
}

/** A span over one call to a service, all its tries. */
export interface CallTrace {
  /** `traceparent` that the service is called with. */
  readonly traceparent: string;
  retried(attempt: number): void;
  /** `error` is undefined for a call that succeeded. */
  end(error: unknown): void;
}

/** Makes spans, or passes on what clients sent. */
export interface Tracing {
  /** Of an HTTP request. Undefined when it belongs to no trace and nothing is recorded. */
  begin(exchange: Exchange): RequestTrace | undefined;
  /** Of a gRPC call of `path`. */
  beginCall(path: string, traceparent: string | undefined): RequestTrace | undefined;
}

/** All stages. */
export interface Stages {
  readonly tracing: Tracing;
  readonly clients: ClientAddresses;
  readonly cors: Cors;
  readonly rateLimits: RateLimits;
  readonly authentication: Authentication;
  readonly authorization: Authorization;
  readonly idempotency: Idempotency;
}
