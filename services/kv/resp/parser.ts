/** Cuts a connection's bytes into commands: RESP arrays of bulk strings, and inline commands as people type them.
 *
 *  Bytes are parsed where they lie. Only a command that is not whole yet is copied, once, into a buffer that grows with
 *  it, and parsing goes on where it stopped, so that a long command costs its length and not its square. What a command
 *  may take is bounded before it is there: its parts by `ARGUMENTS_MAX`, a part by `bulkBytesMax`, all by
 *  `commandBytesMax`.
 *
 *      buffer   … | *3 $3 SET $1 a $5 wo      ← #start … #end
 *                   └ #argAt: [0+8, 0+15]  #bulkLeft 5   ← parts are kept as offsets from #start */
import { Failure } from "./reply.ts";

/** Most parts of a command; Redis's figure before 7. */
export const ARGUMENTS_MAX = 1_024 * 1_024;
/** Most of them, and longest part, before the client has authenticated. Redis's figures. */
const UNAUTHENTICATED_ARGUMENTS_MAX = 10;
const UNAUTHENTICATED_BULK_BYTES_MAX = 16_384;
/** Longest line: an inline command, or a count. Redis's figure. */
const LINE_BYTES_MAX = 64 * 1_024;
/** Room a new buffer has beyond what is in it. */
const SPARE_BYTES = 512;

const CR = 13;
const LF = 10;
const ASTERISK = 42;
const DOLLAR = 36;
const NO_BYTES = new Uint8Array(0);

/** Bounds of a parser. */
export interface ParserLimits {
  /** Longest part of a command: longer ones end the connection. */
  readonly bulkBytesMax: number;
  /** Longest command, in bytes. */
  readonly commandBytesMax: number;
}

/** A command: its name and arguments. Views of what was received: valid until the next call of the parser. */
export type Command = readonly Uint8Array[];

/** The parser of one connection. */
export class RespParser {
  /** Bytes of commands that were not taken yet. */
  get bufferedBytes(): number {
    return this.#end - this.#start;
  }

  /** Set by the owner: whether large requests are refused. */
  isAuthenticated = true;

  readonly #limits: ParserLimits;
  #buffer: Uint8Array = NO_BYTES;
  /** First byte of the command being read. */
  #start = 0;
  #at = 0;
  #end = 0;
  /** Whether `#buffer` is the parser's own and may be written to. */
  #isOwn = false;
  /** Parts that are still to come; -1 between commands. */
  #partsLeft = -1;
  /** Length of the part being read; -1 before its line. */
  #bulkBytes = -1;
  /** Begin and end of each part, from `#start`. */
  #offsets: number[] = [];

  constructor(limits: ParserLimits) {
    this.#limits = limits;
  }

  /** Adds bytes, of which the parser keeps a view until `next` has said that it needs more. */
  push(bytes: Uint8Array): void {
    const left = this.#end - this.#start;
    if (left === 0) {
      this.#buffer = bytes;
      this.#start = this.#at = 0;
      this.#end = bytes.length;
      this.#isOwn = false;
      return;
    }
    this.#own(left + bytes.length);
    this.#buffer.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** The next whole command; undefined when more bytes are needed; the Failure to end the connection with. */
  next(): Command | Failure | undefined {
    for (;;) {
      if (this.#partsLeft < 0) {
        if (this.#at >= this.#end) return this.#needMore();
        if (this.#buffer[this.#at] !== ASTERISK) {
          const command = this.#inline();
          if (command !== EMPTY) return command as Command | Failure | undefined;
          continue;
        }
        const line = this.#line();
        if (line < 0) {
          return this.#end - this.#at > LINE_BYTES_MAX
            ? protocolError("too big mbulk count string")
            : this.#needMore();
        }
        const count = integerAt(this.#buffer, this.#at + 1, line);
        if (count === undefined || count > ARGUMENTS_MAX) return protocolError("invalid multibulk length");
        if (!this.isAuthenticated && count > UNAUTHENTICATED_ARGUMENTS_MAX) {
          return protocolError("unauthenticated multibulk length");
        }
        this.#at = line + 2;
        if (count <= 0) {
          this.#start = this.#at;
          continue;
        }
        this.#partsLeft = count;
        this.#offsets = [];
      }
      while (this.#partsLeft > 0) {
        const failure = this.#part();
        if (failure === undefined) return this.#needMore();
        if (failure !== true) return failure;
      }
      return this.#command();
    }
  }

  /** Reads one part: true when it is whole, undefined when more bytes are needed. */
  #part(): true | Failure | undefined {
    if (this.#bulkBytes < 0) {
      if (this.#at >= this.#end) return undefined;
      const line = this.#line();
      if (line < 0) {
        if (this.#end - this.#at > LINE_BYTES_MAX) return protocolError("too big bulk count string");
        return undefined;
      }
      const mark = this.#buffer[this.#at]!;
      if (mark !== DOLLAR) return protocolError(`expected '$', got '${String.fromCharCode(mark)}'`);
      const size = integerAt(this.#buffer, this.#at + 1, line);
      if (size === undefined || size < 0 || size > this.#limits.bulkBytesMax) {
        return protocolError("invalid bulk length");
      }
      if (!this.isAuthenticated && size > UNAUTHENTICATED_BULK_BYTES_MAX) {
        return protocolError("unauthenticated bulk length");
      }
      this.#at = line + 2;
      this.#bulkBytes = size;
      if (this.#at - this.#start + size > this.#limits.commandBytesMax) {
        return protocolError("too big request");
      }
    }
    const until = this.#at + this.#bulkBytes;
    if (until + 2 > this.#end) return undefined;
    this.#offsets.push(this.#at - this.#start, until - this.#start);
    this.#at = until + 2;
    this.#bulkBytes = -1;
    this.#partsLeft--;
    return true;
  }

  #command(): Command {
    const offsets = this.#offsets;
    const buffer = this.#buffer;
    const start = this.#start;
    const parts: Uint8Array[] = new Array(offsets.length >> 1);
    for (let i = 0; i < parts.length; i++) {
      parts[i] = buffer.subarray(start + offsets[2 * i]!, start + offsets[2 * i + 1]!);
    }
    this.#partsLeft = -1;
    this.#start = this.#at;
    return parts;
  }

  #inline(): Command | Failure | typeof EMPTY | undefined {
    const end = this.#buffer.indexOf(LF, this.#at);
    if (end < 0 || end >= this.#end) {
      if (this.#end - this.#at > LINE_BYTES_MAX) return protocolError("too big inline request");
      return this.#needMore();
    }
    const last = end > this.#at && this.#buffer[end - 1] === CR ? end - 1 : end;
    const parts = splitInline(this.#buffer.subarray(this.#at, last));
    this.#at = this.#start = end + 1;
    if (parts === undefined) return protocolError("unbalanced quotes in request");
    return parts.length === 0 ? EMPTY : parts;
  }

  /** Index of the CR that ends the line at `#at`, with its LF there, or -1. */
  #line(): number {
    const buffer = this.#buffer;
    // Counts are short; indexOf costs more than this loop for them.
    for (let i = this.#at; i < this.#end - 1; i++) {
      if (buffer[i] === CR) return i;
      if (i - this.#at > LINE_BYTES_MAX) return -1;
    }
    return -1;
  }

  #needMore(): undefined {
    const left = this.#end - this.#start;
    if (left === 0) {
      this.#buffer = NO_BYTES;
      this.#start = this.#at = this.#end = 0;
      this.#isOwn = false;
    } else if (!this.#isOwn) {
      const { commandBytesMax } = this.#limits;
      // What is announced may never come: the buffer grows with what did.
      const announced = this.#bulkBytes < 0 ? 0 : this.#at + this.#bulkBytes + 2 - this.#start;
      this.#own(Math.min(commandBytesMax, Math.max(left, Math.min(announced, left * 2))));
    }
    return undefined;
  }

  /** Makes the buffer the parser's own, with room for `size` bytes from `#start` on. */
  #own(size: number): void {
    if (this.#isOwn && this.#start + size <= this.#buffer.length) return;
    const left = this.#end - this.#start;
    const fits = this.#isOwn && size <= this.#buffer.length && this.#start >= left;
    if (fits) this.#buffer.copyWithin(0, this.#start, this.#end);
    else {
      const grown = new Uint8Array(Math.max(size + SPARE_BYTES, this.#isOwn ? size * 2 : 0));
      grown.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = grown;
      this.#isOwn = true;
    }
    this.#at -= this.#start;
    this.#start = 0;
    this.#end = left;
  }
}

const EMPTY = Symbol("an empty line");

function protocolError(text: string): Failure {
  return new Failure(`ERR Protocol error: ${text}`);
}

/** The decimal integer in `buffer[from..to)`; undefined if it is none, or too large to be a length. */
function integerAt(buffer: Uint8Array, from: number, to: number): number | undefined {
  const isNegative = buffer[from] === 45;
  let at = isNegative ? from + 1 : from;
  if (at >= to || to - at > 15) return undefined;
  // As Redis: no leading zeros.
  if (buffer[at] === 48 && (to - at > 1 || isNegative)) return undefined;
  let value = 0;
  for (; at < to; at++) {
    const digit = buffer[at]! - 48;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return isNegative ? -value : value;
}

const SPACES: ReadonlySet<number> = new Set([32, 9, 10, 11, 12, 13, 0]);
const QUOTE = 34;
const APOSTROPHE = 39;
const BACKSLASH = 92;
const ESCAPES: Readonly<Record<number, number>> = { 110: 10, 114: 13, 116: 9, 98: 8, 97: 7 };

/** The words of an inline command; undefined when a quote has no end, or no space after it. */
export function splitInline(line: Uint8Array): Uint8Array[] | undefined {
  const words: Uint8Array[] = [];
  let at = 0;
  for (;;) {
    while (at < line.length && SPACES.has(line[at]!)) at++;
    if (at >= line.length) return words;
    const word: number[] = [];
    let quote = 0;
    for (;;) {
      const byte = line[at];
      if (byte === undefined) {
        if (quote !== 0) return undefined;
        break;
      }
      if (quote === 0) {
        if (SPACES.has(byte)) break;
        if (byte === QUOTE || byte === APOSTROPHE) quote = byte;
        else word.push(byte);
        at++;
        continue;
      }
      if (byte === BACKSLASH && quote === QUOTE && at + 1 < line.length) {
        const hex = hexAt(line, at);
        if (hex !== undefined) {
          word.push(hex);
          at += 4;
          continue;
        }
        word.push(ESCAPES[line[at + 1]!] ?? line[at + 1]!);
        at += 2;
      } else if (byte === BACKSLASH && quote === APOSTROPHE && line[at + 1] === APOSTROPHE) {
        word.push(APOSTROPHE);
        at += 2;
      } else if (byte === quote) {
        const after = line[at + 1];
        if (after !== undefined && !SPACES.has(after)) return undefined;
        at++;
        break;
      } else {
        word.push(byte);
        at++;
      }
    }
    words.push(Uint8Array.from(word));
  }
}

/** The byte of `\xHH` at `at`. */
function hexAt(line: Uint8Array, at: number): number | undefined {
  if (line[at + 1] !== 120 || at + 3 >= line.length) return undefined;
  const digits = String.fromCharCode(line[at + 2]!, line[at + 3]!);
  return /^[0-9a-fA-F]{2}$/.test(digits) ? parseInt(digits, 16) : undefined;
}
