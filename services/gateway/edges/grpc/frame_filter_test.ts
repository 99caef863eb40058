import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { FrameFilter } from "./frame_filter.ts";

const PREFACE = new TextEncoder().encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

function frame(type: number, flags: number, payload: Uint8Array): Uint8Array {
  const { length } = payload;
  return Uint8Array.from([length >> 16, length >> 8, length, type, flags, 0, 0, 0, 1, ...payload]);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

Deno.test("FrameFilter.push() passes everything but GOAWAY, and counts pings and resets, wherever chunks are cut", () => {
  const anyFrame = fc.record({
    type: fc.integer({ min: 0, max: 10 }),
    flags: fc.constantFrom(0, 1, 4, 5),
    payload: fc.uint8Array({ maxLength: 40 }),
  });
  fc.assert(fc.property(
    fc.array(anyFrame, { maxLength: 12 }),
    fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 40 }),
    (frames, cuts) => {
      const bytes = (of: typeof frames) =>
        concat([PREFACE, ...of.map(({ type, flags, payload }) => frame(type, flags, payload))]);
      const passed: Uint8Array[] = [];
      const counted = { pings: 0, resets: 0 };
      const filter = new FrameFilter({
        onBytes: (part) => passed.push(part.slice()),
        onPing: () => counted.pings++,
        onReset: () => counted.resets++,
      });
      const all = bytes(frames);
      for (let at = 0, i = 0; at < all.length; i++) {
        const end = Math.min(all.length, at + cuts[i % cuts.length]!);
        filter.push(all.subarray(at, end));
        at = end;
      }
      assertEquals(concat(passed), bytes(frames.filter(({ type }) => type !== 7)));
      assertEquals(counted, {
        pings: frames.filter(({ type, flags }) => type === 6 && (flags & 1) === 0).length,
        resets: frames.filter(({ type }) => type === 3).length,
      });
    },
  ));
});
