import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { rangeOf } from "../key.ts";
import { KeySpans, spanOf } from "./permissions.ts";
import { aKey, someKeys } from "../testing/arbitraries.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const span = (key: string, end = "") => spanOf(bytes(key), rangeOf(bytes(key), bytes(end)));

Deno.test("KeySpans.covers() answers for unions, edges, single keys and ranges without an end", () => {
  const cases: [granted: [string, string?][], asked: [string, string?], covered: boolean][] = [
    [[["a"]], ["a"], true],
    [[["a"]], ["a", "b"], false],
    [[["a"]], ["a", "a\0"], true],
    [[["a"]], ["a", "\0"], false],
    [[["a"]], ["a\0"], false],
    [[["a", "c"]], ["b", "c"], true],
    [[["a", "c"]], ["c"], false],
    [[["a", "c"]], ["a", "c\0"], false],
    [[["a", "b"], ["b", "c"]], ["a", "c"], true],
    [[["a", "b"], ["b"], ["b\0", "c"]], ["a", "c"], true],
    [[["a", "b"], ["bb", "c"]], ["a", "c"], false],
    [[["a", "z"], ["b", "c"]], ["y"], true],
    [[["b", "\0"]], ["c", "\0"], true],
    [[["b", "\0"]], ["b"], true],
    [[["b", "\0"]], ["a", "\0"], false],
    [[["b", "\0"], ["a", "b"]], ["a", "\0"], true],
    [[["\0", "\0"]], ["\0", "\0"], true],
    [[["\0", "\0"]], ["x"], true],
    [[["b", "a"]], ["b"], false],
    [[["b", "b"]], ["b"], false],
    [[], ["a"], false],
    // Ranges that hold no key, as etcd answers for them.
    [[["a", "z"]], ["c", "b"], true],
    [[["b", "z"]], ["c", "b"], false],
    [[["a", "b"]], ["c", "b"], false],
  ];
  for (const [granted, asked, covered] of cases) {
    const spans = new KeySpans(granted.map(([key, end]) => span(key, end)));
    assertEquals(spans.covers(span(...asked)), covered, JSON.stringify([granted, asked]));
  }
});

Deno.test("an empty prefix asks for every key there is", () => {
  const all = spanOf(new Uint8Array(0), { start: new Uint8Array(0), end: undefined });
  assertEquals(new KeySpans([span("\0", "\0")]).covers(all), true);
  assertEquals(new KeySpans([span("\x01", "\0")]).covers(all), false);
});

Deno.test("KeySpans agrees with asking key by key", () => {
  // All keys of up to four bytes out of those that the ranges are made of: enough to tell any two ranges apart.
  const alphabet = ["\0", "a", "b", "\xff"];
  const universe: string[] = [];
  const grow = (head: string) => {
    if (head !== "") universe.push(head);
    if (head.length < 4) { for (const next of alphabet) grow(head + next); }
  };
  grow("");
  const within = ([start, end]: readonly [string, string | undefined], key: string) =>
    start <= key && (end === undefined || key < end);
  fc.assert(
    fc.property(fc.array(someKeys, { maxLength: 6 }), someKeys, aKey, (granted, asked, key) => {
      const ranges = granted.map((keys) => spanOf(keys.key, keys.range));
      const spans = new KeySpans(ranges);
      const wanted = spanOf(asked.key, asked.range);
      const inside = universe.filter((candidate) => within(wanted, candidate));
      const isCovered = inside.every((candidate) => ranges.some((range) => within(range, candidate)));
      if (inside.length > 0) assertEquals(spans.covers(wanted), isCovered);
      // And never more than that: whatever is asked, nothing outside of what was granted is covered.
      if (spans.covers(wanted)) assertEquals(isCovered, true);
      const one = spanOf(key, "single");
      assertEquals(spans.covers(one), ranges.some((range) => within(range, one[0])));
    }),
    { numRuns: 500 },
  );
});
