import { assert, assertEquals } from "@std/assert";
import { PathMtu, truesizeBytes } from "./path_mtu.ts";

/** Probes until nothing is due; what fits `limit` passes. Returns the sizes tried. */
function search(mtu: PathMtu, limit: number, now: number): number[] {
  const tried: number[] = [];
  for (let size = mtu.nextProbeBytes(now); size > 0; size = mtu.nextProbeBytes(now)) {
    tried.push(size);
    mtu.onProbeSent();
    if (size <= limit) mtu.onProbeAcked(size, now);
    else mtu.onProbeLost(now);
  }
  return tried;
}

Deno.test("PathMtu climbs until a size fails three times, and tries the rest again after ten minutes", () => {
  const mtu = new PathMtu(false, 1472, 0);
  assertEquals(search(mtu, 1420, 0), [1280, 1350, 1400, 1432, 1432, 1432]);
  assertEquals([mtu.current, mtu.probeAt], [1400, 600_000]);
  assertEquals(search(mtu, 9000, 600_000), [1432, 1452, 1472]);
  assertEquals([mtu.current, mtu.probeAt], [1472, Infinity]);
});

Deno.test("PathMtu descends on loopback to the first size that passes", () => {
  const mtu = new PathMtu(true, 32_768, 0);
  assertEquals(search(mtu, 65_507, 0), [32_768]);
  assertEquals([mtu.current, mtu.probeAt], [32_768, Infinity]);
  const small = new PathMtu(true, 61_440, 0);
  assertEquals(search(small, 10_000, 0).at(-1), 8192);
  assertEquals(small.current, 8192);
});

Deno.test("PathMtu tries nothing that the peer or the owner does not take", () => {
  const mtu = new PathMtu(false, 1200, 0);
  assertEquals([mtu.nextProbeBytes(0), mtu.probeAt], [0, Infinity]);
});

Deno.test("PathMtu falls back after three large losses in a row, and searches again later and later", () => {
  const mtu = new PathMtu(false, 1472, 0);
  search(mtu, 1472, 0);
  assertEquals([mtu.onLost(1472, 1), mtu.onLost(1472, 1)], [false, false]);
  mtu.onAcked(1472);
  assertEquals([mtu.onLost(1472, 2), mtu.onLost(1000, 2), mtu.onLost(1472, 2), mtu.onLost(1472, 2)], [
    false,
    false,
    false,
    true,
  ]);
  assertEquals([mtu.current, mtu.probeAt], [1200, 5002]);
  search(mtu, 1200, 5002);
  assertEquals(mtu.current, 1200);
  assertEquals(mtu.fallBack(6000), false);
});

Deno.test("truesizeBytes() is no less than what the kernel was seen to charge", () => {
  // How many datagrams of a size an unread socket of 212,992 bytes took: the last may begin while there is room.
  const seen = [
    [64, 256],
    [200, 166],
    [1200, 92],
    [1472, 92],
    [3000, 48],
    [7600, 25],
    [8000, 12],
    [16_384, 12],
    [24_000, 8],
    [32_768, 6],
    [48_000, 4],
    [61_440, 3],
  ];
  for (const [bytes, fit] of seen) {
    const low = 212_992 / fit!;
    const high = 212_992 / (fit! - 1);
    const estimate = truesizeBytes(bytes!);
    assert(estimate >= low * 0.999 && estimate <= high * 1.1, `${bytes}: ${estimate} for ${low}..${high}`);
  }
});
