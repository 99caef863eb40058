import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { ManualRpcClock } from "../testing/manual_clock.ts";
import { DeadlineQueue, type Timed } from "./deadline.ts";

function entry(dueAt: number, fired: number[]): Timed {
  const timed: Timed = { dueAt, heapIndex: -1, onDue: () => fired.push(timed.dueAt) };
  return timed;
}

Deno.test("DeadlineQueue fires what was not removed, in order, each when it is due", () => {
  const step = fc.record({ dueAt: fc.nat(1000), remove: fc.boolean(), advance: fc.nat(20) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const clock = new ManualRpcClock();
      const queue = new DeadlineQueue(clock);
      const fired: number[] = [];
      const waiting: Timed[] = [];
      const expected: number[] = [];
      const advance = (byMs: number) => {
        clock.advance(byMs);
        const due = waiting.filter((timed) => timed.dueAt <= clock.now()).sort((a, b) => a.dueAt - b.dueAt);
        for (const timed of due) {
          expected.push(timed.dueAt);
          waiting.splice(waiting.indexOf(timed), 1);
        }
        assertEquals(fired, expected);
      };
      for (const { dueAt, remove, advance: byMs } of steps) {
        const timed = entry(clock.now() + 1 + dueAt, fired);
        queue.add(timed);
        waiting.push(timed);
        if (remove) {
          const [gone] = waiting.splice(dueAt % waiting.length, 1);
          queue.remove(gone!);
          queue.remove(gone!);
        }
        assertEquals(queue.size, waiting.length);
        advance(byMs);
      }
      advance(2000);
      assertEquals([queue.size, waiting.length], [0, 0]);
    }),
  );
});

Deno.test("DeadlineQueue arms one timer for many entries and none for none", async () => {
  const clock = new ManualRpcClock();
  const queue = new DeadlineQueue(clock);
  const entries = Array.from({ length: 100 }, (_, i) => entry(500 + i, []));
  for (const timed of entries) queue.add(timed);
  assertEquals(clock.timers, 1);
  for (const timed of entries) queue.remove(timed);
  // The next of a row of calls comes a few microtasks later, and finds the timer.
  for (let step = 0; step < 8; step++) await Promise.resolve();
  assertEquals([clock.timers, queue.size], [1, 0]);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals([clock.timers, queue.size], [0, 0]);
});

Deno.test("DeadlineQueue waits longer than one platform timer can", () => {
  const clock = new ManualRpcClock();
  const queue = new DeadlineQueue(clock);
  const fired: number[] = [];
  queue.add(entry(2 ** 31 + 5000, fired));
  clock.advance(2 ** 31 + 4999);
  assertEquals(fired, []);
  clock.advance(1);
  assertEquals(fired, [2 ** 31 + 5000]);
});
