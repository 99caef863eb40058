import { assert, assertEquals } from "@std/assert";
import { pattern, Pipe, seededRandom } from "./_pipe.ts";
import type { QuantumEvent } from "../types.ts";

/** Sends `total` bytes from client to server on one stream over the pipe and checks every one. */
function transfer(pipe: Pipe, total: number, limitMs: number): { events: QuantumEvent[]; handle: number } {
  const { client } = pipe.connect();
  const expected = pattern(total);
  const stream = pipe.client.endpoint.openStream(client);
  let written = 0;
  const pump = () => {
    while (written < total) {
      const end = Math.min(written + 65_536, total);
      const more = pipe.client.endpoint.write(client, stream, expected.subarray(written, end), end === total);
      written = end;
      if (!more) break;
    }
  };
  const events: QuantumEvent[] = [];
  pipe.client.onEvent = (event) => {
    events.push(event);
    if (event.type === "drain") pump();
  };
  let received = 0;
  let finished = false;
  pipe.server.onEvent = (event) => {
    if (event.type !== "data") return void events.push(event);
    for (let i = 0; i < event.bytes.length; i++) {
      if (event.bytes[i] !== expected[received + i]) throw new Error(`wrong byte at ${received + i}`);
    }
    received += event.bytes.length;
    finished = event.fin;
    pipe.server.endpoint.consumed(event.connection, event.stream, event.bytes.length);
  };
  pump();
  pipe.runUntil(() => finished, limitMs);
  assertEquals(received, total);
  return { events, handle: client };
}

for (
  const [loss, total] of [[0, 10_000_000], [0.01, 10_000_000], [0.05, 10_000_000], [0.2, 2_000_000]] as const
) {
  Deno.test(`Connection carries ${total} bytes intact at ${loss * 100} % loss with reordering and duplicates`, () => {
    const seed = 42;
    const random = seededRandom(seed);
    const pipe = new Pipe({ seed });
    pipe.wire = () => {
      if (random.next() < loss) return [];
      const delay = 5 + random.next() * 2;
      return random.next() < 0.01 ? [delay, delay + 3] : [delay];
    };
    transfer(pipe, total, 600_000);
  });
}

Deno.test("Connection carries 10 MB over a loopback path in datagrams of 32 kB", () => {
  const pipe = new Pipe({ network: "127.0.0." });
  pipe.wire = () => [0.05];
  const { handle } = transfer(pipe, 10_000_000, 60_000);
  const stats = pipe.client.endpoint.connectionStats(handle)!;
  assertEquals(stats.datagramBytesMax, 32_768);
  assert(stats.packetsSent < 450, `sent ${stats.packetsSent}`);
  assertEquals(stats.packetsLost, 0);
});
