/** Calls of gRPC servers: unary, and streams in either direction, messages as bytes. */
export { type CallListener, GrpcCall } from "./call.ts";
export { type ChannelState, type GrpcCallOptions, GrpcChannel, type GrpcChannelOptions } from "./channel.ts";
export type { GrpcTls } from "./dial.ts";
export { GRPC, GrpcError, type GrpcStatus } from "./status.ts";
