/** The documents' figures for the worker's registry. */
import { Counter, type FigureNames, Gauge, registerFigures, type Registry } from "../runtime/metrics.ts";
import type { StatesyncFigures } from "./figures.ts";
import type { Awaitable, DocumentCounts, DocumentStoreStats } from "./store.ts";
import type { SyncFigures } from "./sync/handlers.ts";

type Figures = Omit<StatesyncFigures, "operations" | "resolved"> & DocumentStoreStats & SyncFigures;

const GAUGES = {
  open: ["aetherflow_statesync_open_documents", "Documents in memory."],
  openBytes: ["aetherflow_statesync_open_bytes", "Bytes that they take, about."],
  queued: ["aetherflow_statesync_queued_changes", "Changes that wait for the store."],
  subscribers: ["aetherflow_statesync_active_subscribers", "Subscribers of events."],
  clients: ["aetherflow_statesync_connected_clients", "Clients that synchronise documents."],
  locks: ["aetherflow_statesync_active_locks", "Locks of documents and objects."],
  links: ["aetherflow_statesync_links", "Gateway workers whose clients synchronise documents."],
} as const satisfies FigureNames<Figures>;

const COUNTERS = {
  created: ["aetherflow_statesync_documents_created_total", "Documents made."],
  liveUpdates: [
    "aetherflow_statesync_content_updates_total",
    "Edits by synchronising clients, and of content as a whole.",
  ],
  events: ["aetherflow_statesync_events_total", "Entries of histories, each of which is an event."],
  conflictsDetected: ["aetherflow_statesync_conflicts_total", "Conflicts found."],
  loads: ["aetherflow_statesync_loads_total", "Documents read from the store."],
  evictions: ["aetherflow_statesync_evictions_total", "Documents closed for room."],
  reloads: ["aetherflow_statesync_reloads_total", "Documents read anew since others had changed them."],
  snapshots: ["aetherflow_statesync_snapshots_total", "Contents kept anew."],
  compactions: ["aetherflow_statesync_compactions_total", "Histories cut."],
  commits: ["aetherflow_statesync_commits_total", "Group commits asked of the store."],
  changes: ["aetherflow_statesync_changes_total", "Changes in them."],
  rejected: ["aetherflow_statesync_commits_rejected_total", "Group commits that the store would not do."],
  behind: ["aetherflow_statesync_changes_behind_total", "Changes decided anew since others were faster."],
  groups: ["aetherflow_statesync_store_groups_total", "Group commits of the store."],
  groupSeconds: ["aetherflow_statesync_store_seconds_total", "Time spent in them."],
  writes: ["aetherflow_statesync_store_writes_total", "Changes that the store wrote."],
  failures: ["aetherflow_statesync_store_failures_total", "Operations of the store that failed."],
} as const satisfies FigureNames<Figures>;

/** What is measured. */
export interface StatesyncMetricsSources {
  figures(): StatesyncFigures;
  stats(): DocumentStoreStats;
  sync(): SyncFigures;
  counts(): Awaitable<DocumentCounts>;
}

/** Adds the figures to a registry; they are read when the registry is. */
export function registerStatesyncMetrics(registry: Registry, sources: StatesyncMetricsSources): void {
  const read = (): Figures => ({ ...sources.figures(), ...sources.stats(), ...sources.sync() });
  registerFigures<Figures>(registry, { counters: COUNTERS, gauges: GAUGES }, read);
  new Gauge({
    name: "aetherflow_statesync_documents",
    help: "Documents by state, deleted ones aside; none while the store cannot be asked.",
    labelNames: ["state"],
    registers: [registry],
    async collect() {
      this.reset();
      const counts = await Promise.resolve(sources.counts()).catch(() => undefined);
      if (counts === undefined) return;
      this.set({ state: "active" }, counts.active);
      this.set({ state: "archived" }, counts.archived);
    },
  });
  registerByLabel(
    registry,
    {
      name: "aetherflow_statesync_operations_total",
      help: "Operations by type, and by what became of them at first.",
      labelNames: ["type", "status"],
    },
    () =>
      [...sources.figures().operations].map(([key, total]) => {
        const [type, status] = key.split("/") as [string, string];
        return [{ type, status }, total];
      }),
  );
  registerByLabel(
    registry,
    {
      name: "aetherflow_statesync_conflicts_resolved_total",
      help: "Conflicts decided, by how.",
      labelNames: ["resolution"],
    },
    () => [...sources.figures().resolved].map(([resolution, total]) => [{ resolution }, total]),
  );
}

/** A counter with labels, of totals that something else keeps. */
function registerByLabel(
  registry: Registry,
  options: { readonly name: string; readonly help: string; readonly labelNames: string[] },
  read: () => [labels: Record<string, string>, total: number][],
): void {
  const last = new Map<string, number>();
  new Counter({
    ...options,
    registers: [registry],
    collect() {
      for (const [labels, total] of read()) {
        const key = JSON.stringify(labels);
        this.inc(labels, total - (last.get(key) ?? 0));
        last.set(key, total);
      }
    },
  });
}
