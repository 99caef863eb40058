/** Arguments of commands, read with Redis's rules and refused with Redis's texts. */
import { Buffer } from "node:buffer";
import { Failure } from "./reply.ts";

/** Ends a command with an error reply. What it wrote before is the thrower's to avoid. */
export class Refusal extends Error {
  override readonly name = "Refusal";

  /** `text` begins with the error's code. */
  constructor(text: string) {
    super(text);
  }

  get failure(): Failure {
    return new Failure(this.message.replace(/[\r\n]+$/, "").replace(/[\r\n]/g, " "));
  }
}

/** What Redis says of a text that is no 64-bit integer. */
export const NOT_AN_INTEGER = "ERR value is not an integer or out of range";
/** What Redis says of options that make no sense. */
export const SYNTAX_ERROR = "ERR syntax error";
/** Largest integer. */
export const INT64_MAX = 0x7fff_ffff_ffff_ffffn;
/** Smallest integer. */
export const INT64_MIN = -0x8000_0000_0000_0000n;

/** A view of the bytes as Latin-1 text, one char a byte. */
export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** A copy. (`slice` of a Buffer is none.) */
export function copyBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}

/** The bytes as text in upper case, for names and options. */
export function upper(bytes: Uint8Array): string {
  return latin1(bytes).toUpperCase();
}

/** A 64-bit integer written the one way Redis takes: no spaces, no `+`, no leading zeros; undefined if it is none. */
export function integerOf(bytes: Uint8Array): bigint | undefined {
  if (bytes.length === 0 || bytes.length > 20) return undefined;
  const text = latin1(bytes);
  if (!/^(?:0|-?[1-9][0-9]*)$/.test(text)) return undefined;
  const value = BigInt(text);
  return value > INT64_MAX || value < INT64_MIN ? undefined : value;
}

/** @throws {Refusal} when it is no 64-bit integer. */
export function needInteger(bytes: Uint8Array, text = NOT_AN_INTEGER): bigint {
  const value = integerOf(bytes);
  if (value === undefined) throw new Refusal(text);
  return value;
}

/** A floating-point number of 64 bits of precision, in which Redis calculates: `mantissa` × 2^`exponent`. */
export interface Extended {
  readonly mantissa: bigint;
  readonly exponent: number;
}

const PRECISION = 64;
/** Largest decimal exponent that is looked at; what is beyond is out of Redis's range anyway. */
const EXPONENT_MAX = 6_000;
/** Numbers from 2^16384 on are infinite. */
const BINARY_EXPONENT_MAX = 16_384;
const BINARY_EXPONENT_MIN = -16_445;
/** Longest text of a number. Redis's figure. */
const NUMBER_CHARS_MAX = 255;
/** Digits after the point that Redis prints. */
const FRACTION_DIGITS = 17;

/** A floating-point number as Redis reads it; "infinite", or undefined if it is none or out of range. */
export function extendedOf(bytes: Uint8Array): Extended | "infinite" | undefined {
  if (bytes.length === 0 || bytes.length > NUMBER_CHARS_MAX) return undefined;
  const text = latin1(bytes);
  if (/^[+-]?inf(?:inity)?$/i.test(text)) return "infinite";
  const parts = /^([+-]?)([0-9]*)(?:\.([0-9]*))?(?:e([+-]?[0-9]+))?$/i.exec(text);
  if (parts === null) return undefined;
  const [, sign, whole = "", fraction = "", exponentText = "0"] = parts;
  if (whole.length + fraction.length === 0) return undefined;
  const magnitude = BigInt(whole + fraction);
  if (magnitude === 0n) return { mantissa: 0n, exponent: 0 };
  const exponent = Number(exponentText) - fraction.length;
  if (Math.abs(exponent) > EXPONENT_MAX) return undefined;
  const power = 10n ** BigInt(Math.abs(exponent));
  const value = exponent < 0 ? rounded(magnitude, power, 0) : rounded(magnitude * power, 1n, 0);
  const top = bitLength(value.mantissa) + value.exponent;
  if (top > BINARY_EXPONENT_MAX || top < BINARY_EXPONENT_MIN) return undefined;
  return sign === "-" ? { mantissa: -value.mantissa, exponent: value.exponent } : value;
}

/** The sum; "infinite" beyond the range. */
export function addExtended(a: Extended, b: Extended): Extended | "infinite" {
  const exponent = Math.min(a.exponent, b.exponent);
  const sum = (a.mantissa << BigInt(a.exponent - exponent)) + (b.mantissa << BigInt(b.exponent - exponent));
  const value = rounded(sum < 0n ? -sum : sum, 1n, exponent);
  if (bitLength(value.mantissa) + value.exponent > BINARY_EXPONENT_MAX) return "infinite";
  return sum < 0n ? { mantissa: -value.mantissa, exponent: value.exponent } : value;
}

/** The number as Redis prints it: 17 digits after the point, without zeros at the end. */
export function extendedText({ mantissa, exponent }: Extended): string {
  const scaled = (mantissa < 0n ? -mantissa : mantissa) * 10n ** BigInt(FRACTION_DIGITS);
  const value = exponent >= 0 ? scaled << BigInt(exponent) : divided(scaled, 1n << BigInt(-exponent));
  const text = value.toString().padStart(FRACTION_DIGITS + 1, "0");
  const fraction = text.slice(-FRACTION_DIGITS).replace(/0+$/, "");
  const whole = text.slice(0, -FRACTION_DIGITS);
  const sign = mantissa < 0n && value !== 0n ? "-" : "";
  return sign + (fraction === "" ? whole : `${whole}.${fraction}`);
}

/** numerator / denominator × 2^exponent, rounded to the precision. */
function rounded(numerator: bigint, denominator: bigint, exponent: number): Extended {
  if (numerator === 0n) return { mantissa: 0n, exponent: 0 };
  let shift = PRECISION - (bitLength(numerator) - bitLength(denominator));
  const scaled = () => shift >= 0 ? numerator << BigInt(shift) : numerator;
  const divisor = () => shift >= 0 ? denominator : denominator << BigInt(-shift);
  // The quotient has 64 or 65 bits; with 65 one is given up before it is rounded.
  if (bitLength(scaled() / divisor()) > PRECISION) shift--;
  return { mantissa: divided(scaled(), divisor()), exponent: exponent - shift };
}

/** The quotient, rounded to the nearest, to the even one of two. */
function divided(numerator: bigint, denominator: bigint): bigint {
  const quotient = numerator / denominator;
  const twice = (numerator % denominator) * 2n;
  const isUp = twice > denominator || (twice === denominator && quotient % 2n === 1n);
  return isUp ? quotient + 1n : quotient;
}

function bitLength(value: bigint): number {
  const text = value.toString(16);
  return value === 0n ? 0 : (text.length - 1) * 4 + 32 - Math.clz32(parseInt(text[0]!, 16));
}
