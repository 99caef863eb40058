/** The keys of a command, or of a whole transaction, as its commands see and change them: what was found, under what they
 *  wrote. At the end each key is written once, however often it was changed. */
import type { KeyValue } from "../mvcc.ts";
import type { DeleteOp, PutOp } from "../txn.ts";
import { toBinaryString } from "../key.ts";

/** Longest time to live, in milliseconds: etcd's longest lease. Longer ones are cut to it. */
export const TTL_MS_MAX = 9_000_000_000_000;

const NO_LEASE = 0n;
const NO_BYTES = new Uint8Array(0);

/** What a command does with a key's time to live: drops it, keeps it, or sets it in milliseconds. */
export type NewTtl = "drop" | "keep" | number;

interface Cell {
  readonly storeKey: Uint8Array;
  /** As it was found; undefined where there was nothing. */
  readonly found: KeyValue | undefined;
  /** As it is; undefined when it does not exist. */
  value: Uint8Array | undefined;
  /** "found": whatever lease the key was found with. Else milliseconds, or "none". */
  ttl: "found" | "none" | number;
  isValueNew: boolean;
  isWritten: boolean;
}

/** Asks for the time a lease has left where that cannot be told at once. */
export class LeaseWanted extends Error {
  override readonly name = "LeaseWanted";

  constructor(readonly lease: bigint) {
    super(`the time lease ${lease} has left is not known yet`);
  }
}

/** Reads and changes of keys. Keys are those of the client, without the store's prefix. */
export class View {
  readonly #cells = new Map<string, Cell>();
  #single: Cell | undefined;

  /** `storeKeys` and `found` begin with those of `keys`, in order; a key may come again. `leaseTtlMs` tells the time a lease has left,
   *  undefined when there is no such lease; it may throw LeaseWanted. `nowMs` is the time of day. */
  constructor(
    storeKeys: readonly Uint8Array[],
    keys: readonly Uint8Array[],
    found: readonly (KeyValue | undefined)[],
    readonly leaseTtlMs: (lease: bigint) => number | undefined,
    readonly nowMs: number,
  ) {
    if (keys.length === 1) {
      // No table for the most common case.
      this.#single = cellOf(storeKeys[0]!, found[0]);
      return;
    }
    for (let i = 0; i < keys.length; i++) {
      const name = toBinaryString(keys[i]!);
      if (!this.#cells.has(name)) this.#cells.set(name, cellOf(storeKeys[i]!, found[i]));
    }
  }

  /** The key's value; undefined when it does not exist. */
  get(key: Uint8Array): Uint8Array | undefined {
    return this.#cell(key).value;
  }

  has(key: Uint8Array): boolean {
    return this.#cell(key).value !== undefined;
  }

  /** Time the key, which must exist, has left in milliseconds; undefined when it lives on. */
  ttlMs(key: Uint8Array): number | undefined {
    const cell = this.#cell(key);
    if (typeof cell.ttl === "number") return cell.ttl;
    const lease = cell.ttl === "found" ? cell.found?.lease ?? NO_LEASE : NO_LEASE;
    return lease === NO_LEASE ? undefined : this.leaseTtlMs(lease);
  }

  /** Whether the key, which must exist, has a time to live. */
  hasTtl(key: Uint8Array): boolean {
    const cell = this.#cell(key);
    if (cell.ttl === "found") return cell.found !== undefined && cell.found.lease !== NO_LEASE;
    return cell.ttl !== "none";
  }

  set(key: Uint8Array, value: Uint8Array, ttl: NewTtl): void {
    const cell = this.#cell(key);
    if (ttl === "drop" || (ttl === "keep" && cell.value === undefined)) cell.ttl = "none";
    else if (ttl !== "keep") cell.ttl = Math.min(ttl, TTL_MS_MAX);
    cell.value = value;
    cell.isValueNew = true;
    cell.isWritten = true;
  }

  /** Sets the time an existing key has left in milliseconds, or lets it live on. */
  setTtl(key: Uint8Array, ttlMs: number | "none"): void {
    const cell = this.#cell(key);
    cell.ttl = ttlMs === "none" ? ttlMs : Math.min(ttlMs, TTL_MS_MAX);
    cell.isWritten = true;
  }

  /** Removes a key; false if it did not exist. */
  delete(key: Uint8Array): boolean {
    const cell = this.#cell(key);
    if (cell.value === undefined) return false;
    cell.value = undefined;
    cell.ttl = "none";
    cell.isValueNew = true;
    cell.isWritten = true;
    return true;
  }

  /** What is to be written, a key at most once. */
  writes(): (PutOp | DeleteOp)[] {
    const ops: (PutOp | DeleteOp)[] = [];
    if (this.#single !== undefined) writeOf(this.#single, ops);
    for (const cell of this.#cells.values()) writeOf(cell, ops);
    return ops;
  }

  /** The store's keys that were changed, those included that came and went and so need no write. */
  changedKeys(): Uint8Array[] {
    const cells = this.#single === undefined ? [...this.#cells.values()] : [this.#single];
    return cells.filter((cell) => cell.isWritten).map((cell) => cell.storeKey);
  }

  #cell(key: Uint8Array): Cell {
    if (this.#single !== undefined) return this.#single;
    const cell = this.#cells.get(toBinaryString(key));
    if (cell === undefined) throw new RangeError("Cannot look at a key that was not read");
    return cell;
  }
}

function cellOf(storeKey: Uint8Array, found: KeyValue | undefined): Cell {
  return { storeKey, found, value: found?.value, ttl: "found", isValueNew: false, isWritten: false };
}

function writeOf(cell: Cell, ops: (PutOp | DeleteOp)[]): void {
  if (!cell.isWritten) return;
  const { storeKey: key, found, value, ttl } = cell;
  if (value === undefined) {
    if (found !== undefined) ops.push({ kind: "delete", key, range: "single", prevKv: false });
    return;
  }
  const ignoreValue = !cell.isValueNew;
  ops.push({
    kind: "put",
    key,
    value: ignoreValue ? NO_BYTES : value,
    lease: NO_LEASE,
    prevKv: false,
    ignoreValue,
    ignoreLease: ttl === "found" && found !== undefined && found.lease !== NO_LEASE,
    ...(typeof ttl === "number" ? { ttlMs: ttl } : {}),
  });
}
