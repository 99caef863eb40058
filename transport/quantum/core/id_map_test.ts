import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { IdMap } from "./id_map.ts";

Deno.test("IdMap is a map, whatever comes and goes", () => {
  const id = fc.oneof(fc.nat(40), fc.nat(100_000), fc.constantFrom(2 ** 32, 2 ** 40 + 1));
  const step = fc.tuple(fc.constantFrom("set", "delete", "get", "clear"), id);
  fc.assert(fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
    const map = new IdMap<string>();
    const model = new Map<number, string>();
    steps.forEach(([what, id], i) => {
      if (what === "set") map.set(id, `v${i}`), model.set(id, `v${i}`);
      else if (what === "delete") assertEquals(map.delete(id), model.delete(id));
      else if (what === "clear" && id % 16 === 0) map.clear(), model.clear();
      assertEquals(map.get(id), model.get(id));
      assertEquals(map.size, model.size);
    });
    assertEquals(map.values().toSorted(), [...model.values()].toSorted());
  }));
});

Deno.test("IdMap finds every id of a full window of both sides while it slides", () => {
  const map = new IdMap<number>();
  const window = 4_096;
  for (let id = 0; id < 8 * window; id++) {
    map.set(id, id);
    if (id >= window) assertEquals(map.delete(id - window), true);
  }
  assertEquals(map.size, window);
  assertEquals(
    map.values().toSorted((a, b) => a - b),
    Array.from({ length: window }, (_, i) => 7 * window + i),
  );
});
