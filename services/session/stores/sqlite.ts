/** Sessions in a SQLite file: the writes of one turn of the event loop are one transaction, and one sync.
 *
 *  The tables are read once, when the file is opened; from then on everything is answered from memory (local.ts), which
 *  also has the indexes by token, user and connection. So the file has its primary key alone, and since ids rise with
 *  time, new rows come last. */
import {
  type Database,
  openDatabase,
  SqliteError,
  type SqlRow,
  type Statement,
} from "../../../storage/sqlite/mod.ts";
import { SessionError } from "../errors.ts";
import { expiryOf, type Session } from "../session.ts";
import type { SessionState } from "../state.ts";
import type { Hidden, SessionStore, SessionStoreStats } from "../store.ts";
import {
  type Journal,
  LocalStore,
  type LocalStoreOptions,
  type StoredEpoch,
  type StoredSession,
} from "./local.ts";
import { parseStats, statsText } from "./stats_text.ts";

/** Name of the file in the worker's folder. */
export const SESSIONS_FILE = "sessions.sqlite";

/** How to open. */
export interface SqliteStoreOptions extends LocalStoreOptions {
  readonly path: string;
  /** When a commit is on disk: before it is acknowledged, every `intervalMs`, or when the system likes. */
  readonly durability: "always" | "interval" | "none";
  readonly intervalMs: number;
  /** The present time. Kept times that lie behind it were written by a clock that went wrong, and are brought back. */
  readonly nowMs: number;
  /** How long a user's epoch is remembered over restarts: longer than any session lives. */
  readonly epochsKeptMs: number;
  /** Monotonic milliseconds, for figures. */
  readonly clock: { now(): number };
  /** Most pages the file may have, for tests of a full one. */
  readonly maxPages?: number;
}

/** "afse" */
const APPLICATION_ID = 0x6166_7365;
const FORMAT_VERSION = 1;
const CACHE_BYTES = 8 * 1_024 * 1_024;
/** Writes after which the write-ahead log is moved to the file. It holds the same few pages again and again, so the pause is
 *  a few milliseconds, and its size some megabytes. */
const CHECKPOINT_WRITES = 10_000;

/** Opens (or makes) the file and reads it. @throws {SqliteError} */
export function openSqliteStore(options: SqliteStoreOptions): SessionStore {
  const database = openDatabase({
    path: options.path,
    applicationId: APPLICATION_ID,
    formatVersion: FORMAT_VERSION,
    pageBytes: 4_096,
    cacheBytes: CACHE_BYTES,
    isSynced: options.durability === "always",
    create: createTables,
    ...(options.maxPages === undefined ? {} : { maxPages: options.maxPages }),
  });
  try {
    database.prepare("DELETE FROM epochs WHERE epoch < ?").run(options.nowMs - options.epochsKeptMs);
    return new LocalStore(
      new SqliteJournal(database, options),
      options,
      readSessions(database, options.nowMs),
      readEpochs(database),
    );
  } catch (error) {
    database.close();
    throw error;
  }
}

function createTables(database: Database): void {
  database.execute(`CREATE TABLE sessions(
    id TEXT PRIMARY KEY, token_hash TEXT NOT NULL, user_id TEXT NOT NULL, connection_id TEXT NOT NULL,
    client_ip TEXT NOT NULL, client_port INTEGER NOT NULL, server_addr TEXT NOT NULL,
    created_ms INTEGER NOT NULL, idle_ms INTEGER NOT NULL, ends_ms INTEGER NOT NULL,
    state TEXT NOT NULL, active_ms INTEGER NOT NULL, metadata TEXT NOT NULL, stats TEXT,
    hidden BLOB NOT NULL, hidden_version INTEGER NOT NULL) WITHOUT ROWID`);
  database.execute("CREATE TABLE epochs(user_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID");
}

/** Rows read at a time. */
const READ_ROWS = 1_000;

function* readSessions(database: Database, nowMs: number): Generator<StoredSession, void, void> {
  const read = database.prepare(
    `SELECT id, token_hash, user_id, connection_id, client_ip, client_port, server_addr,
    created_ms, idle_ms, ends_ms, state, active_ms, metadata, stats, hidden, hidden_version
    FROM sessions WHERE id > ? ORDER BY id LIMIT ${READ_ROWS}`,
  );
  for (let after = "";;) {
    const rows = read.all(after);
    for (const row of rows) yield storedSession(row, nowMs);
    if (rows.length < READ_ROWS) return;
    after = rows.at(-1)![0] as string;
  }
}

function storedSession(row: SqlRow, nowMs: number): StoredSession {
  const [id, tokenHash, userId, connectionId, clientIp, clientPort, serverAddr] = row as readonly string[];
  const [created, idleTimeoutMs, ends] = row.slice(7) as readonly number[];
  const [state, active, metadata, stats, hidden, version] = row.slice(10);
  const createdAtMs = Math.min(created!, nowMs);
  const lastActiveMs = Math.min(active as number, nowMs);
  const endsAtMs = createdAtMs + (ends! - created!);
  return {
    session: {
      id: id!,
      userId: userId!,
      connectionId: connectionId!,
      clientIp: clientIp!,
      clientPort: Number(clientPort),
      serverAddr: serverAddr!,
      state: state as SessionState,
      createdAtMs,
      lastActiveMs,
      idleTimeoutMs: idleTimeoutMs!,
      endsAtMs,
      expiresAtMs: expiryOf(lastActiveMs, idleTimeoutMs!, endsAtMs),
      metadata: JSON.parse(metadata as string),
      stats: stats === null ? undefined : parseStats(stats as string),
    },
    tokenHash: tokenHash!,
    hidden: { bytes: hidden as Uint8Array, version: version as number },
  };
}

function readEpochs(database: Database): StoredEpoch[] {
  return database.prepare("SELECT user_id, epoch FROM epochs ORDER BY epoch").all()
    .map(([userId, epoch]) => ({ userId: userId as string, epoch: epoch as number }));
}

class SqliteJournal implements Journal {
  onKept = () => {};
  failure: Error | undefined;
  readonly #database: Database;
  readonly #options: SqliteStoreOptions;
  readonly #insert: Statement;
  readonly #update: Statement;
  readonly #updateActivity: Statement;
  readonly #updateHidden: Statement;
  readonly #remove: Statement;
  readonly #setEpoch: Statement;
  #waiters: PromiseWithResolvers<void> | undefined;
  #isPending = false;
  #isClosed = false;
  #syncTimer: ReturnType<typeof setTimeout> | undefined;
  #uncheckpointed = 0;
  #groups = 0;
  #groupMs = 0;
  #writes = 0;
  #failures = 0;

  constructor(database: Database, options: SqliteStoreOptions) {
    this.#database = database;
    this.#options = options;
    this.#insert = database.prepare(`INSERT INTO sessions VALUES (${"?, ".repeat(15)}?)`);
    this.#update = database.prepare(
      "UPDATE sessions SET state = ?, active_ms = ?, metadata = ?, stats = ? WHERE id = ?",
    );
    this.#updateActivity = database.prepare("UPDATE sessions SET state = ?, active_ms = ? WHERE id = ?");
    this.#updateHidden = database.prepare("UPDATE sessions SET hidden = ?, hidden_version = ? WHERE id = ?");
    this.#remove = database.prepare("DELETE FROM sessions WHERE id = ?");
    this.#setEpoch = database.prepare(
      "INSERT INTO epochs VALUES (?, ?) ON CONFLICT(user_id) DO UPDATE SET epoch = excluded.epoch",
    );
  }

  insert({ session, tokenHash, hidden }: StoredSession): void {
    this.#write(() =>
      this.#insert.run(
        session.id,
        tokenHash,
        session.userId,
        session.connectionId,
        session.clientIp,
        session.clientPort,
        session.serverAddr,
        session.createdAtMs,
        session.idleTimeoutMs,
        session.endsAtMs,
        session.state,
        session.lastActiveMs,
        JSON.stringify(session.metadata),
        session.stats === undefined ? null : statsText(session.stats),
        hidden.bytes,
        hidden.version,
      )
    );
  }

  update({ id, state, lastActiveMs, metadata, stats }: Session): void {
    const statsValue = stats === undefined ? null : statsText(stats);
    this.#write(() => this.#update.run(state, lastActiveMs, JSON.stringify(metadata), statsValue, id));
  }

  updateActivity({ id, state, lastActiveMs }: Session): void {
    this.#write(() => this.#updateActivity.run(state, lastActiveMs, id));
  }

  updateHidden(id: string, { bytes, version }: Hidden): void {
    this.#write(() => this.#updateHidden.run(bytes, version, id));
  }

  remove(id: string): void {
    this.#write(() => this.#remove.run(id));
  }

  setEpoch({ userId, epoch }: StoredEpoch): void {
    this.#write(() => this.#setEpoch.run(userId, epoch));
  }

  get isKept(): boolean {
    return !this.#isPending && this.failure === undefined;
  }

  kept(): Promise<void> {
    if (this.failure !== undefined) return Promise.reject(this.#refusal());
    this.#waiters ??= Promise.withResolvers<void>();
    return this.#waiters.promise;
  }

  stats(): SessionStoreStats {
    return {
      groups: this.#groups,
      groupSeconds: this.#groupMs / 1_000,
      writes: this.#writes,
      failures: this.#failures,
    };
  }

  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    if (this.failure === undefined) {
      if (this.#isPending) this.#commit();
      this.#sync();
    }
    this.#isClosed = true;
    clearTimeout(this.#syncTimer);
    this.#database.close();
    return Promise.resolve();
  }

  /** Runs one statement in the group's transaction, and sees to the end of the group.
   *  @throws {SessionError} `readOnly`. */
  #write(statement: () => void): void {
    if (this.failure !== undefined) throw this.#refusal();
    if (this.#isClosed) throw new SessionError("stopped");
    try {
      if (!this.#isPending) this.#begin();
      statement();
      this.#writes++;
    } catch (error) {
      this.#fail(error);
      throw this.#refusal();
    }
  }

  #begin(): void {
    this.#database.begin();
    this.#isPending = true;
    // The end of the turn, not of the microtask: handlers of one datagram's calls run over several microtasks.
    setImmediate(() => {
      if (this.#isPending && !this.#isClosed && this.failure === undefined) this.#commit();
    });
  }

  #commit(): void {
    const startedMs = this.#options.clock.now();
    const before = this.#writes;
    try {
      this.#database.commit();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#isPending = false;
    this.#groups++;
    this.#groupMs += this.#options.clock.now() - startedMs;
    if (this.#options.durability === "interval") this.#armSync();
    const waiters = this.#waiters;
    this.#waiters = undefined;
    this.onKept();
    waiters?.resolve();
    this.#checkpointWhenDue(before);
  }

  /** Later, so that the answers of this group need not wait for it. */
  #checkpointWhenDue(writes: number): void {
    if (writes - this.#uncheckpointed < CHECKPOINT_WRITES) return;
    this.#uncheckpointed = writes;
    setImmediate(() => {
      if (this.#isClosed || this.failure !== undefined) return;
      if (this.#isPending) this.#commit();
      try {
        if (this.failure === undefined) this.#database.checkpoint();
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  #armSync(): void {
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = undefined;
      if (this.#isClosed || this.failure !== undefined) return;
      if (this.#isPending) this.#commit();
      this.#sync();
    }, this.#options.intervalMs);
  }

  /** Makes every commit so far durable. Not within a transaction. */
  #sync(): void {
    if (this.#database.isSynced || this.failure !== undefined) return;
    try {
      this.#database.isSynced = true;
      this.#database.begin();
      // A commit that changes nothing would sync nothing.
      this.#setEpoch.run("", this.#groups);
      this.#database.commit();
      this.#database.isSynced = false;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Writes are over: the open transaction is undone, and nothing of it was acknowledged. */
  #fail(error: unknown): void {
    if (!(error instanceof SqliteError)) throw error;
    this.#failures++;
    this.failure = error;
    clearTimeout(this.#syncTimer);
    try {
      this.#database.rollback();
    } catch (cause) {
      // The first failure is the one to tell.
      if (!(cause instanceof SqliteError)) throw cause;
    }
    this.#waiters?.reject(this.#refusal());
    this.#waiters = undefined;
  }

  #refusal(): SessionError {
    return new SessionError("readOnly", this.failure?.message, { cause: this.failure });
  }
}
