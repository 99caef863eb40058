/** The real host with workers that die, hang or try forbidden things on command. */
import { type Config, loadConfig } from "../../services/host/config.ts";
import { type Host, type HostOptions, openHost } from "../../services/host/host.ts";
import type { ServiceName, WorkerPermissions, WorkerPlan } from "../../services/host/plan.ts";
import { optionsOf, superviseWorker } from "../../services/host/spawn.ts";
import type { Fault, ProbeReport } from "./fault_listener.ts";

/** What a test may change. */
export interface FaultyHostOptions {
  readonly data: string;
  /** Changes the planned permissions of a worker before it starts. */
  readonly permissions?: (plan: WorkerPlan) => WorkerPermissions;
  /** Settings by key path. */
  readonly set?: Readonly<Record<string, string>>;
}

/** What makes workers that obey a test. */
export interface FaultyWorkers {
  /** For `openHost`. */
  readonly spawn: NonNullable<HostOptions["spawn"]>;
  /** The plan of each worker by name, as it was carried out. */
  readonly plans: ReadonlyMap<string, WorkerPlan>;
  /** Makes a worker do harm. */
  order(worker: string, fault: Fault): void;
  /** Makes a worker try what it may not do. */
  probe(
    worker: string,
    paths: readonly string[],
    addresses: readonly string[],
  ): Promise<ProbeReport["attempts"]>;
}

/** A running host and its workers. */
export interface FaultyHost extends FaultyWorkers {
  readonly host: Host;
  /** Where HTTP is served. */
  readonly url: string;
}

const ENTRIES: Readonly<Record<ServiceName, URL>> = {
  kv: new URL("./faulty_kv_worker.ts", import.meta.url),
  session: new URL("./faulty_session_worker.ts", import.meta.url),
  password: new URL("./faulty_password_worker.ts", import.meta.url),
  statesync: new URL("./faulty_statesync_worker.ts", import.meta.url),
  gateway: new URL("./faulty_gateway_worker.ts", import.meta.url),
};

/** Starts the product's host in this process; the caller stops `host`.
 *  @throws {HostError} when it cannot start. */
export async function startFaultyHost(options: FaultyHostOptions): Promise<FaultyHost> {
  const workers = createFaultyWorkers(options.permissions);
  const host = openHost(configFor(options), { spawn: workers.spawn });
  await host.started;
  return { ...workers, host, url: host.addresses().http ?? "" };
}

/** Workers under the test's orders; `permissions` changes the planned ones of each. */
export function createFaultyWorkers(permissions?: FaultyHostOptions["permissions"]): FaultyWorkers {
  const workers = new Map<string, Worker>();
  const plans = new Map<string, WorkerPlan>();
  const probes = new Map<string, (attempts: ProbeReport["attempts"]) => void>();
  return {
    spawn(planned, events) {
      const plan = { ...planned, permissions: permissions?.(planned) ?? planned.permissions };
      const worker = new Worker(ENTRIES[plan.service], optionsOf(plan));
      workers.set(plan.name, worker);
      plans.set(plan.name, plan);
      return superviseWorker(worker, {
        ...events,
        onMessage(message) {
          const report = message as unknown as ProbeReport;
          if (report.type === "probe") return probes.get(plan.name)?.(report.attempts);
          events.onMessage(message);
        },
      });
    },
    plans,
    order: (worker, fault) => workers.get(worker)?.postMessage(fault),
    probe(worker, paths, addresses) {
      const { promise, resolve } = Promise.withResolvers<ProbeReport["attempts"]>();
      probes.set(worker, resolve);
      workers.get(worker)?.postMessage({ type: "fault", do: "probe", paths, addresses } satisfies Fault);
      return promise;
    },
  };
}

function configFor({ data, set = {} }: FaultyHostOptions): Config {
  const free = {
    "gateway.http.port": "0",
    "gateway.grpc.port": "0",
    "gateway.resp.port": "0",
    "quantum.basePort": "0",
  };
  const settings = { ...free, "log.level": "off", ...set, data };
  return loadConfig({
    flags: Object.entries(settings).map(([path, value]) => ({ path, value, flag: `--set ${path}=${value}` })),
  });
}
