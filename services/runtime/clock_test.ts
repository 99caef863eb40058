import { assertEquals, assertThrows } from "@std/assert";
import { createManualClock } from "./clock.ts";

Deno.test("createManualClock() moves when told, and its wall time can jump alone", () => {
  const clock = createManualClock(1_000);
  assertEquals([clock.now(), clock.wallMs()], [0, 1_000]);
  clock.advance(1.5);
  clock.setWall(5);
  assertEquals([clock.now(), clock.wallMs()], [1.5, 5]);
  assertThrows(() => clock.advance(-1), RangeError, ">= 0");
});
