import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { pattern } from "./_pipe.ts";
import { addRange, ReceiveHalf, SendHalf } from "./stream.ts";

Deno.test("ReceiveHalf gives every byte once and in order, however pieces overlap", () => {
  const whole = pattern(64);
  const piece = fc.tuple(fc.nat(63), fc.integer({ min: 1, max: 20 }));
  fc.assert(fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
    const half = new ReceiveHalf(1000);
    const covered = new Set<number>();
    const out: number[] = [];
    for (const [offset, length] of [...pieces, [0, 64] as const]) {
      const end = Math.min(offset + length, 64);
      for (let i = offset; i < end; i++) covered.add(i);
      half.keep(offset, whole.subarray(offset, end));
      for (let next = half.takeNext(); next !== undefined; next = half.takeNext()) {
        out.push(...next);
        half.delivered += next.length;
      }
      let contiguous = 0;
      while (covered.has(contiguous)) contiguous++;
      assertEquals(out.length, contiguous);
    }
    assertEquals(Uint8Array.from(out), whole);
    assertEquals(half.pieceCount, 0);
  }));
});

Deno.test("ReceiveHalf.keep() copies a small view, so that it does not hold the whole datagram", () => {
  const half = new ReceiveHalf(1000);
  const datagram = new Uint8Array(1000);
  half.keep(5, datagram.subarray(0, 10));
  half.delivered = 5;
  assertEquals(half.takeNext()!.buffer.byteLength, 10);
});

Deno.test("SendHalf sends again exactly what was lost and not acknowledged through another copy", () => {
  const half = new SendHalf(1000);
  half.write(pattern(100), true);
  half.sent = 100;
  half.finSent = true;
  half.onLost(0, 30, false);
  half.onLost(60, 40, true);
  half.onAcked(10, 10, false);
  half.onAcked(80, 20, true);
  const again: number[][] = [];
  while (half.nextLost()) {
    again.push([half.lostStart, half.lostEnd]);
    half.tookLost(half.lostEnd - half.lostStart, false);
  }
  assertEquals(again, [[0, 10], [20, 30], [60, 80]]);
  assertEquals(half.isDone, false);
  half.onAcked(0, 100, false);
  assertEquals(half.isDone, true);
});

Deno.test("SendHalf.copy() reads any range across chunks, before and after release of what was acknowledged", () => {
  const whole = pattern(1000);
  fc.assert(fc.property(
    fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 12 }),
    fc.array(fc.tuple(fc.nat(999), fc.nat(300)), { maxLength: 20 }),
    fc.nat(999),
    (sizes, reads, acked) => {
      const half = new SendHalf(1000);
      for (const size of sizes) {
        if (half.written >= 1000) break;
        half.write(whole.subarray(half.written, Math.min(half.written + size, 1000)), false);
      }
      half.sent = half.written;
      half.onAcked(0, Math.min(acked, half.written), false);
      for (const [from, length] of reads) {
        const start = Math.max(from, half.acked);
        const end = Math.min(start + length, half.written);
        if (start >= end) continue;
        const out = new Uint8Array(end - start);
        half.copy(start, end - start, out, 0);
        assertEquals(out, whole.slice(start, end));
      }
    },
  ));
});

Deno.test("addRange() keeps pairs sorted, disjoint and joined", () => {
  const range = fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 8 }));
  fc.assert(fc.property(fc.array(range, { maxLength: 20 }), (ranges) => {
    const pairs: number[] = [];
    const model = new Set<number>();
    for (const [start, length] of ranges) {
      addRange(pairs, start, start + length);
      for (let i = start; i < start + length; i++) model.add(i);
    }
    const expected: number[] = [];
    for (let i = 0; i <= 49; i++) {
      if (model.has(i) !== model.has(i - 1)) expected.push(i);
    }
    assertEquals(pairs, expected);
  }));
});
