/** Records of the API as this page reads them. Numbers of 64 bits are texts; what is empty is absent. */

/** Kinds of documents. */
export type DocumentType = "text" | "whiteboard" | "canvas" | "sheet";

/** A document, without its content. */
export interface DocumentRecord {
  readonly id: string;
  readonly name?: string;
  readonly type: DocumentType;
  readonly state?: string;
  readonly version: string;
  readonly content?: string;
  readonly createdBy?: string;
  readonly updatedAt?: string;
  readonly updatedBy?: string;
  readonly activeUsers?: readonly string[];
  readonly metadata?: { readonly tags?: readonly string[] };
  readonly conflictPolicy?: string;
  readonly openConflicts?: number;
}

/** What a user may do with a document, least first. */
export const ACCESS = ["read", "comment", "edit", "manage"] as const;
/** One of them. */
export type Access = typeof ACCESS[number];

/** One edit. */
export interface OperationRecord {
  readonly id?: string;
  readonly userId?: string;
  readonly type?: string;
  readonly timestamp?: string;
  readonly version?: string;
  readonly prevVersion?: string;
  readonly status?: string;
  readonly text?: unknown;
  readonly object?: unknown;
  readonly cells?: unknown;
  readonly comment?: unknown;
}

/** An operation that met others. */
export interface ConflictRecord {
  readonly id: string;
  /** The one that came late, then those that it meets. */
  readonly ops?: readonly OperationRecord[];
  readonly resolution?: string;
  readonly description?: string;
  readonly detectedAt?: string;
  readonly targets?: readonly string[];
}

/** A lock of a document or of an object in it. */
export interface LockRecord {
  readonly id: string;
  readonly userId: string;
  readonly expiresAt?: string;
  readonly objectId?: string;
}

/** One change of a document. */
export interface VersionRecord {
  readonly version: string;
  readonly name?: string;
  readonly authors?: readonly string[];
  readonly createdAt?: string;
  readonly change?: string;
}

/** What happened to a document. */
export interface DocumentEvent {
  readonly type: string;
  readonly version?: string;
  readonly userId?: string;
  readonly data?: Readonly<Record<string, string>>;
}
