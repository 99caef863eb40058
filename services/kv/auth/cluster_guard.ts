/** The guard in front of an existing etcd cluster, whose users only the cluster knows: it keeps members within their grants
 *  and nobody out. Whoever is not restricted is the cluster's to judge, as it was. */
import type { DescService } from "@bufbuild/protobuf";
import { Watch, type WatchRequest } from "$proto/etcdserverpb/rpc_pb.ts";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Caller, KvBackend } from "../api.ts";
import { rangeOf } from "../key.ts";
import { mapped } from "../rpc_errors.ts";
import { AuthStore } from "./auth.ts";
import { type Call, Guard, type GuardedCaller, type LeaseKeys } from "./guard.ts";
import { GuardedBackend } from "./guarded_api.ts";
import { type TokenLimits, Tokens } from "./tokens.ts";

/** Which keys a lease has, only the cluster knows: what may touch any key takes a right to all. */
const UNKNOWN_LEASES: LeaseKeys = {
  keysOf: () => undefined,
  ids: () => [0n],
};

/** What a guard for a cluster takes. */
export interface ClusterGuardDeps {
  /** Of tokens, which are never made here. */
  readonly limits: TokenLimits;
  readonly random: { fill(target: Uint8Array): Uint8Array };
  readonly clock: { now(): number };
}

/** The guard. */
export function createClusterGuard({ limits, random, clock }: ClusterGuardDeps): Guard {
  const auth = new AuthStore();
  return new Guard({ auth, tokens: new Tokens(auth, limits, random, clock), leases: UNKNOWN_LEASES });
}

/** The handlers of one service of the cluster with every method checked. */
export function guardCluster(
  guard: Guard,
  service: DescService,
  impl: Partial<ServiceImpl<DescService>>,
): Partial<ServiceImpl<DescService>> {
  const checked = guard.wrap(service, impl);
  if (service.typeName !== Watch.typeName) return checked;
  const { watch } = impl as unknown as { watch: WatchHandler };
  return {
    watch: (requests: AsyncIterable<WatchRequest>, context: HandlerContext) =>
      watch(checkedWatches(guard, requests, context), context),
  } as unknown as Partial<ServiceImpl<DescService>>;
}

type WatchHandler = (
  requests: AsyncIterable<WatchRequest>,
  context: HandlerContext,
) => AsyncIterable<unknown>;

/** A watch that may not be ends the stream: the cluster numbers the answers of the others. */
async function* checkedWatches(guard: Guard, requests: AsyncIterable<WatchRequest>, context: HandlerContext) {
  const permit = guard.permitOf(context);
  for await (const request of requests) {
    const { requestUnion } = request;
    if (permit.isChecked && requestUnion.case === "createRequest") {
      const { value } = requestUnion;
      mapped(() => permit.watch(value.key, rangeOf(value.key, value.rangeEnd)));
      permit.narrow(value);
    }
    yield request;
  }
}

/** The cluster as REST and Redis use it, checked. */
export class ClusterBackend extends GuardedBackend {
  constructor(inner: KvBackend, guard: Guard) {
    super(inner, guard, inner);
  }

  override callerOf(call: Call): GuardedCaller {
    const rights = this.guard.rights.of(call.requestHeader);
    return rights === undefined ? this.inner.callerOf(call) as Caller : { user: undefined, rights };
  }
}
