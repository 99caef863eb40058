/** The document worker: documents that several people edit at once, served to its peers. */
import "./crdt/no_environment.ts";
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { StateSyncService } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { SyncService } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { createClient } from "@connectrpc/connect";
import { runWorker, type WorkerContext } from "../runtime/run_worker.ts";
import type { StatesyncConfig } from "./config.ts";
import { registerStatesyncMetrics } from "./metrics.ts";
import { createStatesyncModule, type StatesyncService } from "./mod.ts";
import { followSessionEnds } from "./session_ends.ts";
import type { DocumentStore } from "./store.ts";
import { createMemoryStore } from "./stores/memory.ts";
import { DOCUMENTS_FILE, openSqliteStore } from "./stores/sqlite.ts";
import { createSyncHandlers } from "./sync/handlers.ts";

/** How often locks are looked at whose time may be up, in milliseconds. */
const SWEEP_MS = 1_000;
/** How often all locks are read anew where other services share the store. */
const LOCKS_READ_MS = 30_000;
/** How long the session worker is left alone when it cannot be followed. */
const SESSIONS_RETRY_MS = 1_000;

runWorker({
  name: "statesync",
  async start(context) {
    const config = context.config as StatesyncConfig;
    const { clock, log, metrics, random, rpc } = context;
    const store = await openStore(context);
    const { service, handlers, live, close } = createStatesyncModule({
      store,
      config,
      clock,
      random,
      endOfTurn,
      onTrouble: (text, error) => log.error(text, { error }),
    });
    await service.readLocks();
    log.info("the store is open", { engine: config.engine, durability: config.durability });
    const timer = { now: () => clock.now(), after };
    const sync = createSyncHandlers({ live, endOfTurn, timer, log });
    registerStatesyncMetrics(metrics, {
      figures: () => service.figures(),
      stats: () => store.stats(),
      sync: () => sync.figures(),
      counts: () => store.counts(),
    });
    rpc.service(StateSyncService, handlers);
    rpc.service(SyncService, sync.handlers);
    const background = startBackground(context, service);
    return {
      health: () =>
        service.failure === undefined
          ? { ok: true, detail: "" }
          : { ok: false, detail: service.failure.message },
      reconfigure(value) {
        // They are read with each document and each lock that is made; what there is keeps what it was given.
        const { conflictPolicy, lockTtlMs } = value as StatesyncConfig;
        Object.assign(config, { conflictPolicy, lockTtlMs });
      },
      async drain() {
        await background.stop();
        await close();
      },
    };
  },
});

/** Sweeps locks and follows sessions until it is stopped. */
function startBackground(
  { log, peers, config }: WorkerContext,
  service: StatesyncService,
): { stop(): Promise<void> } {
  const running = new Set<Promise<void>>();
  const run = (text: string, work: () => Promise<void>) => {
    const done = work().catch((error) => log.error(text, { error })).finally(() => running.delete(done));
    running.add(done);
  };
  let isSweeping = false;
  const sweep = setInterval(() => {
    if (isSweeping) return;
    isSweeping = true;
    run("sweeping locks failed", () => service.sweepLocks().finally(() => isSweeping = false));
  }, SWEEP_MS);
  const read = (config as StatesyncConfig).engine !== "postgres"
    ? undefined
    : setInterval(() => run("reading locks failed", () => service.readLocks()), LOCKS_READ_MS);
  const stopping = new AbortController();
  run("following sessions failed", () =>
    followSessionEnds({
      sessions: createClient(SessionService, peers.transport("session")),
      service,
      pause: (signal) => pause(SESSIONS_RETRY_MS, signal),
      log,
    }, stopping.signal));
  return {
    async stop() {
      clearInterval(sweep);
      clearInterval(read);
      stopping.abort();
      await Promise.all(running);
    },
  };
}

function endOfTurn(run: () => void): void {
  setImmediate(run);
}

function after(delayMs: number, run: () => void): () => void {
  const timer = setTimeout(run, delayMs);
  return () => clearTimeout(timer);
}

/** Resolves after `ms`, or when the signal aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}

/** The store of the configuration. */
async function openStore({ config, clock, dataDirectory }: WorkerContext): Promise<DocumentStore> {
  const { engine, durability, intervalMs } = config as StatesyncConfig;
  switch (engine) {
    case "memory":
      return createMemoryStore();
    case "sqlite": {
      if (dataDirectory === undefined) throw new Error("the document worker was given no data folder");
      await Deno.mkdir(dataDirectory, { recursive: true });
      return openSqliteStore({ path: `${dataDirectory}/${DOCUMENTS_FILE}`, durability, intervalMs, clock });
    }
    case "postgres": {
      // Only here is its client loaded: other engines need none of it.
      const { openPostgresStore } = await import("./stores/postgres.ts");
      return await openPostgresStore({ postgres: (config as StatesyncConfig).postgres, clock });
    }
  }
}
