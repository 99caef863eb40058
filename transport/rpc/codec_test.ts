import { create, type DescMessage, fromBinary, ScalarType, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { assertEquals, assertThrows } from "@std/assert";
import {
  PutRequestSchema,
  RangeResponseSchema,
  TxnRequestSchema,
  WatchRequestSchema,
  WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import {
  EntrySchema,
  ListResponseSchema,
  PutRequestSchema as PutOnceSchema,
} from "$proto/aetherflow/kv/v1/kv_pb.ts";
import fc from "fast-check";
import { MessageEncoder } from "./codec.ts";
import { FrameWriter } from "./frame.ts";

const encoder = new MessageEncoder();

function encode(desc: DescMessage, message: object): Uint8Array {
  const writer = new FrameWriter();
  encoder.write(writer, desc, message);
  return writer.take();
}

/** Init objects of a message type, from its descriptor. */
function inits(desc: DescMessage, depth: number): fc.Arbitrary<Record<string, unknown>> {
  const members: Record<string, fc.Arbitrary<unknown>> = {};
  for (const member of desc.members) {
    if (member.kind === "oneof") {
      const cases = member.fields.filter((field) => depth > 0 || field.message === undefined);
      members[member.localName] = fc.option(
        fc.oneof(
          ...cases.map((field) =>
            value(field.message, field.enum !== undefined ? ScalarType.INT32 : field.scalar, depth)
              .map((value) => ({ case: field.localName, value }))
          ),
          fc.constant({ case: undefined }),
        ),
        { nil: undefined },
      );
    } else {
      if (depth === 0 && member.message !== undefined) continue;
      const one = value(member.message, member.enum !== undefined ? ScalarType.INT32 : member.scalar, depth);
      members[member.localName] = member.fieldKind === "list" ? fc.array(one, { maxLength: 4 }) : one;
    }
  }
  return fc.record(members, { requiredKeys: [] });
}

function value(
  message: DescMessage | undefined,
  scalar: ScalarType | undefined,
  depth: number,
): fc.Arbitrary<unknown> {
  if (message !== undefined) return inits(message, depth - 1);
  switch (scalar) {
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.INT32:
      return fc.oneof(fc.integer(), fc.constantFrom(0, 1, 127, 128, -1, -0x8000_0000, 0x7fff_ffff));
    case ScalarType.UINT32:
      return fc.nat(0xffff_ffff);
    case ScalarType.INT64:
      return fc.oneof(
        fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        fc.constantFrom(0n, 127n, 128n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, -1n),
      );
    case ScalarType.UINT64:
      return fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat().map(BigInt));
    case ScalarType.STRING:
      return fc.string({ unit: "binary", maxLength: 100 });
    default:
      return fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat(255), { maxLength: 9 }));
  }
}

for (
  const desc of [
    PutRequestSchema,
    RangeResponseSchema,
    WatchRequestSchema,
    WatchResponseSchema,
    TxnRequestSchema,
    EntrySchema,
    ListResponseSchema,
    PutOnceSchema,
  ] as DescMessage[]
) {
  Deno.test(`MessageEncoder writes ${desc.typeName} as toBinary does`, () => {
    fc.assert(
      fc.property(inits(desc, 2), (init) => {
        const message = create(desc, init);
        const expected = toBinary(desc, message);
        assertEquals(encode(desc, init), expected);
        assertEquals(encode(desc, message), expected);
      }),
      { numRuns: 120 },
    );
  });
}

Deno.test("MessageEncoder leaves messages it does not cover to toBinary", () => {
  const time = create(TimestampSchema, { seconds: -5n, nanos: 7 });
  assertEquals(encode(TimestampSchema, time), toBinary(TimestampSchema, time));
  const file = create(FileDescriptorProtoSchema, { name: "a.proto", messageType: [{ name: "A" }] });
  assertEquals(encode(FileDescriptorProtoSchema, file), toBinary(FileDescriptorProtoSchema, file));
});

Deno.test("MessageEncoder keeps fields it does not know", () => {
  const bytes = Uint8Array.of(10, 1, 65, 0xf8, 7, 42);
  const message = fromBinary(PutRequestSchema, bytes);
  assertEquals(encode(PutRequestSchema, message), toBinary(PutRequestSchema, message));
});

Deno.test("MessageEncoder refuses values a field cannot hold", () => {
  const cases: [DescMessage, object][] = [
    [PutRequestSchema, { key: "text" }],
    [PutRequestSchema, { lease: 2n ** 63n }],
    [PutRequestSchema, { lease: 1.5 }],
    [PutRequestSchema, { lease: "many" }],
    [PutRequestSchema, { prevKv: 1 }],
    [EntrySchema, { keyText: "\ud800" }],
    [EntrySchema, { keyText: 5 }],
    [EntrySchema, create(PutRequestSchema)],
    [ListResponseSchema, { nextPageToken: 5 }],
  ];
  for (const [desc, message] of cases) assertThrows(() => encode(desc, message));
});
