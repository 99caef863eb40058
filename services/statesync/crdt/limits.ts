/** Checks what clients send, before anything is made of it: in one walk over the bytes, in time that grows with their number
 *  and not with what they announce.
 *
 *  An update (v1) is
 *
 *      clients, each { structs, client, first clock, struct… }, then clients, each { client, ranges, { clock, length }… }
 *      struct = 0 length                                        collected: nothing is left but its clocks
 *             | 10 length                                       left out
 *             | info [origin] [right origin] [parent [key]] content
 *
 *  where all numbers are variable-length, an id is client and clock, and `info` has the kind of content in its lower five
 *  bits and says in the upper three which of the ids follow. Positions in it are found in the order of the bytes only, so that
 *  it is read to its end or refused. */
import { StateSyncError } from "../errors.ts";
import type { IdRange } from "./touch.ts";

/** What one update may be at most. */
export interface UpdateLimits {
  readonly maxBytes: number;
  /** Structs and ranges of deletions together. */
  readonly maxStructs: number;
}

/** What an update has. */
export interface UpdateSummary {
  /** Clocks that it has structs of, one range a client; gaps in it count as had. */
  readonly ranges: readonly IdRange[];
  readonly structs: number;
  /** Ranges of deletions. */
  readonly removals: number;
}

/** Largest clock. Each is a character or an edit that some client made; ranges of deleted ones are announced in a few bytes,
 *  and sums of them must stay exact. */
export const MAX_CLOCK = 2 ** 32;

/** Levels of arrays and objects in one value. Values are walked by recursion, and nothing that people draw is deeper. */
export const MAX_VALUE_DEPTH = 64;

/** Checks a Yjs update (v1) and says what it has.
 *  @throws {StateSyncError} `hostile`, naming what is wrong, for what is malformed, too large, or nothing that Yjs makes. */
export function checkUpdate(update: Uint8Array, limits: UpdateLimits): UpdateSummary {
  if (update.length > limits.maxBytes) {
    throw hostile(`${update.length} bytes, the limit is ${limits.maxBytes}`);
  }
  return new Scan(update, limits.maxStructs).update();
}

/** Checks a Yjs state vector of at most `maxClients` clients.
 *  @throws {StateSyncError} `hostile`. */
export function checkStateVector(bytes: Uint8Array, maxClients: number): void {
  new Scan(bytes, maxClients).stateVector();
}

function hostile(detail: string): StateSyncError {
  return new StateSyncError("hostile", detail);
}

/** Kinds of content. */
const COLLECTED = 0, DELETED = 1, JSONS = 2, BINARY = 3, STRING = 4, EMBED = 5, FORMAT = 6, TYPE = 7, ANY = 8;
const LEFT_OUT = 10;
const KIND_BITS = 0x1f, HAS_KEY = 0x20, HAS_RIGHT = 0x40, HAS_ORIGIN = 0x80;

/** Shared types by number, and those that have a name. */
const LAST_TYPE = 6, XML_ELEMENT = 3, XML_HOOK = 5;

/** Tags of values. */
const ANY_BYTES = 116,
  ANY_ARRAY = 117,
  ANY_OBJECT = 118,
  ANY_STRING = 119,
  ANY_BIGINT = 122,
  ANY_FLOAT64 = 123;
const ANY_FLOAT32 = 124, ANY_INTEGER = 125, ANY_UNDEFINED = 127;

/** A number of 53 bits takes eight bytes of seven. */
const MAX_NUMBER_BYTES = 8;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Scan {
  private at = 0;
  private counted = 0;

  constructor(private readonly bytes: Uint8Array, private readonly maxCount: number) {}

  update(): UpdateSummary {
    const ranges: IdRange[] = [];
    const seen = new Set<number>();
    for (let left = this.count("clients", 4); left > 0; left--) {
      const structs = this.count("structs", 2);
      if (structs === 0) throw hostile("a client without structs");
      const client = this.number();
      if (seen.has(client)) throw hostile(`client ${client} twice`);
      seen.add(client);
      const from = this.clock();
      let to = from;
      for (let i = 0; i < structs; i++) {
        const length = this.struct();
        if (length === 0) throw hostile("a struct without length");
        to += length;
        if (to > MAX_CLOCK) throw hostile(`clocks beyond ${MAX_CLOCK}`);
      }
      ranges.push({ client, from, to });
    }
    const structs = this.counted - ranges.length;
    const removals = this.removals();
    if (this.at !== this.bytes.length) throw hostile("bytes behind its end");
    return { ranges, structs, removals };
  }

  stateVector(): void {
    for (let left = this.count("clients", 2); left > 0; left--) {
      this.number();
      this.number();
    }
    if (this.at !== this.bytes.length) throw hostile("bytes behind the end of a state vector");
  }

  private removals(): number {
    const seen = new Set<number>();
    let removals = 0;
    for (let left = this.count("clients of removals", 2); left > 0; left--) {
      const client = this.number();
      if (seen.has(client)) throw hostile(`removals of client ${client} twice`);
      seen.add(client);
      // Ranges that overlap would be walked again and again: Yjs makes none.
      let end = 0;
      for (let ranges = this.count("removals", 2); ranges > 0; ranges--) {
        const clock = this.clock();
        if (clock < end) throw hostile("removals that are not in order");
        const length = this.number();
        if (length === 0) throw hostile("a removal without length");
        end = clock + length;
        if (end > MAX_CLOCK) throw hostile(`clocks beyond ${MAX_CLOCK}`);
        removals++;
      }
    }
    return removals;
  }

  /** Reads over a struct and returns its length in clocks. */
  private struct(): number {
    const info = this.byte();
    const kind = info & KIND_BITS;
    if (kind === COLLECTED || kind === LEFT_OUT) {
      if (info !== kind) throw hostile(`unknown struct ${info}`);
      return this.number();
    }
    if (info & HAS_ORIGIN) this.id();
    if (info & HAS_RIGHT) this.id();
    if ((info & (HAS_ORIGIN | HAS_RIGHT)) === 0) {
      const isRoot = this.number();
      if (isRoot > 1) throw hostile(`unknown parent ${isRoot}`);
      if (isRoot === 1) this.string();
      else this.id();
      if (info & HAS_KEY) this.string();
    }
    return this.content(kind);
  }

  private content(kind: number): number {
    switch (kind) {
      case DELETED:
        return this.number();
      case JSONS: {
        const length = this.amount("values", 1);
        for (let i = 0; i < length; i++) this.json(true);
        return length;
      }
      case BINARY:
        this.skip(this.number());
        return 1;
      case STRING:
        return this.string();
      case EMBED:
        this.json(false);
        return 1;
      case FORMAT:
        this.string();
        this.json(false);
        return 1;
      case TYPE: {
        const type = this.number();
        if (type > LAST_TYPE) throw hostile(`unknown shared type ${type}`);
        if (type === XML_ELEMENT || type === XML_HOOK) this.string();
        return 1;
      }
      case ANY: {
        const length = this.amount("values", 1);
        for (let i = 0; i < length; i++) this.any();
        return length;
      }
      default:
        // Documents within documents (9) are refused as well: nothing keeps them.
        throw hostile(`content of kind ${kind}`);
    }
  }

  /** Reads over one value. What is open is on a stack of numbers: members to come, negative for those of objects. */
  private any(): void {
    const open: number[] = [];
    for (;;) {
      const tag = this.byte();
      if (tag === ANY_ARRAY || tag === ANY_OBJECT) {
        if (open.length === MAX_VALUE_DEPTH) throw hostile(`values deeper than ${MAX_VALUE_DEPTH}`);
        const members = this.amount("members", tag === ANY_OBJECT ? 2 : 1);
        open.push(tag === ANY_OBJECT ? -members : members);
      } else {
        this.leaf(tag);
      }
      while (open.length > 0 && open.at(-1) === 0) open.pop();
      if (open.length === 0) return;
      const top = open.length - 1;
      if (open[top]! < 0) {
        this.string();
        open[top]! += 1;
      } else {
        open[top]! -= 1;
      }
    }
  }

  private leaf(tag: number): void {
    if (tag === ANY_STRING) this.string();
    else if (tag === ANY_BYTES) this.skip(this.number());
    else if (tag === ANY_INTEGER) this.integer();
    else if (tag === ANY_FLOAT32) this.skip(4);
    else if (tag === ANY_FLOAT64 || tag === ANY_BIGINT) this.skip(8);
    else if (tag < ANY_BYTES || tag > ANY_UNDEFINED) throw hostile(`unknown value ${tag}`);
  }

  /** Reads over JSON text. */
  private json(mayBeUndefined: boolean): void {
    const start = this.at;
    this.string();
    const skipped = lengthOfNumber(this.bytes, start);
    const bytes = this.bytes.subarray(start + skipped, this.at);
    checkDepth(bytes);
    const text = utf8.decode(bytes);
    if (mayBeUndefined && text === "undefined") return;
    try {
      JSON.parse(text);
    } catch (cause) {
      throw new StateSyncError("hostile", "a value that is no JSON", { cause });
    }
  }

  /** Reads over a string and returns its length in UTF-16 code units. */
  private string(): number {
    const length = this.number();
    const start = this.at;
    this.skip(length);
    return utf16Length(this.bytes, start, this.at);
  }

  private id(): void {
    this.number();
    this.clock();
  }

  private clock(): number {
    const clock = this.number();
    if (clock > MAX_CLOCK) throw hostile(`clocks beyond ${MAX_CLOCK}`);
    return clock;
  }

  /** A number of things that count, each of `bytes` at least. */
  private count(what: string, bytes: number): number {
    const amount = this.amount(what, bytes);
    this.counted += amount;
    if (this.counted > this.maxCount) throw hostile(`more than ${this.maxCount} structs`);
    return amount;
  }

  /** A number of things of `bytes` at least. */
  private amount(what: string, bytes: number): number {
    const amount = this.number();
    if (amount * bytes > this.bytes.length - this.at) {
      throw hostile(`${amount} ${what} in ${this.bytes.length - this.at} bytes`);
    }
    return amount;
  }

  private number(): number {
    const { bytes } = this;
    let value = 0;
    let factor = 1;
    for (let i = 0; i < MAX_NUMBER_BYTES; i++) {
      const byte = bytes[this.at++];
      if (byte === undefined) throw hostile("it ends within a number");
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
      factor *= 128;
    }
    throw hostile("a number of more than 53 bits");
  }

  /** A signed number: six bits in its first byte. */
  private integer(): void {
    for (let i = 0; i < MAX_NUMBER_BYTES; i++) {
      if (this.byte() < 0x80) return;
    }
    throw hostile("a number of more than 53 bits");
  }

  private byte(): number {
    const byte = this.bytes[this.at++];
    if (byte === undefined) throw hostile("it ends too early");
    return byte;
  }

  private skip(length: number): void {
    if (length > this.bytes.length - this.at) throw hostile("it ends too early");
    this.at += length;
  }
}

function lengthOfNumber(bytes: Uint8Array, at: number): number {
  let end = at;
  while (bytes[end]! >= 0x80) end++;
  return end + 1 - at;
}

const QUOTE = 0x22, BACKSLASH = 0x5c;

/** Bounds the levels of JSON text, so that parsing it does not recurse without end. */
function checkDepth(bytes: Uint8Array): void {
  let depth = 0;
  let isText = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if (isText) {
      if (byte === BACKSLASH) i++;
      else if (byte === QUOTE) isText = false;
    } else if (byte === QUOTE) {
      isText = true;
    } else if (byte === 0x5b || byte === 0x7b) {
      if (++depth > MAX_VALUE_DEPTH) throw hostile(`values deeper than ${MAX_VALUE_DEPTH}`);
    } else if (byte === 0x5d || byte === 0x7d) {
      depth--;
    }
  }
}

/** Checks UTF-8 (RFC 3629) and returns how many UTF-16 code units it is. */
function utf16Length(bytes: Uint8Array, start: number, end: number): number {
  let length = 0;
  let at = start;
  while (at < end) {
    const byte = bytes[at]!;
    if (byte < 0x80) {
      at++;
      length++;
      continue;
    }
    const more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
    if (byte < 0xc2 || byte > 0xf4 || at + more >= end) throw hostile("text that is no UTF-8");
    const second = bytes[at + 1]!;
    const low = byte === 0xe0 ? 0xa0 : byte === 0xf0 ? 0x90 : 0x80;
    const high = byte === 0xed ? 0x9f : byte === 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) throw hostile("text that is no UTF-8");
    for (let i = 2; i <= more; i++) {
      if ((bytes[at + i]! & 0xc0) !== 0x80) throw hostile("text that is no UTF-8");
    }
    at += more + 1;
    length += more === 3 ? 2 : 1;
  }
  return length;
}
