/** Every service of the kv worker, under the name of its handlers. What is served is what is listed here, each method checked
 *  by the guard; a service whose methods the guard does not know stops the worker from starting. */
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { Auth, Cluster, KV, Lease, Maintenance, Watch } from "$proto/etcdserverpb/rpc_pb.ts";
import { Election } from "$proto/v3electionpb/v3election_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { Guard } from "./auth/guard.ts";

/** The services. */
export const KV_SERVICES = {
  auth: Auth,
  cluster: Cluster,
  election: Election,
  keyValue: KeyValueService,
  kv: KV,
  lease: Lease,
  lock: Lock,
  maintenance: Maintenance,
  watch: Watch,
} as const satisfies Record<string, DescService>;

/** Their implementations. */
export type KvHandlers = {
  readonly [Name in keyof typeof KV_SERVICES]: ServiceImpl<(typeof KV_SERVICES)[Name]>;
};

/** What takes services: an RpcServer. */
export interface ServiceTable {
  service<S extends DescService>(service: S, impl: Partial<ServiceImpl<S>>): unknown;
}

/** The handlers with every method checked. */
export function guardAll(guard: Guard, handlers: KvHandlers): KvHandlers {
  const checked = served(handlers).map(([name, service, impl]) => [name, guard.wrap(service, impl)]);
  return Object.fromEntries(checked) as KvHandlers;
}

/** Adds every service to a server. */
export function serveAll(server: ServiceTable, handlers: KvHandlers): void {
  for (const [, service, impl] of served(handlers)) server.service(service, impl);
}

type Served = readonly [name: string, service: DescService, impl: Partial<ServiceImpl<DescService>>];

/** Services with their handlers; that they belong together is said by the type of `handlers`. */
function served(handlers: KvHandlers): Served[] {
  const byName = handlers as unknown as Record<string, Partial<ServiceImpl<DescService>>>;
  return Object.entries(KV_SERVICES).map(([name, service]) => [name, service, byName[name]!]);
}
