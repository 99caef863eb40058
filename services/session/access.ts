/** Who may see and change whose sessions: administrators and workers everybody's, others their own, and those of users
 *  whose ids begin with the prefix of a grant on `sessions`. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { isAdmin, mayUse } from "../runtime/principal.ts";
import { SessionError } from "./errors.ts";

/** The service's name in grants. */
const SERVICE = "sessions";

/** Whether a caller may see, or change, the sessions of a user. No principal is a worker. */
export function mayTouch(principal: Principal | undefined, userId: string, isWrite: boolean): boolean {
  if (principal === undefined) return true;
  return (principal.userId !== "" && principal.userId === userId) ||
    mayUse(principal, SERVICE, userId, isWrite);
}

/** Whose sessions a caller who names `userId` (empty: nobody in particular) means: that user's, or everybody's
 *  (undefined), or for callers who may not see all, their own.
 *  @throws {SessionError} `denied` */
export function userMeant(principal: Principal | undefined, userId: string): string | undefined {
  if (userId !== "") {
    if (!mayTouch(principal, userId, false)) throw new SessionError("denied");
    return userId;
  }
  // A grant on the empty name is one on all.
  if (principal === undefined || isAdmin(principal) || mayUse(principal, SERVICE, "", false)) {
    return undefined;
  }
  if (principal.userId === "") throw new SessionError("denied");
  return principal.userId;
}

/** Who gets the session that a caller opens for `userId` (empty: for itself).
 *  @throws {SessionError} `denied` */
export function ownerOf(principal: Principal | undefined, userId: string): string {
  if (userId === "") return principal?.userId || principal?.username || "";
  if (!mayTouch(principal, userId, true)) throw new SessionError("denied");
  return userId;
}
