/** The kv worker: the store on the engine that the configuration chooses, served to its peers. */
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { RedisService } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import { openTemporaryFiles } from "../../storage/temporary/mod.ts";
import { randomFraction } from "../runtime/random.ts";
import { runWorker, type WorkerContext, type WorkerModule } from "../runtime/run_worker.ts";
import { isTracing } from "../runtime/tracing.ts";
import { VERSION } from "../runtime/version.ts";
import { ClusterBackend, createClusterGuard, guardCluster } from "./auth/cluster_guard.ts";
import { ProductUsers } from "./auth/product_users.ts";
import type { KvConfig, KvWorkerConfig } from "./config.ts";
import { startCompactionTimer } from "./maintenance/compaction_timer.ts";
import { memoryEngine, type OpenEngine } from "./engine.ts";
import { startLeaseTimer } from "./lease/lease_timer.ts";
import { registerAlarmMetrics, registerKvMetrics, registerLeaseMetrics } from "./metrics.ts";
import { createKvModule } from "./mod.ts";
import { createRedisModule, type RedisDeps } from "./resp/mod.ts";
import { createEntryHandlers } from "./rpc_entries.ts";
import { serveAll } from "./served.ts";
import { openLogStore } from "./stores/log.ts";
import { tracedStore } from "./stores/traced.ts";
import { openSqliteEngine, SQLITE_FILE } from "./stores/sqlite/engine.ts";

runWorker({
  name: "kv",
  async start(context) {
    const config = context.config as KvConfig;
    if (config.engine === "etcd") return await startOnEtcd(context);
    const directory = context.dataDirectory;
    if (directory === undefined) throw new Error("the kv worker was given no data folder");
    const { durability } = config;
    const startedMs = context.clock.now();
    const spool = await openTemporaryFiles(`${directory}/spool`);
    const { service, store, alarms, leases, auth, backend, handlers, close } = await createKvModule({
      openBackupFile: () => spool.create(),
      openEngine: traced(chooseEngine(context, directory), config.engine),
      config,
      random: context.random,
      log: context.log,
      clock: context.clock,
      pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
    });
    context.log.info("the store is open", {
      directory,
      engine: config.engine,
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
    registerAlarmMetrics(context.metrics, () => ({ alarms: alarms.list(0).length }));
    const stopLeases = startLeaseTimer(leases, {
      clock: context.clock,
      log: context.log,
      checkpointIntervalMs: config.lease.checkpointIntervalMs,
    });
    const stopCompaction = startCompactionTimer(service, {
      every(ms, run) {
        const timer = setInterval(run, ms);
        return () => clearInterval(timer);
      },
      clock: context.clock,
      log: context.log,
      config: config.autoCompaction,
    });
    serveAll(context.rpc, handlers);
    const closeRedis = serveRedis(context, {
      backend,
      isAuthEnabled: () => auth.isEnabled,
      startsInOrder: true,
      figures: () => ({
        bytes: service.figures().bytes,
        quotaBytes: config.quotaBytes,
        durability,
        engine: config.engine,
        isWritable: service.failure === undefined,
        version: VERSION,
      }),
    });
    const progress = setInterval(() => service.tickProgress(), config.watch.progressIntervalMs);
    return {
      health: () =>
        service.failure === undefined
          ? { ok: true, detail: "" }
          : { ok: false, detail: `read-only: ${service.failure.message}` },
      async drain() {
        clearInterval(progress);
        stopLeases();
        stopCompaction();
        closeRedis();
        await close();
      },
    };
  },
});

/** The embedded engine of the configuration, on the worker's folder. */
function chooseEngine({ config, clock }: WorkerContext, directory: string): OpenEngine {
  const { engine, durability, intervalMs, segmentBytes, sqlite } = config as KvConfig;
  if (engine !== "sqlite") {
    return memoryEngine((replay) =>
      openLogStore({ directory, durability, intervalMs, segmentBytes, clock }, replay)
    );
  }
  return async (seeds) => {
    await Deno.mkdir(directory, { recursive: true });
    const path = `${directory}/${SQLITE_FILE}`;
    return openSqliteEngine({ path, durability, intervalMs, clock, ...sqlite }, seeds);
  };
}

/** The engine with spans over its writes, where spans go somewhere. */
function traced(open: OpenEngine, name: string): OpenEngine {
  if (!isTracing()) return open;
  return async (seeds) => {
    const engine = await open(seeds);
    return { ...engine, store: tracedStore(engine.store, name) };
  };
}

/** Serves an existing etcd cluster. Only here is its client loaded: other engines need none of it. */
async function startOnEtcd(context: WorkerContext): Promise<WorkerModule> {
  const config = context.config as KvWorkerConfig;
  const { openEtcdEngine } = await import("./stores/etcd/mod.ts");
  const engine = openEtcdEngine({
    config,
    ...(config.etcdTlsTexts === undefined ? {} : { tlsTexts: config.etcdTlsTexts }),
    clock: context.clock,
    fraction: () => randomFraction(context.random),
    log: context.log,
  });
  const { random, clock } = context;
  const guard = createClusterGuard({ limits: config.auth, random, clock });
  const backend = new ClusterBackend(engine.backend, guard);
  for (const [service, handlers] of engine.services) {
    context.rpc.service(service, guardCluster(guard, service, handlers));
  }
  context.rpc.service(
    KeyValueService,
    createEntryHandlers({
      backend,
      pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
      maxKeyBytes: config.maxKeyBytes,
      maxValueBytes: config.maxValueBytes,
    }),
  );
  const closeRedis = serveRedis(context, {
    backend,
    isAuthEnabled: () => false,
    startsInOrder: false,
    figures: () => ({
      bytes: 0,
      quotaBytes: 0,
      durability: "always",
      engine: config.engine,
      isWritable: true,
      version: VERSION,
    }),
  });
  return {
    health: () => engine.health(),
    drain() {
      closeRedis();
      engine.close();
      return Promise.resolve();
    },
  };
}

/** Serves Redis's clients, whose connections the gateways pass on. The returned function ends what it does by itself. */
function serveRedis(
  context: WorkerContext,
  parts: Pick<RedisDeps, "backend" | "isAuthEnabled" | "startsInOrder" | "figures">,
): () => void {
  const { redis, maxValueBytes } = context.config as KvConfig;
  const products = new ProductUsers({
    transport: () => context.peers.transport("session"),
    clock: context.clock,
    after(delayMs, fn) {
      const timer = setTimeout(fn, delayMs);
      return () => clearTimeout(timer);
    },
  });
  const { handlers } = createRedisModule({
    ...parts,
    products,
    keyPrefix: new TextEncoder().encode(redis.keyPrefix),
    limits: { valueBytesMax: maxValueBytes, outputBytesMax: redis.outputBytesMax },
    clock: { nowMs: () => Date.now() },
    endOfTurn: (fn) => void setImmediate(fn),
    random: context.random,
    log: context.log,
  });
  context.rpc.service(RedisService, handlers);
  return () => products.close();
}
