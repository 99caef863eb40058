/** Token bucket that spaces bursts of packets. SPEC §7.5. */

import { GRANULARITY_MS, PACING_BURST_DATAGRAMS } from "../params.ts";

/** Pacer of one connection. */
export class Pacer {
  #tokens = Infinity;
  #at = 0;

  /** When the next packet may leave: `now` or earlier, or later if the bucket is empty. `rate` is in bytes per ms. */
  readyAt(rate: number, datagramBytes: number, now: number): number {
    if (rate === Infinity) {
      this.#tokens = Infinity;
      this.#at = now;
      return now;
    }
    const burst = PACING_BURST_DATAGRAMS * datagramBytes;
    this.#tokens = Math.min(this.#tokens + (now - this.#at) * rate, burst);
    this.#at = now;
    // A debt is paid off in steps no finer than the timer, which makes bursts of what was missed.
    return this.#tokens > 0 ? now : now + Math.max(-this.#tokens / rate, GRANULARITY_MS);
  }

  /** A packet left; it may overdraw the bucket by itself. */
  spend(bytes: number): void {
    this.#tokens -= bytes;
  }
}
