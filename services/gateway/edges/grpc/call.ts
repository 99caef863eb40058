/** One gRPC call: an HTTP/2 stream at one side, a call of ours at the other, and bytes that pass between them unread. */
import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { Code } from "@connectrpc/connect";
import type { Bagged } from "../../../../transport/rpc/bag.ts";
import type { RawCall, RawCallHandler, RawEnd } from "../../../../transport/rpc/mod.ts";
import { encodeStatusMessage, parseTimeout } from "./headers.ts";
import { MessageReader, prefixed } from "./message_reader.ts";
import type { GrpcMethod } from "./method.ts";

/** What calls need of their edge. */
export interface CallOwner {
  readonly maxMessageBytes: number;
  readonly clock: { now(): number };
  newRequestId(): string;
  /** Calls `start` now, or with others at the end of the turn. */
  schedule(start: () => void): void;
  /** Something is sent to the client. */
  onSend(): void;
  /** The call has ended, whoever ended it. Called once. */
  onCallEnd(call: GrpcCall, code: number, message: string): void;
}

/** Request fields that travel on to the worker, besides the request id. `token` is etcd's. */
const FORWARDED = ["token", "authorization", "traceparent", "tracestate"] as const;
const REQUEST_ID = /^[A-Za-z0-9._~-]{1,128}$/;

const OK_TRAILERS: OutgoingHttpHeaders = { "grpc-status": "0" };
const HEADERS: OutgoingHttpHeaders = { ":status": 200, "content-type": "application/grpc" };
// No `date`: gRPC has no use for it.
const WITH_TRAILERS = { waitForTrailers: true, sendDate: false } as const;

/** A call under way. */
export class GrpcCall implements RawCallHandler, Bagged {
  bagIndex = -1;
  readonly startedAtMs: number;
  readonly requestId: string;
  readonly #owner: CallOwner;
  readonly #stream: ServerHttp2Stream;
  readonly #headers: IncomingHttpHeaders;
  readonly #reader: MessageReader;
  #call: RawCall | undefined;
  /** Whether the request is complete, or nothing more of it matters. */
  #requestDone = false;
  #answer: Uint8Array | undefined;
  #answerHeaders: OutgoingHttpHeaders | undefined;
  #headersSent = false;
  #ended = false;

  constructor(
    owner: CallOwner,
    readonly method: GrpcMethod,
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
  ) {
    this.#owner = owner;
    this.#stream = stream;
    this.#headers = headers;
    this.startedAtMs = owner.clock.now();
    const requestId = headers["x-request-id"];
    this.requestId = typeof requestId === "string" && REQUEST_ID.test(requestId)
      ? requestId
      : owner.newRequestId();
    const encoding = headers["grpc-encoding"];
    this.#reader = new MessageReader(
      owner.maxMessageBytes,
      typeof encoding === "string" ? encoding : undefined,
    );
  }

  /** Begins to read the request. */
  begin(): void {
    const stream = this.#stream;
    stream.on("error", ignore);
    stream.on("close", () => this.#onClose());
    stream.on("data", (chunk: Uint8Array) => this.#onData(chunk));
    stream.on("end", () => this.#onRequestEnd());
    if (this.method.streams) stream.on("drain", () => this.#call?.resume());
    if (!this.method.takesOne) this.#start(undefined);
  }

  /** Ends the call with a status of the gateway's own. */
  end(code: Code, message: string): void {
    if (this.#ended) return;
    this.#call?.cancel();
    this.onEnd({ code, message, trailers: undefined });
  }

  onHeaders(headers: Headers): void {
    this.#answerHeaders = Object.fromEntries(headers);
  }

  onMessage(message: Uint8Array): void {
    if (this.#ended) return;
    this.method.metrics.messageOut();
    const bytes = prefixed(message);
    if (!this.method.streams) {
      this.#answer = bytes;
      return;
    }
    this.#owner.onSend();
    this.#respond();
    if (!this.#stream.write(bytes)) this.#call?.pause();
  }

  onDrain(): void {
    if (!this.#ended) this.#stream.resume();
  }

  onEnd({ code, message, trailers }: RawEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    if (!this.#stream.destroyed && !this.#stream.closed) {
      this.#owner.onSend();
      if (code === 0) this.#succeed(trailers);
      else this.#fail(code, message, trailers);
    }
    this.#owner.onCallEnd(this, code, message);
  }

  #start(message: Uint8Array | undefined): void {
    const timeout = this.#headers["grpc-timeout"];
    const timeoutMs = typeof timeout === "string" ? parseTimeout(timeout) : undefined;
    if (timeout !== undefined && timeoutMs === undefined) {
      return this.end(Code.Internal, `malformed grpc-timeout: ${String(timeout).slice(0, 32)}`);
    }
    if (timeoutMs === 0) return this.end(Code.DeadlineExceeded, "context deadline exceeded");
    const metadata: Record<string, string> = { "x-request-id": this.requestId };
    for (const name of FORWARDED) {
      const value = this.#headers[name];
      if (typeof value === "string") metadata[name] = value;
    }
    this.#call = this.method.start(this, {
      timeoutMs,
      headers: metadata,
      message,
      isWhole: message !== undefined,
    });
    // It may have ended before it was there to be cancelled.
    if (this.#ended) this.#call.cancel();
  }

  #onData(chunk: Uint8Array): void {
    if (this.#requestDone || this.#ended) return;
    const reader = this.#reader;
    reader.push(chunk);
    for (let message = reader.next(); message !== undefined; message = reader.next()) {
      this.method.metrics.messageIn();
      if (this.method.takesOne) {
        // As Go's server does: the one message is answered, what follows is not read.
        this.#requestDone = true;
        const only = message;
        this.#owner.schedule(() => {
          if (!this.#ended) this.#start(only);
        });
        return;
      }
      if (!this.#call!.send(message)) this.#stream.pause();
      if (this.#ended) return;
    }
    if (reader.violation !== undefined) this.end(reader.violation.code, reader.violation.message);
  }

  #onRequestEnd(): void {
    if (this.#requestDone || this.#ended) return;
    this.#requestDone = true;
    if (this.#reader.isPartial) this.end(Code.Internal, "unexpected EOF");
    else if (this.method.takesOne) this.end(Code.Internal, "the request has no message");
    else this.#call!.endRequest();
  }

  #onClose(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#call?.cancel();
    this.#owner.onCallEnd(this, Code.Canceled, "the client went away");
  }

  #respond(): void {
    if (this.#headersSent) return;
    this.#headersSent = true;
    this.#stream.respond(
      this.#answerHeaders === undefined ? HEADERS : { ...this.#answerHeaders, ...HEADERS },
      WITH_TRAILERS,
    );
  }

  #succeed(trailers: Headers | undefined): void {
    this.#respond();
    this.#sendTrailers(
      trailers === undefined ? OK_TRAILERS : { ...Object.fromEntries(trailers), ...OK_TRAILERS },
    );
    if (this.#answer === undefined) this.#stream.end();
    else this.#stream.end(this.#answer);
  }

  #fail(code: number, message: string, trailers: Headers | undefined): void {
    const stream = this.#stream;
    const status: OutgoingHttpHeaders = {
      ...(trailers === undefined ? {} : Object.fromEntries(trailers)),
      "grpc-status": String(code),
      "grpc-message": encodeStatusMessage(message),
    };
    if (this.#headersSent) {
      this.#sendTrailers(status);
      stream.end();
    } else {
      stream.respond({ ...this.#answerHeaders, ...HEADERS, ...status }, { endStream: true });
    }
    // What the client still sends is not kept. It is not told to stop by a reset, which could overtake the status.
    stream.resume();
  }

  #sendTrailers(trailers: OutgoingHttpHeaders): void {
    const stream = this.#stream;
    stream.on("wantTrailers", () => {
      if (!stream.destroyed && !stream.closed) stream.sendTrailers(trailers);
    });
  }
}

function ignore(): void {}
