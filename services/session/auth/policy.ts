/** What gateways must know to judge credentials: whether they are needed, and which keys verify tokens. */
import type { AuthConfig } from "./config.ts";
import { AuthError } from "./errors.ts";
import type { PublishedKeys, SigningKeys } from "./signing_keys.ts";

/** The policy at a time. */
export interface PolicySnapshot extends PublishedKeys {
  readonly isRequired: boolean;
  readonly issuer: string;
  readonly audience: string;
}

/** Streams of the policy at a time: one for each gateway of the cluster, and some room. */
export const POLICY_WATCHERS_MAX = 1_024;

/** The present policy. */
export class Policy {
  readonly #config: Pick<AuthConfig, "mode" | "issuer" | "audience">;
  readonly #keys: SigningKeys;
  #hasUsers = false;
  #watchers = 0;
  #isClosed = false;
  #changed = Promise.withResolvers<void>();

  constructor(config: Pick<AuthConfig, "mode" | "issuer" | "audience">, keys: SigningKeys) {
    this.#config = config;
    this.#keys = keys;
  }

  /** Whether callers must show who they are. */
  get isRequired(): boolean {
    return this.#config.mode === "required" || this.#hasUsers;
  }

  /** Takes whether there are users. There will be some for ever once there were. */
  setHasUsers(hasUsers: boolean): void {
    const before = this.isRequired;
    this.#hasUsers = hasUsers;
    if (this.isRequired !== before) this.notify();
  }

  /** Tells watchers that something has changed. */
  notify(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers();
    changed.resolve();
  }

  /** The policy now. */
  snapshot(): PolicySnapshot {
    const { issuer, audience } = this.#config;
    return { isRequired: this.isRequired, issuer, audience, ...this.#keys.published() };
  }

  /** The policy now and after each change, until `signal` or the end. @throws {AuthError} `tooManyWatchers` */
  async *watch(signal: AbortSignal): AsyncGenerator<PolicySnapshot, void, void> {
    if (this.#watchers >= POLICY_WATCHERS_MAX) throw new AuthError("tooManyWatchers");
    this.#watchers++;
    const ended = Promise.withResolvers<void>();
    const end = () => ended.resolve();
    signal.addEventListener("abort", end, { once: true });
    try {
      while (!this.#isClosed && !signal.aborted) {
        // Taken first: a change while the snapshot is on its way is seen by the next turn.
        const changed = this.#changed.promise;
        yield this.snapshot();
        await Promise.race([changed, ended.promise]);
      }
    } finally {
      signal.removeEventListener("abort", end);
      this.#watchers--;
    }
  }

  /** Ends all streams. */
  close(): void {
    this.#isClosed = true;
    this.notify();
  }
}
