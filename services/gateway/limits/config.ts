/** Configuration of rate limits, under `gateway.rateLimit`. */
import { z } from "zod";
import { BURST_MAX, RATE_MAX, RATE_MIN } from "./token_bucket.ts";

const ADDRESS = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$/;

/** Thousandths are the grain of a rate. */
const ratePerS = z.number().refine((rate) => rate === 0 || (rate >= RATE_MIN && rate <= RATE_MAX), {
  error: `expected 0, or ${RATE_MIN} to ${RATE_MAX}`,
}).refine((rate) => Math.abs(rate * 1000 - Math.round(rate * 1000)) < 1e-6, {
  error: "expected at most three decimals",
});
const tokens = z.int().min(1).max(BURST_MAX);

const bucket = (what: string, rate: number, burst: number) =>
  z.strictObject({
    rate: ratePerS.default(rate).describe(`Requests a second ${what}, in the long run; 0 is no limit.`),
    burst: tokens.default(burst).describe(`Requests at once ${what}, after a pause.`),
  }).prefault({});

const route = z.strictObject({
  match: z.string().regex(
    /^(\/[\x21-\x7e]*|[A-Za-z0-9_.]+\/(\*|[A-Za-z0-9_]+))$/,
    "expected a path or an RPC",
  ).describe(
    "What is limited: a path template (/api/v1/kv/{key=**}), a path, the beginning of paths (/api/v1/kv*), or an RPC by " +
      "whichever way it is called (aetherflow.kv.v1.KeyValueService/Put, or /* for all of a service).",
  ),
  methods: z.array(z.string().regex(/^[A-Z]{1,16}$/, "expected a method in capitals")).max(16).default([])
    .describe(
      "HTTP methods that count; empty: all.",
    ),
  by: z.enum(["address", "principal", "all"]).default("address").describe(
    "Whether each address, each principal, or all clients together have a bucket.",
  ),
  rate: ratePerS.refine((rate) => rate > 0, { error: "expected more than 0" }).describe("Requests a second."),
  burst: tokens.describe("Requests at once."),
});

const redis = z.strictObject({
  nodes: z.array(z.string().regex(ADDRESS, "expected host:port")).max(64).default([]).describe(
    "Redis servers, as host:port, over which gateways share their buckets; of a cluster all nodes. Empty: each gateway worker " +
      "counts by itself.",
  ),
  cluster: z.boolean().default(false).describe("Whether the nodes are a Redis Cluster."),
  username: z.string().default("").describe("Name for Redis's AUTH; empty: the default user."),
  password: z.string().default("").describe("Password for Redis's AUTH; empty: none is sent."),
  database: z.int().min(0).max(15).default(0).describe("Number of the database; 0 with a cluster."),
  keyPrefix: z.string().min(1).max(64).default("aetherflow:limit:").describe("What all our keys begin with."),
  syncIntervalMs: z.int().min(10).max(60_000).default(100).describe(
    "How often a gateway tells what it spent and learns what is left, in milliseconds. Together gateways grant at most the limit " +
      "and what each of the others granted since then.",
  ),
}).prefault({});

/** Schema of `gateway.rateLimit`. */
export const rateLimitConfigSchema = z.strictObject({
  enabled: z.boolean().default(true).describe("Whether requests are limited at all."),
  // Product and clients on one laptop are one address and one person; nobody is protected from himself.
  exemptLoopback: z.boolean().default(true).describe(
    "Whether clients on this machine (127.0.0.0/8, ::1) are limited by the global limit only. A proxy on this machine must stand " +
      "in gateway.trustedProxies, so that its clients are not taken for local ones.",
  ),
  global: bucket("of all clients together, at one gateway worker", 0, 100_000),
  address: bucket("of one address (of IPv6, of one /64)", 1_000, 2_000),
  principal: bucket("of one user or API key's owner", 1_000, 2_000),
  routes: z.array(route).max(64).default([
    // A person needs one; a password guesser, as many as he gets.
    { match: "aetherflow.auth.v1.AuthService/Login", methods: [], by: "address", rate: 1, burst: 20 },
  ]).describe("Further limits, of single routes. All that match count."),
  bucketsMax: z.int().min(1_024).max(16_777_216).default(65_536).describe(
    "Addresses, and as many principals, that are counted at a time, 30 bytes each and their names. A full table makes further ones " +
      "share 1,024 buckets.",
  ),
  redis,
}).prefault({});

/** Validated `gateway.rateLimit`. */
export type RateLimitConfig = z.output<typeof rateLimitConfigSchema>;

/** The addresses that a gateway talks to for shared limits, of disabled ones too: they may be enabled while it serves. */
export function limitAddresses({ redis }: RateLimitConfig): { hostname: string; port: number }[] {
  return redis.nodes.map((node) => {
    const at = node.lastIndexOf(":");
    return { hostname: node.slice(0, at), port: Number(node.slice(at + 1)) };
  });
}
