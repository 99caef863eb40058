/** A key at a revision, as etcd's messages have it. */
import type { KeyValue as KeyValueMessage } from "$proto/mvccpb/kv_pb.ts";
import type { KeyValue } from "./mvcc.ts";

/** The message of `kv`: a plain literal, which serialises as it is. */
export function keyValueMessage(kv: KeyValue): KeyValueMessage {
  return {
    $typeName: "mvccpb.KeyValue",
    key: kv.key,
    createRevision: BigInt(kv.createRevision),
    modRevision: BigInt(kv.modRevision),
    version: BigInt(kv.version),
    value: kv.value,
    lease: kv.lease,
  };
}
