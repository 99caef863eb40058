/** The kv worker: the store on the log in its data folder, served to its peers. */
import { runWorker } from "../runtime/run_worker.ts";
import type { KvConfig } from "./config.ts";
import { startLeaseTimer } from "./lease_timer.ts";
import { registerKvMetrics, registerLeaseMetrics } from "./metrics.ts";
import { createKvModule } from "./mod.ts";
import { serveAll } from "./served.ts";
import { openLogStore } from "./stores/log.ts";

runWorker({
  name: "kv",
  async start(context) {
    const config = context.config as KvConfig;
    const directory = context.dataDirectory;
    if (directory === undefined) throw new Error("the kv worker was given no data folder");
    const { durability, intervalMs, segmentBytes } = config;
    const startedMs = context.clock.now();
    const { service, store, leases, handlers, close } = await createKvModule({
      openStore: (replay) =>
        openLogStore({ directory, durability, intervalMs, segmentBytes, clock: context.clock }, replay),
      config,
      random: context.random,
      log: context.log,
      clock: context.clock,
      pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
    });
    context.log.info("the store is open", {
      directory,
      durability,
      keys: service.figures().keys,
      revision: service.revision,
      recoveryMs: Math.round(context.clock.now() - startedMs),
    });
    registerKvMetrics(context.metrics, {
      figures: () => service.figures(),
      stats: () => store.stats(),
    });
    registerLeaseMetrics(context.metrics, () => leases.figures());
    const stopLeases = startLeaseTimer(leases, {
      clock: context.clock,
      log: context.log,
      checkpointIntervalMs: config.lease.checkpointIntervalMs,
    });
    serveAll(context.rpc, handlers);
    const progress = setInterval(() => service.tickProgress(), config.watch.progressIntervalMs);
    return {
      health: () =>
        service.failure === undefined
          ? { ok: true, detail: "" }
          : { ok: false, detail: `read-only: ${service.failure.message}` },
      async drain() {
        clearInterval(progress);
        stopLeases();
        await close();
      },
    };
  },
});
