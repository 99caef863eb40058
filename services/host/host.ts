/** The host: the main thread's part of the product. It runs the plan and answers for it. */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  HostService,
  type ReadinessResponse,
  ReadinessResponseSchema,
  WorkerService,
  WorkerStatus_State,
} from "$proto/aetherflow/host/v1/host_pb.ts";
import { openQuantumNode } from "../../transport/channels/quantum.ts";
import { createChannelTransport, createRpcServer } from "../../transport/rpc/mod.ts";
import { systemClock } from "../runtime/clock.ts";
import { createLogger, type LogSettings, silentLogger } from "../runtime/log.ts";
import { logFailedCalls } from "../runtime/call_failed.ts";
import { createMetrics, Gauge } from "../runtime/metrics.ts";
import { createPeers } from "../runtime/peers.ts";
import { registerQuantumMetrics } from "../runtime/quantum_metrics.ts";
import { randomFraction, systemRandom } from "../runtime/random.ts";
import { REMOTE_SERVICES } from "./cluster_config.ts";
import { readClusterSecret } from "./cluster_secret.ts";
import type { Peer } from "../runtime/worker_context.ts";
import { VERSION } from "../runtime/version.ts";
import type { Config } from "./config.ts";
import { openDataFolder } from "./data_folder.ts";
import { openDiscovery } from "./discovery/mod.ts";
import type { HostError } from "./exit_code.ts";
import { createPlan, hostAndPort } from "./plan.ts";
import { portsFree, resolvePorts } from "./ports.ts";
import { Reloader } from "./reloader.ts";
import { spawnWorker } from "./spawn.ts";
import { readEtcdTlsTexts, readHttpTlsTexts, readRegistryTlsTexts, readTlsTexts } from "./tls_texts.ts";
import { watchFiles } from "./watch_files.ts";
import { Supervisor, type SupervisorDeps, type WorkerReport } from "./supervisor.ts";

/** Length of the secret that the nodes of one boot share when the host is alone. */
const SECRET_BYTES = 32;

/** Where a new configuration comes from while the product runs. */
export interface ConfigSource {
  /** Reads it again. @throws {ConfigError} if it is not valid. */
  read(): Config;
  /** The file that it is read from, there or not. */
  readonly file: string;
}

/** What may stand in for the real thing; tests run workers of their own. */
export interface HostOptions {
  /** Left out: the configuration stays as it is. */
  readonly source?: ConfigSource;
  readonly spawn?: SupervisorDeps["spawn"];
  /** Takes the log lines of the host. Workers write to stderr themselves. */
  readonly writeLog?: (line: string) => void;
}

/** A host that is starting or running. */
export interface Host {
  /** "ready" when every worker serves, "stopped" when `stop` came first.
   *  @throws {HostError} when the product cannot start; nothing runs any more then. */
  readonly started: Promise<"ready" | "stopped">;
  /** Settles when the product cannot go on; the owner then calls `stop` and exits with the error's code. */
  readonly failed: Promise<HostError>;
  /** `{http: "http://127.0.0.1:8080", grpc: "127.0.0.1:2379", resp: "127.0.0.1:6380", quantum: "127.0.0.1:7400"}`; complete once started. */
  addresses(): Record<string, string>;
  report(): WorkerReport[];
  /** Reads the configuration again and applies what may change now; the log says what came of it. Never rejects. */
  reload(): Promise<void>;
  /** Drains the workers in reverse start order and releases everything; true if all work was finished. */
  stop(): Promise<boolean>;
  /** Makes `stop` wait no longer. */
  cutShort(): void;
}

/** Takes the data folder and the ports and starts the workers.
 *  @throws {HostError} if the folder or a port is not to be had. */
export function openHost(config: Config, options: HostOptions = {}): Host {
  using opened = new DisposableStack();
  const folder = opened.use(openDataFolder(config.data));
  const ports = resolvePorts(config);
  // Those of an etcd cluster are read once: its client keeps what it was made with.
  const etcdTlsTexts = readEtcdTlsTexts(config);
  const planOf = (config: Config) =>
    createPlan(config, ports, folder.path, readTlsTexts(config), etcdTlsTexts, readHttpTlsTexts(config));
  const plan = planOf(config);
  for (const worker of plan.workers) {
    if (worker.dataDirectory !== undefined) folder.prepare(worker.dataDirectory);
  }

  const workerLog = logSettings(config);
  const log = createLogger(
    "host",
    workerLog,
    options.writeLog === undefined ? {} : { write: options.writeLog },
  );
  const registryTlsTexts = readRegistryTlsTexts(config);
  const { secretFile } = config.cluster;
  const secret = secretFile === ""
    ? systemRandom.fill(new Uint8Array(SECRET_BYTES))
    : readClusterSecret(secretFile);
  const rpc = createRpcServer({ onError: logFailedCalls(log) });
  const node = openQuantumNode({
    listen: plan.host.listen,
    secret,
    onChannel: (channel) => rpc.accept(channel),
    log: (text, fields) => log.debug(text, fields),
  });
  const peers = createPeers({
    connect: (to, signal) => node.connect(to, signal),
    createTransport: createChannelTransport,
    log,
  });
  const worker = (name: string) => createClient(WorkerService, peers.transport(name));
  const { heartbeat, restart, startTimeoutMs, drain } = config.host;

  /** This host's workers as their peers know them. */
  const book = new Map<string, Peer>();
  const supervisor = new Supervisor({
    plan,
    secret,
    limits: { ...heartbeat, ...restart, startTimeoutMs },
    stageDeadlineMs: drain.stageDeadlineMs,
    workerLog: { ...workerLog },
    clock: systemClock,
    random: systemRandom,
    log,
    setTimer: setTimer,
    spawn: options.spawn ?? spawnWorker,
    portsFree,
    async ping(name) {
      try {
        return await worker(name).health({}, { timeoutMs: heartbeat.timeoutMs });
      } catch (error) {
        if (isSilence(error)) throw error;
        // A refusal is a sign of life too.
        return { ok: false, detail: `health check refused: ${ConnectError.from(error).message}` };
      }
    },
    async drain(name, deadlineMs) {
      await worker(name).drain({ deadlineMs }, { timeoutMs: deadlineMs });
    },
    updatePeers(changed) {
      peers.update(changed);
      for (const peer of changed) book.set(peer.name, peer);
      announce();
    },
  });

  // Channels of its own: a check reaches also who is down in the book.
  const checked = createPeers({
    connect: (to, signal) => node.connect(to, signal),
    createTransport: createChannelTransport,
    log: silentLogger,
  });
  const { checkTimeoutMs } = config.cluster.discovery;
  const discovery = openDiscovery({
    config: config.cluster,
    tlsTexts: registryTlsTexts,
    clock: systemClock,
    fraction: () => randomFraction(systemRandom),
    log,
    version: VERSION,
    onChange(changed, removed) {
      supervisor.updateRemote(changed, removed);
      checked.update([], removed);
    },
    async check(peer) {
      checked.update([peer]);
      try {
        await createClient(WorkerService, checked.transport(peer.name)).health({}, {
          timeoutMs: checkTimeoutMs,
        });
      } catch (error) {
        // A refusal is a sign of life too.
        if (isSilence(error)) throw error;
      }
    },
  });
  let announce = () => {};
  void discovery.then((found) => {
    announce = () => found?.announce([...book.values()]);
    announce();
  });

  const reloader = new Reloader({
    config,
    plan,
    planOf,
    source: options.source,
    log,
    apply: (plan, config) => supervisor.reconfigure(plan, logSettings(config)),
    onApplied(config) {
      workerLog.level = config.log.level;
    },
  });
  const files = options.source === undefined || !config.host.reload.watch
    ? undefined
    : watchFiles(() => reloader.files(), config.host.reload.intervalMs, () => void reloader.reload());

  const metrics = createMetrics("host");
  registerReloadMetrics(metrics, reloader);
  registerQuantumMetrics(metrics, node);
  registerWorkerMetrics(metrics, () => supervisor.report());
  rpc.service(HostService, {
    readiness: async () =>
      readinessOf([...supervisor.report(), ...absent(config, (await discovery)?.peers())]),
    hostStats: async () => ({ text: await metrics.metrics() }),
  });

  const resources = opened.move();
  const release = async () => {
    files?.stop();
    await (await discovery)?.close();
    checked.close();
    peers.close();
    await node.close();
    resources.dispose();
  };
  const started = supervisor.start().catch(async (error) => {
    await release();
    throw error;
  });
  return {
    started,
    failed: supervisor.failed,
    addresses: () => ({ ...supervisor.addresses, quantum: hostAndPort(plan.host.address) }),
    report: () => supervisor.report(),
    reload: () => reloader.reload(),
    async stop() {
      files?.stop();
      // Others send no more from here on; what they sent is finished.
      await (await discovery)?.close();
      const clean = await supervisor.stop();
      await release();
      return clean;
    },
    cutShort: () => supervisor.cutShort(),
  };
}

/** How host and workers log; `auto` looks at stderr. */
export function logSettings(config: Config): LogSettings {
  const { level, format } = config.log;
  if (format !== "auto") return { level, format };
  if (!Deno.stderr.isTerminal()) return { level, format: "json" };
  return { level, format: Deno.noColor ? "text" : "color" };
}

function setTimer(ms: number, then: () => void): () => void {
  const timer = setTimeout(then, ms);
  return () => clearTimeout(timer);
}

/** Whether an error means that no answer came. */
function isSilence(error: unknown): boolean {
  const { code } = ConnectError.from(error);
  return code === Code.Unavailable || code === Code.DeadlineExceeded || code === Code.Canceled;
}

const STATES: Readonly<Record<WorkerReport["state"], WorkerStatus_State>> = {
  starting: WorkerStatus_State.STARTING,
  ready: WorkerStatus_State.READY,
  restarting: WorkerStatus_State.RESTARTING,
  draining: WorkerStatus_State.DRAINING,
  stopped: WorkerStatus_State.STOPPED,
  failed: WorkerStatus_State.FAILED,
  unhealthy: WorkerStatus_State.FAILED,
};

function readinessOf(report: readonly WorkerReport[]): ReadinessResponse {
  return create(ReadinessResponseSchema, {
    workers: report.map(({ state, sinceMs, ...rest }) => ({
      ...rest,
      state: STATES[state],
      sinceMs: BigInt(sinceMs),
    })),
  });
}

/** Services that are looked for on other hosts: one line each, ready while any instance is up. */
function absent({ services }: Config, peers: readonly Peer[] | undefined): WorkerReport[] {
  if (peers === undefined || !services.includes("gateway")) return [];
  return REMOTE_SERVICES.filter((service) => !services.includes(service)).map((name) => {
    const isUp = peers.some(({ service, state }) => service === name && state === "up");
    const reason = isUp ? "" : "no host is known where it is up";
    return { name, state: isUp ? "ready" : "starting", reason, restarts: 0, sinceMs: 0 };
  });
}

function registerReloadMetrics(metrics: ReturnType<typeof createMetrics>, reloader: Reloader): void {
  const registers = [metrics];
  new Gauge({
    name: "aetherflow_config_info",
    help: "1 for the configuration in effect; version is the same wherever its values are.",
    labelNames: ["version"],
    registers,
    collect() {
      this.reset();
      this.set({ version: reloader.version }, 1);
    },
  });
  new Gauge({
    name: "aetherflow_config_last_reload_successful",
    help: "0 when the last configuration that was read could not be applied.",
    registers,
    collect() {
      this.set(reloader.isGood ? 1 : 0);
    },
  });
}

function registerWorkerMetrics(
  metrics: ReturnType<typeof createMetrics>,
  report: () => WorkerReport[],
): void {
  const registers = [metrics];
  new Gauge({
    name: "aetherflow_worker_ready",
    help: "1 while the worker serves.",
    labelNames: ["name"],
    registers,
    collect() {
      for (const { name, state } of report()) this.set({ name }, state === "ready" ? 1 : 0);
    },
  });
  new Gauge({
    name: "aetherflow_worker_restarts",
    help: "Restarts of the worker since the host started.",
    labelNames: ["name"],
    registers,
    collect() {
      for (const { name, restarts } of report()) this.set({ name }, restarts);
    },
  });
  new Gauge({
    name: "process_start_time_seconds",
    help: "When the process started, in seconds since the Unix epoch.",
    registers,
  }).set(performance.timeOrigin / 1000);
}
