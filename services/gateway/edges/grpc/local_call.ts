/** Calls that the gateway answers itself, in the shape of calls to a worker. */
import type { Code } from "@connectrpc/connect";
import type { RawCall, RawCallHandler, RawCallOptions } from "../../../../transport/rpc/mod.ts";

/** Where the answers of one call go. Ignores everything once the call is over. */
export interface LocalAnswers {
  /** Sends one encoded answer. */
  answer(message: Uint8Array): void;
  /** Ends the call well. */
  succeed(): void;
  /** Ends the call with an error. */
  fail(code: Code, message: string): void;
}

/** What answers one call. */
export interface LocalService {
  onRequest(message: Uint8Array): void;
  onRequestEnd(): void;
  /** The call is over, however it ended. Called once. */
  onClose(): void;
}

/** Starts a call that `open` answers. */
export function startLocalCall(
  handler: RawCallHandler,
  options: RawCallOptions,
  open: (answers: LocalAnswers) => LocalService,
): RawCall {
  const call = new LocalCall(handler, open);
  if (options.message !== undefined) call.send(options.message);
  if (options.isWhole === true) call.endRequest();
  return call;
}

class LocalCall implements RawCall, LocalAnswers {
  readonly #handler: RawCallHandler;
  readonly #service: LocalService;
  #isOver = false;
  #isPaused = false;
  #requestEnded = false;
  /** Requests that came while answers were held back: those of one chunk, since `send` then asks to wait. */
  #waiting: Uint8Array[] = [];

  constructor(handler: RawCallHandler, open: (answers: LocalAnswers) => LocalService) {
    this.#handler = handler;
    this.#service = open(this);
  }

  send(message: Uint8Array): boolean {
    if (this.#isOver || this.#requestEnded) return true;
    if (this.#isPaused) {
      this.#waiting.push(message);
      return false;
    }
    this.#service.onRequest(message);
    return !this.#isPaused;
  }

  endRequest(): void {
    if (this.#isOver || this.#requestEnded) return;
    this.#requestEnded = true;
    if (this.#waiting.length === 0) this.#service.onRequestEnd();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const message of waiting) if (!this.#isOver) this.#service.onRequest(message);
    if (this.#isOver) return;
    if (this.#requestEnded) this.#service.onRequestEnd();
    else this.#handler.onDrain();
  }

  cancel(): void {
    this.#close();
  }

  answer(message: Uint8Array): void {
    if (!this.#isOver) this.#handler.onMessage(message);
  }

  succeed(): void {
    if (this.#close()) this.#handler.onEnd({ code: 0, message: "", trailers: undefined });
  }

  fail(code: Code, message: string): void {
    if (this.#close()) this.#handler.onEnd({ code, message, trailers: undefined });
  }

  #close(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#service.onClose();
    return true;
  }
}
