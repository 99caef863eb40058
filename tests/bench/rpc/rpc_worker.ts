/** Unary RPC over Quantum between two workers: a server that echoes, and a client that measures. */
import type { Transport } from "@connectrpc/connect";
import { openQuantumNode } from "../../../transport/channels/quantum.ts";
import { callUnary, createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { TestService } from "../../../transport/testing/test_service.ts";
import { answer } from "../transport/ask.ts";
import { flood, ping, type UnaryMessage } from "./unary.ts";

const listen = { hostname: "127.0.0.1", port: 0 };
const secret = new Uint8Array(32).fill(1);
let transport: Transport | undefined;

answer<UnaryMessage>(async (message) => {
  switch (message.do) {
    case "listen": {
      const server = createRpcServer().service(TestService, { unary: (request) => ({ body: request.body }) });
      return openQuantumNode({ listen, secret, onChannel: (channel) => server.accept(channel) }).address.port;
    }
    case "connect": {
      const channel = await openQuantumNode({ listen, secret }).connect({
        hostname: "127.0.0.1",
        port: message.port,
      });
      transport = createChannelTransport({ channel: () => channel });
      return true;
    }
    case "ping":
      return ping(call(message.bytes), message.rounds);
    case "flood":
      return flood(call(message.bytes), message.inFlight, message.rounds);
  }
});

/** Calls as services make them: with a deadline. */
function call(byteCount: number): () => Promise<unknown> {
  const connected = transport;
  if (connected === undefined) throw new Error("connect comes first");
  const body = new Uint8Array(byteCount);
  const options = { timeoutMs: 10_000 };
  return () => callUnary(connected, TestService.method.unary, { body }, options);
}
