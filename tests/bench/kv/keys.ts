/** The data that the kv benchmarks use. */
/** Keys in the store. */
export const KEYS = 1_000_000;
/** Every value: 100 bytes. */
export const VALUE: Uint8Array = new Uint8Array(100).fill(120);

const encoder = new TextEncoder();

/** Key number `i` of KEYS, 16 bytes; neighbours in number are far apart in key order. */
export function keyOf(i: number): Uint8Array {
  return encoder.encode("user/" + String((i * 7_919) % KEYS).padStart(11, "0"));
}
