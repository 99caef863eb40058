import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { Arena } from "./arena.ts";
import { compareBytes, toBinaryString } from "../key.ts";
import { KeyIndex } from "./key_index.ts";

/** A key for a number; neighbours share prefixes and lengths vary. */
function keyOf(n: number): Uint8Array {
  return new TextEncoder().encode(`k/${n % 97}/${n}`.padEnd(4 + (n % 13), "x"));
}

Deno.test("KeyIndex finds, orders and counts keys while thousands come and go", () => {
  fc.assert(
    fc.property(fc.integer(), fc.nat(1_000_000), (seed, start) => {
      const index = new KeyIndex(new Arena(), seed);
      const ids = new Map<string, number>();
      const keys: Uint8Array[] = [];
      const dead = new Set<string>();
      for (let i = 0; i < 4_000; i++) {
        // Some keys come while order is deferred, with removals among them or not.
        if (i % 1_000 === 0) index.deferOrder(i % 2_000 === 0);
        // 7,919 is prime, so the order of insertion is scattered; every third key goes again.
        const key = keyOf((start + i * 7_919) % 20_011);
        const name = toBinaryString(key);
        if (ids.has(name)) continue;
        const live = i % 5 !== 0;
        ids.set(name, index.insert(key, live));
        if (!live) dead.add(name);
        keys.push(key);
        if (i % 3 === 0 && i > 1_500) {
          const gone = keys.splice((i * 31) % keys.length, 1)[0]!;
          index.remove(ids.get(toBinaryString(gone))!);
          ids.delete(toBinaryString(gone));
          dead.delete(toBinaryString(gone));
        }
      }
      index.deferOrder(false);
      keys.sort(compareBytes);
      const walked: number[] = [];
      index.walk(0, index.endPosition, (id) => walked.push(id) > 0);
      assertEquals(walked, keys.map((key) => ids.get(toBinaryString(key))!));
      assertEquals(index.size, keys.length);
      assertEquals(index.live, keys.length - dead.size);
      for (const key of keys) assertEquals(index.find(key), ids.get(toBinaryString(key)));
      assertEquals(index.find(keyOf(20_012)), -1);
      const low = keys[Math.floor(keys.length / 4)]!;
      const high = keys[Math.floor(keys.length / 1.5)]!;
      const [from, to] = [index.lowerBound(low), index.lowerBound(high)];
      const inside = keys.filter((key) => compareBytes(key, low) >= 0 && compareBytes(key, high) < 0);
      const ranged: number[] = [];
      index.walk(from, to, (id) => ranged.push(id) > 0);
      assertEquals(ranged, inside.map((key) => ids.get(toBinaryString(key))!));
      assertEquals(
        index.countLive(from, to),
        inside.filter((key) => !dead.has(toBinaryString(key))).length,
      );
      for (const key of keys) index.remove(ids.get(toBinaryString(key))!);
      assertEquals([index.size, index.live, index.endPosition], [0, 0, 0]);
    }),
    { numRuns: 15 },
  );
});

Deno.test("KeyIndex orders keys that are beginnings of one another, however deep", () => {
  const index = new KeyIndex(new Arena(), 1);
  index.deferOrder(true);
  const ids: number[] = [];
  for (let length = 2_000; length > 0; length--) {
    ids.unshift(index.insert(new Uint8Array(length).fill(97), length % 2 === 0));
  }
  index.deferOrder(false);
  const walked: number[] = [];
  index.walk(0, index.endPosition, (id) => walked.push(id) > 0);
  assertEquals(walked, ids);
  assertEquals(index.countLive(0, index.endPosition), 1_000);
});
