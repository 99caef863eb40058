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

/** One wait of a TimeoutQueue, linked to its neighbours while it is in. */
interface Wait {
  readonly dueAtMs: number;
  readonly onTimeout: () => void;
  before: Wait | undefined;
  after: Wait | undefined;
  isIn: boolean;
}

/** Timeouts of one length for many short waits, on one timer: arming a timer for each wait would cost more than the
 *  wait. Entries expire in the order they came; a timeout is late by no more than the time between two entries' ends.
 *
 *  A linked list whose entries let go of their neighbours when they leave. A `Set` would keep everything that passed
 *  through it alive until a full garbage collection, see transport/quantum/core/id_map.ts. */
export class TimeoutQueue {
  // As many as requests that wait at once, which gateway.limits.concurrentRequests bounds.
  #first: Wait | undefined;
  #last: Wait | undefined;
  #cancelTimer: (() => void) | undefined;

  constructor(
    readonly timeoutMs: number,
    readonly clock: { now(): number },
    readonly timer: Timer,
  ) {}

  /** Calls `onTimeout` after `timeoutMs`, unless the returned function was called before. */
  add(onTimeout: () => void): () => void {
    const wait: Wait = {
      dueAtMs: this.clock.now() + this.timeoutMs,
      onTimeout,
      before: this.#last,
      after: undefined,
      isIn: true,
    };
    if (this.#last === undefined) this.#first = wait;
    else this.#last.after = wait;
    this.#last = wait;
    if (this.#cancelTimer === undefined) this.#arm(this.timeoutMs);
    return () => this.#remove(wait);
  }

  /** Lets go of the timer; entries that are left never time out. */
  close(): void {
    this.#first = this.#last = undefined;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #remove(wait: Wait): void {
    if (!wait.isIn) return;
    wait.isIn = false;
    if (this.#first === wait) this.#first = wait.after;
    else if (wait.before !== undefined) wait.before.after = wait.after;
    if (this.#last === wait) this.#last = wait.before;
    else if (wait.after !== undefined) wait.after.before = wait.before;
    wait.before = wait.after = undefined;
  }

  #arm(delayMs: number): void {
    this.#cancelTimer = this.timer.after(delayMs, () => {
      this.#cancelTimer = undefined;
      const now = this.clock.now();
      for (let wait = this.#first; wait !== undefined; wait = this.#first) {
        // Timers have whole milliseconds.
        if (wait.dueAtMs > now + 1) return this.#arm(wait.dueAtMs - now);
        this.#remove(wait);
        wait.onTimeout();
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
