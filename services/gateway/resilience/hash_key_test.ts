import { assertEquals } from "@std/assert";
import { create, toBinary } from "@bufbuild/protobuf";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { KV, RangeRequestSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import fc from "fast-check";
import { hashBytes } from "../balance/hash.ts";
import { hashField, hashOfBytes, hashOfMessage } from "./hash_key.ts";

const key = hashField(KV.method.range, ["document_id", "key"])!;

Deno.test("hashField() takes the first path that the request has as text or bytes", () => {
  assertEquals(hashField(KV.method.range, ["limit", "no_such"]), undefined);
  assertEquals(hashField(KeyValueService.method.get, ["no_such", "key"])?.numbers, [1]);
});

Deno.test("a request has the same hash as a message and in its bytes", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 40 }),
      fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
      fc.uint8Array({ maxLength: 300 }),
      (bytes, limit, rangeEnd) => {
        const message = create(RangeRequestSchema, { key: bytes, limit, revision: limit, rangeEnd });
        const expected = bytes.length === 0 ? undefined : hashBytes(bytes);
        assertEquals(hashOfMessage(key, message), expected);
        assertEquals(hashOfBytes(key, toBinary(RangeRequestSchema, message)), expected);
      },
    ),
  );
});

Deno.test("hashOfBytes() finds no key in bytes that are no message, and never fails", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
    hashOfBytes(key, bytes);
  }));
  assertEquals(hashOfBytes(key, Uint8Array.of(0x0a, 0x05, 0x01)), undefined);
  assertEquals(hashOfBytes(key, Uint8Array.of(0x0b)), undefined);
});
