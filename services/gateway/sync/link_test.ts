import type { Transport } from "@connectrpc/connect";
import { assert, assertEquals } from "@std/assert";
import type { Peer } from "../../runtime/worker_context.ts";
import { createVirtualTime } from "../testing/virtual_time.ts";
import { Links } from "./link.ts";

/** Services by name, whose calls stay open until the test ends them. */
function open(names: readonly string[]) {
  const time = createVirtualTime();
  const calls: { readonly peer: string; fail(): void }[] = [];
  const transport = (peer: string): Transport => ({
    unary: () => Promise.reject(new Error("no call of this kind")),
    stream: (method, signal) =>
      new Promise((_, reject) => {
        const fail = () => reject(new Error(`${method.name} has ended`));
        calls.push({ peer, fail });
        signal?.addEventListener("abort", fail);
      }),
  });
  let peers: readonly Peer[] = [];
  const update = (states: Record<string, "up" | "down">) =>
    peers = names.map((name, i) => ({
      name,
      service: "statesync",
      address: { hostname: "127.0.0.1", port: 1 + i },
      state: states[name] ?? "up",
      incarnation: 1,
    }));
  update({});
  const links = new Links({
    peers: { instances: () => peers, transport },
    timer: time.timer,
    clock: time.clock,
    metrics: {
      socketOpened() {},
      socketClosed() {},
      received() {},
      sent() {},
      refused() {},
      presenceEntries() {},
    },
    maxMessageBytes: 1_000,
    log: { info() {}, error() {} },
  });
  return { ...time, links, calls, update };
}

const IDS = Array.from({ length: 200 }, (_, i) => `doc-${i}`);

Deno.test("a document is one worker's; when that dies, only its documents go to others", async () => {
  const names = ["statesync", "statesync-2", "statesync-3"];
  const { links, calls, update, pass } = open(names);
  const homes = new Map(IDS.map((id) => [id, links.of(id)!]));
  assertEquals(calls.map(({ peer }) => peer).toSorted(), names);
  for (const id of IDS) assertEquals(links.of(id), homes.get(id)!);
  const dead = calls.find(({ peer }) => peer === "statesync-2")!;
  update({ "statesync-2": "down" });
  dead.fail();
  await pass(0);
  let moved = 0;
  for (const id of IDS) {
    if (homes.get(id)!.isOver) moved++;
    else assertEquals(links.of(id), homes.get(id)!);
    assertEquals(links.of(id)!.isOver, false);
  }
  assert(moved > 20 && moved < 120, `${moved}`);
  links.close();
  await pass(0);
});

Deno.test("a worker whose calls fail is left alone, longer each time, and not for long once calls hold", async () => {
  const { links, calls, pass } = open(["statesync"]);
  const waits: number[] = [];
  for (let i = 0; i < 8; i++) {
    assert(links.of("d") !== undefined);
    calls.at(-1)!.fail();
    await pass(0);
    let waitMs = 0;
    for (; links.of("d") === undefined; waitMs += 10) await pass(10);
    waits.push(waitMs);
  }
  assertEquals(waits, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
  await pass(10_000);
  calls.at(-1)!.fail();
  await pass(60);
  assert(links.of("d") !== undefined);
  links.close();
  await pass(0);
});

Deno.test("without a worker there is no link, and what is under way is bounded", async () => {
  const { links, update, pass } = open(["statesync"]);
  update({ statesync: "down" });
  assertEquals(links.of("d"), undefined);
  update({});
  assert(links.of("d") !== undefined);
  const most = 256 * 1_024 * 1_024;
  assertEquals([links.reserve(most), links.reserve(1)], [true, false]);
  links.release(most);
  assertEquals(links.reserve(1), true);
  links.close();
  await pass(0);
});
