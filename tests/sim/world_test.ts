import { assert, assertEquals, assertNotEquals, assertStringIncludes, assertThrows } from "@std/assert";
import type { Address, Transmit } from "../../transport/quantum/types.ts";
import { Link, type LinkProfile, QUIET_LINK } from "./network.ts";
import { SimRandom } from "./random.ts";
import { replayCommand } from "./seeds.ts";
import { type SimNode, World } from "./world.ts";

const A: Address = { hostname: "10.0.0.1", port: 1 };
const B: Address = { hostname: "10.0.0.2", port: 2 };

/** Sends `count` numbered datagrams, one each millisecond, and notes what comes back. */
class Pinger implements SimNode {
  readonly answers: { index: number; atMs: number }[] = [];
  #next = 0;
  #due = 0;
  constructor(readonly count: number, readonly byteCount = 8) {}
  handleDatagram(bytes: Uint8Array, _from: Address, now: number): void {
    this.answers.push({ index: new DataView(bytes.buffer, bytes.byteOffset).getUint32(0), atMs: now });
  }
  handleTimeout(now: number): void {
    if (now >= this.#due + 1) this.#due++;
  }
  nextTimeout(): number | undefined {
    return this.#next < this.count ? this.#due + 1 : undefined;
  }
  pollTransmit(): Transmit | undefined {
    if (this.#next >= this.count || this.#next > this.#due) return undefined;
    const bytes = new Uint8Array(this.byteCount);
    new DataView(bytes.buffer).setUint32(0, this.#next++);
    return { to: B, bytes };
  }
  runApplication(): boolean {
    return false;
  }
}

class Echo implements SimNode {
  kept: Uint8Array | undefined;
  #out: Transmit[] = [];
  handleDatagram(bytes: Uint8Array, from: Address): void {
    this.kept = bytes;
    this.#out.push({ to: from, bytes: bytes.slice() });
  }
  handleTimeout(): void {}
  nextTimeout(): number | undefined {
    return undefined;
  }
  pollTransmit(): Transmit | undefined {
    return this.#out.shift();
  }
  runApplication(): boolean {
    return false;
  }
}

function echoWorld(
  seed: number,
  link: Partial<LinkProfile>,
  count: number,
): { world: World; pinger: Pinger; echo: Echo } {
  const world = new World({ seed, link, timerLateMsMax: 0 });
  const pinger = new Pinger(count);
  const echo = new Echo();
  world.add(B, echo);
  world.add(A, pinger);
  world.runFor(count + 10_000);
  return { world, pinger, echo };
}

Deno.test("World delivers every datagram once, in order and after twice the latency when the links are quiet", () => {
  const { pinger } = echoWorld(1, { latencyMs: 7 }, 50);
  assertEquals(pinger.answers, Array.from({ length: 50 }, (_, index) => ({ index, atMs: index + 14 })));
});

Deno.test("World has one trace per seed", () => {
  const rough = { loss: 0.1, jitterMs: 3, duplicate: 0.1, reorder: 0.2, corrupt: 0.05 };
  const hash = (seed: number) => echoWorld(seed, rough, 300).world.trace.digest();
  assertEquals(hash(5), hash(5));
  assertNotEquals(hash(5), hash(6));
});

Deno.test("World hands out buffers that are overwritten after the call, so that kept views show", () => {
  const { echo } = echoWorld(1, {}, 1);
  assertEquals(echo.kept, new Uint8Array(8).fill(0xaa));
});

Deno.test("World.run() throws when nothing is left to happen and when time runs out", () => {
  const world = new World({ seed: 1 });
  assertThrows(() => world.run(() => false, 100), Error, "nothing left");
  world.at(500, () => {});
  assertThrows(() => world.run(() => false, 100), Error, "not done after 100 ms");
  assertEquals(world.now, 100);
});

Deno.test("World.remove() makes datagrams to the node go unheard", () => {
  const world = new World({ seed: 1 });
  world.add(B, new Echo());
  world.add(A, new Pinger(3));
  world.remove(B);
  world.runFor(100);
  assertEquals(world.unheard, 3);
});

Deno.test("World.partition() drops both directions until it is lifted", () => {
  const world = new World({ seed: 1, timerLateMsMax: 0 });
  const pinger = new Pinger(30);
  world.add(B, new Echo());
  world.partition(A, B, true);
  world.at(9.5, () => world.partition(A, B, false));
  world.add(A, pinger);
  world.runFor(1_000);
  assertEquals(pinger.answers.map(({ index }) => index), Array.from({ length: 20 }, (_, i) => i + 10));
});

function carried(profile: Partial<LinkProfile>, count: number, byteCount = 100, everyMs = 1) {
  const link = new Link({ ...QUIET_LINK, ...profile }, new SimRandom(3));
  const arrivals: { index: number; atMs: number; bytes: Uint8Array }[] = [];
  for (let index = 0; index < count; index++) {
    link.carry(
      new Uint8Array(byteCount),
      index * everyMs,
      (bytes, atMs) => arrivals.push({ index, atMs, bytes }),
    );
  }
  return { link, arrivals };
}

Deno.test("Link loses about the share it is told to", () => {
  const { link } = carried({ loss: 0.2 }, 10_000);
  assert(Math.abs(link.drops.loss - 2_000) < 150, `${link.drops.loss}`);
});

Deno.test("Link loses in bursts as long as the chance to leave says", () => {
  const { link, arrivals } = carried({ burst: { enter: 0.01, leave: 0.25, loss: 1 } }, 20_000);
  let runs = 0;
  let last = -1;
  for (const { index } of arrivals) {
    if (index > last + 1) runs++;
    last = index;
  }
  const meanRun = link.drops.burst / runs;
  assert(meanRun > 3.2 && meanRun < 4.8, `bursts of ${meanRun}`);
});

Deno.test("Link keeps order under jitter and breaks it only where it reorders", () => {
  const inOrder = (list: { atMs: number }[]) =>
    list.every(({ atMs }, i) => i === 0 || atMs >= (list[i - 1]?.atMs ?? 0));
  assert(inOrder(carried({ jitterMs: 30 }, 1_000).arrivals));
  assert(!inOrder(carried({ reorder: 0.1 }, 1_000).arrivals));
});

Deno.test("Link duplicates and corrupts copies independently", () => {
  const { link, arrivals } = carried({ duplicate: 0.1, corrupt: 0.1 }, 5_000);
  assertEquals(arrivals.length, 5_000 + link.duplicated);
  assert(Math.abs(link.duplicated - 500) < 100);
  assertEquals(
    arrivals.filter(({ bytes }) => bytes.some((byte) => byte !== 0)).length <= link.corrupted,
    true,
  );
  assert(Math.abs(link.corrupted - 500) < 100);
});

Deno.test("Link drops what is larger than its MTU", () => {
  assertEquals(carried({ mtuBytes: 1_300 }, 3, 1_300).arrivals.length, 3);
  assertEquals(carried({ mtuBytes: 1_300 }, 3, 1_301).link.drops.mtu, 3);
});

Deno.test("Link serialises at its rate and drops at the tail of its queue", () => {
  const profile = { latencyMs: 0, rateBytesPerSecond: 100_000, queueBytes: 500 };
  const { link, arrivals } = carried(profile, 10, 100, 0);
  assertEquals(arrivals.map(({ atMs }) => atMs), [1, 2, 3, 4, 5]);
  assertEquals(link.drops.queue, 5);
});

Deno.test("SimRandom gives the same numbers for a seed and forks by label alone", () => {
  const first = new SimRandom(9);
  const forkedEarly = first.fork("x");
  const numbers = [first.uint32(), first.uint32()];
  assertEquals(numbers, [...[new SimRandom(9)].flatMap((r) => [r.uint32(), r.uint32()])]);
  assertEquals(first.fork("x").uint32(), forkedEarly.uint32());
  assertNotEquals(new SimRandom(9).uint32(), new SimRandom(10).uint32());
});

Deno.test("replayCommand() is one line that names the seed and the test", () => {
  const line = replayCommand("a test", 7);
  assertStringIncludes(line, "AETHERFLOW_SIM_SEED=7");
  assertEquals(line.includes("\n"), false);
});
