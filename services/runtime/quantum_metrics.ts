import type { QuantumNode, QuantumNodeStats } from "../../transport/channels/quantum.ts";
import type { ChannelStats } from "../../transport/channels/channel.ts";
import { Counter, Gauge, registerFigures, type Registry } from "./metrics.ts";
import type { Peers } from "./worker_context.ts";

type Figures = Omit<QuantumNodeStats, "dropped">;

/** Counted since the node was opened. */
const COUNTERS = {
  datagramsSent: ["aetherflow_quantum_datagrams_sent_total", "Datagrams handed to the operating system."],
  bytesSent: ["aetherflow_quantum_sent_bytes_total", "Bytes of those datagrams."],
  datagramsReceived: ["aetherflow_quantum_datagrams_received_total", "Datagrams received."],
  bytesReceived: ["aetherflow_quantum_received_bytes_total", "Bytes of those datagrams."],
  sendErrors: ["aetherflow_quantum_send_errors_total", "Sends that the operating system refused."],
  receiveErrors: ["aetherflow_quantum_receive_errors_total", "Receives that failed."],
  packetsSent: ["aetherflow_quantum_packets_sent_total", "Packets sent on channels."],
  packetsReceived: ["aetherflow_quantum_packets_received_total", "Packets received on channels."],
  packetsLost: ["aetherflow_quantum_packets_lost_total", "Packets declared lost."],
  packetsResent: [
    "aetherflow_quantum_retransmissions_total",
    "Packets whose content was sent again, lost or only late.",
  ],
  resetsSent: [
    "aetherflow_quantum_resets_sent_total",
    "Answers to peers that spoke of a connection which is not known here.",
  ],
  retriesSent: [
    "aetherflow_quantum_retries_sent_total",
    "Handshakes that had to prove their address first.",
  ],
} as const satisfies Partial<Record<keyof Figures, readonly [string, string]>>;

/** As it is now. */
const GAUGES = {
  channels: ["aetherflow_quantum_channels", "Channels open now."],
  connecting: ["aetherflow_quantum_connecting", "Handshakes under way that this node began."],
  halfOpen: [
    "aetherflow_quantum_half_open",
    "Handshakes of peers that were answered and have not come back.",
  ],
  congestionWindowBytes: [
    "aetherflow_quantum_cwnd_bytes",
    "Congestion windows of the open channels, summed up.",
  ],
  bytesInFlight: ["aetherflow_quantum_inflight_bytes", "Bytes under way on them, summed up."],
} as const satisfies Partial<Record<keyof Figures, readonly [string, string]>>;

/** Of the channel to one peer, as it is now. */
const PEER_GAUGES: readonly [name: string, help: string, value: (stats: ChannelStats) => number][] = [
  [
    "aetherflow_quantum_peer_rtt_seconds",
    "Smoothed round trip to a peer that this worker calls.",
    ({ rttMs }) => rttMs / 1_000,
  ],
  [
    "aetherflow_quantum_peer_cwnd_bytes",
    "Congestion window towards it.",
    ({ congestionWindowBytes }) => congestionWindowBytes,
  ],
  ["aetherflow_quantum_peer_inflight_bytes", "Bytes under way to it.", ({ bytesInFlight }) => bytesInFlight],
];

/** Adds a Quantum node's figures to a registry; they are read when the registry is. */
export function registerQuantumMetrics(registry: Registry, node: Pick<QuantumNode, "stats">): void {
  registerFigures<Figures>(registry, { counters: COUNTERS, gauges: GAUGES }, () => node.stats());
  new Counter({
    name: "aetherflow_quantum_dropped_total",
    help: "Datagrams that arrived and were dropped, by reason.",
    labelNames: ["reason"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [reason, count] of Object.entries(node.stats().dropped)) this.inc({ reason }, count);
    },
  });
}

/** Adds the figures of the open channels to peers. As many peers as the address book has. */
export function registerPeerMetrics(
  registry: Registry,
  peers: Pick<Peers, "names" | "channelStats">,
): void {
  for (const [name, help, value] of PEER_GAUGES) {
    new Gauge({
      name,
      help,
      labelNames: ["peer"],
      registers: [registry],
      collect() {
        this.reset();
        for (const peer of peers.names()) {
          const stats = peers.channelStats(peer);
          if (stats !== undefined) this.set({ peer }, value(stats));
        }
      },
    });
  }
}
