/** A service as the gateway calls it: its instances, which of them takes a call, and what their answers tell of them. */
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import type { Peer } from "../../runtime/worker_context.ts";
import { type Balancer, type BalancerNode, createBalancer } from "../balance/balancer.ts";
import { OutlierRecord, type OutlierSettings, recordFailure, recordSuccess } from "../balance/outlier.ts";
import { GatewayError } from "../problem.ts";
import { Breaker, type BreakerSettings, type BreakerState, type Outcome, REFUSED } from "./breaker.ts";
import { RetryBudget } from "./retry_budget.ts";

/** The address book, as far as calls need it. */
export interface UpstreamPeers {
  /** The same array until an entry changes. */
  instances(service: string): readonly Peer[];
  transport(name: string): Transport;
}

/** What an upstream is made of. */
export interface UpstreamDeps {
  /** Name of the service. */
  readonly name: string;
  readonly peers: UpstreamPeers;
  readonly balancer: Parameters<typeof createBalancer>[0];
  /** Gives numbers in [0, 1). */
  chance(): number;
  /** Undefined: no breakers. */
  readonly breaker: BreakerSettings | undefined;
  readonly outlier: OutlierSettings;
  readonly budget: { readonly budgetPercent: number; readonly minPerSecond: number };
  readonly log: UpstreamLog;
}

/** Where an upstream says what an operator wants to know. */
export interface UpstreamLog {
  info(message: string, fields?: Record<string, unknown>): void;
}

/** One instance. */
export class Target implements BalancerNode {
  outstanding = 0;
  ejections = 0;
  readonly outlier = new OutlierRecord();
  readonly breaker: Breaker | undefined;
  readonly transport: Transport;

  constructor(public peer: Peer, transport: Transport, breaker: Breaker | undefined) {
    this.transport = transport;
    this.breaker = breaker;
  }

  get name(): string {
    return this.peer.name;
  }

  /** How it stands: what the host says of it, and, while that is `up`, what its answers say. */
  state(nowMs: number): "up" | "down" | "ejected" {
    if (this.peer.state === "down") return "down";
    return this.outlier.isEjected(nowMs) ? "ejected" : "up";
  }

  get breakerState(): BreakerState {
    return this.breaker?.state ?? "closed";
  }
}

/** One call to one target. */
export interface Attempt {
  readonly target: Target;
  /** Of the breaker. */
  readonly number: number;
}

/** A service and its instances. Times are monotonic milliseconds. */
export class Upstream {
  readonly budget: RetryBudget;
  readonly #deps: UpstreamDeps;
  readonly #balancer: Balancer<Target>;
  #seen: readonly Peer[] | undefined;
  #targets: Target[] = [];
  #up: readonly Target[] = [];

  constructor(deps: UpstreamDeps) {
    this.#deps = deps;
    this.#balancer = createBalancer(deps.balancer, deps.chance);
    this.budget = new RetryBudget(deps.budget.budgetPercent, deps.budget.minPerSecond);
  }

  get name(): string {
    return this.#deps.name;
  }

  /** All instances in the address book. */
  targets(): readonly Target[] {
    this.#look();
    return this.#targets;
  }

  /** Whether calls are told apart by a key now. */
  get isHashed(): boolean {
    return this.#deps.balancer === "ringHash" && this.#up.length > 1;
  }

  /** Chooses a target for a call; `end` must be called once with what this returns. A target to `avoid` is chosen only when
   *  there is no other.
   *  @throws {ConnectError} `unavailable` when no instance is up.
   *  @throws {GatewayError} `breaker_open` when all that are up are left alone. Nothing was sent in either case. */
  begin(nowMs: number, hash?: number, avoid?: Target): Attempt {
    this.#look();
    const up = this.#up;
    const target = up.length === 1 ? up[0]! : this.#choose(up, hash, avoid, nowMs);
    const number = target.breaker === undefined ? 0 : target.breaker.enter(nowMs);
    if (number === REFUSED) throw this.#breakerOpen(up, nowMs);
    target.outstanding++;
    return { target, number };
  }

  /** A call is over; says what it told of its target. */
  end(attempt: Attempt, outcome: Outcome, nowMs: number): void {
    this.release(attempt);
    this.tell(attempt, outcome, nowMs);
  }

  /** The first half of `end`, for calls that told all long before they end. */
  release({ target }: Attempt): void {
    target.outstanding--;
  }

  /** The other half. */
  tell({ target, number }: Attempt, outcome: Outcome, nowMs: number): void {
    target.breaker?.leave(number, outcome, nowMs);
    if (outcome === "success") recordSuccess(target.outlier);
    else if (outcome === "failure") this.#countFailure(target, nowMs);
  }

  /** Whether a call that failed at `target` could go elsewhere now. */
  hasOther(target: Target, nowMs: number): boolean {
    this.#look();
    if (this.#up.length < 2) return false;
    return this.#up.some((other) =>
      other !== target && passes(other, nowMs) && !other.outlier.isEjected(nowMs)
    );
  }

  /** Whether the service may be back soon: an instance is being replaced, or a breaker has only just opened, perhaps
   *  because its target is. */
  mayRecover(withinMs: number, nowMs: number): boolean {
    return this.#up.length === 0 ||
      this.#up.some(({ breaker }) => breaker !== undefined && breaker.openForMs(nowMs) <= withinMs);
  }

  #countFailure(target: Target, nowMs: number): void {
    if (this.#targets.length < 2) return; // the last one is never put out
    const { outlier, log } = this.#deps;
    const all = this.#targets.map((each) => each.outlier);
    if (!recordFailure(target.outlier, all, outlier, nowMs)) return;
    target.ejections++;
    log.info("target put out after failures in a row", {
      target: target.name,
      forMs: target.outlier.ejectedUntilMs - nowMs,
    });
  }

  #choose(up: readonly Target[], hash: number | undefined, avoid: Target | undefined, nowMs: number): Target {
    if (up.length === 0) {
      const [known] = this.#targets;
      throw new ConnectError(
        known === undefined ? `${this.name} is not in the address book` : `${this.name} is down`,
        Code.Unavailable,
      );
    }
    const passing = up.filter((target) => passes(target, nowMs));
    if (passing.length === 0) throw this.#breakerOpen(up, nowMs);
    const well = passing.filter((target) => !target.outlier.isEjected(nowMs));
    const others = well.filter((target) => target !== avoid);
    const candidates = others.length > 0 ? others : well.length > 0 ? well : passing;
    return candidates.length === 1 ? candidates[0]! : this.#balancer.pick(candidates, hash);
  }

  #breakerOpen(up: readonly Target[], nowMs: number): GatewayError {
    const waits = up.map(({ breaker }) => breaker?.retryAfterMs(nowMs) ?? 0);
    const retryAfterS = Math.max(1, Math.ceil(Math.min(...waits) / 1000));
    const isProbing = up.some(({ breaker }) => breaker?.state === "half_open");
    return new GatewayError(
      "breaker_open",
      isProbing
        ? `too many requests: the circuit breaker of ${this.name} is half-open and lets few calls through`
        : `circuit breaker is open: ${this.name} is left alone for ${retryAfterS} s after its failures`,
      { retryAfterS },
    );
  }

  /** Takes the address book as it is now. */
  #look(): void {
    const { peers, breaker, log } = this.#deps;
    const seen = peers.instances(this.name);
    if (seen === this.#seen) return;
    this.#seen = seen;
    const before = new Map(this.#targets.map((target) => [target.name, target]));
    this.#targets = seen.map((peer) => {
      const target = before.get(peer.name);
      if (target === undefined) {
        const onTrip = () => log.info("circuit breaker opened", { target: peer.name });
        const own = breaker === undefined ? undefined : new Breaker(breaker, onTrip);
        return new Target(peer, peers.transport(peer.name), own);
      }
      const isBack = peer.incarnation !== target.peer.incarnation ||
        (target.peer.state === "down" && peer.state === "up");
      target.peer = peer;
      // Failures of an earlier life say nothing of this one.
      if (isBack) {
        target.breaker?.reset();
        target.outlier.clear();
      }
      return target;
    });
    this.#up = this.#targets.filter(({ peer }) => peer.state === "up");
    this.#balancer.update(this.#up);
  }
}

function passes({ breaker }: Target, nowMs: number): boolean {
  return breaker === undefined || breaker.wouldPass(nowMs);
}

/** Time below which running out of it says nothing of a target: whoever asks for an answer in less must not be able to trip
 *  a breaker with that. */
export const TELLING_TIMEOUT_MS = 1_000;

/** What the end of a call with this code (0 is success) tells of its target. `timeoutMs` is what the call had; `mayWait`:
 *  it may wait for others (a lock), so that running out of time tells nothing. */
export function outcomeOf(code: number, timeoutMs: number, mayWait: boolean): Outcome {
  switch (code) {
    case Code.Unavailable:
    case Code.Internal:
      return "failure";
    case Code.DeadlineExceeded:
      return mayWait || timeoutMs < TELLING_TIMEOUT_MS ? "none" : "failure";
    // Its caller gave it up; and a queue that is full speaks of the load.
    case Code.Canceled:
    case Code.ResourceExhausted:
      return "none";
    default:
      return "success"; // it answered; that the answer is no is the caller's affair
  }
}
