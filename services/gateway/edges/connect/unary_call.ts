/** A call of one answer, as one promise. */
import type { RawCall, RawCallHandler, RawEnd } from "../../../../transport/rpc/mod.ts";

/** How a call went. */
export interface UnaryOutcome {
  readonly headers: Headers | undefined;
  /** The first answer; undefined where there was none. */
  readonly message: Uint8Array | undefined;
  readonly end: RawEnd;
}

/** Starts a call and waits for its end. `onStarted` is given what cancels it; a cancelled call never settles. */
export function callOnce(
  start: (handler: RawCallHandler) => RawCall,
  onStarted: (call: RawCall) => void,
): Promise<UnaryOutcome> {
  return new Promise((resolve) => onStarted(start(new UnaryHandler(resolve))));
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
