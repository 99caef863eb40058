/** What is done to documents as a whole, as decisions. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { includes, nameOf, requireAccess, samePermissions } from "./access.ts";
import { type DecisionContext, type EntryParts, makeChange } from "./changes.ts";
import type { Decision } from "./documents.ts";
import { StateSyncError } from "./errors.ts";
import { checkDescription, checkName, checkPermissions, checkProperties, checkTags } from "./limits.ts";
import type { OpenDocument } from "./open_document.ts";
import { checkSize } from "./operations.ts";
import type { ConflictPolicy, DocumentRecord, Permissions } from "./records.ts";

/** What UpdateDocument changes; what is left out stays. */
export interface DocumentChange {
  readonly name?: string | undefined;
  readonly state?: "active" | "archived" | undefined;
  readonly conflictPolicy?: ConflictPolicy | undefined;
  readonly tags?: readonly string[] | undefined;
  readonly description?: string | undefined;
  readonly properties?: Readonly<Record<string, string>> | undefined;
  /** Sets these; undefined takes one away. */
  readonly propertyEntries?: Readonly<Record<string, string | undefined>> | undefined;
  /** Without an owner the owner stays. */
  readonly permissions?: Permissions | undefined;
  /** In the canonical form. */
  readonly content?: Uint8Array | undefined;
}

/** Changes a document; each kind of change is an entry, and a version. @throws {StateSyncError} */
export function decideUpdate(
  document: OpenDocument,
  principal: Principal | undefined,
  wanted: DocumentChange,
  ifVersion: number | undefined,
  maxDocumentBytes: number,
  context: DecisionContext,
): Decision<DocumentRecord> {
  const { record } = document;
  const access = requireAccess(principal, record, "edit");
  const fields = fieldsOf(record, wanted);
  const isManaging = fields.state !== record.state ||
    !samePermissions(fields.permissions, record.permissions);
  if (isManaging && !includes(access, "manage")) {
    throw new StateSyncError("denied", "state and permissions are the owner's to change");
  }
  if (record.state === "deleted") throw new StateSyncError("notActive", "it is deleted");
  if (ifVersion !== undefined && ifVersion !== record.version) {
    throw new StateSyncError(
      "versionMismatch",
      `if_version is ${ifVersion}, the present one is ${record.version}`,
    );
  }
  const userId = nameOf(principal);
  const changed = kindsOf(record, fields);
  if (wanted.content !== undefined || changed.includes("metadata")) {
    if (record.state !== "active" && fields.state !== "active") {
      throw new StateSyncError("notActive", `it is ${record.state}`);
    }
    if (wanted.content !== undefined) {
      document.locks.checkFree(userId, undefined, context.nowMs);
      checkSize(document, maxDocumentBytes, wanted.content.length);
    }
  }
  // Last of all, since it changes the content.
  const update = wanted.content === undefined ? undefined : document.content.setCanonical(wanted.content);
  const entries = changed.map((change): EntryParts => ({
    ...documentEntry(userId, change),
    isVersion: true,
  }));
  if (update !== undefined) entries.push({ ...documentEntry(userId, "content"), isVersion: true, update });
  if (entries.length === 0) return { value: record };
  const change = makeChange(context, record, fields, entries);
  return { value: change.record, change };
}

/** Marks a document as deleted. Its locks end. @throws {StateSyncError} */
export function decideDelete(
  document: OpenDocument,
  principal: Principal | undefined,
  context: DecisionContext,
): Decision<boolean> {
  const { record, locks } = document;
  requireAccess(principal, record, "manage");
  if (record.state === "deleted") return { value: false };
  const userId = nameOf(principal);
  const held = locks.all();
  const entries: EntryParts[] = held.map((lock) => ({
    type: "lock_released",
    userId,
    lock,
    data: { reason: "taken" },
  }));
  entries.push({ ...documentEntry(userId, "deleted"), isVersion: true });
  const change = makeChange(context, record, { state: "deleted" }, entries, {
    ...(held.length === 0 ? {} : { removeLocks: held.map(({ id }) => id) }),
  });
  return { value: true, change };
}

/** Removes a document for good. The one entry that tells of it is kept among those of all documents.
 *  @throws {StateSyncError} */
export function decidePurge(
  document: OpenDocument,
  principal: Principal | undefined,
  context: DecisionContext,
): Decision<boolean> {
  const { record } = document;
  requireAccess(principal, record, "manage");
  const change = makeChange(
    context,
    record,
    { state: "deleted" },
    [{ ...documentEntry(nameOf(principal), "purged"), isVersion: true }],
  );
  return { value: true, change: { ...change, record: undefined } };
}

/** Makes a deleted document active again. @throws {StateSyncError} */
export function decideRestore(
  document: OpenDocument,
  principal: Principal | undefined,
  context: DecisionContext,
): Decision<DocumentRecord> {
  const { record } = document;
  requireAccess(principal, record, "manage");
  if (record.state !== "deleted") return { value: record };
  const entry: EntryParts = { ...documentEntry(nameOf(principal), "restored"), isVersion: true };
  const change = makeChange(context, record, { state: "active" }, [entry]);
  return { value: change.record, change };
}

/** Writes down who has come and who has gone, of many at once. */
export function decidePresence(document: OpenDocument, context: DecisionContext): Decision<void> {
  const { users, announced, record } = document;
  const entries: EntryParts[] = [];
  for (const userId of users.keys()) {
    if (entries.length === PRESENCE_ENTRIES_MAX) break;
    if (announced.has(userId)) continue;
    entries.push({ type: "user_joined", userId });
  }
  for (const userId of announced) {
    if (entries.length === PRESENCE_ENTRIES_MAX) break;
    if (users.has(userId)) continue;
    entries.push({ type: "user_left", userId });
  }
  if (entries.length === 0) return { value: undefined };
  return { value: undefined, change: makeChange(context, record, {}, entries) };
}

/** Comings and goings written with one change; what is more comes with the next. */
const PRESENCE_ENTRIES_MAX = 500;

/** An entry that tells of the document. `change` is `created`, `metadata`, `permissions`, `state`, … */
export function documentEntry(userId: string, change: string): EntryParts {
  return { type: "document_updated", userId, data: { change }, hasDocument: true };
}

type Fields = Pick<
  DocumentRecord,
  "name" | "state" | "conflictPolicy" | "tags" | "description" | "properties" | "permissions"
>;

/** The fields after the change. @throws {StateSyncError} `invalid` */
function fieldsOf(record: DocumentRecord, wanted: DocumentChange): Fields {
  return {
    name: wanted.name === undefined ? record.name : checkName(wanted.name),
    state: wanted.state ?? record.state,
    conflictPolicy: wanted.conflictPolicy ?? record.conflictPolicy,
    tags: wanted.tags === undefined ? record.tags : checkTags(wanted.tags),
    description: wanted.description === undefined ? record.description : checkDescription(wanted.description),
    properties: propertiesOf(record, wanted),
    permissions: wanted.permissions === undefined ? record.permissions : checkPermissions({
      ...wanted.permissions,
      owner: wanted.permissions.owner || record.permissions.owner,
    }),
  };
}

function propertiesOf(record: DocumentRecord, wanted: DocumentChange): Readonly<Record<string, string>> {
  if (wanted.properties === undefined && wanted.propertyEntries === undefined) return record.properties;
  const merged = { ...wanted.properties ?? record.properties, ...wanted.propertyEntries };
  return checkProperties(Object.fromEntries(
    Object.entries(merged).filter((entry): entry is [string, string] => entry[1] !== undefined),
  ));
}

/** What kinds of changes there are between the record and its fields, as `data.change` names them. */
function kindsOf(record: DocumentRecord, fields: Fields): string[] {
  const kinds: string[] = [];
  const isOther = (field: "name" | "conflictPolicy" | "tags" | "description" | "properties") =>
    JSON.stringify(record[field]) !== JSON.stringify(fields[field]);
  if (
    isOther("name") || isOther("conflictPolicy") || isOther("tags") || isOther("description") ||
    isOther("properties")
  ) kinds.push("metadata");
  if (!samePermissions(record.permissions, fields.permissions)) kinds.push("permissions");
  if (record.state !== fields.state) kinds.push("state");
  return kinds;
}
