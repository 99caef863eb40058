import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { TextDelta } from "./delta.ts";
import { diffTexts } from "./text_diff.ts";

function applied(text: string, delta: TextDelta): string {
  let at = 0;
  let result = "";
  for (const step of delta) {
    if ("keep" in step) result += text.slice(at, at += step.keep);
    else if ("remove" in step) at += step.remove;
    else if ("insert" in step) result += step.insert;
  }
  return result + text.slice(at);
}

const CASES: [string, string, TextDelta][] = [
  ["", "", []],
  ["", "ab", [{ insert: "ab" }]],
  ["ab", "", [{ remove: 2 }]],
  ["the quick fox", "the slow fox", [{ keep: 4 }, { remove: 5 }, { insert: "slow" }]],
  ["abcabc", "abcXabc", [{ keep: 3 }, { insert: "X" }]],
  // Both are surrogate pairs with the same first half: it is not kept.
  ["a😀b", "a😁b", [{ keep: 1 }, { remove: 2 }, { insert: "😁" }]],
  ["a1b2c", "a3b4c", [{ keep: 1 }, { remove: 1 }, { insert: "3" }, { keep: 1 }, { remove: 1 }, {
    insert: "4",
  }]],
];

for (const [before, after, delta] of CASES) {
  Deno.test(`diffTexts() makes ${JSON.stringify(after)} of ${JSON.stringify(before)} by the least edit`, () => {
    assertEquals(diffTexts(before, after), delta);
  });
}

Deno.test("diffTexts() leads from any text to any other, and keeps what both have at the ends", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", "\n", "😀", "é"), maxLength: 40 });
  fc.assert(fc.property(text, text, (before, after) => {
    assertEquals(applied(before, diffTexts(before, after)), after);
  }));
});

Deno.test("diffTexts() of long texts that differ everywhere ends soon, and keeps lines that both have", () => {
  const before = Array.from({ length: 20_000 }, (_, i) => `line ${i} of the text\n`).join("");
  const after = before.replaceAll("line 7000 of", "LINE seven thousand, of").toUpperCase();
  const start = performance.now();
  assertEquals(applied(before, diffTexts(before, after)), after);
  assert(performance.now() - start < 5_000);
  const edited = before.replace("line 10 of", "x".repeat(400)).replace("line 19000 of", "y".repeat(400));
  const delta = diffTexts(before, edited);
  assertEquals(applied(before, delta), edited);
  const inserted = delta.reduce((sum, step) => sum + ("insert" in step ? step.insert.length : 0), 0);
  assert(inserted < 1_000, `${inserted} are inserted`);
});
