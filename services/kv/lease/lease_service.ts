/** Leases as clients have them: the lessor's decisions made durable, and the end of those that ran out.
 *
 *  A lease ends at one revision with all its keys: each key is a real deletion in the record that removes the lease.
 *  Only a lease with more than REVOKE_BYTES_MAX of keys ends in several, the lease itself with the last. */
import { KvError } from "../errors.ts";
import type { Lessor } from "./lease.ts";
import { leaseEntryName } from "./lease_entry.ts";
import type { KvLogger, KvService } from "../service.ts";
import { runDelete, type WriteLog } from "../txn.ts";

/** What the service is made of. */
export interface LeaseServiceDeps {
  readonly service: KvService;
  readonly lessor: Lessor;
  readonly log: KvLogger;
  /** How often remaining times are written, in milliseconds. */
  readonly checkpointIntervalMs: number;
}

/** A lease that was granted; `revision` is the store's then. */
export interface GrantedLease {
  readonly id: bigint;
  readonly ttlMs: number;
  readonly revision: number;
}

/** What a lease's time comes to. */
export interface LeaseTime {
  /** As granted, in milliseconds. */
  readonly ttlMs: number;
  /** What is left, in milliseconds; 0 or less when only its end is left. */
  readonly remainingMs: number;
  readonly isOwn: boolean;
  readonly keys: readonly Uint8Array[];
}

/** Figures for metrics; totals count from the start of the process. */
export interface LeaseFigures {
  readonly leases: number;
  readonly ownLeases: number;
  readonly leaseGrants: number;
  readonly leaseRevokes: number;
  readonly leaseExpiries: number;
  readonly leaseRenewals: number;
  readonly leaseCheckpoints: number;
}

/** Memory of a lease without keys, its entry included. */
const LEASE_BYTES = 300;
/** Leases, and keys of them, that one turn ends: a few milliseconds. The next turn waits until they are durable. */
const EXPIRE_LEASES_MAX = 512;
const EXPIRE_KEYS_MAX = 2_048;
/** Key bytes of one record that ends a lease: the log takes records of 16 MiB. */
const REVOKE_BYTES_MAX = 8 * 1_024 * 1_024;
/** Pause after the log refused the end of a lease, in milliseconds. */
const RETRY_MS = 100;
/** Leases looked at, and written, in one turn of checkpointing. */
const CHECKPOINT_SLOTS_MAX = 16_384;
const CHECKPOINT_ENTRIES_MAX = 1_000;
/** Checkpoints that closing makes: about a second of work. The other leases are as after a crash. */
const CLOSE_CHECKPOINTS_MAX = 200_000;
/** Time since the last checkpoint that is worth a new one when closing, in milliseconds. */
const CLOSE_BEHIND_MS = 500;

/** The service. Methods reject with KvError. */
export class LeaseService {
  readonly lessor: Lessor;
  readonly #service: KvService;
  readonly #log: KvLogger;
  readonly #intervalMs: number;
  #expiring: Promise<void> | undefined;
  #checkpointing: Promise<number> | undefined;
  /** No lease is ended before this time, because the log refused it. */
  #retryAtMs = -Infinity;
  /** Leases that ran out and whose end waits for the disk, with their keys: at most a few slices. */
  readonly #ending = new Map<bigint, readonly Uint8Array[]>();
  #isClosed = false;
  #grants = 0;
  #revokes = 0;
  #expiries = 0;
  #renewals = 0;
  #checkpoints = 0;

  constructor({ service, lessor, log, checkpointIntervalMs }: LeaseServiceDeps) {
    this.#service = service;
    this.lessor = lessor;
    this.#log = log;
    this.#intervalMs = checkpointIntervalMs;
  }

  /** Makes a lease; with id 0 the id is chosen. Resolves when it is durable.
   *  @throws {KvError} `leaseTtlTooLarge`, `leaseExists`, `noSpace`, `tooManyRequests`. */
  async grant(id: bigint, ttlSeconds: bigint): Promise<GrantedLease> {
    const { lessor } = this;
    const granted = await this.#service.mutate((log) => {
      // As etcd: that there is no space is told before what else is wrong.
      this.#service.checkSpace(LEASE_BYTES);
      const { id: chosen, ttlMs } = lessor.plan(id, ttlSeconds);
      log.meta(leaseEntryName(chosen), lessor.newEntry(ttlMs, false));
      return { id: chosen, ttlMs, revision: this.#service.state.revision };
    });
    this.#grants++;
    return granted;
  }

  /** Ends a lease and deletes its keys. Resolves with the store's revision when that is durable.
   *  @throws {KvError} `leaseNotFound`. */
  async revoke(id: bigint): Promise<number> {
    const revision = await this.#end(id);
    this.#revokes++;
    return revision;
  }

  /** Gives a lease its whole time again and resolves with it, in milliseconds; 0 when there is no such lease, which
   *  includes one that has run out: then it has ended. Logged only if a checkpoint must be taken back. */
  async renew(id: bigint): Promise<number> {
    const { lessor } = this;
    const service = this.#service;
    const now = service.now();
    if (lessor.isExpired(id, now)) await this.#endExpired(id);
    if (!lessor.renew(id, now)) {
      await service.settled();
      return 0;
    }
    const ttlMs = lessor.ttlMsOf(id)!;
    this.#renewals++;
    if (lessor.isCheckpointed(id)) {
      await service.mutate((log) => log.meta(leaseEntryName(id), lessor.wholeEntryOf(id)));
    } else await service.settled(); // its grant may not be durable yet
    return ttlMs;
  }

  /** The time and, `withKeys`, the keys of a lease; undefined when there is no such lease. */
  async timeOf(id: bigint, withKeys: boolean): Promise<LeaseTime | undefined> {
    const { lessor } = this;
    const ttlMs = lessor.ttlMsOf(id);
    const remainingMs = lessor.remainingMsOf(id, this.#service.now());
    const keys = withKeys ? lessor.keysOf(id) : [];
    const isOwn = lessor.isOwn(id);
    await this.#service.settled();
    return ttlMs === undefined || remainingMs === undefined ? undefined : { ttlMs, remainingMs, isOwn, keys };
  }

  /** Every lease, the one that runs out first before the others. */
  async list(): Promise<bigint[]> {
    const ids = this.lessor.ids();
    await this.#service.settled();
    return ids;
  }

  // ---- expiry ----

  /** When `expire` is to be called next, in the service's time; Infinity while there is nothing to wait for. */
  get nextExpiryMs(): number {
    if (this.#isClosed || this.#service.failure !== undefined) return Infinity;
    return Math.max(this.lessor.nextExpiryMs, this.#retryAtMs);
  }

  /** Whether a lease waits for its end. */
  get hasExpired(): boolean {
    return this.lessor.nextExpiryMs <= this.#service.now();
  }

  /** Ends the leases that have run out, a slice a turn; resolves when none is left or the log refuses, which is tried
   *  again later. */
  expire(): Promise<void> {
    if (this.#expiring === undefined && this.#canExpire) this.#expiring = this.#expireAll();
    return this.#expiring ?? Promise.resolve();
  }

  /** Ends a lease if it has run out, before the next write of this turn. What the log refuses is tried again later. */
  endIfExpired(id: bigint): void {
    if (id === 0n || !this.lessor.isExpired(id, this.#service.now())) return;
    this.#endExpired(id).catch((error) => this.#postpone(error));
  }

  /** Whether nothing has run out that readers may still see. */
  get isSettled(): boolean {
    return this.#ending.size === 0 && !this.hasExpired;
  }

  /** Whether a lease has run out, its end not being durable yet. */
  isGone(id: bigint): boolean {
    return id !== 0n && (this.#ending.has(id) || this.lessor.isExpired(id, this.#service.now()));
  }

  /** Calls `visit` with the keys of every lease that has run out and whose end is not durable yet, until it returns false.
   *  A key may have left the lease since. */
  visitGone(visit: (id: bigint, keys: readonly Uint8Array[]) => boolean): void {
    for (const [id, keys] of this.#ending) if (!visit(id, keys)) return;
    this.lessor.visitExpired(this.#service.now(), (id) => visit(id, this.lessor.keysOf(id)));
  }

  get #canExpire(): boolean {
    return !this.#isClosed && this.#service.failure === undefined && this.hasExpired;
  }

  async #expireAll(): Promise<void> {
    try {
      while (this.#canExpire) {
        await this.#expireSlice();
        if (this.hasExpired) await this.#service.pause();
      }
    } catch (error) {
      this.#postpone(error);
    } finally {
      // In the turn of the last look: what runs out later begins anew.
      this.#expiring = undefined;
    }
  }

  #postpone(error: unknown): void {
    this.#retryAtMs = this.#service.now() + RETRY_MS;
    if (error instanceof KvError && (error.kind === "tooManyRequests" || error.kind === "stopped")) return;
    this.#log.error("leases that ran out could not be ended", { error });
  }

  #expireSlice(): Promise<unknown> {
    const { lessor } = this;
    const now = this.#service.now();
    const ends: Promise<void>[] = [];
    for (let keys = 0; ends.length < EXPIRE_LEASES_MAX && keys < EXPIRE_KEYS_MAX;) {
      const id = lessor.firstExpired(now);
      if (id === undefined) break;
      keys += lessor.keyCountOf(id);
      ends.push(this.#endExpired(id));
      // It was refused: its promise says why.
      if (lessor.has(id)) break;
    }
    return Promise.all(ends);
  }

  async #endExpired(id: bigint): Promise<void> {
    const keys = this.lessor.keysOf(id);
    try {
      const ended = this.#end(id);
      if (keys.length > 0) this.#ending.set(id, keys);
      await ended;
      this.#expiries++;
    } finally {
      this.#ending.delete(id);
    }
  }

  /** Ends a lease. What it does to the state happens before it returns. */
  #end(id: bigint): Promise<number> {
    const service = this.#service;
    const keys = this.lessor.keysOf(id);
    let last: Promise<number> | undefined;
    for (let from = 0; from < keys.length || last === undefined;) {
      let to = from;
      for (let bytes = 0; to < keys.length && bytes < REVOKE_BYTES_MAX; to++) bytes += keys[to]!.length;
      const part = keys.slice(from, to);
      const isLast = to === keys.length;
      const done = service.mutate((log) => this.#endPart(id, part, isLast, log));
      // Only the last one's outcome is told: the log takes what comes after a failure no better.
      last?.catch(() => {});
      last = done;
      from = to;
    }
    return last;
  }

  #endPart(id: bigint, keys: readonly Uint8Array[], isLast: boolean, log: WriteLog): number {
    const { lessor } = this;
    const state = this.#service.state;
    if (!lessor.has(id)) throw new KvError("leaseNotFound");
    for (const key of keys) {
      runDelete(state, { kind: "delete", key, range: "single", prevKv: false }, state.revision, log);
    }
    // An own lease ends with its last key, as with any write that takes it away.
    if (isLast && !(lessor.isOwn(id) && keys.length > 0)) log.meta(leaseEntryName(id), undefined);
    return state.hasChanges ? state.revision + 1 : state.revision;
  }

  // ---- checkpoints ----

  /** Writes the remaining time of leases that live longer than the interval and have lost half of one since it was last
   *  written. Resolves with how many; what the log refuses is left for the next time. */
  checkpoint(): Promise<number> {
    const behindMs = this.#intervalMs / 2;
    return this.#checkpointing ??= this.#checkpointAll(this.#intervalMs, behindMs, Infinity)
      .finally(() => this.#checkpointing = undefined);
  }

  async #checkpointAll(ttlAboveMs: number, behindMs: number, most: number): Promise<number> {
    const service = this.#service;
    let written = 0;
    try {
      for (let from = 0; from >= 0 && written < most;) {
        await service.mutate((log) => {
          const slice = {
            from,
            now: service.now(),
            ttlAboveMs,
            behindMs,
            entriesMax: CHECKPOINT_ENTRIES_MAX,
            slotsMax: CHECKPOINT_SLOTS_MAX,
          };
          const { next, entries } = this.lessor.checkpoint(log, slice);
          from = next;
          written += entries;
        });
        if (from >= 0) await service.pause();
      }
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
    }
    this.#checkpoints += written;
    return written;
  }

  /** Stops ending leases and writes the remaining times, so that a restart goes on with them. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#expiring;
    await this.#checkpointing;
    if (this.#service.failure === undefined && !this.#service.isClosed) {
      await this.#checkpointAll(0, CLOSE_BEHIND_MS, CLOSE_CHECKPOINTS_MAX);
    }
  }

  figures(): LeaseFigures {
    return {
      leases: this.lessor.size,
      ownLeases: this.lessor.ownSize,
      leaseGrants: this.#grants,
      leaseRevokes: this.#revokes,
      leaseExpiries: this.#expiries,
      leaseRenewals: this.#renewals,
      leaseCheckpoints: this.#checkpoints,
    };
  }
}
