/** The RPCs that gRPC clients may call, by path: made from descriptors, so that a new RPC needs no code here. */
import type { DescMethod } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import {
  type RawCall,
  type RawCallHandler,
  type RawCallOptions,
  startRawCall,
} from "../../../../transport/rpc/mod.ts";
import type { Exposure } from "../../routes.ts";
import type { GrpcMethodMetrics, GrpcMetrics } from "./metrics.ts";

/** One RPC. */
export interface GrpcMethod {
  /** `/etcdserverpb.KV/Range`. */
  readonly path: string;
  /** One request message, answered as soon as it is here. */
  readonly takesOne: boolean;
  /** Any number of answers. */
  readonly streams: boolean;
  readonly metrics: GrpcMethodMetrics;
  /** Starts a call. */
  start(handler: RawCallHandler, options: RawCallOptions): RawCall;
}

/** Finds RPCs. */
export interface GrpcMethods {
  find(path: string): GrpcMethod | undefined;
  hasService(name: string): boolean;
}

/** Builds the table: the exposed services at their peers, and `local` ones in this worker. */
export function createGrpcMethods(
  exposures: readonly Pick<Exposure, "service" | "peer">[],
  transport: (peer: string) => Transport,
  local: readonly LocalMethod[],
  metrics: GrpcMetrics,
): GrpcMethods {
  const methods = new Map<string, GrpcMethod>();
  const services = new Set<string>();
  function add(rpc: DescMethod, start: GrpcMethod["start"]): void {
    const path = `/${rpc.parent.typeName}/${rpc.name}`;
    services.add(rpc.parent.typeName);
    methods.set(path, {
      path,
      takesOne: rpc.methodKind === "unary" || rpc.methodKind === "server_streaming",
      streams: rpc.methodKind !== "unary",
      metrics: metrics.method(path),
      start,
    });
  }
  for (const { service, peer } of exposures) {
    for (const rpc of service.methods) {
      add(rpc, (handler, options) => startRawCall(transport(peer), rpc, handler, options));
    }
  }
  for (const { rpc, start } of local) add(rpc, start);
  return { find: (path) => methods.get(path), hasService: (name) => services.has(name) };
}

/** An RPC that this worker answers itself. */
export interface LocalMethod {
  readonly rpc: DescMethod;
  start: GrpcMethod["start"];
}
