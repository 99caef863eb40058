/** Where the values of the rows of state.ts are: in memory, or in a file of which the state is the index. */
import { type Arena, offsetOf, storedBytes } from "./arena.ts";

/** Keeps values by address: unsigned 32-bit numbers that the state keeps in its columns. Deletions have an address too, for
 *  those who must keep them elsewhere. */
export interface RowValues {
  /** Bytes that the values take besides what the arena of the keys counts. */
  readonly usedBytes: number;
  /** What storing a value of `length` bytes counts. */
  costOf(length: number): number;
  /** Copies a value and returns its address. */
  store(value: Uint8Array): number;
  /** Notes a deletion and returns its address. */
  storeTombstone(): number;
  /** The value is not needed any more. */
  free(address: number, length: number): void;
  freeTombstone(address: number): void;
  /** A copy of a value. */
  copy(address: number, length: number): Uint8Array;
  /** Copies of many values, in order; left out where one by one is as fast. */
  copyAll?(addresses: readonly number[], lengths: readonly number[]): Uint8Array[];
  /** Moves a value out of memory that is to be given back, and returns its address; left out where values are on disk. */
  relocate?(address: number, length: number): number;
  /** Byte order of two values; left out where reading one costs so much that sorting should read each once. */
  compare?(a: number, aLength: number, b: number, bLength: number): number;
}

/** Values in the arena of the keys. */
export class ArenaValues implements RowValues {
  readonly usedBytes = 0;
  readonly #arena: Arena;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  costOf(length: number): number {
    return storedBytes(length);
  }

  store(value: Uint8Array): number {
    return this.#arena.store(value);
  }

  storeTombstone(): number {
    return 0;
  }

  free(address: number, length: number): void {
    this.#arena.free(address, length);
  }

  freeTombstone(_address: number): void {}

  copy(address: number, length: number): Uint8Array {
    return this.#arena.copy(address, length);
  }

  relocate(address: number, length: number): number {
    return this.#arena.relocate(address, length);
  }

  compare(a: number, aLength: number, b: number, bLength: number): number {
    const x = this.#arena.slabOf(a);
    const y = this.#arena.slabOf(b);
    const atX = offsetOf(a);
    const atY = offsetOf(b);
    const length = Math.min(aLength, bLength);
    for (let i = 0; i < length; i++) {
      const difference = x[atX + i]! - y[atY + i]!;
      if (difference !== 0) return difference;
    }
    return aLength - bLength;
  }
}
