import { assertEquals } from "@std/assert";
import { createManualTimer } from "../testing/harness.ts";
import { Bulkhead } from "./bulkhead.ts";

Deno.test("Bulkhead lets so many in, queues so many in order, and refuses the rest", async () => {
  const timer = createManualTimer();
  const bulkhead = new Bulkhead(2, 2, timer);
  assertEquals([bulkhead.tryEnter(), bulkhead.tryEnter(), bulkhead.tryEnter()], [true, true, false]);
  const order: string[] = [];
  const first = bulkhead.enter(1_000).then((isIn) => order.push(`first ${isIn}`));
  const second = bulkhead.enter(1_000).then((isIn) => order.push(`second ${isIn}`));
  assertEquals([await bulkhead.enter(1_000), bulkhead.queued], [false, 2]);
  bulkhead.leave();
  bulkhead.leave();
  await Promise.all([first, second]);
  assertEquals([order, bulkhead.underWay, bulkhead.queued], [["first true", "second true"], 2, 0]);
  assertEquals(timer.waiting, []);
  bulkhead.leave();
  bulkhead.leave();
  assertEquals([bulkhead.underWay, bulkhead.tryEnter()], [0, true]);
});

Deno.test("Bulkhead sends those away whose time runs out, and keeps the order of the others", async () => {
  const timer = createManualTimer();
  const bulkhead = new Bulkhead(1, 3, timer);
  bulkhead.tryEnter();
  const waits = [bulkhead.enter(300), bulkhead.enter(200), bulkhead.enter(400)];
  timer.fire(200);
  assertEquals([await waits[1], bulkhead.queued], [false, 2]);
  bulkhead.leave();
  assertEquals(await waits[0], true);
  timer.fire(400);
  assertEquals([await waits[2], bulkhead.queued, bulkhead.underWay], [false, 0, 1]);
});
