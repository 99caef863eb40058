import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { IntervalTree } from "./interval_tree.ts";

const aBound = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 3 }).map((chars) =>
  chars.join("")
);
const aRange = fc.tuple(aBound, fc.option(aBound, { nil: undefined }));

Deno.test("IntervalTree.cover() finds exactly the ranges that hold the key", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(aRange, fc.boolean()), { maxLength: 80, size: "max" }),
      fc.array(aBound, { minLength: 1, maxLength: 10 }),
      (steps, keys) => {
        const tree = new IntervalTree<number>();
        const held = new Map<number, readonly [string, string | undefined]>();
        steps.forEach(([range, release], member) => {
          tree.add(...range, member);
          held.set(member, range);
          if (!release) return;
          const [gone, [start, end]] = [...held][member % held.size]!;
          tree.remove(start, end, gone);
          held.delete(gone);
        });
        for (const key of keys) {
          const found: number[] = [];
          tree.cover(key, (member) => found.push(member));
          const expected = [...held]
            .filter(([, [start, end]]) => key >= start && (end === undefined || key < end))
            .map(([member]) => member);
          assertEquals(found.sort((a, b) => a - b), expected);
        }
        for (const [member, [start, end]] of held) tree.remove(start, end, member);
        assertEquals(tree.isEmpty, true);
      },
    ),
    { numRuns: 200 },
  );
});
