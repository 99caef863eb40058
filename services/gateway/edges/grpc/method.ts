/** The RPCs that gRPC clients may call, by path: made from descriptors, so that a new RPC needs no code here. */
import { type DescMethod, getOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { edge as edgeOption } from "$proto/aetherflow/gateway/v1/edge_pb.ts";
import type { RawCall, RawCallHandler, RawCallOptions } from "../../../../transport/rpc/mod.ts";
import type { Upstreams } from "../../resilience/upstreams.ts";
import type { AccessRule } from "../../auth/access.ts";
import type { Exposure } from "../../routes.ts";
import type { GrpcMethodMetrics, GrpcMetrics } from "./metrics.ts";
import { RoutedCall, routedMethod } from "./routed_call.ts";
import { type Around, aroundOf } from "./sign_in.ts";

/** One RPC. */
export interface GrpcMethod {
  /** `/etcdserverpb.KV/Range`. */
  readonly path: string;
  /** One request message, answered as soon as it is here. */
  readonly takesOne: boolean;
  /** Any number of answers. */
  readonly streams: boolean;
  /** Whether a call may take so long that its caller's rights may end meanwhile. */
  readonly isLong: boolean;
  /** Who may call; undefined: anybody. */
  readonly rule: AccessRule | undefined;
  /** What its calls take around them. */
  readonly around: Around;
  readonly metrics: GrpcMethodMetrics;
  /** Starts a call. */
  start(handler: RawCallHandler, options: RawCallOptions): RawCall;
}

/** Finds RPCs. */
export interface GrpcMethods {
  find(path: string): GrpcMethod | undefined;
  hasService(name: string): boolean;
}

/** Builds the table: the exposed services at their instances, and `local` ones in this worker. */
export function createGrpcMethods(
  exposures: readonly Pick<Exposure, "service" | "peer" | "dialect" | "grant" | "mayWait">[],
  upstreams: Upstreams,
  local: readonly LocalMethod[],
  metrics: GrpcMetrics,
): GrpcMethods {
  const methods = new Map<string, GrpcMethod>();
  const services = new Set<string>();
  function add(rpc: DescMethod, rule: AccessRule | undefined, start: GrpcMethod["start"]): void {
    const path = `/${rpc.parent.typeName}/${rpc.name}`;
    services.add(rpc.parent.typeName);
    methods.set(path, {
      path,
      takesOne: rpc.methodKind === "unary" || rpc.methodKind === "server_streaming",
      streams: rpc.methodKind !== "unary",
      isLong: rpc.methodKind !== "unary" || WAITING.has(path),
      rule,
      around: aroundOf(rpc),
      metrics: metrics.method(path),
      start,
    });
  }
  for (const exposure of exposures) {
    const { service, peer, mayWait = false } = exposure;
    for (const rpc of service.methods) {
      const routed = routedMethod(upstreams, rpc, peer, mayWait);
      add(rpc, ruleOf(exposure, rpc), (handler, options) => new RoutedCall(routed, handler, options));
    }
  }
  for (const { rpc, start } of local) add(rpc, undefined, start);
  return { find: (path) => methods.get(path), hasService: (name) => services.has(name) };
}

/** Unary RPCs that wait for others. */
const WAITING: ReadonlySet<string> = new Set(["/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"]);

function ruleOf({ dialect, grant }: Pick<Exposure, "dialect" | "grant">, rpc: DescMethod): AccessRule {
  return {
    access: getOption(rpc, edgeOption).access,
    grant,
    isRead: rpc.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
    dialect,
    rpcName: `${rpc.parent.typeName}/${rpc.name}`,
  };
}

/** An RPC that this worker answers itself. */
export interface LocalMethod {
  readonly rpc: DescMethod;
  start: GrpcMethod["start"];
}
