/** What may differ between AetherFlow and etcd 3.4, and why; all else is equal, field by field. README.md says it in words. */
import type { RangeRequest, RequestOp, TxnRequest } from "$proto/etcdserverpb/rpc_pb.ts";
import { RangeRequest_SortTarget } from "$proto/etcdserverpb/rpc_pb.ts";

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
    what: "how events are grouped into watch answers, and the revisions in the headers of those",
    why: "both gather what is there when they send",
    treatment: "each watcher's events are compared one by one; grouping is checked against etcd's promises",
  },
];

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
