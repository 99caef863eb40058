import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
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
