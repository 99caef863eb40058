/** The floor: `Deno.listenDatagram` and nothing on top. */
import { answer, quantile } from "./ask.ts";

type Message =
  | { readonly do: "listen" }
  | { readonly do: "ping"; readonly port: number; readonly bytes: number; readonly rounds: number };

/** Answer to `ping`. */
export interface RawPing {
  readonly p50Us: number;
  readonly p99Us: number;
}

const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
const buffer = new Uint8Array(65_535);

answer<Message>((message) => {
  if (message.do === "ping") return ping(message.port, message.bytes, message.rounds);
  void echo();
  return (socket.addr as Deno.NetAddr).port;
});

async function echo(): Promise<void> {
  for (;;) {
    const [bytes, from] = await socket.receive(buffer);
    await socket.send(bytes, from);
  }
}

async function ping(port: number, byteCount: number, rounds: number): Promise<RawPing> {
  const to: Deno.NetAddr = { transport: "udp", hostname: "127.0.0.1", port };
  const payload = new Uint8Array(byteCount);
  const times = new Float64Array(rounds);
  for (let i = 0; i < rounds; i++) {
    const startMs = performance.now();
    void socket.send(payload, to);
    await socket.receive(buffer);
    times[i] = performance.now() - startMs;
  }
  times.sort();
  return { p50Us: quantile(times, 0.5) * 1_000, p99Us: quantile(times, 0.99) * 1_000 };
}
