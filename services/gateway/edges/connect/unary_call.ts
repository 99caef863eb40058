/** A call of one answer, as one promise. */
import { Code } from "@connectrpc/connect";
import type { RawCall, RawCallHandler, RawEnd } from "../../../../transport/rpc/mod.ts";

/** How a call went. */
export interface UnaryOutcome {
  readonly headers: Headers | undefined;
  /** The first answer; undefined where there was none. */
  readonly message: Uint8Array | undefined;
  readonly end: RawEnd;
}

const CANCELLED: UnaryOutcome = {
  headers: undefined,
  message: undefined,
  end: { code: Code.Canceled, message: "the client went away", trailers: undefined },
};

/** Starts a call and waits for its end. `onStarted` is given what cancels it. */
export function callOnce(
  start: (handler: RawCallHandler) => RawCall,
  onStarted: (cancel: () => void) => void,
): Promise<UnaryOutcome> {
  return new Promise((resolve) => {
    const call = start(new UnaryHandler(resolve));
    onStarted(() => {
      call.cancel();
      resolve(CANCELLED);
    });
  });
}

class UnaryHandler implements RawCallHandler {
  readonly #resolve: (outcome: UnaryOutcome) => void;
  #headers: Headers | undefined;
  #message: Uint8Array | undefined;

  constructor(resolve: (outcome: UnaryOutcome) => void) {
    this.#resolve = resolve;
  }

  onHeaders(headers: Headers): void {
    this.#headers = headers;
  }

  onMessage(message: Uint8Array): void {
    this.#message ??= message;
  }

  onDrain(): void {}

  onEnd(end: RawEnd): void {
    this.#resolve({ headers: this.#headers, message: this.#message, end });
  }
}
