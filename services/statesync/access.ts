/** Who may do what with a document (SPEC §6). */
import { type Principal, Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { isAdmin, mayUse } from "../runtime/principal.ts";
import { StateSyncError } from "./errors.ts";
import { ACCESS_LEVELS, type AccessLevel } from "./live.ts";
import type { DocumentRecord, Permissions } from "./records.ts";
import type { DocumentFilter } from "./store.ts";

/** The service's name in grants. */
const SERVICE = "documents";
/** Who a worker is in histories, when it names nobody. */
const WORKER_NAME = "system";

const RANKS = Object.fromEntries(ACCESS_LEVELS.map((level, rank) => [level, rank])) as Readonly<
  Record<AccessLevel, number>
>;

/** Whether `access` allows what `needed` allows. */
export function includes(access: AccessLevel, needed: AccessLevel): boolean {
  return RANKS[access] >= RANKS[needed];
}

/** The caller's name in records: the user's id, or what else it is known by. */
export function nameOf(principal: Principal | undefined): string {
  return principal === undefined ? WORKER_NAME : principal.userId || principal.username;
}

/** What a caller may do with a document. No principal is a worker. */
export function accessOf(principal: Principal | undefined, record: DocumentRecord): AccessLevel {
  const access = isAdmin(principal) ? "manage" : accessOfMember(principal!, record);
  return record.state === "deleted" && access !== "manage" ? "none" : access;
}

/** What a caller may do, once it is known to be at least `needed`.
 *  @throws {StateSyncError} `notFound` for who may not read it, `denied` for who may read only. */
export function requireAccess(
  principal: Principal | undefined,
  record: DocumentRecord,
  needed: AccessLevel,
): AccessLevel {
  const access = accessOf(principal, record);
  if (access === "none") throw new StateSyncError("notFound");
  if (!includes(access, needed)) {
    throw new StateSyncError("denied", `it takes ${needed}, the caller has ${access}`);
  }
  return access;
}

/** Whether a caller may make a document of this id: whoever is signed in, and a scoped key where a grant says so. */
export function mayCreate(principal: Principal | undefined, docId: string): boolean {
  if (principal === undefined || isAdmin(principal)) return true;
  if (principal.isScoped) return mayUse(principal, SERVICE, docId, true);
  return isSignedIn(principal);
}

/** Which documents a caller may read, as a filter of lists; undefined: all. */
export function readableBy(principal: Principal | undefined): DocumentFilter["readableBy"] {
  if (isAdmin(principal)) return undefined;
  const { isScoped, grants } = principal!;
  return {
    names: isScoped ? [] : namesOf(principal!),
    idPrefixes: grants.filter(({ service }) => service === SERVICE || service === "*").map(({ prefix }) =>
      prefix
    ),
  };
}

/** Whether two sets of permissions are the same. */
export function samePermissions(a: Permissions, b: Permissions): boolean {
  return a === b ||
    (a.owner === b.owner && a.public === b.public && sameNames(a.editors, b.editors) &&
      sameNames(a.commenters, b.commenters) && sameNames(a.viewers, b.viewers));
}

function accessOfMember(principal: Principal, { id, permissions }: DocumentRecord): AccessLevel {
  const isNamed = (names: readonly string[]) =>
    !principal.isScoped && names.some((name) => isName(principal, name));
  if (!principal.isScoped && isName(principal, permissions.owner)) return "manage";
  if (isNamed(permissions.editors) || mayUse(principal, SERVICE, id, true)) return "edit";
  if (isNamed(permissions.commenters)) return "comment";
  if (isNamed(permissions.viewers) || mayUse(principal, SERVICE, id, false)) return "read";
  return permissions.public && !principal.isScoped && isSignedIn(principal) ? "read" : "none";
}

/** Whether a name of a list is the caller's. The empty name is nobody's. */
function isName({ userId, username }: Principal, name: string): boolean {
  return name !== "" && (name === userId || name === username);
}

function namesOf({ userId, username }: Principal): string[] {
  return [userId, username].filter((name, i, all) => name !== "" && all.indexOf(name) === i);
}

function isSignedIn({ kind, userId, username }: Principal): boolean {
  return kind !== Principal_Kind.ANONYMOUS && kind !== Principal_Kind.UNSPECIFIED &&
    (userId !== "" || username !== "");
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}
