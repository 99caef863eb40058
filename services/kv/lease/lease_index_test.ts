import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { LeaseIndex } from "./lease_index.ts";

Deno.test("LeaseIndex finds exactly the ids that were added and not removed, over growth and reuse of slots", () => {
  // Few ids, so that many are removed and come again, and negative and large ones among them.
  const anId = fc.oneof(fc.bigInt(1n, 40n), fc.bigInt(-3n, -1n), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n));
  fc.assert(fc.property(
    fc.array(fc.tuple(fc.boolean(), anId), { maxLength: 400 }),
    fc.integer(),
    (steps, seed) => {
      const index = new LeaseIndex(seed);
      const slots = new Map<bigint, number>();
      for (const [isAdded, id] of steps) {
        const slot = index.find(id);
        assertEquals(slot, slots.get(id) ?? -1);
        if (isAdded && slot < 0) slots.set(id, index.add(id));
        if (!isAdded && slot >= 0) {
          index.remove(slot);
          slots.delete(id);
        }
      }
      assertEquals(index.size, slots.size);
      for (const [id, slot] of slots) {
        assertEquals([index.find(id), index.idOf(slot), index.isTaken(slot)], [slot, id, true]);
      }
    },
  ));
});

Deno.test("LeaseIndex keeps 100,000 ids apart, also when they differ in the upper half only", () => {
  const index = new LeaseIndex(7);
  const slots = Array.from(
    { length: 50_000 },
    (_, i) => [index.add(BigInt(i)), index.add(BigInt(i + 1) << 32n)],
  );
  assertEquals(index.size, 100_000);
  for (const [i, [low, high]] of slots.entries()) {
    assertEquals([index.find(BigInt(i)), index.find(BigInt(i + 1) << 32n)], [low, high]);
  }
});
