import { assertEquals } from "@std/assert";
import { createManualTimer } from "./testing/harness.ts";
import { TimeoutQueue } from "./timer.ts";

Deno.test("TimeoutQueue ends what is due, in order, with one timer", () => {
  let now = 0;
  const timer = createManualTimer();
  const queue = new TimeoutQueue(100, { now: () => now }, timer);
  const ended: string[] = [];
  queue.add(() => ended.push("a"));
  now = 30;
  const cancel = queue.add(() => ended.push("b"));
  now = 60;
  queue.add(() => ended.push("c"));
  assertEquals(timer.waiting, [100]);
  cancel();
  now = 100;
  timer.fire();
  assertEquals([ended, timer.waiting], [["a"], [60]]);
  now = 160;
  timer.fire();
  assertEquals([ended, timer.waiting], [["a", "c"], []]);
  queue.add(() => ended.push("d"));
  assertEquals(timer.waiting, [100]);
  queue.close();
  assertEquals(timer.waiting, []);
});
