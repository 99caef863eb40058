/** Documents in a PostgreSQL database that several services may share: a commit is one statement, and so one transaction, one
 *  way to the server and back, and one sync there.
 *
 *      commit ─► write_group: lock the documents, compare their positions, write, count the sequence, NOTIFY ─► answers
 *      LISTEN ◄─ what other services committed, in the order of sequences
 *
 *  A connection that is lost during a commit leaves open whether it was written. Then it is asked for again, which can do no
 *  harm, since the documents would be somewhere else by now; and if they are, it is looked whether it was this very commit
 *  that moved them. */
import {
  arrayText,
  migrate,
  openListener,
  originalText,
  PostgresClient,
  PostgresError,
  type PostgresListener,
  type PostgresOptions,
  type PostgresRow,
  type PostgresValue,
  storableText,
} from "../../../storage/postgres/mod.ts";
import type { StatesyncConfig } from "../config.ts";
import { StateSyncError } from "../errors.ts";
import type {
  ConflictRecord,
  DocumentRecord,
  EventType,
  LockRecord,
  NamedVersion,
  OperationStatus,
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
import { checkChanges, foldedName } from "./changes.ts";
import { Group, WRITE_GROUP } from "./postgres_group.ts";
import { MIGRATIONS } from "./postgres_tables.ts";
import {
  conflictOfText,
  documentOfText,
  extraOfText,
  keyBytes,
  keyOfBytes,
  operationOfBytes,
} from "./record_text.ts";

/** How to open. */
export interface PostgresStoreOptions {
  readonly postgres: StatesyncConfig["postgres"];
  /** Monotonic milliseconds, for figures and for how long is tried again. */
  readonly clock: { now(): number };
}

/** How often a group is written anew because documents were somewhere else, or other transactions were in its way. */
const WRITE_TRIES = 8;
/** The first pause between two such attempts, in milliseconds; doubled each time, up to a second. */
const PAUSE_FIRST_MS = 10;
const PAUSE_MAX_MS = 1_000;

/** Connects, and makes or updates the tables. Rejects with a PostgresError: `version` when the tables are newer. */
export async function openPostgresStore({ postgres, clock }: PostgresStoreOptions): Promise<DocumentStore> {
  const options: PostgresOptions = {
    ...postgres,
    // One is the listener's.
    connections: postgres.connections - 1,
    applicationName: "aetherflow",
  };
  await migrate(options, MIGRATIONS);
  const client = new PostgresClient(options);
  try {
    const [row] = await client.query("SELECT epoch FROM totals");
    const store = new PostgresStore(client, row!.epoch as string, options, clock);
    store.listener = await openListener(options, options.schema, store);
    return store;
  } catch (error) {
    await client.close();
    throw error;
  }
}

const DOCUMENT_COLUMNS = `documents.version, documents.last_position, updated_by, updated_ms, fencing_token,
  open_conflicts, hlc, settled`;
const ENTRY_COLUMNS = `sequence, position, entries.version, entries.type, entries.id, user_id, at_ms, status,
  operation_key, content, operation, extra`;
const OF_DOCUMENT = "JOIN documents USING (document) WHERE documents.id = $1";

/** A document with its locks, and the parts of its content at a version, or of the newest: a statement sees one moment. */
const CONTENT = `
WITH found AS MATERIALIZED (
  SELECT * FROM documents WHERE id = $1 AND ($2::bigint IS NULL OR $2 BETWEEN 1 AND version)
), named AS MATERIALIZED (
  SELECT names.state FROM names JOIN found USING (document) WHERE names.version = $2
), base AS MATERIALIZED (
  SELECT snapshots.* FROM snapshots JOIN found USING (document)
  WHERE $2 IS NULL OR snapshots.version <= $2 ORDER BY position DESC LIMIT 1
)
SELECT 0 AS part, last_position AS position, version, updated_by, updated_ms, NULL::bytea AS bytes, fencing_token,
  open_conflicts, hlc, settled,
  (SELECT json_agg(lock) FROM locks WHERE locks.document = found.document) AS locks,
  coalesce((SELECT min(position) FROM entries WHERE entries.document = found.document), last_position + 1) AS oldest
FROM found
UNION ALL SELECT 1, 0, $2, NULL, NULL, state, NULL, NULL, NULL, NULL, NULL, NULL FROM named
UNION ALL SELECT 2, position, version, NULL, NULL, state, NULL, NULL, NULL, NULL, NULL, NULL FROM base
  WHERE NOT EXISTS (SELECT FROM named)
UNION ALL SELECT 3, entries.position, entries.version, user_id, at_ms, content, NULL, NULL, NULL, NULL, NULL, NULL
  FROM entries JOIN found USING (document)
  WHERE content IS NOT NULL AND entries.position > coalesce((SELECT position FROM base), 0)
    AND ($2 IS NULL OR entries.version <= $2) AND NOT EXISTS (SELECT FROM named)
ORDER BY part, position`;

class PostgresStore implements DocumentStore {
  onForeign: DocumentStore["onForeign"] = () => {};
  onForeignGap: DocumentStore["onForeignGap"] = () => {};
  readonly failure = undefined;
  listener: PostgresListener | undefined;
  /** By which it knows its own notices. */
  readonly #origin = crypto.randomUUID();
  readonly #client: PostgresClient;
  readonly #options: PostgresOptions;
  readonly #clock: { now(): number };
  #isClosed = false;
  #groups = 0;
  #groupMs = 0;
  #writes = 0;
  #failures = 0;

  constructor(
    client: PostgresClient,
    readonly epoch: string,
    options: PostgresOptions,
    clock: { now(): number },
  ) {
    this.#client = client;
    this.#options = options;
    this.#clock = clock;
  }

  /** A notice of a commit, one for each document. */
  onNotice(payload: string): void {
    const [origin, id, offset, sequence] = JSON.parse(payload) as [string, string, number, number];
    if (origin !== this.#origin) this.onForeign(originalText(id), offset, sequence);
  }

  /** Notices may have been missed. */
  onGap(): void {
    this.onForeignGap();
  }

  async commit(changes: readonly Change[]): Promise<CommitResult[]> {
    checkChanges(changes);
    if (this.#isClosed) throw new StateSyncError("stopped");
    if (changes.length === 0) return [];
    const startedMs = this.#clock.now();
    try {
      const results = await this.#write(changes, startedMs);
      this.#groups++;
      this.#groupMs += this.#clock.now() - startedMs;
      for (const { kind } of results) if (kind === "done") this.#writes++;
      return results;
    } catch (error) {
      this.#failures++;
      throw refusalOf(error);
    }
  }

  async #write(changes: readonly Change[], startedMs: number): Promise<CommitResult[]> {
    let positions: ReadonlyMap<string, number> = new Map();
    // One that may have been written, though nobody could say so.
    let doubtful: Group | undefined;
    for (let attempt = 1;; attempt++) {
      const group = new Group(changes, positions);
      try {
        if (group.isEmpty && doubtful === undefined) return group.results(0);
        const base = group.isEmpty ? null : await this.#writeGroup(group);
        if (base !== null) return group.results(base);
        const written = doubtful === undefined ? undefined : await this.#baseOf(doubtful);
        if (written !== undefined) return doubtful!.results(written);
        if (group.isEmpty) return group.results(0);
        positions = await this.#positions(changes);
        if (attempt >= WRITE_TRIES) {
          throw new PostgresError("conflict", `others were faster ${attempt} times`);
        }
      } catch (error) {
        if (!(error instanceof PostgresError)) throw error;
        if (error.isUncertain && !group.isEmpty) doubtful ??= group;
        const isTaken = error.code === "taken" && error.constraint === "documents_id";
        const isOfOthers = attempt < WRITE_TRIES && (isTaken || error.code === "conflict");
        const isLate = this.#clock.now() - startedMs > this.#options.statementTimeoutMs;
        if ((!isOfOthers && doubtful === undefined) || isLate || this.#isClosed) throw error;
        if (isTaken) positions = await this.#positions(changes);
        await pause(Math.min(PAUSE_FIRST_MS * 2 ** attempt, PAUSE_MAX_MS));
      }
    }
  }

  async #writeGroup(group: Group): Promise<number | null> {
    const [row] = await this.#client.query(WRITE_GROUP, group.values(this.#origin));
    return row!.base as number | null;
  }

  /** Where the documents of changes are now; 0 for those that are not there. */
  async #positions(changes: readonly Change[]): Promise<ReadonlyMap<string, number>> {
    const positions = new Map(changes.map(({ docId }) => [docId, 0]));
    const rows = await this.#client.query(
      "SELECT id, last_position FROM documents WHERE id = ANY ($1::text[])",
      [
        arrayText([...positions.keys()].map(storableText)),
      ],
    );
    for (const { id, last_position } of rows) {
      positions.set(originalText(id as string), last_position as number);
    }
    return positions;
  }

  /** The sequence before a group's first entry, if it was written after all. */
  async #baseOf({ token }: Group): Promise<number | undefined> {
    if (token === undefined) return undefined;
    const { entry, place, isRemoval } = token;
    const from = isRemoval ? "FROM entries WHERE removed_id = $1" : `FROM entries ${OF_DOCUMENT}`;
    const [row] = await this.#client.query(
      `SELECT sequence ${from} AND position = $2::bigint AND entries.id = $3`,
      [
        storableText(entry.docId),
        entry.offset,
        entry.id,
      ],
    );
    return row === undefined ? undefined : row.sequence as number - place;
  }

  async load(docId: string): Promise<LoadedDocument | undefined> {
    const [row, ...parts] = await this.#ask(CONTENT, [storableText(docId), null]);
    if (row === undefined) return undefined;
    const { position, oldest, locks } = row;
    return {
      record: documentOfRow({ ...row, last_position: position }),
      locks: locks === null ? [] : JSON.parse(locks as string) as LockRecord[],
      oldestOffset: oldest as number,
      ...contentOfRows(parts, oldest as number)!,
    };
  }

  async record(docId: string): Promise<DocumentRecord | undefined> {
    const [row] = await this.#ask(`SELECT ${DOCUMENT_COLUMNS} FROM documents WHERE id = $1`, [
      storableText(docId),
    ]);
    return row === undefined ? undefined : documentOfRow(row);
  }

  async list(filter: DocumentFilter, after: string, limit: number): Promise<DocumentRecord[]> {
    const { type, state, createdBy, tag, name, member, readableBy } = filter;
    const values: PostgresValue[] = [];
    const conditions: string[] = [];
    const add = (condition: string, ...bound: PostgresValue[]) => {
      conditions.push(condition.replace(/\?/g, () => `$${values.push(bound.shift()!)}`));
    };
    const arrayOf = (texts: readonly string[]) => arrayText(texts.map(storableText));
    add("id > ?", storableText(after));
    if (type !== undefined) add("type = ?", type);
    if (state === undefined) add("state <> 'deleted'");
    else add("state = ?", state);
    if (createdBy !== undefined) add("created_by = ?", storableText(createdBy));
    if (name !== undefined) add("strpos(folded_name, ?) > 0", storableText(foldedName(name)));
    if (tag !== undefined) add("tags @> ?::text[]", arrayOf([tag]));
    if (member !== undefined) add("members && ?::text[]", arrayOf(member));
    if (readableBy !== undefined) {
      add(
        `(is_public OR members && ?::text[] OR
        EXISTS (SELECT FROM unnest(?::text[]) AS prefix WHERE starts_with(id, prefix)))`,
        arrayOf(readableBy.names),
        arrayOf(readableBy.idPrefixes),
      );
    }
    const rows = await this.#ask(
      `SELECT ${DOCUMENT_COLUMNS} FROM documents WHERE ${conditions.join(" AND ")}
      ORDER BY id LIMIT $${values.push(limit)}::bigint`,
      values,
    );
    return rows.map(documentOfRow);
  }

  entries(docId: string, offset: number, limit: number): Promise<StoredEntry[]> {
    return this.#entries(docId, "position >= $2::bigint ORDER BY position LIMIT $3::bigint", [offset, limit]);
  }

  async entriesBySequence(sequence: number, limit: number): Promise<StoredEntry[]> {
    const rows = await this.#ask(
      `SELECT ${ENTRY_COLUMNS}, coalesce(documents.id, removed_id) AS doc_id
      FROM entries LEFT JOIN documents USING (document)
      WHERE sequence >= $1::bigint ORDER BY sequence LIMIT $2::bigint`,
      [sequence, limit],
    );
    return rows.map((row) => entryOfRow(row, originalText(row.doc_id as string)));
  }

  async sequences(): Promise<{ last: number; oldest: number }> {
    const [row] = await this.#ask(
      "SELECT sequence AS last, compacted + 1 AS oldest FROM totals",
    );
    return { last: row!.last as number, oldest: row!.oldest as number };
  }

  operations(docId: string, filter: OperationFilter, before: number, limit: number): Promise<StoredEntry[]> {
    const values: PostgresValue[] = [before];
    const conditions = ["position < $2::bigint", "operation IS NOT NULL"];
    const add = (column: string, type: string, value: PostgresValue | undefined) => {
      if (value !== undefined) conditions.push(`${column} $${values.push(value) + 1}::${type}`);
    };
    add("user_id =", "text", filter.userId === undefined ? undefined : storableText(filter.userId));
    add("operation_type =", "text", filter.type);
    add("status =", "text", filter.status);
    add("at_ms >=", "bigint", filter.fromMs);
    add("at_ms <=", "bigint", filter.toMs);
    add("entries.version >=", "bigint", filter.minVersion);
    add("entries.version <=", "bigint", filter.maxVersion);
    const rest = `${conditions.join(" AND ")} ORDER BY position DESC LIMIT $${
      values.push(limit) + 1
    }::bigint`;
    return this.#entries(docId, rest, values);
  }

  async operationByKey(docId: string, key: string): Promise<StoredEntry | undefined> {
    return (await this.#entries(docId, "operation_key = $2::bytea", [keyBytes(key)]))[0];
  }

  async conflicts(
    docId: string,
    isOpenOnly: boolean,
    before: string,
    limit: number,
  ): Promise<ConflictRecord[]> {
    const rows = await this.#ask(
      `SELECT conflict FROM conflicts ${OF_DOCUMENT} AND ($2::text = '' OR conflicts.id < $2::text)
      ${isOpenOnly ? "AND is_open" : ""} ORDER BY conflicts.id DESC LIMIT $3::bigint`,
      [storableText(docId), before, limit],
    );
    return rows.map(({ conflict }) => conflictOfText(conflict as string));
  }

  async conflict(docId: string, conflictId: string): Promise<ConflictRecord | undefined> {
    const [row] = await this.#ask(
      `SELECT conflict FROM conflicts ${OF_DOCUMENT} AND conflicts.id = $2::text`,
      [
        storableText(docId),
        conflictId,
      ],
    );
    return row === undefined ? undefined : conflictOfText(row.conflict as string);
  }

  versions(docId: string, before: number, limit: number): Promise<StoredEntry[]> {
    return this.#entries(
      docId,
      "entries.version < $2::bigint AND is_version ORDER BY position DESC LIMIT $3::bigint",
      [before, limit],
    );
  }

  async names(docId: string): Promise<NamedVersion[]> {
    const rows = await this.#ask(`SELECT names.name FROM names ${OF_DOCUMENT} ORDER BY names.version`, [
      storableText(docId),
    ]);
    return rows.map(({ name }) => JSON.parse(name as string));
  }

  async contentAt(docId: string, version: number): Promise<ContentParts | undefined> {
    const [row, ...parts] = await this.#ask(CONTENT, [storableText(docId), version]);
    return row === undefined ? undefined : contentOfRows(parts, row.oldest as number);
  }

  async versionAt(docId: string, atMs: number): Promise<number | undefined> {
    const [row] = await this.#ask(
      `SELECT entries.version FROM entries ${OF_DOCUMENT} AND at_ms <= $2::bigint AND is_version
      ORDER BY position DESC LIMIT 1`,
      [storableText(docId), atMs],
    );
    return row?.version as number | undefined;
  }

  async putSnapshot(docId: string, { offset, version, state }: Snapshot): Promise<void> {
    await this.#ask(
      `INSERT INTO snapshots (document, position, version, state)
      SELECT document, $2::bigint, $3::bigint, $4::bytea FROM documents WHERE id = $1 AND last_position >= $2
      ON CONFLICT (document, position) DO UPDATE SET version = excluded.version, state = excluded.state`,
      [storableText(docId), offset, version, state],
    );
  }

  async compact(docId: string, offset: number): Promise<void> {
    await this.#ask(
      `WITH base AS MATERIALIZED (
        SELECT document, max(position) AS position FROM snapshots ${OF_DOCUMENT} AND position < $2::bigint
        GROUP BY document
      ), gone AS (
        DELETE FROM entries USING base WHERE entries.document = base.document AND entries.position <= base.position
        RETURNING sequence
      ), told AS (
        UPDATE totals SET compacted = newest FROM (SELECT max(sequence) AS newest FROM gone) AS removed
        WHERE newest > compacted
      )
      DELETE FROM snapshots USING base
      WHERE snapshots.document = base.document AND snapshots.position < base.position`,
      [storableText(docId), offset],
    );
  }

  async locks(): Promise<LockRecord[]> {
    return (await this.#ask("SELECT lock FROM locks")).map(({ lock }) => JSON.parse(lock as string));
  }

  async counts(): Promise<DocumentCounts> {
    const [row] = await this.#ask(`SELECT
      count(*) FILTER (WHERE state <> 'deleted') AS documents,
      count(*) FILTER (WHERE state = 'active') AS active,
      count(*) FILTER (WHERE state = 'archived') AS archived,
      (SELECT count(*) FROM entries WHERE operation_key IS NOT NULL) AS operations,
      (SELECT count(*) FROM conflicts) AS conflicts,
      (SELECT count(*) FROM conflicts WHERE NOT is_open) AS "resolvedConflicts",
      (SELECT count(*) FROM locks) AS locks
      FROM documents`);
    return { ...row } as unknown as DocumentCounts;
  }

  stats(): DocumentStoreStats {
    return {
      groups: this.#groups,
      groupSeconds: this.#groupMs / 1_000,
      writes: this.#writes,
      failures: this.#failures,
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.listener?.close();
    await this.#client.close();
  }

  async #entries(docId: string, rest: string, values: readonly PostgresValue[]): Promise<StoredEntry[]> {
    const rows = await this.#ask(`SELECT ${ENTRY_COLUMNS} FROM entries ${OF_DOCUMENT} AND ${rest}`, [
      storableText(docId),
      ...values,
    ]);
    return rows.map((row) => entryOfRow(row, docId));
  }

  /** Asks something that may be asked twice: so it is, when the connection was lost. Rejects with a StateSyncError. */
  async #ask(text: string, values: readonly PostgresValue[] = []): Promise<readonly PostgresRow[]> {
    if (this.#isClosed) throw new StateSyncError("stopped");
    try {
      return await this.#client.query(text, values).catch((error) => {
        if (error instanceof PostgresError && (error.isUncertain || error.code === "conflict")) {
          return this.#client.query(text, values);
        }
        throw error;
      });
    } catch (error) {
      throw refusalOf(error);
    }
  }
}

/** What the service is told of a failure. */
function refusalOf(error: unknown): unknown {
  if (!(error instanceof PostgresError)) return error;
  return new StateSyncError(error.code === "readOnly" ? "readOnly" : "unavailable", error.message, {
    cause: error,
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function documentOfRow(row: PostgresRow): DocumentRecord {
  return documentOfText(row.settled as string, {
    version: row.version as number,
    offset: row.last_position as number,
    updatedBy: originalText(row.updated_by as string),
    updatedAtMs: row.updated_ms as number,
    fencingToken: row.fencing_token as number,
    openConflicts: row.open_conflicts as number,
    hlc: BigInt(row.hlc as string),
  });
}

function entryOfRow(row: PostgresRow, docId: string): StoredEntry {
  const { status, operation_key: key, content, operation, extra } = row;
  const operationStatus = status === null ? undefined : status as OperationStatus;
  return {
    docId,
    offset: row.position as number,
    id: row.id as string,
    type: row.type as EventType,
    version: row.version as number,
    userId: originalText(row.user_id as string),
    atMs: row.at_ms as number,
    update: content === null ? undefined : bytesOf(content),
    operation: operation === null ? undefined : operationOfBytes(bytesOf(operation), operationStatus),
    operationStatus,
    operationKey: key === null ? undefined : keyOfBytes(key as Uint8Array),
    ...extraOfText(extra === null ? undefined : extra as string),
    sequence: row.sequence as number,
  };
}

/** What the client answers is a Buffer, and may be a part of a larger one. */
function bytesOf(value: unknown): Uint8Array {
  return new Uint8Array(value as Uint8Array);
}

/** Parts of CONTENT: a named version alone, or a snapshot and updates; undefined when some were compacted away. */
function contentOfRows(rows: readonly PostgresRow[], oldestOffset: number): ContentParts | undefined {
  let snapshot: Snapshot | undefined;
  const updates: StoredUpdate[] = [];
  for (const { part, position, version, updated_by, updated_ms, bytes } of rows) {
    if (part === 3) {
      updates.push({
        offset: position as number,
        version: version as number,
        userId: originalText(updated_by as string),
        atMs: updated_ms as number,
        update: bytesOf(bytes),
      });
    } else {
      snapshot = { offset: position as number, version: version as number, state: bytesOf(bytes) };
      if (part === 1) return { snapshot, updates };
    }
  }
  return (snapshot?.offset ?? 0) + 1 < oldestOffset ? undefined : { snapshot, updates };
}
