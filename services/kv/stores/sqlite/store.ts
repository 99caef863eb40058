/** Group commit on a SQLite file: the writes of one turn of the event loop are one transaction.
 *
 *      put ─► statements in the open transaction ─┐
 *      put ─► statements in the open transaction ─┴─ end of the turn: COMMIT, one sync ─► durable ─► answers
 *
 *  Readers share the connection and so see rows of the open transaction, but ask only for revisions that are durable. The
 *  commit blocks the thread: what arrives meanwhile is the next group. */
import { type Database, SqliteError, type Statement } from "../../../../storage/sqlite/mod.ts";
import { KvError } from "../../errors.ts";
import { compactionOf, type EntryChange } from "../../record.ts";
import { type KvStore, StoreError, type StoreStats } from "../../store.ts";
import { Meta } from "./tables.ts";

/** Record bytes that may wait for the end of the turn: the bound of a transaction, as the log has it. */
const MAX_PENDING_BYTES = 32 * 1_024 * 1_024;
/** Pages that may gather in the write-ahead log before they are moved to the file: 16 MiB of the usual size. More means
 *  longer pauses, fewer means writing the same page more often. */
const CHECKPOINT_PAGES = 4_096;
/** Unused pages given back in one slice of defragmenting: a few milliseconds. */
const RELEASE_PAGES = 256;

/** What has rows and figures to write at the end of a group. */
export interface GroupWriter {
  /** Writes what it held back, in the transaction; returns about how many pages the group changed. */
  writeGroup(meta: Meta): number;
  /** Starts to delete all that was held back for that, over the next groups. */
  sweep(): void;
  /** Whether some of it is left. */
  readonly isSweeping: boolean;
  /** The open transaction is undone, and there will be no other. */
  undone(): void;
}

/** How durable a commit is. */
export interface SqliteStoreOptions {
  readonly durability: "always" | "interval" | "none";
  readonly intervalMs: number;
  /** Monotonic milliseconds, for figures; a coarse one of 0 when left out. */
  readonly clock?: { now(): number };
}

/** A KvStore on a database. */
export class SqliteStore implements KvStore {
  readonly takesSnapshots = false;
  readonly openedLogBytes = 0;
  readonly stopped: Promise<StoreError>;
  /** Set once, before the first append. */
  writer: GroupWriter = {
    writeGroup: () => 0,
    sweep: () => {},
    isSweeping: false,
    undone: () => {},
  };
  durableSeq = 0;
  readonly #database: Database;
  readonly #options: SqliteStoreOptions;
  readonly #meta: Meta;
  readonly #setEntry: Statement;
  readonly #removeEntry: Statement;
  readonly #listeners: (() => void)[] = [];
  readonly #tellStopped: (error: StoreError) => void;
  #waiters: PromiseWithResolvers<void> | undefined;
  #entries: EntryChange[] = [];
  #compaction = 0;
  #lastSeq = 0;
  #pendingBytes = 0;
  #isScheduled = false;
  #failure: StoreError | undefined;
  #isClosed = false;
  #walPages = 0;
  #syncTimer: ReturnType<typeof setTimeout> | undefined;
  #records = 0;
  #bytes = 0;
  #groups = 0;
  #syncs = 0;
  #syncMs = 0;

  constructor(database: Database, options: SqliteStoreOptions) {
    this.#database = database;
    this.#options = options;
    this.#meta = new Meta(database);
    this.#setEntry = database.prepare(
      "INSERT INTO entries VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
    );
    this.#removeEntry = database.prepare("DELETE FROM entries WHERE name = ?");
    const { promise, resolve } = Promise.withResolvers<StoreError>();
    this.stopped = promise;
    this.#tellStopped = resolve;
  }

  /** Whether it takes writes no more: it has failed or was closed. */
  get isStopped(): boolean {
    return this.#failure !== undefined || this.#isClosed;
  }

  /** Opens the group's transaction if it is not open, and sees to its end.
   *  @throws {KvError} `readOnly` when the store has stopped. */
  begin(): void {
    if (this.#failure !== undefined) throw new KvError("readOnly", this.#failure.message);
    if (!this.#database.isInTransaction) this.attempt(() => this.#database.begin());
    this.schedule();
  }

  /** Sees to the end of a group, now that there is something to write. */
  schedule(): void {
    if (this.#isScheduled || this.#isClosed || this.#failure !== undefined) return;
    this.#isScheduled = true;
    // The end of the turn, not of the microtask: handlers of one datagram's calls run over several microtasks.
    setImmediate(() => {
      this.#isScheduled = false;
      if (!this.#isClosed) this.#commit();
    });
  }

  /** Runs a step that writes. Its failure stops the store: the transaction cannot be trusted to be whole any more.
   *  @throws {KvError} `readOnly`. */
  attempt<T>(step: () => T): T {
    try {
      return step();
    } catch (error) {
      throw new KvError("readOnly", this.stop(sqliteErrorOf(error)).message, { cause: error });
    }
  }

  append(record: Uint8Array, entries: readonly EntryChange[]): number {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isClosed) throw new StoreError("failed", "the store is closed");
    if (this.#pendingBytes + record.length > MAX_PENDING_BYTES) {
      throw new StoreError(
        "full",
        `${this.#pendingBytes} bytes wait for the end of the transaction, its bound`,
      );
    }
    this.#compaction = compactionOf(record) ?? this.#compaction;
    for (const entry of entries) this.#entries.push(entry);
    this.#pendingBytes += record.length;
    this.#records++;
    this.#bytes += record.length;
    this.schedule();
    return ++this.#lastSeq;
  }

  durable(seq: number): Promise<void> {
    if (seq <= this.durableSeq) return Promise.resolve();
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#waiters ??= Promise.withResolvers<void>();
    return this.#waiters.promise;
  }

  onDurable(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Never asked for: `takesSnapshots` is false. */
  snapshot(): Promise<void> {
    return Promise.reject(new StoreError("failed", "this store takes no snapshots"));
  }

  /** Gives the file's unused pages back to the file system, a slice at a time.
   *  @throws {KvError} `readOnly`. */
  async defragment(pause: () => Promise<void>): Promise<void> {
    for (this.writer.sweep(); this.writer.isSweeping && !this.isStopped;) {
      this.#commit();
      await pause();
    }
    for (let before = Infinity;;) {
      this.begin();
      const left = this.attempt(() => this.#database.releasePages(RELEASE_PAGES));
      await pause();
      if (left === 0 || left >= before || this.#isClosed) break;
      before = left;
    }
    if (this.#isClosed) return;
    this.#commit(() => {
      this.#walPages = 0;
      this.#database.checkpoint("TRUNCATE");
    });
    if (this.#failure !== undefined) throw new KvError("readOnly", this.#failure.message);
  }

  stats(): StoreStats {
    return {
      appendedRecords: this.#records,
      appendedBytes: this.#bytes,
      pendingBytes: this.#pendingBytes,
      groups: this.#groups,
      syncs: this.#syncs,
      syncMs: this.#syncMs,
      segments: 1,
      segmentBytes: this.#isClosed ? 0 : this.#database.fileBytes,
      snapshots: 0,
    };
  }

  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#commit(() => this.#sync());
    this.#isClosed = true;
    clearTimeout(this.#syncTimer);
    this.#database.close();
    return Promise.resolve();
  }

  /** Commits the group, does `outside` while no transaction is open, and then tells who waits: they may begin the next. */
  #commit(outside?: () => void): void {
    if (this.#failure !== undefined) return;
    let failure: SqliteError | undefined;
    try {
      this.#writeAndCommit();
    } catch (error) {
      this.stop(sqliteErrorOf(error));
      return;
    }
    try {
      outside?.();
    } catch (error) {
      failure = sqliteErrorOf(error);
    }
    this.#complete();
    if (failure !== undefined) this.stop(failure);
    // Later, so that the answers of this group need not wait for it.
    else if (this.#walPages >= CHECKPOINT_PAGES) setImmediate(() => this.#checkpoint());
  }

  #writeAndCommit(): void {
    const database = this.#database;
    if (!database.isInTransaction) database.begin();
    this.#walPages += this.writer.writeGroup(this.#meta);
    for (const { name, value } of this.#entries) {
      if (value === undefined) this.#removeEntry.run(name);
      else this.#setEntry.run(name, value);
    }
    if (this.#entries.length > 0) this.#entries = [];
    if (this.#compaction > 0) this.#meta.set("compact_revision", this.#compaction);
    this.#compaction = 0;
    const startedMs = this.#options.clock?.now() ?? 0;
    database.commit();
    this.#groups++;
    if (database.isSynced) this.#syncs++;
    else if (this.#options.durability === "interval") this.#armSync();
    this.#syncMs += (this.#options.clock?.now() ?? 0) - startedMs;
  }

  #complete(): void {
    if (this.durableSeq === this.#lastSeq) return;
    this.durableSeq = this.#lastSeq;
    this.#pendingBytes = 0;
    const waiters = this.#waiters;
    this.#waiters = undefined;
    for (const listener of this.#listeners) listener();
    waiters?.resolve();
  }

  #checkpoint(): void {
    if (this.#isClosed || this.#walPages < CHECKPOINT_PAGES) return;
    this.#commit(() => {
      this.#walPages = 0;
      this.#database.checkpoint();
    });
  }

  #armSync(): void {
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = undefined;
      if (!this.#isClosed) this.#commit(() => this.#sync());
    }, this.#options.intervalMs);
  }

  /** A synced commit: it makes all before it durable. Not within a transaction. @throws {SqliteError} */
  #sync(): void {
    const database = this.#database;
    if (database.isSynced) return;
    database.isSynced = true;
    database.begin();
    // A commit that changes nothing would sync nothing.
    this.#meta.set("synced_groups", this.#groups);
    database.commit();
    database.isSynced = false;
    this.#syncs++;
    clearTimeout(this.#syncTimer);
    this.#syncTimer = undefined;
  }

  /** Stops the store. The open transaction is undone: nothing of it was acknowledged. */
  stop(cause: SqliteError): StoreError {
    if (this.#failure !== undefined) return this.#failure;
    const failure = new StoreError("failed", cause.message, { cause });
    this.#failure = failure;
    clearTimeout(this.#syncTimer);
    try {
      this.#database.rollback();
      this.writer.undone();
    } catch (error) {
      // Reads go on as long as the file lets them; the first failure is the one to tell.
      sqliteErrorOf(error);
    }
    this.#waiters?.reject(failure);
    this.#tellStopped(failure);
    return failure;
  }
}

/** The error if it is the database's; any other is a mistake of the program's and goes on. */
function sqliteErrorOf(error: unknown): SqliteError {
  if (error instanceof SqliteError) return error;
  throw error;
}
