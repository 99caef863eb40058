/** Virtual time for worlds of promises: what is due runs in the order of its time, and between two things everything that can go
 *  on without time passing does. */
import { assert } from "@std/assert";
import { createManualClock, type ManualClock } from "../../services/runtime/clock.ts";

/** Rounds in which a world may go on at one instant until it counts as hung. */
const ROUNDS_MAX = 10_000;

interface Due {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  isCancelled: boolean;
}

/** What is to happen. */
export class Schedule {
  readonly clock: ManualClock = createManualClock();
  /** A binary heap by time, then by order. */
  readonly #heap: Due[] = [];
  #ends: (() => void)[] = [];
  #order = 0;

  get nowMs(): number {
    return this.clock.now();
  }

  /** Runs `run` in so many milliseconds; the returned function takes that back. */
  after(ms: number, run: () => void): () => void {
    const due = { atMs: this.nowMs + ms, order: this.#order++, run, isCancelled: false };
    this.#push(due);
    return () => {
      due.isCancelled = true;
    };
  }

  /** Resolves in so many milliseconds. */
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Runs `run` when what goes on now has come to rest. */
  readonly endOfTurn = (run: () => void): void => {
    this.#ends.push(run);
  };

  /** Lets time pass until `isDone`, or until nothing is due any more. False if `untilMs` came first. */
  async run(isDone: () => boolean, untilMs = Infinity): Promise<boolean> {
    await this.#settle();
    while (!isDone()) {
      const due = this.#pop();
      if (due === undefined) return isDone();
      if (due.isCancelled) continue;
      if (due.atMs > untilMs) {
        this.#push(due);
        this.clock.advance(Math.max(0, untilMs - this.nowMs));
        return false;
      }
      this.clock.advance(Math.max(0, due.atMs - this.nowMs));
      due.run();
      await this.#settle();
    }
    return true;
  }

  async #settle(): Promise<void> {
    for (let round = 0;; round++) {
      assert(round < ROUNDS_MAX, "the world goes on without time passing");
      await turn();
      const ends = this.#ends;
      if (ends.length === 0) return;
      this.#ends = [];
      for (const run of ends) run();
    }
  }

  #push(due: Due): void {
    const heap = this.#heap;
    let at = heap.push(due) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (isBefore(heap[parent]!, due)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = due;
  }

  #pop(): Due | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || last === first) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (isBefore(last, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Due, b: Due): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Everything that waits for nothing but other promises has gone on. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
