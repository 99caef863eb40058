/** Named entries of the store (leases, users, alarms) as entries of etcd's buckets, both ways.
 *
 *  A lease of ours may be of milliseconds and belong to one key, which etcd's message cannot say. So the message carries our
 *  own entry as a field that etcd does not know, and steps over. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { RoleSchema, UserSchema } from "$proto/authpb/auth_pb.ts";
import { AlarmMemberSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import { LeaseSchema } from "$proto/leasepb/lease_pb.ts";
import { type BoltEntry, BoltError } from "../../../storage/bolt/mod.ts";
import {
  decodeLeaseEntry,
  encodeLeaseEntry,
  LEASE_PREFIX,
  leaseEntryName,
  leaseIdOf,
} from "../lease/lease_entry.ts";

/** Buckets of an etcd file that hold named entries, in order. */
export const ENTRY_BUCKETS = ["alarm", "auth", "authRoles", "authUsers", "lease"] as const;

/** One of them. */
export type EntryBucket = (typeof ENTRY_BUCKETS)[number];

/** A named entry of the store. */
export interface NamedEntry {
  readonly name: string;
  readonly value: Uint8Array;
}

const ALARM_PREFIX = "alarm/";
const USER_PREFIX = "auth/user/";
const ROLE_PREFIX = "auth/role/";
/** Entries of the bucket `auth` by our names. */
const AUTH_KEYS: Readonly<Record<string, string>> = {
  "auth/enabled": "authEnabled",
  "auth/revision": "authRevision",
};
/** Our entry within a leasepb.Lease, as bytes. */
const LEASE_FIELD = 1_000;
const LENGTH_DELIMITED = 2;
const MS_PER_SECOND = 1_000;
const NO_BYTES = new Uint8Array(0);
const ZERO = Uint8Array.of(0);
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** The store's named entries by bucket, each in key order. What etcd has no place for is left out. */
export function bucketsOfEntries(entries: ReadonlyMap<string, Uint8Array>): Record<EntryBucket, BoltEntry[]> {
  const buckets: Record<EntryBucket, BoltEntry[]> = {
    alarm: [],
    auth: [],
    authRoles: [],
    authUsers: [],
    lease: [],
  };
  for (const [name, value] of entries) {
    const authKey = AUTH_KEYS[name];
    if (authKey !== undefined) buckets.auth.push({ key: encoder.encode(authKey), value });
    else if (name.startsWith(ALARM_PREFIX)) buckets.alarm.push({ key: value, value: NO_BYTES });
    else if (name.startsWith(USER_PREFIX)) buckets.authUsers.push(named(name, USER_PREFIX, value));
    else if (name.startsWith(ROLE_PREFIX)) buckets.authRoles.push(named(name, ROLE_PREFIX, value));
    else if (name.startsWith(LEASE_PREFIX)) buckets.lease.push(leaseEntry(leaseIdOf(name), value));
  }
  for (const bucket of ENTRY_BUCKETS) buckets[bucket].sort((a, b) => compare(a.key, b.key));
  return buckets;
}

/** What an entry of a bucket is in the store; undefined for what the store has no use for.
 *  @throws {BoltError} if it is not what etcd writes there. */
export function entryOf(bucket: EntryBucket, key: Uint8Array, value: Uint8Array): NamedEntry | undefined {
  try {
    switch (bucket) {
      case "alarm":
        fromBinary(AlarmMemberSchema, key);
        return { name: ALARM_PREFIX + hexOf(key), value: key };
      case "auth":
        return authEntry(decoder.decode(key), value);
      case "authRoles":
        fromBinary(RoleSchema, value);
        return { name: ROLE_PREFIX + decoder.decode(key), value };
      case "authUsers":
        fromBinary(UserSchema, value);
        return { name: USER_PREFIX + decoder.decode(key), value };
      case "lease":
        return leaseOf(key, value);
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new BoltError("damaged", `an entry of its bucket ${bucket} cannot be read: ${reason}`);
  }
}

function named(name: string, prefix: string, value: Uint8Array): BoltEntry {
  return { key: encoder.encode(name.slice(prefix.length)), value };
}

function authEntry(key: string, value: Uint8Array): NamedEntry | undefined {
  const name = Object.keys(AUTH_KEYS).find((name) => AUTH_KEYS[name] === key);
  // etcd keeps a zero where there is no entry here.
  if (name === undefined || compare(value, ZERO) === 0) return undefined;
  return { name, value };
}

function leaseEntry(id: bigint, value: Uint8Array): BoltEntry {
  const { ttlMs, remainingMs } = decodeLeaseEntry(value);
  const message = create(LeaseSchema, {
    ID: id,
    TTL: seconds(ttlMs),
    RemainingTTL: remainingMs === undefined ? 0n : seconds(remainingMs),
  });
  // A known length byte suffices: an entry has 17 bytes at most.
  const data = Uint8Array.of(value.length, ...value);
  message.$unknown = [{ no: LEASE_FIELD, wireType: LENGTH_DELIMITED, data }];
  return { key: number64(id), value: toBinary(LeaseSchema, message) };
}

/** Whole seconds, never fewer than the lease has. */
function seconds(ms: number): bigint {
  return BigInt(Math.max(1, Math.ceil(ms / MS_PER_SECOND)));
}

function leaseOf(key: Uint8Array, value: Uint8Array): NamedEntry {
  const message = fromBinary(LeaseSchema, value);
  if (compare(key, number64(message.ID)) !== 0) throw new Error("a lease is under the id of another");
  const name = leaseEntryName(message.ID);
  const own = message.$unknown?.find(({ no }) => no === LEASE_FIELD)?.data.slice(1);
  if (own !== undefined) {
    decodeLeaseEntry(own);
    return { name, value: own };
  }
  return {
    name,
    value: encodeLeaseEntry({
      ttlMs: Number(message.TTL) * MS_PER_SECOND,
      remainingMs: message.RemainingTTL > 0n ? Number(message.RemainingTTL) * MS_PER_SECOND : undefined,
      isOwn: false,
    }),
  };
}

function number64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, value);
  return bytes;
}

function hexOf(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

function compare(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}
