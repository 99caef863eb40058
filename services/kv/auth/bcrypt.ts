/** bcrypt as etcd stores passwords, so that users move between the two: "$2a$", and "$2b$" and "$2y$", which are the same.
 *
 *  It is slow on purpose and runs on this thread, so it is a generator: it yields every millisecond or so. The constants of
 *  Blowfish are the digits of pi; they are worked out when first needed. */

/** A step of the work; the last one gives the result. */
export type Bcrypt = Generator<undefined, string, void>;

/** Cost of new hashes, as a power of two: etcd's. */
export const BCRYPT_COST = 10;
/** Highest cost that is verified: 16 times etcd's default, a second or two of work. */
const COST_MAX = 14;
/** Bytes of a password that count, the ending zero included. */
const PASSWORD_BYTES_MAX = 72;
const SALT_BYTES = 16;
const HASH_BYTES = 23;
/** Rounds between yields. */
const ROUNDS_A_STEP = 8;
const ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const FORM = /^\$2[aby]\$(\d\d)\$([./A-Za-z0-9]{22})([./A-Za-z0-9]{31})$/;
/** "OrpheanBeholderScryDoubt" */
const TEXT = [0x4f727068, 0x65616e42, 0x65686f6c, 0x64657253, 0x63727944, 0x6f756274];

/** Whether `hash` has bcrypt's form and a cost that is verified. */
export function isBcrypt(hash: string): boolean {
  const cost = FORM.exec(hash)?.[1];
  return cost !== undefined && Number(cost) >= 4 && Number(cost) <= COST_MAX;
}

/** Hashes a password with a salt of 16 bytes. */
export function bcrypt(password: Uint8Array, salt: Uint8Array, cost: number): Bcrypt {
  return compute(password, salt, cost, `$2a$${String(cost).padStart(2, "0")}$`);
}

/** Hashes a password the way `hash` was made: the result is equal to `hash` when the password is the same.
 *  @throws {RangeError} if `isBcrypt(hash)` is false. */
export function bcryptLike(password: Uint8Array, hash: string): Bcrypt {
  const match = FORM.exec(hash);
  if (match === null || !isBcrypt(hash)) throw new RangeError("Cannot verify: not a bcrypt hash");
  return compute(password, decode(match[2]!, SALT_BYTES), Number(match[1]), hash.slice(0, 7));
}

function* compute(password: Uint8Array, salt: Uint8Array, cost: number, head: string): Bcrypt {
  const key = new Uint8Array(Math.min(password.length + 1, PASSWORD_BYTES_MAX));
  key.set(password.subarray(0, key.length));
  const cipher = new Blowfish();
  cipher.expand(key, salt);
  for (let round = 0; round < 2 ** cost; round++) {
    if (round % ROUNDS_A_STEP === 0) yield;
    cipher.expand(key, undefined);
    cipher.expand(salt, undefined);
  }
  const words = Uint32Array.from(TEXT);
  for (let round = 0; round < 64; round++) {
    for (let at = 0; at < words.length; at += 2) cipher.encrypt(words, at);
  }
  const out = new Uint8Array(words.length * 4);
  const view = new DataView(out.buffer);
  words.forEach((word, index) => view.setUint32(index * 4, word));
  return head + encode(salt) + encode(out.subarray(0, HASH_BYTES));
}

/** The cipher with bcrypt's way of mixing in keys. */
class Blowfish {
  readonly #p: Uint32Array;
  readonly #s: Uint32Array;
  readonly #block = new Uint32Array(2);

  constructor() {
    const digits = piWords();
    this.#p = digits.slice(0, 18);
    this.#s = digits.slice(18);
  }

  /** Mixes in a key and, when given, a salt. */
  expand(key: Uint8Array, salt: Uint8Array | undefined): void {
    for (let i = 0; i < 18; i++) this.#p[i]! ^= wordOf(key, i);
    const block = this.#block;
    block.fill(0);
    let salted = 0;
    for (const target of [this.#p, this.#s]) {
      for (let i = 0; i < target.length; i += 2) {
        if (salt !== undefined) {
          block[0]! ^= wordOf(salt, salted++);
          block[1]! ^= wordOf(salt, salted++);
        }
        this.encrypt(block, 0);
        target[i] = block[0]!;
        target[i + 1] = block[1]!;
      }
    }
  }

  /** Encrypts the two words at `at` in place. */
  encrypt(words: Uint32Array, at: number): void {
    const p = this.#p;
    const s = this.#s;
    let left = words[at]! ^ p[0]!;
    let right = words[at + 1]!;
    for (let i = 1; i < 17; i += 2) {
      right ^= ((((s[left >>> 24]! + s[256 + ((left >>> 16) & 255)]!) | 0) ^ s[512 + ((left >>> 8) & 255)]!) +
        s[768 + (left & 255)]!) ^ p[i]!;
      left ^=
        ((((s[right >>> 24]! + s[256 + ((right >>> 16) & 255)]!) | 0) ^ s[512 + ((right >>> 8) & 255)]!) +
          s[768 + (right & 255)]!) ^ p[i + 1]!;
    }
    words[at] = right ^ p[17]!;
    words[at + 1] = left;
  }
}

/** Word `index` of the bytes repeated without end. */
function wordOf(bytes: Uint8Array, index: number): number {
  let word = 0;
  for (let i = 0; i < 4; i++) word = (word << 8) | bytes[(index * 4 + i) % bytes.length]!;
  return word;
}

const PI_WORDS = 18 + 4 * 256;
let piDigits: Uint32Array | undefined;

/** The first words of pi after the point, in base 2^32. */
function piWords(): Uint32Array {
  if (piDigits !== undefined) return piDigits;
  const guardBits = 64n;
  const one = 1n << (BigInt(PI_WORDS) * 32n + guardBits);
  // Machin: pi = 16 arctan(1/5) - 4 arctan(1/239).
  let fraction = ((16n * arctanOfInverse(5n, one) - 4n * arctanOfInverse(239n, one)) - 3n * one) >> guardBits;
  const words = new Uint32Array(PI_WORDS);
  for (let i = PI_WORDS - 1; i >= 0; i--) {
    words[i] = Number(fraction & 0xffff_ffffn);
    fraction >>= 32n;
  }
  return piDigits = words;
}

function arctanOfInverse(x: bigint, one: bigint): bigint {
  let power = one / x;
  let sum = power;
  for (let n = 3n, sign = -1n; power !== 0n; n += 2n, sign = -sign) {
    power /= x * x;
    sum += sign * (power / n);
  }
  return sum;
}

function encode(bytes: Uint8Array): string {
  let text = "";
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte;
    for (bits += 8; bits >= 6; bits -= 6) text += ALPHABET[(buffer >>> (bits - 6)) & 63];
  }
  return bits > 0 ? text + ALPHABET[(buffer << (6 - bits)) & 63] : text;
}

function decode(text: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let buffer = 0;
  let bits = 0;
  let at = 0;
  for (const character of text) {
    buffer = (buffer << 6) | ALPHABET.indexOf(character);
    bits += 6;
    if (bits < 8 || at === length) continue;
    bits -= 8;
    bytes[at++] = (buffer >>> bits) & 255;
  }
  return bytes;
}
