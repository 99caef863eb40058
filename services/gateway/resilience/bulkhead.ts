/** Bounds the calls to one service, so that a slow one cannot take all request slots of the gateway from the others. */
import type { Timer } from "../timer.ts";

/** One call that waits, linked to its neighbours. */
interface Waiter {
  readonly admit: (isIn: boolean) => void;
  before: Waiter | undefined;
  after: Waiter | undefined;
}

/** Places for calls, and a queue of bounded length before them, served in order. */
export class Bulkhead {
  #underWay = 0;
  #queued = 0;
  #first: Waiter | undefined;
  #last: Waiter | undefined;

  constructor(readonly maxConcurrent: number, readonly maxQueued: number, readonly timer: Timer) {}

  /** Calls under way, and calls that wait. */
  get underWay(): number {
    return this.#underWay;
  }
  get queued(): number {
    return this.#queued;
  }

  /** Takes a place if one is free. */
  tryEnter(): boolean {
    if (this.#underWay >= this.maxConcurrent) return false;
    this.#underWay++;
    return true;
  }

  /** Waits for a place for at most `waitMs`; false when there was none by then, or too many wait already. */
  enter(waitMs: number): Promise<boolean> {
    if (this.tryEnter()) return Promise.resolve(true);
    if (this.#queued >= this.maxQueued) return Promise.resolve(false);
    return new Promise((resolve) => {
      const waiter: Waiter = {
        admit(isIn) {
          cancel();
          resolve(isIn);
        },
        before: this.#last,
        after: undefined,
      };
      if (this.#last === undefined) this.#first = waiter;
      else this.#last.after = waiter;
      this.#last = waiter;
      this.#queued++;
      const cancel = this.timer.after(waitMs, () => {
        this.#remove(waiter);
        waiter.admit(false);
      });
    });
  }

  /** Gives a place back, to the one who has waited longest. */
  leave(): void {
    const next = this.#first;
    if (next === undefined) {
      this.#underWay--;
      return;
    }
    this.#remove(next);
    next.admit(true);
  }

  #remove(waiter: Waiter): void {
    this.#queued--;
    if (waiter.before === undefined) this.#first = waiter.after;
    else waiter.before.after = waiter.after;
    if (waiter.after === undefined) this.#last = waiter.before;
    else waiter.after.before = waiter.before;
    waiter.before = waiter.after = undefined;
  }
}
