/** What a group of changes comes to, as the arguments of one statement. It supposes where the documents are; the statement does
 *  nothing if one is somewhere else. */
import {
  arrayText,
  bytesArrayText,
  type PostgresValue,
  storableText,
} from "../../../storage/postgres/mod.ts";
import type { ConflictRecord, DocumentRecord, Entry, LockRecord, OperationStatus } from "../records.ts";
import type { Change, CommitResult } from "../store.ts";
import { foldedName, follow, membersOf } from "./changes.ts";
import { conflictText, extraText, keyBytes, operationBytes, settledText } from "./record_text.ts";

/** The statement. It answers with `base`, the sequence before the group's first entry, or null. */
export const WRITE_GROUP = `SELECT write_group($1::text::json, $2::text[], $3::text::json, $4::text::json,
  $5::bigint, $6::text::json, $7::bytea[], $8::bytea[], $9::text::json, $10::text::json, $11::text::json,
  $12::text::json, $13::text::json, $14::text::json, $15::text::json, $16::bytea[], $17::text) AS base`;

/** An entry with its place in the group, from 1. */
interface Placed {
  readonly entry: Entry;
  readonly place: number;
}

type Name = NonNullable<Change["putNames"]>[number];

/** What the group makes of one document. */
class DocumentOutcome {
  record: DocumentRecord | undefined;
  /** Whether one that was there before has to go. */
  isRemoved = false;
  isWritten = false;
  entries: Placed[] = [];
  readonly removals: Placed[] = [];
  readonly statuses = new Map<number, OperationStatus>();
  readonly goneLocks = new Set<string>();
  /** Objects whose lock was put by the group and taken away again: what was there before is gone as well. */
  readonly goneObjects = new Set<string>();
  /** By object. */
  readonly putLocks = new Map<string, LockRecord>();
  readonly putConflicts = new Map<string, ConflictRecord>();
  readonly goneNames = new Set<number>();
  readonly putNames = new Map<number, Name>();
  lastPlace: number | undefined;

  constructor(readonly id: string, readonly position: number) {}

  /** Whether a row is there before the group, and stays. */
  get isKept(): boolean {
    return this.position > 0 && !this.isRemoved;
  }

  apply(change: Change, places: number): void {
    this.isWritten = true;
    this.lastPlace = places + change.entries.length;
    const placed = change.entries.map((entry, i) => ({ entry, place: places + 1 + i }));
    if (change.record === undefined) this.#remove(placed);
    else this.#write(change, change.record, placed);
  }

  #remove(placed: readonly Placed[]): void {
    this.record = undefined;
    this.isRemoved = this.position > 0;
    this.entries = [];
    for (const part of [this.statuses, this.goneLocks, this.goneObjects, this.putLocks]) part.clear();
    for (const part of [this.putConflicts, this.goneNames, this.putNames]) part.clear();
    this.removals.push(...placed);
  }

  #write(change: Change, record: DocumentRecord, placed: readonly Placed[]): void {
    this.record = record;
    this.entries.push(...placed);
    for (const { offset, status } of change.operationStatuses ?? []) {
      // Not of what only a later change of the group adds.
      if (offset <= record.offset) this.statuses.set(offset, status);
    }
    for (const id of change.removeLocks ?? []) {
      this.goneLocks.add(id);
      for (const [objectId, lock] of this.putLocks) {
        if (lock.id !== id) continue;
        this.putLocks.delete(objectId);
        this.goneObjects.add(objectId);
      }
    }
    for (const lock of change.putLocks ?? []) this.putLocks.set(lock.objectId, lock);
    for (const conflict of change.putConflicts ?? []) this.putConflicts.set(conflict.id, conflict);
    for (const version of change.removeNames ?? []) {
      this.goneNames.add(version);
      this.putNames.delete(version);
    }
    for (const name of change.putNames ?? []) this.putNames.set(name.version, name);
  }
}

function kindOf(position: number, baseOffset: number): CommitResult["kind"] {
  if (position === baseOffset) return "done";
  return baseOffset === 0 ? "exists" : "behind";
}

/** A group of changes on documents at supposed positions. */
export class Group {
  readonly #results: (CommitResult["kind"] | number)[] = [];
  readonly #outcomes = new Map<string, DocumentOutcome>();
  #places = 0;

  /** Documents that `positions` has not are where the first change of each supposes them. */
  constructor(changes: readonly Change[], positions: ReadonlyMap<string, number>) {
    const lost = new Set<string>();
    for (const change of changes) {
      const { docId, baseOffset, entries } = change;
      let outcome = this.#outcomes.get(docId);
      if (outcome === undefined) {
        outcome = new DocumentOutcome(docId, positions.get(docId) ?? baseOffset);
        this.#outcomes.set(docId, outcome);
      }
      const position = outcome.isWritten ? outcome.record?.offset ?? 0 : outcome.position;
      const { kind } = follow(lost, change, () => ({ kind: kindOf(position, baseOffset) }));
      if (kind !== "done") {
        this.#results.push(kind);
        continue;
      }
      this.#results.push(this.#places + Math.min(1, entries.length));
      outcome.apply(change, this.#places);
      this.#places += entries.length;
    }
  }

  /** Whether anything is to be written. */
  get isEmpty(): boolean {
    return this.#results.every((result) => typeof result !== "number");
  }

  /** How its changes ended. */
  results(base: number): CommitResult[] {
    return this.#results.map((result) =>
      typeof result === "number"
        ? { kind: "done", sequence: base + result }
        : { kind: result } as CommitResult
    );
  }

  /** An entry by which the group can be told to have been written, if it leaves one. */
  get token(): { readonly entry: Entry; readonly place: number; readonly isRemoval: boolean } | undefined {
    for (const { entries, removals } of this.#outcomes.values()) {
      if (entries[0] !== undefined) return { ...entries[0], isRemoval: false };
      if (removals[0] !== undefined) return { ...removals[0], isRemoval: true };
    }
    return undefined;
  }

  /** What WRITE_GROUP is given. */
  values(origin: string): PostgresValue[] {
    const written = [...this.#outcomes.values()].filter(({ isWritten }) => isWritten);
    const present = written.filter(({ record }) => record !== undefined);
    const of = <T>(items: (outcome: DocumentOutcome) => Iterable<T>, row: (item: T, id: string) => unknown) =>
      present.flatMap((outcome) => [...items(outcome)].map((item) => row(item, storableText(outcome.id))));
    const entries = present.flatMap((outcome) => outcome.entries);
    const names = present.flatMap((outcome) => [...outcome.putNames.values()]);
    return [
      json(written.map(({ id, position, lastPlace }) => ({
        id: storableText(id),
        position,
        last_place: lastPlace,
      }))),
      arrayText(written.filter(({ isRemoved }) => isRemoved).map(({ id }) => storableText(id))),
      json(present.filter(({ isKept }) => !isKept).map(({ record }) => documentRow(record!))),
      json(present.filter(({ isKept }) => isKept).map(({ record }) => documentRow(record!))),
      String(this.#places),
      json(entries.map(entryRow)),
      bytesArrayText(entries.map(({ entry }) => entry.update)),
      bytesArrayText(
        entries.map(({ entry: { operation } }) =>
          operation === undefined ? undefined : operationBytes(operation)
        ),
      ),
      json(written.flatMap(({ removals }) => removals.map(entryRow))),
      json(of(({ statuses }) => statuses, ([position, status], id) => ({ id, position, status }))),
      json([
        ...of(({ goneLocks }) => goneLocks, (lock, doc_id) => ({ doc_id, id: lock })),
        ...of(({ goneObjects }) => goneObjects, (objectId, doc_id) => ({
          doc_id,
          object_id: storableText(objectId),
        })),
      ]),
      json(of(({ putLocks }) => putLocks.values(), (lock, doc_id) => ({
        doc_id,
        object_id: storableText(lock.objectId),
        id: lock.id,
        lock: JSON.stringify(lock),
      }))),
      json(of(({ putConflicts }) => putConflicts.values(), (conflict, doc_id) => ({
        doc_id,
        id: conflict.id,
        is_open: conflict.resolvedAtMs === undefined,
        conflict: conflictText(conflict),
      }))),
      json(of(({ goneNames }) => goneNames, (version, doc_id) => ({ doc_id, version }))),
      json(of(({ putNames }) => putNames.values(), ({ version, name, userId, atMs }, doc_id) => ({
        doc_id,
        version,
        name: JSON.stringify({ version, name, userId, atMs }),
      }))),
      bytesArrayText(names.map(({ state }) => state)),
      origin,
    ];
  }
}

function json(rows: readonly unknown[]): string {
  return JSON.stringify(rows);
}

function documentRow(record: DocumentRecord): unknown {
  return {
    id: storableText(record.id),
    type: record.type,
    state: record.state,
    created_by: storableText(record.createdBy),
    folded_name: storableText(foldedName(record.name)),
    tags: record.tags.map(storableText),
    members: membersOf(record).map(storableText),
    is_public: record.permissions.public,
    version: record.version,
    last_position: record.offset,
    updated_by: storableText(record.updatedBy),
    updated_ms: record.updatedAtMs,
    fencing_token: record.fencingToken,
    open_conflicts: record.openConflicts,
    hlc: String(record.hlc),
    settled: settledText(record),
  };
}

function entryRow({ entry, place }: Placed): unknown {
  return {
    place,
    doc_id: storableText(entry.docId),
    position: entry.offset,
    version: entry.version,
    type: entry.type,
    id: entry.id,
    user_id: storableText(entry.userId),
    at_ms: entry.atMs,
    operation_type: entry.operation?.type,
    status: entry.operationStatus,
    operation_key: entry.operationKey === undefined ? undefined : keyBytes(entry.operationKey).toHex(),
    extra: extraText(entry),
  };
}
