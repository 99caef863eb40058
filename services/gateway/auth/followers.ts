/** Streams that outlive the moment at which their caller was authenticated: a credential that ends, ends them. */
import { Bag, type Bagged } from "../../../transport/rpc/bag.ts";
import { GatewayError } from "../problem.ts";
import type { Caller } from "../stages.ts";
import type { Timer } from "../timer.ts";
import type { Authenticated } from "./credentials.ts";
import { invalidCredential } from "./failure.ts";
import { DEVELOPER_CALLER, Identity, type Proof } from "./identity.ts";

/** How often the credentials of open streams are shown again, in milliseconds: a revocation ends streams within a second. */
export const RECHECK_MS = 500;
/** How long streams go on while it cannot be found out whether their credentials hold, in milliseconds: long enough for
 *  the session worker's restart. */
export const UNKNOWN_MAX_MS = 15_000;

/** A stream, or a call that may take long. */
export interface Followed extends Bagged {
  /** Undefined until it is known. */
  readonly caller: Caller | undefined;
  /** Ends it: its caller may not go on. Takes itself out of the followers. */
  revoke(error: GatewayError): void;
}

/** What following takes. */
export interface FollowersDeps {
  ask(proof: Proof): Promise<Authenticated>;
  readonly clock: { now(): number; wallMs(): number };
  readonly timer: Timer;
}

/** All open streams of this worker. Each credential is shown once a round, whatever it has open, so that a round costs at
 *  most one call a stream; the number of streams is bounded by the edges. No timer runs while no credential is in use. */
export class Followers {
  readonly #deps: FollowersDeps;
  readonly #open = new Bag<Followed>();
  #cancel: (() => void) | undefined;
  /** Since when no round has had an answer; undefined when the last one had. */
  #unknownSinceMs: number | undefined;
  #isClosed = false;

  constructor(deps: FollowersDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#open.size;
  }

  add(followed: Followed): void {
    this.#open.add(followed);
    if (this.#cancel === undefined && followed.caller instanceof Identity) this.#arm();
  }

  delete(followed: Followed): void {
    this.#open.delete(followed);
  }

  /** There are users now: whoever came without a credential must come again. */
  refuseDevelopers(): void {
    for (const followed of this.#open.snapshot()) {
      if (followed.caller === DEVELOPER_CALLER) {
        followed.revoke(
          new GatewayError("unauthenticated", "there are users now, and who calls must be shown"),
        );
      }
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #arm(): void {
    if (this.#isClosed) return;
    this.#cancel = this.#deps.timer.after(RECHECK_MS, () => {
      this.#cancel = undefined;
      this.#round();
    });
  }

  #round(): void {
    const byProof = new Map<string, { proof: Proof; followed: Followed[] }>();
    const nowMs = this.#deps.clock.wallMs();
    let hasAny = false;
    for (const followed of this.#open.snapshot()) {
      const { caller } = followed;
      if (!(caller instanceof Identity)) continue;
      hasAny = true;
      const { proof } = caller;
      if (proof === undefined) {
        if (caller.expiresAtMs <= nowMs) followed.revoke(invalidCredential("the token has expired"));
        continue;
      }
      const key = `${proof.kind} ${proof.text}`;
      const found = byProof.get(key);
      if (found === undefined) byProof.set(key, { proof, followed: [followed] });
      else found.followed.push(followed);
    }
    for (const { proof, followed } of byProof.values()) {
      this.#deps.ask(proof).then(
        (answer) => this.#onAnswer(answer, followed),
        (error) => this.#onError(error as GatewayError, followed),
      );
    }
    if (hasAny) this.#arm();
  }

  #onAnswer({ encoded }: Authenticated, followed: readonly Followed[]): void {
    this.#unknownSinceMs = undefined;
    for (const each of followed) {
      // What the service was told when the stream began holds no more. Whoever may still read comes back.
      if (each.bagIndex >= 0 && each.caller!.encoded !== encoded) {
        each.revoke(new GatewayError("unavailable", "the caller's rights have changed, come back"));
      }
    }
  }

  #onError(error: GatewayError, followed: readonly Followed[]): void {
    if (error.code !== "unauthenticated") {
      const now = this.#deps.clock.now();
      this.#unknownSinceMs ??= now;
      if (now - this.#unknownSinceMs < UNKNOWN_MAX_MS) return;
    } else this.#unknownSinceMs = undefined;
    for (const each of followed) if (each.bagIndex >= 0) each.revoke(error);
  }
}

/** Follows a stream of a caller; the returned function ends that. */
export function following(
  followers: { follow(stream: Followed): void; unfollow(stream: Followed): void },
  caller: Caller | undefined,
  revoke: (error: GatewayError) => void,
): () => void {
  const followed: Followed = { bagIndex: -1, caller, revoke };
  followers.follow(followed);
  return () => followers.unfollow(followed);
}
