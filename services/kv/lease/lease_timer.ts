/** Wakes the lease service when a lease runs out, and now and then for its checkpoints. */
import type { LeaseService } from "./lease_service.ts";
import type { KvLogger } from "../service.ts";

/** Longest wait that setTimeout takes, in milliseconds. */
const TIMEOUT_MAX_MS = 2_147_483_647;

/** Starts the timers; the returned function stops them. */
export function startLeaseTimer(
  leases: LeaseService,
  { clock, log, checkpointIntervalMs }: {
    readonly clock: { now(): number };
    readonly log: KvLogger;
    readonly checkpointIntervalMs: number;
  },
): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let armedForMs = Infinity;
  let isStopped = false;
  const arm = () => {
    const next = leases.nextExpiryMs;
    if (isStopped || next >= armedForMs) return;
    clearTimeout(timer);
    armedForMs = next;
    timer = setTimeout(run, Math.min(Math.max(Math.ceil(next - clock.now()), 0), TIMEOUT_MAX_MS));
  };
  const failed = (error: unknown) => log.error("the leases' timer failed", { error });
  const run = () => {
    // Armed again when this is done, not by what is granted meanwhile.
    armedForMs = -Infinity;
    leases.expire().catch(failed).finally(() => {
      armedForMs = Infinity;
      arm();
    });
  };
  leases.lessor.onEarlier = arm;
  const checkpoints = setInterval(() => leases.checkpoint().catch(failed), checkpointIntervalMs);
  arm();
  return () => {
    isStopped = true;
    clearTimeout(timer);
    clearInterval(checkpoints);
    leases.lessor.onEarlier = () => {};
  };
}
