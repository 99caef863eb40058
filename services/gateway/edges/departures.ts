/** Clients that go away while their call is under way. */
import type { TimeoutQueue } from "../timer.ts";

/** How long a call may take until its client is looked after, in milliseconds. Asking the server whether a client is still
 *  there costs more than a short call does; who left earlier than this is not noticed. */
export const DEPARTURE_AFTER_MS = 100;

/** Watches clients of calls that take longer than a moment. */
export class Departures {
  /** `patience` has DEPARTURE_AFTER_MS as its length. */
  constructor(readonly patience: TimeoutQueue) {}

  /** Calls `onLeave` when the client of `request` goes, until the returned function is called, which has to be before the
   *  request is answered. */
  watch(request: Request, onLeave: () => void): () => void {
    let signal: AbortSignal | undefined;
    const stopWaiting = this.patience.add(() => {
      signal = request.signal;
      signal.addEventListener("abort", onLeave);
    });
    return () => {
      stopWaiting();
      signal?.removeEventListener("abort", onLeave);
    };
  }

  /** Lets go of the timer. */
  close(): void {
    this.patience.close();
  }
}
