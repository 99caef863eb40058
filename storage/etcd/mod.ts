/** A client of an etcd cluster: calls as bytes, endpoints in turn, failover. */
export { type CallOptions, EtcdClient, type EtcdClientOptions } from "./client.ts";
export type { EtcdStream, StreamListener, UnaryOptions } from "./client.ts";
export type { GrpcTls as EtcdTls } from "../../transport/grpc/mod.ts";
export { EtcdError, GRPC } from "./errors.ts";
