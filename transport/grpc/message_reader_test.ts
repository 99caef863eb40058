import { Code } from "@connectrpc/connect";
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { MessageReader, prefixOf } from "./message_reader.ts";

Deno.test("MessageReader cuts messages behind their prefixes, wherever chunks are cut", () => {
  fc.assert(fc.property(
    fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 }),
    fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 20 }),
    (messages, cuts) => {
      const all = Uint8Array.from(messages.flatMap((message) => [...prefixOf(message), ...message]));
      const reader = new MessageReader(300);
      const read: Uint8Array[] = [];
      for (let at = 0, i = 0; at < all.length; i++) {
        const end = Math.min(all.length, at + cuts[i % cuts.length]!);
        reader.push(all.slice(at, end));
        for (let next = reader.next(); next !== undefined; next = reader.next()) read.push(next.slice());
        at = end;
      }
      assertEquals([read, reader.isPartial, reader.violation], [messages, false, undefined]);
    },
  ));
});

Deno.test("MessageReader refuses large, compressed and malformed messages in gRPC's words", () => {
  const cases: [bytes: number[], encoding: string | undefined, code: Code, message: string][] = [
    [
      [0, 0, 0, 0, 101],
      undefined,
      Code.ResourceExhausted,
      "grpc: received message larger than max (101 vs. 100)",
    ],
    [
      [0, 255, 255, 255, 255],
      undefined,
      Code.ResourceExhausted,
      "grpc: received message larger than max (4294967295 vs. 100)",
    ],
    [[1, 0, 0, 0, 1], undefined, Code.Internal, "grpc: compressed flag set with identity or empty encoding"],
    [
      [1, 0, 0, 0, 1],
      "gzip",
      Code.Unimplemented,
      'grpc: Decompressor is not installed for grpc-encoding "gzip"',
    ],
    [[7, 0, 0, 0, 1], undefined, Code.Internal, "grpc: received unexpected payload format 7"],
  ];
  for (const [bytes, encoding, code, message] of cases) {
    const reader = new MessageReader(100, encoding);
    reader.push(Uint8Array.from(bytes));
    assertEquals([reader.next(), reader.violation], [undefined, { code, message }]);
    reader.push(new Uint8Array(200));
    assertEquals([reader.next(), reader.isPartial], [undefined, false]);
  }
});
