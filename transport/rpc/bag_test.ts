import { assertEquals } from "@std/assert";
import { Bag } from "./bag.ts";

Deno.test("Bag holds what was put in and not taken out", () => {
  const bag = new Bag<{ bagIndex: number; name: string }>();
  const [a, b, c] = ["a", "b", "c"].map((name) => ({ bagIndex: -1, name }));
  for (const entry of [a!, b!, c!]) bag.add(entry);
  bag.delete(a!);
  bag.delete(a!);
  assertEquals(bag.snapshot().map(({ name }) => name).toSorted(), ["b", "c"]);
  bag.delete(c!);
  bag.add(a!);
  assertEquals([bag.size, ...bag.snapshot().map(({ name }) => name).toSorted()], [2, "a", "b"]);
});
