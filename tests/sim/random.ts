import type { Random } from "../../transport/quantum/types.ts";

/** Seeded source of chance (sfc32, period about 2^127): the only one a simulated world may use. Not for secrets. */
export class SimRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** `seed` is any safe integer; `label` separates independent streams of one seed. */
  constructor(readonly seed: number, label = "") {
    let hash = 0x811c9dc5;
    for (let i = 0; i < label.length; i++) hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193);
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 2 ** 32) >>> 0;
    this.#c = hash >>> 0;
    // sfc32 mixes its seed within 12 rounds; neighbouring seeds are unrelated after that.
    for (let i = 0; i < 16; i++) this.uint32();
  }

  /** An independent stream that depends on this one's seed and `label` only, not on how much was drawn. */
  fork(label: string): SimRandom {
    return new SimRandom(this.seed, label);
  }

  /** Uniform in 0..2^32-1. */
  uint32(): number {
    const result = (this.#a + this.#b + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) >>> 0;
    this.#c = (this.#c + result) >>> 0;
    return result;
  }

  /** Uniform in [0, 1). */
  float(): number {
    return this.uint32() / 2 ** 32;
  }

  /** Uniform integer in 0..limit-1. */
  below(limit: number): number {
    return Math.floor(this.float() * limit);
  }

  /** True with probability `probability`. Draws only when the outcome is open. */
  chance(probability: number): boolean {
    return probability > 0 && (probability >= 1 || this.float() < probability);
  }

  /** One of `items`, which is not empty. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  fill(target: Uint8Array): Uint8Array {
    for (let i = 0; i < target.length; i++) target[i] = this.uint32() >>> 24;
    return target;
  }
}
