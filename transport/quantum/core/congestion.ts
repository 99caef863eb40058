/** Congestion control: the interface, and CUBIC (RFC 9438). SPEC §7. */

import {
  INITIAL_WINDOW_CAP_BYTES,
  INITIAL_WINDOW_DATAGRAMS,
  MAX_WINDOW_BYTES,
  MIN_WINDOW_DATAGRAMS,
  PACING_MIN_RTT_MS,
} from "../params.ts";

/** Decides how much may be in flight and how fast it leaves. Bytes are of whole datagrams, times in milliseconds. */
export interface CongestionController {
  /** Bytes that may be in flight. */
  readonly windowBytes: number;
  /** Bytes per millisecond for the pacer; Infinity = do not pace. */
  pacingRate(smoothedRttMs: number): number;
  /** A packet that counts in flight was sent. */
  onSent(bytes: number, bytesInFlight: number, now: number): void;
  /** Packets were acknowledged. `sentAt` is when the newest of them was sent; `windowLimited` says that the window, not the
   *  application, held the sender back. */
  onAcked(bytes: number, sentAt: number, windowLimited: boolean, smoothedRttMs: number, now: number): void;
  /** Packets were lost, the newest of them sent at `sentAt`. */
  onLost(bytes: number, sentAt: number, now: number): void;
  /** Everything sent over a long span was lost. SPEC §7.3. */
  onPersistentCongestion(): void;
  /** The datagram size changed. */
  onDatagramSize(bytes: number): void;
}

const CUBIC_C = 0.4;
const CUBIC_BETA = 0.7;
// RFC 9438 §4.3: makes the Reno-friendly estimate grow as Reno would with this beta.
const RENO_ALPHA = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA);

/** CUBIC. `trustedPath` lifts the byte cap on the initial window (loopback). */
export class Cubic implements CongestionController {
  windowBytes: number;
  #datagramBytes: number;
  readonly #trustedPath: boolean;
  #slowStartThreshold = Infinity;
  #lossSeen = false;
  #recoveryStart = -Infinity;
  // Of the current avoidance epoch: its start, the window at the last loss, the time to come back to it (s), Reno's estimate.
  #epochStart: number | undefined;
  #windowMax = 0;
  #k = 0;
  #renoWindow = 0;

  constructor(datagramBytes: number, trustedPath: boolean) {
    this.#datagramBytes = datagramBytes;
    this.#trustedPath = trustedPath;
    this.windowBytes = this.#initialWindow();
  }

  pacingRate(smoothedRttMs: number): number {
    if (smoothedRttMs < PACING_MIN_RTT_MS) return Infinity;
    const gain = this.windowBytes < this.#slowStartThreshold ? 2 : 1.25;
    return gain * this.windowBytes / smoothedRttMs;
  }

  onSent(): void {}

  onAcked(bytes: number, sentAt: number, windowLimited: boolean, smoothedRttMs: number, now: number): void {
    if (sentAt <= this.#recoveryStart) return;
    if (!windowLimited) {
      // Idle time must not count as time to grow in.
      this.#epochStart = undefined;
      return;
    }
    if (this.windowBytes < this.#slowStartThreshold) {
      this.windowBytes = Math.min(this.windowBytes + bytes, MAX_WINDOW_BYTES);
      return;
    }
    if (this.#epochStart === undefined) this.#startEpoch(now);
    const seconds = (now - this.#epochStart! + smoothedRttMs) / 1000;
    const target = (CUBIC_C * (seconds - this.#k) ** 3) * this.#datagramBytes + this.#windowMax;
    const share = bytes / this.windowBytes;
    this.#renoWindow += RENO_ALPHA * share * this.#datagramBytes;
    const bounded = Math.min(Math.max(target, this.windowBytes), 1.5 * this.windowBytes);
    const grown = Math.max(this.windowBytes + (bounded - this.windowBytes) * share, this.#renoWindow);
    this.windowBytes = Math.min(grown, MAX_WINDOW_BYTES);
  }

  onLost(_bytes: number, sentAt: number, now: number): void {
    // One reduction per round trip: losses of packets sent before the last reduction belong to it. SPEC §7.3.
    if (sentAt <= this.#recoveryStart) return;
    this.#recoveryStart = now;
    this.#lossSeen = true;
    this.#epochStart = undefined;
    // Fast convergence (RFC 9438 §4.7): give way when the window shrank since the last loss.
    this.#windowMax = this.windowBytes < this.#windowMax
      ? this.windowBytes * (1 + CUBIC_BETA) / 2
      : this.windowBytes;
    this.windowBytes = Math.max(this.windowBytes * CUBIC_BETA, this.#minWindow());
    this.#slowStartThreshold = this.windowBytes;
  }

  onPersistentCongestion(): void {
    this.windowBytes = this.#minWindow();
    this.#epochStart = undefined;
    this.#recoveryStart = -Infinity;
  }

  onDatagramSize(bytes: number): void {
    this.#datagramBytes = bytes;
    this.windowBytes = Math.max(this.windowBytes, this.#lossSeen ? this.#minWindow() : this.#initialWindow());
  }

  #startEpoch(now: number): void {
    this.#epochStart = now;
    if (this.#windowMax < this.windowBytes) this.#windowMax = this.windowBytes;
    this.#k = Math.cbrt((this.#windowMax - this.windowBytes) / this.#datagramBytes / CUBIC_C);
    this.#renoWindow = this.windowBytes;
  }

  #initialWindow(): number {
    const window = INITIAL_WINDOW_DATAGRAMS * this.#datagramBytes;
    return this.#trustedPath
      ? window
      : Math.min(window, Math.max(INITIAL_WINDOW_CAP_BYTES, this.#minWindow()));
  }

  #minWindow(): number {
    return MIN_WINDOW_DATAGRAMS * this.#datagramBytes;
  }
}
