/** Hashes passwords one at a time, and refuses when too many wait. */
import { timingSafeEqual } from "node:crypto";
import type { PasswordConfig } from "./config.ts";
import { type Argon2Parameters, formatPhc, parsePhc, WORK_KIB_MAX } from "./phc.ts";

/** Works argon2id out. */
export type Argon2id = (
  work: Argon2Parameters & { password: string; salt: Uint8Array; hashBytes: number },
) => Promise<Uint8Array>;

/** Why a password was not worked out. */
export class PasswordError extends Error {
  override readonly name = "PasswordError";
  constructor(
    readonly code: "too_many" | "invalid" | "canceled",
    message: string,
    /** When to try again, in seconds; 0 when that does not help. */
    readonly retryAfterS = 0,
  ) {
    super(message);
  }
}

/** What hashing needs. */
export interface HasherDeps {
  readonly config: PasswordConfig;
  readonly argon2id: Argon2id;
  readonly random: { fill(target: Uint8Array): Uint8Array };
  /** Monotonic time in milliseconds. */
  readonly clock: { now(): number };
  /** Lets other work of the event loop run: a hash holds it for its whole time. */
  readonly pause: () => Promise<void>;
}

/** Figures since the start. */
export interface HasherFigures {
  readonly hashes: number;
  readonly refused: number;
  readonly waiting: number;
  readonly busySeconds: number;
}

/** Longest password that is worked out, in bytes of UTF-8: 256 characters of four. */
export const PASSWORD_BYTES_MAX = 1_024;

const SALT_BYTES = 16;
const HASH_BYTES = 32;
const LANES = 1;
/** What one hash takes on a common core: what callers are told to wait is made of it until there is a measured one. */
const USUAL_HASH_MS = 50;

const encoder = new TextEncoder();

/** Hashes and verifies. */
export class PasswordHasher {
  readonly #deps: HasherDeps;
  /** Callers that wait for their turn; at most `waitingMax`. */
  readonly #waiting: (() => void)[] = [];
  #isBusy = false;
  #hashes = 0;
  #refused = 0;
  #busyMs = 0;

  constructor(deps: HasherDeps) {
    this.#deps = deps;
  }

  /** A PHC string of the password with a new salt and the configured parameters.
   *  @throws {PasswordError} */
  async hash(password: string, signal?: AbortSignal): Promise<string> {
    checkLength(password);
    const { memoryKib, passes } = this.#deps.config;
    const salt = this.#deps.random.fill(new Uint8Array(SALT_BYTES));
    const work = { memoryKib, passes, lanes: LANES, salt, hashBytes: HASH_BYTES };
    const hash = await this.#inTurn(signal, () => this.#deps.argon2id({ ...work, password }));
    return formatPhc({ ...work, hash });
  }

  /** Whether the password is the one of a PHC string, and whether that was made with other parameters than today's.
   *  @throws {PasswordError} `invalid` also for a text that is no hash of argon2id within bounds. */
  async verify(
    password: string,
    stored: string,
    signal?: AbortSignal,
  ): Promise<{ matches: boolean; isOutdated: boolean }> {
    checkLength(password);
    const parsed = parsePhc(stored);
    const { memoryKib, passes } = this.#deps.config;
    const workMax = Math.max(WORK_KIB_MAX, memoryKib * passes);
    if (parsed === undefined || parsed.memoryKib * parsed.passes > workMax) {
      throw new PasswordError("invalid", "password: the stored hash is not one of argon2id within bounds");
    }
    const { salt, hash, lanes } = parsed;
    const work = { memoryKib: parsed.memoryKib, passes: parsed.passes, lanes, salt, hashBytes: hash.length };
    const made = await this.#inTurn(signal, () => this.#deps.argon2id({ ...work, password }));
    return {
      matches: timingSafeEqual(made, hash),
      isOutdated: parsed.memoryKib !== memoryKib || parsed.passes !== passes || lanes !== LANES ||
        hash.length !== HASH_BYTES || salt.length < SALT_BYTES,
    };
  }

  /** Figures now. */
  figures(): HasherFigures {
    return {
      hashes: this.#hashes,
      refused: this.#refused,
      waiting: this.#waiting.length,
      busySeconds: this.#busyMs / 1_000,
    };
  }

  async #inTurn<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    if (!this.#isBusy) this.#isBusy = true;
    else {
      if (this.#waiting.length >= this.#deps.config.waitingMax) {
        this.#refused++;
        throw new PasswordError("too_many", "too many passwords wait to be checked", this.#retryAfterS());
      }
      // Whoever ends hands its turn over.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    try {
      // Nobody waits for this answer any more: a flood that gave up costs nothing.
      if (signal?.aborted) throw new PasswordError("canceled", "password: the caller has gone");
      const startedMs = this.#deps.clock.now();
      const result = await work();
      this.#hashes++;
      this.#busyMs += this.#deps.clock.now() - startedMs;
      return result;
    } finally {
      await this.#deps.pause();
      const next = this.#waiting.shift();
      if (next === undefined) this.#isBusy = false;
      else next();
    }
  }

  /** Until half of those that wait now are done. */
  #retryAfterS(): number {
    const hashMs = this.#hashes === 0 ? USUAL_HASH_MS : this.#busyMs / this.#hashes;
    return Math.max(1, Math.ceil(this.#waiting.length * hashMs / 2_000));
  }
}

function checkLength(password: string): void {
  if (password === "") throw new PasswordError("invalid", "password: it is empty");
  if (encoder.encode(password).length > PASSWORD_BYTES_MAX) {
    throw new PasswordError("invalid", `password: it has more than ${PASSWORD_BYTES_MAX} bytes`);
  }
}
