import { assertEquals, assertThrows } from "@std/assert";
import type { ChannelStream, StreamHandler } from "./channel.ts";
import { channelSuite } from "../testing/channel_suite.ts";
import { createMemoryChannelPair } from "./memory.ts";

channelSuite("memory", () => {
  const [client, server] = createMemoryChannelPair();
  const close = () => {
    client.close(0, "end of test");
    return Promise.resolve();
  };
  return Promise.resolve({ client, server, close });
});

Deno.test("createMemoryChannelPair() delivers no more than the windows until bytes are reported as used", async () => {
  const [client, server] = createMemoryChannelPair({ streamWindowBytes: 10, channelWindowBytes: 15 });
  const received: [number, number][] = [];
  const accepted: ChannelStream[] = [];
  server.onStream((stream) => {
    accepted.push(stream);
    return { ...ignoring, onData: (bytes) => received.push([stream.id, bytes.length]) };
  });
  for (let i = 0; i < 2; i++) client.openStream(ignoring).write(new Uint8Array(12), true);
  await turn();
  assertEquals(received, [[0, 10], [2, 5]]);
  accepted[0]!.consumed(4);
  await turn();
  // The channel's four go to the stream that waited for them; the other has a window of its own but none of the channel's.
  assertEquals(received.slice(2), [[2, 4]]);
  accepted[1]!.consumed(7);
  await turn();
  assertEquals(received.slice(3), [[2, 3], [0, 2]]);
  client.close(0, "");
});

Deno.test("createMemoryChannelPair() cuts chunks at maxChunkBytes and ends the half with the last", async () => {
  const [client, server] = createMemoryChannelPair({ maxChunkBytes: 3 });
  const received: [number, boolean][] = [];
  server.onStream(() => ({ ...ignoring, onData: (bytes, fin) => received.push([bytes.length, fin]) }));
  client.openStream(ignoring).write(new Uint8Array(7), true);
  await turn();
  assertEquals(received, [[3, false], [3, false], [1, true]]);
  client.close(0, "");
});

Deno.test("createMemoryChannelPair() refuses options below one", () => {
  assertThrows(
    () => createMemoryChannelPair({ maxStreams: 0 }),
    RangeError,
    "maxStreams must be at least 1, got 0",
  );
});

const ignoring: StreamHandler = { onData() {}, onReset() {}, onStop() {}, onDrain() {} };

/** All microtasks that are under way have run. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
