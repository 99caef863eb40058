/** One call: a stream at one side, messages and a status at the other. */
import type { Http2ClientStream, ResponseHandler } from "../http2/client.ts";
import { ERROR } from "../http2/errors.ts";
import { encodeFields } from "../http2/hpack.ts";
import type { ResponseHead } from "../http2/response.ts";
import type { ResetCause } from "../http2/stream.ts";
import type { GrpcConnection } from "./connection.ts";
import { MessageReader, prefixOf } from "./message_reader.ts";
import {
  encodeTimeout,
  GRPC,
  type GrpcStatus,
  ownStatus,
  statusOf,
  statusOfHead,
  statusOfReset,
} from "./status.ts";

/** Told of what comes of a call. */
export interface CallListener {
  /** A message, a view of what was received: copy what is kept for long. What it throws ends the call as INTERNAL. */
  onMessage(message: Uint8Array): void;
  /** The end, told once and last. Must not throw. */
  onEnd(status: GrpcStatus): void;
  /** `send` may be called again after it had returned false. */
  onWritable?(): void;
}

/** What a call is made of. */
export interface CallSetup {
  /** Header fields before the call's own, encoded. */
  readonly head: Uint8Array;
  readonly metadata: Readonly<Record<string, string>> | undefined;
  /** The one message of the request; without it `send` and `endSending` follow. */
  readonly request: Uint8Array | undefined;
  /** When the call is given up, by the clock; Infinity is never. */
  readonly deadlineMs: number;
  readonly maxReceiveBytes: number;
  readonly clock: { now(): number };
}

/** Messages sent before there is a connection, in bytes, from which the sender is asked to wait. */
const EARLY_BYTES = 16 * 1024;
/** Longest time that a timer takes, in milliseconds; a deadline farther off is nobody's to wait for. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** A call under way. */
export class GrpcCall implements ResponseHandler {
  readonly #setup: CallSetup;
  readonly #listener: CallListener;
  /** Takes the call off whoever keeps it until there is a connection. */
  readonly #onEnd: (call: GrpcCall) => void;
  readonly #fields: Uint8Array;
  #connection: GrpcConnection | undefined;
  #stream: Http2ClientStream | undefined;
  #reader: MessageReader | undefined;
  /** What was sent before there was a connection. */
  #early: Uint8Array[] | undefined;
  #earlyBytes = 0;
  #hasEndedEarly = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isPaused = false;
  #isOver = false;

  /** @throws {TypeError} when the metadata has a name or value that HTTP/2 forbids. */
  constructor(setup: CallSetup, listener: CallListener, onEnd: (call: GrpcCall) => void) {
    this.#setup = setup;
    this.#listener = listener;
    this.#onEnd = onEnd;
    this.#fields = setup.metadata === undefined ? NO_BYTES : encodeFields(Object.entries(setup.metadata));
    const leftMs = setup.deadlineMs - setup.clock.now();
    if (leftMs < TIMER_MAX_MS) this.#timer = setTimeout(() => this.#expire(), Math.max(0, Math.ceil(leftMs)));
  }

  /** False once it has ended. */
  get isOpen(): boolean {
    return !this.#isOver;
  }

  /** Sends a message, whose bytes are the call's from now on; ignored once the call has ended. False asks to wait for
   *  `onWritable`: what is sent nevertheless is kept. */
  send(message: Uint8Array): boolean {
    if (this.#isOver) return true;
    if (this.#stream !== undefined) return this.#stream.write(prefixOf(message), message);
    (this.#early ??= []).push(message);
    this.#earlyBytes += message.length;
    return this.#earlyBytes < EARLY_BYTES;
  }

  /** Says that no more is sent. Idempotent. */
  endSending(): void {
    this.#hasEndedEarly = true;
    this.#stream?.end();
  }

  /** Lets the server send no more than its window; what was on its way comes still. */
  pause(): void {
    this.#isPaused = true;
    this.#stream?.pause();
  }

  /** Lets the server send on. */
  resume(): void {
    this.#isPaused = false;
    this.#stream?.resume();
  }

  /** Gives the call up; the listener hears CANCELLED. Idempotent. */
  cancel(): void {
    this.end(ownStatus(GRPC.CANCELLED, "Cancelled on client", this.#isUnsent));
  }

  /** Begins to be sent. */
  attach(connection: GrpcConnection): void {
    const { head, deadlineMs, clock, request } = this.#setup;
    const timeout = deadlineMs === Infinity
      ? NO_BYTES
      : encodeFields([["grpc-timeout", encodeTimeout(deadlineMs - clock.now())]]);
    const block = new Uint8Array(head.length + timeout.length + this.#fields.length);
    block.set(head);
    block.set(timeout, head.length);
    block.set(this.#fields, head.length + timeout.length);
    this.#connection = connection;
    const stream = request === undefined
      ? connection.http2.open(block, this)
      : connection.http2.request(block, prefixOf(request), request, this);
    if (stream === undefined) {
      const text = connection.http2.isOpen
        ? "too many calls wait for the server"
        : "the connection takes no more calls";
      return this.end(ownStatus(GRPC.UNAVAILABLE, text, true));
    }
    this.#stream = stream;
    if (this.#isPaused) stream.pause();
    connection.watch();
    const early = this.#early;
    this.#early = undefined;
    for (const message of early ?? []) stream.write(prefixOf(message), message);
    if (this.#hasEndedEarly) stream.end();
    if (this.#earlyBytes >= EARLY_BYTES) this.#listener.onWritable?.();
  }

  /** Ends the call, whoever has a reason. */
  end(status: GrpcStatus): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#early = undefined;
    this.#reader = undefined;
    const stream = this.#stream;
    if (stream !== undefined) {
      // What was not sent of the request matters to nobody when the server has said everything.
      if (!stream.hasReceived) stream.reset(ERROR.CANCEL);
      else if (!stream.hasSent) stream.reset(ERROR.NO_ERROR);
    }
    this.#onEnd(this);
    this.#listener.onEnd(status);
  }

  // ---- what the stream tells

  onHead(head: ResponseHead, isWhole: boolean): void {
    const status = statusOf(head.fields);
    if (status !== undefined && isWhole) return this.end(status);
    const problem = statusOfHead(head);
    if (problem !== undefined) return this.end(problem);
    if (isWhole) return this.end(NO_STATUS);
    this.#reader = new MessageReader(this.#setup.maxReceiveBytes, head.get("grpc-encoding"));
  }

  onBody(bytes: Uint8Array): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    reader.push(bytes);
    try {
      for (let message = reader.next(); message !== undefined; message = reader.next()) {
        this.#listener.onMessage(message);
        if (this.#isOver) return;
      }
    } catch (error) {
      return this.end(ownStatus(GRPC.INTERNAL, `the answer cannot be read: ${error}`));
    }
    const { violation } = reader;
    if (violation !== undefined) this.end(ownStatus(violation.code, violation.message));
  }

  onBodyEnd(trailers: readonly string[]): void {
    if (this.#isOver) return;
    if (this.#reader?.isPartial === true) {
      return this.end(ownStatus(GRPC.INTERNAL, "the answer ends within a message"));
    }
    this.end(statusOf(trailers) ?? NO_STATUS);
  }

  onReset(code: number, cause: ResetCause): void {
    this.end(statusOfReset(code, cause, this.#connection?.reason ?? ""));
  }

  onWritable(): void {
    this.#listener.onWritable?.();
  }

  #expire(): void {
    this.end(ownStatus(GRPC.DEADLINE_EXCEEDED, "Deadline exceeded", this.#isUnsent));
  }

  /** No stream was opened for it. */
  get #isUnsent(): boolean {
    return this.#stream === undefined || this.#stream.id === 0;
  }
}

const NO_BYTES = new Uint8Array(0);
const NO_STATUS = ownStatus(GRPC.INTERNAL, "server closed the stream without sending trailers");
