/** Hashes of argon2id as text, the PHC string format:
 *
 *  ```
 *  $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>      salt and hash in base64 without padding
 *  ``` */

/** What a hash costs. */
export interface Argon2Parameters {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
}

/** A hash that was read from text. */
export interface Argon2Hash extends Argon2Parameters {
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

/** Most memory of a hash that is worked out, in KiB: the largest `password.memoryKib`. */
export const MEMORY_KIB_MAX = 1_048_576;
/** Most memory times passes of a hash that is worked out, in KiB, unless the configuration asks for more: some 20 s of a
 *  core. A stored hash is ours, but a damaged one must not stop the worker for an hour. */
export const WORK_KIB_MAX = 8 * 1_048_576;

const PASSES_MAX = 100;
const LANES_MAX = 16;
// The sizes that RFC 9106 §3.1 and the PHC format allow and that anybody uses.
const SALT_BYTES = { min: 8, max: 64 };
const HASH_BYTES = { min: 16, max: 64 };
const FORM =
  /^\$argon2id\$v=19\$m=([1-9][0-9]{0,6}),t=([1-9][0-9]{0,2}),p=([1-9][0-9]?)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/;

/** The text of a hash. */
export function formatPhc({ memoryKib, passes, lanes, salt, hash }: Argon2Hash): string {
  return `$argon2id$v=19$m=${memoryKib},t=${passes},p=${lanes}$${toBase64(salt)}$${toBase64(hash)}`;
}

/** Reads a hash; undefined if `text` is none, or one that asks for more than the bounds above. */
export function parsePhc(text: string): Argon2Hash | undefined {
  const match = FORM.exec(text);
  if (match === null) return undefined;
  const [memoryKib, passes, lanes] = [Number(match[1]), Number(match[2]), Number(match[3])];
  if (memoryKib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX) return undefined;
  if (memoryKib < 8 * lanes) return undefined;
  const salt = fromBase64(match[4]!);
  const hash = fromBase64(match[5]!);
  if (salt === undefined || salt.length < SALT_BYTES.min || salt.length > SALT_BYTES.max) return undefined;
  if (hash === undefined || hash.length < HASH_BYTES.min || hash.length > HASH_BYTES.max) return undefined;
  return { memoryKib, passes, lanes, salt, hash };
}

function toBase64(bytes: Uint8Array): string {
  return bytes.toBase64({ omitPadding: true });
}

function fromBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.fromBase64(text);
  } catch {
    // Not base64: 4n + 1 digits, or bits left over.
    return undefined;
  }
}
