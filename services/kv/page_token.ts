/** Page tokens of lists: the revision that all pages are read at and the last key that was returned.
 *
 *  Text is base64url of: version (1 byte) · revision (8 bytes, big-endian) · key. */
import { KvError } from "./errors.ts";
import { toBinaryString } from "./key.ts";

const VERSION = 1;
const HEAD_BYTES = 9;

/** Where a list goes on. */
export interface PageToken {
  readonly revision: number;
  readonly after: Uint8Array;
}

/** The text of a token; decodePageToken reads it. */
export function encodePageToken(token: PageToken): string {
  const bytes = new Uint8Array(HEAD_BYTES + token.after.length);
  bytes[0] = VERSION;
  new DataView(bytes.buffer).setBigUint64(1, BigInt(token.revision));
  bytes.set(token.after, HEAD_BYTES);
  return btoa(toBinaryString(bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Reads the token of a list of keys that begin with `prefix`.
 *  @throws {KvError} `badPageToken`. */
export function decodePageToken(text: string, prefix: Uint8Array): PageToken {
  let binary: string;
  try {
    binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  } catch (error) {
    throw new KvError("badPageToken", undefined, { cause: error });
  }
  const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
  if (bytes.length < HEAD_BYTES || bytes[0] !== VERSION) throw new KvError("badPageToken");
  const revision = Number(new DataView(bytes.buffer).getBigUint64(1));
  const after = bytes.subarray(HEAD_BYTES);
  const isOfList = after.length >= prefix.length && prefix.every((byte, i) => after[i] === byte);
  if (!isOfList || !Number.isSafeInteger(revision) || revision < 1) throw new KvError("badPageToken");
  return { revision, after };
}
