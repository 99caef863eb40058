/** Services that a worker serves to itself: called as a peer's are, without a network between. */
import type { Transport } from "@connectrpc/connect";
import { createMemoryChannelPair } from "../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../transport/rpc/mod.ts";
import type { RpcServices } from "./worker_context.ts";

/** Where they are registered, and how they are called. */
export interface LocalServices {
  readonly rpc: RpcServices;
  readonly transport: Transport;
}

/** Creates a place for them. `onError` hears of faults of theirs. */
export function createLocalServices(
  onError: (method: string, error: unknown, header: Headers) => void,
): LocalServices {
  const [near, far] = createMemoryChannelPair();
  const rpc = createRpcServer({ onError });
  rpc.accept(far);
  return { rpc, transport: createChannelTransport({ channel: () => near }) };
}
