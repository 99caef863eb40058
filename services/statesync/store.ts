/** What the service needs of where documents are kept. Every adapter passes testing/store_suite.ts.
 *
 *  A document is a record and a log of entries; its content is the newest snapshot with the updates of the entries behind
 *  it. The service decides what is written, from the state that it has in memory; the store writes it if that state is still
 *  the newest, or else says `behind`: somebody else has written, and the service must read and decide anew. A store that one
 *  service has to itself never says so. */
import type {
  ConflictRecord,
  DocumentRecord,
  DocumentState,
  DocumentType,
  Entry,
  LockRecord,
  NamedVersion,
  OperationStatus,
  OperationType,
  StoredEntry,
} from "./records.ts";

/** At once where the store is in memory, later where it is asked over a network or waits for a disk. */
export type Awaitable<T> = T | Promise<T>;

/** The content at one version: a Yjs state (an update, v1, that makes it from nothing). */
export interface Snapshot {
  readonly offset: number;
  readonly version: number;
  readonly state: Uint8Array;
}

/** One edit of the content. */
export interface StoredUpdate {
  readonly offset: number;
  readonly version: number;
  readonly userId: string;
  readonly atMs: number;
  readonly update: Uint8Array;
}

/** The content at a version, in parts: what `snapshot` (undefined: nothing) and then `updates`, in their order, make. */
export interface ContentParts {
  readonly snapshot: Snapshot | undefined;
  readonly updates: readonly StoredUpdate[];
}

/** Everything that the service keeps in memory of an open document. */
export interface LoadedDocument extends ContentParts {
  readonly record: DocumentRecord;
  /** Those that were not removed, whether their time is up or not. */
  readonly locks: readonly LockRecord[];
  /** Offset of the oldest entry kept. */
  readonly oldestOffset: number;
}

/** What happens to one document, all of it or nothing. */
export interface Change {
  readonly docId: string;
  /** Offset of the document before it; 0: there must be none of that id. */
  readonly baseOffset: number;
  /** The document after it; undefined removes it with all it has. `record.offset` is baseOffset + entries.length. */
  readonly record: DocumentRecord | undefined;
  /** Offsets baseOffset + 1 and up. With a removal there may be one, which is kept for the sequence alone. */
  readonly entries: readonly Entry[];
  /** After `removeLocks`. A lock takes the place of another one of the same object. */
  readonly putLocks?: readonly LockRecord[];
  readonly removeLocks?: readonly string[];
  /** Adds or replaces by id. */
  readonly putConflicts?: readonly ConflictRecord[];
  /** New statuses of operations of earlier entries, by offset. */
  readonly operationStatuses?: readonly { readonly offset: number; readonly status: OperationStatus }[];
  /** Names with the content of their versions, which is kept as long as the name. Replaces one of the same version. */
  readonly putNames?: readonly (NamedVersion & { readonly state: Uint8Array })[];
  readonly removeNames?: readonly number[];
}

/** How a change ended: `done`, with the sequence of its first entry (those behind follow by one; without entries, the last
 *  one given); `behind`, the document is not at `baseOffset` (any more); `exists`, `baseOffset` is 0 and the id is taken. */
export type CommitResult =
  | { readonly kind: "done"; readonly sequence: number }
  | { readonly kind: "behind" }
  | { readonly kind: "exists" };

/** Which documents a list has. */
export interface DocumentFilter {
  readonly type?: DocumentType | undefined;
  /** Undefined: all but the deleted. */
  readonly state?: DocumentState | undefined;
  readonly createdBy?: string | undefined;
  readonly tag?: string | undefined;
  /** Part of the name, in any case. */
  readonly name?: string | undefined;
  /** Any of these names is the owner or stands in a list of the permissions (the user's id and name). */
  readonly member?: readonly string[] | undefined;
  /** What a caller may read: documents with one of these names among their members, public ones, and those whose ids begin
   *  with one of the prefixes. Undefined: everything. */
  readonly readableBy?:
    | { readonly names: readonly string[]; readonly idPrefixes: readonly string[] }
    | undefined;
}

/** Which operations of a document a history has. */
export interface OperationFilter {
  readonly userId?: string | undefined;
  readonly type?: OperationType | undefined;
  readonly status?: OperationStatus | undefined;
  /** Inclusive. */
  readonly fromMs?: number | undefined;
  readonly toMs?: number | undefined;
  readonly minVersion?: number | undefined;
  readonly maxVersion?: number | undefined;
}

/** Figures of all documents. */
export interface DocumentCounts {
  /** All but the deleted. */
  readonly documents: number;
  readonly active: number;
  readonly archived: number;
  readonly operations: number;
  readonly conflicts: number;
  readonly resolvedConflicts: number;
  readonly locks: number;
}

/** The store. Its operations reject with a StateSyncError `unavailable` or `readOnly` when it cannot do what it is asked. All
 *  arrays are the caller's; arrays that are passed in must not change afterwards. */
export interface DocumentStore {
  /** Changes when offsets and sequences begin anew. */
  readonly epoch: string;
  /** Writes changes in their order, each atomically, and all durably when it resolves; several of one document follow one
   *  another: behind one that is not written, the later ones of that document in the same call are not either, since they were
   *  decided on top of it. When it rejects, none is written. One call at a time. At most 1,000 changes. */
  commit(changes: readonly Change[]): Promise<CommitResult[]>;
  load(docId: string): Awaitable<LoadedDocument | undefined>;
  record(docId: string): Awaitable<DocumentRecord | undefined>;
  /** Up to `limit` documents with ids greater than `after`, in the order of ids (by UTF-8 bytes). */
  list(filter: DocumentFilter, after: string, limit: number): Awaitable<readonly DocumentRecord[]>;
  /** Entries of a document from `offset` on, up to `limit`. Those that were compacted are missing. */
  entries(docId: string, offset: number, limit: number): Awaitable<readonly StoredEntry[]>;
  /** Entries of all documents with `sequence` and more, up to `limit`, in its order. */
  entriesBySequence(sequence: number, limit: number): Awaitable<readonly StoredEntry[]>;
  /** The last sequence given, and the first from which on nothing was compacted (purged documents are missing all the same,
   *  but for the entry that tells of it). */
  sequences(): Awaitable<{ readonly last: number; readonly oldest: number }>;
  /** Entries of operations below offset `before`, newest first, up to `limit`. */
  operations(
    docId: string,
    filter: OperationFilter,
    before: number,
    limit: number,
  ): Awaitable<readonly StoredEntry[]>;
  operationByKey(docId: string, key: string): Awaitable<StoredEntry | undefined>;
  /** Conflicts with ids below `before` (empty: all), newest first, up to `limit`. */
  conflicts(
    docId: string,
    isOpenOnly: boolean,
    before: string,
    limit: number,
  ): Awaitable<readonly ConflictRecord[]>;
  conflict(docId: string, conflictId: string): Awaitable<ConflictRecord | undefined>;
  /** Entries that made a version, with versions below `before`, newest first, up to `limit`. */
  versions(docId: string, before: number, limit: number): Awaitable<readonly StoredEntry[]>;
  names(docId: string): Awaitable<readonly NamedVersion[]>;
  /** The content at a version; undefined when it was compacted away. Of a named version always there. */
  contentAt(docId: string, version: number): Awaitable<ContentParts | undefined>;
  /** The newest version made at `atMs` or before; undefined when that was compacted away. */
  versionAt(docId: string, atMs: number): Awaitable<number | undefined>;
  /** Keeps the content at a version, so that less has to be read. Older ones stay until `compact`. */
  putSnapshot(docId: string, snapshot: Snapshot): Promise<void>;
  /** Removes the entries that the newest snapshot below `offset` covers, and the snapshots before that one: the versions from
   *  it on stay readable. Without such a snapshot nothing is removed. Names, locks, conflicts stay. */
  compact(docId: string, offset: number): Promise<void>;
  /** Locks of all documents, for their timers. */
  locks(): Awaitable<readonly LockRecord[]>;
  counts(): Awaitable<DocumentCounts>;
  /** Told of commits by others, on stores that several services share: a document's new offset (0: it is gone), in the order
   *  of sequences. Set once, before the first call. */
  onForeign: (docId: string, offset: number, sequence: number) => void;
  /** Told when notices of others may have been missed (the connection was lost): everything is to be looked at again. */
  onForeignGap: () => void;
  /** Why nothing can be written, if so. */
  readonly failure: Error | undefined;
  stats(): DocumentStoreStats;
  /** Lets go of the store once what is under way has ended. Idempotent. */
  close(): Promise<void>;
}

/** Figures of a store, since it was opened. */
export interface DocumentStoreStats {
  readonly groups: number;
  /** Time spent in them, in seconds. */
  readonly groupSeconds: number;
  /** Changes written. */
  readonly writes: number;
  readonly failures: number;
}
