/** The messages of a streaming half, pulled by the application: SPEC §7. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { ChannelStream } from "../channels/channel.ts";
import { FRAME, type FrameReader, NEED_MORE, VIOLATION } from "./frame.ts";

/** What the owner of a half adds to its messages. */
export interface InboundOwner<T> {
  /** Makes a message of its bytes; may throw. */
  decode(bytes: Uint8Array): T;
  /** Takes a frame that is no message: undefined to go on, END_OF_MESSAGES, or why the half is broken. */
  control(type: number, payload: Uint8Array): typeof END_OF_MESSAGES | ConnectError | undefined;
  /** Says whether the half may end where it did; undefined when it may. */
  atFin(): ConnectError | undefined;
  /** The iteration is over: `error` undefined after the last message, else what the application was told. `abandoned`
   *  when the application left early. */
  onInboundEnd(error: ConnectError | undefined, abandoned: boolean): void;
}

/** Stands for the end of a stream where a message could come. */
export const END_OF_MESSAGES = Symbol("end of messages");

/** An async iterator over the messages of one half. Bytes are kept as they came and cut when a message is asked for, so what
 *  waits is bounded by the stream's window, and credit goes back only for what was taken. One consumer, one pass. */
export class Inbound<T> implements AsyncIterableIterator<T> {
  readonly #stream: ChannelStream;
  readonly #frames: FrameReader;
  readonly #owner: InboundOwner<T>;
  #receivedBytes: number;
  #creditedBytes = 0;
  #fin: boolean;
  #over = false;
  #error: ConnectError | undefined;
  readonly #waiting: Waiter<T>[] = [];

  /** `frames` may already hold the first bytes, none of them credited. */
  constructor(stream: ChannelStream, frames: FrameReader, fin: boolean, owner: InboundOwner<T>) {
    this.#stream = stream;
    this.#frames = frames;
    this.#owner = owner;
    this.#fin = fin;
    this.#receivedBytes = frames.buffered;
  }

  /** Takes the next chunk. */
  push(bytes: Uint8Array, fin: boolean): void {
    if (this.#over) {
      if (bytes.length > 0) this.#stream.consumed(bytes.length);
      return;
    }
    this.#receivedBytes += bytes.length;
    this.#frames.push(bytes);
    this.#fin ||= fin;
    this.#serve();
  }

  /** Ends the iteration with `error`; what waits is dropped. */
  fail(error: ConnectError): void {
    this.#finish(error, false);
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#over) return this.#afterEnd();
    if (this.#waiting.length >= MAX_WAITING) {
      return Promise.reject(new RangeError(`more than ${MAX_WAITING} reads of one stream wait`));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#serve();
    });
  }

  return(): Promise<IteratorResult<T>> {
    this.#finish(undefined, true);
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #serve(): void {
    while (this.#waiting.length > 0 && !this.#over) {
      const type = this.#frames.next();
      if (type === FRAME.MESSAGE) {
        this.#deliver(this.#frames.payload);
      } else if (type === NEED_MORE) {
        if (this.#fin) {
          const cut = this.#frames.buffered > 0;
          this.#finish(
            cut ? new ConnectError("a frame is cut short", Code.Internal) : this.#owner.atFin(),
            false,
          );
        } else {
          // SPEC §7.1: nothing else waits, and the rest of this message may need the window.
          this.#credit(this.#receivedBytes);
        }
        return;
      } else if (type === VIOLATION) {
        const { code, message } = this.#frames.violation!;
        this.#finish(new ConnectError(message, code), false);
      } else {
        const outcome = this.#owner.control(type, this.#frames.payload);
        if (outcome !== undefined) this.#finish(outcome === END_OF_MESSAGES ? undefined : outcome, false);
      }
    }
  }

  #deliver(payload: Uint8Array): void {
    let value: T;
    try {
      value = this.#owner.decode(payload);
    } catch (error) {
      this.#finish(
        new ConnectError("message cannot be decoded", Code.Internal, undefined, undefined, error),
        false,
      );
      return;
    }
    this.#waiting.shift()!.resolve({ done: false, value });
    this.#credit(this.#receivedBytes - this.#frames.buffered);
  }

  #credit(upToBytes: number): void {
    if (upToBytes <= this.#creditedBytes) return;
    this.#stream.consumed(upToBytes - this.#creditedBytes);
    this.#creditedBytes = upToBytes;
  }

  #finish(error: ConnectError | undefined, abandoned: boolean): void {
    if (this.#over) return;
    this.#over = true;
    this.#frames.clear();
    // SPEC §7.4.
    this.#credit(this.#receivedBytes);
    let failed = error;
    for (const waiter of this.#waiting.splice(0)) {
      if (failed === undefined) waiter.resolve({ done: true, value: undefined });
      else waiter.reject(failed);
      failed = undefined;
    }
    // Told once: as for a generator, what comes after an error is the end.
    if (error !== undefined && failed !== undefined) this.#error = error;
    this.#owner.onInboundEnd(error, abandoned);
  }

  #afterEnd(): Promise<IteratorResult<T>> {
    const error = this.#error;
    this.#error = undefined;
    return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
  }
}

interface Waiter<T> {
  resolve(result: IteratorResult<T>): void;
  reject(error: unknown): void;
}

/** Reads of one stream that may wait at a time. `for await` has one; more is only for a reader that runs ahead. */
const MAX_WAITING = 64;
