/** Documents in a SQLite file: the changes of one commit are one transaction, and one sync.
 *
 *  The file is this store's alone, so what is known of a document stays true: its number and record are kept in memory for
 *  those used last, and most changes read nothing. */
import {
  type Database,
  openDatabase,
  SqliteError,
  type SqlRow,
  type SqlValue,
} from "../../../storage/sqlite/mod.ts";
import { StateSyncError } from "../errors.ts";
import type {
  ConflictRecord,
  DocumentRecord,
  Entry,
  LockRecord,
  NamedVersion,
  StoredEntry,
} from "../records.ts";
import type {
  Change,
  CommitResult,
  ContentParts,
  DocumentCounts,
  DocumentFilter,
  DocumentStore,
  DocumentStoreStats,
  LoadedDocument,
  OperationFilter,
  Snapshot,
  StoredUpdate,
} from "../store.ts";
import { checkChanges, foldedName, follow } from "./changes.ts";
import {
  conflictOfText,
  conflictText,
  extraText,
  isSettledAlike,
  keyBytes,
  operationBytes,
  settledText,
} from "./record_text.ts";
import { listQuery, operationsQuery } from "./sqlite_queries.ts";
import {
  afterEntry,
  createTables,
  documentOfRow,
  documentOfRows,
  entryOfRow,
  isEditedAlike,
  labelsOf,
  lockOfText,
  prepareStatements,
  readTotals,
  type Statements,
  type Totals,
} from "./sqlite_tables.ts";

/** Name of the file in the worker's folder. */
export const DOCUMENTS_FILE = "documents.sqlite";

/** How to open. */
export interface SqliteStoreOptions {
  readonly path: string;
  /** When a commit is on disk: before it is acknowledged, every `intervalMs`, or when the system likes. */
  readonly durability: "always" | "interval" | "none";
  readonly intervalMs: number;
  /** Monotonic milliseconds, for figures. */
  readonly clock: { now(): number };
  /** Most pages the file may have, for tests of a full one. */
  readonly maxPages?: number;
}

/** "afdo" */
const APPLICATION_ID = 0x6166_646f;
const FORMAT_VERSION = 1;
const CACHE_BYTES = 32 * 1_024 * 1_024;
/** Documents whose number and record are kept in memory: about 1 KiB each. */
const KNOWN_MAX = 10_000;
/** Bytes written to the write-ahead log, by estimate, after which it is moved to the file: a pause of some ten milliseconds. */
const CHECKPOINT_BYTES = 16 * 1_024 * 1_024;
/** What a change writes besides its updates, in pages that it shares with few others. */
const CHANGE_BYTES = 5 * 1_024;

/** Opens (or makes) the file. @throws {SqliteError} */
export function openSqliteStore(options: SqliteStoreOptions): DocumentStore {
  const database = openDatabase({
    path: options.path,
    applicationId: APPLICATION_ID,
    formatVersion: FORMAT_VERSION,
    pageBytes: 4_096,
    cacheBytes: CACHE_BYTES,
    isSynced: options.durability === "always",
    create: (made) => createTables(made, crypto.randomUUID()),
    ...(options.maxPages === undefined ? {} : { maxPages: options.maxPages }),
  });
  try {
    return new SqliteStore(database, options);
  } catch (error) {
    database.close();
    throw error;
  }
}

/** Entries that a document's row may be behind. Whoever reads the document reads them too. */
const ENTRIES_BEHIND_MAX = 16;

/** A document with the number that stands for it in the file. */
interface Known {
  readonly document: number;
  record: DocumentRecord;
  /** The offset at which its row stands. */
  rowOffset: number;
}

class SqliteStore implements DocumentStore {
  onForeign: DocumentStore["onForeign"] = () => {};
  onForeignGap: DocumentStore["onForeignGap"] = () => {};
  readonly epoch: string;
  failure: Error | undefined;
  readonly #database: Database;
  readonly #options: SqliteStoreOptions;
  readonly #do: Statements;
  /** Those used last, the latest at the end. */
  readonly #known = new Map<string, Known>();
  #totals: Totals;
  #unmovedBytes = 0;
  #syncTimer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;
  #groups = 0;
  #groupMs = 0;
  #writes = 0;
  #failures = 0;

  constructor(database: Database, options: SqliteStoreOptions) {
    this.#database = database;
    this.#options = options;
    const { epoch, totals } = readTotals(database);
    this.epoch = epoch;
    this.#totals = totals;
    this.#do = prepareStatements(database);
  }

  commit(changes: readonly Change[]): Promise<CommitResult[]> {
    checkChanges(changes);
    if (changes.length === 0) return Promise.resolve([]);
    const startedMs = this.#options.clock.now();
    const totals = { ...this.#totals };
    const results: CommitResult[] = [];
    const refused = this.#write(() => {
      const lost = new Set<string>();
      for (const change of changes) {
        results.push(follow(lost, change, () => this.#commitOne(change, totals)));
      }
      if (results.some(({ kind }) => kind === "done")) this.#setTotals(totals);
    });
    if (refused !== undefined) return Promise.reject(refused);
    this.#totals = totals;
    this.#groups++;
    this.#groupMs += this.#options.clock.now() - startedMs;
    for (const { kind } of results) if (kind === "done") this.#writes++;
    this.#checkpointWhenDue(changes);
    return Promise.resolve(results);
  }

  #commitOne(change: Change, totals: Totals): CommitResult {
    const { docId, baseOffset, record, entries } = change;
    const known = this.#find(docId);
    if ((known?.record.offset ?? 0) !== baseOffset) return { kind: baseOffset === 0 ? "exists" : "behind" };
    const sequence = totals.sequence + Math.min(1, entries.length);
    if (record === undefined) {
      if (known !== undefined) this.#purge(known, totals);
      for (const entry of entries) this.#insertRemoval(entry, totals);
    } else {
      const document = known?.document ?? this.#insert(record, totals);
      this.#insertEntries(document, known?.record.version ?? 0, entries, totals);
      if (known !== undefined) this.#update(known, record, entries, totals);
      this.#writeRest(document, change, totals);
    }
    return { kind: "done", sequence };
  }

  #insert(record: DocumentRecord, totals: Totals): number {
    const document = ++totals.document;
    this.#do.insertDocument.run(
      document,
      record.id,
      record.type,
      record.state,
      record.createdBy,
      foldedName(record.name),
      record.version,
      record.offset,
      record.updatedBy,
      record.updatedAtMs,
      record.fencingToken,
      record.openConflicts,
      String(record.hlc),
      settledText(record),
    );
    for (const label of labelsOf(record)) this.#do.insertLabel.run(label, record.id);
    totals[record.state]++;
    this.#remember({ document, record, rowOffset: record.offset });
    return document;
  }

  #update(known: Known, record: DocumentRecord, entries: readonly Entry[], totals: Totals): void {
    const { document, record: before } = known;
    if (!isSettledAlike(before, record)) {
      const { type, state, name, createdBy } = record;
      this.#do.settleDocument.run(type, state, foldedName(name), settledText(record), createdBy, document);
      const [had, has] = [labelsOf(before), labelsOf(record)];
      for (const label of had.difference(has)) this.#do.removeLabel.run(label, record.id);
      for (const label of has.difference(had)) this.#do.insertLabel.run(label, record.id);
      totals[before.state]--;
      totals[state]++;
    }
    known.record = record;
    const mayStayBehind = record.offset - known.rowOffset < ENTRIES_BEHIND_MAX &&
      isEditedAlike(entries.reduce(afterEntry, before), record);
    if (!mayStayBehind) this.#writeEdited(known);
  }

  #writeEdited(known: Known): void {
    const { document, record } = known;
    this.#do.editDocument.run(
      record.version,
      record.offset,
      record.updatedBy,
      record.updatedAtMs,
      record.fencingToken,
      record.openConflicts,
      String(record.hlc),
      document,
    );
    known.rowOffset = record.offset;
  }

  #insertEntries(document: number, baseVersion: number, entries: readonly Entry[], totals: Totals): void {
    let version = baseVersion;
    for (const entry of entries) {
      const { operation, operationKey } = entry;
      this.#do.insertEntry.run(
        ++totals.sequence,
        document,
        entry.offset,
        entry.version,
        entry.version > version ? 1 : 0,
        entry.type,
        entry.id,
        entry.userId,
        entry.atMs,
        operation?.type ?? null,
        entry.operationStatus ?? null,
        operationKey === undefined ? null : keyBytes(operationKey),
        entry.update ?? null,
        operation === undefined ? null : operationBytes(operation),
        extraText(entry) ?? null,
      );
      version = entry.version;
      if (operationKey !== undefined) totals.operations++;
    }
  }

  #insertRemoval(entry: Entry, totals: Totals): void {
    const { offset, version, type, id, userId, atMs, update, docId } = entry;
    const extra = extraText(entry) ?? null;
    this.#do.insertRemoval.run(
      ++totals.sequence,
      offset,
      version,
      type,
      id,
      userId,
      atMs,
      update ?? null,
      extra,
      docId,
    );
  }

  #writeRest(document: number, change: Change, totals: Totals): void {
    for (const { offset, status } of change.operationStatuses ?? []) {
      this.#do.setStatus.run(status, document, offset);
    }
    for (const id of change.removeLocks ?? []) totals.locks -= this.#do.removeLock.run(document, id);
    for (const lock of change.putLocks ?? []) {
      if (this.#do.lockOfObject.get(document, lock.objectId) === undefined) totals.locks++;
      this.#do.putLock.run(document, lock.objectId, lock.id, JSON.stringify(lock));
    }
    for (const conflict of change.putConflicts ?? []) this.#putConflict(document, conflict, totals);
    for (const version of change.removeNames ?? []) this.#do.removeName.run(document, version);
    for (const { version, name, userId, atMs, state } of change.putNames ?? []) {
      const offset = this.#firstOffsetOf(document, version, change.record!.offset);
      this.#do.putName.run(document, version, JSON.stringify({ version, name, userId, atMs }), offset, state);
    }
  }

  #putConflict(document: number, conflict: ConflictRecord, totals: Totals): void {
    const isOpen = conflict.resolvedAtMs === undefined;
    const before = this.#do.conflict.get(document, conflict.id);
    if (before === undefined) totals.conflicts++;
    else if (before[1] === 0) totals.resolved--;
    if (!isOpen) totals.resolved++;
    this.#do.putConflict.run(document, conflict.id, isOpen ? 1 : 0, conflictText(conflict));
  }

  #purge({ document, record }: Known, totals: Totals): void {
    const { state, id, offset } = record;
    const [conflicts, open] = this.#do.countConflicts.get(document) as [number, number | null];
    totals.operations -= this.#do.countOperations.get(document, offset)![0] as number;
    totals.conflicts -= conflicts;
    totals.resolved -= conflicts - (open ?? 0);
    totals.locks -= this.#do.removeLocks.run(document);
    totals[state]--;
    this.#do.removeEntries.run(document, offset);
    this.#do.removeSnapshots.run(document, offset + 1);
    this.#do.removeNames.run(document);
    this.#do.removeConflicts.run(document);
    for (const label of labelsOf(record)) this.#do.removeLabel.run(label, id);
    this.#do.removeDocument.run(document);
    this.#known.delete(id);
  }

  #setTotals(totals: Totals): void {
    const {
      sequence,
      document,
      active,
      archived,
      deleted,
      operations,
      conflicts,
      resolved,
      locks,
      compacted,
    } = totals;
    this.#do.setTotals.run(
      sequence,
      document,
      active,
      archived,
      deleted,
      operations,
      conflicts,
      resolved,
      locks,
      compacted,
    );
  }

  load(docId: string): LoadedDocument | undefined {
    return this.#read(() => {
      const known = this.#find(docId);
      if (known === undefined) return undefined;
      const { document, record } = known;
      const locks = this.#do.locksOf.all(document).map(([text]) => lockOfText(text as string));
      const oldestOffset = this.#oldestOffset(known);
      return { record, locks, oldestOffset, ...this.#content(document, record, oldestOffset)! };
    });
  }

  record(docId: string): DocumentRecord | undefined {
    return this.#read(() => this.#find(docId)?.record);
  }

  list(filter: DocumentFilter, after: string, limit: number): DocumentRecord[] {
    const { sql, values } = listQuery(filter, after, limit);
    return this.#read(() =>
      this.#database.prepare(sql).all(...values).map((row) => this.#knownOfRow(row).record)
    );
  }

  entries(docId: string, offset: number, limit: number): StoredEntry[] {
    return this.#ofDocument(docId, (document) => this.#do.entries.all(document, offset, limit));
  }

  entriesBySequence(sequence: number, limit: number): StoredEntry[] {
    return this.#read(() =>
      this.#do.entriesBySequence.all(sequence, limit).map((row) => entryOfRow(row, undefined))
    );
  }

  sequences(): { last: number; oldest: number } {
    const { sequence, compacted } = this.#totals;
    return { last: sequence, oldest: compacted + 1 };
  }

  operations(docId: string, filter: OperationFilter, before: number, limit: number): StoredEntry[] {
    const { sql, values } = operationsQuery(filter, before, limit);
    return this.#ofDocument(docId, (document) => this.#database.prepare(sql).all(document, ...values));
  }

  operationByKey(docId: string, key: string): StoredEntry | undefined {
    return this.#ofDocument(docId, (document) => this.#do.entryByKey.all(keyBytes(key), document))[0];
  }

  conflicts(docId: string, isOpenOnly: boolean, before: string, limit: number): ConflictRecord[] {
    return this.#read(() => {
      const document = this.#find(docId)?.document;
      if (document === undefined) return [];
      const statement = isOpenOnly ? this.#do.openConflicts : this.#do.conflicts;
      // A blob comes after every text.
      const below: SqlValue = before === "" ? new Uint8Array(0) : before;
      return statement.all(document, below, limit).map(([text]) => conflictOfText(text as string));
    });
  }

  conflict(docId: string, conflictId: string): ConflictRecord | undefined {
    return this.#read(() => {
      const document = this.#find(docId)?.document;
      const row = document === undefined ? undefined : this.#do.conflict.get(document, conflictId);
      return row === undefined ? undefined : conflictOfText(row[0] as string);
    });
  }

  versions(docId: string, before: number, limit: number): StoredEntry[] {
    return this.#ofDocument(docId, (document, { record }) => {
      const last = this.#firstOffsetOf(document, before, record.offset + 1) - 1;
      return this.#do.versions.all(document, last, limit);
    });
  }

  names(docId: string): NamedVersion[] {
    return this.#read(() => {
      const document = this.#find(docId)?.document;
      if (document === undefined) return [];
      return this.#do.names.all(document).map(([text]) => JSON.parse(text as string) as NamedVersion);
    });
  }

  contentAt(docId: string, version: number): ContentParts | undefined {
    return this.#read(() => {
      const known = this.#find(docId);
      if (known === undefined || version < 1 || version > known.record.version) return undefined;
      const { document, record } = known;
      const named = this.#do.namedState.get(document, version);
      if (named !== undefined) {
        const [offset, state] = named as [number, Uint8Array];
        return { snapshot: { offset, version, state }, updates: [] };
      }
      const last = this.#firstOffsetOf(document, version + 1, record.offset + 1) - 1;
      return this.#content(document, { offset: last, version }, this.#oldestOffset(known));
    });
  }

  versionAt(docId: string, atMs: number): number | undefined {
    return this.#read(() => {
      const document = this.#find(docId)?.document;
      if (document === undefined) return undefined;
      return this.#do.versionAtTime.get(document, atMs)?.[0] as number | undefined;
    });
  }

  putSnapshot(docId: string, { offset, version, state }: Snapshot): Promise<void> {
    return this.#settle(() => {
      const known = this.#find(docId);
      if (known === undefined || offset > known.record.offset) return;
      this.#do.putSnapshot.run(known.document, offset, version, state);
      this.#unmovedBytes += state.length;
    });
  }

  compact(docId: string, offset: number): Promise<void> {
    const totals = { ...this.#totals };
    return this.#settle(() => {
      const known = this.#find(docId);
      const row = known === undefined ? undefined : this.#do.snapshotOffset.get(known.document, offset);
      if (known === undefined || row === undefined) return;
      const { document } = known;
      const base = row[0] as number;
      if (base > known.rowOffset) this.#writeEdited(known);
      totals.operations -= this.#do.countOperations.get(document, base)![0] as number;
      const newest = this.#do.newestSequenceBelow.get(document, base)![0] as number | null;
      totals.compacted = Math.max(totals.compacted, newest ?? 0);
      this.#do.removeEntries.run(document, base);
      this.#do.removeSnapshots.run(document, base);
      this.#setTotals(totals);
    }, () => this.#totals = totals);
  }

  locks(): LockRecord[] {
    return this.#read(() => this.#do.locks.all().map(([text]) => lockOfText(text as string)));
  }

  counts(): DocumentCounts {
    const { active, archived, operations, conflicts, resolved, locks } = this.#totals;
    return {
      documents: active + archived,
      active,
      archived,
      operations,
      conflicts,
      resolvedConflicts: resolved,
      locks,
    };
  }

  stats(): DocumentStoreStats {
    return {
      groups: this.#groups,
      groupSeconds: this.#groupMs / 1_000,
      writes: this.#writes,
      failures: this.#failures,
    };
  }

  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    if (this.failure === undefined) this.#sync();
    this.#isClosed = true;
    clearTimeout(this.#syncTimer);
    this.#database.close();
    return Promise.resolve();
  }

  /** The document, from memory if it was used lately. */
  #find(docId: string): Known | undefined {
    const known = this.#known.get(docId);
    if (known !== undefined) return known;
    const row = this.#do.document.get(docId);
    if (row === undefined) return undefined;
    return this.#remember(this.#knownOfRow(row));
  }

  #knownOfRow(row: SqlRow): Known {
    const document = row[0] as number;
    const { offset } = documentOfRow(row);
    return {
      document,
      record: documentOfRows(row, this.#do.entriesBehind.all(document, offset)),
      rowOffset: offset,
    };
  }

  #remember(known: Known): Known {
    if (this.#known.size >= KNOWN_MAX) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(known.record.id, known);
    return known;
  }

  #oldestOffset({ document, record }: Known): number {
    return this.#do.oldestOffset.get(document)![0] as number | null ?? record.offset + 1;
  }

  /** The content at an offset, which has that version; undefined when some of it was compacted away. */
  #content(
    document: number,
    last: { readonly offset: number; readonly version: number },
    oldestOffset: number,
  ): ContentParts | undefined {
    const row = this.#do.snapshot.get(document, last.offset, last.version);
    const snapshot = row === undefined
      ? undefined
      : { offset: row[0] as number, version: row[1] as number, state: row[2] as Uint8Array };
    const from = snapshot?.offset ?? 0;
    if (from + 1 < oldestOffset) return undefined;
    const updates = this.#do.updates.all(document, from, last.offset).map(
      ([offset, version, userId, atMs, update]) =>
        ({ offset, version, userId, atMs, update }) as StoredUpdate,
    );
    return { snapshot, updates };
  }

  /** Offset of the first entry with that version or a greater one, of those below `end`; `end` when there is none. Versions
   *  rise with offsets, so that a dozen looks find it. */
  #firstOffsetOf(document: number, version: number, end: number): number {
    let low = this.#do.oldestOffset.get(document)![0] as number | null ?? end;
    let high = end;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.#do.versionOfOffset.get(document, middle)![0] as number < version) low = middle + 1;
      else high = middle;
    }
    return Math.min(low, end);
  }

  #ofDocument(
    docId: string,
    rows: (document: number, known: Known) => readonly (readonly SqlValue[])[],
  ): StoredEntry[] {
    return this.#read(() => {
      const known = this.#find(docId);
      if (known === undefined) return [];
      return rows(known.document, known).map((row) => entryOfRow(row, docId));
    });
  }

  /** @throws {StateSyncError} `stopped` or `unavailable`. */
  #read<T>(read: () => T): T {
    if (this.#isClosed) throw new StateSyncError("stopped");
    try {
      return read();
    } catch (error) {
      if (!(error instanceof SqliteError)) throw error;
      throw new StateSyncError("unavailable", error.message, { cause: error });
    }
  }

  /** Runs statements in a transaction; the answer says why nothing of them is kept, if so. */
  #write(statements: () => void): StateSyncError | undefined {
    if (this.#isClosed) return new StateSyncError("stopped");
    if (this.failure !== undefined) return this.#refusal();
    try {
      this.#database.begin();
      statements();
      this.#database.commit();
    } catch (error) {
      this.#fail(error);
      return this.#refusal();
    }
    if (this.#options.durability === "interval") this.#armSync();
    return undefined;
  }

  #settle(statements: () => void, whenKept: () => void = () => {}): Promise<void> {
    const refused = this.#write(statements);
    if (refused !== undefined) return Promise.reject(refused);
    whenKept();
    return Promise.resolve();
  }

  /** Later, so that the answers of this group need not wait for it. */
  #checkpointWhenDue(changes: readonly Change[]): void {
    for (const { entries } of changes) {
      this.#unmovedBytes += CHANGE_BYTES;
      for (const { update } of entries) this.#unmovedBytes += update?.length ?? 0;
    }
    if (this.#unmovedBytes < CHECKPOINT_BYTES) return;
    this.#unmovedBytes = 0;
    setImmediate(() => {
      if (this.#isClosed || this.failure !== undefined) return;
      try {
        this.#database.checkpoint();
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  #armSync(): void {
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = undefined;
      if (!this.#isClosed && this.failure === undefined) this.#sync();
    }, this.#options.intervalMs);
  }

  /** Makes every commit so far durable. */
  #sync(): void {
    if (this.#database.isSynced) return;
    try {
      this.#database.isSynced = true;
      this.#database.begin();
      // A commit that changes nothing would sync nothing.
      this.#setTotals(this.#totals);
      this.#database.commit();
      this.#database.isSynced = false;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Writes are over: the open transaction is undone, and nothing of it was acknowledged. */
  #fail(error: unknown): void {
    // What was remembered may be of the transaction that is undone.
    this.#known.clear();
    this.#failures++;
    clearTimeout(this.#syncTimer);
    if (error instanceof SqliteError) this.failure = error;
    try {
      this.#database.rollback();
    } catch (cause) {
      // The first failure is the one to tell.
      if (!(cause instanceof SqliteError)) throw cause;
    }
    if (this.failure === undefined) throw error;
  }

  #refusal(): StateSyncError {
    return new StateSyncError("readOnly", this.failure?.message, { cause: this.failure });
  }
}
