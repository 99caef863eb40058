import type { QuantumNode, QuantumNodeStats } from "../../transport/channels/quantum.ts";
import { registerFigures, type Registry } from "./metrics.ts";

type Figures = Omit<QuantumNodeStats, "dropped">;

/** Counted since the node was opened. */
const COUNTERS = {
  datagramsSent: ["aetherflow_quantum_datagrams_sent_total", "Datagrams handed to the operating system."],
  bytesSent: ["aetherflow_quantum_sent_bytes_total", "Bytes of those datagrams."],
  datagramsReceived: ["aetherflow_quantum_datagrams_received_total", "Datagrams received."],
  bytesReceived: ["aetherflow_quantum_received_bytes_total", "Bytes of those datagrams."],
  sendErrors: ["aetherflow_quantum_send_errors_total", "Sends that the operating system refused."],
  receiveErrors: ["aetherflow_quantum_receive_errors_total", "Receives that failed."],
} as const;

/** As it is now. */
const GAUGES = {
  channels: ["aetherflow_quantum_channels", "Channels open now."],
  connecting: ["aetherflow_quantum_connecting", "Handshakes under way that this node began."],
} as const;

/** Adds a Quantum node's figures to a registry; they are read when the registry is. */
export function registerQuantumMetrics(registry: Registry, node: Pick<QuantumNode, "stats">): void {
  registerFigures<Figures>(registry, { counters: COUNTERS, gauges: GAUGES }, () => node.stats());
}
