/** The lessor: which leases there are, when each runs out and which keys hang on it. A pure machine; what must survive is
 *  written by its caller as named entries, and comes back through `load`, whether from a replayed log or from a write that
 *  was just appended.
 *
 *      grant ─► entry in a record ─► load ─► waits in the heap ─► firstExpired ─► keys deleted, entry removed ─► load
 *                                                 ▲        │
 *                                                 └─ renew ┘ (not logged)
 *
 *  A lease is a slot in flat columns. Of its keys, one is kept inline, more in a set. A lease of a key's own is made by a
 *  put with a time to live and ends when its last key leaves it. */
import { KvError } from "../errors.ts";
import { fromBinaryString, toBinaryString } from "../key.ts";
import { decodeLeaseEntry, encodeLeaseEntry, leaseEntryName, leaseIdOf } from "./lease_entry.ts";
import { LeaseIndex } from "./lease_index.ts";
import type { Mvcc } from "../mvcc.ts";
import type { LeaseTable, WriteLog } from "../txn.ts";

/** Longest time to live, in seconds; etcd's figure. */
export const LEASE_TTL_MAX_SECONDS = 9_000_000_000n;

/** What the lessor is made of. */
export interface LessorDeps {
  /** Monotonic time in milliseconds. */
  readonly clock: { now(): number };
  /** Source of ids and of the index's seed. */
  readonly random: { fill(target: Uint8Array): Uint8Array };
  /** Shorter times to live are raised to it, in seconds; leases of a key's own are not. */
  readonly minTtlSeconds: number;
  /** Most leases at a time, those of a key's own included. */
  readonly leasesMax: number;
}

/** A lease to be granted. */
export interface LeaseGrant {
  readonly id: bigint;
  readonly ttlMs: number;
}

const MS_PER_SECOND = 1_000;
/** Children of a node of the heap: four lie side by side in memory, and the heap is half as deep as one of two. */
const ARITY = 4;
/** Ids are made by steps of this odd number (2^63 divided by the golden ratio) from a random start: no id comes twice. */
const ID_STEP = 0x4f1b_bcdc_bfa5_3e0bn;
const ID_BITS = 63;

type Keys = string | Set<string> | undefined;

/** The machine. */
export class Lessor implements LeaseTable {
  /** Called when the earliest expiry came nearer: whoever sleeps until then must wake sooner. */
  onEarlier: () => void = () => {};
  readonly #deps: LessorDeps;
  readonly #index: LeaseIndex;
  #lastMadeId: bigint;
  #ttlMs: Float64Array;
  #expiryMs: Float64Array;
  /** Time left as the lease's entry has it; the whole TTL when it names none. */
  #savedMs: Float64Array;
  #isOwn: Uint8Array;
  /** Keys as binary strings. */
  readonly #keys: Keys[] = [];
  /** Slots as a heap by expiry, and where each slot is in it. */
  #heap: Int32Array;
  #heapAt: Int32Array;
  #owned = 0;
  #lastEntry: { readonly ttlMs: number; readonly isOwn: boolean; readonly value: Uint8Array } = {
    ttlMs: NaN,
    isOwn: false,
    value: new Uint8Array(0),
  };

  constructor(deps: LessorDeps) {
    this.#deps = deps;
    const words = new DataView(deps.random.fill(new Uint8Array(12)).slice().buffer);
    this.#lastMadeId = BigInt.asUintN(ID_BITS, words.getBigUint64(0));
    this.#index = new LeaseIndex(words.getInt32(8));
    const slots = this.#index.capacity;
    this.#ttlMs = new Float64Array(slots);
    this.#expiryMs = new Float64Array(slots);
    this.#savedMs = new Float64Array(slots);
    this.#isOwn = new Uint8Array(slots);
    this.#heap = new Int32Array(slots);
    this.#heapAt = new Int32Array(slots);
  }

  /** Leases there are. */
  get size(): number {
    return this.#index.size;
  }

  /** Those of them that are a key's own. */
  get ownSize(): number {
    return this.#owned;
  }

  has(id: bigint): boolean {
    return this.#index.find(id) >= 0;
  }

  // ---- granting ----

  /** Checks a request for a lease and completes it: a missing id is chosen, a short TTL raised.
   *  @throws {KvError} `leaseTtlTooLarge`, `leaseExists`, `tooManyRequests` beyond leasesMax. */
  plan(id: bigint, ttlSeconds: bigint): LeaseGrant {
    if (ttlSeconds > LEASE_TTL_MAX_SECONDS) throw new KvError("leaseTtlTooLarge");
    if (id !== 0n && this.has(id)) throw new KvError("leaseExists");
    this.#checkRoom();
    const seconds = Math.max(Number(ttlSeconds), this.#deps.minTtlSeconds);
    return { id: id === 0n ? this.#makeId() : id, ttlMs: seconds * MS_PER_SECOND };
  }

  /** The entry of a lease with its whole time. The one made last is given again if it is the same: a million leases of one
   *  duration share it. It must not be changed. */
  newEntry(ttlMs: number, isOwn: boolean): Uint8Array {
    const last = this.#lastEntry;
    if (last.ttlMs !== ttlMs || last.isOwn !== isOwn) {
      this.#lastEntry = { ttlMs, isOwn, value: encodeLeaseEntry({ ttlMs, remainingMs: undefined, isOwn }) };
    }
    return this.#lastEntry.value;
  }

  makeOwn(ttlMs: number, current: bigint, log: WriteLog): bigint {
    const slot = current === 0n ? -1 : this.#index.find(current);
    const canReuse = slot >= 0 && this.#isOwn[slot] === 1 && countOf(this.#keys[slot]) === 1;
    if (!canReuse) this.#checkRoom();
    const id = canReuse ? current : this.#makeId();
    log.meta(leaseEntryName(id), this.newEntry(ttlMs, true));
    return id;
  }

  endOwn(state: Mvcc, log: WriteLog): void {
    if (this.#owned === 0) return;
    const from = state.indexOfRevision(state.revision + 1);
    const end = state.historyEnd;
    let left: Map<number, number> | undefined;
    for (let i = from; i < end; i++) {
      const row = state.historyAt(i);
      const before = state.previousLeaseOf(row);
      if (before === 0n || before === state.leaseOf(row)) continue;
      const slot = this.#index.find(before);
      if (slot < 0 || this.#isOwn[slot] === 0) continue;
      left ??= new Map();
      left.set(slot, (left.get(slot) ?? countOf(this.#keys[slot])) - 1);
    }
    if (left === undefined) return;
    for (let i = from; i < end; i++) {
      const slot = this.#index.find(state.leaseOf(state.historyAt(i)));
      if (slot >= 0) left.delete(slot);
    }
    for (const [slot, count] of left) {
      if (count === 0) log.meta(leaseEntryName(this.#index.idOf(slot)), undefined);
    }
  }

  // ---- what was logged ----

  /** Takes a lease's entry: a new one or one with its whole time again, one with the time it has left (which is news only
   *  to one who restarts), or none, which ends it. */
  load(name: string, value: Uint8Array | undefined): void {
    const id = leaseIdOf(name);
    const slot = this.#index.find(id);
    if (value === undefined) {
      if (slot >= 0) this.#remove(slot);
      return;
    }
    const { ttlMs, remainingMs, isOwn } = decodeLeaseEntry(value);
    const savedMs = remainingMs ?? ttlMs;
    if (slot < 0) this.#add(id, ttlMs, savedMs, isOwn);
    else {
      this.#savedMs[slot] = savedMs;
      this.#ttlMs[slot] = ttlMs;
      if (remainingMs === undefined) this.#setExpiry(slot, this.#deps.clock.now() + ttlMs);
    }
  }

  /** Attaches the keys of a replayed store. */
  attachAll(state: Mvcc): void {
    state.visitLeased((row) => this.#attach(state.leaseOf(row), state.keyOf(row)));
  }

  /** Moves the keys of a revision that was just applied between their leases. */
  applied(state: Mvcc, revision: number): void {
    if (this.#index.size === 0) return;
    const end = state.historyEnd;
    for (let i = state.indexOfRevision(revision); i < end; i++) {
      const row = state.historyAt(i);
      const before = state.previousLeaseOf(row);
      const after = state.leaseOf(row);
      if (before === after) continue;
      const key = state.keyOf(row);
      if (before !== 0n) this.#detach(before, key);
      if (after !== 0n) this.#attach(after, key);
    }
  }

  // ---- time ----

  /** When the first lease runs out; Infinity without leases. */
  get nextExpiryMs(): number {
    return this.#index.size === 0 ? Infinity : this.#expiryMs[this.#heap[0]!]!;
  }

  /** The lease that has run out longest ago; undefined when none has. */
  firstExpired(now: number): bigint | undefined {
    return this.nextExpiryMs <= now ? this.#index.idOf(this.#heap[0]!) : undefined;
  }

  /** Whether a lease has run out; false for an unknown one. */
  isExpired(id: bigint, now: number): boolean {
    const slot = this.#index.find(id);
    return slot >= 0 && this.#expiryMs[slot]! <= now;
  }

  /** Calls `visit` with every lease that has run out, in no order, until it returns false. */
  visitExpired(now: number, visit: (id: bigint) => boolean): void {
    const waiting = [0];
    for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
      if (at >= this.#index.size || this.#expiryMs[this.#heap[at]!]! > now) continue;
      if (!visit(this.#index.idOf(this.#heap[at]!))) return;
      for (let child = ARITY; child >= 1; child--) waiting.push(at * ARITY + child);
    }
  }

  /** Gives a lease its whole time again; false when there is none, or it has run out and only its end is left. */
  renew(id: bigint, now: number): boolean {
    const slot = this.#index.find(id);
    if (slot < 0 || this.#expiryMs[slot]! <= now) return false;
    this.#setExpiry(slot, now + this.#ttlMs[slot]!);
    return true;
  }

  /** Whether a restart would take time away from a lease: its entry names less than its TTL. */
  isCheckpointed(id: bigint): boolean {
    const slot = this.#index.find(id);
    return slot >= 0 && this.#savedMs[slot]! < this.#ttlMs[slot]!;
  }

  /** Writes into `log` the time left of leases whose entry promises at least `behindMs` too much and whose TTL is longer
   *  than `ttlAboveMs`: those from slot `from` on, `entriesMax` at most, looking at `slotsMax` slots. Returns how many, and
   *  the slot to go on at, or -1 at the end. */
  checkpoint(
    log: WriteLog,
    { from, now, ttlAboveMs, behindMs, entriesMax, slotsMax }: CheckpointSlice,
  ): { readonly entries: number; readonly next: number } {
    let entries = 0;
    const end = Math.min(this.#index.end, from + slotsMax);
    let slot = from;
    for (; slot < end && entries < entriesMax; slot++) {
      if (!this.#index.isTaken(slot) || this.#ttlMs[slot]! <= ttlAboveMs) continue;
      const remainingMs = Math.max(0, this.#expiryMs[slot]! - now);
      if (this.#savedMs[slot]! - remainingMs < behindMs) continue;
      log.meta(leaseEntryName(this.#index.idOf(slot)), this.#entryOf(slot, remainingMs));
      entries++;
    }
    return { entries, next: slot < this.#index.end ? slot : -1 };
  }

  // ---- reading ----

  /** Time to live as granted, in milliseconds; undefined when there is no such lease. */
  ttlMsOf(id: bigint): number | undefined {
    const slot = this.#index.find(id);
    return slot < 0 ? undefined : this.#ttlMs[slot]!;
  }

  /** Time a lease has left, in milliseconds, 0 or less when it has run out; undefined when there is no such lease. */
  remainingMsOf(id: bigint, now: number): number | undefined {
    const slot = this.#index.find(id);
    return slot < 0 ? undefined : this.#expiryMs[slot]! - now;
  }

  /** Whether it is a key's own. */
  isOwn(id: bigint): boolean {
    const slot = this.#index.find(id);
    return slot >= 0 && this.#isOwn[slot] === 1;
  }

  /** How many keys a lease has. */
  keyCountOf(id: bigint): number {
    const slot = this.#index.find(id);
    return slot < 0 ? 0 : countOf(this.#keys[slot]);
  }

  /** The keys of a lease, in key order; none for an unknown one. */
  keysOf(id: bigint): Uint8Array[] {
    const slot = this.#index.find(id);
    const keys = slot < 0 ? undefined : this.#keys[slot];
    if (keys === undefined) return [];
    if (typeof keys === "string") return [fromBinaryString(keys)];
    return [...keys].sort().map(fromBinaryString);
  }

  /** Every lease, the one that runs out first before the others. */
  ids(): bigint[] {
    const expiryMs = this.#expiryMs;
    return this.#heap.slice(0, this.#index.size)
      .sort((a, b) => expiryMs[a]! - expiryMs[b]! || a - b)
      .reduce((ids, slot) => {
        ids.push(this.#index.idOf(slot));
        return ids;
      }, [] as bigint[]);
  }

  /** The entry that takes a checkpoint back: the lease has its whole time. */
  wholeEntryOf(id: bigint): Uint8Array {
    const slot = this.#index.find(id);
    if (slot < 0) throw new RangeError(`Cannot write the entry of lease ${id}: there is none`);
    return this.newEntry(this.#ttlMs[slot]!, this.#isOwn[slot] === 1);
  }

  // ---- slots ----

  #entryOf(slot: number, remainingMs: number): Uint8Array {
    return encodeLeaseEntry({ ttlMs: this.#ttlMs[slot]!, remainingMs, isOwn: this.#isOwn[slot] === 1 });
  }

  #checkRoom(): void {
    if (this.#index.size >= this.#deps.leasesMax) throw new KvError("tooManyRequests");
  }

  #makeId(): bigint {
    let id = this.#lastMadeId;
    do id = BigInt.asUintN(ID_BITS, id + ID_STEP); while (id === 0n || this.has(id));
    this.#lastMadeId = id;
    return id;
  }

  #add(id: bigint, ttlMs: number, remainingMs: number, isOwn: boolean): void {
    const slot = this.#index.add(id);
    if (this.#index.capacity > this.#ttlMs.length) this.#grow(this.#index.capacity);
    this.#ttlMs[slot] = ttlMs;
    this.#savedMs[slot] = remainingMs;
    this.#isOwn[slot] = isOwn ? 1 : 0;
    this.#keys[slot] = undefined;
    if (isOwn) this.#owned++;
    this.#expiryMs[slot] = this.#deps.clock.now() + remainingMs;
    this.#siftUp(this.#index.size - 1, slot);
    if (this.#heap[0] === slot) this.onEarlier();
  }

  #remove(slot: number): void {
    const at = this.#heapAt[slot]!;
    this.#index.remove(slot);
    const last = this.#heap[this.#index.size]!;
    if (last !== slot) {
      this.#siftDown(at, last);
      this.#siftUp(this.#heapAt[last]!, last);
    }
    if (this.#isOwn[slot] === 1) this.#owned--;
    this.#keys[slot] = undefined;
  }

  #grow(slots: number): void {
    this.#ttlMs = grownFloat64(this.#ttlMs, slots);
    this.#expiryMs = grownFloat64(this.#expiryMs, slots);
    this.#savedMs = grownFloat64(this.#savedMs, slots);
    const isOwn = new Uint8Array(slots);
    isOwn.set(this.#isOwn);
    this.#isOwn = isOwn;
    this.#heap = grownInt32(this.#heap, slots);
    this.#heapAt = grownInt32(this.#heapAt, slots);
  }

  #attach(id: bigint, key: Uint8Array): void {
    const slot = this.#index.find(id);
    if (slot < 0) return;
    const name = toBinaryString(key);
    const keys = this.#keys[slot];
    if (keys === undefined) this.#keys[slot] = name;
    else if (typeof keys !== "string") keys.add(name);
    else if (keys !== name) this.#keys[slot] = new Set([keys, name]);
  }

  #detach(id: bigint, key: Uint8Array): void {
    const slot = this.#index.find(id);
    if (slot < 0) return;
    const name = toBinaryString(key);
    const keys = this.#keys[slot];
    if (keys === name) this.#keys[slot] = undefined;
    else if (typeof keys === "object") {
      keys.delete(name);
      if (keys.size === 0) this.#keys[slot] = undefined;
    }
  }

  // ---- heap ----

  #setExpiry(slot: number, expiryMs: number): void {
    const before = this.#expiryMs[slot]!;
    this.#expiryMs[slot] = expiryMs;
    if (expiryMs >= before) this.#siftDown(this.#heapAt[slot]!, slot);
    else {
      this.#siftUp(this.#heapAt[slot]!, slot);
      if (this.#heap[0] === slot) this.onEarlier();
    }
  }

  /** Puts a slot at `at` or nearer to the top. */
  #siftUp(at: number, slot: number): void {
    const heap = this.#heap;
    const expiryMs = this.#expiryMs;
    while (at > 0) {
      const up = (at - 1) >> 2;
      const parent = heap[up]!;
      if (expiryMs[parent]! <= expiryMs[slot]!) break;
      heap[at] = parent;
      this.#heapAt[parent] = at;
      at = up;
    }
    heap[at] = slot;
    this.#heapAt[slot] = at;
  }

  /** Puts a slot at `at` or further down. */
  #siftDown(at: number, slot: number): void {
    const heap = this.#heap;
    const expiryMs = this.#expiryMs;
    const size = this.#index.size;
    for (;;) {
      const first = at * ARITY + 1;
      if (first >= size) break;
      let least = first;
      const end = Math.min(first + ARITY, size);
      for (let child = first + 1; child < end; child++) {
        if (expiryMs[heap[child]!]! < expiryMs[heap[least]!]!) least = child;
      }
      const lower = heap[least]!;
      if (expiryMs[lower]! >= expiryMs[slot]!) break;
      heap[at] = lower;
      this.#heapAt[lower] = at;
      at = least;
    }
    heap[at] = slot;
    this.#heapAt[slot] = at;
  }
}

/** A piece of writing checkpoints. */
export interface CheckpointSlice {
  readonly from: number;
  readonly now: number;
  readonly ttlAboveMs: number;
  readonly behindMs: number;
  readonly entriesMax: number;
  readonly slotsMax: number;
}

function countOf(keys: Keys): number {
  return keys === undefined ? 0 : typeof keys === "string" ? 1 : keys.size;
}

function grownFloat64(column: Float64Array, length: number): Float64Array {
  const larger = new Float64Array(length);
  larger.set(column);
  return larger;
}

function grownInt32(column: Int32Array, length: number): Int32Array {
  const larger = new Int32Array(length);
  larger.set(column);
  return larger;
}
