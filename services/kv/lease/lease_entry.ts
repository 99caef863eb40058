/** A lease as a named entry of the log.
 *
 *      name    lease/<id as 16 hex digits>
 *      value   flags (1: the lease of one key, 2: remaining time follows) · TTL · [remaining], both float64 milliseconds
 *
 *  An entry without remaining time gives the lease its whole time from when it is read or written; with it, the lease
 *  goes on with that much after a restart. */
import { RecordError } from "../record.ts";

/** What the names of leases begin with. */
export const LEASE_PREFIX = "lease/";

const FLAG_OWN = 1;
const FLAG_REMAINING = 2;
const SHORT_BYTES = 9;
const LONG_BYTES = 17;
const HEX_DIGITS = 16;

/** What is kept of a lease. */
export interface LeaseEntry {
  /** Time to live as granted, in milliseconds. */
  readonly ttlMs: number;
  /** Time it had left when this was written; undefined: all of it. */
  readonly remainingMs: number | undefined;
  /** Whether it was made for one key and ends with it. */
  readonly isOwn: boolean;
}

/** Name of a lease's entry. */
export function leaseEntryName(id: bigint): string {
  return LEASE_PREFIX + BigInt.asUintN(64, id).toString(16).padStart(HEX_DIGITS, "0");
}

/** Id in an entry's name.
 *  @throws {RecordError} if it is not one of a lease. */
export function leaseIdOf(name: string): bigint {
  const high = hexWord(name, LEASE_PREFIX.length);
  const low = hexWord(name, LEASE_PREFIX.length + HEX_DIGITS / 2);
  if (name.length !== LEASE_PREFIX.length + HEX_DIGITS || high < 0 || low < 0) {
    throw new RecordError(`an entry has the name ${name}`);
  }
  return BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low));
}

/** Eight digits as a number; -1 if they are none. A restart reads a million of them. */
function hexWord(text: string, from: number): number {
  let word = 0;
  for (let i = from; i < from + HEX_DIGITS / 2; i++) {
    const code = text.charCodeAt(i);
    const digit = code >= 48 && code <= 57 ? code - 48 : code >= 97 && code <= 102 ? code - 87 : -1;
    if (digit < 0) return -1;
    word = word * 16 + digit;
  }
  return word;
}

/** The entry's value. */
export function encodeLeaseEntry({ ttlMs, remainingMs, isOwn }: LeaseEntry): Uint8Array {
  const value = new Uint8Array(remainingMs === undefined ? SHORT_BYTES : LONG_BYTES);
  const view = new DataView(value.buffer);
  value[0] = (isOwn ? FLAG_OWN : 0) | (remainingMs === undefined ? 0 : FLAG_REMAINING);
  view.setFloat64(1, ttlMs);
  if (remainingMs !== undefined) view.setFloat64(SHORT_BYTES, remainingMs);
  return value;
}

/** Reads an entry's value.
 *  @throws {RecordError} if this version did not write it. */
export function decodeLeaseEntry(value: Uint8Array): LeaseEntry {
  const flags = value[0] ?? -1;
  const hasRemaining = (flags & FLAG_REMAINING) !== 0;
  if (
    flags < 0 || flags > (FLAG_OWN | FLAG_REMAINING) ||
    value.length !== (hasRemaining ? LONG_BYTES : SHORT_BYTES)
  ) {
    throw new RecordError("a lease's entry is not one that this program can read");
  }
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  return {
    ttlMs: view.getFloat64(1),
    remainingMs: hasRemaining ? view.getFloat64(SHORT_BYTES) : undefined,
    isOwn: (flags & FLAG_OWN) !== 0,
  };
}
