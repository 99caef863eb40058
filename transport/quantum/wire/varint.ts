/** QUIC's variable-length integers (RFC 9000 §16), up to 2^53 - 1. SPEC §4.1. */

const TWO_32 = 2 ** 32;

/** Bytes that `value` (0..2^53-1) takes: 1, 2, 4 or 8. */
export function varintBytes(value: number): number {
  return value < 0x40 ? 1 : value < 0x4000 ? 2 : value < 0x4000_0000 ? 4 : 8;
}

/** Writes `value` (0..2^53-1) at `at`; returns the offset behind it. The caller has made sure of the room. */
export function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  if (value < 0x40) {
    bytes[at] = value;
    return at + 1;
  }
  if (value < 0x4000) {
    bytes[at] = 0x40 | value >>> 8;
    bytes[at + 1] = value;
    return at + 2;
  }
  if (value < 0x4000_0000) {
    bytes[at] = 0x80 | value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
    return at + 4;
  }
  const high = Math.floor(value / TWO_32);
  bytes[at] = 0xc0 | high >>> 24;
  bytes[at + 1] = high >>> 16;
  bytes[at + 2] = high >>> 8;
  bytes[at + 3] = high;
  bytes[at + 4] = value / 0x100_0000;
  bytes[at + 5] = value / 0x1_0000;
  bytes[at + 6] = value / 0x100;
  bytes[at + 7] = value;
  return at + 8;
}

/** Reads varints one after another from a buffer, without allocating. Reading past the end, or a value above 2^53-1,
 *  sets `failed` and gives 0; nothing throws. */
export class VarintReader {
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  failed = false;

  /** Starts over on `bytes[at..end)`. */
  reset(bytes: Uint8Array, at: number, end: number): void {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
    this.failed = false;
  }

  /** The next varint. */
  varint(): number {
    const bytes = this.bytes;
    const at = this.at;
    if (at >= this.end) return this.#fail();
    const first = bytes[at]!;
    if (first < 0x40) {
      this.at = at + 1;
      return first;
    }
    const length = 1 << (first >>> 6);
    if (at + length > this.end) return this.#fail();
    this.at = at + length;
    if (length === 2) return (first & 0x3f) << 8 | bytes[at + 1]!;
    const low30 = (first & 0x3f) << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!;
    if (length === 4) return low30;
    if (low30 >= 0x20_0000) return this.#fail();
    const low = (bytes[at + 4]! << 24 | bytes[at + 5]! << 16 | bytes[at + 6]! << 8 | bytes[at + 7]!) >>> 0;
    return low30 * TWO_32 + low;
  }

  /** Skips `count` bytes and returns the offset at which they begin. */
  skip(count: number): number {
    const at = this.at;
    if (count > this.end - at) {
      this.#fail();
      return at;
    }
    this.at = at + count;
    return at;
  }

  #fail(): number {
    this.failed = true;
    this.at = this.end;
    return 0;
  }
}
