/** One request to a service: as many calls as it takes, is allowed, and has time for. */
import { Code, ConnectError } from "@connectrpc/connect";
import { wasNeverSent } from "../../../transport/rpc/mod.ts";
import { GatewayError } from "../problem.ts";
import { pause, type Timer } from "../timer.ts";
import { type Attempt, outcomeOf, type Target, type Upstream } from "./upstream.ts";

/** What attempts are made with. */
export interface AttemptsDeps {
  readonly clock: { now(): number };
  readonly timer: Timer;
  /** Gives numbers in [0, 1). */
  chance(): number;
  readonly firstPauseMs: number;
  readonly maxPauseMs: number;
}

/** What may be done for one request. */
export interface AttemptsPlan {
  readonly deadlineAtMs: number;
  /** Whether the call may be made again although it may have had effects. */
  readonly isRepeatable: boolean;
  /** How long an unavailable service is waited for, if the call is repeatable. */
  readonly waitMs: number;
  /** Calls that may be made again, however large the budget. */
  readonly retriesMax: number;
  /** Whether the RPC may wait for others, so that running out of time says nothing of the service. */
  readonly mayWait: boolean;
  readonly hash: number | undefined;
  /** Before each wait and each further call. */
  onRetry(isSent: boolean): void;
}

/** Calls `attempt` with a target, again with another one (or the same, when there is no other) if it failed because the
 *  service is unavailable and if the call may be made again: any call of which nothing was sent, and a repeatable one within
 *  the budget. Between tries it waits, longer each time. A repeatable call also waits for a service that is down, without
 *  sending anything.
 *  @throws what the last try threw. */
export async function runAttempts<T>(
  deps: AttemptsDeps,
  upstream: Upstream,
  plan: AttemptsPlan,
  attempt: (target: Target, timeoutMs: number) => Promise<T>,
): Promise<T> {
  const { clock } = deps;
  let giveUpAtMs = NaN;
  let pauseMs = deps.firstPauseMs;
  let retriesLeft = plan.retriesMax;
  let avoid: Target | undefined;
  let failedAt: readonly Target[] = NO_TARGETS;
  let isFirst = true;
  for (;;) {
    let failure: unknown;
    let begun: Attempt | undefined;
    try {
      begun = upstream.begin(clock.now(), plan.hash, avoid);
    } catch (error) {
      if (!plan.isRepeatable || !upstream.mayRecover(plan.waitMs, clock.now())) throw error;
      failure = error;
    }
    if (begun !== undefined) {
      const nowMs = clock.now();
      const timeoutMs = Math.floor(plan.deadlineAtMs - nowMs);
      if (timeoutMs < 1) {
        upstream.end(begun, "none", nowMs);
        throw outOfTime();
      }
      if (isFirst) upstream.budget.request(nowMs);
      isFirst = false;
      try {
        const answer = await attempt(begun.target, timeoutMs);
        upstream.end(begun, "success", clock.now());
        return answer;
      } catch (error) {
        const { target } = begun;
        const outcome = error instanceof ConnectError
          ? outcomeOf(error.code, timeoutMs, plan.mayWait)
          : "none";
        // One request is one failure of a target, however often it tries.
        const isKnown = outcome === "failure" && failedAt.includes(target);
        upstream.end(begun, isKnown ? "none" : outcome, clock.now());
        if (!(error instanceof ConnectError) || error.code !== Code.Unavailable) throw error;
        if (!failedAt.includes(target)) failedAt = [...failedAt, target];
        failure = error;
      }
    }
    // Unavailable. What follows decides whether to try again, and waits before it.
    const isUnsent = begun === undefined || wasNeverSent(failure);
    const hasOther = begun !== undefined && upstream.hasOther(begun.target, clock.now());
    if (!plan.isRepeatable && !(isUnsent && hasOther)) throw failure;
    if (!isUnsent && retriesLeft-- <= 0) throw failure;
    if (Number.isNaN(giveUpAtMs)) giveUpAtMs = Math.min(clock.now() + plan.waitMs, plan.deadlineAtMs);
    avoid = begun?.target;
    for (let isAllowed = false; !isAllowed;) {
      const waitMs = pauseMs * (1 - deps.chance() / 2);
      if (clock.now() + waitMs >= giveUpAtMs && !(hasOther && clock.now() + waitMs < plan.deadlineAtMs)) {
        throw failure;
      }
      await pause(deps.timer, waitMs);
      pauseMs = Math.min(pauseMs * 2, deps.maxPauseMs);
      // A spent budget is waited for as well: waiting costs the service nothing.
      isAllowed = isUnsent || upstream.budget.take(clock.now());
      if (!isAllowed && clock.now() >= giveUpAtMs) throw failure;
    }
    plan.onRetry(!isUnsent);
  }
}

const NO_TARGETS: readonly Target[] = [];

/** The error of a request that has no time left. */
export function outOfTime(): GatewayError {
  return new GatewayError("deadline_exceeded", "the request's time ran out (gateway.requestTimeoutMs)");
}
