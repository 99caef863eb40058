/** Entries and changes, put together. */
import type { Operation } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type {
  ConflictRecord,
  DocumentRecord,
  Entry,
  EventType,
  LockRecord,
  OperationStatus,
} from "./records.ts";
import type { Change } from "./store.ts";

/** What every decision has: the time, and ids to give out. */
export interface DecisionContext {
  readonly nowMs: number;
  readonly newId: () => string;
}

/** What an entry has besides its place. */
export interface EntryParts {
  readonly type: EventType;
  readonly userId: string;
  /** Whether it makes the next version. */
  readonly isVersion?: boolean;
  readonly update?: Uint8Array | undefined;
  readonly operation?: Operation | undefined;
  readonly operationStatus?: OperationStatus | undefined;
  readonly operationKey?: string | undefined;
  readonly data?: Readonly<Record<string, string>>;
  /** Whether it tells of the document after it. */
  readonly hasDocument?: boolean;
  readonly lock?: LockRecord | undefined;
  readonly conflict?: ConflictRecord | undefined;
}

const NO_DATA: Readonly<Record<string, string>> = {};

/** A change of one document: entries behind its last one, and the record after them. `fields` are those of the record that
 *  change besides version, offset and who changed it when. */
export function makeChange(
  { nowMs, newId }: DecisionContext,
  before: DocumentRecord,
  fields: Partial<DocumentRecord>,
  parts: readonly EntryParts[],
  others: Omit<Change, "docId" | "baseOffset" | "record" | "entries"> = {},
): Change & { readonly record: DocumentRecord } {
  const { id: docId, offset: baseOffset } = before;
  let { version, updatedBy, updatedAtMs } = before;
  for (const { isVersion, userId } of parts) {
    if (isVersion !== true) continue;
    version++;
    updatedBy = userId;
    updatedAtMs = nowMs;
  }
  const record: DocumentRecord = {
    ...before,
    ...fields,
    version,
    updatedBy,
    updatedAtMs,
    offset: baseOffset + parts.length,
  };
  let at = before.version;
  const entries = parts.map((part, i): Entry => ({
    docId,
    offset: baseOffset + 1 + i,
    id: newId(),
    type: part.type,
    version: part.isVersion === true ? ++at : at,
    userId: part.userId,
    atMs: nowMs,
    update: part.update,
    operation: part.operation,
    operationStatus: part.operationStatus,
    operationKey: part.operationKey,
    data: part.data ?? NO_DATA,
    document: part.hasDocument === true ? record : undefined,
    lock: part.lock,
    conflict: part.conflict,
  }));
  return { docId, baseOffset, record, entries, ...others };
}
