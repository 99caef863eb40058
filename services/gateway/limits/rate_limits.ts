/** Bounds how often requests come: all together, from an address, of a principal, to a route. Pure.
 *
 *  A request that one limit refuses takes no token of the others that are asked at the same time: who is refused for his
 *  address's sake does not use up what all share. */
import { Code } from "@connectrpc/connect";
import { type Principal, Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Exchange } from "../exchange.ts";
import { formatIp, isV4, parseIp } from "../inbound/ip_address.ts";
import { NO_PARAMETERS, serializeList } from "../inbound/structured_fields.ts";
import { GatewayError } from "../problem.ts";
import type { RateLimits } from "../stages.ts";
import type { RateLimitConfig } from "./config.ts";
import { isLoopbackHost } from "./protected_mode.ts";
import { BucketTable, Policy, type Rate } from "./token_bucket.ts";

/** What limits are made of. */
export interface RateLimitDeps {
  readonly config: RateLimitConfig;
  readonly clock: { now(): number };
  /** 32 random bits, unknown to clients. */
  readonly seed: number;
}

/** Limits of calls that are no HTTP requests. */
export interface CallLimits {
  /** Before it is known who calls: global, by address, by RPC (`/aetherflow.kv.v1.KeyValueService/Put`). Undefined lets the
   *  call begin. */
  admit(ip: string, rpc: string): Refused | undefined;
  /** By caller. */
  admitCaller(principal: Principal, ip: string, rpc: string): Refused | undefined;
}

/** Why a call does not begin. */
export interface Refused {
  readonly code: Code;
  readonly message: string;
}

/** Limits of one gateway worker. */
export interface RateLimiter extends RateLimits {
  readonly calls: CallLimits;
  /** Tables whose buckets gateways share, by a name that is the same in all of them. */
  readonly shared: ReadonlyMap<string, BucketTable>;
}

/** Limits that are asked together, at most: global, address, and routes. */
const AT_ONCE_MAX = 66;

/** Whether the process lives must be told under every load: a supervisor ends what does not answer. */
const NEVER_LIMITED = "/livez";
/** What probes ask for; they are not to compete with clients for the global limit. */
const PROBES: ReadonlySet<string> = new Set(["/readyz", "/healthz", "/health"]);

/** The one bucket of a limit that all clients share. */
const ALL = "*";

/** One of `routes`. */
interface RouteLimit {
  readonly path: string | undefined;
  readonly isPrefix: boolean;
  /** `package.Service/Method`, or `package.Service/` for all of a service. */
  readonly rpc: string | undefined;
  readonly methods: ReadonlySet<string>;
  readonly by: "address" | "principal" | "all";
  readonly table: BucketTable;
}

/** Creates limits. */
export function createRateLimits({ config, clock, seed }: RateLimitDeps): RateLimiter {
  if (!config.enabled) return NO_LIMITS;
  const isShared = config.redis.nodes.length > 0;
  const table = (name: string, rate: Rate, bucketsMax: number) =>
    rate.rate === 0 ? undefined : new BucketTable(new Policy(name, rate), bucketsMax, seed, isShared);
  const global = table("global", config.global, 1);
  const address = table("address", config.address, config.bucketsMax);
  const principal = table("principal", config.principal, config.bucketsMax);
  const routes = config.routes.map((route): RouteLimit => {
    const isPath = route.match.startsWith("/");
    const isPrefix = isPath && route.match.endsWith("*");
    const rpc = route.match.endsWith("/*") ? route.match.slice(0, -1) : route.match;
    return {
      path: !isPath ? undefined : isPrefix ? route.match.slice(0, -1) : route.match,
      isPrefix,
      rpc: isPath ? undefined : rpc,
      methods: new Set(route.methods),
      by: route.by,
      table: table(route.match, route, route.by === "all" ? 1 : config.bucketsMax / 4)!,
    };
  });
  const beforeCaller = routes.filter(({ by }) => by !== "principal");
  const ofCaller = routes.filter(({ by }) => by === "principal");

  // What headers say of each, written once.
  const describing = new Map(
    [global, address, principal, ...routes.map((route) => route.table)].filter((table) => table !== undefined)
      .map(({ policy }) => [policy, { policy: policyField(policy), name: nameField(policy) }]),
  );

  // One request is checked at a time, so what is asked for it needs no memory of its own.
  const tables = new Array<BucketTable>(AT_ONCE_MAX);
  const slots = new Int32Array(AT_ONCE_MAX);
  let asked = 0;
  /** The one of them that is nearest to its end, and what it has left. */
  let nearest: Policy | undefined;
  let left = 0;

  function ask(table: BucketTable, key: string, nowUs: number): void {
    tables[asked] = table;
    slots[asked++] = table.find(key, nowUs);
  }

  /** Takes a token of each that was asked, or none of any. Returns the index of the one that refuses, or -1. */
  function settle(nowUs: number): number {
    nearest = undefined;
    left = 0;
    let refused = -1;
    for (let i = 0; i < asked; i++) {
      const tokens = tables[i]!.tokens(slots[i]!, nowUs);
      if (nearest === undefined || tokens < left) {
        nearest = tables[i]!.policy;
        left = tokens;
        if (tokens < 1) refused = i;
      }
    }
    if (refused < 0) {
      for (let i = 0; i < asked; i++) tables[i]!.take(slots[i]!);
      left--;
    }
    return refused;
  }

  /** Settles for an HTTP request. */
  function conclude(exchange: Exchange, nowUs: number): void {
    const refused = settle(nowUs);
    if (nearest !== undefined && (exchange.limit === undefined || left < exchange.limitLeft)) {
      exchange.limit = nearest;
      exchange.limitLeft = Math.max(0, left);
    }
    if (refused >= 0) {
      const waitUs = tables[refused]!.waitUs(slots[refused]!);
      throw new GatewayError("rate_limited", messageOf(nearest!), { retryAfterS: Math.ceil(waitUs / 1e6) });
    }
  }

  /** Settles for a call. */
  function concludeCall(nowUs: number): Refused | undefined {
    return settle(nowUs) < 0 ? undefined : { code: Code.ResourceExhausted, message: messageOf(nearest!) };
  }

  const isExempt = (ip: string) => config.exemptLoopback && isLoopback(ip);

  return {
    admit(exchange) {
      const { path } = exchange;
      if (path === NEVER_LIMITED) return;
      const nowUs = Math.floor(exchange.startedAtMs * 1000);
      asked = 0;
      if (global !== undefined && !PROBES.has(path)) ask(global, ALL, nowUs);
      const { ip } = exchange.client;
      if (!isExempt(ip)) {
        if (address !== undefined) ask(address, addressKey(ip), nowUs);
        for (const route of beforeCaller) {
          if (isOf(route, exchange)) ask(route.table, route.by === "all" ? ALL : addressKey(ip), nowUs);
        }
      }
      if (asked > 0) conclude(exchange, nowUs);
    },
    admitCaller(exchange) {
      if (exchange.caller === undefined || exchange.path === NEVER_LIMITED) return;
      if (isExempt(exchange.client.ip)) return;
      const key = principalKey(exchange.caller.principal);
      if (key === "") return;
      // Not the time of its arrival: finding out who calls may have taken a while.
      const nowUs = Math.floor(clock.now() * 1000);
      asked = 0;
      if (principal !== undefined) ask(principal, key, nowUs);
      for (const route of ofCaller) {
        if (isOf(route, exchange)) ask(route.table, key, nowUs);
      }
      if (asked > 0) conclude(exchange, nowUs);
    },
    describe({ limit, limitLeft }, headers) {
      if (limit === undefined) return;
      // A request that came before its limits were exchanged is told of those that it met.
      const texts = describing.get(limit) ?? { policy: policyField(limit), name: nameField(limit) };
      headers.set("ratelimit-policy", texts.policy);
      headers.set("ratelimit", `${texts.name};r=${limitLeft};t=${limit.refillS(limitLeft)}`);
    },
    calls: {
      admit(ip, rpc) {
        const nowUs = Math.floor(clock.now() * 1000);
        asked = 0;
        if (global !== undefined) ask(global, ALL, nowUs);
        if (!isExempt(ip)) {
          if (address !== undefined) ask(address, addressKey(ip), nowUs);
          for (const route of beforeCaller) {
            if (isOfRpc(route, rpc, 1)) ask(route.table, route.by === "all" ? ALL : addressKey(ip), nowUs);
          }
        }
        return asked === 0 ? undefined : concludeCall(nowUs);
      },
      admitCaller(caller, ip, rpc) {
        const key = principalKey(caller);
        if (key === "" || isExempt(ip)) return undefined;
        const nowUs = Math.floor(clock.now() * 1000);
        asked = 0;
        if (principal !== undefined) ask(principal, key, nowUs);
        for (const route of ofCaller) {
          if (isOfRpc(route, rpc, 1)) ask(route.table, key, nowUs);
        }
        return asked === 0 ? undefined : concludeCall(nowUs);
      },
    },
    shared: new Map(isShared ? named({ global, address, principal }, routes) : []),
  };
}

/** Lets everything pass. */
export const NO_LIMITS: RateLimiter = {
  admit() {},
  admitCaller() {},
  describe() {},
  calls: { admit: () => undefined, admitCaller: () => undefined },
  shared: new Map(),
};

function named(
  tables: Readonly<Record<string, BucketTable | undefined>>,
  routes: readonly RouteLimit[],
): [string, BucketTable][] {
  const all = Object.entries(tables).filter((entry): entry is [string, BucketTable] =>
    entry[1] !== undefined
  );
  // By their numbers too: two entries may limit one route in two ways.
  return [
    ...all,
    ...routes.map(({ table }, i): [string, BucketTable] => [`${i}:${table.policy.name}`, table]),
  ];
}

function isOf(route: RouteLimit, exchange: Exchange): boolean {
  if (route.methods.size > 0 && !route.methods.has(exchange.method)) return false;
  const found = exchange.match?.route;
  if (route.rpc !== undefined) return found !== undefined && isOfRpc(route, found.rpcName, 0);
  if (route.isPrefix) return exchange.path.startsWith(route.path!);
  return found?.template === route.path || exchange.path === route.path;
}

/** `at`: where the name begins in `rpc`. */
function isOfRpc({ rpc: wanted }: RouteLimit, rpc: string, at: number): boolean {
  if (wanted === undefined || !rpc.startsWith(wanted, at)) return false;
  return wanted.endsWith("/") || rpc.length === at + wanted.length;
}

function isLoopback(ip: string): boolean {
  return ip === "127.0.0.1" || ip === "::1" || (ip.startsWith("127.") && isLoopbackHost(ip)) ||
    (ip.startsWith("::ffff:127.") && isLoopbackHost(ip.slice("::ffff:".length)));
}

/** Whom a bucket of an address is for. Who has an IPv6 address has at least its /64 (RFC 6177). */
function addressKey(ip: string): string {
  if (!ip.includes(":")) return ip;
  const address = parseIp(ip);
  if (address === undefined) return ip;
  // A port that takes both kinds sees IPv4 as a part of IPv6.
  return isV4(address) ? formatIp(address) : address.slice(0, 4).map((group) => group.toString(16)).join(":");
}

/** Whom a principal's bucket is for: whoever has one user's keys and sessions is one. "" for nobody: the address counts. */
function principalKey({ kind, userId, username }: Principal): string {
  if (kind === Principal_Kind.ANONYMOUS) return "";
  return userId === "" ? username : userId;
}

function messageOf({ name, burst, gain }: Policy): string {
  return `more than ${gain / 1000} requests a second, or ${burst} at once (limit ${name}, gateway.rateLimit)`;
}

/** `"address";q=2000;w=2`: draft-ietf-httpapi-ratelimit-headers. */
function policyField({ name, burst, windowS }: Policy): string {
  return serializeList([{ value: name, parameters: new Map([["q", burst], ["w", windowS]]) }]);
}

/** `"address"`. */
function nameField({ name }: Policy): string {
  return serializeList([{ value: name, parameters: NO_PARAMETERS }]);
}
