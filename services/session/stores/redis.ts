/** Sessions in Redis, which several workers may share. Every change is one script, so that it happens whole or not at all, and
 *  every answer is Redis's: what one worker ended, no other finds.
 *
 *  Uses of one session within half a minute, at most a tenth of its idle timeout, are one write; the times
 *  told are those that hold, so a session may run out that much sooner after its last use. Durability is Redis's. */
import { Buffer } from "node:buffer";
import { redisErrorOf } from "../../../storage/redis/errors.ts";
import type { RedisArgument, RedisClient } from "../../../storage/redis/mod.ts";
import { SessionError } from "../errors.ts";
import { expiryOf, type Session } from "../session.ts";
import { LIVE_STATES, type SessionState } from "../state.ts";
import {
  type Awaitable,
  type CreateResult,
  EVICTED,
  type Hidden,
  type NewSession,
  type SessionCounts,
  type SessionFilter,
  type SessionPage,
  type SessionStore,
  type SessionStoreStats,
} from "../store.ts";
import { SESSION_SCRIPTS } from "./redis_scripts.ts";
import { parseStats, statsText } from "./stats_text.ts";

/** What bounds the store. */
export interface RedisStoreOptions {
  /** What all keys begin with. */
  readonly keyPrefix: string;
  readonly sessionsMax: number;
  readonly perUserMax: number;
  /** How long a user's epoch is remembered: longer than any session lives. */
  readonly epochsKeptMs: number;
  /** Monotonic milliseconds, for figures. */
  readonly clock: { now(): number };
}

/** Attempts of an update that others are faster than. */
const UPDATE_ATTEMPTS_MAX = 100;

/** Longest time within which uses of a session are one write, in milliseconds. */
const USE_LAG_MAX_MS = 30_000;
/** Part of its idle timeout that this may be at most. */
const USE_LAG_SHARE = 10;

/** A session as scripts answer it. */
type Row = readonly [kind: string, id: string, d: string, state: SessionState, lastActive: string];

/** A session as it is read. */
type Hash = readonly [d: string | null, state: SessionState, lastActive: string, revision: string];
const REVISION = 3;

/** What `d` holds. */
type Fields = readonly [
  clientIp: string,
  clientPort: number,
  serverAddr: string,
  createdAtMs: number,
  metadata: Readonly<Record<string, string>>,
  stats: string | null,
  idleTimeoutMs: number,
  endsAtMs: number,
  userId: string,
  connectionId: string,
];

/** A store on a client whose scripts are SESSION_SCRIPTS; the client becomes the store's to close. */
export function createRedisStore(client: RedisClient, options: RedisStoreOptions): SessionStore {
  return new RedisStore(client, options);
}

class RedisStore implements SessionStore {
  onChange: SessionStore["onChange"] = () => {};
  onKept = () => {};
  /** What has an answer is as durable as Redis makes it. */
  readonly isKept = true;
  readonly #client: RedisClient;
  readonly #options: RedisStoreOptions;
  readonly #base: string;
  #answers = 0;
  #answerMs = 0;
  #writes = 0;
  #failures = 0;

  constructor(client: RedisClient, options: RedisStoreOptions) {
    this.#client = client;
    this.#options = options;
    this.#base = `${options.keyPrefix}{s}`;
  }

  get failure(): Error | undefined {
    return this.#client.isReady ? undefined : new SessionError("unavailable", "Redis cannot be reached");
  }

  async create(item: NewSession, nowMs: number): Promise<CreateResult> {
    const { session, tokenHash, hidden, userEpoch } = item;
    this.#writes++;
    const [result, changes] = await this.#run("sessionCreate", this.#sessionKey(session.id), nowMs, [
      session.id,
      fieldsText(session),
      session.state,
      session.lastActiveMs,
      session.idleTimeoutMs,
      session.endsAtMs,
      session.userId,
      session.connectionId,
      tokenHash,
      hidden === undefined ? "" : base64(hidden),
      hidden === undefined ? 0 : 1,
      userEpoch ?? "",
      this.#options.sessionsMax,
      this.#options.perUserMax,
    ]) as [CreateResult | "exists", Row[]];
    this.#tell(changes, EVICTED);
    if (result === "exists") throw new SessionError("unavailable", "the new session's id is taken");
    if (result === "created") this.onChange("created", session, "");
    return result;
  }

  get(id: string, nowMs: number): Promise<Session | undefined> {
    return this.#read(id).then((hash) => this.#live(id, hash, nowMs), this.#refuse);
  }

  getByToken(tokenHash: string, nowMs: number): Promise<Session | undefined> {
    return this.#idOf(tokenHash).then((id) => id === null ? undefined : this.get(id, nowMs), this.#refuse);
  }

  use(id: string, nowMs: number): Promise<Session | undefined> {
    return this.#read(id).then((hash) => {
      const session = this.#live(id, hash, nowMs);
      if (session === undefined || session instanceof Promise || !isDue(session, nowMs)) return session;
      return this.#use(id, nowMs);
    }, this.#refuse);
  }

  useByToken(tokenHash: string, nowMs: number): Promise<Session | undefined> {
    return this.#idOf(tokenHash).then((id) => id === null ? undefined : this.use(id, nowMs), this.#refuse);
  }

  async update(
    id: string,
    nowMs: number,
    change: (session: Session) => Session,
  ): Promise<Session | undefined> {
    for (let attempt = 0; attempt < UPDATE_ATTEMPTS_MAX; attempt++) {
      const hash = await this.#read(id).catch(this.#refuse);
      const found = await this.#live(id, hash, nowMs);
      if (found === undefined) return undefined;
      const session = change(found);
      this.#writes++;
      const [done, changes] = await this.#run("sessionUpdate", this.#sessionKey(id), nowMs, [
        id,
        hash[REVISION],
        fieldsText(session),
        session.state,
      ]) as [number, Row[]];
      this.#tell(changes, "");
      if (done < 0) return undefined;
      if (done > 0) {
        this.onChange("updated", session, "");
        return session;
      }
    }
    throw new SessionError(
      "unavailable",
      `${id} was changed by others ${UPDATE_ATTEMPTS_MAX} times meanwhile`,
    );
  }

  async end(id: string, nowMs: number, reason: string): Promise<boolean> {
    this.#writes++;
    const changes = await this.#run("sessionEnd", this.#sessionKey(id), nowMs, [id]) as Row[];
    this.#tell(changes, reason);
    return changes[0]?.[0] === "ended";
  }

  async revokeUser(
    userId: string,
    nowMs: number,
    reason: string,
    exceptId: string | undefined,
  ): Promise<number> {
    this.#writes++;
    const changes = await this.#run("sessionRevoke", this.#epochKey(userId), nowMs, [
      userId,
      exceptId ?? "",
      this.#options.epochsKeptMs,
    ]) as Row[];
    this.#tell(changes, reason);
    return changes.filter(([kind]) => kind === "ended").length;
  }

  async userEpoch(userId: string): Promise<number> {
    return Number(await this.#send("get", this.#epochKey(userId)) ?? 0);
  }

  async list(filter: SessionFilter, after: string, limit: number, nowMs: number): Promise<SessionPage> {
    const { userId, connectionId, state } = filter;
    if (userId === undefined && connectionId === undefined) {
      return await this.#walk(state, after, limit, nowMs);
    }
    // A user's are bounded by perUserMax, a connection's only by everybody's good will.
    const key = userId !== undefined ? this.#userKey(userId) : `${this.#base}:c:${connectionId}`;
    const all = (await this.#group(key, nowMs)).filter((session) =>
      (connectionId === undefined || session.connectionId === connectionId) &&
      (state === undefined || session.state === state)
    );
    const rest = all.filter(({ id }) => id > after).sort((a, b) => a.id < b.id ? -1 : 1);
    return { sessions: rest.slice(0, limit), more: rest.length > limit, total: all.length };
  }

  async count(userId: string | undefined, nowMs: number): Promise<SessionCounts> {
    const counts: Partial<{ [State in SessionState]: number }> = {};
    if (userId !== undefined) {
      for (const { state } of await this.#group(this.#userKey(userId), nowMs)) {
        counts[state] = (counts[state] ?? 0) + 1;
      }
      return counts;
    }
    await Promise.all(LIVE_STATES.map(async (state) => counts[state] = await this.#countState(state, nowMs)));
    return counts;
  }

  async expire(nowMs: number, limit: number): Promise<boolean> {
    const [looked, changes] = await this.#run("sessionExpire", `${this.#base}:x`, nowMs, [limit]) as [
      number,
      Row[],
    ];
    this.#tell(changes, "");
    return looked === limit;
  }

  async readHidden(id: string, nowMs: number): Promise<Hidden | undefined> {
    const [hidden, version, changes] = await this.#run(
      "sessionReadHidden",
      this.#sessionKey(id),
      nowMs,
      [id],
    ) as [string | null, string | null, Row[]];
    this.#tell(changes, "");
    if (hidden === null) return undefined;
    return { bytes: new Uint8Array(Buffer.from(hidden, "base64")), version: Number(version) };
  }

  async compareAndSetHidden(id: string, version: number, bytes: Uint8Array, nowMs: number): Promise<boolean> {
    this.#writes++;
    const [done, changes] = await this.#run("sessionSetHidden", this.#sessionKey(id), nowMs, [
      id,
      version,
      base64(bytes),
    ]) as [number, Row[]];
    this.#tell(changes, "");
    return done === 1;
  }

  stats(): SessionStoreStats {
    return {
      groups: this.#answers,
      groupSeconds: this.#answerMs / 1_000,
      writes: this.#writes,
      failures: this.#failures,
    };
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  /** What is kept of a session; whoever asks passes a failure to `#refuse`, together with going on: each promise more is felt
   *  on this path. */
  #read(id: string): Promise<Hash> {
    return this.#client.send("hmget", [this.#sessionKey(id), "d", "s", "a", "r"]) as Promise<Hash>;
  }

  /** The same for a token's id. */
  #idOf(tokenHash: string): Promise<string | null> {
    return this.#client.send("get", [this.#tokenKey(tokenHash)]) as Promise<string | null>;
  }

  /** The session that was read, if its time is not up; else it is removed. */
  #live(id: string, [d, state, lastActive]: Hash, nowMs: number): Awaitable<Session | undefined> {
    if (d === null) return undefined;
    const session = sessionOf(id, d, state, lastActive);
    return session.expiresAtMs > nowMs ? session : this.#expireOne(id, nowMs);
  }

  async #expireOne(id: string, nowMs: number): Promise<undefined> {
    const changes = await this.#run("sessionExpireOne", this.#sessionKey(id), nowMs, [id]);
    this.#tell(changes as Row[], "");
  }

  async #use(id: string, nowMs: number): Promise<Session | undefined> {
    this.#writes++;
    const [changedState, row, changes] = await this.#run("sessionUse", this.#sessionKey(id), nowMs, [id]) as [
      number,
      Row | null,
      Row[],
    ];
    this.#tell(changes, "");
    if (row === null) return undefined;
    const session = rowSession(row);
    if (changedState === 1) this.onChange("updated", session, "");
    return session;
  }

  async #group(key: string, nowMs: number): Promise<Session[]> {
    return (await this.#run("sessionGroup", key, nowMs, []) as Row[]).map(rowSession);
  }

  async #walk(
    state: SessionState | undefined,
    after: string,
    limit: number,
    nowMs: number,
  ): Promise<SessionPage> {
    const total = state === undefined
      ? Number(await this.#send("zcount", `${this.#base}:x`, `(${nowMs}`, "+inf"))
      : await this.#countState(state, nowMs);
    const sessions: Session[] = [];
    for (let from: string | null = after; from !== null && sessions.length <= limit && total > 0;) {
      const [rows, last] = await this.#run("sessionWalk", `${this.#base}:l`, nowMs, [
        from,
        limit + 1 - sessions.length,
        state ?? "",
      ]) as [Row[], string | null];
      for (const row of rows) sessions.push(rowSession(row));
      from = last;
    }
    return { sessions: sessions.slice(0, limit), more: sessions.length > limit, total };
  }

  async #countState(state: SessionState, nowMs: number): Promise<number> {
    return Number(await this.#send("zcount", `${this.#base}:f:${state}`, `(${nowMs}`, "+inf"));
  }

  #tell(changes: readonly Row[], reason: string): void {
    for (const row of changes) {
      if (row[0] === "expired") this.onChange("expired", rowSession(row), "");
      else this.onChange("ended", rowSession(row), reason);
    }
  }

  async #run(
    script: keyof typeof SESSION_SCRIPTS,
    key: string,
    nowMs: number,
    args: readonly RedisArgument[],
  ): Promise<unknown> {
    const startedMs = this.#options.clock.now();
    try {
      const answer = await this.#client.run(script, [key], [this.#base, nowMs, ...args]);
      this.#answers++;
      this.#answerMs += this.#options.clock.now() - startedMs;
      return answer;
    } catch (error) {
      return this.#refuse(error);
    }
  }

  #send(command: string, ...args: RedisArgument[]): Promise<unknown> {
    return this.#client.send(command, args).catch(this.#refuse);
  }

  readonly #refuse = (cause: unknown): never => {
    this.#failures++;
    const error = redisErrorOf(cause);
    // Refused for good is a fault of ours, or of who may write these keys.
    if (error.code === "refused") throw error;
    throw new SessionError("unavailable", error.message, { cause: error });
  };

  #sessionKey(id: string): string {
    return `${this.#base}:s:${id}`;
  }

  #tokenKey(tokenHash: string): string {
    return `${this.#base}:t:${tokenHash}`;
  }

  #userKey(userId: string): string {
    return `${this.#base}:u:${userId}`;
  }

  #epochKey(userId: string): string {
    return `${this.#base}:e:${userId}`;
  }
}

/** Whether a use has to be written: it changes the state, or the last one that was written is too long ago. */
function isDue({ state, lastActiveMs, idleTimeoutMs }: Session, nowMs: number): boolean {
  if (state !== "active") return state !== "disconnecting";
  return nowMs - lastActiveMs >= Math.min(USE_LAG_MAX_MS, Math.floor(idleTimeoutMs / USE_LAG_SHARE));
}

function fieldsText(session: Session): string {
  const fields: Fields = [
    session.clientIp,
    session.clientPort,
    session.serverAddr,
    session.createdAtMs,
    session.metadata,
    session.stats === undefined ? null : statsText(session.stats),
    session.idleTimeoutMs,
    session.endsAtMs,
    session.userId,
    session.connectionId,
  ];
  return JSON.stringify(fields);
}

function rowSession([, id, d, state, lastActive]: Row): Session {
  return sessionOf(id, d, state, lastActive);
}

function sessionOf(id: string, d: string, state: SessionState, lastActive: string): Session {
  const fields = JSON.parse(d) as Fields;
  const lastActiveMs = Number(lastActive), idleTimeoutMs = fields[6], endsAtMs = fields[7];
  return {
    id,
    userId: fields[8],
    connectionId: fields[9],
    clientIp: fields[0],
    clientPort: fields[1],
    serverAddr: fields[2],
    state,
    createdAtMs: fields[3],
    lastActiveMs,
    idleTimeoutMs,
    endsAtMs,
    expiresAtMs: expiryOf(lastActiveMs, idleTimeoutMs, endsAtMs),
    metadata: fields[4],
    stats: fields[5] === null ? undefined : parseStats(fields[5]),
  };
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
