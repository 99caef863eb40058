/** A call whose answers are a body that goes on. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { RawCall, RawCallHandler, RawEnd } from "../../../../transport/rpc/mod.ts";
import { fromServiceError, type GatewayError } from "../../problem.ts";

/** What a stream is made of. */
export interface AnswerStreamOptions {
  /** A message of the service as the client reads it. @throws for bytes that are no message. */
  frame(message: Uint8Array): Uint8Array;
  /** What ends the body. */
  end(error: GatewayError | undefined, trailers: Headers | undefined): Uint8Array;
  onMessage(): void;
  /** Called once, when the stream has ended for whatever reason. */
  onEnd(error: GatewayError | undefined): void;
}

/** The stream: told of what the service answers, read by the client. A slow reader costs what its socket, one piece here and
 *  the call's window hold. */
export class AnswerStream implements RawCallHandler {
  readonly body: ReadableStream<Uint8Array>;
  /** Metadata that came before the answer's head was sent. */
  headers: Headers | undefined;
  #lateHeaders: Headers | undefined;
  #isHeadSent = false;
  #hasEnded = false;
  #call: RawCall | undefined;
  #hasBegun = false;
  #onBegun: () => void = () => {};
  #wake: () => void = () => {};
  #onEnded: () => void = () => {};
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  readonly #options: AnswerStreamOptions;

  constructor(options: AnswerStreamOptions) {
    this.#options = options;
    this.body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#call?.resume(),
      cancel: () => this.#end(undefined, undefined, false),
    });
  }

  /** Starts the call; not if the stream has ended meanwhile. */
  run(start: (handler: RawCallHandler) => RawCall): void {
    if (this.#hasEnded) return;
    const call = start(this);
    this.#call = call;
    if (this.#hasEnded) call.cancel();
    else if (this.#isFull) call.pause();
  }

  /** Calls `fn` at the first sign of the service, or now if it was there. */
  onBegun(fn: () => void): void {
    if (this.#hasBegun) fn();
    else this.#onBegun = fn;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** From now on metadata of the service goes behind the answers. */
  sendHead(): void {
    this.#isHeadSent = true;
  }

  /** Calls `fn` when the stream ends, or now if it has. One at a time. */
  whenEnded(fn: () => void): void {
    if (this.#hasEnded) fn();
    else this.#onEnded = fn;
  }

  /** Sends one request; resolves when the next may come. */
  async send(message: Uint8Array): Promise<void> {
    if (this.#hasEnded || this.#call!.send(message)) return;
    await new Promise<void>((resolve) => this.#wake = resolve);
  }

  endRequest(): void {
    if (!this.#hasEnded) this.#call!.endRequest();
  }

  /** Ends the answers with an error of the gateway's own. */
  fail(error: GatewayError): void {
    this.#end(error, undefined, true);
  }

  onHeaders(headers: Headers): void {
    if (this.#isHeadSent) this.#lateHeaders = headers;
    else this.headers = headers;
    this.#begin();
  }

  onMessage(message: Uint8Array): void {
    if (this.#hasEnded) return;
    let frame: Uint8Array;
    try {
      frame = this.#options.frame(message);
    } catch (error) {
      return this.fail(fromServiceError(error));
    }
    this.#options.onMessage();
    this.#controller.enqueue(frame);
    this.#begin();
    if (this.#isFull) this.#call?.pause();
  }

  onDrain(): void {
    this.#wake();
  }

  onEnd(end: RawEnd): void {
    const { trailers } = end;
    this.#end(errorOf(end), trailers, true);
  }

  #begin(): void {
    this.#hasBegun = true;
    this.#onBegun();
  }

  get #isFull(): boolean {
    return (this.#controller.desiredSize ?? 0) <= 0;
  }

  #end(error: GatewayError | undefined, trailers: Headers | undefined, isTold: boolean): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#call?.cancel();
    if (isTold) {
      this.#controller.enqueue(this.#options.end(error, joined(this.#lateHeaders, trailers)));
      this.#controller.close();
    }
    this.#begin();
    this.#wake();
    this.#onEnded();
    this.#options.onEnd(error);
  }
}

/** What a service's end says; undefined when it went well. */
export function errorOf({ code, message, details }: RawEnd): GatewayError | undefined {
  if (code === 0) return undefined;
  const error = new ConnectError(message, code as Code);
  if (details !== undefined) error.details = [...details];
  return fromServiceError(error);
}

function joined(a: Headers | undefined, b: Headers | undefined): Headers | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const both = new Headers(a);
  for (const [name, value] of b) both.append(name, value);
  return both;
}
