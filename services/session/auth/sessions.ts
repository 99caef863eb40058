/** What signing in needs of sessions. */
import type { Session as SessionMessage } from "$proto/aetherflow/session/v1/session_pb.ts";
import type { Session } from "../session.ts";
import type { Awaitable, Hidden } from "../store.ts";

/** A session to be opened by a login. */
export interface LoginSession {
  readonly userId: string;
  readonly clientIp: string;
  readonly clientPort: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly idleTimeoutMs: number;
  /** The user's epoch before the password was checked: if it has moved since, the session is refused. */
  readonly userEpoch: number;
  /** Kept with the session, shown to nobody, gone with it. */
  readonly hidden: Uint8Array;
}

/** Sessions, as the session service has them. Whatever has ended or run out is not there. */
export interface Sessions {
  /** @throws {SessionError} `revoked` when the user's epoch has moved. */
  create(session: LoginSession): Awaitable<Session>;
  userEpoch(userId: string): Awaitable<number>;
  get(sessionId: string): Awaitable<Session | undefined>;
  /** `get`, which counts as use. */
  use(sessionId: string): Awaitable<Session | undefined>;
  /** The session of a token of SessionService; counts as use. */
  useByToken(token: string): Awaitable<Session | undefined>;
  end(sessionId: string, reason: string): Awaitable<boolean>;
  /** Ends all sessions of a user but one, those being opened included; how many. */
  revokeUser(userId: string, reason: string, exceptSessionId?: string): Awaitable<number>;
  list(
    userId: string,
    page: { readonly pageSize: number; readonly pageToken: string },
  ): Awaitable<{ sessions: readonly Session[]; nextPageToken: string }>;
  readHidden(sessionId: string): Awaitable<Hidden | undefined>;
  compareAndSetHidden(sessionId: string, version: number, bytes: Uint8Array): Awaitable<boolean>;
  /** The session as others see it. */
  messageOf(session: Session): SessionMessage;
}
