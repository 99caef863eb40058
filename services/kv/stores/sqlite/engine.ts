/** The SQLite engine: every row in one file, the index of keys in memory or in the file too. */
import { type Database, openDatabase } from "../../../../storage/sqlite/mod.ts";
import type { EngineSeeds, KvEngine } from "../../engine.ts";
import { DiskIndex, measureIndex } from "./disk_index.ts";
import { openMemoryIndex } from "./memory_index.ts";
import { SqliteStore, type SqliteStoreOptions } from "./store.ts";
import {
  APPLICATION_ID,
  createIndex,
  createTables,
  dropIndex,
  FORMAT_VERSION,
  hasIndex,
  Meta,
  readEntries,
} from "./tables.ts";

/** Name of the file in the store's folder. */
export const SQLITE_FILE = "kv.sqlite";

/** How to open the engine. */
export interface SqliteEngineOptions extends SqliteStoreOptions {
  /** The file; SQLite keeps `<path>-wal` beside it. */
  readonly path: string;
  /** Where keys are found: `memory` is fast and takes about 150 bytes of memory a key, `disk` takes none. May be changed
   *  between two openings; the first one with `disk` makes the index. */
  readonly index: "memory" | "disk";
  readonly pageBytes: number;
  readonly cacheBytes: number;
  /** For tests of a full disk. */
  readonly maxPages?: number;
}

/** An engine whose store can give unused space back. */
export interface SqliteEngine extends KvEngine {
  readonly store: SqliteStore;
}

/** Opens (or makes) the file.
 *  @throws {SqliteError} `in_use`, `damaged`, `version`, `full`, `io`. */
export function openSqliteEngine(options: SqliteEngineOptions, seeds: EngineSeeds): SqliteEngine {
  const { path, pageBytes, cacheBytes, maxPages } = options;
  const database = openDatabase({
    path,
    applicationId: APPLICATION_ID,
    formatVersion: FORMAT_VERSION,
    pageBytes,
    cacheBytes,
    isSynced: options.durability === "always",
    create: (database) => createTables(database, seeds.identity),
    ...(maxPages === undefined ? {} : { maxPages }),
  });
  try {
    chooseIndex(database, options.index);
    const store = new SqliteStore(database, options);
    const state = options.index === "disk"
      ? store.writer = new DiskIndex(database, store)
      : openMemoryIndex(database, store, seeds.hash);
    const space = {
      get reservedBytes() {
        return store.stats().segmentBytes;
      },
      defragment: (pause: () => Promise<void>) => store.defragment(pause),
    };
    return { state, store, space, entries: readEntries(database), identity: new Meta(database).identity };
  } catch (error) {
    database.close();
    throw error;
  }
}

function chooseIndex(database: Database, index: "memory" | "disk"): void {
  if (hasIndex(database) === (index === "disk")) return;
  database.begin();
  if (index === "disk") {
    createIndex(database);
    measureIndex(database);
  } else dropIndex(database);
  database.commit();
}
