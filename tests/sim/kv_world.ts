/** One key-value store on a file system that loses power, fails and dies at any operation, and the model that it is held
 *  to. All that happens follows from the seed. */
import { assert, assertEquals } from "@std/assert";
import { Permission_Type, PermissionSchema } from "$proto/authpb/auth_pb.ts";
import { create } from "@bufbuild/protobuf";
import type { AuthStore } from "../../services/kv/auth/auth.ts";
import { KvError, type KvErrorKind } from "../../services/kv/errors.ts";
import { type KeyRange, toBinaryString } from "../../services/kv/key.ts";
import { decodeLeaseEntry, leaseIdOf } from "../../services/kv/lease/lease_entry.ts";
import { kvConfigSchema } from "../../services/kv/config.ts";
import { createKvModule, type KvModule } from "../../services/kv/mod.ts";
import type { KeyValue, RangeQuery } from "../../services/kv/mvcc.ts";
import { compactionOf, type EntryChange } from "../../services/kv/record.ts";
import type { KvStore } from "../../services/kv/store.ts";
import { type LogStore, openLogStore } from "../../services/kv/stores/log.ts";
import { plainHasher } from "../../services/kv/testing/auth.ts";
import type { Compare, Op, OpResult, PutOp, Txn, WriteLog } from "../../services/kv/txn.ts";
import type { WatchEvent, WatchStream } from "../../services/kv/watch.ts";
import { createManualClock } from "../../services/runtime/clock.ts";
import { createFaultFs, type Fault, type FaultFs } from "../../storage/testing/fault_fs.ts";
import { alarmName, Draft, type ModelEvent, type ModelKv, ModelStore } from "./kv_model.ts";
import { SimRandom } from "./random.ts";

const KEYS = ["a", "b", "c", "d", "m", "n", "o"];
/** Keys below it are put by transactions, the others deleted. */
const HALF = "m";
const LEASES = [11n, 12n, 13n, -5n];
const USERS = ["ann", "bob"];
const ROLES = ["r1", "r2"];
const SEGMENT_BYTES = 4_096;
const SNAPSHOT_BYTES = 2_000;
/** Steps of one life at most. */
const STEPS = 50;
/** File operations of a life with that many steps, roughly: where the fault may come. */
const OPERATIONS = 110;
/** Revisions read between the oldest and the newest when everything is checked; watchers see the others. */
const REVISIONS_CHECKED = 6;
/** Turns of the event loop after which something counts as hung. */
const TURNS_MAX = 20_000;

/** What goes wrong in a life. */
export interface KvFault {
  readonly fault: Fault;
  /** Number of the file operation. */
  readonly operation: number;
}

/** What happened in a world, so that a test can tell that anything did. */
export interface KvTally {
  lives: number;
  faults: number;
  acknowledged: number;
  refused: number;
  lost: number;
  compactions: number;
  snapshots: number;
  purges: number;
  expiries: number;
  events: number;
  cancelledWatches: number;
  refusedOpens: number;
}

/** Runs a world of several lives, each of which may end in a fault, and checks it after each.
 *  @throws {Error} when the store is not as the model says. */
export async function runKvWorld(
  seed: number,
  lives: number,
  tally: KvTally = newKvTally(),
): Promise<KvTally> {
  const world = new KvWorld(seed, tally);
  for (let life = 0; life < lives; life++) await world.live(world.drawFault());
  await world.end();
  return tally;
}

/** Runs a world whose first life is the seed's and has the one fault; whether that came to pass. */
export async function runKvTrial(
  seed: number,
  fault: KvFault,
  tally: KvTally = newKvTally(),
): Promise<boolean> {
  const world = new KvWorld(seed, tally);
  const faulted = await world.live(fault);
  await world.live(undefined);
  await world.end();
  return faulted;
}

/** A tally of nothing. */
export function newKvTally(): KvTally {
  return {
    lives: 0,
    faults: 0,
    acknowledged: 0,
    refused: 0,
    lost: 0,
    compactions: 0,
    snapshots: 0,
    purges: 0,
    expiries: 0,
    events: 0,
    cancelledWatches: 0,
    refusedOpens: 0,
  };
}

/** A watcher and where it is. */
interface Watching {
  readonly range: KeyRange | "single";
  readonly key: string;
  readonly prevKv: boolean;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  /** Next revision it has to hear of. */
  cursor: number;
  /** Events of that revision which it has. */
  taken: number;
  isCancelled: boolean;
}

class KvWorld {
  readonly #random: SimRandom;
  readonly #fs: FaultFs;
  readonly #clock = createManualClock();
  readonly #model = new ModelStore();
  readonly #tally: KvTally;
  /** Whether the quota is soon used up. */
  readonly #isSmall: boolean;
  readonly #retainRevisions: number;
  #module: KvModule | undefined;
  #log: LogStore | undefined;
  #draft: Draft | undefined;
  /** Number of the last record that somebody was told of, as done or by what it led to. */
  #told = 0;
  #compactSeen = 0;
  /** When leases run out by what was acknowledged, with the record of the lease. */
  readonly #promised = new Map<bigint, number>();
  readonly #hashes = new Map<string, { readonly hash: number; readonly revision: number }>();
  readonly #waiting = new Set<Promise<void>>();
  #problem: unknown;
  #watches: Watching[] = [];
  #stream: WatchStream | undefined;
  #values = 0;

  constructor(seed: number, tally: KvTally) {
    this.#random = new SimRandom(seed, "kv");
    this.#fs = createFaultFs(seed);
    this.#tally = tally;
    this.#isSmall = this.#random.chance(0.1);
    this.#retainRevisions = this.#random.pick([8, 20, 1_000]);
  }

  drawFault(): KvFault {
    const fault = this.#random.pick<Fault>(["crash", "crash", "crash", "kill", "eio", "enospc", "short"]);
    return { fault, operation: 1 + this.#random.below(this.#random.chance(0.2) ? 15 : OPERATIONS) };
  }

  /** Opens, checks, does things until the fault or until it has done enough, and ends. */
  async live(fault: KvFault | undefined): Promise<boolean> {
    this.#tally.lives++;
    this.#fs.arm(fault?.operation ?? Infinity, fault?.fault ?? "eio");
    if (await this.#open()) {
      await this.#checkAll();
      for (let step = 0; step < STEPS && this.#service.failure === undefined; step++) {
        await this.#step();
        this.#throwProblem();
      }
    }
    const { faulted } = this.#fs;
    if (faulted) this.#tally.faults++;
    await this.#close();
    // What is not synced goes with the power; the death of a process alone takes nothing that was written.
    const losesPower = faulted &&
      (fault?.fault === "crash" || (fault?.fault !== "kill" && this.#random.chance(0.5)));
    this.#fs.freeSpace();
    this.#fs.restart(losesPower);
    this.#clock.advance(this.#random.below(3_000));
    return faulted;
  }

  /** A last life without a fault: everything is there, and it works. */
  async end(): Promise<void> {
    this.#fs.arm(Infinity, "eio");
    assert(await this.#open());
    await this.#checkAll();
    await this.#checkWorks();
    await this.#checkAll();
    await this.#close();
    if (this.#random.chance(0.7)) return;
    this.#fs.restart(true);
    assert(await this.#open());
    await this.#checkAll();
    await this.#close();
  }

  get #service() {
    return this.#module!.service;
  }

  /** False if the fault kept it from opening. */
  async #open(): Promise<boolean> {
    const { random, clock } = { random: this.#random, clock: this.#clock };
    const config = {
      ...kvConfigSchema.parse({ lease: { minTtlSeconds: 1, checkpointIntervalMs: 1_000 } }),
      snapshotLogBytes: SNAPSHOT_BYTES,
      retainRevisions: this.#retainRevisions,
      quotaBytes: this.#isSmall ? 12_000 : 1 << 30,
    };
    const nowMs = clock.now();
    try {
      this.#module = await createKvModule({
        openStore: async (replay) => {
          const store = await openLogStore({
            fs: this.#fs,
            directory: "/kv",
            durability: "always",
            segmentBytes: SEGMENT_BYTES,
            clock,
            salt: () => random.uint32(),
          }, replay);
          this.#reopened(store, nowMs);
          return this.#listening(store);
        },
        config,
        random: random.fork("identity"),
        log: { info: () => {}, error: () => {} },
        clock,
        pause: turn,
        passwords: plainHasher(),
      });
    } catch (error) {
      if (!this.#fs.faulted) throw error;
      this.#tally.refusedOpens++;
      // What does not open holds nothing open.
      await this.#log?.close().catch(() => {});
      this.#module = undefined;
      this.#log = undefined;
      return false;
    }
    this.#openWatches();
    return true;
  }

  /** The log was replayed: the model goes back to its last record. */
  #reopened(store: LogStore, nowMs: number): void {
    const records = store.durableSeq;
    const model = this.#model;
    assert(records >= this.#told, `${records} records are there, somebody was told of record ${this.#told}`);
    assert(records <= model.records, `${records} records are there, ${model.records} were written`);
    this.#tally.lost += model.records - records;
    model.reopen(records, nowMs);
    this.#told = records;
    for (const [id, untilMs] of this.#promised) {
      const lease = model.now.leases.get(id);
      // The end of a lease that nobody was told of, or its beginning, may be lost with its promise.
      if (lease === undefined) this.#promised.delete(id);
      else {assert(
          nowMs + lease.savedMs >= untilMs,
          `lease ${id} lost time: ${nowMs + lease.savedMs} < ${untilMs}`,
        );}
    }
    for (const [name, { revision }] of this.#hashes) {
      if (revision > model.now.revision) this.#hashes.delete(name);
    }
    this.#log = store;
  }

  /** The store, each record of which reaches the model in the moment it is written. */
  #listening(store: LogStore): KvStore {
    const written = (seq: number, record: Uint8Array, entries: readonly EntryChange[]) => {
      this.#written(record, entries);
      assertEquals(seq, this.#model.records, "numbers of records");
      return seq;
    };
    return {
      get durableSeq() {
        return store.durableSeq;
      },
      openedLogBytes: store.openedLogBytes,
      takesSnapshots: store.takesSnapshots,
      stopped: store.stopped,
      append: (record: Uint8Array, entries: readonly EntryChange[]) =>
        written(store.append(record), record, entries),
      durable: (seq: number) => store.durable(seq),
      onDurable: (listener: () => void) => store.onDurable(listener),
      snapshot: (records: Iterable<Uint8Array>, coversSeq: number) => store.snapshot(records, coversSeq),
      stats: () => store.stats(),
      close: () => store.close(),
    };
  }

  #written(record: Uint8Array, entries: readonly EntryChange[]): void {
    const model = this.#model;
    const draft = this.#draft;
    if (draft !== undefined) {
      this.#draft = undefined;
      draft.settle(entries);
      model.commit(draft, this.#clock.now());
      this.#forgetPromises();
      return;
    }
    // The store's own doing: its identity, compaction, the end of leases, checkpoints, the alarm of a full store.
    const compacted = compactionOf(record);
    if (compacted !== undefined) {
      assert(
        compacted > model.now.compactRevision && compacted <= this.#service.revision,
        `compaction ${compacted}`,
      );
      this.#tally.compactions++;
      model.append({ compactRevision: compacted });
    } else if (entries.length === 0) {
      assertEquals(model.records, 0, "a record that nobody asked for");
      model.append();
    } else if (entries.every(({ name }) => name.startsWith("alarm/"))) {
      const name = alarmName({ memberId: this.#service.identity.memberId, kind: 1 });
      model.append({ alarms: new Set([...model.now.alarms, name]) });
    } else this.#leasesWritten(entries);
  }

  #leasesWritten(entries: readonly EntryChange[]): void {
    const model = this.#model;
    const nowMs = this.#clock.now();
    const [first] = entries;
    const id = leaseIdOf(first!.name);
    if (first!.value === undefined) {
      assert(model.expiryMs.get(id)! <= nowMs, `lease ${id} was ended before its time`);
      const draft = model.draft();
      draft.endLease(id);
      draft.settle(entries);
      this.#tally.expiries++;
      model.commit(draft, nowMs);
      this.#forgetPromises();
      return;
    }
    let change = {};
    const leases = new Map(model.now.leases);
    for (const { name, value } of entries) {
      const id = leaseIdOf(name);
      const { ttlMs, remainingMs } = decodeLeaseEntry(value!);
      const lease = leases.get(id);
      assert(lease !== undefined && lease.ttlMs === ttlMs, `a checkpoint of lease ${id}`);
      assertEquals(remainingMs, Math.max(0, model.expiryMs.get(id)! - nowMs), `what lease ${id} has left`);
      leases.set(id, { ...lease, savedMs: remainingMs! });
      change = { leases };
    }
    model.append(change);
  }

  /** A lease that ended owes nothing, nor does a key's own one that was made anew, for less time. */
  #forgetPromises(): void {
    for (const [id, untilMs] of this.#promised) {
      if (!(this.#model.expiryMs.get(id)! >= untilMs)) this.#promised.delete(id);
    }
  }

  // ---- doing ----

  async #step(): Promise<void> {
    const random = this.#random;
    const kind = random.below(100);
    if (kind < 30) this.#put();
    else if (kind < 36) this.#delete();
    else if (kind < 50) this.#txn();
    else if (kind < 62) this.#lease();
    else if (kind < 68) this.#passTime();
    else if (kind < 74) this.#auth();
    else if (kind < 77 || this.#model.now.alarms.size > 0) this.#alarm();
    else if (kind < 81) this.#compact();
    else if (kind < 83) this.#maintain();
    else if (kind < 90) this.#read();
    else this.#drain();
    const pause = random.below(10);
    if (pause < 3) await Promise.race([...this.#waiting, turn()]);
    else if (pause < 5) await turn();
    else if (pause < 6) await this.#settled();
  }

  /** Asks for something that `draft` says the outcome of. `call` decides and writes before it returns. */
  #ask<T>(
    what: string,
    draft: Draft,
    refusal: KvErrorKind | undefined,
    call: () => Promise<T>,
    check: (result: T) => void = () => {},
    { mayBeFull = false, isRead = false } = {},
  ): void {
    const model = this.#model;
    const before = model.records;
    const isStopped = this.#service.failure !== undefined;
    this.#draft = draft;
    let answer: Promise<T>;
    try {
      answer = call();
    } catch (error) {
      answer = Promise.reject(error);
    }
    const wasWritten = this.#draft === undefined;
    this.#draft = undefined;
    const seen = model.records;
    const isExpected = !isStopped && refusal === undefined && draft.changesSomething;
    const told = (error?: unknown) => {
      if (error !== undefined && !(error instanceof KvError)) throw error;
      const kind = error?.kind;
      if (kind === "notDurable" || kind === "readOnly" || kind === "stopped") {
        // What became of it will be seen.
        assert(this.#fs.faulted || kind === "stopped", `${what}: ${error} without a fault`);
        return;
      }
      // Done or refused: what that rests on is durable, and stays.
      if (!isRead) this.#told = Math.max(this.#told, seen);
      if (mayBeFull && kind === "noSpace" && this.#isSmall) {
        this.#tally.refused++;
        return;
      }
      assertEquals(kind, refusal, what);
      kind === undefined ? this.#tally.acknowledged++ : this.#tally.refused++;
      assertEquals(wasWritten, isExpected, `${what} was written`);
    };
    this.#await(answer.then((result) => {
      told();
      check(result);
    }, told));
    assert(model.records - before <= 1 || !wasWritten, `${what} wrote ${model.records - before} records`);
  }

  #await(work: Promise<void>): void {
    const waiting = work.catch((error) => {
      this.#problem ??= error;
    }).finally(() => this.#waiting.delete(waiting));
    this.#waiting.add(waiting);
  }

  #throwProblem(): void {
    if (this.#problem !== undefined) throw this.#problem;
  }

  /** Why a put, or a lease, is refused whatever it is. */
  #standing(adds: boolean): KvErrorKind | undefined {
    const { alarms } = this.#model.now;
    const { memberId } = this.#service.identity;
    if (alarms.has(alarmName({ memberId, kind: 2 }))) return "corrupt";
    return adds && alarms.has(alarmName({ memberId, kind: 1 })) ? "noSpace" : undefined;
  }

  #value(): string {
    const length = this.#random.pick([0, 8, 8, 30, 30, 300, 900, this.#random.chance(0.1) ? 6_000 : 50]);
    return `${++this.#values}`.padEnd(length, "x");
  }

  #someLease(): bigint {
    if (this.#random.chance(0.5)) return 0n;
    const granted = [...this.#model.now.leases.keys()];
    return this.#random.pick(this.#random.chance(0.8) && granted.length > 0 ? granted : LEASES);
  }

  #put(): void {
    const random = this.#random;
    const draft = this.#model.draft();
    const key = random.pick(KEYS);
    const before = draft.keys.get(key);
    const ttlMs = random.chance(0.12) ? 500 + random.below(8_000) : undefined;
    const ignoreValue = random.chance(0.08);
    const ignoreLease = ttlMs === undefined && random.chance(0.08);
    const lease = ttlMs !== undefined || ignoreLease ? 0n : this.#someLease();
    const op: PutOp = {
      kind: "put",
      key: bytes(key),
      value: bytes(ignoreValue ? "" : this.#value()),
      lease,
      prevKv: random.chance(0.3),
      ignoreValue,
      ignoreLease,
      ...(ttlMs === undefined ? {} : { ttlMs }),
    };
    const expected = random.chance(0.2) ? random.pick([before?.mod ?? 0, 0, 3]) : undefined;
    let refusal = this.#standing(true);
    if (refusal === undefined && lease !== 0n && !draft.leases.has(lease)) refusal = "leaseNotFound";
    if (refusal === undefined && (ignoreValue || ignoreLease) && before === undefined) {
      refusal = "keyNotFound";
    }
    if (refusal === undefined && expected !== undefined && expected !== (before?.mod ?? 0)) {
      refusal = "revisionMismatch";
    }
    const value = ignoreValue ? before?.value ?? "" : text(op.value);
    if (ttlMs !== undefined) draft.putOwn(key, value, ttlMs);
    else draft.put(key, value, ignoreLease ? before?.lease ?? 0n : lease);
    this.#ask(`put ${key}`, draft, refusal, () => this.#service.put(op, expected), (result) => {
      assertEquals(
        [result.revision, result.version, modelKv(result.prevKv)],
        [draft.revision, (before?.version ?? 0) + 1, op.prevKv ? before : undefined],
      );
    }, { mayBeFull: true });
  }

  #delete(): void {
    const random = this.#random;
    const draft = this.#model.draft();
    const [key, range] = someRange(random, KEYS);
    const prevKv = random.chance(0.5);
    const gone = draft.delete(KEYS.filter((name) => isWithin(name, key, range)));
    this.#ask(
      `delete ${key}`,
      draft,
      this.#standing(false),
      () => this.#service.delete({ kind: "delete", key: bytes(key), range, prevKv }),
      (result) =>
        assertEquals(
          [result.deleted, result.revision, result.prevKvs.map(modelKv)],
          [gone.length, gone.length > 0 ? draft.revision : draft.revision - 1, prevKv ? gone : []],
        ),
    );
  }

  #txn(): void {
    const service = this.#service;
    const txn = this.#drawTxn(2, [...KEYS]);
    const isReadOnly = !hasKind(txn, "put") && !hasKind(txn, "delete");
    const draft = this.#model.draft();
    const newest = isReadOnly ? service.revision : draft.revision - 1;
    const run = new TxnRun(draft, isReadOnly ? this.#model.keys(newest) : draft.keys);
    const expected = run.txn(txn);
    let refusal: KvErrorKind | undefined = isReadOnly ? undefined : this.#standing(false);
    if (refusal === undefined && !isReadOnly && hasKind(txn, "put")) refusal = this.#standing(true);
    refusal ??= run.refusal;
    this.#ask("txn", draft, refusal, () => service.txn(txn), (result) => {
      const revision = draft.events.length > 0 ? draft.revision : newest;
      assertEquals([result.revision, result.succeeded, result.results.map(plainResult)], [
        revision,
        expected.succeeded,
        expected.results,
      ]);
      if (isReadOnly) this.#tell(newest);
    }, { mayBeFull: true, isRead: isReadOnly });
  }

  /** A transaction in which every key is written once at most, wherever it is. */
  #drawTxn(depth: number, free: string[]): Txn {
    const random = this.#random;
    const compares = Array.from({ length: random.below(3) }, (): Compare => {
      const key = random.pick(KEYS);
      const kv = this.#model.keys().get(key);
      const target = random.pick(["version", "mod", "create"] as const);
      const actual = kv?.[target] ?? 0;
      return {
        key: bytes(key),
        range: "single",
        target,
        result: random.pick(["equal", "equal", "greater", "less", "not_equal"]),
        operand: random.chance(0.7) ? actual : random.below(10),
      };
    });
    const ops = () =>
      Array.from({ length: random.below(4) }, (): Op => {
        const kind = random.below(10);
        const left = free.length > 0;
        if (kind < 5 && left) {
          const [key] = free.splice(random.below(free.length), 1);
          const lease = random.chance(0.8) ? 0n : random.pick([...this.#model.now.leases.keys(), ...LEASES]);
          return {
            kind: "put",
            key: bytes(key!),
            value: bytes(this.#value()),
            lease,
            prevKv: random.chance(0.3),
            ignoreValue: false,
            ignoreLease: false,
          };
        }
        if (kind < 7 && left) {
          const [key] = free.splice(random.below(free.length), 1);
          return { kind: "delete", key: bytes(key!), range: "single", prevKv: random.chance(0.3) };
        }
        if (kind < 8 && free.includes("n") && free.includes("o") && free.includes(HALF)) {
          for (const key of [HALF, "n", "o"]) free.splice(free.indexOf(key), 1);
          return {
            kind: "delete",
            key: bytes(HALF),
            range: { start: bytes(HALF), end: undefined },
            prevKv: true,
          };
        }
        if (kind < 9 && depth > 0) return { kind: "txn", txn: this.#drawTxn(depth - 1, free) };
        const [key, range] = someRange(random, KEYS);
        return { kind: "range", query: { key: bytes(key), range }, hasValidSort: true };
      });
    return { compares, success: ops(), failure: ops() };
  }

  #lease(): void {
    const random = this.#random;
    const model = this.#model;
    const { leases, service } = this.#module!;
    const nowMs = this.#clock.now();
    const id = random.pick([...LEASES, ...model.now.leases.keys()]);
    const draft = model.draft();
    const kind = random.below(10);
    if (kind < 5) {
      const seconds = 1 + random.below(8);
      const refusal = this.#standing(true) ?? (draft.leases.has(id) ? "leaseExists" : undefined);
      draft.grant(id, seconds * 1_000);
      this.#ask(`grant ${id}`, draft, refusal, () => leases.grant(id, BigInt(seconds)), (granted) => {
        assertEquals([granted.id, granted.ttlMs], [id, seconds * 1_000]);
        this.#promise(id, nowMs + granted.ttlMs, draft);
      }, { mayBeFull: true });
    } else if (kind < 7) {
      const refusal = this.#standing(false) ?? (draft.leases.has(id) ? undefined : "leaseNotFound");
      draft.endLease(id);
      this.#ask(`revoke ${id}`, draft, refusal, () => leases.revoke(id));
    } else if (kind < 9) this.#renew(id);
    else if (this.#standing(false) === undefined && service.failure === undefined) {
      this.#await(leases.checkpoint().then(() => {}));
    }
  }

  #renew(id: bigint): void {
    const model = this.#model;
    const lease = model.now.leases.get(id);
    const nowMs = this.#clock.now();
    // One that has run out ends, or cannot; either is seen elsewhere.
    if (lease === undefined || model.expiryMs.get(id)! <= nowMs || this.#standing(false) !== undefined) {
      return;
    }
    const draft = model.draft();
    const isSaved = lease.savedMs < lease.ttlMs;
    if (isSaved) {
      draft.leases.set(id, { ...lease, savedMs: lease.ttlMs });
      draft.changes++;
    }
    const { leases } = this.#module!;
    this.#ask(`renew ${id}`, draft, undefined, () => leases.renew(id), (ttlMs) => {
      assertEquals(ttlMs, lease.ttlMs);
      this.#promise(id, nowMs + ttlMs, draft);
    });
    model.expiryMs.set(id, nowMs + lease.ttlMs);
  }

  /** Somebody was told that the lease lives until then, unless it has ended meanwhile. */
  #promise(id: bigint, untilMs: number, { leases }: Draft): void {
    const granted = leases.get(id);
    const lease = this.#model.now.leases.get(id);
    if (lease?.ttlMs !== granted?.ttlMs || this.#model.expiryMs.get(id)! < untilMs) return;
    this.#promised.set(id, untilMs);
  }

  #passTime(): void {
    this.#clock.advance(this.#random.pick([10, 700, 2_500]));
    if (this.#random.chance(0.8)) this.#await(this.#module!.leases.expire());
  }

  #auth(): void {
    const random = this.#random;
    const { auth, service } = this.#module!;
    const draft = this.#model.draft();
    const user = random.pick(USERS);
    const role = random.pick(ROLES);
    const { users, roles } = draft.auth;
    const known = users.get(user);
    const permissions = roles.get(role);
    let refusal = this.#standing(false);
    let change: (log: WriteLog) => void;
    const kind = random.below(6);
    if (kind === 0 || known === undefined) {
      const password = this.#value();
      if (known !== undefined) refusal ??= "userExists";
      draft.setAuth({ users: new Map([...users, [user, { password, roles: [] }]]) });
      change = (log) => auth.addUser(log, user, bytes(password));
    } else if (kind === 1 || permissions === undefined) {
      if (permissions !== undefined) refusal ??= "roleExists";
      draft.setAuth({ roles: new Map([...roles, [role, []]]) });
      change = (log) => auth.addRole(log, role);
    } else if (kind === 2) {
      if (!known.roles.includes(role)) {
        draft.setAuth({
          users: new Map([...users, [user, { ...known, roles: [...known.roles, role].sort() }]]),
        });
      }
      change = (log) => auth.grantRole(log, user, role);
    } else if (kind === 3) {
      draft.setAuth({ users: new Map([...users].filter(([name]) => name !== user)) });
      change = (log) => auth.deleteUser(log, user);
    } else if (kind === 4) {
      const key = random.pick(KEYS);
      draft.setAuth({ roles: new Map([...roles, [role, [...new Set([...permissions, key])].sort()]]) });
      change = (log) => auth.grantPermission(log, role, readWrite(key));
    } else {
      draft.setAuth({
        roles: new Map([...roles].filter(([name]) => name !== role)),
        users: new Map([...users].map(([name, user]) => [name, {
          ...user,
          roles: user.roles.filter((other) => other !== role),
        }])),
      });
      change = (log) => auth.deleteRole(log, role);
    }
    this.#ask("auth", draft, refusal, () => service.mutate(change));
  }

  #alarm(): void {
    const { alarms, service } = this.#module!;
    const draft = this.#model.draft();
    const { memberId } = service.identity;
    const standing = [...draft.alarms];
    const random = this.#random;
    if (standing.length > 0 && random.chance(0.7)) {
      const name = random.pick(standing);
      draft.alarms.delete(name);
      draft.changes++;
      const kind = Number(name.split("/")[1]);
      this.#ask(`end alarm ${name}`, draft, undefined, () => alarms.deactivate({ memberId, kind }));
      return;
    }
    this.#raise(random.pick([1, 2, 7]));
  }

  #raise(kind: number): void {
    const { alarms, service: { identity: { memberId } } } = this.#module!;
    const draft = this.#model.draft();
    const name = alarmName({ memberId, kind });
    if (!draft.alarms.has(name)) {
      draft.alarms.add(name);
      draft.changes++;
    }
    this.#ask(`alarm ${name}`, draft, undefined, () => alarms.activate({ memberId, kind }));
  }

  #compact(): void {
    const service = this.#service;
    const model = this.#model;
    if (service.failure !== undefined) return;
    const { compactRevision } = model.now;
    const wanted = compactRevision + this.#random.below(model.now.revision - compactRevision + 2);
    let refusal = this.#standing(false);
    if (wanted <= compactRevision) refusal ??= "compacted";
    else if (wanted > service.revision) refusal ??= "futureRevision";
    const before = model.records;
    const answer = service.compact(wanted, this.#random.chance(0.5));
    const seen = model.records;
    assertEquals(seen - before, refusal === undefined ? 1 : 0, `compact ${wanted} wrote records`);
    this.#await(answer.then((revision) => {
      this.#told = Math.max(this.#told, seen);
      this.#tell(revision);
    }, (error) => this.#refused(`compact ${wanted}`, error, refusal)));
  }

  #refused(what: string, error: unknown, expected: KvErrorKind | undefined): void {
    if (!(error instanceof KvError)) throw error;
    if (["notDurable", "readOnly", "stopped"].includes(error.kind)) {
      assert(this.#fs.faulted || error.kind === "stopped", `${what}: ${error} without a fault`);
    } else assertEquals(error.kind, expected, what);
  }

  #maintain(): void {
    const { service, maintenance } = this.#module!;
    const kind = this.#random.below(4);
    if (kind === 0) this.#await(service.checkpoint());
    else if (kind === 1) this.#await(maintenance.defragment());
    else this.#await(this.#hash());
  }

  /** The hash of the history up to a revision is the same whenever it is asked for. */
  async #hash(): Promise<void> {
    const { maintenance } = this.#module!;
    try {
      const { hash, hashRevision, compactRevision } = await maintenance.hashKeys(0);
      this.#tell(hashRevision);
      const name = `${hashRevision}/${compactRevision}`;
      const before = this.#hashes.get(name);
      if (before !== undefined) assertEquals(hash, before.hash, `hash of ${name}`);
      this.#hashes.set(name, { hash, revision: hashRevision });
    } catch (error) {
      if (!(error instanceof KvError && error.kind === "tooManyRequests")) throw error;
    }
  }

  /** Somebody has seen the store at this revision. */
  #tell(revision: number): void {
    this.#told = Math.max(this.#told, this.#model.recordOf(revision));
  }

  #read(): void {
    const { revision, compactRevision } = this.#service;
    assert(
      compactRevision >= this.#compactSeen,
      `the compact revision went from ${this.#compactSeen} to ${compactRevision}`,
    );
    this.#compactSeen = compactRevision;
    this.#tell(revision);
    const [key, range] = someRange(this.#random, KEYS);
    const oldest = Math.max(1, compactRevision);
    const at = this.#random.chance(0.5) ? 0 : oldest + this.#random.below(revision - oldest + 1);
    const found = this.#service.range({ key: bytes(key), range, revision: at });
    assertEquals(found.revision, revision);
    assertEquals(found.kvs.map(modelKv), this.#keysAt(at === 0 ? revision : at, key, range));
  }

  #keysAt(revision: number, key: string, range: KeyRange | "single"): ModelKv[] {
    return select(this.#model.keys(revision), key, range);
  }

  // ---- watching ----

  #openWatches(): void {
    const { revision, compactRevision } = this.#service;
    const random = this.#random;
    this.#stream = this.#service.watches.openStream(() => {});
    this.#watches = Array.from({ length: 3 }, (_, i): Watching => {
      const [key, range] = i === 0
        ? ["\0", { start: bytes("\0"), end: undefined }] as const
        : someRange(random, KEYS);
      // From before the compaction, from long ago, from now on, from the future.
      const oldest = Math.max(1, compactRevision);
      const cursor = i === 0 ? oldest : random.pick([
        random.below(oldest) + 1,
        oldest + random.below(revision - oldest + 1),
        revision + 1,
        revision + 4,
      ]);
      const noDelete = i > 0 && random.chance(0.2);
      return {
        key,
        range,
        prevKv: random.chance(0.5),
        noPut: i > 0 && !noDelete && random.chance(0.2),
        noDelete,
        cursor,
        taken: 0,
        isCancelled: false,
      };
    });
    this.#watches.forEach((watching, i) =>
      this.#stream!.create({
        ...watching,
        key: bytes(watching.key),
        startRevision: watching.cursor,
        watchId: BigInt(i + 1),
        progressNotify: false,
        fragmentBytes: i === 2 ? 100 : 0,
      })
    );
  }

  /** Takes what the watchers are told, and holds it against the model. */
  #drain(): void {
    const service = this.#service;
    for (let answer = this.#stream!.take(); answer !== undefined; answer = this.#stream!.take()) {
      // That a watch was created says nothing about what it was told.
      if (answer === "again" || answer.watchId < 0n || answer.created) continue;
      const watching = this.#watches[Number(answer.watchId) - 1]!;
      if (answer.canceled) {
        assertEquals(answer.compactRevision, service.compactRevision);
        assert(watching.cursor < service.compactRevision, `a watch at ${watching.cursor} was cancelled`);
        watching.isCancelled = true;
        this.#tally.cancelledWatches++;
        continue;
      }
      for (const event of answer.events) this.#heard(watching, event);
      this.#skip(watching, answer.fragment ? answer.revision : answer.revision + 1);
    }
    this.#tell(service.revision);
    for (const watching of this.#watches) {
      if (!watching.isCancelled) this.#skip(watching, service.revision + 1);
    }
  }

  /** Moves a watcher on to a revision: it must have heard of all before. */
  #skip(watching: Watching, to: number): void {
    const next = this.#nextOf(watching, to - 1);
    if (next !== undefined) {
      throw new Error(`a watcher at ${watching.cursor} missed ${JSON.stringify(next, plain)}`);
    }
    if (to <= watching.cursor) return;
    watching.cursor = to;
    watching.taken = 0;
  }

  #heard(watching: Watching, { kind, kv, prevKv }: WatchEvent): void {
    const expected = this.#nextOf(watching, kv.modRevision);
    if (expected === undefined) {
      throw new Error(`a watcher heard of ${text(kv.key)} at ${kv.modRevision}, which is not next`);
    }
    const { event, revision } = expected;
    assertEquals([revision, event.key, event.kv], [
      kv.modRevision,
      text(kv.key),
      kind === "put" ? modelKv(kv) : undefined,
    ]);
    // What was before is shown as long as it can be read.
    const before = watching.prevKv ? event.before : undefined;
    if (prevKv !== undefined || revision - 1 >= this.#service.compactRevision) {
      assertEquals(modelKv(prevKv), before, `what was before revision ${revision}`);
    }
    watching.taken++;
    this.#tally.events++;
    this.#tell(revision);
  }

  /** The next event for a watcher up to a revision; moves it over revisions that have none. */
  #nextOf(watching: Watching, to: number): { event: ModelEvent; revision: number } | undefined {
    for (; watching.cursor <= Math.min(to, this.#model.now.revision); watching.cursor++, watching.taken = 0) {
      const event = this.#model.events(watching.cursor).filter(({ key, kv }) =>
        isWithin(key, watching.key, watching.range) &&
        !(kv === undefined ? watching.noDelete : watching.noPut)
      )[watching.taken];
      if (event !== undefined) {
        return { event, revision: watching.cursor };
      }
    }
    return undefined;
  }

  // ---- checking ----

  /** Everything that anybody can read, at every revision that can be read. */
  async #checkAll(): Promise<void> {
    const { service, leases, alarms, auth } = this.#module!;
    await service.settled();
    const model = this.#model;
    const now = model.now;
    assertEquals(service.revision, now.revision, "revision");
    assertEquals(service.compactRevision, now.compactRevision, "compact revision");
    assert(now.compactRevision >= this.#compactSeen, "the compact revision went back");
    for (const revision of this.#someRevisions(Math.max(1, now.compactRevision), now.revision)) {
      const found = service.range({ ...ALL, revision }).kvs.map(modelKv);
      assertEquals(found, this.#keysAt(revision, "\0", ALL.range), `the keys at ${revision}`);
    }
    if (now.compactRevision > 1) {
      assertRefused(() => service.range({ ...ALL, revision: now.compactRevision - 1 }), "compacted");
    }
    assertRefused(() => service.range({ ...ALL, revision: now.revision + 1 }), "futureRevision");
    this.#drain();

    const nowMs = this.#clock.now();
    assertEquals(new Set(await leases.list()), new Set(now.leases.keys()), "leases");
    for (const [id, { ttlMs, isOwn }] of now.leases) {
      const keys = [...model.keys().values()].filter(({ lease }) => lease === id).map(({ key }) => key)
        .sort();
      const time = await leases.timeOf(id, true);
      assertEquals(
        [time?.ttlMs, time?.isOwn, time?.keys.map(text), time?.remainingMs],
        [ttlMs, isOwn, keys, model.expiryMs.get(id)! - nowMs],
        `lease ${id}`,
      );
    }
    for (const { key, lease } of model.keys().values()) {
      assert(lease === 0n || now.leases.has(lease), `${key} is on lease ${lease}, which does not exist`);
    }
    assertEquals(new Set(alarms.list(0).map(alarmName)), now.alarms, "alarms");
    this.#checkAuth(auth);
    if (this.#random.chance(0.3)) await this.#hash();
  }

  /** The oldest, the newest and some between. */
  #someRevisions(oldest: number, newest: number): number[] {
    const between = Math.min(REVISIONS_CHECKED, newest - oldest);
    const some = Array.from({ length: between }, () => oldest + this.#random.below(newest - oldest));
    return [...new Set([oldest, newest, ...some])];
  }

  #checkAuth(auth: AuthStore): void {
    const { users, roles } = this.#model.now.auth;
    assertEquals(auth.userNames(), [...users.keys()].sort());
    assertEquals(auth.roleNames(), [...roles.keys()].sort());
    for (const [name, user] of users) assertEquals(auth.rolesOf(name), user.roles, `roles of ${name}`);
    for (const [name, keys] of roles) {
      assertEquals(auth.permissionsOf(name).map(({ key }) => text(key)), keys, `permissions of ${name}`);
    }
  }

  /** After the last fault the store takes writes again, at the next revision. */
  async #checkWorks(): Promise<void> {
    while (this.#model.now.alarms.size > 0) {
      this.#alarm();
      await this.#settled();
      this.#throwProblem();
    }
    const acknowledged = this.#tally.acknowledged;
    for (const kind of [7, 8, 9]) this.#raise(kind);
    await this.#settled();
    this.#throwProblem();
    assertEquals([this.#tally.acknowledged - acknowledged, this.#service.failure], [3, undefined]);
  }

  /** Waits for every answer. */
  async #settled(): Promise<void> {
    for (let turns = 0; this.#waiting.size > 0; turns++) {
      assert(turns < TURNS_MAX, "an answer never comes");
      await turn();
    }
  }

  /** Ends the life in good order, as far as the fault lets it; readers see the same until then. */
  async #close(): Promise<void> {
    if (this.#module === undefined) return;
    const { service } = this.#module;
    await this.#settled();
    this.#throwProblem();
    this.#read();
    this.#drain();
    this.#tally.snapshots += this.#log!.stats().snapshots;
    if (!this.#fs.paths().includes("/kv/segment-0000000000000001.log")) this.#tally.purges++;
    await this.#module.close().catch((error) => {
      if (!this.#fs.faulted) throw error;
    });
    await this.#settled();
    this.#throwProblem();
    if (service.failure === undefined && !this.#fs.faulted) this.#told = this.#model.records;
    this.#module = undefined;
    this.#log = undefined;
  }
}

/** A transaction done to the model. */
class TxnRun {
  refusal: KvErrorKind | undefined;
  readonly #before: ReadonlyMap<string, ModelKv>;

  constructor(readonly draft: Draft, readonly view: ReadonlyMap<string, ModelKv>) {
    this.#before = new Map(view);
  }

  txn({ compares, success, failure }: Txn): { succeeded: boolean; results: unknown[] } {
    const succeeded = compares.every((compare) => this.#holds(compare));
    return { succeeded, results: (succeeded ? success : failure).map((op) => this.#run(op!)) };
  }

  #run(op: Op): unknown {
    const { draft } = this;
    if (op.kind === "txn") return { kind: "txn", ...this.txn(op.txn) };
    if (op.kind === "put") {
      if (op.lease !== 0n && !draft.leases.has(op.lease)) this.refusal = "leaseNotFound";
      const key = text(op.key);
      const before = draft.keys.get(key);
      draft.put(key, text(op.value), op.lease);
      return { kind: "put", revision: draft.revision, prevKv: op.prevKv ? before : undefined };
    }
    if (op.kind === "delete") {
      const gone = draft.delete(KEYS.filter((key) => isWithin(key, text(op.key), op.range)));
      return { kind: "delete", deleted: gone.length, prevKvs: op.prevKv ? gone : [] };
    }
    return { kind: "range", kvs: select(this.view, text(op.query.key), op.query.range) };
  }

  #holds({ key, target, result, operand }: Compare): boolean {
    const kv = this.#before.get(text(key));
    const actual = target === "version" || target === "mod" || target === "create" ? kv?.[target] ?? 0 : 0;
    const wanted = Number(operand);
    if (result === "equal") return actual === wanted;
    if (result === "not_equal") return actual !== wanted;
    return result === "greater" ? actual > wanted : actual < wanted;
  }
}

const ALL: RangeQuery & { readonly range: KeyRange } = {
  key: bytes("\0"),
  range: { start: bytes("\0"), end: undefined },
};

function bytes(value: string): Uint8Array {
  const array = new Uint8Array(value.length);
  for (let i = 0; i < array.length; i++) array[i] = value.charCodeAt(i);
  return array;
}

function text(value: Uint8Array): string {
  return toBinaryString(value);
}

function modelKv(kv: KeyValue | undefined): ModelKv | undefined {
  if (kv === undefined) return undefined;
  return {
    key: text(kv.key),
    value: text(kv.value),
    create: kv.createRevision,
    mod: kv.modRevision,
    version: kv.version,
    lease: kv.lease,
  };
}

function plainResult(result: OpResult): unknown {
  if (result.kind === "put") return { ...result, prevKv: modelKv(result.prevKv) };
  if (result.kind === "delete") {
    return { kind: "delete", deleted: result.deleted, prevKvs: result.prevKvs.map(modelKv) };
  }
  if (result.kind === "range") return { kind: "range", kvs: result.result.kvs.map(modelKv) };
  return { kind: "txn", succeeded: result.succeeded, results: result.results.map(plainResult) };
}

function hasKind(txn: Txn, kind: Op["kind"]): boolean {
  return [...txn.success, ...txn.failure].some((op) =>
    op?.kind === kind || (op?.kind === "txn" && hasKind(op.txn, kind))
  );
}

function someRange(random: SimRandom, keys: readonly string[]): [string, KeyRange | "single"] {
  const key = random.pick(keys);
  const kind = random.below(4);
  if (kind < 2) return [key, "single"];
  if (kind === 2) return [key, { start: bytes(key), end: undefined }];
  const end = String.fromCharCode(key.charCodeAt(0) + 1 + random.below(5));
  return [key, { start: bytes(key), end: bytes(end) }];
}

function isWithin(name: string, key: string, range: KeyRange | "single"): boolean {
  if (range === "single") return name === key;
  return name >= key && (range.end === undefined || name < text(range.end));
}

function select(keys: ReadonlyMap<string, ModelKv>, key: string, range: KeyRange | "single"): ModelKv[] {
  return [...keys.values()].filter((kv) => isWithin(kv.key, key, range)).sort((a, b) =>
    a.key < b.key ? -1 : 1
  );
}

function readWrite(key: string) {
  return create(PermissionSchema, { permType: Permission_Type.READWRITE, key: bytes(key) });
}

function assertRefused(call: () => unknown, kind: KvErrorKind): void {
  try {
    call();
  } catch (error) {
    assertEquals(error instanceof KvError ? error.kind : error, kind);
    return;
  }
  throw new Error(`expected ${kind}`);
}

function plain(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
