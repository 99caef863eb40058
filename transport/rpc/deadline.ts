/** One timer for all deadlines of a transport or a server. */

/** Time as RPC sees it. Tests pass a virtual one. */
export interface RpcClock {
  /** Monotonic milliseconds. */
  now(): number;
  /** Calls `run` once, `delayMs` from now, unless the returned function was called before. */
  setTimer(run: () => void, delayMs: number): () => void;
}

/** The platform's clock and timers. */
export const systemRpcClock: RpcClock = {
  now: () => performance.now(),
  setTimer(run, delayMs) {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
};

/** Something that wants to be told when its time has come. */
export interface Timed {
  /** When, on the clock's `now` scale. Not to be changed while it is scheduled. */
  dueAt: number;
  /** Place in the heap; -1 while it is not scheduled. Belongs to the queue. */
  heapIndex: number;
  /** Called once, after it was taken out. */
  onDue(): void;
}

/** Largest delay a platform timer takes; a later deadline is armed in steps. */
const MAX_TIMER_MS = 0x7fff_ffff;

/** Microtasks that a timer outlives its last deadline: a caller that makes one call after the other adds the next deadline
 *  within some six of them, and a timer armed and cleared per call costs 4 µs of a call's 60. */
const DISARM_STEPS = 16;

/** Deadlines in a binary heap that knows its entries' places, so that a call that ends early leaves at once: adding and
 *  taking out cost O(log n) and no allocation, and one platform timer is armed for the earliest. The heap holds one entry a
 *  running or waiting call, so the owner's bound on calls bounds it. */
export class DeadlineQueue {
  readonly #clock: RpcClock;
  readonly #heap: Timed[] = [];
  #disarm: (() => void) | undefined;
  #armedFor = Infinity;
  // Microtasks since the heap ran empty; 0 while none is queued.
  #emptySteps = 0;

  constructor(clock: RpcClock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#heap.length;
  }

  add(entry: Timed): void {
    entry.heapIndex = this.#heap.length;
    this.#heap.push(entry);
    this.#up(entry);
    if (entry.heapIndex === 0 && entry.dueAt < this.#armedFor) this.#arm(entry.dueAt);
  }

  /** Takes an entry out; nothing happens when it is not in. */
  remove(entry: Timed): void {
    const index = entry.heapIndex;
    if (index < 0) return;
    entry.heapIndex = -1;
    const last = this.#heap.pop()!;
    if (last !== entry) {
      last.heapIndex = index;
      this.#heap[index] = last;
      this.#up(last);
      this.#down(last);
    }
    // Armed too early is harmless and saves a timer per call. With nothing left it is taken down, some microtasks later,
    // for a platform timer costs more than a small call and the next call is often on its way.
    if (this.#heap.length === 0 && this.#disarm !== undefined && this.#emptySteps === 0) {
      this.#emptySteps = 1;
      queueMicrotask(this.#disarmIfEmpty);
    }
  }

  readonly #disarmIfEmpty = (): void => {
    if (this.#heap.length > 0 || this.#disarm === undefined) {
      this.#emptySteps = 0;
      return;
    }
    if (this.#emptySteps++ < DISARM_STEPS) {
      queueMicrotask(this.#disarmIfEmpty);
      return;
    }
    this.#emptySteps = 0;
    this.#disarm();
    this.#disarm = undefined;
    this.#armedFor = Infinity;
  };

  #arm(dueAt: number): void {
    this.#disarm?.();
    this.#armedFor = dueAt;
    // Rounded up: platform timers cut fractions off, and one that fires early would be armed again at once.
    const delayMs = Math.min(MAX_TIMER_MS, Math.max(0, Math.ceil(dueAt - this.#clock.now())));
    this.#disarm = this.#clock.setTimer(() => this.#run(), delayMs);
  }

  #run(): void {
    this.#disarm = undefined;
    this.#armedFor = Infinity;
    const now = this.#clock.now();
    for (let first = this.#heap[0]; first !== undefined && first.dueAt <= now; first = this.#heap[0]) {
      this.remove(first);
      first.onDue();
    }
    const next = this.#heap[0];
    if (next !== undefined && next.dueAt < this.#armedFor) this.#arm(next.dueAt);
  }

  #up(entry: Timed): void {
    const heap = this.#heap;
    let index = entry.heapIndex;
    while (index > 0) {
      const parent = heap[(index - 1) >> 1]!;
      if (parent.dueAt <= entry.dueAt) break;
      heap[index] = parent;
      parent.heapIndex = index;
      index = (index - 1) >> 1;
    }
    heap[index] = entry;
    entry.heapIndex = index;
  }

  #down(entry: Timed): void {
    const heap = this.#heap;
    let index = entry.heapIndex;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = heap[childIndex];
      if (child === undefined) break;
      const right = heap[childIndex + 1];
      if (right !== undefined && right.dueAt < child.dueAt) {
        child = right;
        childIndex++;
      }
      if (child.dueAt >= entry.dueAt) break;
      heap[index] = child;
      child.heapIndex = index;
      index = childIndex;
    }
    heap[index] = entry;
    entry.heapIndex = index;
  }
}
