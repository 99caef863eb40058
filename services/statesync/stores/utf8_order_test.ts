import { assertEquals } from "@std/assert";
import { compareUtf8 } from "./utf8_order.ts";

Deno.test("compareUtf8() orders as the bytes do", () => {
  const sorted = [
    "",
    "A",
    "a",
    "a\u0000",
    "aa",
    "b",
    "\u00e9",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "😀",
    "😀a",
    "😁",
  ];
  for (const [i, a] of sorted.entries()) {
    for (const [j, b] of sorted.entries()) {
      assertEquals(
        Math.sign(compareUtf8(a, b)),
        Math.sign(i - j),
        `${JSON.stringify(a)} ${JSON.stringify(b)}`,
      );
    }
  }
});
