/** Asks a session worker over Quantum, as a gateway does, and measures how long it takes. */
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import type { Transport } from "@connectrpc/connect";
import { openQuantumNode } from "../../../transport/channels/quantum.ts";
import { callUnary, createChannelTransport } from "../../../transport/rpc/mod.ts";
import { answer, quantile } from "../transport/ask.ts";

/** What the worker is asked. */
export type SessionClientMessage =
  | { readonly do: "connect"; readonly port: number; readonly secret: Uint8Array }
  /** Opens sessions and ends them, for so long. */
  | { readonly do: "pairs"; readonly inFlight: number; readonly seconds: number }
  /** Opens so many sessions and keeps their tokens. */
  | { readonly do: "open"; readonly sessions: number }
  /** Verifies these tokens in turn, for so long. */
  | { readonly do: "verify"; readonly inFlight: number; readonly seconds: number };

/** What was measured: rounds a second, and the times of single calls. */
export interface SessionTimes {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Calls whose times are kept: more than are made in the longest run. */
const CALLS_MAX = 4_000_000;
const OPTIONS = { timeoutMs: 10_000 };
const METADATA = { device: "phone", app: "aetherflow" };
const { createSession, deleteSession, verifySession } = SessionService.method;

let transport: Transport | undefined;
const tokens: string[] = [];

answer<SessionClientMessage>(async (message) => {
  switch (message.do) {
    case "connect": {
      const node = openQuantumNode({
        listen: { hostname: "127.0.0.1", port: 0 },
        secret: message.secret,
      });
      const channel = await node.connect({ hostname: "127.0.0.1", port: message.port });
      transport = createChannelTransport({ channel: () => channel });
      return true;
    }
    case "pairs":
      return await measure(message.inFlight, message.seconds, async (timed, i) => {
        const created = await timed(() => create(i));
        const sessionId = created.session!.sessionId;
        await timed(() => callUnary(transport!, deleteSession, { sessionId }, OPTIONS));
      });
    case "open":
      for (let i = 0; i < message.sessions; i += 64) {
        const opened = await Promise.all(Array.from({ length: 64 }, (_, n) => create(i + n)));
        for (const { token } of opened) tokens.push(token);
      }
      return tokens.length;
    case "verify":
      return await measure(message.inFlight, message.seconds, async (timed, i) => {
        const token = tokens[i % tokens.length]!;
        await timed(() => callUnary(transport!, verifySession, { token }, OPTIONS));
      });
  }
});

function create(i: number) {
  return callUnary(transport!, createSession, {
    userId: `user-${i % 10_000}`,
    clientIp: "192.0.2.7",
    clientPort: 40_000,
    metadata: METADATA,
  }, OPTIONS);
}

type Timed = <T>(call: () => Promise<T>) => Promise<T>;

async function measure(
  inFlight: number,
  seconds: number,
  round: (timed: Timed, i: number) => Promise<void>,
): Promise<SessionTimes> {
  const times = new Float64Array(CALLS_MAX);
  let calls = 0, rounds = 0;
  const timed: Timed = async (call) => {
    const startMs = performance.now();
    const result = await call();
    times[calls++ % CALLS_MAX] = performance.now() - startMs;
    return result;
  };
  const startMs = performance.now();
  const endMs = startMs + seconds * 1_000;
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (performance.now() < endMs) await round(timed, rounds++);
  }));
  const elapsedMs = performance.now() - startMs;
  const sorted = times.subarray(0, Math.min(calls, CALLS_MAX)).sort();
  return {
    perSecond: rounds * 1_000 / elapsedMs,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
  };
}
