/** What both ends of an HTTP/2 connection (RFC 9113) have in common, without sockets and clocks: bytes in, calls of handlers
 *  out; commands in, bytes out. server.ts and client.ts are the ends.
 *
 *  ```
 *   receive(bytes) ─► frames ─┬─► onBlock (the end's), stream.handler.onBody / onBodyEnd / onReset
 *                             └─► answers to settings and pings
 *   stream.write / end … ─► framed at once while there is room and window, else kept with the stream:
 *        sendable ── room in the output, a frame a turn ──►  poll() ─► bytes
 *        starved ─── the connection's window is used up; WINDOW_UPDATE makes them sendable
 *        (none) ──── its own window is used up; WINDOW_UPDATE makes it sendable
 *  ``` */
import { IdMap } from "../quantum/core/id_map.ts";
import { ERROR, Http2Error } from "./errors.ts";
import { FLAG, FRAME_HEADER_BYTES, FrameWriter, PREFACE, readU31, readU32, SETTING, TYPE } from "./frames.ts";
import { type FieldBlock, HpackDecoder, NO_TABLE } from "./hpack.ts";
import {
  CONNECTION_WINDOW_BYTES,
  DEFAULT_WINDOW_BYTES,
  IDLE_FRAME_BURST,
  IDLE_FRAMES_PER_SECOND,
  MAX_CONTINUATIONS,
  MAX_CONTROL_BYTES,
  MAX_FRAME_BYTES,
  MAX_OUTPUT_BYTES,
  MAX_SENT_FRAME_BYTES,
  MAX_WINDOW_BYTES,
  REMEMBERED_RESETS,
  STREAM_QUEUE_BYTES,
  STREAM_QUEUE_LOW_BYTES,
  STREAM_WINDOW_BYTES,
} from "./params.ts";
import { Http2Stream, StreamList } from "./stream.ts";

/** What a peer did too much of. */
export type Abuse = "pings" | "resets" | "frames";

/** What an end of a connection is like. */
export interface ConnectionRole {
  /** Bytes of text that the peer says before its first frame. */
  readonly prefaceBytes: number;
  /** Header fields of one block, in bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them. A block of twice as many bytes ends
   *  the connection. */
  readonly maxHeaderListBytes: number;
  /** Whether what comes for paused streams fills the window of the connection, which bounds what a peer that opens streams
   *  can have kept here. The end that opens them bounds it by their number, and keeps others from being held up. */
  readonly sharesWindow: boolean;
  /** There is something to `poll`. Called once until it is polled. */
  onOutput(): void;
}

/** How a connection was given up by this side. */
export interface ConnectionEnd {
  /** One of ERROR. */
  readonly code: number;
  readonly message: string;
}

/** One end of a connection. */
export abstract class Http2Connection<S extends Http2Stream = Http2Stream> {
  /** Set when this side has given the connection up: what is left to poll is the last, and nothing more is read. */
  end: ConnectionEnd | undefined;
  /** Body bytes that wait at all streams. The streams' to change. */
  queuedBytes = 0;
  protected readonly out = new FrameWriter();
  protected readonly streams = new IdMap<S>();
  /** The last stream that the client has opened. */
  protected lastStreamId = 0;
  protected nowMs = 0;
  /** Pings that came too early since a body was sent: the server's to judge. */
  protected earlyPings = 0;
  protected readonly idleFrames = new Allowance(IDLE_FRAME_BURST, IDLE_FRAMES_PER_SECOND);
  readonly #role: ConnectionRole;
  readonly #hpack: HpackDecoder;
  readonly #sendable = new StreamList();
  readonly #starved = new StreamList();
  #hasSignalled = false;
  #hasSentBlock = false;

  // What comes in.
  /** Bytes of the preface that have not come. */
  #prefaceLeft: number;
  #sawSettings = false;
  /** A frame of which not everything has come, header included. */
  #partial: Uint8Array = NO_BYTES;
  #partialBytes = 0;
  /** The DATA frame under way: bytes of body and of padding still to come. */
  #dataLeft = 0;
  #paddingLeft = 0;
  #wantsPadLength = false;
  #dataStream: Http2Stream | undefined;
  #dataEnds = false;
  /** The header block under way: its stream (0 is none) and what has come of it. */
  #blockStreamId = 0;
  #blockEnds = false;
  #block: Uint8Array = NO_BYTES;
  #blockBytes = 0;
  #continuations = 0;
  #receiveWindow = CONNECTION_WINDOW_BYTES;
  #consumedBytes = 0;

  readonly #resetIds = new Int32Array(REMEMBERED_RESETS);
  #resetCount = 0;

  // What the peer allows.
  #sendWindow = DEFAULT_WINDOW_BYTES;
  protected initialSendWindow = DEFAULT_WINDOW_BYTES;

  constructor(role: ConnectionRole) {
    this.#role = role;
    this.#prefaceLeft = role.prefaceBytes;
    this.#hpack = new HpackDecoder(role.maxHeaderListBytes);
  }

  // ---- what the ends do each in their way

  /** True when no stream is left and none will come, after either side has said so. */
  protected abstract get isDrained(): boolean;
  /** The last stream of the peer that was taken, for GOAWAY. */
  protected abstract get lastTakenId(): number;
  /** The peer's preface is complete. */
  protected abstract onPreface(): void;
  /** A header block has come, with `ends` as the last of its stream. */
  protected abstract onBlock(id: number, block: FieldBlock, ends: boolean): void;
  /** DATA has come for a stream that is not open. */
  protected abstract onStrayData(id: number, length: number): void;
  /** A setting that means something to one end only. */
  protected abstract onSetting(setting: number, value: number): void;
  /** Settings were taken over. */
  protected abstract onSettings(): void;
  protected abstract onPing(): void;
  protected abstract onPong(bytes: Uint8Array, start: number): void;
  protected abstract onGoAway(bytes: Uint8Array, start: number, end: number): void;
  /** A stream was reset by the peer, or because of its mistake. */
  protected abstract countReset(): void;
  /** A stream has left. */
  protected abstract onRemoved(): void;

  /** True once the peer has shown that it speaks HTTP/2. */
  get hasStarted(): boolean {
    return this.#sawSettings;
  }

  /** Streams that are open. */
  get streamCount(): number {
    return this.streams.size;
  }

  /** True when there is something to poll. */
  get hasOutput(): boolean {
    return this.out.length > 0 || !this.#sendable.isEmpty;
  }

  /** True when the connection is over and everything was polled: the socket may be closed. */
  get isDone(): boolean {
    return !this.hasOutput && (this.end !== undefined || this.isDrained);
  }

  /** Takes the next bytes, which are the connection's from now on. `nowMs` is monotonic. Never throws. */
  receive(bytes: Uint8Array, nowMs: number): void {
    this.nowMs = nowMs;
    try {
      this.#receive(bytes);
    } catch (error) {
      if (!(error instanceof Http2Error)) throw error;
      this.#fail(error.code, error.message);
    }
  }

  /** Bytes for the socket: some MAX_OUTPUT_BYTES at most, so call it until it returns undefined, but only while the socket
   *  takes them. */
  poll(): Uint8Array | undefined {
    this.#hasSignalled = false;
    while (this.out.length < MAX_OUTPUT_BYTES) {
      const stream = this.#sendable.shift();
      if (stream === undefined) break;
      this.flush(stream);
    }
    if (this.out.length > 0) return this.out.take();
    this.out.shrink();
    return undefined;
  }

  /** Ends the connection at once. */
  abort(code: number, message: string): void {
    this.#fail(code, message);
  }

  /** The socket has ended: every stream is over. */
  close(): void {
    this.end ??= { code: ERROR.NO_ERROR, message: "" };
    for (const stream of this.streams.values()) {
      this.remove(stream);
      stream.handler.onReset(ERROR.CANCEL, "connection");
    }
  }

  // ---- commands of streams

  /** Frames what a stream has, as far as it may be sent. */
  send(stream: Http2Stream): void {
    if (stream.list === undefined) this.flush(stream);
  }

  /** Frames a whole answer at once; false when there is no room or window for it, and nothing was done. */
  sendWhole(stream: Http2Stream, first: Uint8Array, second: Uint8Array): boolean {
    if (!this.sendParts(stream, first, second)) return false;
    const { trailers } = stream;
    stream.trailers = undefined;
    this.#sendBlock(stream, trailers!, FLAG.END_STREAM);
    this.#onSent(stream);
    return true;
  }

  /** Frames body parts of a stream that has none queued; false when there is no room or window, and nothing was done. */
  sendParts(stream: Http2Stream, first: Uint8Array, second: Uint8Array): boolean {
    const length = first.length + second.length;
    const out = this.out;
    if (
      stream.list !== undefined || length > MAX_SENT_FRAME_BYTES || length > stream.sendWindow ||
      length > this.#sendWindow || out.length + length > MAX_OUTPUT_BYTES
    ) return false;
    const { head } = stream;
    if (head !== undefined) {
      stream.head = undefined;
      this.#sendBlock(stream, head, 0);
    }
    stream.sendWindow -= length;
    this.#sendWindow -= length;
    out.begin(TYPE.DATA, 0, stream.id, length);
    out.bytes(first);
    out.bytes(second);
    this.earlyPings = 0;
    this.signal();
    return true;
  }

  /** Whether a stream's writer may go on; if not it is told when it may. */
  mayWrite(stream: Http2Stream): boolean {
    if (stream.queuedBytes < STREAM_QUEUE_BYTES) return true;
    stream.isFull = true;
    return false;
  }

  /** Gives a stream up. */
  resetStream(stream: Http2Stream, code: number): void {
    this.remove(stream);
    this.sendReset(stream.id, code);
  }

  /** A paused stream goes on. */
  release(stream: Http2Stream): void {
    const bytes = stream.heldBytes;
    stream.heldBytes = 0;
    if (bytes === 0 || stream.isClosed) return;
    if (this.#role.sharesWindow) this.#creditConnection(bytes);
    this.#creditStream(stream, bytes);
  }

  // ---- bytes in

  #receive(bytes: Uint8Array): void {
    let at = 0;
    if (this.#prefaceLeft > 0) at = this.#takePreface(bytes);
    while (at < bytes.length && this.end === undefined) {
      if (this.out.length > MAX_OUTPUT_BYTES + MAX_CONTROL_BYTES) {
        this.abuse("frames", "too_many_answers_unread");
      }
      if (this.#wantsPadLength) this.#takePadLength(bytes[at++]!);
      else if (this.#dataLeft > 0) {
        const end = Math.min(bytes.length, at + this.#dataLeft);
        this.#dataLeft -= end - at;
        this.#takeData(at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end));
        at = end;
      } else if (this.#paddingLeft > 0) {
        const count = Math.min(bytes.length - at, this.#paddingLeft);
        this.#paddingLeft -= count;
        at += count;
      } else if (this.#partialBytes > 0) {
        at = this.#completePartial(bytes, at);
        continue;
      } else {
        const left = bytes.length - at;
        if (left < FRAME_HEADER_BYTES) return this.#keepPartial(bytes, at);
        const length = this.#checkHeader(bytes, at);
        if (bytes[at + 3] === TYPE.DATA) {
          this.#beginData(bytes, at, length);
          at += FRAME_HEADER_BYTES;
        } else {
          const end = at + FRAME_HEADER_BYTES + length;
          if (end > bytes.length) return this.#keepPartial(bytes, at);
          this.#onFrame(bytes, at, end);
          at = end;
          continue;
        }
      }
      // Outside of a DATA frame all of these are nothing, and the end was told.
      if (!this.#wantsPadLength && this.#dataLeft === 0 && this.#paddingLeft === 0) this.#finishData();
    }
  }

  #takePreface(bytes: Uint8Array): number {
    const from = PREFACE.length - this.#prefaceLeft;
    const count = Math.min(bytes.length, this.#prefaceLeft);
    for (let i = 0; i < count; i++) {
      if (bytes[i] !== PREFACE[from + i]) throw protocolError("the preface is malformed");
    }
    this.#prefaceLeft -= count;
    if (this.#prefaceLeft === 0) this.onPreface();
    return count;
  }

  /** Length of the frame whose header is at `at`. */
  #checkHeader(bytes: Uint8Array, at: number): number {
    const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    const type = bytes[at + 3]!;
    if (length > MAX_FRAME_BYTES) {
      throw new Http2Error(ERROR.FRAME_SIZE_ERROR, `a frame of ${length} bytes, limit ${MAX_FRAME_BYTES}`);
    }
    if (!this.#sawSettings && (type !== TYPE.SETTINGS || (bytes[at + 4]! & FLAG.ACK) !== 0)) {
      throw protocolError("the first frame is no SETTINGS");
    }
    if (
      this.#blockStreamId !== 0 &&
      (type !== TYPE.CONTINUATION || readU31(bytes, at + 5) !== this.#blockStreamId)
    ) {
      throw protocolError("a header block is interrupted");
    }
    return length;
  }

  #keepPartial(bytes: Uint8Array, at: number): void {
    const count = bytes.length - at;
    if (this.#partial.length < count) this.#partial = new Uint8Array(Math.max(64, count));
    this.#partial.set(bytes.subarray(at));
    this.#partialBytes = count;
  }

  /** Adds to the frame that had come in part, first to its header; returns where the rest begins. */
  #completePartial(bytes: Uint8Array, from: number): number {
    const at = this.#fillPartial(bytes, from, FRAME_HEADER_BYTES);
    if (this.#partialBytes < FRAME_HEADER_BYTES) return at;
    const length = this.#checkHeader(this.#partial, 0);
    if (this.#partial[3] === TYPE.DATA) {
      this.#partialBytes = 0;
      this.#beginData(this.#partial, 0, length);
      if (length === 0) this.#finishData();
      return at;
    }
    const whole = FRAME_HEADER_BYTES + length;
    const end = this.#fillPartial(bytes, at, whole);
    if (this.#partialBytes < whole) return end;
    const frame = this.#partial;
    this.#partial = NO_BYTES;
    this.#partialBytes = 0;
    this.#onFrame(frame, 0, whole);
    return end;
  }

  #fillPartial(bytes: Uint8Array, from: number, whole: number): number {
    const missing = whole - this.#partialBytes;
    if (missing <= 0) return from;
    const end = Math.min(bytes.length, from + missing);
    if (this.#partial.length < whole) {
      const grown = new Uint8Array(whole);
      grown.set(this.#partial.subarray(0, this.#partialBytes));
      this.#partial = grown;
    }
    this.#partial.set(bytes.subarray(from, end), this.#partialBytes);
    this.#partialBytes += end - from;
    return end;
  }

  /** A whole frame that is no DATA, header included. */
  #onFrame(bytes: Uint8Array, at: number, end: number): void {
    const flags = bytes[at + 4]!;
    const id = readU31(bytes, at + 5);
    const start = at + FRAME_HEADER_BYTES;
    switch (bytes[at + 3]) {
      case TYPE.HEADERS:
        return this.#onHeaders(bytes, start, end, flags, id);
      case TYPE.CONTINUATION:
        return this.#onContinuation(bytes, start, end, flags);
      case TYPE.PRIORITY:
        return this.#onPriority(id, end - start);
      case TYPE.RST_STREAM:
        return this.#onReset(bytes, start, end, id);
      case TYPE.SETTINGS:
        return this.#onSettingsFrame(bytes, start, end, flags, id);
      case TYPE.PUSH_PROMISE:
        throw protocolError("pushes are not taken");
      case TYPE.PING:
        return this.#onPingFrame(bytes, start, end, flags, id);
      case TYPE.GOAWAY:
        if (id !== 0) throw protocolError("GOAWAY on a stream");
        if (end - start < 8) throw frameSizeError("GOAWAY", end - start);
        return this.onGoAway(bytes, start, end);
      case TYPE.WINDOW_UPDATE:
        return this.#onWindowUpdate(bytes, start, end, id);
      default:
        return this.countIdle();
    }
  }

  // ---- header blocks and bodies

  #onHeaders(bytes: Uint8Array, from: number, to: number, flags: number, id: number): void {
    if ((id & 1) === 0) throw protocolError("HEADERS on a stream that no client opens");
    const isPadded = (flags & FLAG.PADDED) !== 0;
    const start = from + (isPadded ? 1 : 0) + ((flags & FLAG.PRIORITY) !== 0 ? 5 : 0);
    if (start > to) throw frameSizeError("HEADERS", to - from);
    const end = isPadded ? to - bytes[from]! : to;
    if (start > end) throw protocolError("HEADERS is padded beyond its end");
    this.#blockEnds = (flags & FLAG.END_STREAM) !== 0;
    if ((flags & FLAG.END_HEADERS) !== 0) return this.#onBlock(bytes, start, end, id);
    this.#blockStreamId = id;
    this.#blockBytes = 0;
    this.#continuations = 0;
    this.#addToBlock(bytes, start, end);
  }

  #onContinuation(bytes: Uint8Array, start: number, end: number, flags: number): void {
    const id = this.#blockStreamId;
    if (id === 0) throw protocolError("CONTINUATION without HEADERS");
    this.#addToBlock(bytes, start, end);
    if ((flags & FLAG.END_HEADERS) === 0) {
      if (++this.#continuations > MAX_CONTINUATIONS) this.abuse("frames", "too_many_continuations");
      return;
    }
    const block = this.#block;
    this.#block = NO_BYTES;
    this.#blockStreamId = 0;
    this.#onBlock(block, 0, this.#blockBytes, id);
  }

  #addToBlock(bytes: Uint8Array, start: number, end: number): void {
    const whole = this.#blockBytes + end - start;
    if (whole > 2 * this.#role.maxHeaderListBytes) this.abuse("frames", "headers_too_large");
    if (whole > this.#block.length) {
      const grown = new Uint8Array(2 * whole);
      grown.set(this.#block.subarray(0, this.#blockBytes));
      this.#block = grown;
    }
    this.#block.set(bytes.subarray(start, end), this.#blockBytes);
    this.#blockBytes = whole;
  }

  /** A whole header block. It is decoded whatever becomes of it: the tables of both ends must stay alike. */
  #onBlock(bytes: Uint8Array, start: number, end: number, id: number): void {
    if (end - start > 2 * this.#role.maxHeaderListBytes) this.abuse("frames", "headers_too_large");
    this.onBlock(id, this.#hpack.decode(bytes, start, end), this.#blockEnds);
  }

  /** The peer has sent everything of a stream, `trailers` at last. */
  protected finishReceiving(stream: Http2Stream, trailers: readonly string[]): void {
    if (stream.contentLeft > 0) return this.failStream(stream, ERROR.PROTOCOL_ERROR);
    stream.hasReceived = true;
    stream.handler.onBodyEnd(trailers);
    if (stream.hasSent) this.remove(stream);
  }

  #beginData(bytes: Uint8Array, at: number, length: number): void {
    const flags = bytes[at + 4]!;
    const id = readU31(bytes, at + 5);
    if (id === 0) throw protocolError("DATA on no stream");
    this.#receiveWindow -= length;
    if (this.#receiveWindow < 0) throw new Http2Error(ERROR.FLOW_CONTROL_ERROR, "more DATA than the window");
    this.#dataLeft = length;
    this.#dataEnds = (flags & FLAG.END_STREAM) !== 0;
    this.#wantsPadLength = (flags & FLAG.PADDED) !== 0;
    if (this.#wantsPadLength && length === 0) throw frameSizeError("DATA", 0);
    this.#dataStream = this.streams.get(id);
    if (length === 0 && !this.#dataEnds) this.countIdle();
    const stream = this.#dataStream;
    if (stream === undefined) return this.onStrayData(id, length);
    if (stream.hasReceived) return this.failStream(stream, ERROR.STREAM_CLOSED);
    if (!stream.hasHead) return this.failStream(stream, ERROR.PROTOCOL_ERROR);
    stream.receiveWindow -= length;
    if (stream.receiveWindow < 0) this.failStream(stream, ERROR.FLOW_CONTROL_ERROR);
  }

  #takePadLength(padding: number): void {
    this.#wantsPadLength = false;
    this.#dataLeft -= 1 + padding;
    if (this.#dataLeft < 0) throw protocolError("DATA is padded beyond its end");
    this.#paddingLeft = padding;
    this.#credit(this.#dataStream, 1 + padding);
  }

  #takeData(piece: Uint8Array): void {
    const stream = this.#dataStream;
    const { length } = piece;
    if (stream === undefined || stream.isClosed) return this.#creditConnection(length);
    if (stream.contentLeft >= 0) {
      stream.contentLeft -= length;
      if (stream.contentLeft < 0) {
        this.failStream(stream, ERROR.PROTOCOL_ERROR);
        return this.#creditConnection(length);
      }
    }
    stream.handler.onBody(piece);
    if (!stream.isPaused || stream.isClosed) return this.#credit(stream, length);
    stream.heldBytes += length;
    if (!this.#role.sharesWindow) this.#creditConnection(length);
  }

  #finishData(): void {
    const stream = this.#dataStream;
    if (stream === undefined) return;
    this.#dataStream = undefined;
    if (this.#dataEnds && !stream.isClosed) this.finishReceiving(stream, NO_FIELDS);
  }

  // ---- windows

  /** Body bytes were taken: the peer's windows are widened when half of one is used up. */
  #credit(stream: Http2Stream | undefined, bytes: number): void {
    this.#creditConnection(bytes);
    if (stream !== undefined) this.#creditStream(stream, bytes);
  }

  #creditConnection(bytes: number): void {
    this.#consumedBytes += bytes;
    if (this.#consumedBytes < CONNECTION_WINDOW_BYTES / 2) return;
    this.#receiveWindow += this.#consumedBytes;
    this.#sendWindowUpdate(0, this.#consumedBytes);
    this.#consumedBytes = 0;
  }

  #creditStream(stream: Http2Stream, bytes: number): void {
    if (stream.isClosed || stream.hasReceived) return;
    stream.consumedBytes += bytes;
    if (stream.consumedBytes < STREAM_WINDOW_BYTES / 2) return;
    stream.receiveWindow += stream.consumedBytes;
    this.#sendWindowUpdate(stream.id, stream.consumedBytes);
    stream.consumedBytes = 0;
  }

  #onWindowUpdate(bytes: Uint8Array, start: number, end: number, id: number): void {
    if (end - start !== 4) throw frameSizeError("WINDOW_UPDATE", end - start);
    const increment = readU31(bytes, start);
    if (id === 0) {
      if (increment === 0) throw protocolError("WINDOW_UPDATE by nothing");
      this.#sendWindow += increment;
      if (this.#sendWindow > MAX_WINDOW_BYTES) throw windowError();
      for (let stream = this.#starved.shift(); stream !== undefined; stream = this.#starved.shift()) {
        this.#makeSendable(stream);
      }
      return;
    }
    const stream = this.streams.get(id);
    if (stream === undefined) return this.#onFrameForEnded(id, "WINDOW_UPDATE");
    if (increment === 0) return this.failStream(stream, ERROR.PROTOCOL_ERROR);
    stream.sendWindow += increment;
    if (stream.sendWindow > MAX_WINDOW_BYTES) return this.failStream(stream, ERROR.FLOW_CONTROL_ERROR);
    this.#wake(stream);
  }

  /** A stream's window was widened. */
  #wake(stream: Http2Stream): void {
    if (stream.queuedBytes > 0 && stream.list === undefined && stream.sendWindow > 0) {
      this.#makeSendable(stream);
    }
  }

  #makeSendable(stream: Http2Stream): void {
    this.#sendable.push(stream);
    this.signal();
  }

  // ---- the other frames

  #onPriority(id: number, length: number): void {
    if (id === 0) throw protocolError("PRIORITY on no stream");
    this.countIdle();
    if (length === 5) return;
    const stream = this.streams.get(id);
    if (stream !== undefined) return this.failStream(stream, ERROR.FRAME_SIZE_ERROR);
    throw frameSizeError("PRIORITY", length);
  }

  #onReset(bytes: Uint8Array, start: number, end: number, id: number): void {
    if (end - start !== 4) throw frameSizeError("RST_STREAM", end - start);
    const stream = this.streams.get(id);
    this.countReset();
    if (stream === undefined) return this.#onFrameForEnded(id, "RST_STREAM");
    const code = readU32(bytes, start);
    this.remove(stream);
    stream.handler.onReset(code, code === ERROR.REFUSED_STREAM ? "unprocessed" : "peer");
  }

  /** Such frames may have been on their way when the stream ended. */
  #onFrameForEnded(id: number, name: string): void {
    if (this.isIdle(id)) throw protocolError(`${name} on a stream that is not open`);
    this.countIdle();
  }

  #onSettingsFrame(bytes: Uint8Array, start: number, end: number, flags: number, id: number): void {
    if (id !== 0) throw protocolError("SETTINGS on a stream");
    if ((flags & FLAG.ACK) !== 0) {
      if (start !== end) throw frameSizeError("SETTINGS", end - start);
      return;
    }
    if ((end - start) % 6 !== 0) throw frameSizeError("SETTINGS", end - start);
    if (this.#sawSettings) this.countIdle();
    this.#sawSettings = true;
    for (let at = start; at < end; at += 6) {
      this.#takeSetting((bytes[at]! << 8) | bytes[at + 1]!, readU32(bytes, at + 2));
    }
    this.#sendControl(TYPE.SETTINGS, FLAG.ACK, 0, 0);
    this.onSettings();
  }

  #takeSetting(setting: number, value: number): void {
    switch (setting) {
      case SETTING.INITIAL_WINDOW_SIZE:
        if (value > MAX_WINDOW_BYTES) throw windowError();
        return this.#onInitialWindow(value);
      case SETTING.MAX_FRAME_SIZE:
        if (value < 16_384 || value > 16_777_215) throw protocolError(`SETTINGS_MAX_FRAME_SIZE ${value}`);
        return;
      default:
        // Of the rest, a dynamic table and the size of header lists allow what is not made use of here.
        this.onSetting(setting, value);
    }
  }

  #onInitialWindow(value: number): void {
    const change = value - this.initialSendWindow;
    this.initialSendWindow = value;
    if (change === 0 || this.streams.size === 0) return;
    for (const stream of this.streams.values()) {
      stream.sendWindow += change;
      if (stream.sendWindow > MAX_WINDOW_BYTES) throw windowError();
      this.#wake(stream);
    }
  }

  #onPingFrame(bytes: Uint8Array, start: number, end: number, flags: number, id: number): void {
    if (id !== 0) throw protocolError("PING on a stream");
    if (end - start !== 8) throw frameSizeError("PING", end - start);
    if ((flags & FLAG.ACK) !== 0) return this.onPong(bytes, start);
    this.onPing();
    this.#sendControl(TYPE.PING, FLAG.ACK, 0, 8);
    this.out.bytes(bytes.subarray(start, end));
  }

  // ---- frames out

  /** Sends this side's settings, and widens the connection's window to what is taken here. */
  protected sendSettings(settings: readonly (readonly [setting: number, value: number])[]): void {
    const { out } = this;
    out.begin(TYPE.SETTINGS, 0, 0, 6 * settings.length);
    for (const [setting, value] of settings) {
      out.u16(setting);
      out.u32(value);
    }
    this.#sendWindowUpdate(0, CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
  }

  /** Asks for a sign of life, which `onPong` gets with the same 8 bytes. */
  protected ping(bytes: Uint8Array): void {
    this.#sendControl(TYPE.PING, 0, 0, 8);
    this.out.bytes(bytes);
  }

  /** Frames what a stream has to send, one DATA frame at most; puts it where it waits for more. */
  protected flush(stream: Http2Stream): void {
    if (stream.isClosed) return;
    if (this.out.length >= MAX_OUTPUT_BYTES) return this.#makeSendable(stream);
    const { head } = stream;
    if (head !== undefined) {
      stream.head = undefined;
      const isAll = stream.isEnding && stream.queuedBytes === 0 && stream.trailers === undefined;
      this.#sendBlock(stream, head, isAll ? FLAG.END_STREAM : 0);
      if (isAll) return this.#onSent(stream);
    }
    if (stream.queuedBytes > 0) {
      if (!this.#sendData(stream)) this.#wait(stream);
      else if (stream.isEnding) this.#sendEnd(stream);
    } else if (stream.isEnding) this.#sendEnd(stream);
    if (stream.isFull && !stream.isEnding && stream.queuedBytes < STREAM_QUEUE_LOW_BYTES) {
      stream.isFull = false;
      stream.handler.onWritable();
    }
  }

  /** Frames as much of a stream's body as one frame and the windows hold; true when that was all. */
  #sendData(stream: Http2Stream): boolean {
    const length = Math.min(stream.queuedBytes, stream.sendWindow, this.#sendWindow, MAX_SENT_FRAME_BYTES);
    if (length <= 0) return false;
    const isAll = length === stream.queuedBytes;
    stream.hasSentEnd = isAll && stream.isEnding && stream.trailers === undefined;
    stream.queuedBytes -= length;
    this.queuedBytes -= length;
    stream.sendWindow -= length;
    this.#sendWindow -= length;
    this.out.begin(TYPE.DATA, stream.hasSentEnd ? FLAG.END_STREAM : 0, stream.id, length);
    const parts = stream.parts!;
    for (let left = length; left > 0;) {
      const part = parts[stream.sentParts]!;
      const from = stream.sentBytes;
      const count = Math.min(left, part.length - from);
      left -= count;
      this.out.bytes(count === part.length ? part : part.subarray(from, from + count));
      if (from + count < part.length) stream.sentBytes += count;
      else {
        parts[stream.sentParts++] = NO_BYTES;
        stream.sentBytes = 0;
      }
    }
    if (isAll) {
      stream.parts = undefined;
      stream.sentParts = 0;
    } else if (stream.sentParts >= MIN_SENT_PARTS && 2 * stream.sentParts >= parts.length) {
      parts.splice(0, stream.sentParts);
      stream.sentParts = 0;
    }
    this.earlyPings = 0;
    this.signal();
    return isAll;
  }

  /** A stream has more: it waits for room, for the connection's window or for its own. */
  #wait(stream: Http2Stream): void {
    if (stream.sendWindow <= 0) return;
    if (this.#sendWindow <= 0) this.#starved.push(stream);
    else this.#makeSendable(stream);
  }

  #sendEnd(stream: Http2Stream): void {
    const { trailers } = stream;
    if (trailers === undefined) {
      if (!stream.hasSentEnd) this.out.begin(TYPE.DATA, FLAG.END_STREAM, stream.id, 0);
    } else {
      stream.trailers = undefined;
      this.#sendBlock(stream, trailers, FLAG.END_STREAM);
    }
    this.signal();
    this.#onSent(stream);
  }

  /** Frames a header block. */
  #sendBlock(stream: Http2Stream, block: Uint8Array, endFlag: number): void {
    const out = this.out;
    this.earlyPings = 0;
    this.signal();
    const extra = this.#hasSentBlock ? 0 : 1;
    const { length } = block;
    const first = Math.min(length, MAX_SENT_FRAME_BYTES - extra);
    out.begin(TYPE.HEADERS, endFlag | (first === length ? FLAG.END_HEADERS : 0), stream.id, first + extra);
    if (!this.#hasSentBlock) out.u8(NO_TABLE);
    this.#hasSentBlock = true;
    if (first === length) return out.bytes(block);
    out.bytes(block.subarray(0, first));
    for (let at = first; at < length; at += MAX_SENT_FRAME_BYTES) {
      const end = Math.min(length, at + MAX_SENT_FRAME_BYTES);
      out.begin(TYPE.CONTINUATION, end === length ? FLAG.END_HEADERS : 0, stream.id, end - at);
      out.bytes(block.subarray(at, end));
    }
  }

  #sendWindowUpdate(streamId: number, bytes: number): void {
    this.#sendControl(TYPE.WINDOW_UPDATE, 0, streamId, 4);
    this.out.u32(bytes);
  }

  protected sendReset(streamId: number, code: number): void {
    this.#resetIds[this.#resetCount++ & (REMEMBERED_RESETS - 1)] = streamId;
    this.#sendControl(TYPE.RST_STREAM, 0, streamId, 4);
    this.out.u32(code);
  }

  /** Begins a frame that the peer caused and that is no answer. */
  #sendControl(type: number, flags: number, streamId: number, length: number): void {
    this.out.begin(type, flags, streamId, length);
    this.signal();
  }

  protected goAway(lastStreamId: number, code: number, text: string): void {
    this.out.begin(TYPE.GOAWAY, 0, 0, 8 + text.length);
    this.out.u32(lastStreamId);
    this.out.u32(code);
    for (let i = 0; i < text.length; i++) this.out.u8(text.charCodeAt(i));
    this.signal();
  }

  protected signal(): void {
    if (this.#hasSignalled) return;
    this.#hasSignalled = true;
    this.#role.onOutput();
  }

  // ---- ends

  #onSent(stream: Http2Stream): void {
    stream.hasSent = true;
    stream.isFull = false;
    if (stream.hasReceived) this.remove(stream);
    else if (stream.isPaused) {
      // Nobody will resume it; what still comes is not kept.
      stream.resume();
    }
  }

  /** Takes a stream out. What it held of the connection's window is given back. */
  protected remove(stream: Http2Stream): void {
    if (stream.isClosed) return;
    stream.isClosed = true;
    stream.list?.remove(stream);
    stream.parts = undefined;
    this.queuedBytes -= stream.queuedBytes;
    stream.queuedBytes = 0;
    this.streams.delete(stream.id);
    if (stream.heldBytes > 0 && this.end === undefined && this.#role.sharesWindow) {
      this.#creditConnection(stream.heldBytes);
    }
    stream.heldBytes = 0;
    this.onRemoved();
  }

  protected failStream(stream: Http2Stream, code: number): void {
    this.remove(stream);
    this.sendReset(stream.id, code);
    stream.handler.onReset(code, "mistake");
    this.countReset();
  }

  protected wasReset(id: number): boolean {
    return this.#resetIds.includes(id);
  }

  protected countIdle(): void {
    if (!this.idleFrames.take(this.nowMs)) this.abuse("frames", "too_many_frames");
  }

  /** Ends the connection with a peer that does too much of something. */
  protected abuse(_what: Abuse, text: string): never {
    throw new Http2Error(ERROR.ENHANCE_YOUR_CALM, text);
  }

  /** Whether no client has opened this stream yet, or none ever will. */
  protected isIdle(id: number): boolean {
    return id === 0 || id > this.lastStreamId || (id & 1) === 0;
  }

  #fail(code: number, message: string): void {
    if (this.end !== undefined) return;
    this.end = { code, message };
    this.goAway(this.lastTakenId, code, message);
    this.close();
  }
}

/** So many of something at once, and so many each second. */
export class Allowance {
  #left: number;
  #atMs = 0;

  constructor(readonly burst: number, readonly perSecond: number) {
    this.#left = burst;
  }

  /** Forgives some. */
  give(count: number): void {
    this.#left = Math.min(this.burst, this.#left + count);
  }

  /** One more; false when it is too many. */
  take(nowMs: number): boolean {
    const more = (nowMs - this.#atMs) * this.perSecond / 1000;
    this.#atMs = nowMs;
    this.#left = Math.min(this.burst, this.#left + more) - 1;
    return this.#left >= 0;
  }
}

/** Sent parts are forgotten when there are so many, and as many as those that wait. */
const MIN_SENT_PARTS = 64;
const NO_BYTES = new Uint8Array(0);
const NO_FIELDS: readonly string[] = [];

/** A mistake that ends the connection with PROTOCOL_ERROR. */
export function protocolError(message: string): Http2Error {
  return new Http2Error(ERROR.PROTOCOL_ERROR, message);
}

function frameSizeError(name: string, length: number): Http2Error {
  return new Http2Error(ERROR.FRAME_SIZE_ERROR, `${name} of ${length} bytes`);
}

function windowError(): Http2Error {
  return new Http2Error(ERROR.FLOW_CONTROL_ERROR, "a window of more than 2^31-1 bytes");
}
