/** Frames made and read by hand, for tests of the protocol. */
import { readU31, readU32 } from "./frames.ts";

/** A frame's bytes. */
export function frame(type: number, id = 0, payload: ArrayLike<number> = [], flags = 0): Uint8Array {
  const { length } = payload;
  const bytes = new Uint8Array(9 + length);
  bytes.set([length >> 16, length >> 8, length, type, flags, ...u32(id)]);
  bytes.set(payload, 9);
  return bytes;
}

/** Parts in one piece. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Four bytes. */
export const u32 = (value: number): number[] =>
  [value >>> 24, value >>> 16, value >>> 8, value].map((byte) => byte & 0xff);

/** One setting of a SETTINGS frame. */
export const setting = (id: number, value: number): number[] => [0, id, ...u32(value)];

/** A frame taken apart. */
export interface Sent {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Uint8Array;
}

/** The frames that whole bytes are made of. */
export function framesOf(bytes: Uint8Array): Sent[] {
  const frames: Sent[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = readU32(bytes, at) >>> 8;
    const payload = bytes.slice(at + 9, at + 9 + length);
    frames.push({ type: bytes[at + 3]!, flags: bytes[at + 4]!, id: readU31(bytes, at + 5), payload });
    at += 9 + length;
  }
  return frames;
}

/** Everything that a connection has to say now. */
export function drain(connection: { poll(): Uint8Array | undefined }): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let part = connection.poll(); part !== undefined; part = connection.poll()) parts.push(part);
  return concat(...parts);
}

/** Frames in short: type, flags, stream, bytes of payload. */
export const brief = (frames: readonly Sent[]): number[][] =>
  frames.map(({ type, flags, id, payload }) => [type, flags, id, payload.length]);
