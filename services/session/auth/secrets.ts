/** Secrets that are told once: their texts, and what is kept of them. */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** Random bytes of a secret: twice what cannot be guessed. */
export const SECRET_BYTES = 32;

/** SHA-256, as base64url: all that is stored of a secret. It has 256 random bits, so a slow hash would add nothing. */
export function digest(secret: Uint8Array | string): string {
  return createHash("sha256").update(secret).digest("base64url");
}

/** HMAC with SHA-256. */
export function hmac(key: Uint8Array, ...parts: (Uint8Array | string)[]): Uint8Array {
  const mac = createHmac("sha256", key);
  for (const part of parts) mac.update(part);
  return mac.digest();
}

/** Compares in a time that does not tell where they differ. */
export function isSame(a: Uint8Array | string, b: Uint8Array | string): boolean {
  const left = bytesOf(a);
  const right = bytesOf(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

/** Bytes as text for URLs and headers. */
export function toBase64Url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

/** Bytes of such a text; undefined if it is none, or not the one text that those bytes have. */
export function fromBase64Url(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.fromBase64(text, { alphabet: "base64url", lastChunkHandling: "loose" });
  } catch {
    // Not base64url.
    return undefined;
  }
}

const encoder = new TextEncoder();

function bytesOf(value: Uint8Array | string): Uint8Array {
  return typeof value === "string" ? encoder.encode(value) : value;
}
