/** HPACK, RFC 7541: decoding with the dynamic table, encoding without (its table stays empty, which every decoder takes). */
import { ERROR, Http2Error } from "./errors.ts";
import { huffmanDecode } from "./huffman.ts";
import {
  HEADER_TABLE_BYTES,
  HEADER_TABLE_ENTRIES,
  REMEMBERED_BLOCK_BYTES,
  REMEMBERED_BLOCKS,
} from "./params.ts";
import { STATIC_NAMES, STATIC_VALUES } from "./static_table.ts";

/** A decoded header block. Shared between requests whose blocks say the same: its fields never change. */
export interface FieldBlock {
  /** Name, value, name, value …; texts have one character for each byte. Empty when `isTooLarge`. */
  readonly fields: readonly string[];
  /** A name or value has bytes that HTTP/2 does not allow (RFC 9113 §8.2.1). */
  readonly isMalformed: boolean;
  /** The fields are more than the decoder's limit. The dynamic table is in order nevertheless. */
  readonly isTooLarge: boolean;
  /** Room for what its reader makes of it, once for all requests that share it. */
  memo: unknown;
}

/** What each field counts besides its name and value, in bytes (RFC 7541 §4.1, RFC 9113 §6.5.2). */
const FIELD_OVERHEAD_BYTES = 32;
const STATIC_ENTRIES = 61;
/** Integers above this are nothing that could be meant (RFC 7541 §5.1): blocks are shorter, tables smaller. */
const MAX_INTEGER = 0xfff_ffff;

/** Decoder of one connection. */
export class HpackDecoder {
  readonly #maxListBytes: number;
  // The dynamic table is a ring: the newest entry is at `#newest`, older ones before it.
  readonly #names: string[] = new Array(HEADER_TABLE_ENTRIES).fill("");
  readonly #values: string[] = new Array(HEADER_TABLE_ENTRIES).fill("");
  readonly #soundness = new Uint8Array(HEADER_TABLE_ENTRIES);
  #newest = 0;
  #count = 0;
  #bytes = 0;
  #maxBytes = HEADER_TABLE_BYTES;
  /** Counts the table's changes: remembered blocks hold for one version of it. */
  #version = 0;
  readonly #remembered: (Remembered | undefined)[] = new Array(REMEMBERED_BLOCKS).fill(undefined);
  #scratch = new Uint8Array(256);

  #block: Uint8Array = NO_BYTES;
  #at = 0;
  #end = 0;

  /** `maxListBytes` bounds the fields of one block, each counted with 32 bytes besides its texts. */
  constructor(maxListBytes: number) {
    this.#maxListBytes = maxListBytes;
  }

  /** Size of the dynamic table, in bytes. */
  get tableBytes(): number {
    return this.#bytes;
  }

  /** Decodes one whole block, `bytes[start..end]`. @throws {Http2Error} COMPRESSION_ERROR when it is malformed. */
  decode(bytes: Uint8Array, start: number, end: number): FieldBlock {
    const length = end - start;
    if (length > REMEMBERED_BLOCK_BYTES) return this.#decode(bytes, start, end);
    let hash = length;
    for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + bytes[i]!) | 0;
    const slot = (hash ^ (hash >>> 7)) & (REMEMBERED_BLOCKS - 1);
    const remembered = this.#remembered[slot];
    if (
      remembered !== undefined && remembered.version === this.#version && remembered.is(bytes, start, end)
    ) {
      return remembered.block;
    }
    const version = this.#version;
    const block = this.#decode(bytes, start, end);
    // A block that changed the table means something else the next time.
    if (this.#version === version) {
      this.#remembered[slot] = new Remembered(bytes.slice(start, end), version, block);
    }
    return block;
  }

  #decode(bytes: Uint8Array, start: number, end: number): FieldBlock {
    this.#block = bytes;
    this.#at = start;
    this.#end = end;
    const fields: string[] = [];
    let listBytes = 0;
    let isMalformed = false;
    let mayResize = true;
    while (this.#at < end) {
      const byte = bytes[this.#at]!;
      let name: string;
      let value: string;
      if (byte >= 0x80) {
        const index = this.#integer(0x7f);
        name = this.#nameAt(index);
        value = this.#valueAt(index);
        if (!this.#isSound(index)) isMalformed = true;
      } else if (byte >= 0x20 && byte < 0x40) {
        if (!mayResize) throw compressionError("a table size update is not at the block's beginning");
        this.#resize(this.#integer(0x1f));
        continue;
      } else {
        const isIndexed = byte >= 0x40;
        const index = this.#integer(isIndexed ? 0x3f : 0x0f);
        let isSound: boolean;
        if (index === 0) {
          name = this.#text();
          isSound = isFieldName(name);
        } else {
          name = this.#nameAt(index);
          isSound = isFieldName(name);
        }
        value = this.#text();
        isSound &&= isFieldValue(value);
        if (!isSound) isMalformed = true;
        if (isIndexed) this.#insert(name, value, isSound);
      }
      mayResize = false;
      listBytes += name.length + value.length + FIELD_OVERHEAD_BYTES;
      if (listBytes <= this.#maxListBytes) fields.push(name, value);
    }
    this.#block = NO_BYTES;
    if (listBytes > this.#maxListBytes) return TOO_LARGE;
    return { fields, isMalformed, isTooLarge: false, memo: undefined };
  }

  #integer(mask: number): number {
    const block = this.#block;
    let value = block[this.#at++]! & mask;
    if (value < mask) return value;
    for (let factor = 1;; factor *= 128) {
      if (this.#at >= this.#end) throw compressionError("an integer is cut short");
      const byte = block[this.#at++]!;
      value += (byte & 0x7f) * factor;
      if (value > MAX_INTEGER || factor > MAX_INTEGER) throw compressionError("an integer is too large");
      if (byte < 0x80) return value;
    }
  }

  #text(): string {
    if (this.#at >= this.#end) throw compressionError("a text is missing");
    const isHuffman = this.#block[this.#at]! >= 0x80;
    const length = this.#integer(0x7f);
    const start = this.#at;
    const end = start + length;
    if (end > this.#end) throw compressionError("a text is cut short");
    this.#at = end;
    if (!isHuffman) return latin1(this.#block, start, end);
    if (this.#scratch.length < 2 * length) this.#scratch = new Uint8Array(2 * length);
    const decoded = huffmanDecode(this.#block, start, end, this.#scratch);
    if (decoded < 0) throw compressionError("a text is not Huffman-coded as it should be");
    return latin1(this.#scratch, 0, decoded);
  }

  #nameAt(index: number): string {
    return index <= STATIC_ENTRIES && index > 0 ? STATIC_NAMES[index]! : this.#names[this.#slotOf(index)]!;
  }

  #valueAt(index: number): string {
    return index <= STATIC_ENTRIES ? STATIC_VALUES[index]! : this.#values[this.#slotOf(index)]!;
  }

  #isSound(index: number): boolean {
    return index <= STATIC_ENTRIES || this.#soundness[this.#slotOf(index)] === 1;
  }

  #slotOf(index: number): number {
    const age = index - STATIC_ENTRIES - 1;
    if (age < 0 || age >= this.#count) throw compressionError(`no header field has index ${index}`);
    return (this.#newest - age + HEADER_TABLE_ENTRIES) % HEADER_TABLE_ENTRIES;
  }

  #resize(maxBytes: number): void {
    if (maxBytes > HEADER_TABLE_BYTES) throw compressionError(`a table size update to ${maxBytes} bytes`);
    this.#version++;
    this.#maxBytes = maxBytes;
    this.#evict(maxBytes);
  }

  #insert(name: string, value: string, isSound: boolean): void {
    this.#version++;
    const bytes = name.length + value.length + FIELD_OVERHEAD_BYTES;
    // An entry larger than the table empties it (RFC 7541 §4.4).
    this.#evict(this.#maxBytes - bytes);
    if (bytes > this.#maxBytes) return;
    this.#newest = (this.#newest + 1) % HEADER_TABLE_ENTRIES;
    this.#names[this.#newest] = name;
    this.#values[this.#newest] = value;
    this.#soundness[this.#newest] = isSound ? 1 : 0;
    this.#count++;
    this.#bytes += bytes;
  }

  #evict(downTo: number): void {
    while (this.#count > 0 && this.#bytes > downTo) {
      const oldest = (this.#newest - this.#count + 1 + HEADER_TABLE_ENTRIES) % HEADER_TABLE_ENTRIES;
      this.#bytes -= this.#names[oldest]!.length + this.#values[oldest]!.length + FIELD_OVERHEAD_BYTES;
      this.#names[oldest] = this.#values[oldest] = "";
      this.#count--;
    }
  }
}

/** A block and what it said. */
class Remembered {
  constructor(
    readonly bytes: Uint8Array,
    readonly version: number,
    readonly block: FieldBlock,
  ) {}

  is(bytes: Uint8Array, start: number, end: number): boolean {
    const own = this.bytes;
    if (own.length !== end - start) return false;
    for (let i = 0; i < own.length; i++) if (own[i] !== bytes[start + i]) return false;
    return true;
  }
}

const STATIC_INDEX = new Map<string, number>();
for (let index = STATIC_ENTRIES; index > 0; index--) {
  STATIC_INDEX.set(STATIC_NAMES[index]!, index);
  if (STATIC_VALUES[index] !== "") STATIC_INDEX.set(`${STATIC_NAMES[index]}:${STATIC_VALUES[index]}`, index);
}

/** Encodes fields, [name, value] each, in lower case and with one character for each byte. The block refers to the static
 *  table only, so it may be kept and sent on any connection. @throws {TypeError} on a name or value that HTTP/2 forbids. */
export function encodeFields(fields: Iterable<readonly [name: string, value: string]>): Uint8Array {
  const out: number[] = [];
  for (const [name, value] of fields) {
    if (!isFieldName(name) || !isFieldValue(value)) {
      throw new TypeError(
        `Cannot encode header field: ${JSON.stringify(name)} has bytes HTTP/2 does not allow`,
      );
    }
    const whole = STATIC_INDEX.get(`${name}:${value}`);
    if (whole !== undefined) {
      out.push(0x80 | whole);
      continue;
    }
    const index = STATIC_INDEX.get(name);
    if (index === undefined) {
      out.push(0x00);
      pushText(out, name);
    } else {
      pushInteger(out, 0x00, 0x0f, index);
    }
    pushText(out, value);
  }
  return Uint8Array.from(out);
}

/** A table size update to nothing: what the first block to a peer begins with, so that no smaller table that the peer may ask
 *  for later needs an answer (RFC 7541 §4.2). */
export const NO_TABLE = 0x20;

function pushText(out: number[], text: string): void {
  pushInteger(out, 0x00, 0x7f, text.length);
  for (let i = 0; i < text.length; i++) out.push(text.charCodeAt(i));
}

function pushInteger(out: number[], first: number, mask: number, value: number): void {
  if (value < mask) return void out.push(first | value);
  out.push(first | mask);
  let rest = value - mask;
  for (; rest >= 128; rest >>>= 7) out.push((rest & 0x7f) | 0x80);
  out.push(rest);
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  if (end - start <= 64) {
    for (let i = start; i < end; i++) text += String.fromCharCode(bytes[i]!);
    return text;
  }
  for (let at = start; at < end; at += CHARACTERS_AT_ONCE) {
    text += String.fromCharCode(...bytes.subarray(at, Math.min(end, at + CHARACTERS_AT_ONCE)));
  }
  return text;
}

/** Arguments of one call; the stack has room for many more. */
const CHARACTERS_AT_ONCE = 4_096;

/** A token without upper case, or a pseudo-header's name (RFC 9113 §8.2.1, §8.3). */
function isFieldName(name: string): boolean {
  const start = name.charCodeAt(0) === 0x3a ? 1 : 0;
  if (name.length === start) return false;
  for (let i = start; i < name.length; i++) if (NAME_BYTE[name.charCodeAt(i)] !== 1) return false;
  return true;
}

function isFieldValue(value: string): boolean {
  const { length } = value;
  if (length === 0) return true;
  for (let i = 0; i < length; i++) {
    const code = value.charCodeAt(i);
    if (code === 0 || code === 0x0a || code === 0x0d || code > 0xff) return false;
  }
  return !isBlank(value.charCodeAt(0)) && !isBlank(value.charCodeAt(length - 1));
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

const NAME_BYTE = Uint8Array.from(
  { length: 256 },
  (_, byte) => /[a-z0-9!#$%&'*+\-.^_`|~]/.test(String.fromCharCode(byte)) ? 1 : 0,
);

function compressionError(message: string): Http2Error {
  return new Http2Error(ERROR.COMPRESSION_ERROR, message);
}

const NO_BYTES = new Uint8Array(0);
const TOO_LARGE: FieldBlock = { fields: [], isMalformed: false, isTooLarge: true, memo: undefined };
