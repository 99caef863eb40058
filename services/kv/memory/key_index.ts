import { type Arena, offsetOf } from "./arena.ts";

/** Keys of one leaf. A larger leaf makes inserts move more, a smaller one makes the list of leaves longer. */
const LEAF_KEYS = 512;
/** Positions are `leaf * POSITION_STEP + offset`; offsets go up to LEAF_KEYS itself. */
const POSITION_STEP = 1_024;
/** The hash table grows when more than this share of it is taken: longer probes cost more than the memory. */
const HASH_LOAD_MAX = 0.6;
/** Columns grow by this factor. */
const GROWTH = 1.5;

/** Keys that wait for their places are merged with all others when they are more than one in this many. */
const MERGE_SHARE = 16;
/** Runs up to this are sorted by comparison. */
const SMALL_RUN = 24;

interface Leaf {
  readonly ids: Int32Array;
  size: number;
  /** Keys of it that are live. */
  live: number;
}

/** Bytes of bookkeeping a key costs besides its own bytes: columns, its share of hash table and leaves. */
export const KEY_OVERHEAD_BYTES = 36;

/** All keys the store knows, by hash and in byte order, as columns of numbers: no object and no string per key.
 *
 *  A key has an id, a small number that is its row in the columns and is reused after `remove`. The hash table finds an
 *  id in constant time; the order is a list of leaves of up to 512 ids, found by binary search. Each leaf counts its live
 *  keys, so counting a range looks at its two end leaves and adds up the rest. */
export class KeyIndex {
  /** Newest row of each key, by id; the owner's to read and write. */
  head: Int32Array = new Int32Array(1_024);
  #address: Uint32Array = new Uint32Array(1_024);
  #length: Uint32Array = new Uint32Array(1_024);
  #hash: Uint32Array = new Uint32Array(1_024);
  #isLive: Uint8Array = new Uint8Array(1_024);
  #rows = 0;
  #freeIds: number[] = [];
  #size = 0;
  #live = 0;
  #slots: Int32Array = new Int32Array(2_048);
  #leaves: Leaf[] = [];
  /** Keys that were inserted while order was deferred and are in no leaf yet. */
  #unordered: number[] = [];
  #isOrderDeferred = false;
  readonly #arena: Arena;
  readonly #seed: number;

  /** `seed` makes hash collisions unpredictable for whoever chooses keys. */
  constructor(arena: Arena, seed: number) {
    this.#arena = arena;
    this.#seed = seed | 0;
  }

  /** Keys known, deleted ones with history included. */
  get size(): number {
    return this.#size;
  }

  /** Keys that are live. */
  get live(): number {
    return this.#live;
  }

  /** Id of `key`, or -1. */
  find(key: Uint8Array): number {
    const hash = hashOf(key, this.#seed);
    const slots = this.#slots;
    const mask = slots.length - 1;
    for (let slot = hash & mask;; slot = (slot + 1) & mask) {
      const id = slots[slot]! - 1;
      if (id < 0) return -1;
      if (this.#hash[id] === hash && this.#equals(id, key)) return id;
    }
  }

  /** Adds a key that is not there; it has no row yet (-1). */
  insert(key: Uint8Array, live: boolean): number {
    const id = this.#freeIds.pop() ?? this.#newRow();
    this.#address[id] = this.#arena.store(key);
    this.#length[id] = key.length;
    this.#isLive[id] = live ? 1 : 0;
    this.head[id] = -1;
    const hash = hashOf(key, this.#seed);
    this.#hash[id] = hash;
    this.#size++;
    if (this.#size > this.#slots.length * HASH_LOAD_MAX) this.#growSlots();
    this.#claimSlot(hash, id);
    if (live) this.#live++;
    if (this.#isOrderDeferred) this.#unordered.push(id);
    else {
      const leaf = this.#insertOrdered(key, id);
      if (live) leaf.live++;
    }
    return id;
  }

  /** Leaves new keys out of order until order is asked for, or no longer does. Sorting many keys at once takes a tenth of
   *  the time of finding each one's place; what asks for order meanwhile pays for it. */
  deferOrder(isDeferred: boolean): void {
    this.#isOrderDeferred = isDeferred;
    if (!isDeferred) this.#order();
  }

  /** Forgets a key; its id may be given to another. */
  remove(id: number): void {
    this.setLive(id, false);
    this.#order();
    this.#removeOrdered(id);
    this.#clearSlot(id);
    this.#arena.free(this.#address[id]!, this.#length[id]!);
    this.#freeIds.push(id);
    this.#size--;
  }

  isLive(id: number): boolean {
    return this.#isLive[id] === 1;
  }

  setLive(id: number, live: boolean): void {
    if (this.isLive(id) === live) return;
    this.#order();
    const leaf = this.#leaves[this.#locateLeaf(this.keyOf(id))]!;
    const change = live ? 1 : -1;
    this.#isLive[id] = live ? 1 : 0;
    leaf.live += change;
    this.#live += change;
  }

  /** Moves the key's bytes out of memory that is to be given back. */
  relocate(id: number): void {
    this.#address[id] = this.#arena.relocate(this.#address[id]!, this.#length[id]!);
  }

  /** A copy of the key's bytes. */
  keyOf(id: number): Uint8Array {
    return this.#arena.copy(this.#address[id]!, this.#length[id]!);
  }

  keyLength(id: number): number {
    return this.#length[id]!;
  }

  /** Whether `start <= key < end`; `end` undefined is "no end". */
  isWithin(id: number, start: Uint8Array, end: Uint8Array | undefined): boolean {
    return this.#compare(id, start) >= 0 && (end === undefined || this.#compare(id, end) < 0);
  }

  /** Position of the first key >= `key`; positions are valid until the next insert or remove. */
  lowerBound(key: Uint8Array): number {
    this.#order();
    const leafIndex = this.#locateLeaf(key);
    const leaf = this.#leaves[leafIndex];
    if (leaf === undefined) return 0;
    return leafIndex * POSITION_STEP + this.#lowerBoundIn(leaf, key);
  }

  /** Position after the last key. */
  get endPosition(): number {
    this.#order();
    return this.#leaves.length * POSITION_STEP;
  }

  /** Calls `visit` with the ids from position `from` up to `to`, in key order, until it returns false.
   *  `visit` must not insert or remove. */
  walk(from: number, to: number, visit: (id: number) => boolean): void {
    const lastLeaf = Math.floor(to / POSITION_STEP);
    for (let index = Math.floor(from / POSITION_STEP); index <= lastLeaf; index++) {
      const leaf = this.#leaves[index];
      if (leaf === undefined) return;
      const stop = index === lastLeaf ? to % POSITION_STEP : leaf.size;
      const start = index * POSITION_STEP > from ? 0 : from % POSITION_STEP;
      for (let i = start; i < stop; i++) {
        if (!visit(leaf.ids[i]!)) return;
      }
    }
  }

  /** Marks the live keys between two positions as not live and calls `visit` with each, in key order.
   *  `visit` must not insert or remove. */
  takeLive(from: number, to: number, visit: (id: number) => void): void {
    const lastLeaf = Math.floor(to / POSITION_STEP);
    for (let index = Math.floor(from / POSITION_STEP); index <= lastLeaf; index++) {
      const leaf = this.#leaves[index];
      if (leaf === undefined) return;
      const stop = index === lastLeaf ? to % POSITION_STEP : leaf.size;
      const start = index * POSITION_STEP > from ? 0 : from % POSITION_STEP;
      for (let i = start; i < stop; i++) {
        const id = leaf.ids[i]!;
        if (this.#isLive[id] === 0) continue;
        this.#isLive[id] = 0;
        leaf.live--;
        this.#live--;
        visit(id);
      }
    }
  }

  /** Live keys between two positions; looks at keys one by one in the two end leaves only. */
  countLive(from: number, to: number): number {
    let count = 0;
    const lastLeaf = Math.floor(to / POSITION_STEP);
    for (let index = Math.floor(from / POSITION_STEP); index <= lastLeaf; index++) {
      const leaf = this.#leaves[index];
      if (leaf === undefined) break;
      const start = index * POSITION_STEP > from ? 0 : from % POSITION_STEP;
      const stop = index === lastLeaf ? to % POSITION_STEP : leaf.size;
      if (start === 0 && stop === leaf.size) {
        count += leaf.live;
        continue;
      }
      for (let i = start; i < stop; i++) count += this.#isLive[leaf.ids[i]!]!;
    }
    return count;
  }

  /** Upper bound of the keys between two positions, cheap. */
  spanAtMost(from: number, to: number): number {
    return Math.max(0, (Math.floor(to / POSITION_STEP) - Math.floor(from / POSITION_STEP) + 1) * LEAF_KEYS);
  }

  #equals(id: number, key: Uint8Array): boolean {
    const length = key.length;
    if (this.#length[id] !== length) return false;
    const address = this.#address[id]!;
    const slab = this.#arena.slabOf(address);
    const at = offsetOf(address);
    for (let i = 0; i < length; i++) {
      if (slab[at + i] !== key[i]) return false;
    }
    return true;
  }

  /** As compareBytes(key of id, key). */
  #compare(id: number, key: Uint8Array): number {
    const address = this.#address[id]!;
    const ownLength = this.#length[id]!;
    const slab = this.#arena.slabOf(address);
    const at = offsetOf(address);
    const length = Math.min(ownLength, key.length);
    for (let i = 0; i < length; i++) {
      const difference = slab[at + i]! - key[i]!;
      if (difference !== 0) return difference;
    }
    return ownLength - key.length;
  }

  /** Index of the leaf where `key` is or belongs: the last one whose first key is <= `key`, else the first. */
  #locateLeaf(key: Uint8Array): number {
    const leaves = this.#leaves;
    let low = 0;
    let high = leaves.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#compare(leaves[middle]!.ids[0]!, key) <= 0) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #lowerBoundIn(leaf: Leaf, key: Uint8Array): number {
    let low = 0;
    let high = leaf.size;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(leaf.ids[middle]!, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #insertOrdered(key: Uint8Array, id: number): Leaf {
    const leaves = this.#leaves;
    if (leaves.length === 0) leaves.push(newLeaf());
    const last = leaves[leaves.length - 1]!;
    if (last.size === 0 || this.#compare(last.ids[last.size - 1]!, key) < 0) {
      // Keys that come in order fill their leaves to the brim instead of leaving them half empty.
      return this.#append(id);
    }
    let index = this.#locateLeaf(key);
    let leaf = leaves[index]!;
    if (leaf.size === LEAF_KEYS) {
      // The new key is not placed yet, so neither half counts it.
      this.#split(index);
      index = this.#locateLeaf(key);
      leaf = leaves[index]!;
    }
    const at = this.#lowerBoundIn(leaf, key);
    leaf.ids.copyWithin(at + 1, at, leaf.size);
    leaf.ids[at] = id;
    leaf.size++;
    return leaf;
  }

  /** Gives the keys without order their places. */
  #order(): void {
    const count = this.#unordered.length;
    if (count === 0) return;
    const fresh = Int32Array.from(this.#unordered);
    this.#unordered = [];
    this.#sort(fresh);
    if (count * MERGE_SHARE < this.#size) {
      for (const id of fresh) {
        const leaf = this.#insertOrdered(this.keyOf(id), id);
        leaf.live += this.#isLive[id]!;
      }
      return;
    }
    const before = this.#leaves;
    this.#leaves = [newLeaf()];
    let next = 0;
    for (const leaf of before) {
      for (let i = 0; i < leaf.size; i++) {
        const id = leaf.ids[i]!;
        while (next < count && this.#compareIds(fresh[next]!, id, 0) < 0) this.#appendCounted(fresh[next++]!);
        this.#appendCounted(id);
      }
    }
    while (next < count) this.#appendCounted(fresh[next++]!);
  }

  #appendCounted(id: number): void {
    const leaf = this.#append(id);
    leaf.live += this.#isLive[id]!;
  }

  /** Sorts ids by key: by one byte after the other, small runs by comparison. The work to do is a list and not a
   *  recursion, since keys that are beginnings of one another may nest as deep as they are long. */
  #sort(ids: Int32Array): void {
    const scratch = new Int32Array(ids.length);
    const starts = new Int32Array(258);
    const todo = [0, ids.length, 0];
    while (todo.length > 0) {
      const depth = todo.pop()!;
      const to = todo.pop()!;
      const from = todo.pop()!;
      if (to - from <= SMALL_RUN) {
        this.#sortSmall(ids, from, to, depth);
        continue;
      }
      starts.fill(0);
      for (let i = from; i < to; i++) starts[this.#byteAt(ids[i]!, depth) + 1]!++;
      for (let bucket = 1; bucket < 258; bucket++) starts[bucket]! += starts[bucket - 1]!;
      // Bucket 0 is the one key that ends here; it is in place.
      for (let bucket = 1; bucket < 257; bucket++) {
        const size = starts[bucket + 1]! - starts[bucket]!;
        if (size > 1) todo.push(from + starts[bucket]!, from + starts[bucket + 1]!, depth + 1);
      }
      for (let i = from; i < to; i++) scratch[from + starts[this.#byteAt(ids[i]!, depth)]!++] = ids[i]!;
      ids.set(scratch.subarray(from, to), from);
    }
  }

  #sortSmall(ids: Int32Array, from: number, to: number, depth: number): void {
    for (let i = from + 1; i < to; i++) {
      const id = ids[i]!;
      let at = i;
      for (; at > from && this.#compareIds(ids[at - 1]!, id, depth) > 0; at--) ids[at] = ids[at - 1]!;
      ids[at] = id;
    }
  }

  /** The key's byte at an offset plus one; 0 past its end. */
  #byteAt(id: number, depth: number): number {
    if (depth >= this.#length[id]!) return 0;
    const address = this.#address[id]!;
    return this.#arena.slabOf(address)[offsetOf(address) + depth]! + 1;
  }

  /** Order of two keys that are equal in their first `depth` bytes. */
  #compareIds(a: number, b: number, depth: number): number {
    const slabA = this.#arena.slabOf(this.#address[a]!);
    const slabB = this.#arena.slabOf(this.#address[b]!);
    const atA = offsetOf(this.#address[a]!);
    const atB = offsetOf(this.#address[b]!);
    const length = Math.min(this.#length[a]!, this.#length[b]!);
    for (let i = depth; i < length; i++) {
      const difference = slabA[atA + i]! - slabB[atB + i]!;
      if (difference !== 0) return difference;
    }
    return this.#length[a]! - this.#length[b]!;
  }

  #append(id: number): Leaf {
    let last = this.#leaves[this.#leaves.length - 1]!;
    if (last.size === LEAF_KEYS) {
      last = newLeaf();
      this.#leaves.push(last);
    }
    last.ids[last.size++] = id;
    return last;
  }

  #split(index: number): void {
    const leaf = this.#leaves[index]!;
    const right = newLeaf();
    const half = leaf.size >>> 1;
    right.ids.set(leaf.ids.subarray(half, leaf.size));
    right.size = leaf.size - half;
    leaf.size = half;
    for (let i = 0; i < right.size; i++) right.live += this.#isLive[right.ids[i]!]!;
    leaf.live -= right.live;
    this.#leaves.splice(index + 1, 0, right);
  }

  #removeOrdered(id: number): void {
    const key = this.keyOf(id);
    const index = this.#locateLeaf(key);
    const leaf = this.#leaves[index]!;
    const at = this.#lowerBoundIn(leaf, key);
    leaf.ids.copyWithin(at, at + 1, leaf.size);
    leaf.size--;
    const next = this.#leaves[index + 1];
    if (leaf.size === 0) this.#leaves.splice(index, 1);
    else if (next !== undefined && leaf.size + next.size <= LEAF_KEYS / 2) {
      leaf.ids.set(next.ids.subarray(0, next.size), leaf.size);
      leaf.size += next.size;
      leaf.live += next.live;
      this.#leaves.splice(index + 1, 1);
    }
  }

  #claimSlot(hash: number, id: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = hash & mask;
    while (slots[slot] !== 0) slot = (slot + 1) & mask;
    slots[slot] = id + 1;
  }

  /** Takes the key out and moves later ones of its run back, so that probes need no marks of removed keys. */
  #clearSlot(id: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let gap = this.#hash[id]! & mask;
    while (slots[gap] !== id + 1) gap = (gap + 1) & mask;
    for (let slot = (gap + 1) & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const wanted = this.#hash[slots[slot]! - 1]! & mask;
      if (((slot - wanted) & mask) < ((slot - gap) & mask)) continue;
      slots[gap] = slots[slot]!;
      gap = slot;
    }
    slots[gap] = 0;
  }

  #growSlots(): void {
    const before = this.#slots;
    this.#slots = new Int32Array(before.length * 2);
    for (const entry of before) {
      if (entry !== 0) this.#claimSlot(this.#hash[entry - 1]!, entry - 1);
    }
  }

  #newRow(): number {
    if (this.#rows === this.head.length) {
      const rows = Math.ceil(this.#rows * GROWTH);
      this.head = grownInt32(this.head, rows);
      this.#address = grownUint32(this.#address, rows);
      this.#length = grownUint32(this.#length, rows);
      this.#hash = grownUint32(this.#hash, rows);
      const isLive = new Uint8Array(rows);
      isLive.set(this.#isLive);
      this.#isLive = isLive;
    }
    return this.#rows++;
  }
}

function newLeaf(): Leaf {
  return { ids: new Int32Array(LEAF_KEYS), size: 0, live: 0 };
}

/** A longer copy. */
export function grownInt32(column: Int32Array, rows: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(rows);
  larger.set(column);
  return larger;
}

/** A longer copy. */
export function grownUint32(column: Uint32Array, rows: number): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(rows);
  larger.set(column);
  return larger;
}

/** A multiplicative hash with a final mix; unsigned 32 bits. */
function hashOf(key: Uint8Array, seed: number): number {
  let hash = seed ^ key.length;
  for (let i = 0; i < key.length; i++) {
    hash = Math.imul(hash ^ key[i]!, 0x5bd1e995);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash ^ (hash >>> 13), 0x85ebca6b);
  return (hash ^ (hash >>> 16)) >>> 0;
}
