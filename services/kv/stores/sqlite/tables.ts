/** The tables of a store's file, and what is kept about the store as a whole.
 *
 *      rows     every change of a key, in the order in which they were written: id is its place in history
 *      heads    the newest row of every key            ┐ only with the index on disk: made from `rows` when it is chosen,
 *      olds     the rows that newer ones superseded    ┘ dropped when it no longer is
 *      entries  what is kept under names besides the keys
 *      meta     the numbers below
 *
 *  A row of version 0 is a deletion. A lease is NULL for none. `size` in the index is the value's length, -1 for a
 *  deletion. */
import type { Database, SqlRow, SqlValue, Statement } from "../../../../storage/sqlite/mod.ts";
import type { Identity } from "../../record.ts";

/** "AFKV": says in the file's header whose it is. */
export const APPLICATION_ID = 0x4146_4b56;
/** Version of these tables. */
export const FORMAT_VERSION = 1;

/** Makes the tables of a new file. */
export function createTables(database: Database, identity: Identity): void {
  database.execute(`
    CREATE TABLE rows(id INTEGER PRIMARY KEY, mod INTEGER NOT NULL, sub INTEGER NOT NULL, created INTEGER NOT NULL,
      version INTEGER NOT NULL, lease INTEGER, key BLOB NOT NULL, value BLOB);
    CREATE TABLE entries(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
  `);
  const meta = new Meta(database);
  meta.set("cluster_id", String(identity.clusterId));
  meta.set("member_id", String(identity.memberId));
}

const INDEX_COLUMNS = "key BLOB NOT NULL, mod INTEGER NOT NULL, id INTEGER NOT NULL, sub INTEGER NOT NULL, " +
  "created INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER, size INTEGER NOT NULL";

/** Whether the file has the index of keys. */
export function hasIndex(database: Database): boolean {
  return database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'heads'").get() !== undefined;
}

/** Makes the index from the rows. Takes time and disk in proportion to them. */
export function createIndex(database: Database): void {
  const columns = "key, mod, id, sub, created, version, lease, " +
    "CASE version WHEN 0 THEN -1 ELSE length(value) END";
  database.execute(`
    CREATE TABLE heads(${INDEX_COLUMNS}, PRIMARY KEY (key)) WITHOUT ROWID;
    CREATE TABLE olds(${INDEX_COLUMNS}, PRIMARY KEY (key, mod)) WITHOUT ROWID;
    CREATE INDEX leased ON heads(key) WHERE lease IS NOT NULL;
    INSERT INTO heads SELECT ${columns} FROM rows WHERE true ORDER BY id
      ON CONFLICT(key) DO UPDATE SET mod = excluded.mod, id = excluded.id, sub = excluded.sub,
        created = excluded.created, version = excluded.version, lease = excluded.lease, size = excluded.size;
    INSERT INTO olds SELECT ${columns} FROM rows
      WHERE id <> (SELECT heads.id FROM heads WHERE heads.key = rows.key) ORDER BY id;
  `);
}

/** Takes the index away. */
export function dropIndex(database: Database): void {
  database.execute("DROP TABLE heads; DROP TABLE olds");
}

/** Numbers and texts about the store as a whole. */
export class Meta {
  readonly #set: Statement;
  readonly #get: Statement;

  constructor(database: Database) {
    this.#set = database.prepare(
      "INSERT INTO meta VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
    );
    this.#get = database.prepare("SELECT value FROM meta WHERE name = ?");
  }

  set(name: string, value: SqlValue): void {
    this.#set.run(name, value);
  }

  number(name: string): number {
    return (this.#get.get(name)?.[0] ?? 0) as number;
  }

  get identity(): Identity {
    return { clusterId: this.#id("cluster_id"), memberId: this.#id("member_id") };
  }

  #id(name: string): bigint {
    return BigInt(this.#get.get(name)![0] as string);
  }
}

/** Everything in `entries`. */
export function readEntries(database: Database): Map<string, Uint8Array> {
  const rows = database.prepare("SELECT name, value FROM entries").all();
  return new Map(rows.map(([name, value]) => [name as string, value as Uint8Array]));
}

/** Id of the newest row, and the newest revision; 0 and 1 when nothing was written. A store that was restored may have
 *  been compacted at a revision of which there is no row any more. */
export function readNewest(database: Database): { id: number; revision: number } {
  const row: SqlRow | undefined = database.prepare("SELECT id, mod FROM rows ORDER BY id DESC LIMIT 1").get();
  const compacted = new Meta(database).number("compact_revision");
  return row === undefined
    ? { id: 0, revision: Math.max(1, compacted) }
    : { id: row[0] as number, revision: Math.max(row[1] as number, compacted) };
}

/** A lease as it is bound. */
export function leaseToSql(lease: bigint): bigint | null {
  return lease === 0n ? null : lease;
}

/** A lease that was selected as `CAST(lease AS TEXT)`: as a number it would lose digits. */
export function leaseOfSql(text: SqlValue): bigint {
  return text === null ? 0n : BigInt(text as string);
}
