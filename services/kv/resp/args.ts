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
    return new Failure(this.message);
  }
}

export const NOT_AN_INTEGER = "ERR value is not an integer or out of range";
export const SYNTAX_ERROR = "ERR syntax error";
export const INT64_MAX = 0x7fff_ffff_ffff_ffffn;
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

/** An exact decimal number: `digits` / 10^`scale`. */
export interface Decimal {
  readonly digits: bigint;
  readonly scale: number;
}

/** Largest exponent of ten: that of the extended precision in which Redis calculates. */
const EXPONENT_MAX = 4_932;
/** Longest text of a number. Redis's figure. */
const NUMBER_CHARS_MAX = 255;
/** Digits after the point that Redis prints at most. */
const FRACTION_DIGITS_MAX = 17;

/** A floating-point number as Redis reads it, exactly; "infinite" or undefined if it is none. */
export function decimalOf(bytes: Uint8Array): Decimal | "infinite" | undefined {
  if (bytes.length === 0 || bytes.length > NUMBER_CHARS_MAX) return undefined;
  const text = latin1(bytes);
  if (/^[+-]?inf(?:inity)?$/i.test(text)) return "infinite";
  const parts = /^([+-]?)([0-9]*)(?:\.([0-9]*))?(?:e([+-]?[0-9]+))?$/i.exec(text);
  if (parts === null) return undefined;
  const [, sign, whole = "", fraction = "", exponentText = "0"] = parts;
  if (whole.length + fraction.length === 0) return undefined;
  const exponent = Number(exponentText);
  const magnitude = BigInt(whole + fraction);
  const digits = sign === "-" ? -magnitude : magnitude;
  if (digits === 0n) return { digits, scale: 0 };
  if (exponent > EXPONENT_MAX) return "infinite";
  if (exponent < -EXPONENT_MAX) return undefined;
  const scale = fraction.length - exponent;
  return scale < 0 ? { digits: digits * 10n ** BigInt(-scale), scale: 0 } : { digits, scale };
}

export function addDecimals(a: Decimal, b: Decimal): Decimal {
  const scale = Math.max(a.scale, b.scale);
  const digits = a.digits * 10n ** BigInt(scale - a.scale) + b.digits * 10n ** BigInt(scale - b.scale);
  return { digits, scale };
}

/** The number as Redis prints it: at most 17 digits after the point, without zeros at the end. */
export function decimalText({ digits, scale }: Decimal): string {
  let value = digits < 0n ? -digits : digits;
  let places = scale;
  if (places > FRACTION_DIGITS_MAX) {
    const unit = 10n ** BigInt(places - FRACTION_DIGITS_MAX);
    value = (value + unit / 2n) / unit;
    places = FRACTION_DIGITS_MAX;
  }
  const text = value.toString().padStart(places + 1, "0");
  const whole = text.slice(0, text.length - places);
  const fraction = text.slice(text.length - places).replace(/0+$/, "");
  const sign = digits < 0n && value !== 0n ? "-" : "";
  return sign + (fraction === "" ? whole : `${whole}.${fraction}`);
}
