/** The frame that every worker runs in: takes the boot message, opens the Quantum node, starts the service, serves
 *  WorkerService to the host and the gateway. */
import { WorkerService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { openQuantumNode } from "../../transport/channels/quantum.ts";
import { createChannelTransport, createRpcServer } from "../../transport/rpc/mod.ts";
import { systemClock } from "./clock.ts";
import { describeFailure } from "./failure.ts";
import { createLogger } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import { createPeers, type PeerTable } from "./peers.ts";
import { registerQuantumMetrics } from "./quantum_metrics.ts";
import { systemRandom } from "./random.ts";
import type { HostMessage, WorkerDefinition, WorkerMessage } from "./worker_context.ts";

export type { Peers, RpcServices, WorkerContext, WorkerDefinition, WorkerModule } from "./worker_context.ts";

type BootMessage = Extract<HostMessage, { type: "boot" }>;

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
  let peers: PeerTable | undefined;
  scope.onmessage = ({ data }) => {
    if (data.type === "peers") return peers?.update(data.peers);
    if (peers !== undefined) return;
    boot(definition, data, (table) => peers = table).catch(reportFailure);
  };
}

async function boot(
  definition: WorkerDefinition,
  message: BootMessage,
  onPeers: (peers: PeerTable) => void,
): Promise<void> {
  const log = createLogger(message.name, message.log);
  const metrics = createMetrics(message.name);
  const rpc = createRpcServer({
    onError: (method, error, header) =>
      log.error("call failed", { method, error, requestId: header.get("x-request-id") ?? undefined }),
  });
  const node = openQuantumNode({
    listen: message.listen,
    secret: message.secret,
    onChannel: (channel) => rpc.accept(channel),
    log: (text, fields) => log.debug(text, fields),
  });
  registerQuantumMetrics(metrics, node);
  const peers = createPeers({
    connect: (to, signal) => node.connect(to, signal),
    createTransport: createChannelTransport,
    log,
  });
  peers.update(message.peers);
  onPeers(peers);

  const module = await definition.start({
    name: message.name,
    instance: message.instance,
    config: message.config,
    dataDirectory: message.dataDirectory,
    clock: systemClock,
    random: systemRandom,
    log,
    metrics,
    rpc,
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
  scope.postMessage({ type: "ready", addresses: module.addresses ?? {} });
}

function reportFailure(error: unknown): void {
  scope.postMessage({ type: "failed", ...describeFailure(error) });
}
