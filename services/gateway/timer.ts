/** One-shot timers, passed in so that tests decide when time passes. */
export interface Timer {
  /** Calls `fn` when all events that wait now have been handled. */
  endOfTurn(fn: () => void): void;
  /** Calls `fn` once, `delayMs` milliseconds from now; the returned function cancels it. */
  after(delayMs: number, fn: () => void): () => void;
}

/** Waits `delayMs`, or until `signal` aborts, whichever is first. Never rejects. */
export function pause(timer: Timer, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const cancel = timer.after(delayMs, resolve);
    signal?.addEventListener("abort", () => {
      cancel();
      resolve();
    }, { once: true });
  });
}

/** Timeouts of one length for many short waits, on one timer: arming a timer for each wait would cost more than the
 *  wait. Entries expire in the order they came; a timeout is late by no more than the time between two entries' ends. */
export class TimeoutQueue {
  // As many as requests that wait at once, which gateway.limits.concurrentRequests bounds.
  readonly #entries = new Set<{ readonly dueAtMs: number; readonly onTimeout: () => void }>();
  #cancelTimer: (() => void) | undefined;

  constructor(
    readonly timeoutMs: number,
    readonly clock: { now(): number },
    readonly timer: Timer,
  ) {}

  /** Calls `onTimeout` after `timeoutMs`, unless the returned function was called before. */
  add(onTimeout: () => void): () => void {
    const entry = { dueAtMs: this.clock.now() + this.timeoutMs, onTimeout };
    this.#entries.add(entry);
    if (this.#cancelTimer === undefined) this.#arm(this.timeoutMs);
    return () => this.#entries.delete(entry);
  }

  /** Lets go of the timer; entries that are left never time out. */
  close(): void {
    this.#entries.clear();
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #arm(delayMs: number): void {
    this.#cancelTimer = this.timer.after(delayMs, () => {
      this.#cancelTimer = undefined;
      const now = this.clock.now();
      for (const entry of this.#entries) {
        // Timers have whole milliseconds.
        if (entry.dueAtMs > now + 1) return this.#arm(entry.dueAtMs - now);
        this.#entries.delete(entry);
        entry.onTimeout();
      }
    });
  }
}

/** The platform's timers. */
export const systemTimer: Timer = {
  endOfTurn: (fn) => void setImmediate(fn),
  after(delayMs, fn) {
    const id = setTimeout(fn, delayMs);
    return () => clearTimeout(id);
  },
};
