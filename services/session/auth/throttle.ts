/** Bounds how often guesses may be wrong: by name and by address. */
import { AuthError } from "./errors.ts";

/** Names, and addresses, whose failures are counted. Beyond, the ones counted for longest are forgotten; each name more
 *  costs an attacker a password's hash, 50 ms of a core, so forgetting one takes minutes. */
export const COUNTED_MAX = 10_000;

interface Failures {
  count: number;
  /** When counting begins anew. */
  readonly untilMs: number;
}

/** One attempt that was let through. The first of its methods that is called decides. */
export interface Attempt {
  /** It was right: it does not count, and the name's failures are forgotten. */
  succeed(): void;
  /** It did not come to an answer: it does not count. */
  cancel(): void;
}

/** Counts failures within windows. An attempt counts from its begin, so that many at once are no way around. */
export class Throttle {
  readonly #failuresMax: number;
  readonly #windowMs: number;
  readonly #clock: { now(): number };
  readonly #names = new Map<string, Failures>();
  readonly #addresses = new Map<string, Failures>();

  constructor(
    options: { readonly loginFailuresMax: number; readonly loginWindowMs: number },
    clock: { now(): number },
  ) {
    this.#failuresMax = options.loginFailuresMax;
    this.#windowMs = options.loginWindowMs;
    this.#clock = clock;
  }

  /** Lets an attempt through. Nothing is counted for an empty address.
   *  @throws {AuthError} `tooManyAttempts` */
  begin(name: string, address: string): Attempt {
    const now = this.#clock.now();
    const counted = [this.#entry(this.#names, name, now)];
    if (address !== "") counted.push(this.#entry(this.#addresses, address, now));
    const full = counted.filter(({ count }) => count >= this.#failuresMax);
    if (full.length > 0) {
      const untilMs = Math.max(...full.map((failures) => failures.untilMs));
      const retryAfterS = Math.max(1, Math.ceil((untilMs - now) / 1_000));
      throw new AuthError("tooManyAttempts", undefined, { retryAfterS });
    }
    for (const failures of counted) failures.count++;
    let counts = true;
    const undo = () => {
      if (!counts) return;
      counts = false;
      for (const failures of counted) failures.count--;
    };
    return {
      succeed: () => {
        if (!counts) return;
        undo();
        this.#names.delete(name);
      },
      cancel: undo,
    };
  }

  /** Names and addresses counted now. */
  get size(): number {
    return this.#names.size + this.#addresses.size;
  }

  #entry(entries: Map<string, Failures>, key: string, now: number): Failures {
    const known = entries.get(key);
    if (known !== undefined && now < known.untilMs) return known;
    entries.delete(key);
    if (entries.size >= COUNTED_MAX) entries.delete(entries.keys().next().value!);
    const fresh = { count: 0, untilMs: now + this.#windowMs };
    entries.set(key, fresh);
    return fresh;
  }
}
