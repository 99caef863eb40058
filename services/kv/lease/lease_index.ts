/** Leases by id: each has a small number, its slot, which is its place in the columns of whoever keeps something about it.
 *  A million ids take 20 to 40 MB of flat memory and no object each. */

/** Slots at the beginning. */
const SLOTS_MIN = 256;
/** Places of the hash table for one slot: it is at most half full, so that probing stays short. */
const PLACES_PER_SLOT = 2;
const GROWTH = 2;

/** The index: open addressing, linear probing, no graves. */
export class LeaseIndex {
  /** Ids in the index. */
  size = 0;
  #ids: BigInt64Array = new BigInt64Array(SLOTS_MIN);
  /** The ids' memory, two numbers each: comparing them makes no BigInt. */
  #words: Int32Array = new Int32Array(this.#ids.buffer);
  /** The id that is looked for, and its two numbers. */
  readonly #sought = new BigInt64Array(1);
  readonly #soughtWords = new Int32Array(this.#sought.buffer);
  #hashes: Int32Array = new Int32Array(SLOTS_MIN);
  /** Next free slot of each free one, -1 at the end; -2 in slots that are taken. */
  #next: Int32Array = new Int32Array(SLOTS_MIN);
  #free = -1;
  #made = 0;
  /** Slot + 1 at each place; 0 is an empty place. */
  #places: Int32Array = new Int32Array(SLOTS_MIN * PLACES_PER_SLOT);

  /** `seed`: 32 unpredictable bits, so that clients cannot choose ids that collide. */
  constructor(readonly seed: number) {}

  /** Slots are below this number; columns must be as long. */
  get capacity(): number {
    return this.#ids.length;
  }

  /** Slots that were ever taken are below this number. */
  get end(): number {
    return this.#made;
  }

  /** Whether a slot below `end` is taken. */
  isTaken(slot: number): boolean {
    return this.#next[slot] === TAKEN;
  }

  /** The id in a taken slot. */
  idOf(slot: number): bigint {
    return this.#ids[slot]!;
  }

  /** The slot of an id, or -1. */
  find(id: bigint): number {
    if (this.size === 0) return -1;
    const hash = this.#hash(id);
    const first = this.#soughtWords[0]!;
    const second = this.#soughtWords[1]!;
    const mask = this.#places.length - 1;
    for (let place = hash & mask;; place = (place + 1) & mask) {
      const slot = this.#places[place]! - 1;
      if (slot < 0) return -1;
      if (this.#words[2 * slot] === first && this.#words[2 * slot + 1] === second) return slot;
    }
  }

  /** Adds an id that is not there and returns its slot. */
  add(id: bigint): number {
    if (this.#free < 0 && this.#made === this.capacity) this.#grow();
    const slot = this.#free < 0 ? this.#made++ : this.#free;
    if (slot === this.#free) this.#free = this.#next[slot]!;
    this.#next[slot] = TAKEN;
    this.#ids[slot] = id;
    this.#hashes[slot] = this.#hash(id);
    this.#place(slot);
    this.size++;
    return slot;
  }

  /** Removes a taken slot. */
  remove(slot: number): void {
    const places = this.#places;
    const mask = places.length - 1;
    let hole = this.#hashes[slot]! & mask;
    while (places[hole] !== slot + 1) hole = (hole + 1) & mask;
    // Those after it move up to where probing for them would otherwise end too early.
    for (let place = (hole + 1) & mask; places[place] !== 0; place = (place + 1) & mask) {
      const home = this.#hashes[places[place]! - 1]! & mask;
      if (((place - home) & mask) < ((place - hole) & mask)) continue;
      places[hole] = places[place]!;
      hole = place;
    }
    places[hole] = 0;
    this.#next[slot] = this.#free;
    this.#free = slot;
    this.size--;
  }

  #place(slot: number): void {
    const mask = this.#places.length - 1;
    let place = this.#hashes[slot]! & mask;
    while (this.#places[place] !== 0) place = (place + 1) & mask;
    this.#places[place] = slot + 1;
  }

  #grow(): void {
    const slots = this.capacity * GROWTH;
    const ids = new BigInt64Array(slots);
    ids.set(this.#ids);
    this.#ids = ids;
    this.#words = new Int32Array(ids.buffer);
    this.#hashes = grownInt32(this.#hashes, slots);
    this.#next = grownInt32(this.#next, slots);
    this.#places = new Int32Array(slots * PLACES_PER_SLOT);
    // Every slot is taken, or there would have been no need to grow.
    for (let slot = 0; slot < this.#made; slot++) this.#place(slot);
  }

  #hash(id: bigint): number {
    this.#sought[0] = id;
    let hash = this.#soughtWords[0]! ^ this.seed;
    hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
    hash ^= this.#soughtWords[1]!;
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
    return hash ^ (hash >>> 16);
  }
}

const TAKEN = -2;

function grownInt32(column: Int32Array, length: number): Int32Array {
  const larger = new Int32Array(length);
  larger.set(column);
  return larger;
}
