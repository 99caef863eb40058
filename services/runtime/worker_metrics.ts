/** Figures that every worker has: calls it serves, how long its event loop keeps work waiting, its heap. */
import type { RpcServerStats } from "../../transport/rpc/mod.ts";
import { Histogram, registerFigures, type Registry } from "./metrics.ts";

/** How often the event loop is looked at, in milliseconds: a hundred looks a second would cost more than they tell, and a
 *  pause that matters is met by one of four a second soon. */
export const LOOP_PROBE_MS = 250;

/** Seconds, from 1 ms to 4 s: below is a timer's own inaccuracy, above the host takes the worker for hung. */
const DELAY_BUCKETS = Array.from({ length: 13 }, (_, i) => 0.001 * 2 ** i);

/** Where they come from. */
export interface WorkerMetricsSources {
  rpc(): RpcServerStats;
  /** Calls that ended with an error which their handler did not mean. */
  faults(): number;
  heapBytes(): number;
  now(): number;
  /** Calls `tick` every `ms`. */
  every(ms: number, tick: () => void): void;
}

/** Registers the figures and begins to look at the event loop. */
export function registerWorkerMetrics(registry: Registry, sources: WorkerMetricsSources): void {
  registerFigures(registry, {
    counters: {
      accepted: ["aetherflow_rpc_calls_total", "Calls taken from other workers."],
      refused: [
        "aetherflow_rpc_refused_total",
        "Calls refused since too many ran, or the worker was stopping.",
      ],
      failed: ["aetherflow_rpc_failed_total", "Calls that ended with another code than success."],
      faults: ["aetherflow_rpc_faults_total", "Calls that failed on a mistake of ours; the log has each."],
    },
    gauges: {
      running: ["aetherflow_rpc_running", "Calls under way."],
      heapBytes: ["aetherflow_worker_heap_bytes", "Heap that the worker's thread uses."],
    },
  }, () => ({ ...sources.rpc(), faults: sources.faults(), heapBytes: sources.heapBytes() }));
  const delays = new Histogram({
    name: "aetherflow_worker_event_loop_delay_seconds",
    help: "How late a timer of the worker fires.",
    buckets: DELAY_BUCKETS,
    registers: [registry],
  });
  let dueAtMs = sources.now() + LOOP_PROBE_MS;
  sources.every(LOOP_PROBE_MS, () => {
    const nowMs = sources.now();
    delays.observe(Math.max(0, nowMs - dueAtMs) / 1_000);
    dueAtMs = nowMs + LOOP_PROBE_MS;
  });
}
