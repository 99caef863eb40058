import type { Clock } from "./clock.ts";
import type { Random } from "./random.ts";

/** Length of an identifier on the wire. */
export const GUUID_BYTES = 16;

/** Length of an identifier as text. */
export const GUUID_TEXT_LENGTH = 26;

/** Makes identifiers: 128-bit UUIDv7 (RFC 9562 §5.7), each greater than the one before it.
 *
 *  ```
 *  byte 0..5            6         7      8            9..15
 *  48-bit Unix ms   0111|rand_a 12 bits  10|rand_b 62 bits
 *  ```
 *  rand_a and rand_b together are one 74-bit number: drawn anew in every millisecond, and within one raised by a random
 *  step of 1..2^32 (RFC 9562 §6.2, method 2), so that ids sort in the order they were made and cannot be guessed from
 *  their neighbour. When the clock steps back, the source stays on its own, later millisecond. */
export interface GuuidSource {
  /** The next identifier; the array is the caller's. Like all arrays of this file it is a view of a buffer that 256 ids
   *  share: copy one that is kept for long, or its 4 KiB stay too. */
  next(): Uint8Array;
}

/** Random bytes fetched at once: one call of the operating system serves 256 or more identifiers. */
const POOL_BYTES = 4_096;

/** Creates a source. Two sources with the same clock and random bytes give the same identifiers. */
export function createGuuidSource(deps: { clock: Pick<Clock, "wallMs">; random: Random }): GuuidSource {
  const pool = new Uint32Array(POOL_BYTES / 4);
  let poolAt = pool.length;
  const word = (): number => {
    if (poolAt === pool.length) {
      deps.random.fill(new Uint8Array(pool.buffer));
      poolAt = 0;
    }
    return pool[poolAt++]!;
  };

  let ms = -1;
  // The same as two integers, which byte shifts are fast on: 16 and 32 bits.
  let msHigh = 0, msLow = 0;
  // The 74-bit tail, from its most significant bits down: 12, 30 and 32 bits.
  let high = 0, middle = 0, low = 0;

  const draw = () => {
    // The top bit starts at 0: half of the space is left for the steps of this millisecond.
    high = word() & 0x7ff;
    middle = word() >>> 2;
    low = word();
  };
  const step = () => {
    low += word() + 1;
    if (low < 2 ** 32) return;
    low -= 2 ** 32;
    if (++middle < 2 ** 30) return;
    middle = 0;
    // Cannot overflow: half of the tail's 74 bits are 2^41 steps, more ids than are made before a clock that was set back
    // catches up.
    high += 1;
  };

  return {
    next() {
      const wall = deps.clock.wallMs();
      if (wall > ms) {
        ms = wall;
        msHigh = Math.floor(ms / 2 ** 32);
        msLow = ms | 0;
        draw();
      } else {
        step();
      }
      const bytes = allocate();
      bytes[0] = msHigh >>> 8;
      bytes[1] = msHigh;
      bytes[2] = msLow >>> 24;
      bytes[3] = msLow >>> 16;
      bytes[4] = msLow >>> 8;
      bytes[5] = msLow;
      bytes[6] = 0x70 | (high >>> 8);
      bytes[7] = high;
      bytes[8] = 0x80 | (middle >>> 24);
      bytes[9] = middle >>> 16;
      bytes[10] = middle >>> 8;
      bytes[11] = middle;
      bytes[12] = low >>> 24;
      bytes[13] = low >>> 16;
      bytes[14] = low >>> 8;
      bytes[15] = low;
      return bytes;
    },
  };
}

const SLAB_BYTES = 256 * GUUID_BYTES;
let slab = new ArrayBuffer(SLAB_BYTES);
let slabAt = 0;

/** An array of 16 zero bytes: a view of a slab, because a buffer of its own costs five times as much as the whole id. */
function allocate(): Uint8Array {
  if (slabAt === SLAB_BYTES) {
    slab = new ArrayBuffer(SLAB_BYTES);
    slabAt = 0;
  }
  const bytes = new Uint8Array(slab, slabAt, GUUID_BYTES);
  slabAt += GUUID_BYTES;
  return bytes;
}

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/** Two digits for every 10 bits. */
const DIGIT_PAIRS = Array.from({ length: 1024 }, (_, bits) => CROCKFORD[bits >> 5]! + CROCKFORD[bits & 31]!);
/** Value of each ASCII digit of base 32, 255 for what is none. Small letters count as capitals. */
const DIGIT_VALUES = new Uint8Array(128).fill(255);
for (let value = 0; value < 32; value++) {
  DIGIT_VALUES[CROCKFORD.charCodeAt(value)] = value;
  DIGIT_VALUES[CROCKFORD.toLowerCase().charCodeAt(value)] = value;
}

/** The identifier as text: 26 digits of Crockford's base 32, which is a ULID and sorts as the bytes do.
 *  @throws {RangeError} if `guuid` is not 16 bytes. */
export function formatGuuid(guuid: Uint8Array): string {
  if (guuid.length !== GUUID_BYTES) {
    throw new RangeError(`Cannot format: an identifier has 16 bytes, got ${guuid.length}`);
  }
  const view = new DataView(guuid.buffer, guuid.byteOffset, GUUID_BYTES);
  const a = view.getUint32(0), b = view.getUint32(4), c = view.getUint32(8), d = view.getUint32(12);
  // 130 bits: two zero bits, then 13 groups of 10.
  return DIGIT_PAIRS[a >>> 24]! +
    DIGIT_PAIRS[(a >>> 14) & 1023]! +
    DIGIT_PAIRS[(a >>> 4) & 1023]! +
    DIGIT_PAIRS[((a & 15) << 6) | (b >>> 26)]! +
    DIGIT_PAIRS[(b >>> 16) & 1023]! +
    DIGIT_PAIRS[(b >>> 6) & 1023]! +
    DIGIT_PAIRS[((b & 63) << 4) | (c >>> 28)]! +
    DIGIT_PAIRS[(c >>> 18) & 1023]! +
    DIGIT_PAIRS[(c >>> 8) & 1023]! +
    DIGIT_PAIRS[((c & 255) << 2) | (d >>> 30)]! +
    DIGIT_PAIRS[(d >>> 20) & 1023]! +
    DIGIT_PAIRS[(d >>> 10) & 1023]! +
    DIGIT_PAIRS[d & 1023]!;
}

/** Reads an identifier from its 26-digit text or from UUID text (`xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`), in capital or
 *  small letters; undefined if `text` is neither. Any 128-bit value is taken, so a ULID made elsewhere is one too. */
export function parseGuuid(text: string): Uint8Array | undefined {
  if (text.length === GUUID_TEXT_LENGTH) return parseUlid(text);
  if (text.length === 36) return parseUuid(text);
  return undefined;
}

function parseUlid(text: string): Uint8Array | undefined {
  const bytes = allocate();
  // The first two digits carry 3 + 5 bits; after them, every 8 digits are 40 bits, five bytes.
  const first = digit(text, 0), second = digit(text, 1);
  let invalid = (first | second) & 0x80;
  if (first > 7) return undefined;
  bytes[0] = (first << 5) | second;
  for (let at = 2, to = 1; at < GUUID_TEXT_LENGTH; at += 8, to += 5) {
    const a = digit(text, at), b = digit(text, at + 1), c = digit(text, at + 2), d = digit(text, at + 3);
    const e = digit(text, at + 4), f = digit(text, at + 5), g = digit(text, at + 6), h = digit(text, at + 7);
    invalid |= (a | b | c | d | e | f | g | h) & 0x80;
    bytes[to] = (a << 3) | (b >> 2);
    bytes[to + 1] = (b << 6) | (c << 1) | (d >> 4);
    bytes[to + 2] = (d << 4) | (e >> 1);
    bytes[to + 3] = (e << 7) | (f << 2) | (g >> 3);
    bytes[to + 4] = (g << 5) | h;
  }
  return invalid === 0 ? bytes : undefined;
}

/** Value of one digit; 255, the only one with bit 7 set, for what is none. */
function digit(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code < 128 ? DIGIT_VALUES[code]! : 255;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

function parseUuid(text: string): Uint8Array | undefined {
  if (!UUID.test(text)) return undefined;
  const hex = text.replaceAll("-", "");
  const bytes = allocate();
  for (let i = 0; i < GUUID_BYTES; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}
