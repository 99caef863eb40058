/** A Quantum node in a thread of its own that echoes every stream: the peer that a test can kill without a goodbye.
 *  Send it `{ port }`; it answers with the port it bound, or with undefined when that one is taken. */
import { openQuantumNode } from "../channels/quantum.ts";
import { echo } from "./channel_suite.ts";

interface Scope {
  onmessage: (event: MessageEvent<{ readonly port: number; readonly secret: Uint8Array }>) => void;
  postMessage(port: number | undefined): void;
}

const scope = globalThis as unknown as Scope;

scope.onmessage = ({ data: { port, secret } }) => {
  try {
    const node = openQuantumNode({
      listen: { hostname: "127.0.0.1", port },
      secret,
      onChannel: (channel) => channel.onStream(echo),
    });
    scope.postMessage(node.address.port);
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    scope.postMessage(undefined);
  }
};
