/** The gateway: HTTP in front of the services. Wires its parts; what touches the platform is passed in. */
import type { Transport } from "@connectrpc/connect";
import type { Registry } from "prom-client";
import { createAuthorization } from "./auth/access.ts";
import { createAuthentication } from "./auth/authentication.ts";
import { createCallGate } from "./auth/call_gate.ts";
import { type ConnectionGate, createConnectionGate } from "./auth/connection_gate.ts";
import { openEdges } from "./auth/exposure.ts";
import { following } from "./auth/followers.ts";
import { withSignIn } from "./auth/sign_in.ts";
import { AuthService, UserService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { AdminService } from "$proto/aetherflow/gateway/v1/admin_pb.ts";
import { ChannelService, HubLinkService } from "$proto/aetherflow/gateway/v1/hub_pb.ts";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { StateSyncService } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { Auth, Cluster, KV, Lease, Maintenance, Watch } from "$proto/etcdserverpb/rpc_pb.ts";
import { Election } from "$proto/v3electionpb/v3election_pb.ts";
import { Health } from "$proto/grpc/health/v1/health_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import { createAdminService } from "./admin.ts";
import { createCalls } from "./calls.ts";
import type { GatewayConfig, TlsTexts } from "./config.ts";
import type { Exchange } from "./exchange.ts";
import { fromServiceError, type GatewayError } from "./problem.ts";
import { createConnectEdge } from "./edges/connect.ts";
import { createConsoleEdge } from "./edges/console.ts";
import { DEPARTURE_AFTER_MS, Departures } from "./edges/departures.ts";
import { createGrpcEdge } from "./edges/grpc.ts";
import type { AcceptSocket, TcpListener } from "./edges/grpc/listener.ts";
import { createHealth } from "./edges/grpc/health.ts";
import { createGrpcMethods } from "./edges/grpc/method.ts";
import { createGrpcMetrics } from "./edges/grpc/metrics.ts";
import { createPlainHttp } from "./edges/grpc/plain_http.ts";
import { createReflection } from "./edges/grpc/reflection.ts";
import { RoutedCall, routedMethod } from "./edges/grpc/routed_call.ts";
import { createHttpEdge, type EdgeLog, type HttpHandler } from "./edges/http.ts";
import { createHubEventEndpoints, createHubSocketEndpoint } from "./edges/hub.ts";
import type { HttpListener } from "./edges/listener.ts";
import type { RespListener } from "./edges/resp.ts";
import { createRpcEdge } from "./edges/rpc.ts";
import { createSyncEdge } from "./edges/sync.ts";
import { createSystemEdge } from "./edges/system.ts";
import { createChannelService } from "./hub/channel_service.ts";
import { Hub } from "./hub/hub.ts";
import { LinkServer } from "./hub/link_server.ts";
import { createHubMetrics } from "./hub/metrics.ts";
import { HubRelay } from "./hub/relay.ts";
import { createHubServices } from "./hub/services.ts";
import { createClientAddresses } from "./inbound/client_address.ts";
import { createCors } from "./inbound/cors.ts";
import { createIdempotency } from "./inbound/idempotency.ts";
import { ProtectedMode } from "./limits/protected_mode.ts";
import { createRateLimits } from "./limits/rate_limits.ts";
import { createLimitSync, type LimitRedis } from "./limits/shared_limits.ts";
import { Slots } from "./limits/slots.ts";
import { createGatewayMetrics } from "./metrics.ts";
import { createMetricsCollector } from "./metrics_collector.ts";
import { describeApi } from "./openapi.ts";
import { createReadinessProbe } from "./readiness.ts";
import { withFallbacks } from "./resilience/fallbacks.ts";
import { createUpstreams } from "./resilience/upstreams.ts";
import { isTracing } from "../runtime/tracing.ts";
import { logFailedCalls } from "../runtime/call_failed.ts";
import { createLocalServices } from "../runtime/local_services.ts";
import { createSeededRandom, randomFraction } from "../runtime/random.ts";
import type { Peer, Peers, RpcServices } from "../runtime/worker_context.ts";
import { buildRouteTable, type Exposure } from "./routes.ts";
import type { Stages } from "./stages.ts";
import { createSyncMetrics } from "./sync/metrics.ts";
import { createTracing } from "./tracing.ts";
import { pause, TimeoutQueue, type Timer } from "./timer.ts";

/** Where the services are that this worker has itself. */
const SELF = "self";
const SELF_INSTANCES: readonly Peer[] = [
  { name: SELF, service: SELF, address: { hostname: "", port: 0 }, state: "up", incarnation: 1 },
];

/** How long sockets may take to close when the gateway goes, in milliseconds; then they are cut off. */
const FAREWELL_MS = 1_000;

/** What the gateway offers. The RPCs, their paths and their bodies are told by proto/. */
export const EXPOSED: readonly Exposure[] = [
  { service: AdminService, peer: SELF, dialect: "aetherflow" },
  { service: ChannelService, peer: SELF, dialect: "aetherflow" },
  { service: AuthService, peer: "session", dialect: "aetherflow" },
  { service: UserService, peer: "session", dialect: "aetherflow" },
  { service: SessionService, peer: "session", dialect: "aetherflow", grant: "sessions" },
  // Who may do what with a document is the document's own to say.
  { service: StateSyncService, peer: "statesync", dialect: "aetherflow" },
  { service: KeyValueService, peer: "kv", dialect: "aetherflow", grant: "kv" },
  { service: KV, peer: "kv", dialect: "etcd", grant: "kv" },
  { service: Watch, peer: "kv", dialect: "etcd", grant: "kv" },
  { service: Lease, peer: "kv", dialect: "etcd", grant: "kv" },
  { service: Cluster, peer: "kv", dialect: "etcd", grant: "kv" },
  { service: Maintenance, peer: "kv", dialect: "etcd", grant: "kv" },
  { service: Auth, peer: "kv", dialect: "etcd", grant: "kv" },
  { service: Lock, peer: "kv", dialect: "etcd", grant: "kv", mayWait: true },
  { service: Election, peer: "kv", dialect: "etcd", grant: "kv", mayWait: true },
];

/** What the gateway is made of. */
export interface GatewayDeps {
  readonly config: GatewayConfig;
  /** Name of this worker: `gateway`, or `gateway-2`. */
  readonly name: string;
  readonly peers: Pick<Peers, "names" | "transport" | "instances" | "channelStats">;
  readonly clock: { now(): number; wallMs(): number };
  readonly timer: Timer;
  /** Where it serves other gateway workers. */
  readonly rpc: RpcServices;
  /** Fetches the public keys of issuers. */
  readonly fetch: typeof fetch;
  newRequestId(): string;
  /** 32 random bits, which clients do not know. */
  readonly seed: number;
  readonly log: EdgeLog;
  readonly metrics: Registry;
  residentMemoryBytes(): number;
  /** Answer of /version; `version` is in the OpenAPI document too. */
  readonly version: Readonly<Record<string, string>> & { readonly version: string };
  /** Where gateways share their rate limits; undefined: each has its own. The gateway closes it. */
  readonly limitRedis?: LimitRedis | undefined;
  /** Starts the HTTP server. */
  listen(handler: HttpHandler): HttpListener;
  /** Starts the TCP server under gRPC. */
  listenGrpc(accept: AcceptSocket, onTlsError: () => void): TcpListener;
  /** Starts the Redis listener; `kv` gives the transport to the kv worker. */
  listenResp(kv: () => Transport, gate: ConnectionGate): RespListener;
}

/** A running gateway. */
export interface GatewayModule {
  /** Settles when every edge accepts connections; rejects when one cannot. */
  readonly listening: Promise<void>;
  /** Where each edge listens; complete once `listening` has settled. */
  readonly addresses: { readonly http: string; readonly grpc: string; readonly resp: string };
  /** Takes other certificates for connections that come from now on; an edge that none is given for keeps its own.
   *  @throws {Error} if they are none, or their edge has no TLS; then all stays as it was. */
  reloadTls(tls: { readonly http?: TlsTexts | undefined; readonly grpc?: TlsTexts | undefined }): void;
  health(): { ok: boolean; detail: string };
  /** Takes what may change while it serves: limits of requests, names in Host and Origin, trusted proxies, rate limits. All
   *  of it or, if it throws, nothing. */
  reconfigure(next: GatewayConfig): void;
  /** /readyz answers 503 for `drain.readyGraceMs`; then streams end, no more is accepted, and what is under way
   *  finishes. Resolves at the latest after `deadlineMs`; what has not finished then ends with the worker. Idempotent. */
  drain(deadlineMs: number): Promise<void>;
}

/** Creates a gateway and starts to listen. */
export function createGatewayModule(deps: GatewayDeps): GatewayModule {
  const { config, clock, timer } = deps;
  let isDraining = false;
  let drained: Promise<void> | undefined;
  const transport = (peer: string) => deps.peers.transport(peer);

  const routes = buildRouteTable(EXPOSED);
  const metrics = createGatewayMetrics(deps.metrics, deps.residentMemoryBytes);
  // What a new configuration changes while requests are under way: each of them reads these when it gets there.
  const limits = { ...config.limits };
  let cookieOrigins = new Set(config.cors.credentials ? config.cors.origins : []);
  let pageOrigins = new Set(config.cors.origins);
  const isAllowedOrigin = (origin: string) => cookieOrigins.has(origin);
  const bodyTimeouts = new TimeoutQueue(config.requestTimeoutMs, clock, timer);
  const departures = new Departures(new TimeoutQueue(DEPARTURE_AFTER_MS, clock, timer));
  const answering = {
    timer,
    clock,
    metrics,
    bodyLimits: { bytesMax: config.limits.bodyBytes, timeouts: bodyTimeouts },
    departures,
    streamSlots: new Slots(config.limits.concurrentStreams),
    onFault(error: GatewayError, exchange: Exchange) {
      const { requestId, trace, path } = exchange;
      deps.log.error("stream failed", { requestId, traceId: trace?.traceId, path, error });
    },
  };
  const random = createSeededRandom(deps.seed);
  const own = createLocalServices(logFailedCalls(deps.log));
  const upstreams = createUpstreams({
    config: config.upstreams,
    fallbacks: config.fallbacks,
    services: new Set(EXPOSED.map(({ peer }) => peer)),
    self: SELF,
    peers: {
      instances: (service) => service === SELF ? SELF_INSTANCES : deps.peers.instances(service),
      transport: (peer) => peer === SELF ? own.transport : deps.peers.transport(peer),
    },
    clock,
    timer,
    chance: () => randomFraction(random),
    waitMs: config.readRetryMs,
    registry: deps.metrics,
    log: deps.log,
  });
  const routedMethods = new Map(
    routes.routes.map(({ rpc, peer, mayWait }) => [rpc, routedMethod(upstreams, rpc, peer, mayWait)]),
  );
  const follow = (exchange: Exchange, revoke: (error: GatewayError) => void) =>
    following(authentication, exchange.caller, revoke);
  const connect = createConnectEdge({
    ...answering,
    follow,
    calls: { unary: (route, exchange, message) => calls.unary(route, exchange, message) },
    start: ({ rpc }, handler, options) => new RoutedCall(routedMethods.get(rpc)!, handler, options),
  });
  const calls = withSignIn(
    createCalls({
      upstreams,
      clock,
      timer,
      readRetryMs: config.readRetryMs,
      singleFlight: config.upstreams.singleFlight,
      onRetry: metrics.retried,
    }),
    { refreshPolicy: () => authentication.refreshPolicy(), isAllowedOrigin },
  );
  const rpc = createRpcEdge({
    ...answering,
    follow,
    calls,
    heartbeatMs: config.heartbeatMs,
  });
  const readiness = createReadinessProbe({
    transport,
    timeoutMs: config.statsTimeoutMs,
    isDraining: () => isDraining,
    self: deps.name,
  });
  // Made when it is first asked for: that takes longer than the rest of the start.
  let openapi: string | undefined;
  const system = createSystemEdge({
    readiness,
    collector: createMetricsCollector({
      registry: deps.metrics,
      self: deps.name,
      peers: () => deps.peers.names(),
      transport,
      timeoutMs: config.statsTimeoutMs,
    }),
    version: deps.version,
    openapi: () => openapi ??= JSON.stringify(describeApi(routes.routes, deps.version.version)),
    addresses: () => ({ http: listener.url, grpc: grpc.address, resp: resp.address }),
    jwks: () => authentication.jwks,
  });
  const protectedMode = new ProtectedMode(config.allowedHosts, config.cors.origins);
  const { openPaths, closedPaths } = splitPaths(system.paths, config.auth.openPaths);
  const authentication = createAuthentication({
    transport: () => upstreams.transport("session"),
    config: config.auth,
    protectedMode,
    openPaths,
    isExposed: openEdges(config).length > 0,
    isAllowedOrigin,
    clock,
    timer,
    fetch: deps.fetch,
    log: deps.log,
    tokenMetrics: metrics.cache("access_token"),
  });
  let rateLimits = createRateLimits({ config: config.rateLimit, clock, seed: deps.seed });
  const limitSync = deps.limitRedis && createLimitSync({
    tables: () => rateLimits.shared,
    redis: deps.limitRedis,
    keyPrefix: config.rateLimit.redis.keyPrefix,
    intervalMs: config.rateLimit.redis.syncIntervalMs,
    timer,
    clock,
    log: deps.log,
  });
  const stages: { -readonly [Stage in keyof Stages]: Stages[Stage] } = {
    tracing: createTracing(isTracing(), metrics.traced),
    clients: createClientAddresses(config.trustedProxies),
    cors: createCors(config.cors),
    rateLimits,
    authentication,
    authorization: createAuthorization(closedPaths),
    idempotency: createIdempotency({
      config: config.idempotency,
      kv: () => transport("kv"),
      bodyLimits: answering.bodyLimits,
      requestTimeoutMs: config.requestTimeoutMs,
      log: deps.log,
    }),
  };
  const linkServer = new LinkServer();
  const pauseUntil = (delayMs: number, signal: AbortSignal) => pause(timer, delayMs, signal);
  const hubRelay = new HubRelay({
    self: deps.name,
    workers: gatewaysOf(deps),
    transport,
    server: linkServer,
    pause: pauseUntil,
    log: deps.log.debug,
  });
  const hub = new Hub({
    config: config.hub,
    clock,
    timer,
    chance: () => randomFraction(random),
    newId: deps.newRequestId,
    formatTime: (ms) => new Date(ms).toISOString(),
    authenticate: (token) =>
      authentication.authenticateCall({
        authorization: `Bearer ${token}`,
        apiKey: undefined,
        token: undefined,
        isForStore: false,
      }),
    confirm: (caller) => authentication.confirm(caller),
    follow: (caller, revoke) => following(authentication, caller, revoke),
    services: createHubServices({ transport: (service) => upstreams.transport(service), timer }),
    relay: hubRelay,
    metrics: createHubMetrics(deps.metrics, metrics.socketFrame),
    pause: pauseUntil,
    toError(error) {
      const mapped = fromServiceError(error);
      if (mapped.isFault) deps.log.error("hub failed", { error: mapped });
      return mapped;
    },
  });
  own.rpc.service(ChannelService, createChannelService(hub));
  deps.rpc.service(HubLinkService, linkServer.handlers(hub));
  const hubEdge = {
    hub,
    metrics,
    timer,
    pingIntervalMs: config.hub.pingIntervalMs,
    heartbeatMs: config.heartbeatMs,
    isAllowedOrigin: (origin: string) => pageOrigins.has(origin) || pageOrigins.has("*"),
  };
  const sync = createSyncEdge({
    config: config.sync,
    peers: deps.peers,
    authenticator: authentication,
    timer,
    clock,
    metrics: createSyncMetrics(deps.metrics),
    log: deps.log,
  });
  const requestSlots = new Slots(limits.concurrentRequests);
  const httpHandler = createHttpEdge({
    routes,
    rpc: withFallbacks(rpc, {
      config: config.fallbacks,
      routes: routes.routes,
      clock,
      onFallback: upstreams.metrics.fallback,
      cacheMetrics: metrics.cache("fallback"),
    }),
    connect,
    system,
    console: createConsoleEdge(),
    sockets: [createHubSocketEndpoint(hubEdge), ...createHubEventEndpoints(hubEdge), ...sync.endpoints],
    metrics,
    stages,
    requestSlots,
    limits,
    requestTimeoutMs: config.requestTimeoutMs,
    clock,
    newRequestId: deps.newRequestId,
    log: deps.log,
  });
  hubRelay.start(hub);
  const listener = deps.listen(httpHandler);
  const isSecure = config.grpc.tls.certFile !== "";
  const grpcMetrics = createGrpcMetrics(deps.metrics);
  const health = createHealth({
    exposures: EXPOSED.map((exposure) =>
      exposure.peer === SELF ? { ...exposure, peer: deps.name } : exposure
    ),
    readiness,
    timer,
  });
  const served = [...EXPOSED.map(({ service }) => service), Health];
  const local = [...health, ...createReflection(served)];
  const grpc = createGrpcEdge({
    methods: createGrpcMethods(EXPOSED, upstreams, local, grpcMetrics),
    http: createPlainHttp({
      handler: httpHandler,
      requestTimeoutMs: config.requestTimeoutMs,
      maxHeaderBytes: config.limits.headerBytes,
      isSecure,
    }),
    metrics: grpcMetrics,
    limits: config.grpc,
    isSecure,
    get rateLimits() {
      return rateLimits.calls;
    },
    gate: createCallGate(authentication),
    tracing: stages.tracing,
    // Clients with a certificate of our authority may call us by any name.
    protectedMode: config.grpc.tls.clientCaFile === "" ? protectedMode : undefined,
    clock,
    timer,
    newRequestId: deps.newRequestId,
    log: deps.log,
    listen: deps.listenGrpc,
  });

  const resp = deps.listenResp(() => transport("kv"), createConnectionGate(authentication));
  metrics.watchResp(() => resp.connections);
  own.rpc.service(
    AdminService,
    createAdminService({
      name: deps.name,
      upstreams,
      peers: deps.peers,
      clock,
      registry: deps.metrics,
      sessions: upstreams.transport("session"),
      respConnections: () => resp.connections,
    }),
  );

  let current = config;
  function reconfigure(next: GatewayConfig): void {
    const isNew = (key: keyof GatewayConfig) => JSON.stringify(next[key]) !== JSON.stringify(current[key]);
    // Everything that may fail is made before anything is changed.
    const clients = createClientAddresses(next.trustedProxies);
    const cors = createCors(next.cors);
    // Counted afresh only if they changed.
    if (isNew("rateLimit")) {
      rateLimits = createRateLimits({ config: next.rateLimit, clock, seed: deps.seed });
      stages.rateLimits = rateLimits;
    }
    stages.clients = clients;
    stages.cors = cors;
    cookieOrigins = new Set(next.cors.credentials ? next.cors.origins : []);
    pageOrigins = new Set(next.cors.origins);
    protectedMode.allow(next.allowedHosts, next.cors.origins);
    Object.assign(limits, next.limits);
    answering.bodyLimits.bytesMax = limits.bodyBytes;
    answering.streamSlots.max = limits.concurrentStreams;
    requestSlots.max = limits.concurrentRequests;
    current = next;
  }

  async function drain(deadlineMs: number): Promise<void> {
    isDraining = true;
    const deadlineAtMs = clock.now() + deadlineMs;
    if (config.drain.readyGraceMs > 0) {
      await pause(timer, Math.min(config.drain.readyGraceMs, deadlineMs / 2));
    }
    rpc.drain();
    connect.drain();
    const sentAway = new AbortController();
    const farewell = hub.drain().finally(() => sentAway.abort());
    if (hub.stats.connections > 0) {
      // The server's shutdown would cut sockets off before they have been told when to come back.
      await Promise.race([farewell, pause(timer, Math.min(FAREWELL_MS, deadlineMs / 2), sentAway.signal)]);
    }
    sync.drain();
    const done = new AbortController();
    const shutdown = Promise.all([listener.shutdown(), grpc.drain(), resp.shutdown()]).finally(() =>
      done.abort()
    );
    await Promise.race([shutdown, pause(timer, Math.max(0, deadlineAtMs - clock.now()), done.signal)]);
    grpc.close();
    bodyTimeouts.close();
    departures.close();
    hubRelay.close();
    hub.close();
    authentication.close();
    await limitSync?.close();
  }

  return {
    listening: grpc.listening,
    get addresses() {
      return { http: listener.url, grpc: grpc.address, resp: resp.address };
    },
    reloadTls(tls) {
      if (tls.grpc !== undefined) grpc.reload(tls.grpc);
      if (tls.http !== undefined) listener.reload(tls.http);
    },
    health: () => ({ ok: !isDraining, detail: isDraining ? "draining" : "" }),
    reconfigure,
    drain: (deadlineMs) => drained ??= drain(deadlineMs),
  };
}

/** Tells the names of all gateway workers of this host. */
function gatewaysOf({ name, peers }: GatewayDeps): () => readonly string[] {
  let seen: readonly Peer[] | undefined;
  let names: readonly string[] = [name];
  return () => {
    const instances = peers.instances("gateway");
    if (instances !== seen) {
      seen = instances;
      const own = instances.filter(({ isRemote }) => isRemote !== true);
      names = [...new Set([name, ...own.map((peer) => peer.name)])];
    }
    return names;
  };
}

/** Paths of the gateway's own that never need a credential: whether it lives, and the keys that verify tokens. */
const ALWAYS_OPEN: readonly string[] = ["/livez", "/readyz", "/health", "/healthz", "/.well-known/jwks.json"];

/** Parts the gateway's own paths into those that need no credential and the rest. */
function splitPaths(all: ReadonlySet<string>, configured: readonly string[]) {
  const openPaths: ReadonlySet<string> = new Set([...ALWAYS_OPEN, ...configured]);
  return { openPaths, closedPaths: new Set([...all].filter((path) => !openPaths.has(path))) };
}
