import { assertEquals } from "@std/assert";
import { addExtended, extendedOf, extendedText, integerOf } from "./args.ts";
import { textBytes } from "./reply.ts";

Deno.test("integerOf() takes 64-bit integers written in one way only", () => {
  const good = ["0", "1", "-1", "9223372036854775807", "-9223372036854775808"];
  for (const text of good) assertEquals(integerOf(textBytes(text)), BigInt(text), text);
  const bad = ["", "01", "+1", "-0", " 1", "1 ", "1.0", "x", "9223372036854775808", "-9223372036854775809"];
  for (const text of bad) assertEquals(integerOf(textBytes(text)), undefined, text);
});

/** Sums as Redis 7.0 prints them on x86-64. */
Deno.test("addExtended() calculates with the 64 bits of precision that Redis has", () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ["0.1", "0.2", "0.3"],
    ["3.0e2", "5.0e-2", "300.04999999999999999"],
    ["10.5", "0.1", "10.6"],
    ["5.0e3", "2.0e2", "5200"],
    ["1", "-1", "0"],
    ["-1.5", "0", "-1.5"],
    ["0", "-0.0", "0"],
  ];
  for (const [a, b, sum] of cases) {
    const [x, y] = [extendedOf(textBytes(a)), extendedOf(textBytes(b))];
    if (x === undefined || x === "infinite" || y === undefined || y === "infinite") throw new Error(a);
    const result = addExtended(x, y);
    assertEquals(result === "infinite" ? result : extendedText(result), sum, `${a} + ${b}`);
  }
});

Deno.test("extendedOf() refuses what is no number or has no place", () => {
  for (const text of ["", "x", "1e", ".", " 1", "0x10", "nan", "1e5000", "1e-5000", "1".repeat(256)]) {
    assertEquals(extendedOf(textBytes(text)), undefined, text);
  }
  assertEquals(extendedOf(textBytes("-Infinity")), "infinite");
});
