/** The client's end of a connection: streams it opens, or that wait to be opened, and how a server sends it away. */
import { Http2Connection, protocolError } from "./connection.ts";
import { ERROR } from "./errors.ts";
import { areTrailers } from "./fields.ts";
import { PREFACE, readU31, readU32, SETTING } from "./frames.ts";
import type { FieldBlock } from "./hpack.ts";
import {
  FRAMES_AFTER_RESET,
  MAX_INTERIM_ANSWERS,
  MAX_OPEN_STREAMS,
  MAX_OUTPUT_BYTES,
  MAX_WAITING_STREAMS,
  MAX_WINDOW_BYTES,
  STREAM_WINDOW_BYTES,
} from "./params.ts";
import { readResponseHead, type ResponseHead } from "./response.ts";
import { Http2Stream, type StreamHandler, StreamList } from "./stream.ts";

/** Told of the answer to one request. Runs while the connection takes bytes; must not throw. */
export interface ResponseHandler extends StreamHandler {
  /** The answer has begun; with `isWhole` that was all of it, and nothing follows. Interim answers (1xx) are not told. */
  onHead(head: ResponseHead, isWhole: boolean): void;
}

/** Told of what happens on a connection. Runs while the connection takes bytes or a command; must not throw. */
export interface ClientHandler {
  /** There is something to `poll`. Called once until it is polled. */
  onOutput(): void;
  /** The server has shown that it speaks HTTP/2; streams are opened from now on. */
  onReady(): void;
  /** The server takes no more streams. Those it knows go on; the others have ended as "unprocessed". */
  onGoAway(code: number, text: string): void;
  /** The answer to a ping. */
  onPong(): void;
}

/** What bounds a connection; the rest is in params.ts. */
export interface ClientOptions {
  /** Header fields of one answer, in bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them; more ends its stream, a block of
   *  twice as many bytes the connection. */
  readonly maxHeaderListBytes: number;
}

/** A stream that a client opens. */
export class Http2ClientStream extends Http2Stream {
  /** Interim answers that came. */
  interims = 0;

  constructor(connection: Http2ClientConnection, readonly response: ResponseHandler) {
    super(connection, 0, 0, STREAM_WINDOW_BYTES, -1);
    this.handler = response;
    this.hasHead = false;
  }
}

/** The client's end of a connection. Streams are opened in the order they were asked for: at once, or when the server has
 *  said how many it takes and others have ended. */
export class Http2ClientConnection extends Http2Connection<Http2ClientStream> {
  readonly #handler: ClientHandler;
  readonly #waiting = new StreamList();
  #pings = 0;
  #hasStarted = false;
  #maxStreams = MAX_OPEN_STREAMS;
  /** Streams above this one are not answered: 2^31 until the server, or this side, has said that no more come. */
  #lastAnsweredId = MAX_WINDOW_BYTES + 1;

  constructor(handler: ClientHandler, options: ClientOptions) {
    super({
      prefaceBytes: 0,
      maxHeaderListBytes: options.maxHeaderListBytes,
      sharesWindow: false,
      onOutput: () => handler.onOutput(),
    });
    this.#handler = handler;
    this.out.bytes(PREFACE);
    this.sendSettings([
      [SETTING.ENABLE_PUSH, 0],
      [SETTING.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES],
      [SETTING.MAX_HEADER_LIST_SIZE, options.maxHeaderListBytes],
    ]);
  }

  /** True while streams may be opened, if need be later: false when the connection ends or its ids are used up. */
  get isOpen(): boolean {
    return this.end === undefined && !this.#isEnding && this.lastStreamId < MAX_WINDOW_BYTES;
  }

  /** Streams that wait to be opened. */
  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Sends a request: header fields made by `encodeFields`; with `isLast` they are the whole of it, else the stream's `write`
   *  and `end` follow. Returns undefined when the connection takes no more, or too many wait already. */
  open(head: Uint8Array, handler: ResponseHandler, isLast = false): Http2ClientStream | undefined {
    const stream = this.#wait(handler);
    if (stream === undefined) return undefined;
    stream.head = head;
    stream.isEnding = isLast;
    this.#openWaiting();
    return stream;
  }

  /** Sends a whole request with a body of two parts, which are the stream's from now on. */
  request(
    head: Uint8Array,
    first: Uint8Array,
    second: Uint8Array,
    handler: ResponseHandler,
  ): Http2ClientStream | undefined {
    const stream = this.#wait(handler);
    // It waits still, so that the body is kept with it and leaves in one go.
    stream?.answer(head, first, second, undefined);
    this.#openWaiting();
    return stream;
  }

  /** Asks for a sign of life; `onPong` tells of it. */
  override ping(): void {
    if (this.end !== undefined) return;
    this.#pings++;
    super.ping(PING);
  }

  /** Opens no more streams; `isDone` becomes true when those that are open have ended. Those that wait end now, as
   *  "unprocessed". Idempotent. */
  shutdown(): void {
    if (this.end !== undefined || this.#isEnding) return;
    this.goAway(0, ERROR.NO_ERROR, "");
    this.#endAbove(this.lastStreamId);
  }

  override poll(): Uint8Array | undefined {
    if (this.#waiting.length > 0) this.#openWaiting();
    return super.poll();
  }

  override close(): void {
    this.end ??= { code: ERROR.NO_ERROR, message: "" };
    this.#dropWaiting();
    super.close();
  }

  override resetStream(stream: Http2Stream, code: number): void {
    if (stream.id === 0) return this.remove(stream);
    super.resetStream(stream, code);
    this.idleFrames.give(FRAMES_AFTER_RESET);
  }

  get #isEnding(): boolean {
    return this.#lastAnsweredId <= MAX_WINDOW_BYTES;
  }

  // ---- streams that wait

  #wait(handler: ResponseHandler): Http2ClientStream | undefined {
    if (!this.isOpen || this.#waiting.length >= MAX_WAITING_STREAMS) return undefined;
    const stream = new Http2ClientStream(this, handler);
    this.#waiting.push(stream);
    return stream;
  }

  /** Opens as many as the server takes and the output has room for: ids must go up in the order of the frames. */
  #openWaiting(): void {
    while (
      this.#waiting.length > 0 && this.#hasStarted && this.isOpen && this.streams.size < this.#maxStreams &&
      this.out.length < MAX_OUTPUT_BYTES
    ) {
      const stream = this.#waiting.shift() as Http2ClientStream;
      stream.id = this.lastStreamId += this.lastStreamId === 0 ? 1 : 2;
      stream.sendWindow = this.initialSendWindow;
      this.streams.set(stream.id, stream);
      this.flush(stream);
    }
    if (!this.isOpen) this.#dropWaiting();
  }

  #dropWaiting(): void {
    for (let stream = this.#waiting.shift(); stream !== undefined; stream = this.#waiting.shift()) {
      this.remove(stream);
      stream.handler.onReset(ERROR.REFUSED_STREAM, "unprocessed");
    }
  }

  /** No stream above `id` is answered, and no more are opened. */
  #endAbove(id: number): void {
    this.#lastAnsweredId = Math.min(id, this.#lastAnsweredId);
    for (const stream of this.streams.values()) {
      if (stream.id <= this.#lastAnsweredId) continue;
      this.remove(stream);
      stream.handler.onReset(ERROR.REFUSED_STREAM, "unprocessed");
    }
    this.#dropWaiting();
    if (this.streams.size === 0) this.signal();
  }

  // ---- answers

  protected override onBlock(id: number, block: FieldBlock, ends: boolean): void {
    const stream = this.streams.get(id);
    if (stream === undefined) {
      if (this.isIdle(id)) throw protocolError("HEADERS on a stream that is not open");
      return this.countIdle();
    }
    if (stream.hasReceived) return this.failStream(stream, ERROR.STREAM_CLOSED);
    if (block.isTooLarge) return this.failStream(stream, ERROR.ENHANCE_YOUR_CALM);
    if (block.isMalformed) return this.failStream(stream, ERROR.PROTOCOL_ERROR);
    if (!stream.hasHead) return this.#onHead(stream, block, ends);
    if (!ends || !areTrailers(block.fields)) return this.failStream(stream, ERROR.PROTOCOL_ERROR);
    this.finishReceiving(stream, block.fields);
  }

  #onHead(stream: Http2ClientStream, block: FieldBlock, ends: boolean): void {
    // Blocks that say the same share one object, and so do their heads.
    const head = (block.memo ??= readResponseHead(block.fields)) as ResponseHead | undefined;
    const isInterim = head !== undefined && head.status < 200;
    if (head === undefined || (isInterim && (ends || ++stream.interims > MAX_INTERIM_ANSWERS))) {
      return this.failStream(stream, ERROR.PROTOCOL_ERROR);
    }
    if (isInterim) return;
    stream.hasHead = true;
    stream.hasReceived = ends;
    stream.contentLeft = ends ? -1 : head.contentLength;
    stream.response.onHead(head, ends);
    if (ends && stream.hasSent) this.remove(stream);
  }

  protected override onStrayData(id: number, length: number): void {
    if (this.isIdle(id)) throw protocolError("DATA on a stream that is not open");
    if (length === 0) this.countIdle();
  }

  // ---- the other frames

  protected override onSetting(setting: number, value: number): void {
    if (setting === SETTING.MAX_CONCURRENT_STREAMS) this.#maxStreams = Math.min(value, MAX_OPEN_STREAMS);
    if (setting === SETTING.ENABLE_PUSH && value !== 0) {
      throw protocolError(`SETTINGS_ENABLE_PUSH ${value}`);
    }
  }

  protected override onSettings(): void {
    if (!this.#hasStarted) {
      this.#hasStarted = true;
      this.#handler.onReady();
    }
    this.#openWaiting();
  }

  protected override onGoAway(bytes: Uint8Array, start: number, end: number): void {
    this.countIdle();
    const lastId = readU31(bytes, start);
    this.#lastAnsweredId = Math.min(lastId, this.#lastAnsweredId);
    const text = String.fromCharCode(
      ...bytes.subarray(start + 8, Math.min(end, start + 8 + GOAWAY_TEXT_MAX)),
    );
    this.#handler.onGoAway(readU32(bytes, start + 4), text);
    this.#endAbove(lastId);
  }

  protected override onPong(): void {
    if (this.#pings === 0) return this.countIdle();
    this.#pings--;
    this.#handler.onPong();
  }

  protected override onRemoved(): void {
    if (!this.isDrained) return this.#openWaiting();
    this.signal();
  }

  protected override get isDrained(): boolean {
    return this.#isEnding && this.streams.size === 0;
  }

  /** A server opens no streams: pushes are not taken. */
  protected override get lastTakenId(): number {
    return 0;
  }

  /** The server says nothing before its settings. */
  protected override onPreface(): void {}

  /** Servers measure the connection by pings, as often as it goes to and fro; each is answered by as many bytes. */
  protected override onPing(): void {}

  /** A client opens what is reset. */
  protected override countReset(): void {}
}

/** What is kept of a server's words when it sends the client away, in bytes. */
const GOAWAY_TEXT_MAX = 256;
const PING = Uint8Array.of(0x61, 0x66, 0x2d, 0x61, 0x6c, 0x69, 0x76, 0x65);
