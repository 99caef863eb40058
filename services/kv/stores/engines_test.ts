/** Every embedded engine runs the one suite. */
import { createFaultFs } from "../../../storage/testing/fault_fs.ts";
import { type KvEngine, memoryEngine } from "../engine.ts";
import { type EngineHome, engineSuite, type EngineUnderTest } from "../testing/engine_suite.ts";
import { openLogStore } from "./log.ts";
import { openSqliteEngine } from "./sqlite/engine.ts";

const log: EngineUnderTest = {
  name: "memory and log",
  countsAlike: true,
  trials: 40,
  create() {
    const fs = createFaultFs(1);
    let now = 0;
    const home: EngineHome = {
      open: memoryEngine((replay) =>
        openLogStore({
          fs,
          directory: "/kv",
          durability: "always",
          clock: { now: () => now++, wallMs: () => now },
          salt: () => 7,
        }, replay)
      ),
      async crash(engine) {
        // Handles of an older life do nothing any more.
        fs.restart(false);
        await engine.store.close().catch(() => {});
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
    return Promise.resolve(home);
  },
};

/** The SQLite engine; `indexes` are those of its lives, in turn. */
function sqlite(name: string, indexes: readonly ("memory" | "disk")[]): EngineUnderTest {
  return { name, trials: 25, countsAlike: new Set(indexes).size === 1, create: () => createHome(indexes) };
}

async function createHome(indexes: readonly ("memory" | "disk")[]): Promise<EngineHome> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-kv-" });
  let path = `${directory}/0.sqlite`;
  let lives = 0;
  const opened: KvEngine["store"][] = [];
  return {
    open(seeds) {
      const index = indexes[lives++ % indexes.length]!;
      const engine = openSqliteEngine({
        path,
        index,
        pageBytes: 4_096,
        cacheBytes: 1 << 20,
        durability: "none",
        intervalMs: 100,
      }, seeds);
      opened.push(engine.store);
      return Promise.resolve(engine);
    },
    async crash(engine) {
      // What a killed process leaves is what the files hold at that moment.
      const left = `${directory}/${lives}.sqlite`;
      await Deno.copyFile(path, left);
      await Deno.copyFile(`${path}-wal`, `${left}-wal`);
      await engine.store.close();
      path = left;
    },
    async [Symbol.asyncDispose]() {
      for (const store of opened) await store.close();
      await Deno.remove(directory, { recursive: true });
    },
  };
}

const ENGINES = [
  log,
  sqlite("SQLite, index in memory", ["memory"]),
  sqlite("SQLite, index on disk", ["disk"]),
  sqlite("SQLite, index moved at every start", ["memory", "disk"]),
];

for (const engine of ENGINES) {
  for (const test of engineSuite(engine)) Deno.test(test.name, () => test.run());
}
