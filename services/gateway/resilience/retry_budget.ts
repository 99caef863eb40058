/** How many calls may be made again: a service in trouble must not be given more to do because of it. */

/** Span over which requests are looked back on, in seconds. */
export const BUDGET_WINDOW_S = 10;

/** Bounds retries by the requests of the last ten seconds. */
export class RetryBudget {
  readonly #requests = new Float64Array(BUDGET_WINDOW_S);
  readonly #retries = new Float64Array(BUDGET_WINDOW_S);
  /** Sums of the two. */
  #requestSum = 0;
  #retrySum = 0;
  /** The second, since the clock's zero, that is counted in now. */
  #second = 0;

  /** Retries are at most `percent` of requests, or `minPerSecond` where that is more. */
  constructor(readonly percent: number, readonly minPerSecond: number) {}

  /** Counts a request that is sent for the first time. */
  request(nowMs: number): void {
    this.#requests[this.#slot(nowMs)]!++;
    this.#requestSum++;
  }

  /** Takes one retry; false when the budget is spent. */
  take(nowMs: number): boolean {
    const slot = this.#slot(nowMs);
    const most = Math.max(this.#requestSum * this.percent / 100, this.minPerSecond * BUDGET_WINDOW_S);
    if (this.#retrySum + 1 > most) return false;
    this.#retries[slot]!++;
    this.#retrySum++;
    return true;
  }

  /** The slot of the present second; empties those that have become too old. */
  #slot(nowMs: number): number {
    const second = Math.floor(nowMs / 1000);
    const passed = Math.min(second - this.#second, BUDGET_WINDOW_S);
    for (let i = 1; i <= passed; i++) {
      const slot = (this.#second + i) % BUDGET_WINDOW_S;
      this.#requestSum -= this.#requests[slot]!;
      this.#retrySum -= this.#retries[slot]!;
      this.#requests[slot] = this.#retries[slot] = 0;
    }
    if (second > this.#second) this.#second = second;
    // After a jump of more than the window every slot is empty, whichever they are.
    return this.#second % BUDGET_WINDOW_S;
  }
}
