/** A clock that moves when it is told to. */
import type { RpcClock } from "../rpc/mod.ts";

export class ManualRpcClock implements RpcClock {
  #now = 0;
  readonly #timers = new Set<{ dueAt: number; run: () => void }>();

  now(): number {
    return this.#now;
  }

  setTimer(run: () => void, delayMs: number): () => void {
    const timer = { dueAt: this.#now + delayMs, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Timers that are set. */
  get timers(): number {
    return this.#timers.size;
  }

  /** Moves time on and runs what became due, in order. */
  advance(byMs: number): void {
    const target = this.#now + byMs;
    for (;;) {
      let first: { dueAt: number; run: () => void } | undefined;
      for (const timer of this.#timers) {
        if (timer.dueAt <= target && (first === undefined || timer.dueAt < first.dueAt)) first = timer;
      }
      if (first === undefined) break;
      this.#timers.delete(first);
      this.#now = Math.max(this.#now, first.dueAt);
      first.run();
    }
    this.#now = target;
  }
}
