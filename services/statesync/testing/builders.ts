/** Documents, entries and changes for tests: whole ones, of which a test says what matters. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Operation, OperationSchema } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type { ConflictRecord, DocumentRecord, Entry, LockRecord, Permissions } from "../records.ts";
import type { Change } from "../store.ts";

/** The time of what builders make, in milliseconds; things happen a second apart. */
export const BUILT_AT_MS = 1_800_000_000_000;

/** A GUUID that rises with `n`. `kind` tells ids of different things apart: two digits. */
export function idOf(n: number, kind = "43"): string {
  return `01ARYZ6S${kind}${String(n).padStart(16, "0")}`;
}

/** A text document as it is when it was just made. */
export function documentOf(n: number, more: Partial<DocumentRecord> = {}): DocumentRecord {
  return {
    id: idOf(n),
    name: `Document ${n}`,
    type: "text",
    state: "active",
    version: 1,
    offset: 1,
    conflictPolicy: "merge",
    createdBy: "ann",
    createdAtMs: BUILT_AT_MS,
    updatedBy: "ann",
    updatedAtMs: BUILT_AT_MS,
    tags: [],
    description: "",
    properties: {},
    permissions: permissionsOf(),
    fencingToken: 0,
    openConflicts: 0,
    hlc: 0n,
    ...more,
  };
}

/** Permissions of Ann's document that nobody else may see. */
export function permissionsOf(more: Partial<Permissions> = {}): Permissions {
  return { owner: "ann", editors: [], commenters: [], viewers: [], public: false, ...more };
}

/** Fields of an operation. */
export type OperationInit = Exclude<MessageInitShape<typeof OperationSchema>, Operation>;

/** An applied operation on a text, the n-th of a client. */
export function operationOf(n: number, more: OperationInit = {}): Operation {
  return create(OperationSchema, {
    id: idOf(n, "44"),
    clientId: "client",
    userId: "ann",
    type: "text",
    status: "applied",
    version: BigInt(n),
    hlc: 2n ** 60n + BigInt(n),
    metadata: { platform: "test", extra: { "ключ": "значение" } },
    ...more,
  });
}

/** An entry of a document: an operation that made the version of its offset, whose update is that offset as one byte. */
export function entryOf(docId: string, offset: number, more: Partial<Entry> = {}): Entry {
  const operation = "operation" in more ? more.operation : operationOf(offset, { docId });
  return {
    docId,
    offset,
    id: idOf(offset, "45"),
    type: "operation_applied",
    version: offset,
    userId: "ann",
    atMs: BUILT_AT_MS + offset * 1_000,
    update: new Uint8Array([offset & 0xFF]),
    operation,
    operationStatus: operation === undefined ? undefined : "applied",
    operationKey: operation === undefined ? undefined : `${operation.clientId}\0${operation.id}`,
    data: {},
    document: undefined,
    lock: undefined,
    conflict: undefined,
    ...more,
  };
}

/** An entry that is no operation and leaves content and version as they are. */
export function eventOf(
  docId: string,
  offset: number,
  version: number,
  more: Partial<Entry> = {},
): Entry {
  return entryOf(docId, offset, {
    type: "lock_acquired",
    operation: undefined,
    update: undefined,
    version,
    ...more,
  });
}

/** The change that makes a document. */
export function creationOf(record: DocumentRecord): Change {
  const entry = entryOf(record.id, 1, {
    type: "document_updated",
    operation: undefined,
    data: { change: "created" },
    document: record,
  });
  return { docId: record.id, baseOffset: 0, record, entries: [entry] };
}

/** The change that adds entries to a document, operations if nothing else is said: `count` of them, or those given. What the
 *  record has besides version and offset, and what else changes, is in `more`. */
export function changeOf(
  record: DocumentRecord,
  entries: number | readonly Entry[] = 1,
  more: Partial<Change> = {},
): Change & { readonly record: DocumentRecord } {
  const { id, offset, version } = record;
  const made = typeof entries !== "number" ? entries : Array.from(
    { length: entries },
    (_, i) => entryOf(id, offset + 1 + i, { version: version + 1 + i }),
  );
  const after = {
    ...record,
    ...more.record,
    offset: offset + made.length,
    version: made.at(-1)?.version ?? version,
  };
  return { docId: id, baseOffset: offset, entries: made, ...more, record: after };
}

/** The change that removes a document for good, with the entry that tells of it. */
export function removalOf({ id, offset, version }: DocumentRecord): Change {
  const entry = eventOf(id, offset + 1, version + 1, {
    type: "document_updated",
    data: { change: "purged" },
  });
  return { docId: id, baseOffset: offset, record: undefined, entries: [entry] };
}

/** A lock of an object, or of the whole document when there is none. */
export function lockOf(docId: string, objectId: string, more: Partial<LockRecord> = {}): LockRecord {
  return {
    id: idOf(1, "46"),
    docId,
    objectId,
    userId: "ann",
    sessionId: "",
    acquiredAtMs: BUILT_AT_MS,
    expiresAtMs: BUILT_AT_MS + 30_000,
    fencingToken: 1,
    ...more,
  };
}

/** A conflict that waits. */
export function conflictOf(docId: string, n: number, more: Partial<ConflictRecord> = {}): ConflictRecord {
  return {
    id: idOf(n, "47"),
    docId,
    operations: [operationOf(n + 1, { docId, status: "conflict" }), operationOf(n, { docId })],
    targets: ["0:5"],
    description: "both wrote there",
    detectedAtMs: BUILT_AT_MS,
    resolution: "",
    resolvedBy: "",
    resolvedOperation: undefined,
    resolvedAtMs: undefined,
    ...more,
  };
}
