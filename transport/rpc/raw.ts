/** Calls whose messages stay bytes: for those who pass calls on and need not know what they say. */
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import type { ChannelStream } from "../channels/channel.ts";
import { ChannelTransportImpl, ClientCall } from "./client.ts";
import { FRAME, FrameReader, type FrameWriter, NEED_MORE, VIOLATION } from "./frame.ts";
import { checkMetadata, readMetadata } from "./metadata.ts";
import { readEnd, type StatusCode } from "./status.ts";

/** How a call ended. */
export interface RawEnd {
  /** 0 is success. */
  readonly code: StatusCode;
  readonly message: string;
  /** Metadata that the server sent behind its answers; undefined when there is none. */
  readonly trailers: Headers | undefined;
  /** Set when the call surely left nothing at its peer, since not a byte of it was sent. */
  readonly wasNeverSent?: boolean;
  /** Messages that tell more of an error, with their type names; absent when there are none. */
  readonly details?: readonly { readonly type: string; readonly value: Uint8Array }[];
}

/** Told of what happens to one call. Runs on the turn the bytes arrived on; must not throw. */
export interface RawCallHandler {
  /** Metadata that the server sent before its answers; most send none. */
  onHeaders(headers: Headers): void;
  /** One answer, encoded. The array is a view of what was received and is never written to again. */
  onMessage(message: Uint8Array): void;
  /** `send` may be called again after it had returned false. */
  onDrain(): void;
  /** The call is over; nothing follows. Not called after `cancel`. */
  onEnd(end: RawEnd): void;
}

/** How a call is made. */
export interface RawCallOptions {
  /** Time the call may take, in ms; undefined is no deadline. */
  readonly timeoutMs?: number | undefined;
  readonly headers?: HeadersInit | undefined;
  /** The first request message; with `isWhole` it is the only one, and leaves in one write with the call's header. */
  readonly message?: Uint8Array | undefined;
  /** Whether the request ends with `message`. */
  readonly isWhole?: boolean;
}

/** A call under way. */
export interface RawCall {
  /** Sends one request message (encoded; copied); false asks to wait for `onDrain`. Ignored when the request has ended. */
  send(message: Uint8Array): boolean;
  /** Ends the request. Idempotent. */
  endRequest(): void;
  /** Holds answers back: at most a stream's window and one message then wait here, and the server waits. Idempotent. */
  pause(): void;
  /** Goes on with answers; `onMessage` may be called before this returns. Idempotent. */
  resume(): void;
  /** Gives the call up; the server's handler is told. `onEnd` is not called. Idempotent. */
  cancel(): void;
}

/** Starts a call of `method` on a transport that `createChannelTransport` made. `onEnd` may be called before this returns.
 *  @throws {TypeError} on any other transport. */
export function startRawCall(
  transport: Transport,
  method: DescMethod,
  handler: RawCallHandler,
  options: RawCallOptions,
): RawCall {
  if (!(transport instanceof ChannelTransportImpl)) {
    throw new TypeError("Cannot start a raw call: the transport is not one of createChannelTransport");
  }
  const call = new ClientRawCall(transport, method, handler, options);
  call.begin(undefined, options.timeoutMs);
  return call;
}

class ClientRawCall extends ClientCall implements RawCall {
  readonly #handler: RawCallHandler;
  readonly #frames: FrameReader;
  /** Request messages from before the stream was there: the first and, since `send` says to wait, one more. */
  #early: Uint8Array[] | undefined;
  #isWhole: boolean;
  #sawMessage = false;
  /** Whether `send` said to wait before there was a stream. */
  #wasTold = false;
  #paused = false;
  #cancelled = false;
  /** Bytes received and not yet reported as consumed. */
  #uncredited = 0;

  constructor(
    transport: ChannelTransportImpl,
    method: DescMethod,
    handler: RawCallHandler,
    options: RawCallOptions,
  ) {
    super(transport, method, options.headers);
    this.#handler = handler;
    this.#frames = new FrameReader(transport.maxAnswerBytes);
    this.#early = options.message === undefined ? undefined : [options.message];
    this.#isWhole = options.isWhole ?? false;
  }

  protected override onOpen(stream: ChannelStream): void {
    const { writer } = this.transport;
    this.writeCallHeader(writer);
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined) { for (const message of early) this.#writeFrame(writer, message); }
    this.requestEnded = this.#isWhole;
    const more = stream.write(writer.take(), this.#isWhole);
    if (this.#wasTold && more) {
      this.#wasTold = false;
      this.#handler.onDrain();
    }
  }

  send(message: Uint8Array): boolean {
    if (this.ended || this.requestEnded || this.#isWhole) return true;
    const { stream } = this;
    if (stream === undefined) {
      (this.#early ??= []).push(message.slice());
      this.#wasTold = true;
      return false;
    }
    const { writer } = this.transport;
    try {
      this.#writeFrame(writer, message);
    } catch (error) {
      writer.truncate(0);
      this.fail(ConnectError.from(error));
      return true;
    }
    return stream.write(writer.take(), false);
  }

  endRequest(): void {
    if (this.ended || this.requestEnded || this.#isWhole) return;
    if (this.stream === undefined) {
      this.#isWhole = true;
      return;
    }
    this.requestEnded = true;
    this.stream.write(NO_BYTES, true);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#serve();
  }

  cancel(): void {
    if (this.ended) return;
    this.#cancelled = true;
    this.fail(new ConnectError("the caller cancelled the call", Code.Canceled));
  }

  override onData(bytes: Uint8Array, fin: boolean): void {
    this.responseEnded = fin;
    this.#uncredited += bytes.length;
    if (this.ended) return this.#credit();
    if (fin) this.stopDeadline();
    this.#frames.push(bytes);
    if (!this.#paused) this.#serve();
  }

  override onDrain(): void {
    if (!this.ended) this.#handler.onDrain();
  }

  protected override onFail(error: ConnectError): void {
    this.#frames.clear();
    this.#credit();
    if (this.#cancelled) return;
    this.#handler.onEnd({
      code: error.code,
      message: error.rawMessage,
      trailers: undefined,
      wasNeverSent: this.stream === undefined,
    });
  }

  #serve(): void {
    while (!this.ended && !this.#paused) {
      const type = this.#frames.next();
      if (type === FRAME.MESSAGE) {
        this.#sawMessage = true;
        this.#handler.onMessage(this.#frames.payload);
      } else if (type === FRAME.END) {
        return this.#onEnd(this.#frames.payload);
      } else if (type === NEED_MORE) {
        if (this.responseEnded) return this.protocolError("the answer ended without a status");
        // SPEC §7.1: nothing that waits here was held back, and the rest of a message may need the window.
        return this.#credit();
      } else if (type === VIOLATION) {
        const { code, message } = this.#frames.violation!;
        return this.protocolError(message, code === Code.ResourceExhausted ? code : Code.Internal);
      } else if (type === FRAME.HEADERS && this.responseHeaders === undefined && !this.#sawMessage) {
        const wrong = checkMetadata(this.#frames.payload, 0);
        if (wrong !== undefined) return this.protocolError(wrong);
        this.responseHeaders = this.#frames.payload;
        this.#handler.onHeaders(readMetadata(this.responseHeaders, 0, new Headers()));
      } else {
        return this.protocolError(`frame of type ${type} out of place`);
      }
    }
  }

  #onEnd(payload: Uint8Array): void {
    const end = readEnd(payload);
    if (typeof end === "string") return this.protocolError(end);
    if (this.#frames.buffered > 0) return this.protocolError("bytes after the end of the answer");
    this.#credit();
    this.complete();
    const trailers = end.metadataStart < end.payload.length
      ? readMetadata(end.payload, end.metadataStart, new Headers())
      : undefined;
    const { code, message, details } = end;
    this.#handler.onEnd(
      details.length === 0 ? { code, message, trailers } : { code, message, trailers, details },
    );
  }

  #writeFrame(writer: FrameWriter, message: Uint8Array): void {
    const mark = writer.beginFrame(FRAME.MESSAGE);
    writer.bytes(message);
    this.checkMessageSize(writer.endFrame(mark));
  }

  #credit(): void {
    if (this.#uncredited === 0) return;
    const count = this.#uncredited;
    this.#uncredited = 0;
    this.stream!.consumed(count);
  }
}

const NO_BYTES = new Uint8Array(0);
