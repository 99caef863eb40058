/** One stream of a connection: what its user may do, and what the connection keeps of it. */
import type { Http2Connection } from "./connection.ts";
import { JOINED_BYTES_MAX } from "./params.ts";

/** Why a stream was reset: the peer did it; the peer's mistake was answered with it; the connection has ended; or the peer
 *  certainly did nothing with it, so that it may be tried again. */
export type ResetCause = "peer" | "mistake" | "connection" | "unprocessed";

/** Told of what happens to one stream. Runs while the connection takes bytes; must not throw. */
export interface StreamHandler {
  /** A piece of the peer's body: a view of what was received, never written to again by this side. */
  onBody(bytes: Uint8Array): void;
  /** The peer has sent everything. `trailers` are name, value, name, value …, mostly none. */
  onBodyEnd(trailers: readonly string[]): void;
  /** The stream is over before its end. Nothing follows. `code` is one of ERROR, if the peer knows what it says. */
  onReset(code: number, cause: ResetCause): void;
  /** `write` may be called again after it had returned false. */
  onWritable(): void;
}

/** A list that streams of one connection wait in. */
export class StreamList {
  #first: Http2Stream | undefined;
  #last: Http2Stream | undefined;
  /** How many wait. */
  length = 0;

  /** True when nothing waits. */
  get isEmpty(): boolean {
    return this.#first === undefined;
  }

  /** Puts a stream at the end, out of any other list; nothing happens when it is in this one. */
  push(stream: Http2Stream): void {
    if (stream.list === this) return;
    stream.list?.remove(stream);
    stream.list = this;
    this.length++;
    stream.before = this.#last;
    if (this.#last === undefined) this.#first = stream;
    else this.#last.after = stream;
    this.#last = stream;
  }

  /** Takes the first one out. */
  shift(): Http2Stream | undefined {
    const first = this.#first;
    if (first !== undefined) this.remove(first);
    return first;
  }

  /** Takes a stream out that is in. */
  remove(stream: Http2Stream): void {
    this.length--;
    const { before, after } = stream;
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    stream.before = stream.after = stream.list = undefined;
  }
}

/** A stream. The fields below the methods are the connection's. */
export class Http2Stream {
  /** At a server set by whoever takes the request, before that returns. */
  handler: StreamHandler = IGNORE;

  constructor(
    readonly connection: Http2Connection,
    /** 0 while it was not opened. The connection's to change. */
    public id: number,
    /** What the peer lets us send, in bytes. May be negative. */
    public sendWindow: number,
    /** What the peer may still send, in bytes. */
    public receiveWindow: number,
    /** Body bytes that are still to come by `content-length`; -1 when it is not known. */
    public contentLeft: number,
  ) {}

  /** False once the stream is over; commands do nothing then. */
  get isOpen(): boolean {
    return !this.isClosed;
  }

  /** Sends the header fields of an answer, made by `encodeFields`; with `isLast` they are the whole answer. */
  respond(block: Uint8Array, isLast = false): void {
    if (this.isClosed || this.isEnding) return;
    this.head = block;
    this.isEnding = isLast;
    this.connection.send(this);
  }

  /** Sends body bytes, in one or two parts that are the stream's from now on; false asks to wait for `onWritable`. */
  write(first: Uint8Array, second: Uint8Array = NO_BYTES): boolean {
    if (this.isClosed || this.isEnding || first.length + second.length === 0) return true;
    if (this.queuedBytes === 0 && this.connection.sendParts(this, first, second)) return true;
    if (first.length + second.length > JOINED_BYTES_MAX) {
      this.#queue(first);
      this.#queue(second);
    } else {
      const joined = new Uint8Array(first.length + second.length);
      joined.set(first);
      joined.set(second, first.length);
      this.#queue(joined);
    }
    this.connection.send(this);
    return this.connection.mayWrite(this);
  }

  /** Ends what this side sends, with trailer fields if there are any. */
  end(trailers?: Uint8Array): void {
    if (this.isClosed || this.isEnding) return;
    this.isEnding = true;
    this.trailers = trailers;
    this.connection.send(this);
  }

  /** Sends a whole answer: header fields, a body of one or two parts, trailer fields if there are any. */
  answer(head: Uint8Array, first: Uint8Array, second: Uint8Array, trailers: Uint8Array | undefined): void {
    if (this.isClosed || this.isEnding) return;
    this.head = head;
    this.isEnding = true;
    this.trailers = trailers;
    if (trailers !== undefined && this.queuedBytes === 0 && this.connection.sendWhole(this, first, second)) {
      return;
    }
    this.#queue(first);
    this.#queue(second);
    this.connection.send(this);
  }

  /** Gives the stream up. The handler is not told. */
  reset(code: number): void {
    if (!this.isClosed) this.connection.resetStream(this, code);
  }

  /** Lets the peer send no more than its window. What has come is still passed on. Idempotent. */
  pause(): void {
    this.isPaused = true;
  }

  /** Lets the peer send on. Idempotent. */
  resume(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.connection.release(this);
  }

  isClosed = false;
  /** The peer's header fields have come: its body may follow. */
  hasHead = true;
  /** The peer has sent everything. */
  hasReceived = false;
  /** Everything that this side sends is known; it may wait here. */
  isEnding = false;
  /** The last DATA frame said that it was the last. */
  hasSentEnd = false;
  /** Everything that this side sends was framed. */
  hasSent = false;
  head: Uint8Array | undefined = undefined;
  trailers: Uint8Array | undefined = undefined;
  /** Body parts that wait; the first `sentParts` are gone, and `sentBytes` of the next. */
  parts: Uint8Array[] | undefined = undefined;
  sentParts = 0;
  sentBytes = 0;
  queuedBytes = 0;
  /** `write` returned false. */
  isFull = false;
  isPaused = false;
  /** Bytes that came while it was paused: of neither window until it goes on. */
  heldBytes = 0;
  /** Bytes read that the peer's window was not widened for. */
  consumedBytes = 0;
  list: StreamList | undefined = undefined;
  before: Http2Stream | undefined = undefined;
  after: Http2Stream | undefined = undefined;

  #queue(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    (this.parts ??= []).push(bytes);
    this.queuedBytes += bytes.length;
    this.connection.queuedBytes += bytes.length;
  }
}

const NO_BYTES = new Uint8Array(0);
const IGNORE: StreamHandler = { onBody() {}, onBodyEnd() {}, onReset() {}, onWritable() {} };
