/** AdminService: what this gateway worker knows of itself and of the services behind it. */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl, type Transport } from "@connectrpc/connect";
import type { Registry } from "prom-client";
import {
  type AdminService,
  type Breaker as BreakerMessage,
  BreakerSchema,
  type Target as TargetMessage,
  TargetSchema,
  type TransportStats,
  TransportStatsSchema,
} from "$proto/aetherflow/gateway/v1/admin_pb.ts";
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { callUnary } from "../../transport/rpc/mod.ts";
import type { Peers } from "../runtime/worker_context.ts";
import type { Target } from "./resilience/upstream.ts";
import type { Upstreams } from "./resilience/upstreams.ts";

/** What it is made of. */
export interface AdminDeps {
  /** Name of this gateway worker. */
  readonly name: string;
  readonly upstreams: Upstreams;
  readonly peers: Pick<Peers, "channelStats">;
  readonly clock: { now(): number };
  /** The worker's figures. */
  readonly registry: Registry;
  /** How the session service is reached. */
  readonly sessions: Transport;
  /** Open connections of the Redis protocol. */
  respConnections(): number;
}

/** Longest wait for the session service's counts, in milliseconds: the rest of the answer is worth having without them. */
const SESSIONS_TIMEOUT_MS = 1_000;

/** Figures that are summed up, over all labels. */
const REQUESTS = ["aetherflow_gateway_http_requests_total", "aetherflow_gateway_grpc_calls_total"];
const STREAMS = ["aetherflow_gateway_active_streams"];
const GRPC_CONNECTIONS = ["aetherflow_gateway_grpc_connections"];
const ACTIVE = ["aetherflow_gateway_http_active_requests", "aetherflow_gateway_grpc_active_calls"];

/** Creates the handlers. Breakers and figures are this gateway worker's own. */
export function createAdminService(deps: AdminDeps): ServiceImpl<typeof AdminService> {
  const startedAtMs = deps.clock.now();

  function targets(): { service: string; target: Target }[] {
    return deps.upstreams.all().flatMap((upstream) =>
      upstream.targets().map((target) => ({ service: upstream.name, target }))
    );
  }

  async function sum(names: readonly string[]): Promise<bigint> {
    let total = 0;
    for (const name of names) {
      const metric = await deps.registry.getSingleMetric(name)?.get();
      for (const { value } of metric?.values ?? []) total += value;
    }
    return BigInt(total);
  }

  /** Empty when the session service does not answer. */
  async function countSessions(): Promise<{ [state: string]: bigint }> {
    try {
      const options = { timeoutMs: SESSIONS_TIMEOUT_MS };
      return (await callUnary(deps.sessions, SessionService.method.countSessions, {}, options)).byState;
    } catch {
      // The target's own line says how the service is; what is known without it is still told.
      return {};
    }
  }

  function describeTarget(service: string, target: Target): TargetMessage {
    const { hostname, port } = target.peer.address;
    const stats = deps.peers.channelStats(target.name);
    return create(TargetSchema, {
      service,
      name: target.name,
      address: hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`,
      state: target.state(deps.clock.now()),
      breaker: target.breakerState,
      outstanding: target.outstanding,
      ...stats && { transport: describeTransport(stats) },
    });
  }

  return {
    listBreakers() {
      const nowMs = deps.clock.now();
      const breakers = targets().flatMap(({ target }) => describeBreaker(target, nowMs) ?? []);
      return { breakers, worker: deps.name };
    },

    resetBreakers({ name }) {
      const named = targets().filter(({ target }) =>
        target.breaker !== undefined && (name === "" || target.name === name)
      );
      if (name !== "" && named.length === 0) {
        throw new ConnectError(`there is no breaker ${name}`, Code.NotFound);
      }
      let reset = 0;
      for (const { target } of named) if (target.breaker!.reset()) reset++;
      return { reset, worker: deps.name };
    },

    async getStats() {
      const [requestsTotal, activeRequests, grpc, streams, sessions] = await Promise.all([
        sum(REQUESTS),
        sum(ACTIVE),
        sum(GRPC_CONNECTIONS),
        sum(STREAMS),
        countSessions(),
      ]);
      return {
        worker: deps.name,
        uptimeSeconds: (deps.clock.now() - startedAtMs) / 1000,
        connections: { grpc, resp: BigInt(deps.respConnections()), streams },
        requestsTotal,
        activeRequests,
        sessions,
        targets: targets().map(({ service, target }) => describeTarget(service, target)),
      };
    },
  };
}

function describeBreaker({ name, breaker }: Target, nowMs: number): BreakerMessage | undefined {
  if (breaker === undefined) return undefined;
  const { requests, successes, failures, successesInARow, failuresInARow, trips } = breaker.figures();
  return create(BreakerSchema, {
    name,
    state: breaker.state,
    requests: BigInt(requests),
    successes: BigInt(successes),
    failures: BigInt(failures),
    consecutiveSuccesses: successesInARow,
    consecutiveFailures: failuresInARow,
    errorRate: requests === 0 ? 0 : failures / requests,
    trips: BigInt(trips),
    retryAfterMs: Math.ceil(breaker.retryAfterMs(nowMs)),
  });
}

function describeTransport(stats: NonNullable<ReturnType<Peers["channelStats"]>>): TransportStats {
  return create(TransportStatsSchema, {
    smoothedRttMs: stats.rttMs,
    minRttMs: stats.minRttMs,
    congestionWindowBytes: BigInt(stats.congestionWindowBytes),
    inFlightBytes: BigInt(stats.bytesInFlight),
    packetsSent: BigInt(stats.packetsSent),
    packetsReceived: BigInt(stats.packetsReceived),
    packetsLost: BigInt(stats.packetsLost),
    retransmissions: BigInt(stats.packetsResent),
    loss: stats.packetsSent === 0 ? 0 : stats.packetsLost / stats.packetsSent,
  });
}
