/** A client in a thread of its own: the same session's Get over HTTP and over RPC, at the same pace. */
import { SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { readClusterSecret } from "../../../services/host/cluster_secret.ts";
import { openQuantumNode } from "../../../transport/channels/quantum.ts";
import { callUnary, createChannelTransport } from "../../../transport/rpc/mod.ts";
import { answer, quantile } from "../transport/ask.ts";

/** What is called, and how often. */
export interface LatencyMessage {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
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

const CONNECTIONS = 64;
/** Calls begin in groups, since timers are no finer. */
const TICK_MS = 1;
const WARM_UP_SECONDS = 1;

answer<LatencyMessage>(async (message) => ({ http: await overHttp(message), rpc: await overRpc(message) }));

async function overHttp({ url, headers, perSecond, seconds }: LatencyMessage): Promise<Latencies> {
  const { hostname, port, pathname, host } = new URL(url);
  const lines = Object.entries({ host, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  const request = new TextEncoder().encode(`GET ${pathname} HTTP/1.1\r\n${lines.join("")}\r\n`);
  const idle = await Promise.all(Array.from({ length: CONNECTIONS }, () => connect(hostname, Number(port))));
  const all = [...idle];
  try {
    const call = async () => {
      let connection = idle.pop();
      if (connection === undefined) all.push(connection = await connect(hostname, Number(port)));
      await exchange(connection, request);
      idle.push(connection);
    };
    return await paced(call, perSecond, seconds);
  } finally {
    for (const connection of all) connection.close();
  }
}

async function connect(hostname: string, port: number): Promise<Deno.TcpConn> {
  const connection = await Deno.connect({ hostname, port });
  connection.setNoDelay(true);
  return connection;
}

const buffer = () => new Uint8Array(16_384);
const buffers = new WeakMap<Deno.TcpConn, Uint8Array<ArrayBuffer>>();
const decoder = new TextDecoder("latin1");

/** Sends a request and reads its answer, whose length the head tells. */
async function exchange(connection: Deno.TcpConn, request: Uint8Array): Promise<void> {
  await connection.write(request);
  let bytes = buffers.get(connection);
  if (bytes === undefined) buffers.set(connection, bytes = buffer());
  let length = 0;
  for (;;) {
    const read = await connection.read(bytes.subarray(length));
    if (read === null) throw new Error("the gateway closed the connection");
    length += read;
    const text = decoder.decode(bytes.subarray(0, length));
    const headEnd = text.indexOf("\r\n\r\n");
    if (headEnd < 0) continue;
    if (!text.startsWith("HTTP/1.1 200")) throw new Error(`the gateway answered ${text.slice(0, headEnd)}`);
    const body = Number(/content-length: (\d+)/i.exec(text)?.[1]);
    if (length >= headEnd + 4 + body) return;
  }
}

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
