/** Frames of a call: SPEC §1. */
import { Code } from "@connectrpc/connect";

/** What a frame carries (SPEC §1.2). */
export const FRAME = { CALL: 1, MESSAGE: 2, HEADERS: 3, END: 4 } as const;

/** Bytes before every payload: type and length. */
export const FRAME_HEADER_BYTES = 5;

/** Largest CALL or HEADERS payload. Ample for a trace context, a token and a few dozen fields; a peer that sends more is
 *  broken, and until the frame is whole its bytes are kept. SPEC §1.4. */
export const MAX_HEADER_BYTES = 16 * 1024;

/** Largest END payload: an error text with details is larger than headers, but still no place for data. SPEC §1.4. */
export const MAX_END_BYTES = 64 * 1024;

/** Default of `maxMessageBytes`, the largest MESSAGE taken or sent: gRPC's customary 4 MiB. SPEC §1.4. */
export const DEFAULT_MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

/** Default of the largest answer: one MESSAGE of a server half. A range of many keys is one message, which etcd bounds by
 *  memory alone; this bounds what one call may take of it (some three times this while it is built, sent and read).
 *  SPEC §1.4. */
export const DEFAULT_MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** What `FrameReader.next` says when there is no frame: more bytes are needed, or the bytes break the SPEC. */
export const NEED_MORE = 0;
export const VIOLATION = -1;

/** Cuts a half of a stream into frames, whatever the chunks are.
 *
 *  A chunk that arrives when nothing is kept is not copied; payloads are views of it. What stays incomplete is copied into a
 *  buffer that grows with the bytes that really came. Handed-out views are never written to again. */
export class FrameReader {
  /** Payload of the frame that `next` returned last. */
  payload: Uint8Array = EMPTY;
  /** What was broken, after `next` returned VIOLATION. */
  violation: { readonly code: Code; readonly message: string } | undefined;

  #bytes: Uint8Array = EMPTY;
  #start = 0;
  #end = 0;
  /** True when `#bytes` was allocated here and may be appended to. */
  #owned = false;
  readonly #maxMessageBytes: number;

  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Bytes pushed and not yet handed out. */
  get buffered(): number {
    return this.#end - this.#start;
  }

  /** Adds the next chunk; the array is the reader's from now on. */
  push(chunk: Uint8Array): void {
    if (this.#start === this.#end) {
      this.#bytes = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      this.#owned = false;
      return;
    }
    if (chunk.length === 0) return;
    const kept = this.#end - this.#start;
    if (!this.#owned || this.#end + chunk.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(MIN_BUFFER_BYTES, 2 * (kept + chunk.length)));
      grown.set(this.#bytes.subarray(this.#start, this.#end));
      this.#bytes = grown;
      this.#start = 0;
      this.#end = kept;
      this.#owned = true;
    }
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** Type of the frame that begins the buffered bytes; NEED_MORE while there are none. */
  peek(): number {
    return this.#start < this.#end ? this.#bytes[this.#start]! : NEED_MORE;
  }

  /** Takes the next frame: its type (the payload is in `payload`), NEED_MORE or VIOLATION. A violation is final. */
  next(): number {
    if (this.violation !== undefined) return VIOLATION;
    const kept = this.#end - this.#start;
    if (kept < FRAME_HEADER_BYTES) return NEED_MORE;
    const bytes = this.#bytes;
    const at = this.#start;
    const type = bytes[at]!;
    const length = bytes[at + 1]! * 0x1000000 +
      ((bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
    if (length > this.#limit(type)) return this.#violate(type, length);
    if (kept < FRAME_HEADER_BYTES + length) return NEED_MORE;
    const from = at + FRAME_HEADER_BYTES;
    this.payload = bytes.subarray(from, from + length);
    this.#start = from + length;
    return type;
  }

  /** Forgets what is buffered. */
  clear(): void {
    this.#bytes = EMPTY;
    this.#start = this.#end = 0;
    this.#owned = false;
  }

  #limit(type: number): number {
    switch (type) {
      case FRAME.MESSAGE:
        return this.#maxMessageBytes;
      case FRAME.CALL:
      case FRAME.HEADERS:
        return MAX_HEADER_BYTES;
      case FRAME.END:
        return MAX_END_BYTES;
      default:
        return -1;
    }
  }

  #violate(type: number, length: number): number {
    const limit = this.#limit(type);
    if (type === FRAME.MESSAGE) {
      this.violation = {
        code: Code.ResourceExhausted,
        message: `message of ${length} bytes is over the receiver's limit of ${limit}`,
      };
    } else {
      const message = limit < 0
        ? `unknown frame type ${type}`
        : `frame of type ${type} has ${length} bytes, limit ${limit}`;
      this.violation = { code: Code.InvalidArgument, message };
    }
    this.clear();
    return VIOLATION;
  }
}

/** Size of the blocks that small frames are cut from. One allocation then serves many calls; a block lives until the last
 *  of its frames was sent, so it is kept far below a stream's high-water mark. */
const BLOCK_BYTES = 16 * 1024;

/** Builds one write at a time: frames of one call, one behind the other, in one array. */
export class FrameWriter {
  #block: Uint8Array = new Uint8Array(BLOCK_BYTES);
  #start = 0;
  #at = 0;

  /** Bytes of the write so far. */
  get length(): number {
    return this.#at - this.#start;
  }

  /** Ends the write and returns it; the array is the caller's. */
  take(): Uint8Array {
    const taken = this.#block.subarray(this.#start, this.#at);
    this.#start = this.#at;
    if (this.#block.length > BLOCK_BYTES) {
      // What is left of a large array must not live on because of the small frames that would follow in it.
      this.#block = EMPTY;
      this.#start = this.#at = 0;
    }
    return taken;
  }

  /** Cuts the write back to `length` bytes. */
  truncate(length: number): void {
    this.#at = this.#start + length;
  }

  /** Starts a frame whose length is not known yet; returns the mark for `endFrame`. */
  beginFrame(type: number): number {
    this.#reserve(FRAME_HEADER_BYTES);
    const mark = this.#at - this.#start;
    this.#block[this.#at] = type;
    this.#at += FRAME_HEADER_BYTES;
    return mark;
  }

  /** Fills in the length of the frame that began at `mark`; returns that length. */
  endFrame(mark: number): number {
    const at = this.#start + mark;
    const length = this.#at - at - FRAME_HEADER_BYTES;
    const block = this.#block;
    block[at + 1] = length >>> 24;
    block[at + 2] = length >>> 16;
    block[at + 3] = length >>> 8;
    block[at + 4] = length;
    return length;
  }

  u8(value: number): void {
    this.#reserve(1);
    this.#block[this.#at++] = value;
  }

  u16(value: number): void {
    this.#reserve(2);
    this.#block[this.#at++] = value >>> 8;
    this.#block[this.#at++] = value;
  }

  u32(value: number): void {
    this.u16(value >>> 16);
    this.u16(value & 0xffff);
  }

  bytes(value: Uint8Array): void {
    this.#reserve(value.length);
    this.#block.set(value, this.#at);
    this.#at += value.length;
  }

  /** An unsigned number below 2^53 as a base-128 varint. */
  varint(value: number): void {
    this.#reserve(8);
    const block = this.#block;
    let at = this.#at;
    let rest = value;
    while (rest > 0x7fff_ffff) {
      block[at++] = rest % 128 | 0x80;
      rest = Math.floor(rest / 128);
    }
    while (rest > 0x7f) {
      block[at++] = rest & 0x7f | 0x80;
      rest >>>= 7;
    }
    block[at++] = rest;
    this.#at = at;
  }

  /** UTF-8 text behind its length as a varint. */
  text(text: string): void {
    const mark = this.beginSized();
    this.#reserve(text.length * 3);
    const block = this.#block;
    let at = this.#at;
    let i = 0;
    // Short ASCII is the common case and cheaper than a call out of the engine.
    if (text.length <= 64) {
      for (; i < text.length; i++) {
        const unit = text.charCodeAt(i);
        if (unit > 0x7f) break;
        block[at++] = unit;
      }
    }
    if (i < text.length) {
      // A half of a surrogate pair is never split off: what went before was ASCII.
      at += encoder.encodeInto(i === 0 ? text : text.slice(i), block.subarray(at)).written;
    }
    this.#at = at;
    this.endSized(mark);
  }

  /** Starts bytes whose length stands before them as a varint; returns the mark for `endSized`. */
  beginSized(): number {
    this.u8(0);
    return this.#at - this.#start;
  }

  /** Fills in the length of what was written since `mark`, making room when one byte is not enough. */
  endSized(mark: number): void {
    const size = this.#at - this.#start - mark;
    if (size < 0x80) {
      this.#block[this.#start + mark - 1] = size;
      return;
    }
    const extra = size < 0x4000 ? 1 : size < 0x20_0000 ? 2 : size < 0x1000_0000 ? 3 : 4;
    this.#reserve(extra);
    const from = this.#start + mark;
    this.#block.copyWithin(from + extra, from, this.#at);
    this.#at = from - 1;
    this.varint(size);
    this.#at = from + extra + size;
  }

  /** Text whose characters are all below 0x100, one byte each. */
  latin1(text: string): void {
    this.#reserve(text.length);
    const block = this.#block;
    let at = this.#at;
    for (let i = 0; i < text.length; i++) block[at++] = text.charCodeAt(i);
    this.#at = at;
  }

  /** Makes room for `count` more bytes of this write. */
  #reserve(count: number): void {
    if (this.#at + count <= this.#block.length) return;
    const written = this.#at - this.#start;
    const wanted = written + count;
    // A large write gets an array of its own; one that grows doubles, or copying would be quadratic.
    const size = wanted <= BLOCK_BYTES / 4 ? BLOCK_BYTES : Math.max(wanted, 2 * written);
    const block = new Uint8Array(size);
    block.set(this.#block.subarray(this.#start, this.#at));
    this.#block = block;
    this.#start = 0;
    this.#at = written;
  }
}

/** First size of a reader's own buffer. */
const MIN_BUFFER_BYTES = 256;

const EMPTY = new Uint8Array(0);
const encoder = new TextEncoder();
