/** The session worker: sessions, users and tokens, served to its peers. */
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { runWorker, type WorkerContext } from "../runtime/run_worker.ts";
import { isTracing } from "../runtime/tracing.ts";
import { serveAuth } from "./auth/serve.ts";
import { redisAddresses, type SessionConfig } from "./config.ts";
import { registerSessionMetrics } from "./metrics.ts";
import { createSessionModule } from "./mod.ts";
import type { SessionStore } from "./store.ts";
import { createMemoryStore } from "./stores/memory.ts";
import { createRedisStore } from "./stores/redis.ts";
import { SESSION_SCRIPTS } from "./stores/redis_scripts.ts";
import { openSqliteStore, SESSIONS_FILE } from "./stores/sqlite.ts";
import { tracedStore } from "./stores/traced.ts";

/** How long a user's epoch outlives the longest session. */
const EPOCHS_KEPT_EXTRA_MS = 86_400_000;

runWorker({
  name: "session",
  async start(context) {
    const config = context.config as SessionConfig;
    const { clock, log, metrics, random, rpc } = context;
    const untraced = await openStore(context);
    const store = isTracing() ? tracedStore(untraced, config.engine) : untraced;
    const { service, handlers, close } = createSessionModule({ store, config, clock, random, pause });
    log.info("the store is open", { engine: config.engine, durability: config.durability });
    registerSessionMetrics(metrics, {
      figures: () => service.figures(),
      stats: () => store.stats(),
      count: () => service.count(),
    });
    rpc.service(SessionService, handlers);
    const auth = await serveAuth(context, service, makePrivate);
    const sweep = setInterval(() => {
      service.sweep().catch((error) => log.error("the sweep failed", { error }));
    }, config.sweepIntervalMs);
    return {
      health: () =>
        service.failure === undefined
          ? { ok: true, detail: "" }
          : { ok: false, detail: service.failure.message },
      reconfigure(value) {
        // They are read with each session and each token that is made; what there is keeps the times it was given.
        const { idleTimeoutMs, auth: { accessTokenMs, refreshTokenMs, refreshGraceMs } } =
          value as SessionConfig;
        config.idleTimeoutMs = idleTimeoutMs;
        Object.assign(config.auth, { accessTokenMs, refreshTokenMs, refreshGraceMs });
      },
      async drain() {
        clearInterval(sweep);
        await auth.close();
        await close();
      },
    };
  },
});

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Makes a file that only its owner may read, if it is not there. */
async function makePrivate(path: string): Promise<void> {
  (await Deno.open(path, { create: true, write: true, mode: 0o600 })).close();
}

/** The store of the configuration. */
async function openStore(
  { config, clock, dataDirectory, log, random }: WorkerContext,
): Promise<SessionStore> {
  const { engine, durability, intervalMs, sessionsMax, perUserMax, absoluteTimeoutMs, redis } =
    config as SessionConfig;
  const seed = new DataView(random.fill(new Uint8Array(4)).buffer).getUint32(0);
  const epochsKeptMs = absoluteTimeoutMs + EPOCHS_KEPT_EXTRA_MS;
  const bounds = { sessionsMax, perUserMax, seed };
  switch (engine) {
    case "memory":
      return createMemoryStore(bounds);
    case "sqlite": {
      if (dataDirectory === undefined) throw new Error("the session worker was given no data folder");
      await Deno.mkdir(dataDirectory, { recursive: true });
      return openSqliteStore({
        ...bounds,
        path: `${dataDirectory}/${SESSIONS_FILE}`,
        durability,
        intervalMs,
        nowMs: clock.wallMs(),
        epochsKeptMs,
        clock,
      });
    }
    case "redis": {
      // Only here is its client loaded: other engines need none of it.
      const { openRedisClient } = await import("../../storage/redis/mod.ts");
      const client = await openRedisClient({
        ...redis,
        nodes: redisAddresses(config as SessionConfig),
        onState: (isReady, reason) => {
          if (isReady) log.info("connected to Redis");
          else log.error("the connection to Redis is lost", { reason });
        },
      }, SESSION_SCRIPTS);
      return createRedisStore(client, { ...redis, ...bounds, epochsKeptMs, clock });
    }
  }
}
