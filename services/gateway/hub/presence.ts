/** Who is in a channel: users with how often each is there, and what changed since those who asked were told. */

/** A user in a channel. */
export interface Member {
  readonly userId: string;
  readonly username: string;
  /** Sockets and event streams by which it is there. */
  readonly connections: number;
}

/** What changed. */
export interface PresenceChange {
  readonly joined: readonly Member[];
  readonly left: readonly Member[];
}

interface Entry {
  readonly userId: string;
  readonly username: string;
  /** By worker; "" is this one. Each above 0. */
  readonly counts: Map<string, number>;
}

/** Who is in one channel. */
export class Presence {
  readonly #members = new Map<string, Entry>();
  /** Users that came (true) or went (false) since the last `takeChange`. */
  readonly #changed = new Map<string, { readonly member: Member; readonly isThere: boolean }>();

  /** Users. */
  get size(): number {
    return this.#members.size;
  }

  /** Connections of all of them. */
  get connections(): number {
    let sum = 0;
    for (const entry of this.#members.values()) sum += total(entry);
    return sum;
  }

  /** Sets by how many connections of a worker a user is there; "" is this worker. */
  set(worker: string, userId: string, username: string, connections: number): void {
    const key = keyOf(userId, username);
    let entry = this.#members.get(key);
    if (connections === 0) {
      if (entry === undefined || !entry.counts.delete(worker) || entry.counts.size > 0) return;
      this.#members.delete(key);
      this.#note(key, entry, false);
      return;
    }
    if (entry === undefined) {
      this.#members.set(key, entry = { userId, username, counts: new Map() });
      this.#note(key, entry, true);
    }
    entry.counts.set(worker, connections);
  }

  /** By how many connections of this worker a user is there. */
  own(userId: string, username: string): number {
    return this.#members.get(keyOf(userId, username))?.counts.get("") ?? 0;
  }

  /** Everybody of a worker is gone. */
  removeWorker(worker: string): void {
    for (const { userId, username, counts } of [...this.#members.values()]) {
      if (counts.has(worker)) this.set(worker, userId, username, 0);
    }
  }

  /** Everybody, or those of one worker. */
  list(worker?: string): Member[] {
    const found: Member[] = [];
    for (const entry of this.#members.values()) {
      const connections = worker === undefined ? total(entry) : entry.counts.get(worker) ?? 0;
      if (connections > 0) found.push({ userId: entry.userId, username: entry.username, connections });
    }
    return found;
  }

  /** What changed since the last time; undefined when nothing did, as when who came has gone again. */
  takeChange(): PresenceChange | undefined {
    if (this.#changed.size === 0) return undefined;
    const all = [...this.#changed.values()];
    this.#changed.clear();
    return {
      joined: all.filter(({ isThere }) => isThere).map(({ member }) => member),
      left: all.filter(({ isThere }) => !isThere).map(({ member }) => member),
    };
  }

  #note(key: string, { userId, username }: Entry, isThere: boolean): void {
    const before = this.#changed.get(key);
    if (before !== undefined && before.isThere !== isThere) this.#changed.delete(key);
    else this.#changed.set(key, { member: { userId, username, connections: isThere ? 1 : 0 }, isThere });
  }
}

/** A user as clients are told. */
export function memberJson({ userId, username, connections }: Member): Record<string, unknown> {
  return { user_id: userId, username, connections };
}

function keyOf(userId: string, username: string): string {
  return userId === "" ? `name ${username}` : `id ${userId}`;
}

function total({ counts }: Entry): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}
