/** Messages as plain text, without what may differ between servers (see differences.ts): equal text is an equal answer. */
import type { LeaseTimeToLiveResponse } from "$proto/etcdserverpb/rpc_pb.ts";
import type { Outcome } from "./client.ts";

/** The names a server chose, as both sides call them. */
export interface Names {
  /** The number that stands for a lease id the server chose; undefined for any other number. */
  leaseName(id: bigint): bigint | undefined;
}

/** Fields that say nothing about equality, by message. */
const LEFT_OUT: Readonly<Record<string, readonly string[]>> = {
  "etcdserverpb.ResponseHeader": ["clusterId", "memberId", "raftTerm"],
  "etcdserverpb.StatusResponse": [
    "version",
    "dbSize",
    "dbSizeInUse",
    "dbSizeQuota",
    "storageVersion",
    "downgradeInfo",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
  ],
  "etcdserverpb.HashKVResponse": ["hashRevision"],
  "etcdserverpb.Member": ["ID", "name", "peerURLs", "clientURLs"],
  "etcdserverpb.AuthenticateResponse": ["token"],
};

/** Lists whose order etcd leaves open, by message. */
const OPEN_ORDER: Readonly<Record<string, readonly string[]>> = {
  "etcdserverpb.LeaseLeasesResponse": ["leases"],
  "etcdserverpb.LeaseTimeToLiveResponse": ["keys"],
};

/** How far the time left may be apart, in seconds. */
const TTL_TOLERANCE_S = 2n;

/** A value of a message as plain data, with what each server chose renamed. */
export function canonical(value: unknown, names: Names): unknown {
  switch (typeof value) {
    case "bigint":
      return String(names.leaseName(value) ?? value);
    case "object":
      break;
    default:
      return value;
  }
  if (value === null) return null;
  if (value instanceof Uint8Array) return String.fromCharCode(...value);
  if (Array.isArray(value)) return value.map((item) => canonical(item, names));
  const type = (value as { $typeName?: string }).$typeName ?? "";
  const leftOut = LEFT_OUT[type] ?? [];
  const result: Record<string, unknown> = {};
  for (const [name, item] of Object.entries(value)) {
    if (item === undefined || name === "$typeName" || leftOut.includes(name)) continue;
    const plain = canonical(item, names);
    result[name] = OPEN_ORDER[type]?.includes(name)
      ? (plain as unknown[]).map((one) => JSON.stringify(one)).sort()
      : plain;
  }
  return result;
}

/** An outcome as text that shows every compared field. */
export function outcomeText(outcome: Outcome<unknown>, names: Names): string {
  if (!outcome.ok) return `error ${outcome.code}: ${outcome.text}`;
  return JSON.stringify(canonical(outcome.message, names));
}

/** Makes the times left of two answers equal if they are about so. */
export function alignTimeLeft(one: Outcome<unknown>, other: Outcome<unknown>): void {
  if (!one.ok || !other.ok || !isTimeToLive(one.message) || !isTimeToLive(other.message)) return;
  const apart = one.message.TTL - other.message.TTL;
  if (apart <= TTL_TOLERANCE_S && apart >= -TTL_TOLERANCE_S) other.message.TTL = one.message.TTL;
}

function isTimeToLive(message: unknown): message is LeaseTimeToLiveResponse {
  return (message as { $typeName?: string } | undefined)?.$typeName ===
    "etcdserverpb.LeaseTimeToLiveResponse";
}
