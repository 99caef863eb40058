import { assert, assertEquals } from "@std/assert";
import { createSeededRandom, randomFraction, systemRandom } from "./random.ts";

Deno.test("createSeededRandom() gives the same bytes for the same seed and others for another", () => {
  const take = (seed: number) => createSeededRandom(seed).fill(new Uint8Array(11)).toHex();
  assertEquals(take(1), take(1));
  assert(take(1) !== take(2));
});

Deno.test("createSeededRandom() spreads evenly", () => {
  const counts = new Array<number>(256).fill(0);
  for (const byte of createSeededRandom(3).fill(new Uint8Array(256_000))) counts[byte]!++;
  assert(Math.min(...counts) > 850 && Math.max(...counts) < 1_150);
});

Deno.test("systemRandom.fill() fills more than one call of the system gives", () => {
  const bytes = systemRandom.fill(new Uint8Array(200_000));
  assert(bytes.subarray(-64).some((byte) => byte !== 0));
});

Deno.test("randomFraction() is in [0, 1)", () => {
  assertEquals(randomFraction({ fill: (target) => target.fill(0) }), 0);
  assert(randomFraction({ fill: (target) => target.fill(255) }) < 1);
});
