/** Fills a new file with the content of a backup: rows as they come, in the order in which they were written. */
import { openDatabase } from "../../../../storage/sqlite/mod.ts";
import type { Identity } from "../../record.ts";
import type { EtcdFileReader, FileRow } from "../etcd_file.ts";
import { APPLICATION_ID, createTables, FORMAT_VERSION, leaseToSql, Meta } from "./tables.ts";

/** Rows of one transaction: enough that the transaction costs nothing, few enough that it is small. */
const GROUP_ROWS = 10_000;
const CACHE_BYTES = 64 * 1_024 * 1_024;

/** A file that is being filled. */
export interface SqliteImport extends EtcdFileReader {
  /** Keys that are live. */
  readonly keys: number;
  /** Makes the file whole and lets go of it. Idempotent. */
  close(): void;
}

/** Makes the file at `path`, which must not be there.
 *  @throws {SqliteError} here and by every method. */
export function openSqliteImport(path: string, pageBytes: number, identity: Identity): SqliteImport {
  const database = openDatabase({
    path,
    applicationId: APPLICATION_ID,
    formatVersion: FORMAT_VERSION,
    pageBytes,
    cacheBytes: CACHE_BYTES,
    isSynced: true,
    create: (made) => createTables(made, identity),
  });
  const insert = database.prepare("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  const setEntry = database.prepare("INSERT INTO entries VALUES (?, ?)");
  const meta = new Meta(database);
  let id = 0;
  let compacted = 0;
  let isOpen = true;
  return {
    get keys() {
      const live = "SELECT count(*) FROM (SELECT version, max(id) FROM rows GROUP BY key) WHERE version > 0";
      return database.prepare(live).get()![0] as number;
    },
    begin(compactRevision) {
      database.begin();
      compacted = compactRevision;
      if (compactRevision > 0) meta.set("compact_revision", compactRevision);
    },
    row({ key, value, modRevision, sub, createRevision, version, lease }: FileRow) {
      insert.run(++id, modRevision, sub, createRevision, version, leaseToSql(lease), key, value ?? null);
      if (id % GROUP_ROWS !== 0) return;
      database.commit();
      database.begin();
    },
    entry: (name, value) => void setEntry.run(name, value),
    end() {
      // An etcd that was in the middle of a compaction has rows that are superseded by then.
      database.prepare(
        "DELETE FROM rows WHERE id IN (SELECT id FROM (SELECT id, mod, version, lead(id) OVER (PARTITION BY key " +
          "ORDER BY id) AS next FROM rows WHERE mod <= ?1) WHERE next IS NOT NULL OR (version = 0 AND mod < ?1))",
      ).run(compacted);
      database.commit();
    },
    close() {
      if (!isOpen) return;
      isOpen = false;
      database.close();
    },
  };
}
