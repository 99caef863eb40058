import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { createPrng } from "../../../storage/testing/fault_fs.ts";
import { Arena, storedBytes } from "./arena.ts";

const aLength = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.integer({ min: 0, max: 70_000 }),
  fc.constantFrom(65_535, 65_536, 65_537, 1_500_000),
);

Deno.test("Arena keeps every value apart while others come and go", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(aLength, fc.nat(255), fc.boolean()), { maxLength: 120, size: "max" }),
      (steps) => {
        const arena = new Arena();
        const held: { address: number; length: number; fill: number }[] = [];
        for (const [length, fill, release] of steps) {
          held.push({ address: arena.store(new Uint8Array(length).fill(fill)), length, fill });
          if (!release) continue;
          const gone = held.splice(length % held.length, 1)[0]!;
          arena.free(gone.address, gone.length);
        }
        for (const { address, length, fill } of held) {
          const value = arena.copy(address, length);
          assert(value.length === length && value.every((byte) => byte === fill));
        }
        assertEquals(arena.usedBytes, held.reduce((sum, { length }) => sum + storedBytes(length), 0));
        for (const { address, length } of held) arena.free(address, length);
        assertEquals(arena.usedBytes, 0);
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("Arena gives slabs back to the system when their values are gone", () => {
  const arena = new Arena();
  const addresses = Array.from({ length: 50_000 }, () => arena.store(new Uint8Array(100)));
  const full = arena.reservedBytes;
  assert(full >= 5_000_000, `${full}`);
  for (const address of addresses) arena.free(address, 100);
  assert(arena.reservedBytes <= 2 * 1_048_576, `${arena.reservedBytes} bytes are still reserved`);
});

Deno.test("storedBytes() wastes at most a fifth above 256 bytes and 15 bytes below", () => {
  for (let length = 1; length <= 65_536; length++) {
    const waste = storedBytes(length) - length;
    assert(waste >= 0 && waste <= Math.max(15, storedBytes(length) / 5), `${length}: ${waste}`);
  }
});

Deno.test("Arena.closeSparse() lets values move together, and their slabs go", () => {
  const random = createPrng(3);
  const arena = new Arena();
  const values = new Map<number, { address: number; bytes: Uint8Array }>();
  for (let i = 0; i < 200_000; i++) {
    const bytes = new Uint8Array(i % 5_000 === 0 ? 200_000 : 1 + random() * 300).fill(i);
    values.set(i, { address: arena.store(bytes), bytes });
  }
  for (const [i, { address, bytes }] of values) {
    if (random() < 0.1) continue;
    arena.free(address, bytes.length);
    values.delete(i);
  }
  const { usedBytes, reservedBytes } = arena;
  arena.closeSparse();
  for (const [i, value] of values) {
    value.address = arena.relocate(value.address, value.bytes.length);
    // Values come and go meanwhile.
    if (i % 7 === 0) {
      arena.free(value.address, value.bytes.length);
      value.address = arena.store(value.bytes);
    }
  }
  for (const { address, bytes } of values.values()) assertEquals(arena.copy(address, bytes.length), bytes);
  assertEquals(arena.usedBytes, usedBytes);
  assert(arena.reservedBytes < reservedBytes * 0.7, `${arena.reservedBytes} of ${reservedBytes}`);
  arena.closeSparse();
  for (const { address, bytes } of values.values()) {
    arena.free(arena.relocate(address, bytes.length), bytes.length);
  }
  assertEquals(arena.usedBytes, 0);
});
