/** etcdserverpb.Lease on the wire. */
import type {
  Lease,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseLeasesResponse,
  LeaseRevokeResponse,
  LeaseTimeToLiveResponse,
  ResponseHeader,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type { ServiceImpl } from "@connectrpc/connect";
import type { LeaseService, LeaseTime } from "./lease_service.ts";
import { mappedAsync } from "../rpc_errors.ts";
import type { KvService } from "../service.ts";

const MS_PER_SECOND = 1_000;

/** `header` makes an answer's header for a revision. */
export function createLeaseHandlers(
  service: KvService,
  leases: LeaseService,
  header: (revision: number) => ResponseHeader,
): ServiceImpl<typeof Lease> {
  return {
    leaseGrant: (request): Promise<LeaseGrantResponse> =>
      mappedAsync(async () => {
        const { id, ttlMs, revision } = await leases.grant(request.ID, request.TTL);
        return {
          $typeName: "etcdserverpb.LeaseGrantResponse",
          header: header(revision),
          ID: id,
          TTL: seconds(ttlMs),
          error: "",
        };
      }),
    leaseRevoke: (request): Promise<LeaseRevokeResponse> =>
      mappedAsync(async () => {
        const revision = await leases.revoke(request.ID);
        return { $typeName: "etcdserverpb.LeaseRevokeResponse", header: header(revision) };
      }),
    leaseKeepAlive: (requests) => keepAlive(service, leases, header, requests),
    leaseTimeToLive: (request): Promise<LeaseTimeToLiveResponse> =>
      mappedAsync(async () => {
        const time = await leases.timeOf(request.ID, request.keys);
        return {
          $typeName: "etcdserverpb.LeaseTimeToLiveResponse",
          header: header(service.revision),
          ID: request.ID,
          TTL: time === undefined ? -1n : remainingSeconds(time),
          grantedTTL: time === undefined ? 0n : seconds(time.ttlMs),
          keys: time === undefined ? [] : [...time.keys],
        };
      }),
    leaseLeases: (): Promise<LeaseLeasesResponse> =>
      mappedAsync(async () => {
        const ids = await leases.list();
        return {
          $typeName: "etcdserverpb.LeaseLeasesResponse",
          header: header(service.revision),
          leases: ids.map((ID) => ({ $typeName: "etcdserverpb.LeaseStatus", ID })),
        };
      }),
  };
}

/** One answer a request, in order. The header is of before the renewal, as etcd has it. */
async function* keepAlive(
  service: KvService,
  leases: LeaseService,
  header: (revision: number) => ResponseHeader,
  requests: AsyncIterable<LeaseKeepAliveRequest>,
): AsyncGenerator<LeaseKeepAliveResponse, void, void> {
  for await (const { ID } of requests) {
    const before = header(service.revision);
    const ttlMs = await mappedAsync(() => leases.renew(ID));
    yield { $typeName: "etcdserverpb.LeaseKeepAliveResponse", header: before, ID, TTL: seconds(ttlMs) };
  }
}

/** Whole seconds; leases of single keys are finer, and are never told shorter than they are. */
function seconds(ms: number): bigint {
  return BigInt(Math.ceil(ms / MS_PER_SECOND));
}

/** etcd cuts the rest of a second off. */
function remainingSeconds({ remainingMs, isOwn }: LeaseTime): bigint {
  const left = Math.max(0, remainingMs) / MS_PER_SECOND;
  return BigInt(isOwn ? Math.ceil(left) : Math.floor(left));
}
