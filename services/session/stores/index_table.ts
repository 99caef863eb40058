/** Smallest table, in chains. */
const CHAINS_MIN = 1_024;

interface Link<T> {
  readonly hash: number;
  readonly key: string;
  readonly value: T;
  next: Link<T> | undefined;
}

/** A map from texts to things that come and go quickly, such as sessions.
 *
 *  A `Map` would do, but for the garbage collector: each time a `Map` makes itself a new table, the old one keeps a
 *  reference to it, and once one is in the old generation, all that ever was in the later ones stays alive until the next
 *  full collection. Chains let go of what is taken out. The table grows with what is in it and is bounded by its owner. */
export class IndexTable<T> {
  #chains: (Link<T> | undefined)[] = new Array(CHAINS_MIN).fill(undefined);
  #size = 0;

  /** `seed` is random, so that nobody can choose keys that share a chain. */
  constructor(private readonly seed: number) {}

  /** Entries held. */
  get size(): number {
    return this.#size;
  }

  get(key: string): T | undefined {
    const hash = this.#hash(key);
    for (let link = this.#chains[hash & (this.#chains.length - 1)]; link !== undefined; link = link.next) {
      if (link.hash === hash && link.key === key) return link.value;
    }
    return undefined;
  }

  /** Adds an entry whose key is not in. */
  add(key: string, value: T): void {
    if (this.#size >= this.#chains.length) this.#grow();
    const hash = this.#hash(key);
    const at = hash & (this.#chains.length - 1);
    this.#chains[at] = { hash, key, value, next: this.#chains[at] };
    this.#size++;
  }

  /** Takes an entry out; whether it was in. */
  delete(key: string): boolean {
    const hash = this.#hash(key);
    const at = hash & (this.#chains.length - 1);
    let before: Link<T> | undefined;
    for (let link = this.#chains[at]; link !== undefined; before = link, link = link.next) {
      if (link.hash !== hash || link.key !== key) continue;
      if (before === undefined) this.#chains[at] = link.next;
      else before.next = link.next;
      this.#size--;
      return true;
    }
    return false;
  }

  #grow(): void {
    const old = this.#chains;
    const chains: (Link<T> | undefined)[] = new Array(old.length * 2).fill(undefined);
    const mask = chains.length - 1;
    for (const first of old) {
      for (let link = first; link !== undefined;) {
        const { next } = link;
        link.next = chains[link.hash & mask];
        chains[link.hash & mask] = link;
        link = next;
      }
    }
    this.#chains = chains;
  }

  /** FNV-1a over the UTF-16 units, begun at the seed, with a last mix since the chains take the low bits. */
  #hash(key: string): number {
    let hash = this.seed;
    for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
    hash ^= hash >>> 15;
    return Math.imul(hash, 0x2c1b3c6d) >>> 0;
  }
}
