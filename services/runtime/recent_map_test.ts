import { assert, assertEquals, assertThrows } from "@std/assert";
import { RecentMap } from "./recent_map.ts";

Deno.test("RecentMap keeps what is used and lets go of the rest, within its bound", () => {
  const map = new RecentMap<number, string>(4);
  for (let i = 0; i < 100; i++) {
    map.set(i, `v${i}`);
    assertEquals(map.get(0), "v0");
    assert(map.size <= 8);
  }
  assertEquals(map.get(1), undefined);
  assertEquals(map.get(99), "v99");
  map.set(99, "new");
  assertEquals(map.get(99), "new");
  map.clear();
  assertEquals([map.size, map.get(0)], [0, undefined]);
});

Deno.test("RecentMap refuses to hold nothing", () => {
  assertThrows(() => new RecentMap(0), RangeError);
});
