/** Frames, RFC 9113 §4 and §6: their numbers, and how they are written. */

/** The first bytes of every client (RFC 9113 §3.4): `PRI * HTTP/2.0`, an empty line, `SM`, another. */
export const PREFACE: Uint8Array = Uint8Array.from(
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  (character) => character.charCodeAt(0),
);

/** Bytes before every frame's payload: length (3), type, flags, stream (4). */
export const FRAME_HEADER_BYTES = 9;

/** Types of frames. */
export const TYPE = {
  DATA: 0x0,
  HEADERS: 0x1,
  PRIORITY: 0x2,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PUSH_PROMISE: 0x5,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
  CONTINUATION: 0x9,
} as const;

/** Flags. ACK is that of SETTINGS and PING. */
export const FLAG = { ACK: 0x1, END_STREAM: 0x1, END_HEADERS: 0x4, PADDED: 0x8, PRIORITY: 0x20 } as const;

/** Settings. */
export const SETTING = {
  HEADER_TABLE_SIZE: 0x1,
  ENABLE_PUSH: 0x2,
  MAX_CONCURRENT_STREAMS: 0x3,
  INITIAL_WINDOW_SIZE: 0x4,
  MAX_FRAME_SIZE: 0x5,
  MAX_HEADER_LIST_SIZE: 0x6,
} as const;

/** Bits of a stream id; the one above is reserved and ignored. */
const ID_MASK = 0x7fff_ffff;

/** Four bytes as a number. */
export function readU32(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 0x1000000 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!);
}

/** Four bytes without their first bit: a stream id or a window. */
export function readU31(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) & ID_MASK;
}

/** Size of a writer's buffer while little is written: every connection has one. */
const KEPT_BYTES = 2_048;

/** Gathers frames in one buffer that is used again and again. Bounded by its owner. */
export class FrameWriter {
  #bytes = new Uint8Array(KEPT_BYTES);
  /** Bytes gathered. */
  length = 0;

  /** A copy of what was gathered, which then begins anew. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.length);
    this.length = 0;
    return taken;
  }

  /** Lets go of a buffer that became large; nothing happens while it holds something. */
  shrink(): void {
    if (this.length === 0 && this.#bytes.length > 4 * KEPT_BYTES) this.#bytes = new Uint8Array(KEPT_BYTES);
  }

  /** Writes a frame's header; its payload follows. */
  begin(type: number, flags: number, streamId: number, length: number): void {
    const at = this.length;
    const end = at + FRAME_HEADER_BYTES + length;
    if (end > this.#bytes.length) this.#grow(end);
    const bytes = this.#bytes;
    bytes[at] = length >>> 16;
    bytes[at + 1] = length >>> 8;
    bytes[at + 2] = length;
    bytes[at + 3] = type;
    bytes[at + 4] = flags;
    bytes[at + 5] = streamId >>> 24;
    bytes[at + 6] = streamId >>> 16;
    bytes[at + 7] = streamId >>> 8;
    bytes[at + 8] = streamId;
    this.length = at + FRAME_HEADER_BYTES;
  }

  /** Payload bytes, for which `begin` made room. */
  bytes(part: Uint8Array): void {
    const { length } = part;
    const at = this.length;
    const bytes = this.#bytes;
    // A call costs more than a few stores.
    if (length <= 24) { for (let i = 0; i < length; i++) bytes[at + i] = part[i]!; }
    else bytes.set(part, at);
    this.length = at + length;
  }

  u8(value: number): void {
    this.#bytes[this.length++] = value;
  }

  u16(value: number): void {
    this.u8(value >>> 8);
    this.u8(value);
  }

  u32(value: number): void {
    this.u16(value >>> 16);
    this.u16(value);
  }

  #grow(least: number): void {
    const grown = new Uint8Array(Math.max(least, 2 * this.#bytes.length));
    grown.set(this.#bytes.subarray(0, this.length));
    this.#bytes = grown;
  }
}
