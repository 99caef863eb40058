/** Documents in memory alone: a restart ends them all. */
import { StateSyncError } from "../errors.ts";
import type { ConflictRecord, DocumentRecord, LockRecord, NamedVersion, StoredEntry } from "../records.ts";
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
import { checkChanges, follow, isInHistory, isListed, withStatus } from "./changes.ts";
import { compareUtf8 } from "./utf8_order.ts";

/** An empty store. `epoch` is made up when it is left out. */
export function createMemoryStore(options: { readonly epoch?: string } = {}): DocumentStore {
  return new MemoryStore(options.epoch ?? crypto.randomUUID());
}

/** An entry in both orders, that of its document and that of all. */
interface Kept {
  entry: StoredEntry;
  /** Whether the version rose with it. */
  readonly isVersion: boolean;
  isGone: boolean;
}

interface KeptName extends NamedVersion {
  readonly state: Uint8Array;
  readonly offset: number;
}

class KeptDocument {
  /** Without a hole; the last one has the record's offset. */
  entries: Kept[] = [];
  /** By rising offset. */
  snapshots: Snapshot[] = [];
  readonly byKey = new Map<string, Kept>();
  /** By object. */
  readonly locks = new Map<string, LockRecord>();
  readonly conflicts = new Map<string, ConflictRecord>();
  readonly names = new Map<number, KeptName>();

  constructor(public record: DocumentRecord) {}

  get oldestOffset(): number {
    return this.record.offset + 1 - this.entries.length;
  }

  at(offset: number): Kept | undefined {
    return this.entries[offset - this.oldestOffset];
  }

  /** What the newest snapshot that `isWanted` and the wanted updates behind it make; undefined when some were compacted. */
  content(isWanted: (part: { readonly version: number }) => boolean): ContentParts | undefined {
    const snapshot = this.snapshots.findLast(isWanted);
    const from = (snapshot?.offset ?? 0) + 1;
    if (from < this.oldestOffset) return undefined;
    const updates = this.entries.slice(from - this.oldestOffset)
      .flatMap(({ entry }) => isWanted(entry) ? updateOf(entry) : []);
    return { snapshot: snapshot === undefined ? undefined : copyOf(snapshot), updates };
  }
}

class MemoryStore implements DocumentStore {
  onForeign: DocumentStore["onForeign"] = () => {};
  onForeignGap: DocumentStore["onForeignGap"] = () => {};
  readonly failure = undefined;
  readonly #documents = new Map<string, KeptDocument>();
  /** In their order. */
  readonly #ids: string[] = [];
  /** In the order of sequences. */
  #log: Kept[] = [];
  #goneInLog = 0;
  #sequence = 0;
  /** The newest sequence that was compacted. */
  #compacted = 0;
  #groups = 0;
  #writes = 0;
  #isClosed = false;

  constructor(readonly epoch: string) {}

  commit(changes: readonly Change[]): Promise<CommitResult[]> {
    checkChanges(changes);
    if (this.#isClosed) return Promise.reject(new StateSyncError("stopped"));
    this.#groups++;
    const lost = new Set<string>();
    return Promise.resolve(
      changes.map((change) => follow(lost, change, () => this.#commitOne(change))),
    );
  }

  #commitOne(change: Change): CommitResult {
    const { docId, baseOffset, record } = change;
    const document = this.#documents.get(docId);
    if ((document?.record.offset ?? 0) !== baseOffset) {
      return { kind: baseOffset === 0 ? "exists" : "behind" };
    }
    this.#writes++;
    const sequence = change.entries.length === 0 ? this.#sequence : this.#sequence + 1;
    if (record === undefined) this.#purge(change, document);
    else this.#write(change, record, document ?? this.#add(record));
    return { kind: "done", sequence };
  }

  #add(record: DocumentRecord): KeptDocument {
    const document = new KeptDocument(record);
    this.#documents.set(record.id, document);
    this.#ids.splice(this.#firstAfter(record.id), 0, record.id);
    return document;
  }

  #purge({ docId, entries }: Change, document: KeptDocument | undefined): void {
    if (document !== undefined) {
      this.#forget(document.entries);
      this.#documents.delete(docId);
      this.#ids.splice(this.#firstAfter(docId) - 1, 1);
    }
    for (const entry of entries) this.#append(entry, false);
  }

  #write(change: Change, record: DocumentRecord, document: KeptDocument): void {
    let version = change.baseOffset === 0 ? 0 : document.record.version;
    for (const entry of change.entries) {
      const kept = this.#append(entry, entry.version > version);
      version = entry.version;
      document.entries.push(kept);
      if (entry.operationKey !== undefined) document.byKey.set(entry.operationKey, kept);
    }
    document.record = record;
    for (const { offset, status } of change.operationStatuses ?? []) {
      const kept = document.at(offset);
      if (kept?.entry.operation !== undefined) {
        kept.entry = withStatus({ ...kept.entry, operationStatus: status });
      }
    }
    const removed = new Set(change.removeLocks ?? []);
    for (const [objectId, { id }] of document.locks) if (removed.has(id)) document.locks.delete(objectId);
    for (const lock of change.putLocks ?? []) document.locks.set(lock.objectId, lock);
    for (const conflict of change.putConflicts ?? []) document.conflicts.set(conflict.id, conflict);
    for (const removedName of change.removeNames ?? []) document.names.delete(removedName);
    for (const name of change.putNames ?? []) {
      const made = document.entries.find(({ entry, isVersion }) =>
        isVersion && entry.version === name.version
      );
      const offset = made?.entry.offset ?? document.names.get(name.version)?.offset ??
        document.oldestOffset - 1;
      document.names.set(name.version, { ...name, offset });
    }
  }

  #append(entry: StoredEntry | Change["entries"][number], isVersion: boolean): Kept {
    const stored = withStatus({ ...entry, sequence: ++this.#sequence });
    const kept = { entry: stored, isVersion, isGone: false };
    this.#log.push(kept);
    return kept;
  }

  #forget(entries: readonly Kept[]): void {
    for (const kept of entries) kept.isGone = true;
    this.#goneInLog += entries.length;
    if (this.#goneInLog * 2 <= this.#log.length) return;
    this.#log = this.#log.filter(({ isGone }) => !isGone);
    this.#goneInLog = 0;
  }

  load(docId: string): LoadedDocument | undefined {
    const document = this.#documents.get(docId);
    if (document === undefined) return undefined;
    const { record, locks, oldestOffset } = document;
    return { record, locks: [...locks.values()], oldestOffset, ...document.content(() => true)! };
  }

  record(docId: string): DocumentRecord | undefined {
    return this.#documents.get(docId)?.record;
  }

  list(filter: DocumentFilter, after: string, limit: number): DocumentRecord[] {
    const found: DocumentRecord[] = [];
    for (let i = this.#firstAfter(after); i < this.#ids.length && found.length < limit; i++) {
      const { record } = this.#documents.get(this.#ids[i]!)!;
      if (isListed(record, filter)) found.push(record);
    }
    return found;
  }

  entries(docId: string, offset: number, limit: number): StoredEntry[] {
    const document = this.#documents.get(docId);
    if (document === undefined) return [];
    const from = Math.max(0, offset - document.oldestOffset);
    return document.entries.slice(from, from + limit).map(copyOfEntry);
  }

  entriesBySequence(sequence: number, limit: number): StoredEntry[] {
    const found: StoredEntry[] = [];
    for (let i = lowerBound(this.#log, sequence); i < this.#log.length && found.length < limit; i++) {
      const kept = this.#log[i]!;
      if (!kept.isGone) found.push(copyOfEntry(kept));
    }
    return found;
  }

  sequences(): { last: number; oldest: number } {
    return { last: this.#sequence, oldest: this.#compacted + 1 };
  }

  operations(docId: string, filter: OperationFilter, before: number, limit: number): StoredEntry[] {
    return this.#newest(docId, limit, ({ entry }) => entry.offset < before && isInHistory(entry, filter));
  }

  operationByKey(docId: string, key: string): StoredEntry | undefined {
    const kept = this.#documents.get(docId)?.byKey.get(key);
    return kept === undefined ? undefined : copyOfEntry(kept);
  }

  conflicts(docId: string, isOpenOnly: boolean, before: string, limit: number): ConflictRecord[] {
    return [...this.#documents.get(docId)?.conflicts.values() ?? []]
      .filter(({ id, resolvedAtMs }) =>
        (before === "" || compareUtf8(id, before) < 0) && !(isOpenOnly && resolvedAtMs !== undefined)
      )
      .sort((a, b) => compareUtf8(b.id, a.id))
      .slice(0, limit);
  }

  conflict(docId: string, conflictId: string): ConflictRecord | undefined {
    return this.#documents.get(docId)?.conflicts.get(conflictId);
  }

  versions(docId: string, before: number, limit: number): StoredEntry[] {
    return this.#newest(docId, limit, ({ entry, isVersion }) => isVersion && entry.version < before);
  }

  names(docId: string): NamedVersion[] {
    return [...this.#documents.get(docId)?.names.values() ?? []]
      .map(({ version, name, userId, atMs }) => ({ version, name, userId, atMs }))
      .sort((a, b) => a.version - b.version);
  }

  contentAt(docId: string, version: number): ContentParts | undefined {
    const document = this.#documents.get(docId);
    if (document === undefined || version < 1 || version > document.record.version) return undefined;
    const named = document.names.get(version);
    if (named !== undefined) {
      return { snapshot: copyOf({ offset: named.offset, version, state: named.state }), updates: [] };
    }
    return document.content((part) => part.version <= version);
  }

  versionAt(docId: string, atMs: number): number | undefined {
    return this.#newest(docId, 1, ({ entry, isVersion }) => isVersion && entry.atMs <= atMs)[0]?.version;
  }

  putSnapshot(docId: string, snapshot: Snapshot): Promise<void> {
    const document = this.#documents.get(docId);
    if (document !== undefined && snapshot.offset <= document.record.offset) {
      document.snapshots = document.snapshots.filter(({ offset }) => offset !== snapshot.offset);
      document.snapshots.push(snapshot);
      document.snapshots.sort((a, b) => a.offset - b.offset);
    }
    return Promise.resolve();
  }

  compact(docId: string, offset: number): Promise<void> {
    const document = this.#documents.get(docId);
    const base = document?.snapshots.findLast((snapshot) => snapshot.offset < offset);
    if (document !== undefined && base !== undefined) {
      const removed = document.entries.splice(0, Math.max(0, base.offset + 1 - document.oldestOffset));
      for (const { entry } of removed) {
        if (entry.operationKey !== undefined) document.byKey.delete(entry.operationKey);
      }
      this.#compacted = Math.max(this.#compacted, removed.at(-1)?.entry.sequence ?? 0);
      this.#forget(removed);
      document.snapshots = document.snapshots.filter((snapshot) => snapshot.offset >= base.offset);
    }
    return Promise.resolve();
  }

  locks(): LockRecord[] {
    return [...this.#documents.values()].flatMap(({ locks }) => [...locks.values()]);
  }

  counts(): DocumentCounts {
    const documents = [...this.#documents.values()];
    const inState = (state: string) => documents.filter(({ record }) => record.state === state).length;
    const conflicts = documents.flatMap((document) => [...document.conflicts.values()]);
    return {
      documents: documents.length - inState("deleted"),
      active: inState("active"),
      archived: inState("archived"),
      operations: documents.reduce((sum, { byKey }) => sum + byKey.size, 0),
      conflicts: conflicts.length,
      resolvedConflicts: conflicts.filter(({ resolvedAtMs }) => resolvedAtMs !== undefined).length,
      locks: documents.reduce((sum, { locks }) => sum + locks.size, 0),
    };
  }

  stats(): DocumentStoreStats {
    return { groups: this.#groups, groupSeconds: 0, writes: this.#writes, failures: 0 };
  }

  close(): Promise<void> {
    this.#isClosed = true;
    return Promise.resolve();
  }

  #newest(docId: string, limit: number, isWanted: (kept: Kept) => boolean): StoredEntry[] {
    const entries = this.#documents.get(docId)?.entries ?? [];
    const found: StoredEntry[] = [];
    for (let i = entries.length - 1; i >= 0 && found.length < limit; i--) {
      const kept = entries[i]!;
      if (isWanted(kept)) found.push(copyOfEntry(kept));
    }
    return found;
  }

  /** Index of the first id that is greater. */
  #firstAfter(id: string): number {
    let low = 0, high = this.#ids.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareUtf8(this.#ids[middle]!, id) <= 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Index of the first entry with that sequence or more. */
function lowerBound(log: readonly Kept[], sequence: number): number {
  let low = 0, high = log.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (log[middle]!.entry.sequence < sequence) low = middle + 1;
    else high = middle;
  }
  return low;
}

function updateOf({ offset, version, userId, atMs, update }: StoredEntry): StoredUpdate[] {
  return update === undefined ? [] : [{ offset, version, userId, atMs, update: update.slice() }];
}

function copyOf({ offset, version, state }: Snapshot): Snapshot {
  return { offset, version, state: state.slice() };
}

function copyOfEntry({ entry }: Kept): StoredEntry {
  return { ...entry, update: entry.update?.slice() };
}
