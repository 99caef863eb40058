/** All services as the gateway calls them, by the configuration. */
import type { DescMethod, Message } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import type { Registry } from "prom-client";
import { hashText } from "../balance/hash.ts";
import type { Route } from "../routes.ts";
import type { Caller } from "../stages.ts";
import type { Timer } from "../timer.ts";
import type { AttemptsDeps } from "./attempts.ts";
import { createBalancedTransport } from "./balanced_transport.ts";
import { Bulkhead } from "./bulkhead.ts";
import { balancing, breakerSettings, type FallbackConfig, type UpstreamsConfig } from "./config.ts";
import { type HashField, hashField, hashOfBytes, hashOfMessage } from "./hash_key.ts";
import {
  createUpstreamMetrics,
  type TargetFigures,
  type UpstreamMethodMetrics,
  type UpstreamMetrics,
} from "./metrics.ts";
import { Upstream, type UpstreamLog, type UpstreamPeers } from "./upstream.ts";

/** What a service is called with. */
export interface UpstreamCaller {
  readonly upstream: Upstream;
  readonly bulkhead: Bulkhead;
  readonly attempts: AttemptsDeps;
  /** Figures of an RPC, by `package.Service/Method`. */
  method(rpcName: string): UpstreamMethodMetrics;
}

/** What a route allows. */
export interface RoutePolicy {
  /** Whether its repeatable calls are made again, and wait for a service that is away. */
  readonly waits: boolean;
  readonly retriesMax: number;
}

/** The services. */
export interface Upstreams {
  readonly metrics: UpstreamMetrics;
  caller(service: string): UpstreamCaller;
  policy(route: Route): RoutePolicy;
  /** Where on the ring a call belongs; undefined when nothing says so. */
  hashOf(
    rpc: DescMethod,
    service: string,
    message: Message | undefined,
    caller: Caller | undefined,
  ): number | undefined;
  /** The same of an encoded request. */
  hashOfBytes(rpc: DescMethod, service: string, message: Uint8Array | undefined): number | undefined;
  /** A transport whose unary calls and streams go each to the instance that is chosen for it. */
  transport(service: string): Transport;
  /** In the order in which they were first called for. */
  all(): readonly Upstream[];
}

/** What the services are made of. */
export interface UpstreamsDeps {
  readonly config: UpstreamsConfig;
  readonly fallbacks: readonly FallbackConfig[];
  /** Services to know from the start. */
  readonly services: Iterable<string>;
  /** The name of those in this worker itself: it has no breaker and is not among `all`. */
  readonly self: string;
  readonly peers: UpstreamPeers;
  readonly clock: { now(): number };
  readonly timer: Timer;
  /** Gives numbers in [0, 1). */
  chance(): number;
  /** How long a repeatable call through `transport` waits for a service that is away. */
  readonly waitMs: number;
  readonly registry: Registry;
  readonly log: UpstreamLog;
}

const DEFAULT_POLICY: RoutePolicy = { waits: true, retriesMax: Infinity };
const FAIL_FAST: RoutePolicy = { waits: false, retriesMax: 0 };

/** Creates them. */
export function createUpstreams(deps: UpstreamsDeps): Upstreams {
  const { config } = deps;
  // As many as services that the gateway is built to call.
  const callers = new Map<string, UpstreamCaller>();
  const transports = new Map<string, Transport>();
  const metrics = createUpstreamMetrics(deps.registry, () => figures());
  const policies = policiesOf(deps.fallbacks);
  const hashFields = new Map<DescMethod, HashField | undefined>();

  function caller(service: string): UpstreamCaller {
    let found = callers.get(service);
    if (found === undefined) callers.set(service, found = createCaller(service));
    return found;
  }

  function createCaller(service: string): UpstreamCaller {
    const own = config.services[service];
    const { maxConcurrent, maxQueued } = own?.bulkhead ?? config.bulkhead;
    const methods = new Map<string, UpstreamMethodMetrics>();
    return {
      upstream: new Upstream({
        name: service,
        peers: deps.peers,
        chance: deps.chance,
        balancer: balancing(config, service).balancer,
        breaker: service === deps.self ? undefined : breakerSettings(config, service),
        outlier: config.outlier,
        budget: config.retry,
        log: deps.log,
      }),
      bulkhead: new Bulkhead(maxConcurrent, maxQueued, deps.timer),
      attempts: {
        clock: deps.clock,
        timer: deps.timer,
        chance: deps.chance,
        firstPauseMs: config.retry.firstPauseMs,
        maxPauseMs: config.retry.maxPauseMs,
      },
      method(rpcName) {
        let found = methods.get(rpcName);
        if (found === undefined) methods.set(rpcName, found = metrics.method(service, rpcName));
        return found;
      },
    };
  }

  function all(): Upstream[] {
    return [...callers.values()].map(({ upstream }) => upstream).filter(({ name }) => name !== deps.self);
  }

  function figures(): TargetFigures[] {
    const nowMs = deps.clock.now();
    return all().flatMap((upstream) =>
      upstream.targets().map((target) => ({
        name: target.name,
        state: target.breakerState,
        trips: target.breaker?.figures().trips ?? 0,
        ejections: target.ejections,
        isEjected: target.outlier.isEjected(nowMs),
        outstanding: target.outstanding,
      }))
    );
  }

  function fieldOf(rpc: DescMethod, service: string): HashField | undefined {
    if (!hashFields.has(rpc)) hashFields.set(rpc, hashField(rpc, balancing(config, service).hashBy));
    return hashFields.get(rpc);
  }

  const upstreams: Upstreams = {
    metrics,
    caller,
    policy: ({ httpMethod, template }) =>
      policies === undefined ? DEFAULT_POLICY : policies.get(`${httpMethod} ${template}`) ?? DEFAULT_POLICY,
    hashOf(rpc, service, message, from) {
      const field = fieldOf(rpc, service);
      const hash = field && message && hashOfMessage(field, message);
      if (hash !== undefined) return hash;
      const user = from?.principal.userId ?? "";
      return user === "" ? undefined : hashText(user);
    },
    hashOfBytes(rpc, service, message) {
      const field = fieldOf(rpc, service);
      return field && message && hashOfBytes(field, message);
    },
    transport(service) {
      let found = transports.get(service);
      if (found === undefined) {
        transports.set(service, found = createBalancedTransport(upstreams, service, deps.waitMs));
      }
      return found;
    },
    all,
  };
  for (const service of deps.services) caller(service);
  return upstreams;
}

function policiesOf(fallbacks: readonly FallbackConfig[]): Map<string, RoutePolicy> | undefined {
  const policies = new Map<string, RoutePolicy>();
  for (const fallback of fallbacks) {
    if (fallback.strategy === "failFast") policies.set(fallback.route, FAIL_FAST);
    if (fallback.strategy === "retry") {
      policies.set(fallback.route, { waits: true, retriesMax: fallback.times });
    }
  }
  return policies.size === 0 ? undefined : policies;
}
