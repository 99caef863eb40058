/** The frame that every worker runs in: takes the boot message, opens the Quantum node, starts the service, serves
 *  WorkerService to the host and the gateway. */
import { WorkerService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { openQuantumNode } from "../../transport/channels/quantum.ts";
import { createChannelTransport, createRpcServer } from "../../transport/rpc/mod.ts";
import { logFailedCalls } from "./call_failed.ts";
import { systemClock } from "./clock.ts";
import { describeFailure } from "./failure.ts";
import { createLogger } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import { createPeers, type PeerTable } from "./peers.ts";
import { registerPeerMetrics, registerQuantumMetrics } from "./quantum_metrics.ts";
import { systemRandom } from "./random.ts";
import { isTracing, tracedServices } from "./tracing.ts";
import { registerWorkerMetrics } from "./worker_metrics.ts";
import type { HostMessage, WorkerDefinition, WorkerMessage, WorkerModule } from "./worker_context.ts";

export type { Peers, RpcServices, WorkerContext, WorkerDefinition, WorkerModule } from "./worker_context.ts";

type BootMessage = Extract<HostMessage, { type: "boot" }>;
type ConfigMessage = Extract<HostMessage, { type: "config" }>;

/** What later messages of the host go to. */
interface Booted {
  readonly peers: PeerTable;
  configure(message: ConfigMessage): void;
}

/** What a worker's global scope offers, of which the compiler knows nothing in this configuration. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<HostMessage>) => void) | null;
  postMessage(message: WorkerMessage): void;
  close(): void;
}

const scope = globalThis as unknown as WorkerScope;

/** Makes this thread the worker of `definition`; the last call of a worker's entry module, before any `await` of its
 *  own, because the host's first message must find a listener. */
export function runWorker(definition: WorkerDefinition): void {
  let booted: Booted | undefined;
  scope.onmessage = ({ data }) => {
    if (data.type === "peers") return booted?.peers.update(data.peers, data.removed);
    if (data.type === "config") return booted?.configure(data);
    if (booted !== undefined) return;
    boot(definition, data, (parts) => booted = parts).catch(reportFailure);
  };
}

async function boot(
  definition: WorkerDefinition,
  message: BootMessage,
  onBooted: (parts: Booted) => void,
): Promise<void> {
  // The logger reads it with each line, so that a new level is a changed field.
  const logSettings = { ...message.log };
  const log = createLogger(message.name, logSettings);
  const metrics = createMetrics(message.name);
  let faults = 0;
  const logFailed = logFailedCalls(log);
  const rpc = createRpcServer({
    onError: (method, error, header) => {
      faults++;
      logFailed(method, error, header);
    },
  });
  const node = openQuantumNode({
    listen: message.listen,
    secret: message.secret,
    onChannel: (channel) => rpc.accept(channel),
    log: (text, fields) => log.debug(text, fields),
  });
  registerQuantumMetrics(metrics, node);
  registerWorkerMetrics(metrics, {
    rpc: () => rpc.stats(),
    faults: () => faults,
    heapBytes: () => Deno.memoryUsage().heapUsed,
    now: systemClock.now,
    every: (ms, tick) => void setInterval(tick, ms), // as long as the thread lives
  });
  const peers = createPeers({
    connect: (to, signal) => node.connect(to, signal),
    createTransport: createChannelTransport,
    log,
  });
  registerPeerMetrics(metrics, peers);
  peers.update(message.peers);
  const { promise: started, resolve: onStarted } = Promise.withResolvers<WorkerModule>();
  // One after the other, in the order they came; the first ones wait for the start.
  let configured = Promise.resolve();
  onBooted({
    peers,
    configure(news) {
      configured = configured.then(async () => {
        const problem = await reconfigure(await started, news);
        if (problem === undefined) logSettings.level = news.log.level;
        scope.postMessage({ type: "configured", problem });
      });
    },
  });

  const module = await definition.start({
    name: message.name,
    instance: message.instance,
    config: message.config,
    dataDirectory: message.dataDirectory,
    clock: systemClock,
    random: systemRandom,
    log,
    metrics,
    rpc: isTracing() ? tracedServices(rpc, message.name) : rpc,
    peers,
    fail(error) {
      reportFailure(error);
      scope.close();
      throw error;
    },
  });
  rpc.service(WorkerService, {
    health: () => module.health?.() ?? { ok: true, detail: "" },
    stats: async () => ({ text: await metrics.metrics() }),
    async drain({ deadlineMs }) {
      await module.drain(deadlineMs);
      return {};
    },
  });
  onStarted(module);
  scope.postMessage({ type: "ready", addresses: module.addresses ?? {} });
}

/** Hands a new configuration to the module. Resolves to what is wrong with it. */
async function reconfigure(module: WorkerModule, { config }: ConfigMessage): Promise<string | undefined> {
  if (config === undefined) return undefined;
  if (module.reconfigure === undefined) return "the worker takes no new configuration while it runs";
  try {
    await module.reconfigure(config);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function reportFailure(error: unknown): void {
  scope.postMessage({ type: "failed", ...describeFailure(error) });
}
