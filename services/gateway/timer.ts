/** One-shot timers, passed in so that tests decide when time passes. */
export interface Timer {
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

/** The platform's timers. */
export const systemTimer: Timer = {
  after(delayMs, fn) {
    const id = setTimeout(fn, delayMs);
    return () => clearTimeout(id);
  },
};
