/** Cuts a gRPC body into messages: each is a flag byte (compressed or not), four bytes of length, and its bytes. */
import { Code } from "@connectrpc/connect";

const PREFIX_BYTES = 5;

/** Why a body cannot be read on, in gRPC's words. */
export interface BodyViolation {
  readonly code: Code;
  readonly message: string;
}

/** Reader of one body. Keeps at most one incomplete message, in a buffer of its own that grows with what really came: a view
 *  would keep a socket's whole chunk alive, as long as the stream lives. */
export class MessageReader {
  /** Set when `next` returned undefined because of it; final. */
  violation: BodyViolation | undefined;
  readonly #maxMessageBytes: number;
  readonly #encoding: string;
  #bytes: Uint8Array = EMPTY;
  #start = 0;
  #end = 0;
  #owned = false;

  /** `encoding` is the request's `grpc-encoding`; compressed messages are refused with it. */
  constructor(maxMessageBytes: number, encoding = "identity") {
    this.#maxMessageBytes = maxMessageBytes;
    this.#encoding = encoding;
  }

  /** True when the body may not end here: a message has begun. */
  get isPartial(): boolean {
    return this.#end > this.#start;
  }

  /** Adds a chunk, which is the reader's from now on. */
  push(chunk: Uint8Array): void {
    if (this.violation !== undefined || chunk.length === 0) return;
    const kept = this.#end - this.#start;
    if (kept === 0) {
      this.#bytes = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      this.#owned = false;
      return;
    }
    if (this.#end + chunk.length > this.#bytes.length) this.#move(2 * (kept + chunk.length));
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** The next whole message, a view of what was pushed; undefined when more bytes are needed or the body is broken. */
  next(): Uint8Array | undefined {
    const at = this.#start;
    if (this.violation !== undefined || this.#end - at < PREFIX_BYTES) return this.#keepRest();
    const bytes = this.#bytes;
    const length = bytes[at + 1]! * 0x1000000 +
      ((bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
    if (bytes[at]! > 1) {
      return this.#refuse(Code.Internal, `grpc: received unexpected payload format ${bytes[at]}`);
    }
    if (bytes[at] === 1) {
      return this.#encoding === "identity"
        ? this.#refuse(Code.Internal, "grpc: compressed flag set with identity or empty encoding")
        : this.#refuse(
          Code.Unimplemented,
          `grpc: Decompressor is not installed for grpc-encoding "${this.#encoding}"`,
        );
    }
    if (length > this.#maxMessageBytes) {
      return this.#refuse(
        Code.ResourceExhausted,
        `grpc: received message larger than max (${length} vs. ${this.#maxMessageBytes})`,
      );
    }
    const from = at + PREFIX_BYTES;
    if (this.#end < from + length) return this.#keepRest();
    this.#start = from + length;
    return bytes.subarray(from, this.#start);
  }

  #keepRest(): undefined {
    const kept = this.#end - this.#start;
    if (kept === 0) {
      this.#bytes = EMPTY;
      this.#start = this.#end = 0;
    } else if (!this.#owned) this.#move(kept);
    return undefined;
  }

  /** Moves what is kept to a new buffer. */
  #move(size: number): void {
    const kept = this.#end - this.#start;
    const moved = new Uint8Array(size);
    moved.set(this.#bytes.subarray(this.#start, this.#end));
    this.#bytes = moved;
    this.#start = 0;
    this.#end = kept;
    this.#owned = true;
  }

  #refuse(code: Code, message: string): undefined {
    this.violation = { code, message };
    this.#bytes = EMPTY;
    this.#start = this.#end = 0;
    return undefined;
  }
}

/** What stands before a message. */
export function prefixOf(message: Uint8Array): Uint8Array {
  const { length } = message;
  const bytes = new Uint8Array(PREFIX_BYTES);
  bytes[1] = length >>> 24;
  bytes[2] = length >>> 16;
  bytes[3] = length >>> 8;
  bytes[4] = length;
  return bytes;
}

const EMPTY = new Uint8Array(0);
