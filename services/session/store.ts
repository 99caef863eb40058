/** What the service needs of where sessions are kept. Every adapter passes testing/store_suite.ts.
 *
 *  Times are given by the caller. A session whose time is up at `nowMs` is found by no operation, whether it was removed
 *  yet or not; whoever finds it removes it and tells `onChange`, once. A write that has resolved survives the loss of
 *  whatever the store's durability covers. */
import type { SessionEventType } from "./events.ts";
import type { Session } from "./session.ts";
import type { SessionState } from "./state.ts";

/** At once where the store is in memory, later where it is asked over a network or waits for a disk. */
export type Awaitable<T> = T | Promise<T>;

/** What is created. */
export interface NewSession {
  readonly session: Session;
  /** SHA-256 of the token, as 64 hex digits. */
  readonly tokenHash: string;
  readonly hidden: Uint8Array | undefined;
  /** The user's epoch when the caller decided to create it; undefined: whatever it is now. */
  readonly userEpoch: number | undefined;
}

/** How a creation ended: `full` no room for one more; `revoked` the user's epoch has moved. */
export type CreateResult = "created" | "full" | "revoked";

/** Which sessions a list has. */
export interface SessionFilter {
  readonly userId?: string | undefined;
  readonly state?: SessionState | undefined;
  readonly connectionId?: string | undefined;
}

/** One page of a list, in the order of ids. */
export interface SessionPage {
  readonly sessions: readonly Session[];
  /** Whether there are more behind. */
  readonly more: boolean;
  /** Sessions on all pages. */
  readonly total: number;
}

/** Live sessions by state; states without any may be missing. */
export type SessionCounts = Readonly<Partial<Record<SessionState, number>>>;

/** A session's hidden part. */
export interface Hidden {
  readonly bytes: Uint8Array;
  /** Rises with each change; 0 as long as nothing was set. */
  readonly version: number;
}

/** Reason of the end of a session that made room for another one of its user. */
export const EVICTED = "its user has opened more than session.perUserMax sessions";

/** The store. Its operations reject with a SessionError `unavailable` or `readOnly` when it cannot do what it is asked. */
export interface SessionStore {
  /** Adds a session with its token, at once or not at all. Ids and tokens are the caller's to make unique. A user who has
   *  as many sessions as one may have loses the one unused for longest. */
  create(item: NewSession, nowMs: number): Awaitable<CreateResult>;
  get(id: string, nowMs: number): Awaitable<Session | undefined>;
  /** The session of a token, without use. */
  getByToken(tokenHash: string, nowMs: number): Awaitable<Session | undefined>;
  /** Uses a session. Does not wait until that is kept. */
  use(id: string, nowMs: number): Awaitable<Session | undefined>;
  /** `use` of the session of a token. */
  useByToken(tokenHash: string, nowMs: number): Awaitable<Session | undefined>;
  /** Replaces a session by what `change` makes of it, atomically; `change` may be called again when somebody else was
   *  faster, and may throw. It changes state, metadata and statistics only. */
  update(id: string, nowMs: number, change: (session: Session) => Session): Awaitable<Session | undefined>;
  /** Removes a session; resolves when it is gone for good, with whether it was there. */
  end(id: string, nowMs: number, reason: string): Awaitable<boolean>;
  /** Moves the user's epoch, then removes the user's sessions but `exceptId`; resolves with how many they were when
   *  both are for good. */
  revokeUser(userId: string, nowMs: number, reason: string, exceptId: string | undefined): Awaitable<number>;
  /** A number that every `revokeUser` of the user raises. Only `create` can tell whether one is still good. */
  userEpoch(userId: string): Awaitable<number>;
  /** Up to `limit` sessions with ids greater than `after`. */
  list(filter: SessionFilter, after: string, limit: number, nowMs: number): Awaitable<SessionPage>;
  count(userId: string | undefined, nowMs: number): Awaitable<SessionCounts>;
  /** Removes up to `limit` sessions whose time is up; whether there may be more. */
  expire(nowMs: number, limit: number): Awaitable<boolean>;
  readHidden(id: string, nowMs: number): Awaitable<Hidden | undefined>;
  /** Sets the hidden part if its version still is `version`; false when not, or when the session is gone. */
  compareAndSetHidden(
    id: string,
    version: number,
    bytes: Uint8Array,
    nowMs: number,
  ): Awaitable<boolean>;
  /** Told of every change in the order in which they happened to a session: created, updated (use that changed the state
   *  included), ended, expired. Set once, before the first call. */
  onChange: (type: SessionEventType, session: Session, reason: string) => void;
  /** Told when writes that operations did not wait for, or wait for now, are kept. */
  onKept: () => void;
  /** Whether what was changed so far is kept: false between a change and `onKept`. */
  readonly isKept: boolean;
  /** Why nothing can be done, if so. */
  readonly failure: Error | undefined;
  stats(): SessionStoreStats;
  /** Keeps what is not kept yet and lets go of the store. Idempotent. */
  close(): Promise<void>;
}

/** Figures of a store, since it was opened. */
export interface SessionStoreStats {
  /** Group commits, or answers of a server. */
  readonly groups: number;
  /** Time spent in them, in seconds. */
  readonly groupSeconds: number;
  /** Rows, or commands, written. */
  readonly writes: number;
  /** Operations that failed. */
  readonly failures: number;
}
