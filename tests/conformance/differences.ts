/** What may differ between AetherFlow and etcd 3.4, and why; all else is equal, field by field. README.md says it in words. */
import type { RangeRequest, RequestOp, TxnRequest } from "$proto/etcdserverpb/rpc_pb.ts";
import {
  Auth,
  Cluster,
  KV,
  Lease,
  Maintenance,
  RangeRequest_SortTarget,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type { DescMethodUnary } from "@bufbuild/protobuf";
import type { Outcome } from "./client.ts";
import type { Call, Operation } from "./operations.ts";

/** One difference that is meant. */
export interface Difference {
  readonly what: string;
  readonly why: string;
  /** How the comparison treats it. */
  readonly treatment: string;
}

/** Every difference that the comparison lets pass. */
export const INTENDED_DIFFERENCES: readonly Difference[] = [
  {
    what: "cluster_id, member_id, raft_term, raft index, sizes, versions, names and URLs of the member",
    why: "each server has its own",
    treatment: "left out of the comparison",
  },
  {
    what: "lease ids and tokens that a server chose",
    why: "they are random",
    treatment: "each server's own are sent to it; in answers they are numbered in the order given",
  },
  {
    what: "HashKV's hash once a lease id that the server chose is stored",
    why: "the id is part of what is hashed",
    treatment: "compared in the runs without such leases, every second seed",
  },
  {
    what: "time a lease has left",
    why: "the servers were not asked in the same instant",
    treatment: "may differ by 2 s",
  },
  {
    what: "order of the leases in LeaseLeases and of the keys in LeaseTimeToLive",
    why: "etcd leaves it open (it walks a hash table)",
    treatment: "sorted before the comparison",
  },
  {
    what: "order of keys that a sort target other than the key does not tell apart, beyond 12 keys",
    why: "etcd sorts with an algorithm that keeps no order of equals",
    treatment: "only count, more and the sorted values are compared",
  },
  {
    what:
      "a transaction that writes one key twice in a way etcd's check overlooks: a delete range with the end \\0, or " +
      "writes of two nested transactions",
    why: "AetherFlow refuses each key written twice; what etcd then does depends on the order of execution",
    treatment: "such transactions are not sent",
  },
  {
    what: "a range with a sort order or target that there is not, the alarm NONE raised, a permission " +
      "granted without saying which",
    why: "AetherFlow refuses them; etcd 3.4 ends with a panic",
    treatment: "not sent",
  },
  {
    what:
      "compaction to revision 0, and a range at a negative revision in a transaction, on a store never compacted",
    why: "AetherFlow says compacted; etcd takes the first once, and the second until then",
    treatment: "not sent",
  },
  {
    what: "a watch that starts at exactly the revision that history is compacted at",
    why: "both take it; whether it hears of that revision's deletions depends on when compaction has swept",
    treatment: "not sent",
  },
  {
    what: "a watch that starts at a negative revision",
    why: "AetherFlow cancels it as later etcds do; 3.4 begins anywhere and makes other watchers lose events",
    treatment: "not sent",
  },
  {
    what: "a token while authentication is off",
    why: "AetherFlow pays no attention to it, as etcd from 3.5 on; 3.4 refuses wrong ones",
    treatment: "not sent",
  },
  {
    what:
      "who may compact, grant, revoke and list leases, ask for leases, checksums, status and members, enable " +
      "authentication once more, and do what stands in nested transactions",
    why: "AetherFlow asks for rights where 3.4.23 forgot to (several are CVEs, fixed in later etcds)",
    treatment: "what changes something is sent with root's token; of the rest AetherFlow's refusals pass",
  },
  {
    what:
      "the code of a refusal for lack of rights by Lock, and by Maintenance, whose text is `auth: …` in 3.4",
    why:
      "etcd says Unknown, because its error lost the code on the way; AetherFlow says PermissionDenied and the like",
    treatment: "texts are compared",
  },
  {
    what: "a permission for the empty key or for a range that ends before it begins",
    why: "AetherFlow refuses it, as etcd from 3.5 on",
    treatment: "not sent",
  },
  {
    what: "rights under an alarm",
    why: "AetherFlow asks for them as always; 3.4 forgets to",
    treatment: "no alarms while authentication is on",
  },
  {
    what: "transactions while the alarm NOSPACE stands",
    why:
      "AetherFlow looks at the puts that would be made; etcd at those of both branches, but not at nested ones",
    treatment: "transactions with puts are not sent then",
  },
  {
    what: "cancelling a watch that compaction cancelled before, or reusing its id in the stream",
    why: "AetherFlow has forgotten the watch; etcd takes the first and refuses the second",
    treatment: "not sent",
  },
  {
    what: "whether a user without permission may ask for a range that ends before it begins",
    why: "no key is read either way; in etcd it depends on the shape of a tree of permissions",
    treatment: "not sent while authentication is on",
  },
  {
    what: "fields that 3.4 does not have yet: HashKVResponse.hash_revision, and those of StatusResponse",
    why: "AetherFlow answers as newer etcds do",
    treatment: "left out of the comparison",
  },
  {
    what: "how events are grouped into watch answers, and the revisions in the headers of those",
    why: "both gather what is there when they send",
    treatment: "each watcher's events are compared one by one; grouping is checked against etcd's promises",
  },
];

/** Whether 3.4 lets anybody do it, and it changes what is stored or the cluster. */
export function isCheckedByLaterEtcds({ method, request }: Call): boolean {
  if (method === KV.method.txn) return hasNested(request as TxnRequest);
  return UNCHECKED_WRITES.includes(method);
}

/** Whether an answer differs only in that AetherFlow refused what 3.4 lets anybody read, or refused it with a code. */
export function isRefusedByLaterEtcds(
  operation: Operation,
  expected: Outcome<unknown>,
  actual: Outcome<unknown>,
): boolean {
  if (actual.ok || !AUTH_REFUSALS.includes(actual.text)) return false;
  if (!expected.ok) return expected.code === UNKNOWN && refusalText(expected.text) === actual.text;
  return operation.kind === "keepAlive" ||
    (operation.kind === "call" && UNCHECKED_READS.includes(operation.method));
}

/** gRPC's code of errors that have none. */
const UNKNOWN = 2;

/** 3.4 tells some refusals with the words of the package that found them. */
function refusalText(text: string): string {
  return text.replace(/^auth: /, "etcdserver: ");
}

const UNCHECKED_WRITES: readonly DescMethodUnary[] = [
  Auth.method.authEnable,
  KV.method.compact,
  Lease.method.leaseGrant,
  Maintenance.method.alarm,
  Maintenance.method.moveLeader,
  Cluster.method.memberUpdate,
  Cluster.method.memberPromote,
];

const UNCHECKED_READS: readonly DescMethodUnary[] = [
  Lease.method.leaseTimeToLive,
  Lease.method.leaseLeases,
  Maintenance.method.hashKV,
  Maintenance.method.status,
  Cluster.method.memberList,
];

const AUTH_REFUSALS: readonly string[] = [
  "etcdserver: permission denied",
  "etcdserver: user name is empty",
  "etcdserver: invalid auth token",
];

/** Whether etcd judges what a transaction would store otherwise than AetherFlow, which matters under an alarm. */
export function isCountedOtherwise({ method, request }: Call): boolean {
  if (method !== KV.method.txn) return false;
  const { success, failure } = request as TxnRequest;
  const ops = [...success, ...failure];
  if (ops.some(({ request }) => request.case === "requestPut")) return false;
  const writes = ops.some(({ request }) => request.case === "requestDeleteRange");
  return ops.some((op) => writesOf(op).puts.length > 0) || (!writes && hasNested(request as TxnRequest));
}

function hasNested({ success, failure }: TxnRequest): boolean {
  return [...success, ...failure].some(({ request }) => request.case === "requestTxn");
}

/** Sizes up to which Go's sort keeps the order of equals. */
const STABLE_SORT_MAX = 12;

/** Whether the order of the answer is left open by etcd. */
export function hasOpenOrder(request: RangeRequest, count: bigint): boolean {
  return request.sortTarget !== RangeRequest_SortTarget.KEY && count > STABLE_SORT_MAX;
}

/** Whether a transaction may write a key twice without etcd's check seeing it. Errs on the side of yes. */
export function overlookedByEtcd(txn: TxnRequest): boolean {
  const lists = [txn.success, txn.failure];
  return lists.some((list) => mayOverlook(list));
}

function mayOverlook(list: readonly RequestOp[]): boolean {
  const writes = list.map(writesOf);
  const nested = list.map(({ request }) => request.case === "requestTxn");
  for (const [i, one] of writes.entries()) {
    for (const [j, other] of writes.entries()) {
      if (i === j) continue;
      const open = one.deletes.some(({ rangeEnd }) => rangeEnd.length === 1 && rangeEnd[0] === 0);
      if (open && other.puts.length > 0) return true;
      if (nested[i] && nested[j] && one.puts.length > 0 && other.deletes.length > 0) return true;
    }
  }
  return list.some(({ request }) => request.case === "requestTxn" && overlookedByEtcd(request.value));
}

interface Writes {
  readonly puts: Uint8Array[];
  readonly deletes: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array }[];
}

function writesOf({ request }: RequestOp): Writes {
  switch (request.case) {
    case "requestPut":
      return { puts: [request.value.key], deletes: [] };
    case "requestDeleteRange":
      return { puts: [], deletes: [request.value] };
    case "requestTxn": {
      const inner = [...request.value.success, ...request.value.failure].map(writesOf);
      return { puts: inner.flatMap(({ puts }) => puts), deletes: inner.flatMap(({ deletes }) => deletes) };
    }
    default:
      return { puts: [], deletes: [] };
  }
}
