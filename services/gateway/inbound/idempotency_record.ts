/** What is kept of a request with an Idempotency-Key, as bytes. Pure.
 *
 *  ```
 *  state  fingerprint   nonce   tag   answer, encrypted
 *  1      32            12      16    head length (4), head (JSON: status, headers), body
 *  ```
 *
 *  Who reads the store learns nothing: the fingerprint is keyed and the answer encrypted, both by keys made of the client's
 *  own key. An answer may hold a token, a body a password. */
import { createCipheriv, createDecipheriv, createHash, createHmac } from "node:crypto";
import { joinBytes } from "../../runtime/bytes.ts";
import { SYSTEM_KEYS } from "../../runtime/principal.ts";

/** Where records are: a prefix that no key of a client begins with by accident. Keys under it are for gateways alone. */
export const RECORD_PREFIX = `${SYSTEM_KEYS}idempotency/`;

/** Secrets and the place of one key of one client. */
export interface RecordKeys {
  /** Key of the record in the store. */
  readonly place: Uint8Array<ArrayBuffer>;
  readonly secret: Uint8Array;
}

/** An answer, whole. */
export interface KeptAnswer {
  readonly status: number;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: Uint8Array<ArrayBuffer>;
}

/** A record. `unkept`: the request was answered, and the answer cannot be repeated. */
export type IdempotencyRecord =
  | { readonly state: "running" | "unkept"; readonly fingerprint: Uint8Array }
  | { readonly state: "answered"; readonly fingerprint: Uint8Array; readonly answer: KeptAnswer };

const STATES = ["running", "unkept", "answered"] as const;
const FINGERPRINT_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const SEALED_AT = 1 + FINGERPRINT_BYTES;
const CIPHER = "aes-256-gcm";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Keys of what a client calls `key`. `scope` names the client and the route. */
export function recordKeys(scope: readonly string[], key: string): RecordKeys {
  const name = JSON.stringify([...scope, key]);
  const place = createHash("sha256").update(`place ${name}`).digest("hex");
  const secret = createHash("sha256").update(`secret ${name}`).digest();
  return { place: encoder.encode(RECORD_PREFIX + place), secret };
}

/** Tells one request from another: SHA-256, keyed, of method, path, query and body. */
export function fingerprintOf(
  keys: RecordKeys,
  request: { readonly method: string; readonly path: string; readonly query: string },
  body: Uint8Array,
): Uint8Array {
  return createHmac("sha256", keys.secret)
    .update(JSON.stringify([request.method, request.path, request.query])).update(body).digest();
}

/** Writes a record. */
export function encodeRecord(keys: RecordKeys, record: IdempotencyRecord): Uint8Array<ArrayBuffer> {
  const head = [Uint8Array.of(STATES.indexOf(record.state)), record.fingerprint];
  if (record.state !== "answered") return joinBytes(head);
  const { status, headers, body } = record.answer;
  const answerHead = encoder.encode(JSON.stringify({ status, headers }));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, answerHead.length);
  const plain = joinBytes([length, answerHead, body]);
  // Made of the content: one content has one nonce, and two contents under one key have two.
  const nonce = createHmac("sha256", keys.secret).update("nonce").update(plain).digest().subarray(
    0,
    NONCE_BYTES,
  );
  const cipher = createCipheriv(CIPHER, keys.secret, nonce);
  const sealed = [cipher.update(plain), cipher.final()];
  return joinBytes([...head, nonce, cipher.getAuthTag(), ...sealed]);
}

/** Reads a record. @throws {Error} for bytes that nobody with these keys has written. */
export function decodeRecord(keys: RecordKeys, bytes: Uint8Array): IdempotencyRecord {
  const state = STATES[bytes[0] ?? STATES.length];
  if (state === undefined || bytes.length < SEALED_AT) throw new Error("the record is damaged");
  const fingerprint = bytes.slice(1, SEALED_AT);
  if (state !== "answered") return { state, fingerprint };
  const tagAt = SEALED_AT + NONCE_BYTES;
  const decipher = createDecipheriv(CIPHER, keys.secret, bytes.subarray(SEALED_AT, tagAt));
  decipher.setAuthTag(bytes.subarray(tagAt, tagAt + TAG_BYTES));
  const plain = joinBytes([decipher.update(bytes.subarray(tagAt + TAG_BYTES)), decipher.final()]);
  const bodyAt = 4 + new DataView(plain.buffer).getUint32(0);
  const head = JSON.parse(decoder.decode(plain.subarray(4, bodyAt))) as Omit<KeptAnswer, "body">;
  return { state, fingerprint, answer: { ...head, body: plain.slice(bodyAt) } };
}
