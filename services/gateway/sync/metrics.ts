/** Figures of synchronising clients. */
import type { Registry } from "prom-client";
import { Counter, Gauge } from "../../runtime/metrics.ts";

/** The protocols. */
export type SyncProtocol = "y-websocket" | "hocuspocus";

/** Figures of one gateway worker. */
export interface SyncMetrics {
  socketOpened(protocol: SyncProtocol): void;
  socketClosed(protocol: SyncProtocol, code: number): void;
  /** An update of `bytes` came from a client. */
  received(bytes: number): void;
  /** `clients` were sent a frame of `bytes`. */
  sent(clients: number, bytes: number): void;
  /** Something of a client was not taken; `reason` is a word of the code. */
  refused(reason: string): void;
  /** Client ids that show presence came, or went. */
  presenceEntries(more: number): void;
}

/** Registers the figures. */
export function createSyncMetrics(registry: Registry): SyncMetrics {
  const registers = [registry];
  const open = { "y-websocket": 0, hocuspocus: 0 };
  new Gauge({
    name: "aetherflow_gateway_sync_sockets",
    help: "WebSockets of synchronising clients that are open.",
    labelNames: ["protocol"],
    registers,
    collect() {
      for (const [protocol, count] of Object.entries(open)) this.set({ protocol }, count);
    },
  });
  const closes = new Counter({
    name: "aetherflow_gateway_sync_closed_total",
    help: "WebSockets of synchronising clients that ended, by the gateway's close code; 0: by the client.",
    labelNames: ["code"],
    registers,
  });
  // Plain numbers: they change with each frame of each client, and are read once a scrape.
  const counts = { updatesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0, presence: 0 };
  const counter = (name: string, help: string, of: Record<"in" | "out", () => number>) =>
    new Counter({
      name,
      help,
      labelNames: ["direction"],
      registers,
      collect() {
        this.reset();
        this.inc({ direction: "in" }, of.in());
        this.inc({ direction: "out" }, of.out());
      },
    });
  counter("aetherflow_gateway_sync_updates_total", "Updates of clients in, and frames to clients out.", {
    in: () => counts.updatesIn,
    out: () => counts.framesOut,
  });
  counter("aetherflow_gateway_sync_bytes_total", "Bytes of those.", {
    in: () => counts.bytesIn,
    out: () => counts.bytesOut,
  });
  const refusals = new Counter({
    name: "aetherflow_gateway_sync_refused_total",
    help: "What synchronising clients sent and was not taken, by reason.",
    labelNames: ["reason"],
    registers,
  });
  new Gauge({
    name: "aetherflow_gateway_sync_presence_entries",
    help: "Clients that show presence, of all open documents.",
    registers,
    collect() {
      this.set(counts.presence);
    },
  });
  return {
    socketOpened: (protocol) => void open[protocol]++,
    socketClosed(protocol, code) {
      open[protocol]--;
      closes.inc({ code: String(code) });
    },
    received(bytes) {
      counts.updatesIn++;
      counts.bytesIn += bytes;
    },
    sent(clients, bytes) {
      counts.framesOut += clients;
      counts.bytesOut += clients * bytes;
    },
    refused: (reason) => refusals.inc({ reason }),
    presenceEntries: (more) => void (counts.presence += more),
  };
}
