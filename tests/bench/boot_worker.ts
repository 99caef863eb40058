/** Starts one worker of the product alone, as its host would. */
import type { HostMessage, WorkerMessage } from "../../services/runtime/worker_context.ts";

/** What the worker is told. */
export interface BootOptions {
  readonly name: string;
  /** The worker's own part of the configuration. */
  readonly config: unknown;
  readonly directory: string;
  /** The Quantum secret, 32 bytes. */
  readonly secret: Uint8Array;
  /** The Quantum port on 127.0.0.1. */
  readonly port: number;
}

/** Resolves when the worker serves. @throws {Error} what it says when it cannot start. */
export function bootWorker(
  worker: Worker,
  { name, config, directory, secret, port }: BootOptions,
): Promise<void> {
  const message: HostMessage = {
    type: "boot",
    name,
    instance: 1,
    secret,
    listen: { hostname: "127.0.0.1", port },
    peers: [],
    config,
    dataDirectory: directory,
    log: { level: "warn", format: "json" },
  };
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<WorkerMessage>) => {
      if (data.type === "ready") resolve();
      else if (data.type === "failed") reject(new Error(data.message));
    };
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(message);
  });
}

/** A UDP port that was free a moment ago. */
export function freeUdpPort(): number {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  socket.close();
  return port;
}
