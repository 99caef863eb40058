/** What is kept of a document: the words that the service, its stores and its wire forms share. */
import type { Operation } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";

/** Types of documents. */
export const DOCUMENT_TYPES = ["whiteboard", "text", "canvas", "sheet"] as const;
/** One of them. */
export type DocumentType = typeof DOCUMENT_TYPES[number];

/** States of documents. */
export const DOCUMENT_STATES = ["active", "archived", "deleted"] as const;
/** One of them. */
export type DocumentState = typeof DOCUMENT_STATES[number];

/** What may happen to a stale operation that meets others. */
export const CONFLICT_POLICIES = ["merge", "lww", "manual"] as const;
/** One of them. */
export type ConflictPolicy = typeof CONFLICT_POLICIES[number];

/** Types of operations. */
export const OPERATION_TYPES = ["create", "update", "delete", "move", "resize", "style", "text"] as const;
/** One of them. */
export type OperationType = typeof OPERATION_TYPES[number];

/** How an operation stands. */
export const OPERATION_STATUSES = ["pending", "applied", "conflict", "rejected", "resolved"] as const;
/** One of them. */
export type OperationStatus = typeof OPERATION_STATUSES[number];

/** Types of events. */
export const EVENT_TYPES = [
  "operation_applied",
  "document_updated",
  "user_joined",
  "user_left",
  "conflict_detected",
  "conflict_resolved",
  "lock_acquired",
  "lock_released",
] as const;
/** One of them. */
export type EventType = typeof EVENT_TYPES[number];

/** Who may do what; each list has user ids or user names. */
export interface Permissions {
  readonly owner: string;
  readonly editors: readonly string[];
  readonly commenters: readonly string[];
  readonly viewers: readonly string[];
  readonly public: boolean;
}

/** A document without its content. */
export interface DocumentRecord {
  readonly id: string;
  readonly name: string;
  readonly type: DocumentType;
  readonly state: DocumentState;
  /** 1 when made; rises by one with every change. */
  readonly version: number;
  /** Offset of its last entry; 1 when made. */
  readonly offset: number;
  readonly conflictPolicy: ConflictPolicy;
  readonly createdBy: string;
  readonly createdAtMs: number;
  readonly updatedBy: string;
  readonly updatedAtMs: number;
  readonly tags: readonly string[];
  readonly description: string;
  readonly properties: Readonly<Record<string, string>>;
  readonly permissions: Permissions;
  /** The newest fencing token given out. */
  readonly fencingToken: number;
  /** Waiting conflicts. */
  readonly openConflicts: number;
  /** The newest hybrid logical clock of its operations (see Operation.hlc). */
  readonly hlc: bigint;
}

/** One thing that happened to a document: an event to subscribers, a step of its history, and, if the content changed, the
 *  edit itself. */
export interface Entry {
  readonly docId: string;
  /** Rises by one within the document, from 1. */
  readonly offset: number;
  /** GUUID as 26 characters. */
  readonly id: string;
  readonly type: EventType;
  /** The document's version after it. */
  readonly version: number;
  readonly userId: string;
  readonly atMs: number;
  /** What the content's change is as a Yjs update (v1); undefined when the content stayed. */
  readonly update: Uint8Array | undefined;
  /** The operation that it tells of, with its payload; undefined for others. Its `status` is that of `operationStatus`. */
  readonly operation: Operation | undefined;
  /** `applied`, `conflict`, `rejected`, `resolved`; undefined where there is no operation. May change later. */
  readonly operationStatus: OperationStatus | undefined;
  /** `<client id>\0<operation id>`: one of a document. Undefined where there is no operation. */
  readonly operationKey: string | undefined;
  readonly data: Readonly<Record<string, string>>;
  /** The document after it; of document_updated only. */
  readonly document: DocumentRecord | undefined;
  readonly lock: LockRecord | undefined;
  readonly conflict: ConflictRecord | undefined;
}

/** An entry with its place among those of all documents. */
export interface StoredEntry extends Entry {
  /** Rises in the order of commits; not always by one. */
  readonly sequence: number;
}

/** A lock of a document (`objectId` empty) or of an object. */
export interface LockRecord {
  /** GUUID. */
  readonly id: string;
  readonly docId: string;
  readonly objectId: string;
  readonly userId: string;
  /** Empty: it ends by its time alone. */
  readonly sessionId: string;
  readonly acquiredAtMs: number;
  readonly expiresAtMs: number;
  readonly fencingToken: number;
}

/** A conflict; waiting while `resolvedAtMs` is undefined. */
export interface ConflictRecord {
  /** GUUID. */
  readonly id: string;
  readonly docId: string;
  /** The late operation first, then those it meets; at most 16. */
  readonly operations: readonly Operation[];
  readonly targets: readonly string[];
  readonly description: string;
  readonly detectedAtMs: number;
  /** `lww`, `manual`, `merge`; empty while it waits. */
  readonly resolution: string;
  readonly resolvedBy: string;
  readonly resolvedOperation: Operation | undefined;
  readonly resolvedAtMs: number | undefined;
}

/** A version that was given a name. */
export interface NamedVersion {
  readonly version: number;
  readonly name: string;
  readonly userId: string;
  /** When the version was made. */
  readonly atMs: number;
}
