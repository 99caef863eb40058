/** One SQLite file and the one connection to it: opened safely, with statements that answer in arrays. */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { SqliteError, sqliteFailure } from "./errors.ts";

/** How to open. */
export interface DatabaseOptions {
  /** The file; made when it is not there, unless it is ":memory:". Beside it SQLite keeps `<path>-wal`. */
  readonly path: string;
  /** Marks the file as this program's: 31 bits, the same for every version. */
  readonly applicationId: number;
  /** Version of the tables. A new file gets it; any other version is refused. */
  readonly formatVersion: number;
  /** Page size of a new file: a power of two, 512 to 65,536. */
  readonly pageBytes: number;
  /** Memory for pages. */
  readonly cacheBytes: number;
  /** Whether every commit is synced. Without, a loss of power takes the last commits, and never damages the file. */
  readonly isSynced: boolean;
  /** Makes the tables of a new file. */
  readonly create: (database: Database) => void;
  /** Most pages the file may have, for tests of a full one; SQLite's own limit when left out. */
  readonly maxPages?: number;
}

/** A value to bind. Numbers must be whole or they become reals. */
export type SqlValue = number | bigint | string | Uint8Array | null;
/** One row of an answer. */
export type SqlRow = readonly SqlValue[];

/** Pages of the write-ahead log after which a commit itself moves them to the file, if the owner did not: a bound of the
 *  log's size, not the usual way. */
const WAL_PAGES_MAX = 32_768;
/** Bytes to which the log's file is cut when it is started anew. */
const WAL_KEPT_BYTES = 64 * 1_024 * 1_024;

/** Opens (or makes) a file. It is this connection's alone until `close` or the end of the process.
 *  @throws {SqliteError} */
export function openDatabase(options: DatabaseOptions): Database {
  let raw: DatabaseSync | undefined;
  try {
    raw = new DatabaseSync(options.path);
    const database = new Database(raw, options.path);
    prepareFile(database, options);
    return database;
  } catch (error) {
    raw?.close();
    throw sqliteFailure("open", options.path, error);
  }
}

function prepareFile(database: Database, options: DatabaseOptions): void {
  const { path } = options;
  // Before anything is read: exclusive from the first access on, the log's index is in memory and not in a shared file.
  database.execute("PRAGMA locking_mode = EXCLUSIVE");
  const isNew = isNewFile(database, options);
  if (isNew) {
    database.execute(`PRAGMA page_size = ${options.pageBytes}`);
    database.execute("PRAGMA auto_vacuum = INCREMENTAL");
  }
  database.execute(`PRAGMA cache_size = -${Math.ceil(options.cacheBytes / 1_024)}`);
  // A mapped page that cannot be read is a signal that ends the process, not an error.
  database.execute("PRAGMA mmap_size = 0");
  database.execute("PRAGMA temp_store = MEMORY");
  if (path !== ":memory:" && database.pragma("journal_mode = WAL") !== "wal") {
    throw new SqliteError("io", path, `cannot open ${path}: its file system has no write-ahead log`);
  }
  database.execute(`PRAGMA wal_autocheckpoint = ${WAL_PAGES_MAX}`);
  database.execute(`PRAGMA journal_size_limit = ${WAL_KEPT_BYTES}`);
  if (options.maxPages !== undefined) database.execute(`PRAGMA max_page_count = ${options.maxPages}`);
  database.isSynced = true;
  // Also for a file that is there: it takes the lock.
  database.begin();
  if (isNew) {
    database.execute(`PRAGMA application_id = ${options.applicationId}`);
    database.execute(`PRAGMA user_version = ${options.formatVersion}`);
    options.create(database);
  }
  database.commit();
  database.isSynced = options.isSynced;
}

/** Whether nothing was ever written to the file.
 *  @throws {SqliteError} `version` when something else was. */
function isNewFile(database: Database, { path, applicationId, formatVersion }: DatabaseOptions): boolean {
  const application = database.pragma("application_id");
  if (application === 0 && database.pragma("schema_version") === 0) return true;
  if (application !== applicationId) {
    throw new SqliteError("version", path, `cannot open ${path}: it is another program's file`);
  }
  const version = database.pragma("user_version");
  if (version === formatVersion) return false;
  throw new SqliteError(
    "version",
    path,
    `cannot open ${path}: it has format version ${version}, this program reads ${formatVersion}`,
  );
}

/** An open file. Everything is synchronous: nothing else of the thread runs meanwhile. */
export class Database {
  readonly #raw: DatabaseSync;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  #isSynced = true;
  #isOpen = true;

  /** Use openDatabase. */
  constructor(raw: DatabaseSync, readonly path: string) {
    this.#raw = raw;
    this.#begin = raw.prepare("BEGIN IMMEDIATE");
    this.#commit = raw.prepare("COMMIT");
  }

  /** A statement, to be kept and used again; it goes with the database. */
  prepare(sql: string): Statement {
    // Deno has the method; the types it ships do not.
    const statement = this.#raw.prepare(sql) as StatementSync & { setReturnArrays(isOn: boolean): void };
    statement.setReturnArrays(true);
    return new Statement(statement, this.path);
  }

  /** Runs statements that answer nothing. @throws {SqliteError} */
  execute(sql: string): void {
    try {
      this.#raw.exec(sql);
    } catch (error) {
      throw sqliteFailure("write", this.path, error);
    }
  }

  /** The first value that `PRAGMA text` answers. */
  pragma(text: string): SqlValue | undefined {
    return this.prepare(`PRAGMA ${text}`).get()?.[0];
  }

  /** Whether a transaction is open. After an error it may have been undone without being asked. */
  get isInTransaction(): boolean {
    return this.#isOpen && this.#raw.isTransaction;
  }

  /** Whether commits are synced; not to be changed in a transaction. */
  get isSynced(): boolean {
    return this.#isSynced;
  }

  set isSynced(isSynced: boolean) {
    this.execute(`PRAGMA synchronous = ${isSynced ? "FULL" : "NORMAL"}`);
    this.#isSynced = isSynced;
  }

  /** Begins a transaction. @throws {SqliteError} */
  begin(): void {
    try {
      this.#begin.run();
    } catch (error) {
      throw sqliteFailure("write", this.path, error);
    }
  }

  /** Makes the transaction permanent; durable too when `isSynced`. After an error none of it is.
   *  @throws {SqliteError} */
  commit(): void {
    try {
      this.#commit.run();
    } catch (error) {
      this.rollback();
      throw sqliteFailure("write", this.path, error);
    }
  }

  /** Undoes the transaction, if there is one. @throws {SqliteError} */
  rollback(): void {
    if (this.isInTransaction) this.execute("ROLLBACK");
  }

  /** Moves what the write-ahead log holds to the file. Not within a transaction. @throws {SqliteError} */
  checkpoint(mode: "PASSIVE" | "TRUNCATE" = "PASSIVE"): void {
    try {
      this.pragma(`wal_checkpoint(${mode})`);
    } catch (error) {
      throw sqliteFailure("write", this.path, error);
    }
  }

  /** Gives up to `pages` unused pages back to the file system, in the transaction if there is one; returns how many are
   *  still unused. */
  releasePages(pages: number): number {
    // It is a statement that makes one step a page.
    this.prepare(`PRAGMA incremental_vacuum(${pages})`).all();
    return this.unusedPages;
  }

  /** Pages without content. */
  get unusedPages(): number {
    return this.pragma("freelist_count") as number;
  }

  /** Size of the file, unused pages included, without the write-ahead log. */
  get fileBytes(): number {
    return (this.pragma("page_count") as number) * (this.pragma("page_size") as number);
  }

  /** Lets go of the file; an open transaction is undone. Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.rollback();
    this.#isOpen = false;
    this.#raw.close();
  }
}

/** A prepared statement. */
export class Statement {
  constructor(readonly raw: StatementSync, readonly path: string) {}

  /** Runs it for its effect; returns how many rows it changed. @throws {SqliteError} */
  run(...values: SqlValue[]): number {
    try {
      return this.raw.run(...values).changes as number;
    } catch (error) {
      throw sqliteFailure("write", this.path, error);
    }
  }

  /** The first row of its answer. @throws {SqliteError} */
  get(...values: SqlValue[]): SqlRow | undefined {
    try {
      return this.raw.get(...values) as SqlRow | undefined;
    } catch (error) {
      throw sqliteFailure("read", this.path, error);
    }
  }

  /** Its whole answer: the statement must bound it. @throws {SqliteError} */
  all(...values: SqlValue[]): SqlRow[] {
    try {
      return this.raw.all(...values) as unknown as SqlRow[];
    } catch (error) {
      throw sqliteFailure("read", this.path, error);
    }
  }
}
