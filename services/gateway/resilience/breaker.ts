/** Circuit breakers: a target that fails is left alone for a while.
 *
 *            trips                    openMs have passed
 *   closed ─────────► open ───────────────────────────────► half-open
 *     ▲                ▲                                       │ │
 *     │                └────────── one probe failed ───────────┘ │
 *     └────────────── `successesToClose` probes succeeded ───────┘
 *
 *  The rule that trips and its counters are cockatiel's kind of breaker (`IBreaker`). Its policy object is not used: it lets
 *  one probe through and holds all other calls until that is answered, reads the wall clock, and wraps promises; README.md has
 *  the figures. */
import { CircuitState, ConsecutiveBreaker, type IBreaker } from "cockatiel";

/** When a breaker trips and how it recovers. */
export interface BreakerSettings {
  /** Probes under way at once while half-open. */
  readonly maxProbes: number;
  /** Probes that must succeed, one after the other, to close. */
  readonly successesToClose: number;
  /** Counters start anew this often while closed. */
  readonly intervalMs: number;
  /** How long no call passes after a trip; also how long probes may stay unanswered. */
  readonly openMs: number;
  /** Calls of an interval below which nothing trips. */
  readonly minRequests: number;
  /** Share of failures, 0 to 1, from which it trips. */
  readonly errorRate: number;
  /** Failures in a row from which it trips. */
  readonly consecutiveFailures: number;
}

/** Sets of settings to choose from. */
export const BREAKER_PRESETS = {
  default: {
    maxProbes: 5,
    successesToClose: 5,
    intervalMs: 10_000,
    openMs: 60_000,
    minRequests: 5,
    errorRate: 0.5,
    consecutiveFailures: 5,
  },
  aggressive: {
    maxProbes: 3,
    successesToClose: 3,
    intervalMs: 5_000,
    openMs: 30_000,
    minRequests: 3,
    errorRate: 0.3,
    consecutiveFailures: 3,
  },
  conservative: {
    maxProbes: 10,
    successesToClose: 10,
    intervalMs: 20_000,
    openMs: 120_000,
    minRequests: 10,
    errorRate: 0.7,
    consecutiveFailures: 10,
  },
} as const satisfies Record<string, BreakerSettings>;

/** What a call told of its target: `none` when it told nothing, as one that its caller gave up. */
export type Outcome = "success" | "failure" | "none";

/** How a breaker stands. */
export type BreakerState = "closed" | "open" | "half_open";

/** A call's number that says that it may not pass. */
export const REFUSED = -1;

/** Trips at `minRequests` calls of an interval when too many of them failed, or the last ones did. A call is counted once,
 *  when its outcome is known. */
class TripRule implements IBreaker {
  successes = 0;
  failures = 0;
  successesInARow = 0;
  #streak: ConsecutiveBreaker;

  constructor(readonly settings: BreakerSettings) {
    this.#streak = new ConsecutiveBreaker(settings.consecutiveFailures);
  }

  get requests(): number {
    return this.successes + this.failures;
  }

  get failuresInARow(): number {
    return this.#streak.state as number;
  }

  get state(): unknown {
    const { successes, failures, successesInARow, failuresInARow } = this;
    return { successes, failures, successesInARow, failuresInARow };
  }

  set state(value: unknown) {
    const { successes, failures, successesInARow, failuresInARow } = value as TripRule;
    Object.assign(this, { successes, failures, successesInARow });
    this.#streak.state = failuresInARow;
  }

  success(_state: CircuitState): void {
    this.successes++;
    this.successesInARow++;
    this.#streak.success();
  }

  failure(state: CircuitState): boolean {
    this.failures++;
    this.successesInARow = 0;
    const isStreak = this.#streak.failure();
    if (state !== CircuitState.Closed) return true;
    if (this.requests < this.settings.minRequests) return false;
    return isStreak || this.failures >= this.settings.errorRate * this.requests;
  }

  clear(): void {
    this.successes = this.failures = this.successesInARow = 0;
    this.#streak.success();
  }
}

/** The breaker of one target. All times are monotonic milliseconds. */
export class Breaker {
  readonly #rule: TripRule;
  #state: CircuitState = CircuitState.Closed;
  /** Raised when the state changes and when unanswered probes are given up: outcomes of calls from before say nothing. */
  #era = 0;
  #intervalEndsAtMs = -Infinity;
  /** Of the present state, unless it is closed. */
  #sinceMs = 0;
  #probes = 0;
  #trips = 0;

  /** `onTrip` is called when the breaker opens. */
  constructor(readonly settings: BreakerSettings, readonly onTrip: () => void = () => {}) {
    this.#rule = new TripRule(settings);
  }

  /** Asks to pass. The number is for `leave`, which must be called once; REFUSED when the call may not pass. */
  enter(nowMs: number): number {
    if (this.#state === CircuitState.Closed) return this.#era;
    if (this.#state === CircuitState.Open) {
      if (nowMs - this.#sinceMs < this.settings.openMs) return REFUSED;
      this.#change(CircuitState.HalfOpen, nowMs);
    }
    const { maxProbes, successesToClose, openMs } = this.settings;
    if (
      this.#probes >= maxProbes || this.#probes + this.#rule.successesInARow >= successesToClose
    ) {
      if (nowMs - this.#sinceMs < openMs) return REFUSED;
      // Probes that nobody answers must not keep the target away for ever.
      this.#change(CircuitState.HalfOpen, nowMs);
    }
    this.#probes++;
    return this.#era;
  }

  /** Whether `enter` would let a call pass. */
  wouldPass(nowMs: number): boolean {
    if (this.#state === CircuitState.Closed) return true;
    if (nowMs - this.#sinceMs >= this.settings.openMs) return true;
    if (this.#state === CircuitState.Open) return false;
    const { maxProbes, successesToClose } = this.settings;
    return this.#probes < maxProbes && this.#probes + this.#rule.successesInARow < successesToClose;
  }

  /** The call with this number is over. */
  leave(number: number, outcome: Outcome, nowMs: number): void {
    if (number !== this.#era) return;
    if (this.#state === CircuitState.Closed) this.#countClosed(outcome, nowMs);
    else this.#countProbe(outcome, nowMs);
  }

  get state(): BreakerState {
    return STATE_NAMES[this.#state]!;
  }

  /** Milliseconds until a call may pass; 0 when one may now, and, while half-open, when that depends on probes. */
  retryAfterMs(nowMs: number): number {
    return this.#state === CircuitState.Open ? Math.max(0, this.#sinceMs + this.settings.openMs - nowMs) : 0;
  }

  /** How long it has been open; 0 when it is not. */
  openForMs(nowMs: number): number {
    return this.#state === CircuitState.Open ? nowMs - this.#sinceMs : 0;
  }

  /** Closes it and forgets all counts. True if it was not closed. */
  reset(): boolean {
    const wasClosed = this.#state === CircuitState.Closed;
    this.#change(CircuitState.Closed, 0);
    this.#intervalEndsAtMs = -Infinity;
    return !wasClosed;
  }

  /** Counters of the present interval, and trips of all time. */
  figures(): {
    requests: number;
    successes: number;
    failures: number;
    successesInARow: number;
    failuresInARow: number;
    trips: number;
  } {
    const { requests, successes, failures, successesInARow, failuresInARow } = this.#rule;
    return { requests, successes, failures, successesInARow, failuresInARow, trips: this.#trips };
  }

  #countClosed(outcome: Outcome, nowMs: number): void {
    if (outcome === "none") return;
    if (nowMs >= this.#intervalEndsAtMs) {
      this.#rule.clear();
      this.#intervalEndsAtMs = nowMs + this.settings.intervalMs;
    }
    if (outcome === "success") this.#rule.success(CircuitState.Closed);
    else if (this.#rule.failure(CircuitState.Closed)) this.#trip(nowMs);
  }

  #countProbe(outcome: Outcome, nowMs: number): void {
    this.#probes--;
    if (outcome === "none") return;
    if (outcome === "failure") {
      this.#rule.failure(CircuitState.HalfOpen);
      return this.#trip(nowMs);
    }
    this.#rule.success(CircuitState.HalfOpen);
    if (this.#rule.successesInARow < this.settings.successesToClose) return;
    this.#change(CircuitState.Closed, nowMs);
    this.#intervalEndsAtMs = nowMs + this.settings.intervalMs;
  }

  #trip(nowMs: number): void {
    const { successes, failures, successesInARow, failuresInARow } = this.#rule;
    this.#change(CircuitState.Open, nowMs);
    // What tripped it can be seen while it is open.
    this.#rule.state = { successes, failures, successesInARow, failuresInARow };
    this.#trips++;
    this.onTrip();
  }

  #change(state: CircuitState, nowMs: number): void {
    this.#state = state;
    this.#era++;
    this.#sinceMs = nowMs;
    this.#probes = 0;
    this.#rule.clear();
  }
}

const STATE_NAMES: Readonly<Record<number, BreakerState>> = {
  [CircuitState.Closed]: "closed",
  [CircuitState.Open]: "open",
  [CircuitState.HalfOpen]: "half_open",
};
