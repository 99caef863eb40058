/** Time as an input: production passes `systemClock`, tests and the simulator a clock they turn by hand. */
export interface Clock {
  /** Monotonic milliseconds with a fraction, from an arbitrary start: the only time that logic may use. */
  now(): number;
  /** Milliseconds since the Unix epoch, for people and for identifiers. It may jump. */
  wallMs(): number;
}

/** The machine's clocks. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wallMs: () => Date.now(),
};

/** A clock that stands still until it is told to move. */
export interface ManualClock extends Clock {
  /** Moves both times on by `ms`. @throws {RangeError} if `ms` is negative. */
  advance(ms: number): void;
  /** Sets the wall time alone, which is how a jump of the machine's clock looks. */
  setWall(ms: number): void;
}

/** Creates a clock at `now() === 0` and `wallMs() === wallMs`. */
export function createManualClock(wallMs = 1_700_000_000_000): ManualClock {
  let now = 0;
  let wall = wallMs;
  return {
    now: () => now,
    wallMs: () => wall,
    advance(ms) {
      if (!(ms >= 0)) throw new RangeError(`Cannot advance: ms must be >= 0, got ${ms}`);
      now += ms;
      wall += ms;
    },
    setWall(ms) {
      wall = ms;
    },
  };
}
