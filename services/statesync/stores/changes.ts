/** What stores check of changes, and read off them, alike. */
import { OPERATION_STATUSES } from "../records.ts";
import type { DocumentRecord, Entry, StoredEntry } from "../records.ts";
import type { Change, CommitResult, DocumentFilter, OperationFilter } from "../store.ts";

/** Changes of one commit at most: what is in memory of one is a multiple of their sizes. */
export const MAX_CHANGES = 1_000;

/** Checks what the service promises of changes. @throws {RangeError} */
export function checkChanges(changes: readonly Change[]): void {
  if (changes.length > MAX_CHANGES) {
    throw new RangeError(`Cannot commit ${changes.length} changes: at most ${MAX_CHANGES}`);
  }
  for (const { docId, baseOffset, record, entries } of changes) {
    if (record === undefined ? entries.length > 1 : record.offset !== baseOffset + entries.length) {
      throw new RangeError(`Cannot commit ${entries.length} entries to ${docId} at ${baseOffset}`);
    }
    for (const [index, entry] of entries.entries()) {
      if (entry.offset !== baseOffset + 1 + index || entry.docId !== docId) {
        throw new RangeError(`Cannot commit entry ${entry.offset} to ${docId} at ${baseOffset + index}`);
      }
      if (entry.operationStatus !== undefined && !OPERATION_STATUSES.includes(entry.operationStatus)) {
        throw new RangeError(`Cannot commit status ${entry.operationStatus}`);
      }
    }
  }
}

/** How a change ends. Of the documents in `lost` an earlier change of the same commit was not written: what was decided on top of
 *  it is not written either, even where the document is at the offset that it supposes by somebody else's change. */
export function follow<T extends { readonly kind: CommitResult["kind"] }>(
  lost: Set<string>,
  { docId, baseOffset }: Change,
  write: () => T,
): T | { readonly kind: "behind" } {
  if (baseOffset > 0 && lost.has(docId)) return { kind: "behind" };
  const result = write();
  if (result.kind === "done") lost.delete(docId);
  else lost.add(docId);
  return result;
}

/** Everybody who is named in a document's permissions, each once. */
export function membersOf({ permissions }: DocumentRecord): string[] {
  const { owner, editors, commenters, viewers } = permissions;
  return [...new Set([owner, ...editors, ...commenters, ...viewers])];
}

/** The form in which parts of names are looked for. */
export function foldedName(name: string): string {
  return name.toLowerCase();
}

/** Whether a list with that filter has the document. */
export function isListed(record: DocumentRecord, filter: DocumentFilter): boolean {
  const { type, state, createdBy, tag, name, member, readableBy } = filter;
  if (type !== undefined && record.type !== type) return false;
  if (state === undefined ? record.state === "deleted" : record.state !== state) return false;
  if (createdBy !== undefined && record.createdBy !== createdBy) return false;
  if (tag !== undefined && !record.tags.includes(tag)) return false;
  if (name !== undefined && !foldedName(record.name).includes(foldedName(name))) return false;
  if (member !== undefined && !isMember(record, member)) return false;
  return readableBy === undefined || record.permissions.public || isMember(record, readableBy.names) ||
    readableBy.idPrefixes.some((prefix) => record.id.startsWith(prefix));
}

function isMember(record: DocumentRecord, names: readonly string[]): boolean {
  const members = membersOf(record);
  return names.some((name) => members.includes(name));
}

/** Whether a history with that filter has the operation of an entry. */
export function isInHistory(entry: Entry, filter: OperationFilter): boolean {
  const { userId, type, status, fromMs, toMs, minVersion, maxVersion } = filter;
  return entry.operation !== undefined &&
    (userId === undefined || entry.userId === userId) &&
    (type === undefined || entry.operation.type === type) &&
    (status === undefined || entry.operationStatus === status) &&
    (fromMs === undefined || entry.atMs >= fromMs) &&
    (toMs === undefined || entry.atMs <= toMs) &&
    (minVersion === undefined || entry.version >= minVersion) &&
    (maxVersion === undefined || entry.version <= maxVersion);
}

/** An entry whose operation says what its status is. */
export function withStatus<E extends Entry | StoredEntry>(entry: E): E {
  const { operation, operationStatus } = entry;
  if (operation === undefined || operationStatus === undefined || operation.status === operationStatus) {
    return entry;
  }
  return { ...entry, operation: { ...operation, status: operationStatus } };
}
