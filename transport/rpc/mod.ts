/** RPC on a channel: SPEC.md has the bytes, README.md in the folder above the guarantees. */
export { createRpcServer } from "./server.ts";
export type { RpcObserver, RpcServer, RpcServerOptions, RpcServerStats } from "./server.ts";
export { callUnary, createChannelTransport, wasNeverSent } from "./client.ts";
export type {
  CallUnaryOptions,
  ChannelTransport,
  ChannelTransportOptions,
  ChannelTransportStats,
} from "./client.ts";
export { startRawCall } from "./raw.ts";
export type { RawCall, RawCallHandler, RawCallOptions, RawEnd } from "./raw.ts";
export { type RpcClock, systemRpcClock } from "./deadline.ts";
export type { StatusCode } from "./status.ts";
export { DEFAULT_MAX_ANSWER_BYTES, DEFAULT_MAX_MESSAGE_BYTES } from "./frame.ts";
