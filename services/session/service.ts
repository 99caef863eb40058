/** Sessions: opened, used, watched, ended, run out. Pure: time and chance come in.
 *
 *  What builds on it (signing in, tokens) may rely on this:
 *
 *  - Once `end` or `revokeUser` has resolved, `get`, `use`, `verify` and `compareAndSetHidden` find no session that they
 *    ended, after a crash neither; and `create` given a `userEpoch` read before a `revokeUser` opens none.
 *  - `compareAndSetHidden` is atomic with all of them: it never brings a session back.
 *  - Ids given here are canonical: 26 capital characters, as `create` returns them. */
import { createHash } from "node:crypto";
import { Buffer } from "node:buffer";
import type { Clock } from "../runtime/clock.ts";
import { createGuuidSource, formatGuuid, type GuuidSource } from "../runtime/guuid.ts";
import type { Random } from "../runtime/random.ts";
import { createSteadyTime } from "../runtime/steady_time.ts";
import { SessionError } from "./errors.ts";
import { SessionEvents, type SessionWatch } from "./events.ts";
import { checkCreation, checkMetadata, checkReason, checkTimeout } from "./limits.ts";
import { type Session, type SessionStats } from "./session.ts";
import { mayFollow, type SessionState, stateAfterUse } from "./state.ts";
import type { Awaitable, Hidden, SessionCounts, SessionFilter, SessionPage, SessionStore } from "./store.ts";

/** What the service needs. */
export interface SessionServiceDeps {
  readonly store: SessionStore;
  readonly config: SessionServiceConfig;
  readonly clock: Clock;
  readonly random: Random;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** The part of the configuration that the service reads. */
export interface SessionServiceConfig {
  readonly idleTimeoutMs: number;
  readonly absoluteTimeoutMs: number;
  readonly sessionsMax: number;
  readonly eventsKept: number;
  readonly watchersMax: number;
}

/** A session to open. */
export interface CreateSession {
  readonly userId: string;
  readonly clientIp: string;
  readonly clientPort: number;
  readonly serverAddr: string;
  /** GUUID as 26 characters; one is made when left out. */
  readonly connectionId?: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** Left out or 0: session.idleTimeoutMs. At most the absolute timeout. */
  readonly idleTimeoutMs?: number | undefined;
  /** Left out or 0: session.absoluteTimeoutMs, which is the most as well. */
  readonly absoluteTimeoutMs?: number | undefined;
  /** What `userEpoch` said before it was checked that the user may open one: refused when a `revokeUser` came between. */
  readonly userEpoch?: number | undefined;
  /** What `readHidden` gives first, with version 1. The array becomes the service's. */
  readonly hidden?: Uint8Array | undefined;
}

/** What `update` changes; fields that are left out stay. */
export interface SessionChange {
  readonly state?: SessionState | undefined;
  /** Replaces all entries. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Sets these entries; undefined removes one. */
  readonly metadataEntries?: Readonly<Record<string, string | undefined>> | undefined;
  readonly stats?: SessionStats | undefined;
}

/** Figures since the start, and of now. */
export interface SessionFigures {
  readonly created: number;
  readonly updated: number;
  /** By their owners, administrators or eviction. */
  readonly ended: number;
  readonly expired: number;
  readonly heartbeats: number;
  readonly verified: number;
  readonly verifyFailures: number;
  /** Calls of `revokeUser`. */
  readonly revocations: number;
  readonly watchers: number;
}

/** Bytes of a token: 256 random bits. */
const TOKEN_BYTES = 32;
/** Sessions removed in one slice of a sweep: a few milliseconds. */
const SWEEP_SLICE = 500;
/** Length of a token as text. */
const TOKEN_LENGTH = 43;

/** The service. */
export class SessionService {
  readonly events: SessionEvents;
  readonly #store: SessionStore;
  readonly #config: SessionServiceConfig;
  readonly #random: Random;
  readonly #ids: GuuidSource;
  readonly #pause: () => Promise<void>;
  readonly #nowMs: () => number;
  readonly #figures = {
    created: 0,
    updated: 0,
    ended: 0,
    expired: 0,
    heartbeats: 0,
    verified: 0,
    verifyFailures: 0,
    revocations: 0,
  };
  #sweeping: Promise<void> | undefined;
  #isClosed = false;

  constructor(deps: SessionServiceDeps) {
    const { store, config, clock, random, pause } = deps;
    this.#store = store;
    this.#config = config;
    this.#random = random;
    this.#pause = pause;
    this.#ids = createGuuidSource({ clock, random });
    this.#nowMs = createSteadyTime(clock);
    this.events = new SessionEvents({
      kept: config.eventsKept,
      watchersMax: config.watchersMax,
      startMs: this.#nowMs(),
    });
    store.onKept = () => this.events.tell();
    store.onChange = (type, session, reason) => {
      this.#figures[type]++;
      this.events.add(type, session, reason, this.#nowMs());
      if (store.isKept) this.events.tell();
    };
  }

  /** The service's time: wall time that never goes back, in milliseconds. */
  nowMs(): number {
    return this.#nowMs();
  }

  /** Why nothing can be changed, if so. */
  get failure(): Error | undefined {
    return this.#store.failure;
  }

  /** Opens a session; the token is told here and never again. Resolves when it is kept.
   *  @throws {SessionError} `invalid` names field and limit; `revoked`, `tooMany`, and what the store says. */
  async create(request: CreateSession): Promise<{ readonly session: Session; readonly token: string }> {
    this.#checkOpen();
    checkCreation(request);
    const session = this.#newSession(request);
    const token = Buffer.from(this.#random.fill(new Uint8Array(TOKEN_BYTES)).buffer).toString("base64url");
    const result = await this.#store.create({
      session,
      tokenHash: hashOf(token),
      hidden: request.hidden,
      userEpoch: request.userEpoch,
    }, session.createdAtMs);
    if (result === "revoked") throw new SessionError("revoked");
    if (result === "full") {
      throw new SessionError("tooMany", `at most ${this.#config.sessionsMax} (session.sessionsMax)`);
    }
    return { session, token };
  }

  /** The session, without use; undefined when it does not exist, has run out or was ended. */
  get(id: string): Awaitable<Session | undefined> {
    return this.#store.get(id, this.#nowMs());
  }

  /** The session, used: its idle time begins anew. */
  use(id: string): Awaitable<Session | undefined> {
    return this.#store.use(id, this.#nowMs());
  }

  /** The session of a token, used; undefined for any other text. The token's hash is what is looked up and compared, so
   *  that the time taken says nothing about the tokens there are. */
  verify(token: string): Awaitable<Session | undefined> {
    if (token.length !== TOKEN_LENGTH) return this.#verified(undefined);
    const session = this.#store.useByToken(hashOf(token), this.#nowMs());
    return session instanceof Promise
      ? session.then((session) => this.#verified(session))
      : this.#verified(session);
  }

  /** Says that a session is in use.
   *  @throws {SessionError} `notFound`; `disconnecting` when use prolongs it no more. */
  heartbeat(id: string): Awaitable<Session> {
    this.#figures.heartbeats++;
    const session = this.use(id);
    return session instanceof Promise ? session.then(beaten) : beaten(session);
  }

  /** Changes a session. The state `closed` ends it.
   *  @throws {SessionError} `notFound`, `badTransition`, `invalid`. */
  async update(id: string, change: SessionChange): Promise<Session> {
    this.#checkOpen();
    const apply = (session: Session) => changed(session, change);
    if (change.state === "closed") return await this.#close(id, apply);
    const session = await this.#store.update(id, this.#nowMs(), apply);
    if (session === undefined) throw new SessionError("notFound");
    return session;
  }

  /** Ends a session; resolves when that is kept, with whether it was there.
   *  @throws {SessionError} `invalid` for a reason that is too long. */
  async end(id: string, reason: string): Promise<boolean> {
    checkReason(reason);
    return await this.#store.end(id, this.#nowMs(), reason);
  }

  /** Ends all sessions of a user but `exceptSessionId`, those being opened with an earlier epoch included; resolves with
   *  how many there were when that is kept.
   *  @throws {SessionError} `invalid` for a reason that is too long. */
  async revokeUser(userId: string, reason: string, exceptSessionId?: string): Promise<number> {
    checkReason(reason);
    this.#figures.revocations++;
    return await this.#store.revokeUser(userId, this.#nowMs(), reason, exceptSessionId);
  }

  /** A number that every `revokeUser` of the user raises; for `create`. */
  userEpoch(userId: string): Awaitable<number> {
    return this.#store.userEpoch(userId);
  }

  /** Up to `limit` sessions with ids greater than `after`, in the order of ids. */
  list(filter: SessionFilter, after: string, limit: number): Awaitable<SessionPage> {
    return this.#store.list(filter, after, limit, this.#nowMs());
  }

  /** Live sessions by state, of one user or of all. */
  count(userId?: string): Awaitable<SessionCounts> {
    return this.#store.count(userId, this.#nowMs());
  }

  /** The session's hidden part, which no API shows; undefined when there is no such session. */
  readHidden(id: string): Awaitable<Hidden | undefined> {
    return this.#store.readHidden(id, this.#nowMs());
  }

  /** Sets it if its version still is `version`; resolves when that is kept. False when it is not, or when the session is
   *  gone. The array becomes the service's. */
  async compareAndSetHidden(id: string, version: number, bytes: Uint8Array): Promise<boolean> {
    return await this.#store.compareAndSetHidden(id, version, bytes, this.#nowMs());
  }

  /** Watches events from `startOffset` on; 0 is from now on.
   *  @throws {SessionError} `eventsGone`, `tooManyWatchers`, `stopped`. */
  watch(startOffset: number): SessionWatch {
    return this.events.watch(startOffset);
  }

  /** Removes what has run out, a slice at a time. One that runs already is joined. */
  sweep(): Promise<void> {
    return this.#sweeping ??= this.#sweep().finally(() => this.#sweeping = undefined);
  }

  figures(): SessionFigures {
    return { ...this.#figures, watchers: this.events.watchers };
  }

  /** Ends watches, keeps everything, lets go of the store. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.events.close();
    await this.#sweeping;
    await this.#store.close();
  }

  async #sweep(): Promise<void> {
    while (!this.#isClosed && await this.#store.expire(this.#nowMs(), SWEEP_SLICE)) await this.#pause();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new SessionError("stopped");
  }

  #newSession(request: CreateSession): Session {
    const { idleTimeoutMs: idleDefaultMs, absoluteTimeoutMs: absoluteMaxMs } = this.#config;
    const absoluteMs = checkTimeout(
      "absolute timeout",
      request.absoluteTimeoutMs || absoluteMaxMs,
      absoluteMaxMs,
    );
    const idleTimeoutMs = checkTimeout(
      "timeout",
      request.idleTimeoutMs || Math.min(idleDefaultMs, absoluteMs),
      absoluteMs,
    );
    const nowMs = this.#nowMs();
    return {
      id: formatGuuid(this.#ids.next()),
      userId: request.userId,
      connectionId: request.connectionId ?? formatGuuid(this.#ids.next()),
      clientIp: request.clientIp,
      clientPort: request.clientPort,
      serverAddr: request.serverAddr,
      state: "connecting",
      createdAtMs: nowMs,
      lastActiveMs: nowMs,
      idleTimeoutMs,
      endsAtMs: nowMs + absoluteMs,
      expiresAtMs: nowMs + idleTimeoutMs,
      metadata: request.metadata,
      stats: undefined,
    };
  }

  #verified(session: Session | undefined): Session | undefined {
    if (session === undefined) this.#figures.verifyFailures++;
    else this.#figures.verified++;
    return session;
  }

  /** The session as it was closed. */
  async #close(id: string, apply: (session: Session) => Session): Promise<Session> {
    const session = await this.get(id);
    if (session === undefined) throw new SessionError("notFound");
    const closed = apply(session);
    if (!await this.end(id, "closed")) throw new SessionError("notFound");
    return closed;
  }
}

function beaten(session: Session | undefined): Session {
  if (session === undefined) throw new SessionError("notFound");
  if (stateAfterUse(session.state) === undefined) throw new SessionError("disconnecting");
  return session;
}

function changed(session: Session, change: SessionChange): Session {
  const { state = session.state, stats = session.stats, metadataEntries } = change;
  if (!mayFollow(session.state, state)) {
    throw new SessionError("badTransition", `${session.state} is not followed by ${state}`);
  }
  let metadata = change.metadata ?? session.metadata;
  if (metadataEntries !== undefined) {
    const entries = Object.entries({ ...metadata, ...metadataEntries });
    metadata = Object.fromEntries(
      entries.filter((entry): entry is [string, string] => entry[1] !== undefined),
    );
  }
  if (metadata !== session.metadata) checkMetadata(metadata);
  return { ...session, state, stats, metadata };
}

/** SHA-256 as 64 hex digits: what is kept of a token. */
function hashOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
