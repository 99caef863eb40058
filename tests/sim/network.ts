import type { SimRandom } from "./random.ts";

/** What one direction of a path does to datagrams. Probabilities are 0..1, per datagram. */
export interface LinkProfile {
  /** Fixed one-way delay. */
  latencyMs: number;
  /** Extra delay, uniform in 0..jitterMs; order is kept. */
  jitterMs: number;
  /** Independent loss. */
  loss: number;
  /** Bursty loss (Gilbert-Elliott): chance to enter and to leave the bad state, and the loss inside it. */
  burst: { enter: number; leave: number; loss: number } | undefined;
  /** Chance that a datagram is overtaken: it alone is delayed by up to `reorderMs`. */
  reorder: number;
  reorderMs: number;
  /** Chance that a second copy arrives, up to `reorderMs` later. */
  duplicate: number;
  /** Chance that 1 to 4 bits are flipped. */
  corrupt: number;
  /** Larger datagrams vanish without a word, as behind a router that sends no ICMP. */
  mtuBytes: number;
  /** Serialisation rate; undefined is infinite. */
  rateBytesPerSecond: number | undefined;
  /** Bytes that may wait for the link; more are dropped at the tail. Read only with a rate. */
  queueBytes: number;
}

/** A quiet local network: 5 ms each way, 1,500 B. */
export const QUIET_LINK: LinkProfile = {
  latencyMs: 5,
  jitterMs: 0,
  loss: 0,
  burst: undefined,
  reorder: 0,
  reorderMs: 20,
  duplicate: 0,
  corrupt: 0,
  mtuBytes: 1_500,
  rateBytesPerSecond: undefined,
  queueBytes: 100_000,
};

/** Silence after which a burst of loss has passed. */
const BURST_SILENCE_MS = 500;

/** Why a link did not deliver. */
export type LinkDrop = "partition" | "mtu" | "queue" | "loss" | "burst";

/** One direction between two addresses. `profile` and `up` may be changed while the world runs. */
export class Link {
  up = true;
  readonly drops: Record<LinkDrop, number> = { partition: 0, mtu: 0, queue: 0, loss: 0, burst: 0 };
  datagrams = 0;
  bytes = 0;
  corrupted = 0;
  duplicated = 0;
  #random: SimRandom;
  #inBurst = false;
  #busyUntilMs = 0;
  #lastArrivalMs = 0;
  #lastSentMs = 0;

  constructor(public profile: LinkProfile, random: SimRandom) {
    this.#random = random;
  }

  /** Takes one datagram, which becomes the link's; calls `deliver` once for each copy that will arrive. */
  carry(bytes: Uint8Array, nowMs: number, deliver: (bytes: Uint8Array, atMs: number) => void): void {
    this.datagrams++;
    this.bytes += bytes.length;
    const drop = this.#dropReason(bytes, nowMs);
    if (drop) {
      this.drops[drop]++;
      return;
    }
    const departMs = this.#depart(bytes.length, nowMs);
    const { profile } = this;
    const random = this.#random;
    if (random.chance(profile.duplicate)) {
      this.duplicated++;
      deliver(bytes.slice(), departMs + profile.latencyMs + random.float() * profile.reorderMs);
    }
    if (random.chance(profile.corrupt)) this.#flipBits(bytes);
    deliver(bytes, this.#arrival(departMs));
  }

  #dropReason(bytes: Uint8Array, nowMs: number): LinkDrop | undefined {
    const { profile } = this;
    if (!this.up) return "partition";
    if (bytes.length > profile.mtuBytes) return "mtu";
    if (this.#backlogBytes(nowMs) + bytes.length > profile.queueBytes && profile.rateBytesPerSecond) {
      return "queue";
    }
    if (profile.burst) {
      // A burst is over when the path was silent for a while, or a sender that backs off would stay in it for minutes.
      if (nowMs - this.#lastSentMs > BURST_SILENCE_MS) this.#inBurst = false;
      this.#lastSentMs = nowMs;
      this.#inBurst = this.#inBurst
        ? !this.#random.chance(profile.burst.leave)
        : this.#random.chance(profile.burst.enter);
      if (this.#inBurst && this.#random.chance(profile.burst.loss)) return "burst";
    }
    return this.#random.chance(profile.loss) ? "loss" : undefined;
  }

  #backlogBytes(nowMs: number): number {
    const rate = this.profile.rateBytesPerSecond;
    return rate ? Math.max(0, this.#busyUntilMs - nowMs) * rate / 1_000 : 0;
  }

  #depart(byteCount: number, nowMs: number): number {
    const rate = this.profile.rateBytesPerSecond;
    if (!rate) return nowMs;
    this.#busyUntilMs = Math.max(nowMs, this.#busyUntilMs) + byteCount * 1_000 / rate;
    return this.#busyUntilMs;
  }

  #arrival(departMs: number): number {
    const { profile } = this;
    const direct = departMs + profile.latencyMs +
      (profile.jitterMs ? this.#random.float() * profile.jitterMs : 0);
    if (this.#random.chance(profile.reorder)) return direct + this.#random.float() * profile.reorderMs;
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, direct);
    return this.#lastArrivalMs;
  }

  #flipBits(bytes: Uint8Array): void {
    this.corrupted++;
    const flips = 1 + this.#random.below(4);
    for (let i = 0; i < flips; i++) {
      const at = this.#random.below(bytes.length);
      bytes[at] = (bytes[at] as number) ^ (1 << this.#random.below(8));
    }
  }
}
