/** The kv worker's part of the configuration, under the key `kv`. */
import { z } from "zod";

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

/** Schema of `kv`: every key has a default, a range and a description. */
export const kvConfigSchema = z.strictObject({
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
    "Revisions of history kept for reads in the past and watchers that come back; older ones are compacted.",
  ),
  retainHistoryBytes: z.int().min(64 * KIB).max(32 * GIB).default(512 * MIB).describe(
    "Memory of superseded values at which history is compacted earlier than retainRevisions asks, in bytes.",
  ),
  watch,
  lease,
}).prefault({});

/** The checked configuration of the kv worker. */
export type KvConfig = z.infer<typeof kvConfigSchema>;
