/** The store's figures for the worker's registry. */
import { registerFigures, type Registry } from "../runtime/metrics.ts";
import type { LeaseFigures } from "./lease/lease_service.ts";
import type { KvFigures } from "./service.ts";
import type { StoreStats } from "./store.ts";

type Figures = KvFigures & StoreStats & { readonly syncSeconds: number };

const GAUGES = {
  keys: ["aetherflow_kv_keys", "Live keys."],
  revision: ["aetherflow_kv_revision", "Newest durable revision."],
  compactRevision: [
    "aetherflow_kv_compact_revision",
    "Oldest revision that can be read; 0 before the first compaction.",
  ],
  bytes: ["aetherflow_kv_db_bytes", "Memory that counts against the quota."],
  historyBytes: [
    "aetherflow_kv_history_bytes",
    "Memory of superseded values and tombstones, part of db_bytes.",
  ],
  watchers: ["aetherflow_kv_watchers", "Watchers."],
  slowWatchers: ["aetherflow_kv_slow_watchers", "Watchers further behind than kv.watch.laggingRevisions."],
  pendingBytes: ["aetherflow_kv_log_pending_bytes", "Bytes appended to the log and not yet written."],
  segments: ["aetherflow_kv_log_segments", "Files of the log."],
  segmentBytes: ["aetherflow_kv_log_segment_bytes", "Bytes in them."],
} as const satisfies Partial<Record<keyof Figures, readonly [string, string]>>;

const COUNTERS = {
  puts: ["aetherflow_kv_puts_total", "Put requests, transactions' not counted."],
  ranges: ["aetherflow_kv_ranges_total", "Range, get and list requests."],
  deletes: ["aetherflow_kv_deletes_total", "Delete requests."],
  txns: ["aetherflow_kv_txns_total", "Transactions."],
  compactions: ["aetherflow_kv_compactions_total", "Compactions, automatic ones included."],
  snapshotFailures: ["aetherflow_kv_snapshot_failures_total", "Snapshots that could not be written."],
  appendedRecords: ["aetherflow_kv_log_appends_total", "Records appended to the log."],
  appendedBytes: ["aetherflow_kv_log_appended_bytes_total", "Bytes of those records."],
  groups: ["aetherflow_kv_log_groups_total", "Group commits."],
  syncs: ["aetherflow_kv_log_syncs_total", "Syncs of the log."],
  syncSeconds: ["aetherflow_kv_log_sync_seconds_total", "Time spent in them."],
  snapshots: ["aetherflow_kv_snapshots_total", "Snapshots written."],
} as const satisfies Partial<Record<keyof Figures, readonly [string, string]>>;

const ALARM_GAUGES = {
  alarms: ["aetherflow_kv_alarms", "Alarms that stand: writes are refused until they are disarmed."],
} as const;

const LEASE_GAUGES = {
  leases: ["aetherflow_kv_leases", "Leases, those of single keys included."],
  ownLeases: ["aetherflow_kv_own_leases", "Leases that belong to one key: Redis and REST times to live."],
} as const satisfies Partial<Record<keyof LeaseFigures, readonly [string, string]>>;

const LEASE_COUNTERS = {
  leaseGrants: ["aetherflow_kv_lease_grants_total", "Leases granted, those of single keys not counted."],
  leaseRevokes: ["aetherflow_kv_lease_revokes_total", "Leases revoked by clients."],
  leaseExpiries: ["aetherflow_kv_lease_expiries_total", "Leases that ran out."],
  leaseRenewals: ["aetherflow_kv_lease_renewals_total", "Leases kept alive."],
  leaseCheckpoints: ["aetherflow_kv_lease_checkpoints_total", "Remaining times written."],
} as const satisfies Partial<Record<keyof LeaseFigures, readonly [string, string]>>;

/** Adds the number of alarms that stand. */
export function registerAlarmMetrics(registry: Registry, read: () => { readonly alarms: number }): void {
  registerFigures(registry, { counters: {}, gauges: ALARM_GAUGES }, read);
}

/** Adds the leases' figures to a registry; they are read when the registry is. */
export function registerLeaseMetrics(registry: Registry, read: () => LeaseFigures): void {
  registerFigures(registry, { counters: LEASE_COUNTERS, gauges: LEASE_GAUGES }, read);
}

/** Adds the figures to a registry; they are read when the registry is. */
export function registerKvMetrics(
  registry: Registry,
  sources: { figures(): KvFigures; stats(): StoreStats },
): void {
  const read = (): Figures => {
    const stats = sources.stats();
    return { ...sources.figures(), ...stats, syncSeconds: stats.syncMs / 1_000 };
  };
  registerFigures(registry, { counters: COUNTERS, gauges: GAUGES }, read);
}
