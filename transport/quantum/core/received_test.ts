import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { MAX_RECEIVED_RANGES } from "../params.ts";
import { readU32 } from "../wire/header.ts";
import { ReceivedPackets } from "./received.ts";

function blocks(received: ReceivedPackets): number[][] {
  const bytes = new Uint8Array(64);
  received.writeSack(bytes, 0);
  return Array.from(
    { length: received.sackBlocks },
    (_, i) => [readU32(bytes, i * 8), readU32(bytes, i * 8 + 4)],
  );
}

Deno.test("ReceivedPackets agrees with a plain set whatever the order of arrival", () => {
  fc.assert(fc.property(fc.array(fc.nat(60), { maxLength: 80 }), (arrivals) => {
    const received = new ReceivedPackets();
    const model = new Set<number>();
    for (const sequence of arrivals) {
      assertEquals(received.isReplay(sequence), model.has(sequence));
      if (model.has(sequence)) continue;
      received.add(sequence);
      model.add(sequence);
      let next = 0;
      while (model.has(next)) next++;
      assertEquals(received.next, next);
      const ranges: number[][] = [];
      for (const n of [...model].filter((n) => n > next).sort((a, b) => a - b)) {
        const last = ranges.at(-1);
        if (last !== undefined && last[1] === n - 1) last[1] = n;
        else ranges.push([n, n]);
      }
      // SPEC §3.3: the highest eight.
      assertEquals(blocks(received), ranges.slice(-8));
    }
  }));
});

Deno.test("ReceivedPackets.raiseFloor() excuses gaps and joins the ranges it reaches", () => {
  const received = new ReceivedPackets();
  for (const sequence of [0, 1, 4, 5, 9]) received.add(sequence);
  received.raiseFloor(4);
  assertEquals([received.next, blocks(received)], [6, [[9, 9]]]);
  assertEquals(received.isReplay(3), true);
  received.raiseFloor(2);
  assertEquals(received.next, 6);
});

Deno.test("ReceivedPackets forgets the lowest range when MAX_RECEIVED_RANGES are full, and then refuses its numbers", () => {
  const received = new ReceivedPackets();
  for (let i = 0; i <= MAX_RECEIVED_RANGES; i++) received.add(2 + 2 * i);
  assertEquals(received.rangeCount, MAX_RECEIVED_RANGES);
  // Range {2} is forgotten: 1 was never received but can no longer be told from a replay; 3 still can.
  assertEquals([0, 1, 2, 3, 4, 5].map((n) => received.isReplay(n)), [true, true, true, false, true, false]);
});
