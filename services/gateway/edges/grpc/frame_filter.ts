/** Watches the HTTP/2 frames that a client sends, before the HTTP/2 server sees them.
 *
 *  Bytes pass through as they are, with one exception: GOAWAY frames are taken out. Deno's node:http2 (2.9.6) closes
 *  streams while it walks over them when a client says goodbye, which corrupts memory and ends the process
 *  (`find_stream_on_goaway_func: Assertion stream->closed_next == NULL`, or `free(): invalid pointer`); any client could
 *  stop the product that way. A GOAWAY only says that the client will open no more streams, so nothing is lost: its
 *  connection ends when it closes it. */

const PREFACE_BYTES = 24;
const FRAME_HEADER_BYTES = 9;
const TYPE = { RST_STREAM: 3, PING: 6, GOAWAY: 7 } as const;
const FLAG_ACK = 0x01;

/** What a filter tells its owner. */
export interface FrameFilterHandler {
  /** Bytes for the HTTP/2 server: views of a pushed chunk, or a copy of a frame header that came in two. */
  onBytes(bytes: Uint8Array): void;
  /** A PING that is no answer. */
  onPing(): void;
  /** A RST_STREAM. */
  onReset(): void;
}

/** Filter of one connection. Keeps at most one frame header, whatever a client sends. */
export class FrameFilter {
  readonly #handler: FrameFilterHandler;
  /** Bytes of the current frame (first: of the preface) still to come. */
  #left = PREFACE_BYTES;
  #drops = false;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerBytes = 0;

  constructor(handler: FrameFilterHandler) {
    this.#handler = handler;
  }

  /** Takes the next bytes, in chunks of any size. */
  push(chunk: Uint8Array): void {
    let at = 0;
    let from = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const count = Math.min(this.#left, chunk.length - at);
        at += count;
        this.#left -= count;
        if (this.#drops) from = at;
      } else if (this.#headerBytes === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
        this.#begin(chunk, at);
        if (this.#drops) {
          if (from < at) this.#handler.onBytes(chunk.subarray(from, at));
          from = at + FRAME_HEADER_BYTES;
        }
        at += FRAME_HEADER_BYTES;
      } else {
        if (from < at) this.#handler.onBytes(chunk.subarray(from, at));
        const count = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, chunk.length - at);
        this.#header.set(chunk.subarray(at, at + count), this.#headerBytes);
        this.#headerBytes += count;
        from = at += count;
        if (this.#headerBytes < FRAME_HEADER_BYTES) return;
        this.#headerBytes = 0;
        this.#begin(this.#header, 0);
        if (!this.#drops) this.#handler.onBytes(this.#header.slice());
      }
    }
    if (from < at) this.#handler.onBytes(from === 0 ? chunk : chunk.subarray(from, at));
  }

  #begin(bytes: Uint8Array, at: number): void {
    this.#left = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    const type = bytes[at + 3]!;
    this.#drops = type === TYPE.GOAWAY;
    if (type === TYPE.RST_STREAM) this.#handler.onReset();
    else if (type === TYPE.PING && (bytes[at + 4]! & FLAG_ACK) === 0) this.#handler.onPing();
  }
}
