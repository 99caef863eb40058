/** Cursors of SCAN: numbers for clients, places in key order here.
 *
 *  A cursor stands for the last key that was looked at, so a scan sees every key that is there all the time, once. The table
 *  is bounded: the oldest places are forgotten, and a cursor that is not known any more is refused, since going on from
 *  anywhere would break that promise. */
import { toBinaryString } from "../key.ts";

/** Places remembered, and their bytes. */
const CURSORS_MAX = 65_536;
const CURSOR_BYTES_MAX = 16 * 1_024 * 1_024;
/** Numbers of one life of the server; its own part above keeps those of earlier lives apart. All fit into 53 bits, the
 *  integers of the smallest clients. */
const NUMBERS = 2 ** 29;

/** The places. */
export class CursorTable {
  readonly #byNumber = new Map<bigint, Uint8Array>();
  readonly #byKey = new Map<string, bigint>();
  readonly #base: bigint;
  #next = 0;
  #bytes = 0;

  /** `life`: a random number of 24 bits. */
  constructor(life: number) {
    this.#base = BigInt(life) * BigInt(NUMBERS);
  }

  /** The cursor that goes on after `key`. */
  add(key: Uint8Array): bigint {
    const name = toBinaryString(key);
    const known = this.#byKey.get(name);
    if (known !== undefined) return known;
    this.#next = this.#next % (NUMBERS - 1) + 1;
    const cursor = this.#base + BigInt(this.#next);
    this.#byNumber.set(cursor, key);
    this.#byKey.set(name, cursor);
    this.#bytes += key.length;
    while (this.#byNumber.size > CURSORS_MAX || this.#bytes > CURSOR_BYTES_MAX) this.#forgetOldest();
    return cursor;
  }

  /** The key that a cursor goes on after. */
  get(cursor: bigint): Uint8Array | undefined {
    return this.#byNumber.get(cursor);
  }

  #forgetOldest(): void {
    for (const [cursor, key] of this.#byNumber) {
      this.#byNumber.delete(cursor);
      this.#byKey.delete(toBinaryString(key));
      this.#bytes -= key.length;
      return;
    }
  }
}
