/** A client in a thread of its own: a session's Get over RPC, at a pace. */
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { readClusterSecret } from "../../../services/host/cluster_secret.ts";
import { openQuantumNode } from "../../../transport/channels/quantum.ts";
import { callUnary, createChannelTransport } from "../../../transport/rpc/mod.ts";
import { answer, quantile } from "../transport/ask.ts";

/** What is called, and how often. */
export interface LatencyMessage {
  readonly secretFile: string;
  /** The session worker's Quantum node. */
  readonly address: string;
  readonly sessionId: string;
  readonly perSecond: number;
  readonly seconds: number;
}

/** Times of calls that began at a steady pace. */
export interface Latencies {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Calls begin in groups, since timers are no finer. */
const TICK_MS = 1;
const WARM_UP_SECONDS = 1;

answer<LatencyMessage>(overRpc);

async function overRpc(message: LatencyMessage): Promise<Latencies> {
  const at = message.address.lastIndexOf(":");
  const node = openQuantumNode({
    listen: { hostname: "127.0.0.1", port: 0 },
    secret: readClusterSecret(message.secretFile),
  });
  try {
    const channel = await node.connect({
      hostname: message.address.slice(0, at),
      port: Number(message.address.slice(at + 1)),
    });
    const transport = createChannelTransport({ channel: () => channel });
    const { getSession } = SessionService.method;
    const request = { sessionId: message.sessionId };
    return await paced(
      () => callUnary(transport, getSession, request, { timeoutMs: 10_000 }),
      message.perSecond,
      message.seconds,
    );
  } finally {
    await node.close();
  }
}

/** Begins calls at a steady pace, whether the ones before are done or not; the first second is not counted. */
async function paced(call: () => Promise<unknown>, perSecond: number, seconds: number): Promise<Latencies> {
  const times: number[] = [];
  const running = new Set<Promise<void>>();
  const startedMs = performance.now();
  const endMs = (WARM_UP_SECONDS + seconds) * 1_000;
  for (let begun = 0;;) {
    const elapsedMs = performance.now() - startedMs;
    if (elapsedMs >= endMs) break;
    for (const due = Math.floor(elapsedMs / 1_000 * perSecond); begun < due; begun++) {
      const calledMs = performance.now();
      const counts = elapsedMs >= WARM_UP_SECONDS * 1_000;
      const done = call().then(() => {
        if (counts) times.push(performance.now() - calledMs);
        running.delete(done);
      });
      running.add(done);
    }
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  await Promise.all(running);
  const sorted = Float64Array.from(times).sort();
  return { p50Ms: quantile(sorted, 0.5), p99Ms: quantile(sorted, 0.99) };
}
