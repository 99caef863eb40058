/** Keys and ranges of keys, as bytes. Order is byte order; a shorter key sorts before a longer one it begins. */

/** Compares as memcmp does: negative, 0 or positive. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** The keys `start <= key < end`; `end` undefined is "no end". */
export interface KeyRange {
  readonly start: Uint8Array;
  readonly end: Uint8Array | undefined;
}

/** What a request's `key` and `range_end` mean: one key, a range, or (`range_end` = "\0") every key from `key` on. */
export function rangeOf(key: Uint8Array, rangeEnd: Uint8Array): KeyRange | "single" {
  if (rangeEnd.length === 0) return "single";
  return { start: key, end: rangeEnd.length === 1 && rangeEnd[0] === 0 ? undefined : rangeEnd };
}

/** The keys that begin with `prefix`; every key for an empty prefix. */
export function prefixRange(prefix: Uint8Array): KeyRange {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length--;
  if (length === 0) return { start: prefix, end: undefined };
  const end = prefix.slice(0, length);
  end[length - 1]! += 1;
  return { start: prefix, end };
}

/** Bytes that one `apply` call may spread on the stack. */
const APPLY_BYTES_MAX = 4_096;

/** Bytes as a string of the same length with one char per byte, for Map keys; string order is then byte order. */
export function toBinaryString(bytes: Uint8Array): string {
  if (bytes.length <= APPLY_BYTES_MAX) return String.fromCharCode.apply(null, bytes as unknown as number[]);
  let text = "";
  for (let at = 0; at < bytes.length; at += APPLY_BYTES_MAX) {
    text += String.fromCharCode.apply(
      null,
      bytes.subarray(at, at + APPLY_BYTES_MAX) as unknown as number[],
    );
  }
  return text;
}

/** The smallest key after `key`. */
export function successorOf(key: Uint8Array): Uint8Array {
  const next = new Uint8Array(key.length + 1);
  next.set(key);
  return next;
}

/** The bytes of a binary string. */
export function fromBinaryString(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** A key for messages to people: as text when it is printable, else as hex; long ones are cut. */
export function keyForMessage(key: Uint8Array): string {
  const shown = key.subarray(0, 64);
  const text = toBinaryString(shown);
  const cut = key.length > shown.length ? "…" : "";
  if (/^[\x20-\x7e]*$/.test(text)) return JSON.stringify(text) + cut;
  return "0x" + Array.from(shown, (byte) => byte.toString(16).padStart(2, "0")).join("") + cut;
}
