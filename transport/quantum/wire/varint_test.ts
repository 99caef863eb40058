import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { varintBytes, VarintReader, writeVarint } from "./varint.ts";

// The first four are the examples of RFC 9000 §A.1.
const GOLDEN: readonly (readonly [number, string])[] = [
  [37, "25"],
  [15_293, "7bbd"],
  [494_878_333, "9d7f3e7d"],
  [0, "00"],
  [63, "3f"],
  [64, "4040"],
  [16_383, "7fff"],
  [16_384, "80004000"],
  [2 ** 30 - 1, "bfffffff"],
  [2 ** 30, "c000000040000000"],
  [2 ** 53 - 1, "c01fffffffffffff"],
];

function read(bytes: Uint8Array): VarintReader & { value: number } {
  const reader = new VarintReader();
  reader.reset(bytes, 0, bytes.length);
  return Object.assign(reader, { value: reader.varint() });
}

Deno.test("writeVarint() makes the golden bytes, and VarintReader.varint() reads them", () => {
  for (const [value, hex] of GOLDEN) {
    const bytes = new Uint8Array(varintBytes(value));
    assertEquals(writeVarint(bytes, 0, value), bytes.length);
    assertEquals(bytes.toHex(), hex);
    const reader = read(bytes);
    assertEquals([reader.value, reader.failed, reader.at], [value, false, bytes.length]);
  }
});

Deno.test("VarintReader.varint() reads back any integer that is safe", () => {
  fc.assert(fc.property(fc.maxSafeNat(), (value) => {
    const bytes = new Uint8Array(varintBytes(value));
    writeVarint(bytes, 0, value);
    assertEquals(read(bytes).value, value);
  }));
});

Deno.test("VarintReader.varint() fails on a value cut short and on one above 2^53 - 1", () => {
  for (const hex of ["", "40", "80ffff", "c0000000000000", "c020000000000000", "ffffffffffffffff"]) {
    assertEquals(read(Uint8Array.fromHex(hex)).failed, true, hex);
  }
});

Deno.test("VarintReader.skip() fails past the end and stays there", () => {
  const reader = read(Uint8Array.of(1, 2, 3));
  assertEquals(reader.skip(2), 1);
  assertEquals(reader.skip(1), 3);
  assertEquals([reader.failed, reader.varint(), reader.failed], [true, 0, true]);
});
