import { assertEquals, assertThrows } from "@std/assert";
import { MethodTable } from "./methods.ts";

Deno.test("MethodTable finds what was added by its bytes, anywhere in an array, and nothing else", () => {
  const table = new MethodTable<number>();
  const paths = Array.from({ length: 500 }, (_, i) => `/pkg.Service${i % 7}/Method${i}`);
  paths.forEach((path, i) => table.add(path, i));
  paths.forEach((path, i) => {
    const bytes = new TextEncoder().encode(`..${path}..`);
    assertEquals(table.find(bytes, 2, bytes.length - 2), i);
    assertEquals(table.find(bytes, 2, bytes.length - 1), undefined);
    assertEquals(table.find(bytes, 1, bytes.length - 2), undefined);
  });
  assertThrows(() => table.add(paths[3]!, 9), RangeError, "already served");
});
