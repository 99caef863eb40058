import { assert, assertEquals } from "@std/assert";
import { latin1 } from "./args.ts";
import { literalPrefix, matchesGlob } from "./glob.ts";
import { textBytes } from "./reply.ts";

Deno.test("matchesGlob() matches as Redis does", () => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ["*", "abc", true],
    ["a*c", "abbc", true],
    ["a*c", "abb", false],
    ["h?llo", "hello", true],
    ["h?llo", "hllo", false],
    ["h[ae]llo", "hallo", true],
    ["h[^e]llo", "hello", false],
    ["h[a-c]llo", "hbllo", true],
    ["h[c-a]llo", "hbllo", true],
    ["h\\*llo", "h*llo", true],
    ["h\\*llo", "hello", false],
    ["[\\]]", "]", true],
    ["[ab", "a", true],
    ["*x*", "abxab", true],
    ["a", "ab", false],
    ["", "", true],
    ["**", "", false],
  ];
  for (const [pattern, text, expected] of cases) {
    assertEquals(matchesGlob(textBytes(pattern), textBytes(text)), expected, `${pattern} ${text}`);
  }
});

Deno.test("matchesGlob() is not led into exponential work by stars", () => {
  assert(!matchesGlob(textBytes("a*".repeat(50) + "b"), textBytes("a".repeat(5_000))));
});

Deno.test("literalPrefix() is what every match begins with", () => {
  assertEquals(
    ["user:*", "a?", "[ab]", "\\a", "whole"].map((text) => latin1(literalPrefix(textBytes(text)))),
    [
      "user:",
      "a",
      "",
      "",
      "whole",
    ],
  );
});
