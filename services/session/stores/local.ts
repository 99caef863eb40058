/** Sessions in memory, in front of a journal that keeps them: nothing, or a database.
 *
 *      create, end, … ─► tables here ─► journal (statements of the open group) ─ end of the turn: one commit ─► answers
 *      get, verify    ─► tables here, no disk
 *
 *  Everything that is kept is here as well, so that memory is bounded by session.sessionsMax: about 1 KiB each. */
import { activityLagMs, type Session, used } from "../session.ts";
import type { SessionState } from "../state.ts";
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
import { type Expiring, ExpiryHeap } from "./expiry_heap.ts";
import { IdOrder, type Ordered } from "./id_order.ts";
import { IndexTable } from "./index_table.ts";

/** A session as it is kept. */
export interface StoredSession {
  readonly session: Session;
  readonly tokenHash: string;
  readonly hidden: Hidden;
}

/** When a user's sessions were revoked last. */
export interface StoredEpoch {
  readonly userId: string;
  readonly epoch: number;
}

/** What keeps the sessions. Writes are taken at once, in order, and kept together with the others of their turn. */
export interface Journal {
  /** @throws {SessionError} `readOnly`, as do all writes. */
  insert(stored: StoredSession): void;
  /** State, metadata, statistics and time of last use have changed. */
  update(session: Session): void;
  updateActivity(session: Session): void;
  updateHidden(id: string, hidden: Hidden): void;
  remove(id: string): void;
  setEpoch(epoch: StoredEpoch): void;
  /** Whether all that was written is kept. */
  readonly isKept: boolean;
  /** Settles when all that was written is kept. Rejects with a SessionError `readOnly`. */
  kept(): Promise<void>;
  /** Called when a group was kept, before `kept` resolves. */
  onKept: () => void;
  readonly failure: Error | undefined;
  stats(): SessionStoreStats;
  close(): Promise<void>;
}

/** What bounds the tables. */
export interface LocalStoreOptions {
  readonly sessionsMax: number;
  readonly perUserMax: number;
  /** Seed of the tables' hashes, 32 random bits. */
  readonly seed: number;
}

/** Users whose epoch is remembered; the oldest is forgotten beyond that, which refuses at worst what could have been
 *  created. At about 150 bytes each. */
const EPOCHS_MAX = 100_000;

const NOTHING_HIDDEN: Hidden = { bytes: new Uint8Array(0), version: 0 };

/** All sessions of one user, or of one connection. */
interface Group {
  readonly records: Record[];
}

class Record implements Expiring, Ordered {
  readonly id: string;
  session: Session;
  readonly tokenHash: string;
  hidden: Hidden;
  dueAtMs: number;
  heapIndex = -1;
  isGone = false;
  /** Places in the groups of its user and of its connection. */
  userIndex = 0;
  connectionIndex = 0;
  /** The time of last use that is kept. */
  keptActiveMs: number;

  constructor({ session, tokenHash, hidden }: StoredSession) {
    this.id = session.id;
    this.session = session;
    this.tokenHash = tokenHash;
    this.hidden = hidden;
    this.dueAtMs = session.expiresAtMs;
    this.keptActiveMs = session.lastActiveMs;
  }
}

/** The store. */
export class LocalStore implements SessionStore {
  onChange: SessionStore["onChange"] = () => {};
  readonly #journal: Journal;
  readonly #options: LocalStoreOptions;
  readonly #byId: IndexTable<Record>;
  readonly #byToken: IndexTable<Record>;
  readonly #byUser: IndexTable<Group>;
  readonly #byConnection: IndexTable<Group>;
  readonly #order = new IdOrder<Record>();
  readonly #expiry = new ExpiryHeap<Record>();
  readonly #counts: { [State in SessionState]: number } = {
    connecting: 0,
    active: 0,
    idle: 0,
    disconnecting: 0,
    closed: 0,
  };
  /** In the order in which they were moved, oldest first. */
  readonly #epochs = new Map<string, number>();
  /** The epoch of users who are not among them. */
  #floorEpoch = 0;
  #isClosed = false;

  /** `stored` are the sessions that the journal has kept, by rising id. */
  constructor(
    journal: Journal,
    options: LocalStoreOptions,
    stored: Iterable<StoredSession> = [],
    epochs: Iterable<StoredEpoch> = [],
  ) {
    this.#journal = journal;
    this.#options = options;
    this.#byId = new IndexTable(options.seed);
    this.#byToken = new IndexTable(options.seed);
    this.#byUser = new IndexTable(options.seed);
    this.#byConnection = new IndexTable(options.seed);
    for (const item of stored) this.#add(new Record(item));
    for (const { userId, epoch } of epochs) this.#rememberEpoch(userId, epoch);
  }

  set onKept(listener: () => void) {
    this.#journal.onKept = listener;
  }

  get isKept(): boolean {
    return this.#journal.isKept;
  }

  get failure(): Error | undefined {
    return this.#journal.failure;
  }

  create({ session, tokenHash, hidden, userEpoch }: NewSession, nowMs: number): Awaitable<CreateResult> {
    const { sessionsMax, perUserMax } = this.#options;
    if (userEpoch !== undefined && userEpoch < this.userEpoch(session.userId)) return "revoked";
    const others = this.#byUser.get(session.userId)?.records ?? [];
    if (others.length >= perUserMax) {
      for (const record of others.filter((record) => record.session.expiresAtMs <= nowMs)) {
        this.#expire(record);
      }
      if (others.length >= perUserMax) this.#evict(others);
    }
    if (this.#byId.size >= sessionsMax) {
      while (this.#expireFirst(nowMs));
      if (this.#byId.size >= sessionsMax) return "full";
    }
    const stored = {
      session,
      tokenHash,
      hidden: hidden === undefined ? NOTHING_HIDDEN : { bytes: hidden, version: 1 },
    };
    this.#journal.insert(stored);
    this.#add(new Record(stored));
    this.onChange("created", session, "");
    return this.#whenKept("created" as const);
  }

  get(id: string, nowMs: number): Session | undefined {
    return this.#live(this.#byId.get(id), nowMs)?.session;
  }

  getByToken(tokenHash: string, nowMs: number): Session | undefined {
    return this.#live(this.#byToken.get(tokenHash), nowMs)?.session;
  }

  use(id: string, nowMs: number): Session | undefined {
    return this.#use(this.#live(this.#byId.get(id), nowMs), nowMs);
  }

  useByToken(tokenHash: string, nowMs: number): Session | undefined {
    return this.#use(this.#live(this.#byToken.get(tokenHash), nowMs), nowMs);
  }

  update(id: string, nowMs: number, change: (session: Session) => Session): Awaitable<Session | undefined> {
    const record = this.#live(this.#byId.get(id), nowMs);
    if (record === undefined) return undefined;
    const session = change(record.session);
    this.#journal.update(session);
    this.#replace(record, session);
    record.keptActiveMs = session.lastActiveMs;
    this.onChange("updated", session, "");
    return this.#whenKept(session);
  }

  end(id: string, nowMs: number, reason: string): Awaitable<boolean> {
    const record = this.#live(this.#byId.get(id), nowMs);
    // What somebody else has just ended is gone for good only when that is kept.
    if (record === undefined) return this.#whenKept(false);
    this.#remove(record, reason);
    return this.#whenKept(true);
  }

  revokeUser(
    userId: string,
    nowMs: number,
    reason: string,
    exceptId: string | undefined,
  ): Awaitable<number> {
    const epoch = Math.max(this.userEpoch(userId) + 1, nowMs);
    this.#journal.setEpoch({ userId, epoch });
    this.#rememberEpoch(userId, epoch);
    let ended = 0;
    for (const record of [...this.#byUser.get(userId)?.records ?? []]) {
      if (record.id === exceptId) continue;
      if (this.#live(record, nowMs) === undefined) continue;
      this.#remove(record, reason);
      ended++;
    }
    return this.#whenKept(ended);
  }

  userEpoch(userId: string): number {
    return this.#epochs.get(userId) ?? this.#floorEpoch;
  }

  list(filter: SessionFilter, after: string, limit: number, nowMs: number): SessionPage {
    while (this.#expireFirst(nowMs));
    const { userId, connectionId, state } = filter;
    const isWanted = (record: Record) =>
      (userId === undefined || record.session.userId === userId) &&
      (connectionId === undefined || record.session.connectionId === connectionId) &&
      (state === undefined || record.session.state === state);
    const group = this.#smallestGroup(userId, connectionId);
    if (group !== undefined) {
      const all = group.filter(isWanted);
      const rest = all.filter((record) => record.id > after).sort((a, b) => a.id < b.id ? -1 : 1);
      const sessions = rest.slice(0, limit).map((record) => record.session);
      return { sessions, more: rest.length > limit, total: all.length };
    }
    const total = state === undefined ? this.#byId.size : this.#counts[state];
    const sessions: Session[] = [];
    for (const record of this.#order.after(after)) {
      if (!isWanted(record)) continue;
      if (sessions.length === limit) return { sessions, more: true, total };
      sessions.push(record.session);
      if (sessions.length === total) break;
    }
    return { sessions, more: false, total };
  }

  count(userId: string | undefined, nowMs: number): SessionCounts {
    while (this.#expireFirst(nowMs));
    if (userId === undefined) return { ...this.#counts };
    const counts: Partial<{ [State in SessionState]: number }> = {};
    for (const { session } of this.#byUser.get(userId)?.records ?? []) {
      counts[session.state] = (counts[session.state] ?? 0) + 1;
    }
    return counts;
  }

  expire(nowMs: number, limit: number): boolean {
    for (let i = 0; i < limit; i++) {
      if (!this.#expireFirst(nowMs)) return false;
    }
    return true;
  }

  readHidden(id: string, nowMs: number): Hidden | undefined {
    return this.#live(this.#byId.get(id), nowMs)?.hidden;
  }

  compareAndSetHidden(id: string, version: number, bytes: Uint8Array, nowMs: number): Awaitable<boolean> {
    const record = this.#live(this.#byId.get(id), nowMs);
    if (record === undefined || record.hidden.version !== version) return false;
    const hidden = { bytes, version: version + 1 };
    this.#journal.updateHidden(id, hidden);
    record.hidden = hidden;
    return this.#whenKept(true);
  }

  stats(): SessionStoreStats {
    return this.#journal.stats();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#journal.failure === undefined) {
      for (const { session, keptActiveMs } of this.#order.after("")) {
        if (session.lastActiveMs !== keptActiveMs) this.#journal.updateActivity(session);
      }
    }
    await this.#journal.close();
  }

  /** The sessions of a user, or of a connection, whichever are fewer; undefined when neither is named. */
  #smallestGroup(
    userId: string | undefined,
    connectionId: string | undefined,
  ): readonly Record[] | undefined {
    const users = userId === undefined ? undefined : this.#byUser.get(userId)?.records ?? [];
    const connections = connectionId === undefined
      ? undefined
      : this.#byConnection.get(connectionId)?.records ?? [];
    if (users === undefined || connections === undefined) return users ?? connections;
    return users.length < connections.length ? users : connections;
  }

  #whenKept<T>(value: T): Awaitable<T> {
    return this.#journal.isKept ? value : this.#journal.kept().then(() => value);
  }

  /** The record if its time is not up; else it is removed. */
  #live(record: Record | undefined, nowMs: number): Record | undefined {
    if (record === undefined || record.session.expiresAtMs > nowMs) return record;
    this.#expire(record);
    return undefined;
  }

  #use(record: Record | undefined, nowMs: number): Session | undefined {
    if (record === undefined) return undefined;
    const before = record.session;
    const session = used(before, nowMs);
    if (session === before) return session;
    const changedState = session.state !== before.state;
    const isLate = nowMs - record.keptActiveMs >= activityLagMs(session.idleTimeoutMs);
    if ((changedState || isLate) && this.#journal.failure === undefined) {
      this.#journal.updateActivity(session);
      record.keptActiveMs = nowMs;
    }
    this.#replace(record, session);
    if (changedState) this.onChange("updated", session, "");
    return session;
  }

  #add(record: Record): void {
    const { session } = record;
    this.#byId.add(session.id, record);
    this.#byToken.add(record.tokenHash, record);
    record.userIndex = addTo(this.#byUser, session.userId, record);
    record.connectionIndex = addTo(this.#byConnection, session.connectionId, record);
    this.#order.add(record);
    this.#expiry.add(record);
    this.#counts[session.state]++;
  }

  #replace(record: Record, session: Session): void {
    const before = record.session.state;
    if (before !== session.state) {
      this.#counts[before]--;
      this.#counts[session.state]++;
    }
    record.session = session;
  }

  #remove(record: Record, reason: string): void {
    this.#journal.remove(record.id);
    this.#forget(record);
    this.onChange("ended", record.session, reason);
  }

  #forget(record: Record): void {
    const { session } = record;
    this.#byId.delete(record.id);
    this.#byToken.delete(record.tokenHash);
    const users = this.#byUser.get(session.userId)!.records;
    const lastOfUser = users.pop()!;
    if (lastOfUser !== record) {
      users[record.userIndex] = lastOfUser;
      lastOfUser.userIndex = record.userIndex;
    } else if (users.length === 0) this.#byUser.delete(session.userId);
    const connections = this.#byConnection.get(session.connectionId)!.records;
    const lastOfConnection = connections.pop()!;
    if (lastOfConnection !== record) {
      connections[record.connectionIndex] = lastOfConnection;
      lastOfConnection.connectionIndex = record.connectionIndex;
    } else if (connections.length === 0) this.#byConnection.delete(session.connectionId);
    this.#order.delete(record);
    this.#expiry.delete(record);
    this.#counts[session.state]--;
  }

  #expire(record: Record): void {
    // Without a journal that can write, it is found again after a restart, and its time is up then too.
    if (this.#journal.failure === undefined) this.#journal.remove(record.id);
    this.#forget(record);
    this.onChange("expired", record.session, "");
  }

  /** Removes the session that is due first if its time is up. */
  #expireFirst(nowMs: number): boolean {
    for (;;) {
      const { first } = this.#expiry;
      if (first === undefined || first.dueAtMs > nowMs) return false;
      if (first.session.expiresAtMs <= nowMs) {
        this.#expire(first);
        return true;
      }
      first.dueAtMs = first.session.expiresAtMs;
      this.#expiry.later(first);
    }
  }

  /** Removes the session that was unused for longest. */
  #evict(records: readonly Record[]): void {
    let oldest = records[0]!;
    for (const record of records) {
      if (record.session.lastActiveMs < oldest.session.lastActiveMs) oldest = record;
    }
    this.#remove(oldest, EVICTED);
  }

  #rememberEpoch(userId: string, epoch: number): void {
    this.#epochs.delete(userId);
    this.#epochs.set(userId, epoch);
    if (this.#epochs.size <= EPOCHS_MAX) return;
    const [oldest] = this.#epochs.entries().next().value!;
    this.#floorEpoch = Math.max(this.#floorEpoch, this.#epochs.get(oldest)!);
    this.#epochs.delete(oldest);
  }
}

/** Adds a record to a group, which is made when there is none; its place there. */
function addTo(table: IndexTable<Group>, key: string, record: Record): number {
  const group = table.get(key);
  if (group === undefined) {
    table.add(key, { records: [record] });
    return 0;
  }
  return group.records.push(record) - 1;
}
