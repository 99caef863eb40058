/** Time that passes when nothing else is to be done. */
import type { Timer } from "../timer.ts";

/** A clock and timers of it. */
export interface VirtualTime {
  readonly clock: { now(): number };
  readonly timer: Timer;
  /** Lets time pass, from timer to timer, until `work` has settled, and gives what it gave. */
  run<T>(work: Promise<T>): Promise<T>;
  /** Lets this much time pass. */
  pass(ms: number): Promise<void>;
}

/** Creates it, at 1,000,000 ms. */
export function createVirtualTime(): VirtualTime {
  let nowMs = 1_000_000;
  const pending = new Set<{ readonly atMs: number; readonly fn: () => void }>();

  function next() {
    let found: { readonly atMs: number; readonly fn: () => void } | undefined;
    for (const entry of pending) if (found === undefined || entry.atMs < found.atMs) found = entry;
    return found;
  }

  /** Fires the next timer that is due by `untilMs`; false when there is none. */
  function step(untilMs: number): boolean {
    const entry = next();
    if (entry === undefined || entry.atMs > untilMs) return false;
    pending.delete(entry);
    nowMs = Math.max(nowMs, entry.atMs);
    entry.fn();
    return true;
  }

  const settle = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

  return {
    clock: { now: () => nowMs },
    timer: {
      endOfTurn: (fn) => void setTimeout(fn, 0),
      after(delayMs, fn) {
        const entry = { atMs: nowMs + delayMs, fn };
        pending.add(entry);
        return () => pending.delete(entry);
      },
    },
    async run(work) {
      let isDone = false;
      const done = () => void (isDone = true);
      work.then(done, done);
      for (;;) {
        await settle();
        if (isDone) return await work;
        if (!step(Infinity)) await settle();
      }
    },
    async pass(ms) {
      const untilMs = nowMs + ms;
      await settle();
      while (step(untilMs)) await settle();
      nowMs = untilMs;
    },
  };
}
