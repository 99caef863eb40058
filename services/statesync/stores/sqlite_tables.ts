/** The tables of documents in a SQLite file, and the statements on them.
 *
 *      documents   one row each; `settled` is JSON of what seldom changes. A row may stand some entries behind, as long as
 *                  what has changed since can be told from them: then a commit of many documents writes half the pages
 *      labels      what documents are looked up by: t<tag>, m<member>, p (public) → id
 *      entries     in the order of sequences, so that what is new always comes last; found by document and offset
 *      snapshots, names, conflicts, locks   of a document
 *      totals      one row: the last sequence and key given, the newest sequence compacted, and what is counted
 *
 *  `document` is a small number that stands for a document's id, and is never given again. The entry of a removal has none,
 *  and the id itself: it belongs to the sequence alone. */
import type { Database, SqlRow, Statement } from "../../../storage/sqlite/mod.ts";
import type { DocumentRecord, EventType, LockRecord, OperationStatus, StoredEntry } from "../records.ts";
import { membersOf } from "./changes.ts";
import { documentOfText, extraOfText, keyOfBytes, operationOfBytes } from "./record_text.ts";

const TABLES = [
  `CREATE TABLE documents(
    document INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, state TEXT NOT NULL,
    created_by TEXT NOT NULL, folded_name TEXT NOT NULL, version INTEGER NOT NULL, offset INTEGER NOT NULL,
    updated_by TEXT NOT NULL, updated_ms INTEGER NOT NULL, fencing_token INTEGER NOT NULL,
    open_conflicts INTEGER NOT NULL, hlc TEXT NOT NULL, settled TEXT NOT NULL) STRICT`,
  `CREATE TABLE labels(label TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (label, id)) WITHOUT ROWID, STRICT`,
  `CREATE TABLE entries(
    sequence INTEGER PRIMARY KEY, document INTEGER, offset INTEGER NOT NULL, version INTEGER NOT NULL,
    is_version INTEGER NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL, user_id TEXT NOT NULL,
    at_ms INTEGER NOT NULL, operation_type TEXT, status TEXT, operation_key BLOB, content BLOB, operation BLOB,
    extra TEXT, removed_id TEXT) STRICT`,
  `CREATE UNIQUE INDEX entries_by_offset ON entries(document, offset)`,
  `CREATE UNIQUE INDEX entries_by_key ON entries(operation_key, document) WHERE operation_key IS NOT NULL`,
  `CREATE TABLE snapshots(
    document INTEGER NOT NULL, offset INTEGER NOT NULL, version INTEGER NOT NULL, state BLOB NOT NULL,
    UNIQUE (document, offset)) STRICT`,
  `CREATE TABLE names(
    document INTEGER NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, offset INTEGER NOT NULL,
    state BLOB NOT NULL, UNIQUE (document, version)) STRICT`,
  `CREATE TABLE conflicts(
    document INTEGER NOT NULL, id TEXT NOT NULL, is_open INTEGER NOT NULL, conflict TEXT NOT NULL,
    PRIMARY KEY (document, id)) WITHOUT ROWID, STRICT`,
  `CREATE TABLE locks(
    document INTEGER NOT NULL, object_id TEXT NOT NULL, id TEXT NOT NULL, lock TEXT NOT NULL,
    PRIMARY KEY (document, object_id)) WITHOUT ROWID, STRICT`,
  `CREATE TABLE totals(
    epoch TEXT NOT NULL, sequence INTEGER NOT NULL, document INTEGER NOT NULL, active INTEGER NOT NULL,
    archived INTEGER NOT NULL, deleted INTEGER NOT NULL, operations INTEGER NOT NULL,
    conflicts INTEGER NOT NULL, resolved INTEGER NOT NULL, locks INTEGER NOT NULL,
    compacted INTEGER NOT NULL) STRICT`,
];

/** Makes the tables of a new file. */
export function createTables(database: Database, epoch: string): void {
  for (const table of TABLES) database.execute(table);
  database.prepare("INSERT INTO totals VALUES (?, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)").run(epoch);
}

/** What is counted. A group works on a copy, which counts when the group is kept. */
export interface Totals {
  sequence: number;
  document: number;
  active: number;
  archived: number;
  deleted: number;
  operations: number;
  conflicts: number;
  resolved: number;
  locks: number;
  /** The newest sequence that was compacted. */
  compacted: number;
}

/** Reads the epoch and what is counted. */
export function readTotals(database: Database): { epoch: string; totals: Totals } {
  const row = database.prepare(
    `SELECT epoch, sequence, document, active, archived, deleted, operations, conflicts, resolved, locks,
    compacted FROM totals`,
  ).get()!;
  const [sequence, document, active, archived, deleted, operations, conflicts, resolved, locks, compacted] =
    row.slice(1) as number[];
  return {
    epoch: row[0] as string,
    totals: {
      sequence: sequence!,
      document: document!,
      active: active!,
      archived: archived!,
      deleted: deleted!,
      operations: operations!,
      conflicts: conflicts!,
      resolved: resolved!,
      locks: locks!,
      compacted: compacted!,
    },
  };
}

const ENTRY_COLUMNS = `sequence, entries.offset, entries.version, entries.type, entries.id, user_id, at_ms,
  status, operation_key, content, operation, extra`;
const DOCUMENT_COLUMNS =
  "document, version, offset, updated_by, updated_ms, fencing_token, open_conflicts, hlc, settled";

/** Statements that are prepared once. */
export type Statements = ReturnType<typeof prepareStatements>;

/** Prepares them. */
export function prepareStatements(database: Database) {
  const prepare = (sql: string): Statement => database.prepare(sql);
  return {
    insertDocument: prepare(`INSERT INTO documents VALUES (${"?, ".repeat(13)}?)`),
    settleDocument: prepare(
      `UPDATE documents SET type = ?, state = ?, folded_name = ?, settled = ?, created_by = ?
      WHERE document = ?`,
    ),
    editDocument: prepare(
      `UPDATE documents SET version = ?, offset = ?, updated_by = ?, updated_ms = ?, fencing_token = ?,
      open_conflicts = ?, hlc = ? WHERE document = ?`,
    ),
    document: prepare(`SELECT ${DOCUMENT_COLUMNS} FROM documents WHERE id = ?`),
    entriesBehind: prepare(
      `SELECT offset, version, user_id, at_ms, operation FROM entries WHERE document = ? AND offset > ?
      ORDER BY offset`,
    ),
    insertLabel: prepare("INSERT INTO labels VALUES (?, ?)"),
    removeLabel: prepare("DELETE FROM labels WHERE label = ? AND id = ?"),
    insertEntry: prepare(`INSERT INTO entries VALUES (${"?, ".repeat(15)}NULL)`),
    insertRemoval: prepare(
      `INSERT INTO entries (sequence, offset, version, is_version, type, id, user_id, at_ms, content, extra,
      removed_id) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    setStatus: prepare(
      "UPDATE entries SET status = ? WHERE document = ? AND offset = ? AND operation IS NOT NULL",
    ),
    putLock: prepare("INSERT OR REPLACE INTO locks VALUES (?, ?, ?, ?)"),
    removeLock: prepare("DELETE FROM locks WHERE document = ? AND id = ?"),
    lockOfObject: prepare("SELECT 1 FROM locks WHERE document = ? AND object_id = ?"),
    locksOf: prepare("SELECT lock FROM locks WHERE document = ?"),
    locks: prepare("SELECT lock FROM locks"),
    conflict: prepare("SELECT conflict, is_open FROM conflicts WHERE document = ? AND id = ?"),
    putConflict: prepare("INSERT OR REPLACE INTO conflicts VALUES (?, ?, ?, ?)"),
    conflicts: prepare(
      "SELECT conflict FROM conflicts WHERE document = ? AND id < ? ORDER BY id DESC LIMIT ?",
    ),
    openConflicts: prepare(
      "SELECT conflict FROM conflicts WHERE document = ? AND id < ? AND is_open = 1 ORDER BY id DESC LIMIT ?",
    ),
    newestConflictId: prepare("SELECT max(id) FROM conflicts WHERE document = ?"),
    countConflicts: prepare("SELECT count(*), sum(is_open) FROM conflicts WHERE document = ?"),
    putName: prepare("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, ?)"),
    removeName: prepare("DELETE FROM names WHERE document = ? AND version = ?"),
    names: prepare("SELECT name FROM names WHERE document = ? ORDER BY version"),
    namedState: prepare("SELECT offset, state FROM names WHERE document = ? AND version = ?"),
    putSnapshot: prepare("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)"),
    snapshot: prepare(
      `SELECT offset, version, state FROM snapshots WHERE document = ? AND offset <= ? AND version <= ?
      ORDER BY offset DESC LIMIT 1`,
    ),
    snapshotOffset: prepare(
      "SELECT offset FROM snapshots WHERE document = ? AND offset < ? ORDER BY offset DESC LIMIT 1",
    ),
    updates: prepare(
      `SELECT offset, version, user_id, at_ms, content FROM entries
      WHERE document = ? AND offset > ? AND offset <= ? AND content IS NOT NULL ORDER BY offset`,
    ),
    entries: prepare(
      `SELECT ${ENTRY_COLUMNS} FROM entries WHERE document = ? AND offset >= ? ORDER BY offset LIMIT ?`,
    ),
    entriesBySequence: prepare(
      `SELECT ${ENTRY_COLUMNS}, coalesce(documents.id, removed_id) FROM entries LEFT JOIN documents USING (document)
      WHERE sequence >= ? ORDER BY sequence LIMIT ?`,
    ),
    entryByKey: prepare(`SELECT ${ENTRY_COLUMNS} FROM entries WHERE operation_key = ? AND document = ?`),
    versions: prepare(
      `SELECT ${ENTRY_COLUMNS} FROM entries WHERE document = ? AND offset <= ? AND is_version = 1
      ORDER BY offset DESC LIMIT ?`,
    ),
    versionAtTime: prepare(
      `SELECT version FROM entries WHERE document = ? AND at_ms <= ? AND is_version = 1
      ORDER BY offset DESC LIMIT 1`,
    ),
    versionOfOffset: prepare("SELECT version FROM entries WHERE document = ? AND offset = ?"),
    oldestOffset: prepare("SELECT min(offset) FROM entries WHERE document = ?"),
    newestSequenceBelow: prepare("SELECT max(sequence) FROM entries WHERE document = ? AND offset <= ?"),
    countOperations: prepare(
      "SELECT count(operation_key) FROM entries WHERE document = ? AND offset <= ?",
    ),
    removeEntries: prepare("DELETE FROM entries WHERE document = ? AND offset <= ?"),
    removeSnapshots: prepare("DELETE FROM snapshots WHERE document = ? AND offset < ?"),
    removeNames: prepare("DELETE FROM names WHERE document = ?"),
    removeConflicts: prepare("DELETE FROM conflicts WHERE document = ?"),
    removeLocks: prepare("DELETE FROM locks WHERE document = ?"),
    removeDocument: prepare("DELETE FROM documents WHERE document = ?"),
    setTotals: prepare(
      `UPDATE totals SET sequence = ?, document = ?, active = ?, archived = ?, deleted = ?, operations = ?,
      conflicts = ?, resolved = ?, locks = ?, compacted = ?`,
    ),
  };
}

/** Columns that `documentOfRow` reads, for statements made elsewhere. */
export const LISTED_COLUMNS = DOCUMENT_COLUMNS;
/** Columns that `entryOfRow` reads. */
export const READ_COLUMNS = ENTRY_COLUMNS;

/** A document of its row, as it stands there. */
export function documentOfRow(row: SqlRow): DocumentRecord {
  const [, version, offset, updatedBy, updatedAtMs, fencingToken, openConflicts, hlc, settled] = row;
  return documentOfText(settled as string, {
    version: version as number,
    offset: offset as number,
    updatedBy: updatedBy as string,
    updatedAtMs: updatedAtMs as number,
    fencingToken: fencingToken as number,
    openConflicts: openConflicts as number,
    hlc: BigInt(hlc as string),
  });
}

/** What an edit changes of a document's record, as far as its entry tells. */
export function afterEntry(
  record: DocumentRecord,
  { offset, version, userId, atMs, operation }: Pick<
    StoredEntry,
    "offset" | "version" | "userId" | "atMs" | "operation"
  >,
): DocumentRecord {
  const isVersion = version > record.version;
  return {
    ...record,
    offset,
    version,
    updatedBy: isVersion ? userId : record.updatedBy,
    updatedAtMs: isVersion ? atMs : record.updatedAtMs,
    hlc: operation !== undefined && operation.hlc > record.hlc ? operation.hlc : record.hlc,
  };
}

/** Whether what changes with every edit is the same in both. */
export function isEditedAlike(a: DocumentRecord, b: DocumentRecord): boolean {
  return a.version === b.version && a.offset === b.offset && a.updatedBy === b.updatedBy &&
    a.updatedAtMs === b.updatedAtMs && a.fencingToken === b.fencingToken &&
    a.openConflicts === b.openConflicts && a.hlc === b.hlc;
}

/** A document of its row and of rows of `entriesBehind`. */
export function documentOfRows(row: SqlRow, behind: readonly SqlRow[]): DocumentRecord {
  let record = documentOfRow(row);
  for (const [offset, version, userId, atMs, operation] of behind) {
    record = afterEntry(record, {
      offset: offset as number,
      version: version as number,
      userId: userId as string,
      atMs: atMs as number,
      operation: operation === null ? undefined : operationOfBytes(operation as Uint8Array, undefined),
    });
  }
  return record;
}

/** An entry of its row. `docId` undefined: it is the last column. */
export function entryOfRow(row: SqlRow, docId: string | undefined): StoredEntry {
  const [sequence, offset, version, type, id, userId, atMs, status, key, update, operation, extra, last] =
    row;
  const operationStatus = status === null ? undefined : status as OperationStatus;
  const { data, document, lock, conflict } = extraOfText(extra === null ? undefined : extra as string);
  return {
    docId: docId ?? last as string,
    offset: offset as number,
    id: id as string,
    type: type as EventType,
    version: version as number,
    userId: userId as string,
    atMs: atMs as number,
    update: update === null ? undefined : update as Uint8Array,
    operation: operation === null ? undefined : operationOfBytes(operation as Uint8Array, operationStatus),
    operationStatus,
    operationKey: key === null ? undefined : keyOfBytes(key as Uint8Array),
    data,
    document,
    lock,
    conflict,
    sequence: sequence as number,
  };
}

/** A lock of its text. */
export function lockOfText(text: string): LockRecord {
  return JSON.parse(text);
}

/** What a document is looked up by. */
export function labelsOf(record: DocumentRecord): Set<string> {
  return new Set([
    ...record.tags.map(tagLabel),
    ...membersOf(record).map(memberLabel),
    ...(record.permissions.public ? [PUBLIC_LABEL] : []),
  ]);
}

/** Label of public documents. */
export const PUBLIC_LABEL = "p";

/** Label of documents with a tag. */
export function tagLabel(tag: string): string {
  return `t${tag}`;
}

/** Label of documents with a member. */
export function memberLabel(name: string): string {
  return `m${name}`;
}
