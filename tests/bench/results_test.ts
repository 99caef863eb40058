import { assertEquals } from "@std/assert";
import { readResults, renderResults, type Section } from "./results.ts";

const section = (path: string, value: number): Section => ({
  path,
  machine: "2 cores",
  date: "2026-01-02",
  rows: [{
    name: "a|b",
    value,
    unit: "µs",
    spread: [1, 200],
    against: { name: "floor", value: 2 },
    ratio: value / 2,
    bar: "<= 2x",
    pass: value <= 4,
  }],
  notes: value > 4 ? ["The disk limits it."] : [],
});

Deno.test("renderResults() replaces the sections that ran and keeps the others", () => {
  const first = renderResults(["x/a.ts", "y/b.ts"], new Map(), [section("x/a.ts", 3), section("y/b.ts", 5)]);
  const second = renderResults(["x/a.ts", "y/b.ts"], readResults(first), [section("y/b.ts", 4)]);
  assertEquals(readResults(second).get("x/a.ts"), readResults(first).get("x/a.ts"));
  assertEquals(second.includes("| a\\|b | 4 µs | 1 … 200 | floor: 2 µs | 2.00 | <= 2x | yes |"), true);
  assertEquals(second.includes("| a\\|b | 5 µs"), false);
});

Deno.test("renderResults() marks a bar that was not met", () => {
  assertEquals(
    renderResults(["x/a.ts"], new Map(), [section("x/a.ts", 5)]).includes("| <= 2x | **no** |"),
    true,
  );
});

Deno.test("renderResults() puts notes under the table, and keeps them with their section", () => {
  const first = renderResults(["x/a.ts", "y/b.ts"], new Map(), [section("x/a.ts", 5), section("y/b.ts", 1)]);
  const second = renderResults(["x/a.ts", "y/b.ts"], readResults(first), [section("y/b.ts", 2)]);
  assertEquals(second.includes("**no** |\n\nThe disk limits it.\n\n## `y/b.ts`"), true);
});
