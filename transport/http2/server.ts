/** The server's end of a connection: requests, what a client may do only so often, and a shutdown in order. */
import { type Abuse, Allowance, Http2Connection, protocolError } from "./connection.ts";
import { ERROR, Http2Error } from "./errors.ts";
import { areTrailers } from "./fields.ts";
import { PREFACE, SETTING } from "./frames.ts";
import { encodeFields, type FieldBlock } from "./hpack.ts";
import {
  EARLY_PINGS_MAX,
  MAX_QUEUED_BYTES,
  MAX_WINDOW_BYTES,
  RESET_BURST,
  RESETS_PER_SECOND,
  STREAM_WINDOW_BYTES,
} from "./params.ts";
import { readHead, type RequestHead } from "./request.ts";
import { Http2Stream } from "./stream.ts";

/** Told of what happens on a connection. Runs while the connection takes bytes or a command; must not throw. */
export interface ServerHandler {
  /** A request has begun. Whoever takes it sets `stream.handler`. With `isWhole` it has no body. */
  onRequest(stream: Http2Stream, head: RequestHead, isWhole: boolean): void;
  /** There is something to `poll`. Called once until it is polled. */
  onOutput(): void;
  /** The client did too much of something; the connection is over. */
  onAbuse(what: Abuse): void;
}

/** What bounds a connection; the rest is in params.ts. */
export interface ServerOptions {
  /** Streams open at once; told to the client, and further ones are refused. */
  readonly maxConcurrentStreams: number;
  /** Header fields of one request, in bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them; more is answered with 431. A
   *  header block of twice as many bytes ends the connection. */
  readonly maxHeaderListBytes: number;
  /** How often the client may send pings, in ms. Answers sent in between forgive early ones. */
  readonly minPingIntervalMs: number;
}

/** The server's end of a connection. */
export class Http2ServerConnection extends Http2Connection {
  readonly #handler: ServerHandler;
  readonly #options: ServerOptions;
  readonly #resets = new Allowance(RESET_BURST, RESETS_PER_SECOND);
  #lastPingAtMs = -Infinity;
  #isShuttingDown = false;
  /** Streams above this one are not served any more. */
  #lastServedId = Infinity;

  constructor(handler: ServerHandler, options: ServerOptions) {
    super({
      prefaceBytes: PREFACE.length,
      maxHeaderListBytes: options.maxHeaderListBytes,
      sharesWindow: true,
      onOutput: () => handler.onOutput(),
    });
    this.#handler = handler;
    this.#options = options;
  }

  /** Ends the connection in order: the client learns of it, streams it opened before it did are served (RFC 9113 §6.8), and
   *  `isDone` becomes true when they have ended. Idempotent. */
  shutdown(): void {
    if (this.#isShuttingDown || this.end !== undefined) return;
    this.#isShuttingDown = true;
    this.goAway(MAX_WINDOW_BYTES, ERROR.NO_ERROR, "");
    this.ping(SHUTDOWN_PING);
  }

  protected override get isDrained(): boolean {
    return this.#lastServedId !== Infinity && this.streams.size === 0;
  }

  protected override get lastTakenId(): number {
    return this.lastStreamId;
  }

  protected override onPreface(): void {
    this.sendSettings([
      [SETTING.MAX_CONCURRENT_STREAMS, this.#options.maxConcurrentStreams],
      [SETTING.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES],
      [SETTING.MAX_HEADER_LIST_SIZE, this.#options.maxHeaderListBytes],
    ]);
  }

  // ---- requests

  protected override onBlock(id: number, block: FieldBlock, ends: boolean): void {
    if (id > this.lastStreamId) return this.#onNewStream(id, block, ends);
    const stream = this.streams.get(id);
    if (stream === undefined) {
      if (this.wasReset(id)) return this.countIdle();
      throw new Http2Error(ERROR.STREAM_CLOSED, "HEADERS on a stream that has ended");
    }
    if (stream.hasReceived) return this.failStream(stream, ERROR.STREAM_CLOSED);
    if (!ends || block.isMalformed || !areTrailers(block.fields)) {
      return this.failStream(stream, ERROR.PROTOCOL_ERROR);
    }
    this.finishReceiving(stream, block.fields);
  }

  #onNewStream(id: number, block: FieldBlock, isWhole: boolean): void {
    this.lastStreamId = id;
    if (id > this.#lastServedId) return this.countIdle();
    if (this.streams.size >= this.#options.maxConcurrentStreams || this.queuedBytes > MAX_QUEUED_BYTES) {
      this.countReset();
      return this.sendReset(id, ERROR.REFUSED_STREAM);
    }
    const head = block.isTooLarge || block.isMalformed ? undefined : this.#headOf(block);
    if (!block.isTooLarge && (head === undefined || (isWhole && head.contentLength > 0))) {
      this.countReset();
      return this.sendReset(id, ERROR.PROTOCOL_ERROR);
    }
    const stream = new Http2Stream(
      this,
      id,
      this.initialSendWindow,
      STREAM_WINDOW_BYTES,
      isWhole || head === undefined ? -1 : head.contentLength,
    );
    stream.hasReceived = isWhole;
    this.streams.set(id, stream);
    if (head === undefined) return stream.respond(HEADERS_TOO_LARGE, true);
    this.#handler.onRequest(stream, head, isWhole);
  }

  /** Blocks that say the same share one object, and so do their heads. */
  #headOf(block: FieldBlock): RequestHead | undefined {
    return (block.memo ??= readHead(block.fields)) as RequestHead | undefined;
  }

  protected override onStrayData(id: number, _length: number): void {
    if (this.isIdle(id)) throw protocolError("DATA on a stream that is not open");
    this.countIdle();
    if (this.wasReset(id) || id > this.#lastServedId) return;
    this.countReset();
    this.sendReset(id, ERROR.STREAM_CLOSED);
  }

  // ---- the other frames

  protected override onSetting(setting: number, value: number): void {
    if (setting === SETTING.ENABLE_PUSH && value > 1) throw protocolError(`SETTINGS_ENABLE_PUSH ${value}`);
  }

  protected override onSettings(): void {}

  protected override onPing(): void {
    const isEarly = this.nowMs - this.#lastPingAtMs < this.#options.minPingIntervalMs;
    this.#lastPingAtMs = this.nowMs;
    if (isEarly && ++this.earlyPings > EARLY_PINGS_MAX) this.abuse("pings", "too_many_pings");
  }

  protected override onPong(bytes: Uint8Array, start: number): void {
    const isOurs = this.#isShuttingDown && this.#lastServedId === Infinity &&
      SHUTDOWN_PING.every((byte, i) => bytes[start + i] === byte);
    if (!isOurs) return this.countIdle();
    this.#lastServedId = this.lastStreamId;
    this.goAway(this.lastStreamId, ERROR.NO_ERROR, "");
  }

  protected override onGoAway(): void {
    // The client opens no more streams and closes the connection when the rest have ended.
    this.countIdle();
  }

  protected override onRemoved(): void {
    // A shutdown may have waited for it.
    if (this.isDrained) this.signal();
  }

  protected override countReset(): void {
    if (!this.#resets.take(this.nowMs)) this.abuse("resets", "too_many_resets");
  }

  protected override abuse(what: Abuse, text: string): never {
    this.#handler.onAbuse(what);
    super.abuse(what, text);
  }
}

/** The ping that says whether the client has seen the first GOAWAY of a shutdown. */
const SHUTDOWN_PING = Uint8Array.of(0x61, 0x66, 0x2d, 0x64, 0x72, 0x61, 0x69, 0x6e);
const HEADERS_TOO_LARGE = encodeFields([[":status", "431"]]);
