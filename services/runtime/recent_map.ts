/** A bounded memory of what was used lately, in two generations that are let go of as a whole: entries of a plain `Map` that
 *  come and go leave its dead tables alive until a full garbage collection. */
export class RecentMap<K, V> {
  #young = new Map<K, V>();
  #old = new Map<K, V>();

  /** Holds at least the `generationMax` entries used last, and at most twice as many. */
  constructor(readonly generationMax: number) {
    if (!(generationMax >= 1)) {
      throw new RangeError(`Cannot make a RecentMap: generationMax must be 1 or more, got ${generationMax}`);
    }
  }

  /** Entries held; one that is in both generations counts twice. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** The value, which counts as used. */
  get(key: K): V | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old);
    return old;
  }

  /** Adds or replaces an entry. */
  set(key: K, value: V): void {
    if (this.#young.size >= this.generationMax && !this.#young.has(key)) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, value);
  }

  /** Forgets everything. */
  clear(): void {
    this.#young = new Map();
    this.#old = new Map();
  }
}
