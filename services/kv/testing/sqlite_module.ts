/** The service on SQLite with a configuration that compacts often, for tests of its failures. */
import { createManualClock } from "../../runtime/clock.ts";
import { kvConfigSchema } from "../config.ts";
import { createKvModule, type KvModule } from "../mod.ts";
import { openSqliteEngine } from "../stores/sqlite/engine.ts";

/** How to open. */
export interface SqliteModuleOptions {
  readonly path: string;
  readonly index: "memory" | "disk";
  readonly durability?: "always" | "interval" | "none";
  readonly maxPages?: number;
  readonly retainRevisions?: number;
}

export function openSqliteModule(options: SqliteModuleOptions): Promise<KvModule> {
  const { path, index, durability = "always", maxPages, retainRevisions = 40 } = options;
  return createKvModule({
    openEngine: async (seeds) => {
      await Promise.resolve();
      return openSqliteEngine({
        path,
        index,
        pageBytes: 4_096,
        // The least there is: what does not fit in it is written before the commit.
        cacheBytes: 16 * 4_096,
        durability,
        intervalMs: 1,
        ...(maxPages === undefined ? {} : { maxPages }),
      }, seeds);
    },
    config: kvConfigSchema.parse({ retainRevisions }),
    random: { fill: (target) => target.fill(3) },
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause: () => Promise.resolve(),
  });
}
