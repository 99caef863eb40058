/** The kv worker's part of the configuration, under the key `kv`. */
import { z } from "zod";
import { retentionProblem } from "./maintenance/auto_compaction.ts";

const KIB = 1_024;
const MIB = 1_024 * KIB;
const GIB = 1_024 * MIB;
/** A message between workers carries 4 MiB, and some carry key and value twice: as bytes and as text. */
const REQUEST_BYTES_MAX = 1_900 * KIB;

const watch = z.strictObject({
  watchersMax: z.int().min(1).max(10_000_000).default(100_000).describe(
    "Watchers of all clients together. One more is refused (created and cancelled at once). Each takes about 500 bytes.",
  ),
  batchBytes: z.int().min(KIB).max(2 * MIB).default(256 * KIB).describe(
    "Key and value bytes after which a watch answer ends, in bytes. A revision is never split for it.",
  ),
  batchRevisions: z.int().min(1).max(100_000).default(1_000).describe(
    "Revisions after which a watch answer ends.",
  ),
  progressIntervalMs: z.int().min(100).max(86_400_000).default(600_000).describe(
    "How often a watcher that asked for progress and heard nothing else is told the current revision, in milliseconds.",
  ),
  laggingRevisions: z.int().min(1).max(1_000_000_000).default(1_000).describe(
    "Revisions behind the newest at which a watcher counts as slow in the figure aetherflow_kv_slow_watchers.",
  ),
}).prefault({});

const lease = z.strictObject({
  minTtlSeconds: z.int().min(1).max(3_600).default(2).describe(
    "Shorter times to live that clients ask for are raised to this one, in seconds. Those of single keys (Redis, REST) " +
      "are not.",
  ),
  leasesMax: z.int().min(1).max(20_000_000).default(2_000_000).describe(
    "Leases at a time, those of single keys included; one more is refused. Each takes about 300 bytes.",
  ),
  checkpointIntervalMs: z.int().min(1_000).max(86_400_000).default(300_000).describe(
    "How often the remaining time of leases that live longer than this is written, in milliseconds: after a crash a " +
      "lease may have that much more time than it should, a shorter one its whole time.",
  ),
}).prefault({});

const auth = z.strictObject({
  tokenTtlMs: z.int().min(1_000).max(86_400_000).default(300_000).describe(
    "How long a token that a login gave is good since its last use, in milliseconds.",
  ),
  tokensMax: z.int().min(1).max(1_000_000).default(10_000).describe(
    "Tokens at a time; one more ends the one unused for longest, whose owner logs in again. Each takes about 200 bytes.",
  ),
  passwordHash: z.enum(["scrypt", "bcrypt"]).default("scrypt").describe(
    "How new passwords are hashed: `scrypt` beside the store; `bcrypt` as etcd does, for users that are to move there in a " +
      "snapshot, at the cost of some 70 ms of the store's time a login.",
  ),
}).prefault({});

/** `host:port`, or a URL of it; IPv6 addresses in brackets. */
const ENDPOINT = /^(https?:\/\/)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$/;

const etcd = z.strictObject({
  endpoints: z.array(
    z.string().regex(ENDPOINT, 'expected "host:port", "http://host:port" or "https://host:port"'),
  ).max(64).default([]).describe(
    "Members of the cluster as their clients reach them; with https all of them. Calls go to those that answer, in turn.",
  ),
  tls: z.strictObject({
    caFile: z.string().default("").describe(
      "PEM file of the authorities of the members' certificates; empty is the platform's.",
    ),
    certFile: z.string().default("").describe(
      "PEM file of the certificate shown to the members, for clusters that ask for one.",
    ),
    keyFile: z.string().default("").describe("PEM file of that certificate's key."),
    serverName: z.string().default("").describe(
      "Name that the members' certificates must carry when it is not the endpoint's.",
    ),
  }).prefault({}),
  username: z.string().default("").describe(
    "Account that callers without a token of their own act as: REST, and gRPC and Redis clients that did not log in. " +
      "Empty: they act as nobody.",
  ),
  password: z.string().default("").describe("Password of that account."),
  connectTimeoutMs: z.int().min(10).max(60_000).default(2_000).describe(
    "Longest wait of a call for a member that can be reached, in milliseconds.",
  ),
  requestTimeoutMs: z.int().min(10).max(600_000).default(5_000).describe(
    "Longest time of a call that the cluster answers at once, all tries together, in milliseconds.",
  ),
  keepaliveTimeMs: z.int().min(5_000).max(3_600_000).default(10_000).describe(
    "Quiet time after which a member is asked for a sign of life, in milliseconds; members close connections that ask " +
      "more often than every 5,000.",
  ),
  keepaliveTimeoutMs: z.int().min(100).max(60_000).default(3_000).describe(
    "Time for that sign, in milliseconds. Then the connection counts as lost, and watches go on at another member.",
  ),
}).prefault({});

const sqlite = z.strictObject({
  index: z.enum(["memory", "disk"]).default("memory").describe(
    "Where keys are found: `memory` is faster and takes about 150 bytes of memory a key, and a start reads all rows; " +
      "`disk` takes none and starts at once. May be changed between starts.",
  ),
  cacheBytes: z.int().min(MIB).max(64 * GIB).default(64 * MIB).describe(
    "Memory for pages of the file, in bytes, besides what the system caches.",
  ),
  pageBytes: z.literal([4_096, 8_192, 16_384, 32_768, 65_536]).default(4_096).describe(
    "Page size of a new file, in bytes. Larger pages suit larger values.",
  ),
}).prefault({});

const autoCompaction = z.strictObject({
  mode: z.enum(["retain", "periodic", "revision", "off"]).default("retain").describe(
    "Who gives up history: `retain` the store, beyond retainRevisions or retainHistoryBytes and where data needs the room; " +
      "`periodic` and `revision` as etcd's modes of these names; `off` nobody but clients.",
  ),
  retention: z.union([z.number(), z.string()]).default(0).describe(
    "For `periodic` the time whose history is kept, such as 10h, 30m or a number of hours; for `revision` how many revisions.",
  ),
}).superRefine((value, context) => {
  const message = retentionProblem(value);
  if (message !== undefined) context.addIssue({ code: "custom", path: ["retention"], message });
}).prefault({});

const member = z.strictObject({
  name: z.string().min(1).max(255).default("default").describe("Name of the store in lists of members."),
  clientUrls: z.array(z.url()).max(16).default([]).describe(
    "Where lists of members say that clients reach the store; empty: the gateway's gRPC address.",
  ),
}).prefault({});

const redis = z.strictObject({
  keyPrefix: z.string().min(1).max(KIB).default("redis/").describe(
    "What the keys of Redis clients begin with in the store: their `a` is `redis/a` for etcd's API and REST.",
  ),
  outputBytesMax: z.int().min(MIB).max(GIB).default(64 * MIB).describe(
    "Unread bytes of answers at which a Redis connection is closed.",
  ),
}).prefault({});

/** Schema of `kv`: every key has a default, a range and a description. */
export const kvConfigSchema = z.strictObject({
  engine: z.enum(["memory", "sqlite", "etcd"]).default("memory").describe(
    "Where the data lives: `memory` with a log and snapshots on disk; `sqlite`: values on disk, for data larger than " +
      "memory; `etcd`: an existing etcd cluster, see `etcd`. Keys of the other engines have no effect.",
  ),
  durability: z.enum(["always", "interval", "none"]).default("always").describe(
    "When a write counts as done: `always` after fdatasync; `interval` once written, synced every intervalMs (a crash of " +
      "the machine may lose that much); `none` once written.",
  ),
  intervalMs: z.int().min(1).max(60_000).default(100).describe(
    "Time between syncs with durability `interval`, in milliseconds.",
  ),
  segmentBytes: z.int().min(64 * KIB).max(GIB).default(64 * MIB).describe(
    "Length at which a file of the log ends, in bytes.",
  ),
  snapshotLogBytes: z.int().min(64 * KIB).max(64 * GIB).default(64 * MIB).describe(
    "Log written since the last snapshot at which the next one is made, in bytes; never less than the last snapshot's " +
      "size, so that snapshots cost at most as much as the log. Smaller starts faster, larger writes less.",
  ),
  maxKeyBytes: z.int().min(1).max(MIB).default(64 * KIB).describe("Longest key, in bytes."),
  maxValueBytes: z.int().min(1).max(REQUEST_BYTES_MAX).default(1_572_864).describe(
    "Longest value, in bytes.",
  ),
  maxRequestBytes: z.int().min(KIB).max(REQUEST_BYTES_MAX).default(1_572_864).describe(
    "Key and value bytes of one request, transactions included, in bytes. etcd's default is the same, 1.5 MiB.",
  ),
  quotaBytes: z.int().min(MIB).max(32 * GIB).default(2 * GIB).describe(
    "Memory of keys, values, history and their bookkeeping, in bytes. Puts beyond it are refused; deletes are not.",
  ),
  retainRevisions: z.int().min(1).max(100_000_000).default(100_000).describe(
    "Revisions of history kept for reads in the past and watchers that come back; older ones are compacted (autoCompaction.mode `retain`).",
  ),
  retainHistoryBytes: z.int().min(64 * KIB).max(32 * GIB).default(512 * MIB).describe(
    "Memory of superseded values at which history is compacted earlier than retainRevisions asks, in bytes (autoCompaction.mode `retain`).",
  ),
  autoCompaction,
  member,
  watch,
  lease,
  auth,
  redis,
  sqlite,
  etcd,
}).superRefine(({ engine, etcd }, context) => {
  const problem = (key: string, message: string) =>
    context.addIssue({ code: "custom", path: ["etcd", key], message });
  const secure = etcd.endpoints.filter((endpoint) => endpoint.startsWith("https://")).length;
  if (engine === "etcd" && etcd.endpoints.length === 0) {
    problem("endpoints", "kv.engine is etcd, so name one or more");
  }
  if (secure !== 0 && secure !== etcd.endpoints.length) {
    problem("endpoints", "expected https for all of them or for none");
  }
  if ((etcd.tls.certFile === "") !== (etcd.tls.keyFile === "")) {
    problem("tls", "expected certFile and keyFile together");
  }
}).prefault({});

/** The checked configuration of the kv worker. */
export type KvConfig = z.infer<typeof kvConfigSchema>;

/** What the files of `etcd.tls` hold; undefined where none is named. */
export interface EtcdTlsTexts {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** What the host gives the kv worker. */
export interface KvWorkerConfig extends KvConfig {
  readonly etcdTlsTexts?: EtcdTlsTexts;
}

/** Where the members of the cluster are, as host and port each. */
export function etcdAddresses({ etcd }: KvConfig): { readonly hostname: string; readonly port: number }[] {
  return etcd.endpoints.map((endpoint) => {
    const address = endpoint.replace(/^https?:\/\//, "");
    const colon = address.lastIndexOf(":");
    return { hostname: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
  });
}
