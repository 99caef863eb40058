/** Hashes of keys: 32 bits, the same in every gateway and every version, since they decide where a key's calls go. */

const encoder = new TextEncoder();

/** Hash of bytes: FNV-1a, and MurmurHash3's finish, without which similar names would lie side by side on the ring. */
export function hashBytes(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Hash of a text's UTF-8 octets. */
export function hashText(text: string): number {
  return hashBytes(encoder.encode(text));
}
