/** Token buckets by key: a bounded number of them, exact to the microsecond. Pure.
 *
 *  A bucket holds up to `burst` tokens and gains `rate` a second; a request takes one or is refused. Levels are whole
 *  billionths of a token, times whole microseconds, and rates whole thousandths, so that nothing is ever rounded. */

/** How much is granted. */
export interface Rate {
  /** Tokens a second, with up to three decimals. */
  readonly rate: number;
  /** Tokens that a full bucket holds. */
  readonly burst: number;
}

/** Bounds of a rate: within them a level, and a level's growth, is an exact integer of JavaScript. */
export const RATE_MIN = 0.001;
export const RATE_MAX = 1_000_000;
export const BURST_MAX = 1_000_000;

/** One token, in the unit of levels. */
export const TOKEN = 1e9;

/** Slots that a key may be in. More would cost time, fewer would fill up earlier. */
const WAYS = 16;
/** Buckets shared by the keys whose slots are all taken. */
const OVERFLOW = 1_024;

/** A rate in the units of levels. */
export class Policy {
  /** Name in RateLimit and RateLimit-Policy. */
  readonly name: string;
  readonly burst: number;
  /** Billionths of a token gained in a microsecond. */
  readonly gain: number;
  /** Level of a full bucket. */
  readonly capacity: number;

  constructor(name: string, { rate, burst }: Rate) {
    if (!(rate >= RATE_MIN && rate <= RATE_MAX) || !(burst >= 1 && burst <= BURST_MAX)) {
      throw new RangeError(`Cannot limit: rate ${rate} or burst ${burst} is out of range`);
    }
    this.name = name;
    this.burst = burst;
    this.gain = Math.round(rate * 1_000);
    this.capacity = Math.floor(burst) * TOKEN;
  }

  /** Seconds from empty to full, rounded up: the window of which `burst` is the quota. */
  get windowS(): number {
    return Math.ceil(this.capacity / this.gain / 1e6);
  }

  /** Seconds until a bucket with `tokens` is full again, rounded up. */
  refillS(tokens: number): number {
    return Math.ceil((this.capacity - tokens * TOKEN) / this.gain / 1e6);
  }
}

/** Buckets of one policy, one for each key.
 *
 *  A key has a set of 16 slots, chosen by a hash with a secret seed. A new key takes a free slot of its set, or that of a
 *  full bucket, which is no loss: a full one is what a new key gets. If all are in use, it shares one of 1,024 overflow
 *  buckets with others like it. So nobody is given more than a new bucket, an attacker with many addresses neither takes
 *  memory nor makes debts of others forgotten, and newcomers meanwhile share with a thousandth of the attacker's rest.
 *
 *  Nothing is ever deleted or moved; a check allocates nothing. */
export class BucketTable {
  readonly policy: Policy;
  readonly #setMask: number;
  readonly #overflowAt: number;
  readonly #seed: number;
  readonly #keys: (string | undefined)[];
  readonly #hashes: Int32Array;
  readonly #levels: Float64Array;
  /** When a level was brought up to date, in µs. */
  readonly #times: Float64Array;
  /** What was taken and not yet told to others, where buckets are shared. */
  readonly #untold: Float64Array | undefined;
  /** Slots with something untold, each once. */
  readonly #changed: number[] = [];

  /** `bucketsMax` is rounded up to a power of two, 16 at least. `seed` is 32 random bits. `isShared`: what is taken is
   *  remembered for `untold`. */
  constructor(policy: Policy, bucketsMax: number, seed: number, isShared = false) {
    const sets = 2 ** Math.ceil(Math.log2(Math.max(1, bucketsMax / WAYS)));
    const slots = sets * WAYS;
    this.policy = policy;
    this.#seed = seed | 0;
    this.#setMask = sets - 1;
    this.#overflowAt = slots;
    this.#keys = new Array(slots).fill(undefined);
    this.#hashes = new Int32Array(slots);
    this.#levels = new Float64Array(slots + OVERFLOW).fill(policy.capacity);
    this.#times = new Float64Array(slots + OVERFLOW);
    this.#untold = isShared ? new Float64Array(slots) : undefined;
  }

  /** The slot of a key. It is the key's own until another key is looked up. */
  find(key: string, nowUs: number): number {
    const hash = this.#hash(key);
    const from = (hash & this.#setMask) * WAYS;
    let free = -1;
    let freeTime = Infinity;
    for (let slot = from; slot < from + WAYS; slot++) {
      const owner = this.#keys[slot];
      if (owner === undefined) {
        if (freeTime !== -1) [free, freeTime] = [slot, -1];
      } else if (this.#hashes[slot] === hash && owner === key) return slot;
      else if (this.#times[slot]! < freeTime && this.#isFull(slot, nowUs)) {
        free = slot;
        freeTime = this.#times[slot]!;
      }
    }
    if (free < 0) return this.#overflowAt + ((hash >>> 20) ^ (hash & 0x3ff)) % OVERFLOW;
    this.#keys[free] = key;
    this.#hashes[free] = hash;
    this.#levels[free] = this.policy.capacity;
    this.#times[free] = nowUs;
    return free;
  }

  /** Whole tokens of a bucket at `nowUs`, whole microseconds; negative where others have overdrawn it. A time before the
   *  last one counts as that. */
  tokens(slot: number, nowUs: number): number {
    return Math.floor(this.#refill(slot, nowUs) / TOKEN);
  }

  /** Takes a token of a bucket that has one, as `tokens` has just said. */
  take(slot: number): void {
    this.#levels[slot]! -= TOKEN;
    if (this.#untold === undefined || slot >= this.#overflowAt) return;
    if (this.#untold[slot] === 0) this.#changed.push(slot);
    this.#untold[slot]! += TOKEN;
  }

  /** Microseconds from the last `tokens` until there is one, rounded up; 0 when there is. */
  waitUs(slot: number): number {
    return Math.max(0, Math.ceil((TOKEN - this.#levels[slot]!) / this.policy.gain));
  }

  /** Hands out up to `max` of the changed buckets with what was taken since they were handed out before. */
  untold(max: number): { readonly slot: number; readonly key: string; readonly taken: number }[] {
    return this.#changed.splice(0, max).map((slot) => {
      const taken = this.#untold![slot]!;
      this.#untold![slot] = 0;
      return { slot, key: this.#keys[slot]!, taken };
    });
  }

  /** Puts back what could not be told. */
  retell(slot: number, key: string, taken: number): void {
    if (this.#keys[slot] !== key) return; // it filled up meanwhile, and the slot is another's
    if (this.#untold![slot] === 0) this.#changed.push(slot);
    this.#untold![slot]! += taken;
  }

  /** Takes over the level that all gateways together have left, without what was taken here since it was told. */
  adopt(slot: number, key: string, level: number, nowUs: number): void {
    if (this.#keys[slot] !== key) return;
    this.#levels[slot] = Math.min(this.policy.capacity, level) - this.#untold![slot]!;
    this.#times[slot] = nowUs;
  }

  #refill(slot: number, nowUs: number): number {
    const passedUs = nowUs - this.#times[slot]!;
    const level = this.#levels[slot]!;
    if (passedUs <= 0) return level;
    const { capacity, gain } = this.policy;
    this.#times[slot] = nowUs;
    // Compared by division first: a long time times the gain would be no exact integer.
    return this.#levels[slot] = passedUs >= (capacity - level) / gain ? capacity : level + passedUs * gain;
  }

  #isFull(slot: number, nowUs: number): boolean {
    if (this.#untold !== undefined && this.#untold[slot] !== 0) return false;
    const { capacity, gain } = this.policy;
    return nowUs - this.#times[slot]! >= (capacity - this.#levels[slot]!) / gain;
  }

  /** MurmurHash3's mixing, a character at a time. */
  #hash(key: string): number {
    let hash = this.#seed;
    for (let i = 0; i < key.length; i++) {
      hash ^= Math.imul(key.charCodeAt(i), 0xcc9e2d51);
      hash = Math.imul((hash << 13) | (hash >>> 19), 5) + 0x6b64 | 0;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return hash ^ (hash >>> 16);
  }
}
