/** Records in an embedded database, with all of them in memory too: every request looks some up, few change any. */
import { openDatabase } from "../../../storage/sqlite/mod.ts";
import { AuthError } from "../auth/errors.ts";
import type { RecordStore, StoredRecord } from "../auth/records.ts";
import { type CommittedRecords, MemoryRecords } from "./records_memory.ts";

/** Name of the file in the session worker's folder. */
export const RECORDS_FILE = "users.sqlite";

/** `AFus`, so that the file is not taken for another one. */
const APPLICATION_ID = 0x41467573;
const FORMAT_VERSION = 1;
/** Records are read once, at the start: pages need no room. */
const CACHE_BYTES = 1_024 * 1_024;
const PAGE_BYTES = 4_096;

/** Opens (or makes) the file. Each commit is synced before it is seen or acknowledged, whatever sessions promise: users
 *  change rarely, and what was revoked must stay revoked.
 *  `maxPages` is for tests of a full file.
 *  @throws {SqliteError} */
export function openSqliteRecords(
  options: { readonly path: string; readonly maxPages?: number },
): RecordStore {
  const database = openDatabase({
    ...options,
    applicationId: APPLICATION_ID,
    formatVersion: FORMAT_VERSION,
    pageBytes: PAGE_BYTES,
    cacheBytes: CACHE_BYTES,
    isSynced: true,
    create(database) {
      database.execute(
        "CREATE TABLE records (key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID, STRICT",
      );
      database.execute(
        "CREATE TABLE counter (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL) STRICT",
      );
      database.execute("INSERT INTO counter VALUES (1, 0)");
    },
  });
  const write = database.prepare(
    "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version",
  );
  const remove = database.prepare("DELETE FROM records WHERE key = ?");
  const count = database.prepare("UPDATE counter SET version = ?");

  function keep({ written, removed, version }: CommittedRecords): void {
    database.begin();
    try {
      for (const record of written) write.run(record.key, record.value, record.version);
      for (const key of removed) remove.run(key);
      count.run(version);
      database.commit();
    } catch (error) {
      database.rollback();
      throw new AuthError("unavailable", "the database failed", { cause: error });
    }
  }

  const records = database.prepare("SELECT key, value, version FROM records").all()
    .map(([key, value, version]) => ({ key, value, version }) as StoredRecord);
  const version = database.prepare("SELECT version FROM counter").get()![0] as number;
  const view = new MemoryRecords(records, version, keep);
  return {
    isShared: false,
    get: (key) => view.get(key),
    list: (prefix, after, limit) => view.list(prefix, after, limit),
    commit: (changes) => view.commit(changes),
    close: () => database.close(),
  };
}
