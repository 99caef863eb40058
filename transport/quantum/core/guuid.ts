/** Connection GUUIDs (UUIDv7, RFC 9562) and the table that finds connections by them without allocating. */

import { AT, GUUID_BYTES, guuidEquals } from "../wire/header.ts";
import type { Random } from "../types.ts";

/** Makes a GUUID: 48 bits of `wallMs`, version 7, variant 2, 74 random bits. */
export function createGuuid(wallMs: number, random: Random): Uint8Array {
  const guuid = random.fill(new Uint8Array(GUUID_BYTES));
  const ms = Math.max(0, Math.floor(wallMs));
  const high = Math.floor(ms / 2 ** 32);
  guuid[0] = high >>> 8;
  guuid[1] = high;
  guuid[2] = ms / 2 ** 24;
  guuid[3] = ms / 2 ** 16;
  guuid[4] = ms / 2 ** 8;
  guuid[5] = ms;
  guuid[6] = 0x70 | guuid[6]! & 0x0f;
  guuid[8] = 0x80 | guuid[8]! & 0x3f;
  return guuid;
}

/** The time in a GUUID, in wall-clock milliseconds. */
export function guuidWallMs(guuid: Uint8Array): number {
  let ms = 0;
  for (let i = 0; i < 6; i++) ms = ms * 256 + guuid[i]!;
  return ms;
}

/** What the table holds. */
export interface GuuidKeyed {
  readonly guuid: Uint8Array;
}

/** Finds entries by the GUUID field of a datagram. Keyed by 30 random bits of the GUUID (a small integer, so that a
 *  look-up allocates nothing); entries that share them are chained. Bounded by its owner. */
export class GuuidTable<T extends GuuidKeyed> {
  readonly #chains = new Map<number, T[]>();
  #size = 0;

  /** Entries held. */
  get size(): number {
    return this.#size;
  }

  /** The entry whose GUUID is in this datagram's header. */
  find(datagram: Uint8Array): T | undefined {
    const chain = this.#chains.get(keyAt(datagram, AT.guuid));
    if (chain === undefined) return undefined;
    for (let i = 0; i < chain.length; i++) if (guuidEquals(datagram, chain[i]!.guuid)) return chain[i];
    return undefined;
  }

  /** Adds an entry; the caller knows that its GUUID is not present. */
  add(entry: T): void {
    const key = keyAt(entry.guuid, 0);
    const chain = this.#chains.get(key);
    if (chain === undefined) this.#chains.set(key, [entry]);
    else chain.push(entry);
    this.#size++;
  }

  /** Removes this very entry, if present. */
  remove(entry: T): void {
    const key = keyAt(entry.guuid, 0);
    const chain = this.#chains.get(key);
    const index = chain?.indexOf(entry) ?? -1;
    if (chain === undefined || index < 0) return;
    if (chain.length === 1) this.#chains.delete(key);
    else chain.splice(index, 1);
    this.#size--;
  }
}

function keyAt(bytes: Uint8Array, at: number): number {
  return (bytes[at + 12]! & 0x3f) << 24 | bytes[at + 13]! << 16 | bytes[at + 14]! << 8 | bytes[at + 15]!;
}
