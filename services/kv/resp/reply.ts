/** Replies as values, and their bytes in RESP2 and RESP3.
 *
 *  | value                      | RESP2           | RESP3         |
 *  |----------------------------|-----------------|---------------|
 *  | number, bigint             | `:1`            | `:1`          |
 *  | Uint8Array                 | `$3` bulk       | `$3` bulk     |
 *  | null                       | `$-1`           | `_`           |
 *  | NIL_ARRAY                  | `*-1`           | `_`           |
 *  | Simple, Failure            | `+OK`, `-ERR …` | the same      |
 *  | array                      | `*n`            | `*n`          |
 *  | MapReply                   | `*2n`, flat     | `%n`          |
 *  | SetReply                   | `*n`            | `~n`          |
 *  | Push                       | `*n`            | `>n`          |
 *  | Verbatim                   | `$` bulk        | `=` with txt: | */
import { Buffer } from "node:buffer";

/** What a command answers. */
export type Reply =
  | number
  | bigint
  | Uint8Array
  | null
  | typeof NIL_ARRAY
  | Simple
  | Failure
  | MapReply
  | SetReply
  | Push
  | Verbatim
  | Several
  | readonly Reply[];

/** The null array of RESP2, which EXEC answers. */
export const NIL_ARRAY = Symbol("null array");

/** A status line. */
export class Simple {
  readonly bytes: Uint8Array;

  constructor(readonly text: string) {
    this.bytes = textBytes(`+${text}\r\n`);
  }
}

/** An error reply; the text begins with its code: `ERR syntax error`. Texts are Latin-1: one char a byte. */
export class Failure {
  constructor(readonly text: string) {}
}

/** Pairs. */
export class MapReply {
  constructor(readonly pairs: readonly (readonly [Reply, Reply])[]) {}
}

/** An unordered collection. */
export class SetReply {
  constructor(readonly items: readonly Reply[]) {}
}

/** Something that is no answer to a command. */
export class Push {
  constructor(readonly items: readonly Reply[]) {}
}

/** Text for people. */
export class Verbatim {
  constructor(readonly text: string) {}
}

/** Several replies to one command, as SUBSCRIBE gives them. */
export class Several {
  constructor(readonly replies: readonly Reply[]) {}
}

/** What a command says that did what it was asked. */
export const OK: Simple = new Simple("OK");
/** What a command says that waits for EXEC. */
export const QUEUED: Simple = new Simple("QUEUED");

/** A bulk string of text, as UTF-8. */
export function bulk(text: string): Uint8Array {
  return encoder.encode(text);
}

/** The bytes of a Latin-1 text. */
export function textBytes(text: string): Uint8Array {
  const bytes = Buffer.from(text, "latin1");
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

const encoder = new TextEncoder();
const INITIAL_BYTES = 16 * 1_024;
/** A buffer larger than this is let go of after use. */
const KEPT_BYTES = 4 * 1_024 * 1_024;
/** Integers below have their bytes made once. */
const SMALL_INTEGERS = 1_024;
const SMALL: readonly Uint8Array[] = Array.from(
  { length: SMALL_INTEGERS },
  (_, value) => textBytes(`:${value}\r\n`),
);
const NULL_BULK = textBytes("$-1\r\n");
const NULL_ARRAY = textBytes("*-1\r\n");
const NULL_RESP3 = textBytes("_\r\n");

const CR = 13;
const LF = 10;
const DOLLAR = 36;

/** Collects the bytes of replies. */
export class ReplyWriter {
  length = 0;
  #buffer: Buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES);

  /** Takes everything written; the writer starts anew. */
  take(): Uint8Array {
    const { length } = this;
    this.length = 0;
    if (length * 2 > this.#buffer.length) {
      // Handed over as it is: copying would cost more than a new buffer.
      const whole = this.#buffer.subarray(0, length);
      this.#buffer = Buffer.allocUnsafeSlow(length > KEPT_BYTES ? INITIAL_BYTES : this.#buffer.length);
      return whole;
    }
    return new Uint8Array(this.#buffer.subarray(0, length));
  }

  /** The bytes from `start` on, valid until the next write. */
  view(start: number): Uint8Array {
    return this.#buffer.subarray(start, this.length);
  }

  /** Forgets what was written from `length` on. */
  truncate(length: number): void {
    this.length = length;
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  bulk(bytes: Uint8Array): void {
    const size = bytes.length;
    this.#reserve(size + 16);
    const buffer = this.#buffer;
    let at = this.length;
    buffer[at++] = DOLLAR;
    at = this.#digits(at, size);
    buffer[at++] = CR;
    buffer[at++] = LF;
    buffer.set(bytes, at);
    at += size;
    buffer[at++] = CR;
    buffer[at++] = LF;
    this.length = at;
  }

  /** Writes a reply for a client of RESP3, or else of RESP2. */
  reply(reply: Reply, isResp3: boolean): void {
    if (reply === null) return this.raw(isResp3 ? NULL_RESP3 : NULL_BULK);
    if (reply instanceof Uint8Array) return this.bulk(reply);
    if (reply instanceof Simple) return this.raw(reply.bytes);
    if (typeof reply === "number") return this.#integer(reply);
    if (typeof reply === "bigint") return this.#text(`:${reply}\r\n`);
    if (reply === NIL_ARRAY) return this.raw(isResp3 ? NULL_RESP3 : NULL_ARRAY);
    if (reply instanceof Failure) return this.#text(`-${reply.text}\r\n`);
    if (Array.isArray(reply)) return this.#items("*", reply, isResp3);
    if (reply instanceof SetReply) return this.#items(isResp3 ? "~" : "*", reply.items, isResp3);
    if (reply instanceof Push) return this.#items(isResp3 ? ">" : "*", reply.items, isResp3);
    if (reply instanceof MapReply) {
      this.#text(isResp3 ? `%${reply.pairs.length}\r\n` : `*${reply.pairs.length * 2}\r\n`);
      for (const [name, value] of reply.pairs) {
        this.reply(name, isResp3);
        this.reply(value, isResp3);
      }
      return;
    }
    if (reply instanceof Verbatim) {
      const bytes = bulk(reply.text);
      if (!isResp3) return this.bulk(bytes);
      this.#text(`=${bytes.length + 4}\r\ntxt:`);
      this.raw(bytes);
      return this.#text("\r\n");
    }
    if (reply instanceof Several) {
      for (const each of reply.replies) this.reply(each, isResp3);
    }
  }

  #items(mark: string, items: readonly Reply[], isResp3: boolean): void {
    this.#text(`${mark}${items.length}\r\n`);
    for (let i = 0; i < items.length; i++) this.reply(items[i]!, isResp3);
  }

  #integer(value: number): void {
    if (value >= 0 && value < SMALL_INTEGERS) this.raw(SMALL[value]!);
    else this.#text(`:${value}\r\n`);
  }

  #text(text: string): void {
    this.#reserve(text.length);
    this.length += this.#buffer.write(text, this.length, "latin1");
  }

  #digits(at: number, value: number): number {
    let power = 1;
    while (power * 10 <= value) power *= 10;
    for (; power >= 1; power = Math.floor(power / 10)) {
      this.#buffer[at++] = 48 + Math.floor(value / power) % 10;
    }
    return at;
  }

  #reserve(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#buffer.length * 2));
    grown.set(this.#buffer.subarray(0, this.length));
    this.#buffer = grown;
  }
}
