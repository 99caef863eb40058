import type { Random } from "../../transport/quantum/types.ts";

export type { Random };

/** Web Crypto fills at most this many bytes in one call (W3C Web Cryptography, getRandomValues). */
const MAX_SYSTEM_FILL_BYTES = 65_536;

/** The operating system's source, fit for secrets. */
export const systemRandom: Random = {
  fill(target) {
    for (let at = 0; at < target.length; at += MAX_SYSTEM_FILL_BYTES) {
      crypto.getRandomValues(
        target.subarray(at, at + MAX_SYSTEM_FILL_BYTES) as Uint8Array<ArrayBuffer>,
      );
    }
    return target;
  },
};

/** Creates a source that gives the same bytes for the same `seed`. For tests and simulations, never for secrets.
 *  The generator is xoshiro128** (Blackman and Vigna), its state spread from the seed by SplitMix32. */
export function createSeededRandom(seed: number): Random {
  const next = xoshiro128(seed);
  return {
    fill(target) {
      for (let at = 0; at < target.length; at += 4) {
        const word = next();
        for (let i = 0; i < 4 && at + i < target.length; i++) target[at + i] = word >>> (8 * i);
      }
      return target;
    },
  };
}

/** A number in [0, 1) with 32 random bits, for jitter. */
export function randomFraction(random: Random): number {
  const bytes = random.fill(new Uint8Array(4));
  return new DataView(bytes.buffer).getUint32(0) / 2 ** 32;
}

function xoshiro128(seed: number): () => number {
  let mix = seed >>> 0;
  const splitMix = () => {
    mix = (mix + 0x9e3779b9) | 0;
    let z = Math.imul(mix ^ (mix >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  };
  let a = splitMix(), b = splitMix(), c = splitMix(), d = splitMix();
  return () => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotate(d, 11);
    return result;
  };
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
