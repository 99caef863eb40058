/** The part of the configuration about calls to services: `gateway.upstreams` and `gateway.fallbacks`. */
import { z } from "zod";
import { type BalancerKind, BALANCERS } from "../balance/balancer.ts";
import { BREAKER_PRESETS, type BreakerSettings } from "./breaker.ts";

const PRESETS = ["default", "aggressive", "conservative", "off"] as const;

const breaker = z.strictObject({
  preset: z.enum(PRESETS).default("default").describe(
    "When a target is left alone after failures: default (5 calls in 10 s, half of them or 5 in a row failed; 60 s), " +
      "aggressive (3 in 5 s, 30 % or 3; 30 s), conservative (10 in 20 s, 70 % or 10; 120 s), or off.",
  ),
  maxProbes: z.int().min(1).max(1_000).optional().describe(
    "Calls that try at once whether the target is well again, instead of the preset's.",
  ),
  successesToClose: z.int().min(1).max(1_000).optional().describe(
    "Such calls that must succeed in a row, instead of the preset's.",
  ),
  intervalMs: z.int().min(100).max(3_600_000).optional().describe(
    "How often the counters start anew, in milliseconds, instead of the preset's.",
  ),
  openMs: z.int().min(10).max(3_600_000).optional().describe(
    "How long the target is left alone, in milliseconds, instead of the preset's.",
  ),
  minRequests: z.int().min(1).max(1_000_000).optional().describe(
    "Calls in an interval below which nothing trips, instead of the preset's.",
  ),
  errorRate: z.number().min(0.01).max(1).optional().describe(
    "Share of failures from which it trips, instead of the preset's.",
  ),
  consecutiveFailures: z.int().min(1).max(1_000_000).optional().describe(
    "Failures in a row from which it trips, instead of the preset's.",
  ),
});

const bulkhead = z.strictObject({
  maxConcurrent: z.int().min(1).max(100_000).default(2_048).describe(
    "HTTP requests under way at once at one service, in one gateway worker, streams aside.",
  ),
  maxQueued: z.int().min(0).max(100_000).default(1_024).describe(
    "Requests that may wait for a place among them, each within its deadline. More are 503.",
  ),
});

const outlier = z.strictObject({
  consecutiveFailures: z.int().min(0).max(1_000).default(5).describe(
    "Failures in a row after which one of several instances takes no calls for a while; 0 is never.",
  ),
  baseEjectionMs: z.int().min(100).max(3_600_000).default(30_000).describe(
    "How long the first time, in milliseconds; the n-th time n times as long.",
  ),
  maxEjectionMs: z.int().min(100).max(86_400_000).default(300_000).describe(
    "How long at most, in milliseconds.",
  ),
  maxEjectionPercent: z.int().min(0).max(100).default(10).describe(
    "Share of a service's instances that may be out at once; one may be in any case, and the last one never.",
  ),
}).prefault({});

const retry = z.strictObject({
  budgetPercent: z.number().min(0).max(100).default(20).describe(
    "Calls made again, in percent of the requests of the last ten seconds, at most.",
  ),
  minPerSecond: z.number().min(0).max(10_000).default(3).describe(
    "Calls made again that are allowed in any case, a second.",
  ),
  firstPauseMs: z.int().min(1).max(10_000).default(10).describe(
    "Pause before a call is made again, in milliseconds; doubles each time, and half of it is left to chance.",
  ),
  maxPauseMs: z.int().min(1).max(60_000).default(160).describe("Longest such pause, in milliseconds."),
}).prefault({});

const service = z.strictObject({
  balancer: z.enum(BALANCERS).optional().describe(
    "Which of a service's instances takes a call: roundRobin, leastOutstanding (of two drawn by lot), or ringHash. Without it " +
      "leastOutstanding; for statesync ringHash.",
  ),
  hashBy: z.array(z.string().min(1).max(256)).max(16).optional().describe(
    "Request fields (doc_id, key, …) of which the first that a call has decides on the ring; a call with none goes by its " +
      "user. Without it none; for statesync the document's id.",
  ),
  breaker: breaker.optional().describe("Instead of gateway.upstreams.breaker."),
  bulkhead: bulkhead.optional().describe("Instead of gateway.upstreams.bulkhead."),
});

/** Schema of `gateway.upstreams`. */
export const upstreamsConfigSchema = z.strictObject({
  breaker: breaker.prefault({}),
  bulkhead: bulkhead.prefault({}),
  outlier,
  retry,
  singleFlight: z.boolean().default(true).describe(
    "Whether equal GETs of one caller that have not been sent yet share one call.",
  ),
  services: z.record(z.string().regex(/^[a-z][a-z0-9-]{0,62}$/), service).default({}).describe(
    "What is different for single services, by name.",
  ),
}).prefault({});

/** What `gateway.upstreams` holds. */
export type UpstreamsConfig = z.infer<typeof upstreamsConfigSchema>;

const route = z.string().regex(/^(GET|PUT|POST|DELETE|PATCH) \/\S*$/, {
  error: "expected a method and a path template: GET /api/v1/kv/{key=**}",
}).describe("Method and path template of the route, as the OpenAPI document has them.");

const fallback = z.discriminatedUnion("strategy", [
  z.strictObject({
    route,
    strategy: z.literal("cacheFirst"),
    ttlMs: z.int().min(1).max(86_400_000).default(60_000).describe(
      "How old an answer may be, in milliseconds.",
    ),
  }),
  z.strictObject({
    route,
    strategy: z.literal("defaultResponse"),
    status: z.int().min(200).max(599).default(200).describe("Status of the answer."),
    body: z.string().max(65_536).default("{}").describe("Body of the answer."),
    contentType: z.string().min(1).max(256).default("application/json").describe("Its media type."),
  }),
  z.strictObject({ route, strategy: z.literal("failFast") }),
  z.strictObject({ route, strategy: z.literal("silent") }),
  z.strictObject({
    route,
    strategy: z.literal("retry"),
    times: z.int().min(1).max(10).default(3).describe("How often the call is made again, at most."),
  }),
]);

/** Schema of `gateway.fallbacks`. */
export const fallbacksConfigSchema = z.array(fallback).max(256).default([]).refine(
  (all) => new Set(all.map((one) => one.route)).size === all.length,
  { error: "expected each route once" },
).describe("What is answered when a service fails: by route, and with a header that says so.");

/** What is answered for one route. */
export type FallbackConfig = z.infer<typeof fallback>;

/** Which instance takes a call. */
export interface Balancing {
  readonly balancer: BalancerKind;
  /** Dotted fields of requests. */
  readonly hashBy: readonly string[];
}

const BALANCING: Balancing = { balancer: "leastOutstanding", hashBy: [] };

/** Calls about one document meet in one worker, which has it open. */
const BALANCING_OF: Readonly<Record<string, Balancing>> = {
  statesync: { balancer: "ringHash", hashBy: ["doc_id", "document.id", "operation.doc_id"] },
};

/** How a service's instances share its calls. */
export function balancing(config: UpstreamsConfig, name: string): Balancing {
  const { balancer, hashBy } = config.services[name] ?? {};
  const otherwise = BALANCING_OF[name] ?? BALANCING;
  return { balancer: balancer ?? otherwise.balancer, hashBy: hashBy ?? otherwise.hashBy };
}

/** Settings of a service's breakers; undefined when they are off. */
export function breakerSettings(config: UpstreamsConfig, name: string): BreakerSettings | undefined {
  const { preset, ...overrides } = config.services[name]?.breaker ?? config.breaker;
  if (preset === "off") return undefined;
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
  return { ...BREAKER_PRESETS[preset], ...Object.fromEntries(given) };
}
