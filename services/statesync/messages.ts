/** Documents, events, conflicts and locks as the wire has them: plain literals with their type name, which serialise as they
 *  are. */
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type {
  Conflict as ConflictMessage,
  Document as DocumentMessage,
  Lock as LockMessage,
  Operation,
  OperationEvent,
  Permissions as PermissionsMessage,
  Version as VersionMessage,
} from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type { ConflictRecord, DocumentRecord, LockRecord, Permissions, StoredEntry } from "./records.ts";

const NO_BYTES = new Uint8Array(0);

/** What a document's message has besides its record. */
export interface DocumentExtras {
  readonly epoch: string;
  readonly content?: Uint8Array | undefined;
  readonly activeUsers?: readonly string[] | undefined;
}

/** A document. */
export function documentMessage(record: DocumentRecord, extras: DocumentExtras): DocumentMessage {
  return {
    $typeName: "aetherflow.statesync.v1.Document",
    id: record.id,
    name: record.name,
    type: record.type,
    state: record.state,
    version: BigInt(record.version),
    content: (extras.content ?? NO_BYTES) as Uint8Array<ArrayBuffer>,
    createdBy: record.createdBy,
    createdAt: timestamp(record.createdAtMs),
    updatedAt: timestamp(record.updatedAtMs),
    updatedBy: record.updatedBy,
    activeUsers: (extras.activeUsers ?? []) as string[],
    metadata: {
      $typeName: "aetherflow.statesync.v1.Metadata",
      tags: record.tags as string[],
      description: record.description,
      properties: record.properties,
      permissions: permissionsMessage(record.permissions),
    },
    conflictPolicy: record.conflictPolicy,
    offset: BigInt(record.offset),
    epoch: extras.epoch,
    openConflicts: record.openConflicts,
  };
}

function permissionsMessage(permissions: Permissions): PermissionsMessage {
  return {
    $typeName: "aetherflow.statesync.v1.Permissions",
    owner: permissions.owner,
    editors: permissions.editors as string[],
    commenters: permissions.commenters as string[],
    viewers: permissions.viewers as string[],
    public: permissions.public,
  };
}

/** A lock, as it is at a time. */
export function lockMessage(lock: LockRecord, nowMs: number): LockMessage {
  return {
    $typeName: "aetherflow.statesync.v1.Lock",
    id: lock.id,
    docId: lock.docId,
    userId: lock.userId,
    sessionId: lock.sessionId,
    acquiredAt: timestamp(lock.acquiredAtMs),
    expiresAt: timestamp(lock.expiresAtMs),
    active: lock.expiresAtMs > nowMs,
    objectId: lock.objectId,
    fencingToken: BigInt(lock.fencingToken),
  };
}

/** A conflict. */
export function conflictMessage(conflict: ConflictRecord): ConflictMessage {
  return {
    $typeName: "aetherflow.statesync.v1.Conflict",
    id: conflict.id,
    docId: conflict.docId,
    ops: conflict.operations as Operation[],
    resolution: conflict.resolution,
    resolvedBy: conflict.resolvedBy,
    resolvedOp: conflict.resolvedOperation,
    resolvedAt: conflict.resolvedAtMs === undefined ? undefined : timestamp(conflict.resolvedAtMs),
    description: conflict.description,
    detectedAt: timestamp(conflict.detectedAtMs),
    targets: conflict.targets as string[],
  };
}

/** An event. */
export function eventMessage(entry: StoredEntry, epoch: string): OperationEvent {
  return {
    $typeName: "aetherflow.statesync.v1.OperationEvent",
    id: entry.id,
    type: entry.type,
    docId: entry.docId,
    userId: entry.userId,
    operation: entry.operation,
    document: entry.document === undefined ? undefined : documentMessage(entry.document, { epoch }),
    conflict: entry.conflict === undefined ? undefined : conflictMessage(entry.conflict),
    timestamp: timestamp(entry.atMs),
    data: entry.data,
    lock: entry.lock === undefined ? undefined : lockMessage(entry.lock, entry.atMs),
    offset: BigInt(entry.offset),
    sequence: BigInt(entry.sequence),
    version: BigInt(entry.version),
    epoch,
  };
}

/** A version: the change that made it, and the name it was given. */
export function versionMessage(entry: StoredEntry, name: string): VersionMessage {
  return {
    $typeName: "aetherflow.statesync.v1.Version",
    version: BigInt(entry.version),
    name,
    authors: entry.userId === "" ? [] : [entry.userId],
    createdAt: timestamp(entry.atMs),
    change: entry.operation === undefined ? entry.data.change ?? "" : "operation",
    operationId: entry.operation?.id ?? "",
  };
}

/** A time. */
export function timestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1_000);
  return {
    $typeName: "google.protobuf.Timestamp",
    seconds: BigInt(seconds),
    nanos: Math.round((ms - seconds * 1_000) * 1_000_000),
  };
}

/** A time in whole milliseconds. */
export function millisecondsOf({ seconds, nanos }: Timestamp): number {
  return Number(seconds) * 1_000 + Math.floor(nanos / 1_000_000);
}
