import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { decodeTime, isValid } from "@std/ulid";
import { createManualClock } from "./clock.ts";
import { createGuuidSource, formatGuuid, parseGuuid } from "./guuid.ts";
import { createSeededRandom, type Random } from "./random.ts";

const zeros: Random = { fill: (target) => target.fill(0) };
const ones: Random = { fill: (target) => target.fill(0xff) };

function uuidText(bytes: Uint8Array): string {
  return bytes.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

Deno.test("GuuidSource.next() lays out time, version and variant as RFC 9562 says", () => {
  const clock = createManualClock(0x017f_22e2_79b0);
  assertEquals(
    uuidText(createGuuidSource({ clock, random: zeros }).next()),
    "017f22e2-79b0-7000-8000-000000000000",
  );
  // The top bit of a fresh tail is 0: room for the steps of its millisecond.
  assertEquals(
    uuidText(createGuuidSource({ clock, random: ones }).next()),
    "017f22e2-79b0-77ff-bfff-ffffffffffff",
  );
});

Deno.test("GuuidSource.next() rises within a millisecond, and across a clock that steps back", () => {
  for (const random of [zeros, ones, createSeededRandom(1)]) {
    const clock = createManualClock();
    const source = createGuuidSource({ clock, random });
    let last = "";
    for (let i = 0; i < 10_000; i++) {
      if (i === 3_000) clock.setWall(1_600_000_000_000);
      if (i === 6_000) clock.setWall(1_800_000_000_000);
      const text = formatGuuid(source.next());
      assert(text > last, `${text} follows ${last} at ${i}`);
      last = text;
    }
  }
});

Deno.test("GuuidSource.next() carries a step of up to 2^32 into the higher bits", () => {
  const source = createGuuidSource({ clock: createManualClock(1_000), random: ones });
  source.next();
  assertEquals(uuidText(source.next()), "00000000-03e8-7800-8000-0000ffffffff");
});

Deno.test("formatGuuid() gives a ULID of the same time, and parseGuuid() takes it, small letters and UUID text", () => {
  const guuid = createGuuidSource({
    clock: createManualClock(1_718_000_000_123),
    random: createSeededRandom(2),
  }).next();
  const text = formatGuuid(guuid);
  assert(isValid(text));
  assertEquals(decodeTime(text), 1_718_000_000_123);
  for (const form of [text, text.toLowerCase(), uuidText(guuid), uuidText(guuid).toUpperCase()]) {
    assertEquals(parseGuuid(form), guuid);
  }
});

Deno.test("formatGuuid() and parseGuuid() keep every 128-bit value and its order", () => {
  const value = fc.uint8Array({ minLength: 16, maxLength: 16 });
  fc.assert(fc.property(value, value, (a, b) => {
    assertEquals(parseGuuid(formatGuuid(a)), a);
    assertEquals(formatGuuid(a) < formatGuuid(b), a.toHex() < b.toHex());
  }));
  assertEquals(formatGuuid(new Uint8Array(16).fill(255)), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
});

Deno.test("parseGuuid() refuses everything else", () => {
  const texts = [
    "",
    "0".repeat(25),
    "0".repeat(27),
    "8" + "0".repeat(25), // more than 128 bits
    "U" + "0".repeat(25), // no digit
    "0".repeat(25) + "é",
    "017f22e2-79b0-7000-8000-00000000000g",
    "017f22e279b0-7000-8000-0000-00000000",
  ];
  for (const text of texts) assertEquals(parseGuuid(text), undefined, text);
  assertThrows(() => formatGuuid(new Uint8Array(15)), RangeError, "16 bytes");
});
