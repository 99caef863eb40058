import { assert, assertEquals } from "@std/assert";
import { createVirtualTime } from "../testing/virtual_time.ts";
import { StateQueue, type StateTarget } from "./state_queue.ts";

const STATE = new Uint8Array(100);

/** A socket whose client reads when the test says so. */
class Target implements StateTarget {
  isOver = false;
  unwrittenBytes = 0;
  allowedBytes = 0;
  isSlow = false;

  push(frames: readonly Uint8Array[], bytes: number): void {
    this.allowedBytes += bytes;
    for (const { length } of frames) this.unwrittenBytes += length;
  }

  written(bytes: number): void {
    this.allowedBytes -= bytes;
  }

  dropSlow(): void {
    this.isSlow = true;
    this.isOver = true;
  }
}

Deno.test("states go out within the bound, in the order they were asked for, as fast as they are read", async () => {
  const { timer, clock, pass } = createVirtualTime();
  const queue = new StateQueue({ bytesMax: 250, timer, clock });
  const targets = Array.from({ length: 7 }, () => new Target());
  const sent: number[] = [];
  targets.forEach((target, i) => queue.send(target, [STATE], STATE.length, () => sent.push(i)));
  assertEquals(sent, [0, 1]);
  targets[1]!.unwrittenBytes = 0;
  await pass(10);
  assertEquals(sent, [0, 1, 2]);
  targets[3]!.isOver = true; // went while it waited
  for (const target of targets) target.unwrittenBytes = 0;
  await pass(10);
  assertEquals(sent, [0, 1, 2, 4, 5]);
  for (const target of targets) target.unwrittenBytes = 0;
  await pass(20);
  for (const target of targets) target.unwrittenBytes = 0;
  await pass(20);
  assertEquals([sent, targets.map(({ allowedBytes }) => allowedBytes)], [
    [0, 1, 2, 4, 5, 6],
    Array(7).fill(0),
  ]);
  queue.close();
});

Deno.test("a state larger than the bound goes alone", async () => {
  const { timer, clock, pass } = createVirtualTime();
  const queue = new StateQueue({ bytesMax: 50, timer, clock });
  const [one, two] = [new Target(), new Target()];
  for (const target of [one, two]) queue.send(target, [STATE], STATE.length, () => {});
  assertEquals([one.unwrittenBytes, two.unwrittenBytes], [100, 0]);
  one.unwrittenBytes = 0;
  await pass(10);
  assertEquals(two.unwrittenBytes, 100);
  queue.close();
});

Deno.test("who does not read lets others go first, and is dropped when there are too many such", async () => {
  const { timer, clock, pass } = createVirtualTime();
  const queue = new StateQueue({ bytesMax: 100, timer, clock });
  const slow = Array.from({ length: 5 }, () => new Target());
  const reader = new Target();
  for (const target of [...slow, reader]) queue.send(target, [STATE], STATE.length, () => {});
  assertEquals(reader.unwrittenBytes, 0);
  await pass(10_500);
  assertEquals(reader.unwrittenBytes, 100);
  // Four times the bound may be with slow ones.
  const dropped = slow.filter(({ isSlow }) => isSlow);
  assert(dropped.length >= 1 && slow[0]!.isSlow && !reader.isSlow, `${dropped.length}`);
  queue.close();
});
