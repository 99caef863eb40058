/** Datagram size of one path by probing. SPEC §8; RFC 8899.
 *
 *      search ──all sizes tried──► done ──600 s──► search
 *        ▲                          │ three large losses or probe timeouts in a row
 *        └──── 5 s, doubling ◄──────┘ (size back to base)
 */

import {
  BASE_DATAGRAM_BYTES,
  LOOPBACK_PROBE_SIZES,
  MTU_BLACK_HOLE_LOSSES,
  MTU_BLACK_HOLE_WAIT_MS,
  MTU_PROBE_TRIES,
  MTU_RAISE_MS,
  NETWORK_PROBE_SIZES,
} from "../params.ts";

/** Finds the largest datagram that passes. */
export class PathMtu {
  /** Datagram size to use now, in bytes. */
  current = BASE_DATAGRAM_BYTES;
  /** When a probe may be sent; Infinity while one is in flight or nothing is left to try. */
  probeAt: number;
  readonly #loopback: boolean;
  readonly #allSizes: readonly number[];
  #sizes: readonly number[];
  #index = 0;
  #tries = 0;
  #largeLosses = 0;
  #waitMs = MTU_BLACK_HOLE_WAIT_MS;

  constructor(loopback: boolean, maxBytes: number, now: number) {
    this.#loopback = loopback;
    this.#allSizes = (loopback ? LOOPBACK_PROBE_SIZES : NETWORK_PROBE_SIZES).filter((size) =>
      size <= maxBytes
    );
    this.#sizes = this.#allSizes;
    this.probeAt = this.#sizes.length > 0 ? now : Infinity;
  }

  /** The size to probe with now, or 0. */
  nextProbeBytes(now: number): number {
    if (now < this.probeAt) return 0;
    if (this.#index >= this.#sizes.length) this.#restart();
    const size = this.#sizes[this.#index];
    if (size === undefined) this.probeAt = Infinity;
    return size ?? 0;
  }

  /** A probe of that size was sent. */
  onProbeSent(): void {
    this.probeAt = Infinity;
    this.#tries++;
  }

  /** The probe arrived. */
  onProbeAcked(bytes: number, now: number): void {
    this.current = Math.max(this.current, bytes);
    this.#waitMs = MTU_BLACK_HOLE_WAIT_MS;
    this.#largeLosses = 0;
    this.#index++;
    this.#tries = 0;
    // Loopback sizes descend: the first that passes is the best. Others ascend.
    if (this.#loopback || this.#index >= this.#sizes.length) this.#finish(now);
    else this.probeAt = now;
  }

  /** The probe did not arrive; no congestion signal. */
  onProbeLost(now: number): void {
    this.probeAt = now;
    if (this.#tries < MTU_PROBE_TRIES) return;
    this.#tries = 0;
    this.#index++;
    if (!this.#loopback || this.#index >= this.#sizes.length) this.#finish(now);
  }

  /** A packet that is no probe arrived. */
  onAcked(bytes: number): void {
    if (bytes > BASE_DATAGRAM_BYTES) this.#largeLosses = 0;
  }

  /** A packet that is no probe was lost. True if the size fell back. */
  onLost(bytes: number, now: number): boolean {
    if (bytes <= BASE_DATAGRAM_BYTES || bytes > this.current) return false;
    return ++this.#largeLosses >= MTU_BLACK_HOLE_LOSSES && this.fallBack(now);
  }

  /** The path swallows large datagrams. True if the size changed. SPEC §8.4. */
  fallBack(now: number): boolean {
    if (this.current === BASE_DATAGRAM_BYTES) return false;
    this.current = BASE_DATAGRAM_BYTES;
    this.#largeLosses = 0;
    this.#restart();
    this.probeAt = now + this.#waitMs;
    this.#waitMs = Math.min(this.#waitMs * 2, MTU_RAISE_MS);
    return true;
  }

  #finish(now: number): void {
    this.#index = this.#sizes.length;
    this.probeAt = this.current === this.#largest() ? Infinity : now + MTU_RAISE_MS;
  }

  #restart(): void {
    this.#sizes = this.#allSizes.filter((size) => size > this.current);
    this.#index = 0;
    this.#tries = 0;
  }

  #largest(): number {
    return Math.max(BASE_DATAGRAM_BYTES, ...this.#allSizes);
  }
}

/** Estimates what the kernel charges a socket buffer for a datagram. SPEC §7.6. */
export function truesizeBytes(bytes: number): number {
  if (bytes <= 128) return 832;
  if (bytes > 16_384) return bytes * 1.125 + 4096;
  const bucket = Math.min(1 << (32 - Math.clz32(bytes + 383)), 16_384);
  return bucket * 1.08 + 200;
}
