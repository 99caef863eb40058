import type { Channel } from "../channels/channel.ts";
import { openQuantumNode } from "../channels/quantum.ts";
import { rpcSuite } from "../testing/rpc_suite.ts";

rpcSuite("quantum", async () => {
  const secret = new Uint8Array(32).fill(7);
  const listen = { hostname: "127.0.0.1", port: 0 };
  const accepted = Promise.withResolvers<Channel>();
  const server = openQuantumNode({ listen, secret, onChannel: accepted.resolve });
  const client = openQuantumNode({ listen, secret });
  const channel = await client.connect(server.address);
  return {
    client: channel,
    server: await accepted.promise,
    async close() {
      await client.close();
      await server.close();
    },
  };
});
