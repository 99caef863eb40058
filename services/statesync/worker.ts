/** The document worker: keeps documents, served to its peers. */
import { runWorker, type WorkerContext } from "../runtime/run_worker.ts";
import type { StatesyncConfig } from "./config.ts";
import type { DocumentStore } from "./store.ts";
import { createMemoryStore } from "./stores/memory.ts";
import { DOCUMENTS_FILE, openSqliteStore } from "./stores/sqlite.ts";

runWorker({
  name: "statesync",
  async start(context) {
    const store = await openStore(context);
    return {
      health: () =>
        store.failure === undefined ? { ok: true, detail: "" } : { ok: false, detail: store.failure.message },
      drain: () => store.close(),
    };
  },
});

/** The store of the configuration. */
async function openStore({ config, clock, dataDirectory }: WorkerContext): Promise<DocumentStore> {
  const { engine, durability, intervalMs } = config as StatesyncConfig;
  switch (engine) {
    case "memory":
      return createMemoryStore();
    case "sqlite":
      if (dataDirectory === undefined) throw new Error("the document worker was given no data folder");
      await Deno.mkdir(dataDirectory, { recursive: true });
      return openSqliteStore({ path: `${dataDirectory}/${DOCUMENTS_FILE}`, durability, intervalMs, clock });
    case "postgres":
      throw new Error("the document worker was built without PostgreSQL");
  }
}
