/** The session worker's part of the configuration, under the key `session`. */
import { z } from "zod";
import { authConfigSchema } from "./auth/config.ts";

const redis = z.strictObject({
  /** One address, or several nodes of a cluster. */
  nodes: z.array(z.string().regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$/, "expected host:port"))
    .min(1).max(64).default(["127.0.0.1:6379"]).describe(
      "Redis servers, as host:port; of a cluster all nodes, since a worker may talk to no other.",
    ),
  cluster: z.boolean().default(false).describe("Whether the nodes are a Redis Cluster."),
  username: z.string().default("").describe("Name for Redis's AUTH; empty: the default user."),
  password: z.string().default("").describe("Password for Redis's AUTH; empty: none is sent."),
  database: z.int().min(0).max(15).default(0).describe("Number of the database; 0 with a cluster."),
  keyPrefix: z.string().min(1).max(64).default("aetherflow:").describe("What all our keys begin with."),
}).prefault({}).refine(({ nodes, cluster }) => cluster || nodes.length === 1, {
  path: ["nodes"],
  error: "expected one address, unless session.redis.cluster is true",
});

/** Schema of `session`: every key has a default, a range and a description. */
export const sessionConfigSchema = z.strictObject({
  engine: z.enum(["sqlite", "memory", "redis"]).default("sqlite").describe(
    "Where sessions are kept: an embedded database, memory (gone at a restart), or Redis.",
  ),
  durability: z.enum(["always", "interval", "none"]).default("always").describe(
    "When what the embedded database was told is on disk: before it is acknowledged, every intervalMs, or when the system likes.",
  ),
  intervalMs: z.int().min(1).max(60_000).default(100).describe(
    "How often the embedded database is synced with durability `interval`, in milliseconds.",
  ),
  idleTimeoutMs: z.int().min(1_000).max(2_592_000_000).default(1_800_000).describe(
    "How long a session lives that is not used, in milliseconds, unless its creator asks for another time.",
  ),
  absoluteTimeoutMs: z.int().min(1_000).max(31_536_000_000).default(604_800_000).describe(
    "How long a session lives at most, in milliseconds.",
  ),
  sweepIntervalMs: z.int().min(10).max(3_600_000).default(5_000).describe(
    "How often sessions that have run out are removed and told of, in milliseconds. They are not found before that either.",
  ),
  sessionsMax: z.int().min(1).max(100_000_000).default(1_000_000).describe(
    "Sessions at a time; one more is refused.",
  ),
  perUserMax: z.int().min(1).max(1_000_000).default(10_000).describe(
    "Sessions of one user at a time; one more ends the one unused for longest.",
  ),
  eventsKept: z.int().min(1).max(1_000_000).default(10_000).describe(
    "Events kept for watchers that come back; older ones are OUT_OF_RANGE.",
  ),
  watchersMax: z.int().min(1).max(100_000).default(1_000).describe("Watchers of events at a time."),
  redis,
  auth: authConfigSchema,
}).prefault({}).refine((value) => value.idleTimeoutMs <= value.absoluteTimeoutMs, {
  path: ["idleTimeoutMs"],
  error: "expected at most session.absoluteTimeoutMs",
});

/** Validated configuration of the session worker. */
export type SessionConfig = z.output<typeof sessionConfigSchema>;

/** The addresses that the worker talks to besides its peers. */
export function redisAddresses({ engine, redis }: SessionConfig): { hostname: string; port: number }[] {
  if (engine !== "redis") return [];
  return redis.nodes.map((node) => {
    const at = node.lastIndexOf(":");
    return { hostname: node.slice(0, at), port: Number(node.slice(at + 1)) };
  });
}
