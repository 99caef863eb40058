/** Large states on their way to clients, in turns: what all sockets together hold of them is bounded, however many clients come
 *  at once. A client that reads slowly gives its place up after a while, and what such clients hold is bounded too. */
import type { Timer } from "../timer.ts";

/** How often it is looked at what was written, in milliseconds. */
const POLL_MS = 10;
/** Time in which a client is to have read a state, before others are let in: this long, and a second for each so many bytes. */
const FAIR_MS = 2_000;
const FAIR_BYTES_PER_S = 2 * 1_024 * 1_024;
/** What slow clients may hold, as a multiple of what may be under way. */
const SLOW_FACTOR = 4;

/** A socket that states are sent on. */
export interface StateTarget {
  readonly isOver: boolean;
  /** Bytes that it was given and has not written. */
  readonly unwrittenBytes: number;
  /** Gives it frames. Until `written`, so many bytes of them do not count as a queue. */
  push(frames: readonly Uint8Array[], bytes: number): void;
  written(bytes: number): void;
  /** Ends it for being slow. */
  dropSlow(): void;
}

interface Sending {
  readonly target: StateTarget;
  readonly frames: readonly Uint8Array[];
  readonly bytes: number;
  readonly onSent: () => void;
}

interface InFlight {
  readonly target: StateTarget;
  readonly bytes: number;
  readonly fairUntilMs: number;
}

/** Sends states in turns. */
export class StateQueue {
  readonly #bytesMax: number;
  readonly #timer: Timer;
  readonly #clock: { now(): number };
  /** Bounded by the sockets, and by the questions that each may ask at once. */
  #waiting: Sending[] = [];
  #inFlight: InFlight[] = [];
  #slow: InFlight[] = [];
  #inFlightBytes = 0;
  #slowBytes = 0;
  #cancelPoll: (() => void) | undefined;

  constructor(options: { bytesMax: number; timer: Timer; clock: { now(): number } }) {
    this.#bytesMax = options.bytesMax;
    this.#timer = options.timer;
    this.#clock = options.clock;
  }

  /** Sends frames when there is room; one state always has. */
  send(target: StateTarget, frames: readonly Uint8Array[], bytes: number, onSent: () => void): void {
    this.#waiting.push({ target, frames, bytes, onSent });
    this.#admit();
  }

  /** Lets go of what waits, and of the timer. */
  close(): void {
    this.#cancelPoll?.();
    this.#cancelPoll = undefined;
    this.#waiting = [];
    this.#inFlight = [];
    this.#slow = [];
  }

  #admit(): void {
    let count = 0;
    for (const { target, frames, bytes, onSent } of this.#waiting) {
      if (this.#inFlight.length > 0 && this.#inFlightBytes + bytes > this.#bytesMax) break;
      count++;
      if (target.isOver) continue;
      const fairUntilMs = this.#clock.now() + FAIR_MS + bytes / FAIR_BYTES_PER_S * 1000;
      this.#inFlight.push({ target, bytes, fairUntilMs });
      this.#inFlightBytes += bytes;
      target.push(frames, bytes);
      onSent();
    }
    this.#waiting.splice(0, count);
    this.#arm();
  }

  #arm(): void {
    if (this.#cancelPoll !== undefined || this.#inFlight.length + this.#slow.length === 0) return;
    this.#cancelPoll = this.#timer.after(POLL_MS, () => {
      this.#cancelPoll = undefined;
      this.#poll();
    });
  }

  #poll(): void {
    const now = this.#clock.now();
    this.#slow = this.#slow.filter((sending) => {
      if (!isDone(sending)) return true;
      this.#slowBytes -= sending.bytes;
      return false;
    });
    this.#inFlight = this.#inFlight.filter((sending) => {
      const isWritten = isDone(sending);
      if (!isWritten && now < sending.fairUntilMs) return true;
      this.#inFlightBytes -= sending.bytes;
      if (isWritten) return false;
      this.#slow.push(sending);
      this.#slowBytes += sending.bytes;
      return false;
    });
    while (this.#slowBytes > this.#bytesMax * SLOW_FACTOR) {
      const oldest = this.#slow.shift()!;
      this.#slowBytes -= oldest.bytes;
      oldest.target.dropSlow();
    }
    this.#admit();
  }
}

/** Frames are written in their order: when less than the state is left, the state is gone. */
function isDone({ target, bytes }: InFlight): boolean {
  if (target.isOver) return true;
  if (target.unwrittenBytes >= bytes) return false;
  target.written(bytes);
  return true;
}
