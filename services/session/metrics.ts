/** The sessions' figures for the worker's registry. */
import { Gauge, registerFigures, type Registry } from "../runtime/metrics.ts";
import type { SessionFigures } from "./service.ts";
import { LIVE_STATES } from "./state.ts";
import type { Awaitable, SessionCounts, SessionStoreStats } from "./store.ts";

type Figures = SessionFigures & SessionStoreStats;

const GAUGES = {
  watchers: ["aetherflow_session_watchers", "Watchers of session events."],
} as const satisfies Partial<Record<keyof Figures, readonly [string, string]>>;

const COUNTERS = {
  created: ["aetherflow_session_created_total", "Sessions opened."],
  updated: ["aetherflow_session_updated_total", "Changes of sessions, of their state by use included."],
  ended: ["aetherflow_session_ended_total", "Sessions ended by their owners, by administrators or for room."],
  expired: ["aetherflow_session_expired_total", "Sessions that ran out."],
  heartbeats: ["aetherflow_session_heartbeats_total", "Heartbeats."],
  verified: ["aetherflow_session_verified_total", "Tokens that stood for a session."],
  verifyFailures: ["aetherflow_session_verify_failures_total", "Tokens that stood for none."],
  revocations: ["aetherflow_session_revocations_total", "Revocations of all sessions of a user."],
  groups: ["aetherflow_session_store_groups_total", "Group commits of the database, or answers of Redis."],
  groupSeconds: ["aetherflow_session_store_seconds_total", "Time spent waiting for them."],
  writes: ["aetherflow_session_store_writes_total", "Rows written, or commands sent."],
  failures: ["aetherflow_session_store_failures_total", "Operations of the store that failed."],
} as const satisfies Partial<Record<keyof Figures, readonly [string, string]>>;

/** What is measured. */
export interface SessionMetricsSources {
  figures(): SessionFigures;
  stats(): SessionStoreStats;
  count(): Awaitable<SessionCounts>;
}

/** Adds the figures to a registry; they are read when the registry is. */
export function registerSessionMetrics(registry: Registry, sources: SessionMetricsSources): void {
  const read = (): Figures => ({ ...sources.figures(), ...sources.stats() });
  registerFigures(registry, { counters: COUNTERS, gauges: GAUGES }, read);
  new Gauge({
    name: "aetherflow_session_sessions",
    help: "Live sessions by state; none while the store cannot be asked.",
    labelNames: ["state"],
    registers: [registry],
    async collect() {
      this.reset();
      const counts = await Promise.resolve(sources.count()).catch(() => undefined);
      if (counts === undefined) return;
      for (const state of LIVE_STATES) this.set({ state }, counts[state] ?? 0);
    },
  });
}
