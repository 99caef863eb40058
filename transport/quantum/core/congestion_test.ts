import { assert, assertEquals } from "@std/assert";
import { MAX_WINDOW_BYTES } from "../params.ts";
import { Cubic } from "./congestion.ts";
import { Pacer } from "./pacer.ts";
import { RttEstimator } from "./rtt.ts";

const DATAGRAM = 1000;

Deno.test("Cubic starts with ten datagrams, capped except on a trusted path", () => {
  assertEquals(new Cubic(1200, false).windowBytes, 12_000);
  assertEquals(new Cubic(32_768, false).windowBytes, 65_536);
  assertEquals(new Cubic(32_768, true).windowBytes, 327_680);
});

Deno.test("Cubic doubles per round trip in slow start, only while the window was the limit, up to MAX_WINDOW_BYTES", () => {
  const cubic = new Cubic(DATAGRAM, false);
  cubic.onAcked(10_000, 1, true, 100, 100);
  assertEquals(cubic.windowBytes, 20_000);
  cubic.onAcked(10_000, 1, false, 100, 200);
  assertEquals(cubic.windowBytes, 20_000);
  for (let i = 0; i < 20; i++) cubic.onAcked(cubic.windowBytes, 1, true, 100, 300);
  assertEquals(cubic.windowBytes, MAX_WINDOW_BYTES);
});

Deno.test("Cubic shrinks to 0.7 once per round trip, never below two datagrams", () => {
  const cubic = new Cubic(DATAGRAM, false);
  cubic.onLost(1000, 50, 100);
  cubic.onLost(1000, 99, 110);
  assertEquals(cubic.windowBytes, 7000);
  cubic.onLost(1000, 101, 200);
  assertEquals(Math.round(cubic.windowBytes), 4900);
  for (let i = 3; i < 20; i++) cubic.onLost(1000, i * 100 + 1, i * 100 + 100);
  assertEquals(cubic.windowBytes, 2000);
});

Deno.test("Cubic comes back to the window of the last loss after K seconds and then goes beyond", () => {
  const cubic = new Cubic(DATAGRAM, false);
  for (let i = 0; i < 4; i++) cubic.onAcked(cubic.windowBytes, 1, true, 100, 10);
  const before = cubic.windowBytes;
  cubic.onLost(1000, 20, 30);
  // K = cbrt(W_max × 0.3 / C / datagram) s.
  const k = Math.cbrt(before * 0.3 / 0.4 / DATAGRAM) * 1000;
  let now = 30;
  const run = (until: number) => {
    for (; now < until; now += 100) cubic.onAcked(cubic.windowBytes, now, true, 100, now);
  };
  run(30 + k * 0.9);
  assert(cubic.windowBytes < before && cubic.windowBytes > before * 0.9, `${cubic.windowBytes} of ${before}`);
  run(30 + k * 1.5);
  assert(cubic.windowBytes > before);
});

Deno.test("Cubic falls to two datagrams on persistent congestion", () => {
  const cubic = new Cubic(DATAGRAM, false);
  cubic.onPersistentCongestion();
  assertEquals(cubic.windowBytes, 2000);
});

Deno.test("Cubic does not pace below 2 ms, twice the window per RTT in slow start, 1.25 times after", () => {
  const cubic = new Cubic(DATAGRAM, false);
  assertEquals([cubic.pacingRate(1.9), cubic.pacingRate(10)], [Infinity, 2000]);
  cubic.onLost(1000, 50, 100);
  assertEquals(cubic.pacingRate(10), 1.25 * 7000 / 10);
});

Deno.test("Pacer lets a burst of ten datagrams pass, then spaces them, and never asks for less than a millisecond", () => {
  const pacer = new Pacer();
  let sent = 0;
  while (pacer.readyAt(100, DATAGRAM, 0) <= 0) {
    pacer.spend(DATAGRAM);
    sent++;
  }
  assertEquals([sent, pacer.readyAt(100, DATAGRAM, 0)], [10, 1]);
  pacer.spend(DATAGRAM);
  assertEquals(pacer.readyAt(100, DATAGRAM, 0), 10);
  assertEquals(pacer.readyAt(100, DATAGRAM, 11), 11);
});

Deno.test("RttEstimator follows RFC 9002 §5", () => {
  const rtt = new RttEstimator();
  rtt.update(100, 0);
  assertEquals([rtt.smoothed, rtt.variance, rtt.min], [100, 50, 100]);
  rtt.update(120, 10);
  assertEquals([rtt.smoothed, rtt.variance], [100 + 10 / 8, 50 + (10 - 50) / 4]);
  // A delay that would bring the sample below the minimum is not believed.
  rtt.update(101, 50);
  assertEquals(rtt.smoothed, 101.25 + (101 - 101.25) / 8);
  assertEquals(rtt.lossDelayMs(), 9 / 8 * Math.max(rtt.smoothed, 101));
  assertEquals(rtt.probeTimeoutMs(8), rtt.smoothed + 4 * rtt.variance + 8);
});
