/** Whether the product serves, as the host and the gateway see it. */
import { createClient, type Transport } from "@connectrpc/connect";
import { HostService, WorkerStatus_State as State } from "$proto/aetherflow/host/v1/host_pb.ts";

/** One worker's line. */
export interface WorkerReadiness {
  readonly name: string;
  /** `ready`, `starting`, `restarting`, `draining`, `stopped`, `failed` or `unspecified`. */
  readonly state: string;
  /** Why it is not ready; empty when it is. */
  readonly reason: string;
  readonly restarts: number;
  /** Milliseconds in this state. */
  readonly sinceMs: number;
}

/** The whole answer. */
export interface Readiness {
  readonly ready: boolean;
  readonly workers: readonly WorkerReadiness[];
}

/** Asks the host. */
export interface ReadinessProbe {
  /** What serves now. Never rejects: a host that does not answer is a line of its own. */
  read(): Promise<Readiness>;
}

/** What the probe is made of. */
export interface ReadinessDeps {
  transport(peer: string): Transport;
  readonly timeoutMs: number;
  isDraining(): boolean;
  /** This gateway's own name among the workers. */
  readonly self: string;
}

/** Creates the probe. Probes that come while one is under way share its answer. */
export function createReadinessProbe(deps: ReadinessDeps): ReadinessProbe {
  let underWay: Promise<Readiness> | undefined;

  async function ask(): Promise<Readiness> {
    let workers: WorkerReadiness[];
    try {
      const host = createClient(HostService, deps.transport("host"));
      const answer = await host.readiness({}, { timeoutMs: deps.timeoutMs });
      workers = answer.workers.map((worker) => ({
        name: worker.name,
        state: (State[worker.state] ?? "UNSPECIFIED").toLowerCase(),
        reason: worker.reason,
        restarts: worker.restarts,
        sinceMs: Number(worker.sinceMs),
      }));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      workers = [{ name: "host", state: "failed", reason, restarts: 0, sinceMs: 0 }];
    }
    if (deps.isDraining()) {
      workers = workers.filter((worker) => worker.name !== deps.self);
      workers.push({
        name: deps.self,
        state: "draining",
        reason: "the gateway is draining",
        restarts: 0,
        sinceMs: 0,
      });
    }
    return { ready: workers.every((worker) => worker.state === "ready"), workers };
  }

  return {
    read: () => underWay ??= ask().finally(() => underWay = undefined),
  };
}
