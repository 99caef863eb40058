/** The locks of one document (SPEC §4): at most one of its own and one of each object, all at a time of one user, or of
 *  several users on different objects. Decides; what it decided is applied by `put` and `remove`. */
import { StateSyncError } from "./errors.ts";
import type { LockRecord } from "./records.ts";

/** Locks that one document may have: each is a row, and one in an answer of IsLocked. */
export const LOCKS_PER_DOCUMENT_MAX = 1_000;

/** Who wants a lock on what. */
export interface LockRequest {
  readonly docId: string;
  /** Empty: the whole document. */
  readonly objectId: string;
  readonly userId: string;
  readonly sessionId: string;
  readonly ttlMs: number;
}

/** What acquiring a lock changes. */
export interface Acquisition {
  readonly lock: LockRecord;
  /** Whether the caller had it, and it lasts longer now. */
  readonly isExtended: boolean;
  /** Locks whose time is up and which stood in its way. */
  readonly removed: readonly LockRecord[];
}

/** The locks. */
export class DocumentLocks {
  /** By object id; the empty one is the document's. */
  readonly #locks = new Map<string, LockRecord>();

  constructor(locks: readonly LockRecord[]) {
    for (const lock of locks) this.put(lock);
  }

  get size(): number {
    return this.#locks.size;
  }

  /** All of them, whether their time is up or not. */
  all(): LockRecord[] {
    return [...this.#locks.values()];
  }

  put(lock: LockRecord): void {
    this.#locks.set(lock.objectId, lock);
  }

  /** Takes a lock away, if it still is the one of its object. */
  remove(lock: LockRecord): void {
    if (this.#locks.get(lock.objectId)?.id === lock.id) this.#locks.delete(lock.objectId);
  }

  /** Those that hold now; of one object if it is named. */
  active(nowMs: number, objectId = ""): LockRecord[] {
    return this.all().filter((lock) =>
      lock.expiresAtMs > nowMs && (objectId === "" || lock.objectId === objectId || lock.objectId === "")
    );
  }

  /** Those whose time is up. */
  expired(nowMs: number): LockRecord[] {
    return this.all().filter((lock) => lock.expiresAtMs <= nowMs);
  }

  /** Those of a session. */
  ofSession(sessionId: string): LockRecord[] {
    return this.all().filter((lock) => lock.sessionId === sessionId);
  }

  byId(id: string): LockRecord | undefined {
    for (const lock of this.#locks.values()) if (lock.id === id) return lock;
    return undefined;
  }

  ofObject(objectId: string): LockRecord | undefined {
    return this.#locks.get(objectId);
  }

  /** Whether others than this user hold any lock: whether edits must be looked at closely. */
  hasOthers(userId: string, nowMs: number): boolean {
    if (this.#locks.size === 0) return false;
    for (const lock of this.#locks.values()) {
      if (lock.userId !== userId && lock.expiresAtMs > nowMs) return true;
    }
    return false;
  }

  /** Another's lock that covers one of these objects, or all that there is; `objects` undefined is everything. */
  blocking(userId: string, objects: Iterable<string> | undefined, nowMs: number): LockRecord | undefined {
    if (this.#locks.size === 0) return undefined;
    const isOthers = (lock: LockRecord | undefined): lock is LockRecord =>
      lock !== undefined && lock.userId !== userId && lock.expiresAtMs > nowMs;
    const own = this.#locks.get("");
    if (isOthers(own)) return own;
    if (objects === undefined) return this.all().find(isOthers);
    for (const objectId of objects) {
      const lock = this.#locks.get(objectId);
      if (isOthers(lock)) return lock;
    }
    return undefined;
  }

  /** @throws {StateSyncError} `locked` by another who holds one of these objects; see `blocking`. */
  checkFree(userId: string, objects: Iterable<string> | undefined, nowMs: number): void {
    const lock = this.blocking(userId, objects, nowMs);
    if (lock !== undefined) throw lockedBy(lock);
  }

  /** @throws {StateSyncError} `fenced` unless the user holds a lock with this token on the document, or on one of the
   *  objects. */
  checkToken(token: number, userId: string, objects: Iterable<string>, nowMs: number): void {
    const holds = (lock: LockRecord | undefined) =>
      lock !== undefined && lock.fencingToken === token && lock.userId === userId && lock.expiresAtMs > nowMs;
    if (holds(this.#locks.get(""))) return;
    for (const objectId of objects) if (holds(this.#locks.get(objectId))) return;
    throw new StateSyncError("fenced", `the caller holds no lock with token ${token} on what it edits`);
  }

  /** What it takes to give the caller the lock. `id` and `token` are for a new one.
   *  @throws {StateSyncError} `locked`, `tooMany` */
  acquire(request: LockRequest, id: string, token: number, nowMs: number): Acquisition {
    const { objectId, userId } = request;
    // A document is locked against everybody who holds any part of it, a part against who holds the whole.
    this.checkFree(userId, objectId === "" ? undefined : [objectId], nowMs);
    const expiresAtMs = nowMs + request.ttlMs;
    const held = this.#locks.get(objectId);
    if (held !== undefined && held.userId === userId && held.expiresAtMs > nowMs) {
      const sessionId = request.sessionId || held.sessionId;
      return { lock: { ...held, sessionId, expiresAtMs }, isExtended: true, removed: [] };
    }
    const removed = this.expired(nowMs);
    if (this.#locks.size - removed.length >= LOCKS_PER_DOCUMENT_MAX) {
      throw new StateSyncError("tooMany", `the document has ${LOCKS_PER_DOCUMENT_MAX} locks`);
    }
    const { ttlMs: _, ...names } = request;
    return {
      lock: { ...names, id, acquiredAtMs: nowMs, expiresAtMs, fencingToken: token },
      isExtended: false,
      removed,
    };
  }
}

/** The refusal that names a lock's holder and its end. */
export function lockedBy({ objectId, userId, expiresAtMs }: LockRecord): StateSyncError {
  const what = objectId === "" ? "the document" : objectId;
  return new StateSyncError("locked", `${what} by ${userId} until ${isoTime(expiresAtMs)}`);
}

const DAY_MS = 86_400_000;

/** A time as ISO 8601 has it, in UTC: `2027-01-15T08:00:00.000Z`. */
function isoTime(ms: number): string {
  const days = Math.floor(ms / DAY_MS);
  const rest = ms - days * DAY_MS;
  const [year, month, day] = civilOf(days);
  const two = (value: number) => String(Math.floor(value)).padStart(2, "0");
  const time = `${two(rest / 3_600_000)}:${two(rest / 60_000 % 60)}:${two(rest / 1_000 % 60)}`;
  return `${year}-${two(month)}-${two(day)}T${time}.${String(rest % 1_000).padStart(3, "0")}Z`;
}

/** Year, month and day of a number of days since 1970-01-01, in years that begin with March (Hinnant,
 *  chrono-Compatible Low-Level Date Algorithms). */
function civilOf(days: number): [year: number, month: number, day: number] {
  const shifted = days + 719_468;
  const era = Math.floor(shifted / 146_097);
  const dayOfEra = shifted - era * 146_097;
  const leapDays = Math.floor(dayOfEra / 1_460) - Math.floor(dayOfEra / 36_524) +
    Math.floor(dayOfEra / 146_096);
  const yearOfEra = Math.floor((dayOfEra - leapDays) / 365);
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const marchMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const day = dayOfYear - Math.floor((153 * marchMonth + 2) / 5) + 1;
  const month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9;
  return [yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day];
}
