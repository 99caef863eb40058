import { createMemoryChannelPair, type MemoryChannelOptions } from "../channels/memory.ts";
import { rpcSuite } from "../testing/rpc_suite.ts";

function suite(name: string, options: MemoryChannelOptions): void {
  rpcSuite(name, () => {
    const [client, server] = createMemoryChannelPair(options);
    const close = () => {
      client.close(0, "end of test");
      return Promise.resolve();
    };
    return Promise.resolve({ client, server, close });
  });
}

suite("memory", {});
// Every chunk border falls somewhere awkward, and every window is smaller than a message.
suite("memory in crumbs", {
  maxChunkBytes: 7919,
  streamWindowBytes: 20_011,
  channelWindowBytes: 1_000_003,
  highWaterBytes: 9973,
  maxStreams: 64,
});
