/** Metadata on the wire: SPEC §4. */
import type { FrameWriter } from "./frame.ts";

/** Most entries of one metadata block: as many as common HTTP servers take. SPEC §4.1. */
export const MAX_METADATA_ENTRIES = 128;

const MAX_KEY_BYTES = 255;
const MAX_VALUE_BYTES = 0xffff;

/** Appends `headers` to `writer` without making a Headers object of them.
 *  @throws {TypeError} on a name or value that HTTP does not allow. @throws {RangeError} on too many or too long ones. */
export function writeMetadata(writer: FrameWriter, headers: HeadersInit): void {
  let count = 0;
  const entries: Iterable<readonly string[]> = isIterable(headers) ? headers : Object.entries(headers);
  for (const entry of entries) {
    const key = entry[0];
    const value = entry[1];
    if (key === undefined || value === undefined) {
      throw new TypeError("metadata: an entry needs a name and a value");
    }
    if (++count > MAX_METADATA_ENTRIES) {
      throw new RangeError(`metadata: more than ${MAX_METADATA_ENTRIES} entries`);
    }
    writeEntry(writer, key.toLowerCase(), trimBlanks(value));
  }
}

/** Says what is wrong with the metadata block at `bytes[start..]`; undefined when it is sound. */
export function checkMetadata(bytes: Uint8Array, start: number): string | undefined {
  let at = start;
  let count = 0;
  while (at < bytes.length) {
    if (++count > MAX_METADATA_ENTRIES) return "metadata has too many entries";
    const keyEnd = at + 1 + bytes[at]!;
    if (keyEnd === at + 1) return "metadata has an empty name";
    if (keyEnd + 2 > bytes.length) return "metadata is cut short";
    for (let i = at + 1; i < keyEnd; i++) {
      if (KEY_BYTE[bytes[i]!] === 0) return "metadata has a bad name";
    }
    const valueStart = keyEnd + 2;
    const valueEnd = valueStart + ((bytes[keyEnd]! << 8) | bytes[keyEnd + 1]!);
    if (valueEnd > bytes.length) return "metadata is cut short";
    for (let i = valueStart; i < valueEnd; i++) {
      if (VALUE_BYTE[bytes[i]!] === 0) return "metadata has a bad value";
    }
    if (valueEnd > valueStart && (isBlank(bytes[valueStart]!) || isBlank(bytes[valueEnd - 1]!))) {
      return "metadata has a value with blanks at an end";
    }
    at = valueEnd;
  }
  return undefined;
}

/** Adds the entries of a block that `checkMetadata` found sound to `headers`. */
export function readMetadata(bytes: Uint8Array, start: number, headers: Headers): Headers {
  let at = start;
  while (at < bytes.length) {
    const keyEnd = at + 1 + bytes[at]!;
    const valueStart = keyEnd + 2;
    const valueEnd = valueStart + ((bytes[keyEnd]! << 8) | bytes[keyEnd + 1]!);
    headers.append(latin1(bytes, at + 1, keyEnd), latin1(bytes, valueStart, valueEnd));
    at = valueEnd;
  }
  return headers;
}

/** Text of bytes that stand for one character each. */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let i = start; i < end; i++) text += String.fromCharCode(bytes[i]!);
  return text;
}

function writeEntry(writer: FrameWriter, key: string, value: string): void {
  if (key.length === 0 || !allAllowed(key, KEY_BYTE)) {
    throw new TypeError(`metadata: ${JSON.stringify(key)} is not a field name`);
  }
  if (!allAllowed(value, VALUE_BYTE)) {
    throw new TypeError(`metadata: the value of ${key} is not a field value`);
  }
  if (key.length > MAX_KEY_BYTES || value.length > MAX_VALUE_BYTES) {
    throw new RangeError(`metadata: ${key.slice(0, 40)} is too long`);
  }
  writer.u8(key.length);
  writer.latin1(key);
  writer.u16(value.length);
  writer.latin1(value);
}

function allAllowed(text: string, table: Uint8Array): boolean {
  // A character above 0xff reads undefined, which is not 1 either.
  for (let i = 0; i < text.length; i++) if (table[text.charCodeAt(i)] !== 1) return false;
  return true;
}

function trimBlanks(value: string): string {
  if (value.length === 0) return value;
  if (!isBlank(value.charCodeAt(0)) && !isBlank(value.charCodeAt(value.length - 1))) return value;
  return value.replace(/^[ \t]+|[ \t]+$/g, "");
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x09;
}

function isIterable(headers: HeadersInit): headers is Exclude<HeadersInit, Record<string, string>> {
  return Symbol.iterator in headers;
}

/** 1 for the bytes of a lower-case field name (RFC 9110 §5.6.2 without upper case). */
const KEY_BYTE = byteTable((byte) => /[a-z0-9!#$%&'*+\-.^_`|~]/.test(String.fromCharCode(byte)));
/** 1 for the bytes of a field value (RFC 9110 §5.5). */
const VALUE_BYTE = byteTable((byte) => byte === 0x09 || (byte >= 0x20 && byte !== 0x7f));

function byteTable(allowed: (byte: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, byte) => allowed(byte) ? 1 : 0);
}
