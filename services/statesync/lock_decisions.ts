/** Locks, as decisions on a document (SPEC §4). */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { accessOf, includes, nameOf, requireAccess } from "./access.ts";
import { type DecisionContext, type EntryParts, makeChange } from "./changes.ts";
import type { Decision } from "./documents.ts";
import { StateSyncError } from "./errors.ts";
import type { OpenDocument } from "./open_document.ts";
import type { LockRecord } from "./records.ts";

/** Why a lock ended. */
export type ReleaseReason = "released" | "expired" | "session_ended" | "taken";

/** What a caller asks for. */
export interface WantedLock {
  readonly objectId: string;
  readonly sessionId: string;
  readonly ttlMs: number;
}

/** Gives the caller a lock, or more time. @throws {StateSyncError} */
export function decideAcquire(
  document: OpenDocument,
  principal: Principal | undefined,
  wanted: WantedLock,
  context: DecisionContext,
): Decision<LockRecord> {
  const { record, locks } = document;
  requireAccess(principal, record, "edit");
  if (record.state !== "active") throw new StateSyncError("notActive", `it is ${record.state}`);
  const userId = nameOf(principal);
  const sessionId = wanted.sessionId || (principal?.sessionId ?? "");
  const request = { ...wanted, docId: record.id, userId, sessionId };
  const token = record.fencingToken + 1;
  const { lock, isExtended, removed } = locks.acquire(request, context.newId(), token, context.nowMs);
  const entries: EntryParts[] = removed.map((lock) => releaseEntry(lock, "expired"));
  entries.push({
    type: "lock_acquired",
    userId,
    lock,
    ...(isExtended ? { data: { change: "extended" } } : {}),
  });
  const change = makeChange(context, record, isExtended ? {} : { fencingToken: token }, entries, {
    putLocks: [lock],
    ...(removed.length === 0 ? {} : { removeLocks: removed.map(({ id }) => id) }),
  });
  return { value: lock, change };
}

/** Lets a lock of the caller last longer. @throws {StateSyncError} `noLock` */
export function decideExtend(
  document: OpenDocument,
  principal: Principal | undefined,
  lockId: string,
  ttlMs: number,
  context: DecisionContext,
): Decision<LockRecord> {
  const { record, locks } = document;
  requireAccess(principal, record, "edit");
  const userId = nameOf(principal);
  const held = locks.byId(lockId);
  if (held === undefined || held.userId !== userId || held.expiresAtMs <= context.nowMs) {
    throw new StateSyncError("noLock");
  }
  const lock: LockRecord = { ...held, expiresAtMs: context.nowMs + ttlMs };
  const entry: EntryParts = { type: "lock_acquired", userId, lock, data: { change: "extended" } };
  return { value: lock, change: makeChange(context, record, {}, [entry], { putLocks: [lock] }) };
}

/** Gives a lock back: by its id, or the caller's on an object (empty: on the document). False if there is none.
 *  @throws {StateSyncError} `denied` for another's lock */
export function decideRelease(
  document: OpenDocument,
  principal: Principal | undefined,
  which: { readonly lockId: string; readonly objectId: string },
  context: DecisionContext,
): Decision<boolean> {
  const { record, locks } = document;
  requireAccess(principal, record, "read");
  const userId = nameOf(principal);
  const lock = which.lockId === "" ? locks.ofObject(which.objectId) : locks.byId(which.lockId);
  if (lock === undefined) return { value: false };
  if (lock.userId !== userId) {
    const isManager = includes(accessOf(principal, record), "manage");
    // Without its id, a caller means a lock of its own.
    if (which.lockId === "" && !isManager) return { value: false };
    if (!isManager) throw new StateSyncError("denied", `the lock is ${lock.userId}'s`);
    return { value: true, change: release(document, [lock], "taken", context, userId) };
  }
  return { value: true, change: release(document, [lock], "released", context) };
}

/** Takes away locks whose time is up. */
export function decideExpiry(document: OpenDocument, context: DecisionContext): Decision<number> {
  return decideEnd(document, document.locks.expired(context.nowMs), "expired", context);
}

/** Takes away the locks of a session that has ended. */
export function decideSessionEnd(
  document: OpenDocument,
  sessionId: string,
  context: DecisionContext,
): Decision<number> {
  return decideEnd(document, document.locks.ofSession(sessionId), "session_ended", context);
}

function decideEnd(
  document: OpenDocument,
  ended: readonly LockRecord[],
  reason: ReleaseReason,
  context: DecisionContext,
): Decision<number> {
  if (ended.length === 0) return { value: 0 };
  return { value: ended.length, change: release(document, ended, reason, context) };
}

function release(
  { record }: OpenDocument,
  locks: readonly LockRecord[],
  reason: ReleaseReason,
  context: DecisionContext,
  byUserId?: string,
) {
  const entries = locks.map((lock) => releaseEntry(lock, reason, byUserId));
  return makeChange(context, record, {}, entries, { removeLocks: locks.map(({ id }) => id) });
}

function releaseEntry(lock: LockRecord, reason: ReleaseReason, byUserId = lock.userId): EntryParts {
  return { type: "lock_released", userId: byUserId, lock, data: { reason } };
}
