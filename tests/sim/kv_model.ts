/** What a key-value store is to hold, said without a thought for speed: every revision is a whole copy, every record of the
 *  log leaves a frame to go back to. Keys and values are strings of one char a byte. */
import { decodeLeaseEntry, leaseIdOf } from "../../services/kv/lease/lease_entry.ts";
import type { EntryChange } from "../../services/kv/record.ts";

/** One key at one revision. */
export interface ModelKv {
  readonly key: string;
  readonly value: string;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
  readonly lease: bigint;
}

/** One change; `kv` is undefined for a deletion. */
export interface ModelEvent {
  readonly key: string;
  readonly kv: ModelKv | undefined;
  readonly before: ModelKv | undefined;
}

/** A lease as its record says. */
export interface ModelLease {
  readonly ttlMs: number;
  /** What a restart gives it. */
  readonly savedMs: number;
  readonly isOwn: boolean;
}

/** Users, roles and whether they are asked for. */
export interface ModelAuth {
  readonly isEnabled: boolean;
  readonly users: ReadonlyMap<string, { readonly password: string; readonly roles: readonly string[] }>;
  /** Keys that each role may read and write. */
  readonly roles: ReadonlyMap<string, readonly string[]>;
}

/** Everything but the keys, after one record. */
interface Frame {
  readonly revision: number;
  readonly compactRevision: number;
  readonly leases: ReadonlyMap<bigint, ModelLease>;
  readonly alarms: ReadonlySet<string>;
  readonly auth: ModelAuth;
}

interface Revision {
  readonly keys: ReadonlyMap<string, ModelKv>;
  readonly events: readonly ModelEvent[];
}

const EMPTY: Frame = {
  revision: 1,
  compactRevision: 0,
  leases: new Map(),
  alarms: new Set(),
  auth: { isEnabled: false, users: new Map(), roles: new Map() },
};

/** Name of an alarm in the model. */
export function alarmName(alarm: { readonly memberId: bigint; readonly kind: number }): string {
  return `${alarm.memberId}/${alarm.kind}`;
}

/** What one operation is going to do, on a copy; `ModelStore.commit` makes it so. */
export class Draft {
  readonly keys: Map<string, ModelKv>;
  readonly events: ModelEvent[] = [];
  readonly leases: Map<bigint, ModelLease>;
  readonly alarms: Set<string>;
  auth: ModelAuth;
  readonly revision: number;
  /** Number of changes of what is no key. */
  changes = 0;
  /** TTL of the own lease that the put of `ownKey` asks for. */
  #own: { readonly key: string; readonly ttlMs: number } | undefined;
  readonly #before: ReadonlyMap<string, ModelKv>;

  constructor(keys: ReadonlyMap<string, ModelKv>, frame: Frame) {
    this.#before = keys;
    this.keys = new Map(keys);
    this.leases = new Map(frame.leases);
    this.alarms = new Set(frame.alarms);
    this.auth = frame.auth;
    this.revision = frame.revision + 1;
  }

  /** Whether there will be a record. */
  get changesSomething(): boolean {
    return this.events.length > 0 || this.changes > 0;
  }

  put(key: string, value: string, lease: bigint): void {
    const before = this.keys.get(key);
    const kv = {
      key,
      value,
      create: before?.create ?? this.revision,
      mod: this.revision,
      version: (before?.version ?? 0) + 1,
      lease,
    };
    this.keys.set(key, kv);
    this.events.push({ key, kv, before });
  }

  /** A put that makes a lease of the key's own; its id is known when it was written. */
  putOwn(key: string, value: string, ttlMs: number): void {
    this.#own = { key, ttlMs };
    this.put(key, value, -1n);
  }

  delete(keys: readonly string[]): ModelKv[] {
    const gone: ModelKv[] = [];
    for (const key of [...keys].sort()) {
      const before = this.keys.get(key);
      if (before === undefined) continue;
      this.keys.delete(key);
      this.events.push({ key, kv: undefined, before });
      gone.push(before);
    }
    return gone;
  }

  setAuth(auth: Partial<ModelAuth>): void {
    this.auth = { ...this.auth, ...auth };
    this.changes++;
  }

  grant(id: bigint, ttlMs: number): void {
    this.leases.set(id, { ttlMs, savedMs: ttlMs, isOwn: false });
    this.changes++;
  }

  endLease(id: bigint): void {
    this.delete([...this.keys.values()].filter(({ lease }) => lease === id).map(({ key }) => key));
    this.leases.delete(id);
    this.changes++;
  }

  /** Holds the entries that were written against what was to be, and learns the ids that the store chose. */
  settle(entries: readonly EntryChange[]): void {
    const leases = entries.filter(({ name }) => name.startsWith("lease/"));
    const set = leases.filter(({ value }) => value !== undefined);
    if (this.#own !== undefined) this.#settleOwn(this.#own, set);
    this.#endOwn();
    for (const { name, value } of leases) {
      const lease = this.leases.get(leaseIdOf(name));
      const { ttlMs, isOwn } = value === undefined
        ? { ttlMs: undefined, isOwn: undefined }
        : decodeLeaseEntry(value);
      if (lease?.ttlMs !== ttlMs || lease?.isOwn !== isOwn) {
        throw new Error(
          `${name} was written as ${ttlMs} ms, own ${isOwn}; expected ${JSON.stringify(lease)}`,
        );
      }
    }
  }

  #settleOwn({ key, ttlMs }: { key: string; ttlMs: number }, set: readonly EntryChange[]): void {
    if (set.length !== 1) throw new Error(`a put with a time to live wrote ${set.length} leases`);
    const id = leaseIdOf(set[0]!.name);
    const current = this.#before.get(key)?.lease ?? 0n;
    const others = [...this.#before.values()].filter(({ lease }) => lease === current).length;
    const mayReuse = current !== 0n && this.leases.get(current)?.isOwn === true && others === 1;
    if (mayReuse ? id !== current : this.leases.has(id)) {
      throw new Error(`${key} got the lease ${id} of others`);
    }
    this.leases.set(id, { ttlMs, savedMs: ttlMs, isOwn: true });
    const kv = { ...this.keys.get(key)!, lease: id };
    this.keys.set(key, kv);
    this.events.forEach((event, i) => {
      if (event.key === key) this.events[i] = { ...event, kv };
    });
  }

  /** An own lease ends with its last key. */
  #endOwn(): void {
    const used = new Set([...this.keys.values()].map(({ lease }) => lease));
    for (const { before } of this.events) {
      const id = before?.lease ?? 0n;
      if (this.leases.get(id)?.isOwn && !used.has(id)) this.leases.delete(id);
    }
  }
}

/** The whole store, with all that it ever held. */
export class ModelStore {
  /** When leases run out, by the clock of this life. */
  readonly expiryMs = new Map<bigint, number>();
  /** Frame `i` is the store after record `i` of the log. */
  #frames: Frame[] = [EMPTY];
  #revisions: Revision[] = [];

  constructor() {
    const none: Revision = { keys: new Map(), events: [] };
    this.#revisions = [none, none];
  }

  get now(): Frame {
    return this.#frames.at(-1)!;
  }

  /** Number of the last record. */
  get records(): number {
    return this.#frames.length - 1;
  }

  /** Keys as of a revision; the newest when left out. */
  keys(revision = this.now.revision): ReadonlyMap<string, ModelKv> {
    return this.#revisions[revision]!.keys;
  }

  events(revision: number): readonly ModelEvent[] {
    return this.#revisions[revision]!.events;
  }

  /** The first record after which the store is at `revision`. */
  recordOf(revision: number): number {
    let record = this.#frames.findIndex((frame) => frame.revision >= revision);
    // Revision 1 is an empty store, and needs no record.
    if (revision <= 1) record = 0;
    if (record < 0) throw new Error(`there is no revision ${revision}`);
    return record;
  }

  draft(): Draft {
    return new Draft(this.keys(), this.now);
  }

  /** A record that changes nothing but what is given. */
  append(change: Partial<Frame> = {}): void {
    this.#frames.push({ ...this.now, ...change });
  }

  /** Makes a draft the newest state; leases that are new begin to run at `nowMs`. */
  commit(draft: Draft, nowMs: number): void {
    const { leases, alarms, auth } = draft;
    for (const id of this.expiryMs.keys()) if (!leases.has(id)) this.expiryMs.delete(id);
    for (const [id, lease] of leases) {
      if (lease !== this.now.leases.get(id)) this.expiryMs.set(id, nowMs + lease.ttlMs);
    }
    let { revision } = this.now;
    if (draft.events.length > 0) {
      revision = draft.revision;
      this.#revisions.push({ keys: draft.keys, events: draft.events });
    }
    this.append({ revision, leases, alarms, auth });
  }

  /** Goes back to the store after record `record`; leases begin anew with what was saved of them. */
  reopen(record: number, nowMs: number): void {
    this.#frames.length = record + 1;
    this.#revisions.length = this.now.revision + 1;
    this.expiryMs.clear();
    for (const [id, { savedMs }] of this.now.leases) this.expiryMs.set(id, nowMs + savedMs);
  }
}
