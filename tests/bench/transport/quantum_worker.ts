/** Quantum channels between two workers: an echo and sink server, and a client that measures. */
import type { Channel, ChannelStream, StreamHandler } from "../../../transport/channels/channel.ts";
import { openQuantumNode, type QuantumNode } from "../../../transport/channels/quantum.ts";
import { answer, quantile } from "./ask.ts";

type Message =
  | { readonly do: "listen" }
  | { readonly do: "connect"; readonly port: number }
  | { readonly do: "ping"; readonly bytes: number; readonly rounds: number }
  | { readonly do: "flood"; readonly bytes: number; readonly inFlight: number; readonly rounds: number }
  | { readonly do: "bulk"; readonly bytes: number }
  | { readonly do: "stats" };

/** Answer to `ping`. */
export interface Ping {
  readonly p50Us: number;
  readonly p99Us: number;
}

const listen = { hostname: "127.0.0.1", port: 0 };
const secret = new Uint8Array(32).fill(1);
const nothing = { onReset() {}, onStop() {}, onDrain() {} };
let node: QuantumNode | undefined;
let channel: Channel | undefined;

answer<Message>(async (message) => {
  switch (message.do) {
    case "listen":
      node = openQuantumNode({ listen, secret, onChannel: (accepted) => accepted.onStream(serve) });
      return node.address.port;
    case "connect":
      node = openQuantumNode({ listen, secret });
      channel = await node.connect({ hostname: "127.0.0.1", port: message.port });
      return true;
    case "ping":
      return ping(opened(), message.bytes, message.rounds);
    case "flood":
      return flood(opened(), message.bytes, message.inFlight, message.rounds);
    case "bulk":
      return bulk(opened(), message.bytes);
    case "stats":
      return { node: node?.stats(), channel: channel?.stats() };
  }
});

function opened(): Channel {
  if (!channel) throw new Error("connect comes first");
  return channel;
}

/** Small streams are echoed; of large ones one byte comes back at their end. */
function serve(stream: ChannelStream): StreamHandler {
  let received = 0;
  return {
    ...nothing,
    onData(bytes, fin) {
      received += bytes.length;
      stream.consumed(bytes.length);
      if (fin) stream.write(received === bytes.length ? bytes : new Uint8Array(1), true);
    },
  };
}

async function ping(channel: Channel, byteCount: number, rounds: number): Promise<Ping> {
  const times = new Float64Array(rounds);
  const payload = new Uint8Array(byteCount);
  for (let i = 0; i < rounds; i++) {
    const startMs = performance.now();
    await new Promise<void>((resolve) => call(channel, payload, resolve));
    times[i] = performance.now() - startMs;
  }
  times.sort();
  return { p50Us: quantile(times, 0.5) * 1_000, p99Us: quantile(times, 0.99) * 1_000 };
}

/** Calls a second with `inFlight` of them always under way. */
async function flood(channel: Channel, byteCount: number, inFlight: number, rounds: number): Promise<number> {
  const payload = new Uint8Array(byteCount);
  const startMs = performance.now();
  await new Promise<void>((resolve) => {
    let started = 0;
    let ended = 0;
    const next = () => {
      if (started >= rounds) return;
      started++;
      call(channel, payload, () => {
        if (++ended === rounds) resolve();
        else next();
      });
    };
    for (let i = 0; i < inFlight; i++) next();
  });
  return rounds * 1_000 / (performance.now() - startMs);
}

function call(channel: Channel, payload: Uint8Array, done: () => void): void {
  const stream: ChannelStream = channel.openStream({
    ...nothing,
    onData(bytes, fin) {
      stream.consumed(bytes.length);
      if (fin) done();
    },
  });
  stream.write(payload.slice(), true);
}

/** Bytes a second over one stream, until the far end has said that it has them all. */
async function bulk(channel: Channel, byteCount: number): Promise<number> {
  const startMs = performance.now();
  await new Promise<void>((resolve) => {
    let left = byteCount;
    const fill = () => {
      while (left > 0) {
        const length = Math.min(65_536, left);
        left -= length;
        if (!stream.write(new Uint8Array(length), left === 0)) return;
      }
    };
    const stream: ChannelStream = channel.openStream({
      ...nothing,
      onData(bytes, fin) {
        stream.consumed(bytes.length);
        if (fin) resolve();
      },
      onDrain: fill,
    });
    fill();
  });
  return byteCount * 1_000 / (performance.now() - startMs);
}
