/** How records become text and bytes in databases: JSON for what is read whole, protobuf for operations. */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Operation, OperationSchema } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type { ConflictRecord, DocumentRecord, Entry, LockRecord, OperationStatus } from "../records.ts";

/** An operation as it is kept. */
export function operationBytes(operation: Operation): Uint8Array {
  return toBinary(OperationSchema, operation);
}

/** The kept operation, with the status that it has by now. */
export function operationOfBytes(bytes: Uint8Array, status: OperationStatus | undefined): Operation {
  const operation = fromBinary(OperationSchema, bytes);
  if (status !== undefined) operation.status = status;
  return operation;
}

const keyEncoder = new TextEncoder();
const keyDecoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** An operation's key as it is kept: bytes, since databases end a text at a NUL; and the operation's id first, since ids
 *  that rise with time come last in an index, all in the same few pages, whatever their documents and clients. */
export function keyBytes(key: string): Uint8Array {
  const at = key.lastIndexOf("\0");
  return keyEncoder.encode(at < 0 ? key : `${key.slice(at + 1)}\0${key.slice(0, at)}`);
}

/** The key of its bytes. */
export function keyOfBytes(bytes: Uint8Array): string {
  const text = keyDecoder.decode(bytes);
  const at = text.indexOf("\0");
  return at < 0 ? text : `${text.slice(at + 1)}\0${text.slice(0, at)}`;
}

/** What of a document's record changes with every edit: such fields have columns of their own. */
export type EditedFields = Pick<
  DocumentRecord,
  "version" | "offset" | "updatedBy" | "updatedAtMs" | "fencingToken" | "openConflicts" | "hlc"
>;

/** What of a document's record seldom changes. */
export type SettledFields = Omit<DocumentRecord, keyof EditedFields>;

/** The fields that seldom change, as one text. */
export function settledText(record: DocumentRecord): string {
  const { id, name, type, state, conflictPolicy, createdBy, createdAtMs, tags, description } = record;
  const { properties, permissions } = record;
  const settled: SettledFields = {
    id,
    name,
    type,
    state,
    conflictPolicy,
    createdBy,
    createdAtMs,
    tags,
    description,
    properties,
    permissions,
  };
  return JSON.stringify(settled);
}

/** Whether the fields that seldom change are the same objects and values in both. */
export function isSettledAlike(a: DocumentRecord, b: DocumentRecord): boolean {
  return a.name === b.name && a.type === b.type && a.state === b.state && a.tags === b.tags &&
    a.permissions === b.permissions && a.properties === b.properties && a.description === b.description &&
    a.conflictPolicy === b.conflictPolicy && a.createdBy === b.createdBy && a.createdAtMs === b.createdAtMs;
}

/** A document's record of both its parts. */
export function documentOfText(settled: string, edited: EditedFields): DocumentRecord {
  return { ...JSON.parse(settled) as SettledFields, ...edited };
}

/** What most entries have none of. */
export type EntryExtra = Pick<Entry, "data" | "document" | "lock" | "conflict">;

/** The rare parts of an entry as one text; undefined when it has none. */
export function extraText({ data, document, lock, conflict }: EntryExtra): string | undefined {
  if (document === undefined && lock === undefined && conflict === undefined && !hasKeys(data)) {
    return undefined;
  }
  return JSON.stringify({
    data,
    document: document === undefined ? undefined : { ...document, hlc: String(document.hlc) },
    lock,
    conflict: conflict === undefined ? undefined : conflictPlain(conflict),
  });
}

/** The rare parts of an entry. */
export function extraOfText(text: string | undefined): EntryExtra {
  if (text === undefined) return { data: {}, document: undefined, lock: undefined, conflict: undefined };
  const { data, document, lock, conflict } = JSON.parse(text) as {
    data: Entry["data"];
    document?: Omit<DocumentRecord, "hlc"> & { hlc: string };
    lock?: LockRecord;
    conflict?: PlainConflict;
  };
  return {
    data,
    document: document === undefined ? undefined : { ...document, hlc: BigInt(document.hlc) },
    lock,
    conflict: conflict === undefined ? undefined : conflictOfPlain(conflict),
  };
}

function hasKeys(data: Entry["data"]): boolean {
  for (const _ in data) return true;
  return false;
}

/** A conflict as one text. */
export function conflictText(conflict: ConflictRecord): string {
  return JSON.stringify(conflictPlain(conflict));
}

/** The conflict of a text. */
export function conflictOfText(text: string): ConflictRecord {
  return conflictOfPlain(JSON.parse(text));
}

/** A conflict with its operations as base64. */
type PlainConflict = Omit<ConflictRecord, "operations" | "resolvedOperation"> & {
  readonly operations: readonly string[];
  readonly resolvedOperation?: string | undefined;
};

function conflictPlain(conflict: ConflictRecord): PlainConflict {
  const { operations, resolvedOperation, ...rest } = conflict;
  return {
    ...rest,
    operations: operations.map((operation) => operationBytes(operation).toBase64()),
    resolvedOperation: resolvedOperation === undefined
      ? undefined
      : operationBytes(resolvedOperation).toBase64(),
  };
}

function conflictOfPlain(plain: PlainConflict): ConflictRecord {
  const operationOf = (text: string) => operationOfBytes(Uint8Array.fromBase64(text), undefined);
  return {
    ...plain,
    resolvedAtMs: plain.resolvedAtMs,
    operations: plain.operations.map(operationOf),
    resolvedOperation: plain.resolvedOperation === undefined
      ? undefined
      : operationOf(plain.resolvedOperation),
  };
}
