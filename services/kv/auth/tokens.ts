/** Tokens that clients show instead of their password, as etcd's simple tokens: random, in memory only, good for a while
 *  since their last use. A restart ends them all; clients log in again. */
import { type AuthStore, Credential } from "./auth.ts";

/** Bounds of tokens. */
export interface TokenLimits {
  /** How long an unused token is good. */
  readonly tokenTtlMs: number;
  /** Tokens at a time; one more ends the one that was unused for longest. */
  readonly tokensMax: number;
}

interface Token {
  readonly credential: Credential;
  usedAtMs: number;
}

const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/** 91 bits. */
const RANDOM_LETTERS = 16;
/** Tokens are made of a byte each while it is below this: a multiple of the letters, so that all are equally likely. */
const FAIR_BYTES = 256 - 256 % LETTERS.length;

/** The tokens of one store. */
export class Tokens {
  readonly #tokens = new Map<string, Token>();
  #made = 0;

  constructor(
    readonly auth: AuthStore,
    readonly limits: TokenLimits,
    readonly random: { fill(target: Uint8Array): Uint8Array },
    readonly clock: { now(): number },
  ) {}

  /** Tokens in memory, those that ran out since the last full house included. */
  get size(): number {
    return this.#tokens.size;
  }

  /** Makes a token for a credential. */
  issue(credential: Credential): string {
    if (this.#tokens.size >= this.limits.tokensMax) this.#makeRoom();
    // etcd's form: letters, a dot and a number that does not repeat.
    const token = `${this.#letters()}.${++this.#made}`;
    this.#tokens.set(token, { credential, usedAtMs: this.clock.now() });
    return token;
  }

  /** Whose token it is; undefined when it is none, ran out, or its credential ended. Counts as use. */
  find(text: string): Credential | undefined {
    const token = this.#tokens.get(text);
    if (token === undefined) return undefined;
    const now = this.clock.now();
    if (!this.#isGood(token, now)) {
      this.#tokens.delete(text);
      return undefined;
    }
    token.usedAtMs = now;
    return token.credential;
  }

  #isGood({ credential, usedAtMs }: Token, now: number): boolean {
    return now - usedAtMs < this.limits.tokenTtlMs && this.auth.isLive(credential);
  }

  /** Drops the tokens that are no longer good, and if that is none, the one unused for longest. A pass over all: a login
   *  costs a thousand times more. */
  #makeRoom(): void {
    const now = this.clock.now();
    const before = this.#tokens.size;
    let oldest: string | undefined;
    let oldestAtMs = Infinity;
    for (const [text, token] of this.#tokens) {
      if (!this.#isGood(token, now)) this.#tokens.delete(text);
      else if (token.usedAtMs < oldestAtMs) {
        oldestAtMs = token.usedAtMs;
        oldest = text;
      }
    }
    if (this.#tokens.size === before && oldest !== undefined) this.#tokens.delete(oldest);
  }

  #letters(): string {
    let text = "";
    const bytes = new Uint8Array(RANDOM_LETTERS);
    while (text.length < RANDOM_LETTERS) {
      for (const byte of this.random.fill(bytes)) {
        if (byte < FAIR_BYTES && text.length < RANDOM_LETTERS) text += LETTERS[byte % LETTERS.length];
      }
    }
    return text;
  }
}
