/** What requests may hold. Errors name the field and the limit. */
import { formatGuuid, parseGuuid } from "../runtime/guuid.ts";
import { StateSyncError } from "./errors.ts";
import {
  CONFLICT_POLICIES,
  type ConflictPolicy,
  DOCUMENT_STATES,
  DOCUMENT_TYPES,
  type DocumentState,
  type DocumentType,
  OPERATION_STATUSES,
  OPERATION_TYPES,
  type OperationStatus,
  type OperationType,
  type Permissions,
} from "./records.ts";

const DOC_ID_BYTES_MAX = 256;
const NAME_BYTES_MAX = 256;
const TAGS_MAX = 64;
const TAG_BYTES_MAX = 64;
const DESCRIPTION_BYTES_MAX = 4_096;
const PROPERTIES_MAX = 64;
const PROPERTY_NAME_BYTES_MAX = 128;
const PROPERTY_VALUE_BYTES_MAX = 1_024;
/** Names in each list of the permissions. */
const MEMBERS_MAX = 1_000;
const MEMBER_BYTES_MAX = 256;
const CLIENT_ID_BYTES_MAX = 128;
const SESSION_ID_BYTES_MAX = 64;
const OBJECT_ID_BYTES_MAX = 128;
const OPERATION_ID_BYTES_MAX = 64;
const VERSION_NAME_BYTES_MAX = 128;
const EXTRA_ENTRIES_MAX = 32;
const EXTRA_BYTES_MAX = 4_096;
const OPERATION_TEXT_BYTES_MAX = 512;
const LOCK_TTL_MIN_MS = 1_000;
const LOCK_TTL_MAX_MS = 3_600_000;
const PAGE_DEFAULT = 100;
const PAGE_MAX = 1_000;
/** Edits that UndoEdits may take back at once. */
const UNDO_MAX = 100;

/** C0, DEL and C1. */
// deno-lint-ignore no-control-regex -- these are what is looked for
const CONTROLS = /[\x00-\x1f\x7f-\x9f]/;

/** A document's id, if it is one. @throws {StateSyncError} `invalid` */
export function checkDocId(id: string, field = "doc_id"): string {
  if (id === "") throw invalid(`${field} is empty, expected 1 to ${DOC_ID_BYTES_MAX} bytes`);
  checkBytes(field, id, DOC_ID_BYTES_MAX);
  if (CONTROLS.test(id)) throw invalid(`${field} has control characters`);
  if (!id.isWellFormed()) throw invalid(`${field} is no Unicode text`);
  return id;
}

/** @throws {StateSyncError} `invalid` */
export function checkName(name: string): string {
  checkBytes("name", name, NAME_BYTES_MAX);
  return name;
}

/** @throws {StateSyncError} `invalid` */
export function checkVersionName(name: string): string {
  if (name === "") throw invalid(`name is empty, expected 1 to ${VERSION_NAME_BYTES_MAX} bytes`);
  checkBytes("name", name, VERSION_NAME_BYTES_MAX);
  return name;
}

/** @throws {StateSyncError} `invalid` */
export function checkTags(tags: readonly string[]): readonly string[] {
  checkCount("metadata.tags", tags.length, TAGS_MAX);
  for (const tag of tags) {
    if (tag === "") throw invalid("metadata.tags has an empty tag");
    checkBytes("a tag of metadata.tags", tag, TAG_BYTES_MAX);
  }
  return tags;
}

/** @throws {StateSyncError} `invalid` */
export function checkDescription(description: string): string {
  checkBytes("metadata.description", description, DESCRIPTION_BYTES_MAX);
  return description;
}

/** @throws {StateSyncError} `invalid` */
export function checkProperties(
  properties: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const names = Object.keys(properties);
  checkCount("metadata.properties", names.length, PROPERTIES_MAX);
  for (const name of names) {
    if (name === "") throw invalid("metadata.properties has an empty name");
    checkBytes("a name of metadata.properties", name, PROPERTY_NAME_BYTES_MAX);
    checkBytes(`metadata.properties.${name}`, properties[name]!, PROPERTY_VALUE_BYTES_MAX);
  }
  return properties;
}

/** @throws {StateSyncError} `invalid` */
export function checkPermissions(permissions: Permissions): Permissions {
  const { owner, editors, commenters, viewers } = permissions;
  if (owner === "") throw invalid("metadata.permissions.owner is empty");
  checkBytes("metadata.permissions.owner", owner, MEMBER_BYTES_MAX);
  for (const [list, names] of Object.entries({ editors, commenters, viewers })) {
    const field = `metadata.permissions.${list}`;
    checkCount(field, names.length, MEMBERS_MAX);
    for (const name of names) {
      if (name === "") throw invalid(`${field} has an empty name`);
      checkBytes(`a name of ${field}`, name, MEMBER_BYTES_MAX);
    }
  }
  return permissions;
}

/** What of an operation is a plain text or number. */
export interface LimitedOperation {
  readonly id: string;
  readonly clientId: string;
  readonly sessionId: string;
  readonly metadata?:
    | {
      readonly ip: string;
      readonly userAgent: string;
      readonly platform: string;
      readonly extra: Readonly<Record<string, string>>;
    }
    | undefined;
}

/** @throws {StateSyncError} `invalid` */
export function checkOperationFields({ id, clientId, sessionId, metadata }: LimitedOperation): void {
  checkBytes("operation.id", id, OPERATION_ID_BYTES_MAX);
  checkBytes("operation.client_id", clientId, CLIENT_ID_BYTES_MAX);
  if (id !== "" && CONTROLS.test(id)) throw invalid("operation.id has control characters");
  if (clientId !== "" && CONTROLS.test(clientId)) throw invalid("operation.client_id has control characters");
  checkBytes("operation.session_id", sessionId, SESSION_ID_BYTES_MAX);
  if (metadata === undefined) return;
  checkBytes("operation.metadata.ip", metadata.ip, OPERATION_TEXT_BYTES_MAX);
  checkBytes("operation.metadata.user_agent", metadata.userAgent, OPERATION_TEXT_BYTES_MAX);
  checkBytes("operation.metadata.platform", metadata.platform, OPERATION_TEXT_BYTES_MAX);
  let count = 0, bytes = 0;
  for (const name in metadata.extra) {
    count++;
    bytes += utf8Bytes(name) + utf8Bytes(metadata.extra[name]!);
  }
  checkCount("operation.metadata.extra", count, EXTRA_ENTRIES_MAX);
  if (bytes > EXTRA_BYTES_MAX) {
    throw invalid(`operation.metadata.extra has ${bytes} bytes, expected at most ${EXTRA_BYTES_MAX}`);
  }
}

/** The time that a lock is held, in milliseconds. @throws {StateSyncError} `invalid` */
export function checkLockTtl(ttlMs: number, defaultMs: number): number {
  if (ttlMs === 0) return defaultMs;
  if (ttlMs >= LOCK_TTL_MIN_MS && ttlMs <= LOCK_TTL_MAX_MS) return ttlMs;
  throw invalid(`ttl_ms is ${ttlMs}, expected ${LOCK_TTL_MIN_MS} to ${LOCK_TTL_MAX_MS}`);
}

/** @throws {StateSyncError} `invalid` */
export function checkObjectId(id: string): string {
  checkBytes("object_id", id, OBJECT_ID_BYTES_MAX);
  if (CONTROLS.test(id)) throw invalid("object_id has control characters");
  return id;
}

/** @throws {StateSyncError} `invalid` */
export function checkSessionId(id: string): string {
  checkBytes("session_id", id, SESSION_ID_BYTES_MAX);
  return id;
}

/** Entries of a page. @throws {StateSyncError} `invalid` */
export function checkPageSize(pageSize: number): number {
  if (pageSize === 0) return PAGE_DEFAULT;
  if (pageSize >= 1 && pageSize <= PAGE_MAX) return pageSize;
  throw invalid(`page_size is ${pageSize}, expected 1 to ${PAGE_MAX}`);
}

/** Edits to take back. @throws {StateSyncError} `invalid` */
export function checkUndoCount(count: number): number {
  if (count === 0) return 1;
  if (count <= UNDO_MAX) return count;
  throw invalid(`count is ${count}, expected 1 to ${UNDO_MAX}`);
}

/** The type of a document. @throws {StateSyncError} `invalid` */
export function documentTypeOf(text: string, field = "type"): DocumentType {
  return oneOf(DOCUMENT_TYPES, text, field);
}

/** The state of a document. @throws {StateSyncError} `invalid` */
export function documentStateOf(text: string, field = "state"): DocumentState {
  return oneOf(DOCUMENT_STATES, text, field);
}

/** @throws {StateSyncError} `invalid` */
export function conflictPolicyOf(text: string, field = "conflict_policy"): ConflictPolicy {
  return oneOf(CONFLICT_POLICIES, text, field);
}

/** @throws {StateSyncError} `invalid` */
export function operationTypeOf(text: string, field = "type"): OperationType {
  return oneOf(OPERATION_TYPES, text, field);
}

/** @throws {StateSyncError} `invalid` */
export function operationStatusOf(text: string): OperationStatus {
  return oneOf(OPERATION_STATUSES, text, "status");
}

/** A GUUID in its one spelling. @throws {StateSyncError} `invalid` */
export function guuidOf(text: string, field: string): string {
  const bytes = parseGuuid(text);
  if (bytes === undefined) throw invalid(`${field} is no GUUID: expected 26 characters, or a UUID`);
  return formatGuuid(bytes);
}

/** A whole number of the wire, if it can be one here. @throws {StateSyncError} `invalid` */
export function numberOf(value: bigint, field: string): number {
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw invalid(`${field} is ${value}, expected 0 to ${Number.MAX_SAFE_INTEGER}`);
  }
  return Number(value);
}

/** One of a list of words. @throws {StateSyncError} `invalid` */
function oneOf<T extends string>(words: readonly T[], text: string, field: string): T {
  if ((words as readonly string[]).includes(text)) return text as T;
  throw invalid(`${field} is ${JSON.stringify(text.slice(0, 64))}, expected ${words.join(", ")}`);
}

function checkCount(field: string, count: number, max: number): void {
  if (count > max) throw invalid(`${field} has ${count} entries, expected at most ${max}`);
}

/** @throws {StateSyncError} `invalid` */
function checkBytes(field: string, text: string, max: number): void {
  // No text has more bytes than three a code unit, nor fewer than one.
  if (text.length * 3 <= max) return;
  const bytes = text.length > max ? text.length : utf8Bytes(text);
  if (bytes > max) throw invalid(`${field} has ${bytes} bytes or more, expected at most ${max}`);
}

function utf8Bytes(text: string): number {
  let bytes = 0;
  for (const char of text) {
    const code = char.codePointAt(0)!;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return bytes;
}

/** A request that is not valid, and why. */
export function invalid(detail: string): StateSyncError {
  return new StateSyncError("invalid", detail);
}
