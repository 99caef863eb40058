/** Finds a method by the bytes of its path, so that no text is made of what a caller sent. */

/** Paths and what they stand for. Filled when services are registered, then only read. */
export class MethodTable<T> {
  readonly #buckets = new Map<number, Entry<T>[]>();

  /** @throws {RangeError} if the path is already there. */
  add(path: string, value: T): void {
    const bytes = new TextEncoder().encode(path);
    if (this.find(bytes, 0, bytes.length) !== undefined) throw new RangeError(`${path} is already served`);
    const hash = fnv1a(bytes, 0, bytes.length);
    const bucket = this.#buckets.get(hash);
    if (bucket === undefined) this.#buckets.set(hash, [{ bytes, value }]);
    else bucket.push({ bytes, value });
  }

  /** What stands at the path `bytes[start..end)`. */
  find(bytes: Uint8Array, start: number, end: number): T | undefined {
    const bucket = this.#buckets.get(fnv1a(bytes, start, end));
    if (bucket === undefined) return undefined;
    for (const entry of bucket) if (same(entry.bytes, bytes, start, end)) return entry.value;
    return undefined;
  }
}

interface Entry<T> {
  readonly bytes: Uint8Array;
  readonly value: T;
}

function fnv1a(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  // Kept within a small integer, which is the cheap kind of Map key.
  return hash & 0x3fffffff;
}

function same(a: Uint8Array, b: Uint8Array, start: number, end: number): boolean {
  if (a.length !== end - start) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[start + i]) return false;
  return true;
}
