/** Round-trip estimate and the times that follow from it. SPEC §6.1, §6.2, §6.4; RFC 9002 §5. */

import { GRANULARITY_MS, INITIAL_RTT_MS, TIME_THRESHOLD } from "../params.ts";

/** RTT statistics of one connection, in milliseconds. */
export class RttEstimator {
  smoothed = INITIAL_RTT_MS;
  variance = INITIAL_RTT_MS / 2;
  latest = INITIAL_RTT_MS;
  min = INITIAL_RTT_MS;
  /** True once a sample was taken. */
  sampled = false;

  /** Takes a sample; `ackDelayMs` is what the peer says it waited. */
  update(sampleMs: number, ackDelayMs: number): void {
    this.latest = sampleMs;
    if (!this.sampled) {
      this.sampled = true;
      this.min = sampleMs;
      this.smoothed = sampleMs;
      this.variance = sampleMs / 2;
      return;
    }
    this.min = Math.min(this.min, sampleMs);
    const adjusted = sampleMs - ackDelayMs >= this.min ? sampleMs - ackDelayMs : sampleMs;
    this.variance += (Math.abs(this.smoothed - adjusted) - this.variance) / 4;
    this.smoothed += (adjusted - this.smoothed) / 8;
  }

  /** Time after the last ack-eliciting packet at which a probe is due, before backoff. */
  probeTimeoutMs(peerAckDelayMaxMs: number): number {
    return this.smoothed + Math.max(4 * this.variance, GRANULARITY_MS) + peerAckDelayMaxMs;
  }

  /** How long after being sent a packet is lost if a later one was acknowledged. */
  lossDelayMs(): number {
    return Math.max(TIME_THRESHOLD * Math.max(this.smoothed, this.latest), GRANULARITY_MS);
  }
}
