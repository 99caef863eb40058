import { assert, assertEquals } from "@std/assert";
import { createRouterTransport, type Transport } from "@connectrpc/connect";
import { HubLinkService } from "$proto/aetherflow/gateway/v1/hub_pb.ts";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { pause, systemTimer } from "../timer.ts";
import { LinkServer } from "./link_server.ts";
import { HubRelay, ownerOf } from "./relay.ts";
import { createHubWorld, type HubWorld, type TestClient, user } from "./testing/hub_world.ts";

const ADA = user("ada");
const NAMES = ["gateway-1", "gateway-2"];

interface Worker {
  readonly world: HubWorld;
  readonly relay: HubRelay;
  /** How others reach it. */
  transport: Transport;
}

const GONE: Transport = createRouterTransport(() => {});

/** Two gateway workers. `restart` gives one a new life with nothing in memory. */
function open() {
  const workers = new Map<string, Worker>();
  const start = (self: string) => {
    const server = new LinkServer();
    const relay = new HubRelay({
      self,
      workers: () => NAMES,
      transport: (name) => workers.get(name)?.transport ?? GONE,
      server,
      pause: (_delayMs, signal) => pause(systemTimer, 5, signal),
      log() {},
    });
    const world = createHubWorld({ presenceTickMs: 10 }, relay);
    const [near, far] = createMemoryChannelPair();
    const rpc = createRpcServer({ onError() {} });
    rpc.accept(far);
    rpc.service(HubLinkService, server.handlers(world.hub));
    workers.set(self, { world, relay, transport: createChannelTransport({ channel: () => near }) });
    return () => {
      relay.close();
      world.hub.close();
      near.close(0, "gone");
      far.close(0, "gone");
    };
  };
  const stops = new Map(NAMES.map((name) => [name, start(name)]));
  for (const { relay, world } of workers.values()) relay.start(world.hub);
  return {
    worker: (name: string) => workers.get(name)!.world,
    restart(name: string) {
      stops.get(name)!();
      stops.set(name, start(name));
      const { relay, world } = workers.get(name)!;
      relay.start(world.hub);
    },
    [Symbol.dispose]() {
      for (const stop of stops.values()) stop();
    },
  };
}

/** Waits until a client has got something. */
async function until<T>(look: () => T | undefined): Promise<T> {
  for (let turns = 0; turns < 5_000; turns++) {
    const found = look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new Error("it never came");
}

const notes = (client: TestClient) => client.received.filter(({ type }) => type === "notify");

/** A channel that a worker keeps. */
function channelOf(owner: string): string {
  for (let i = 0;; i++) if (ownerOf(`channel-${i}`, NAMES) === owner) return `channel-${i}`;
}

Deno.test("ownerOf() spreads channels over workers, and one more takes only its share", () => {
  const channels = Array.from({ length: 3_000 }, (_, i) => `channel ${i}`);
  const of = (workers: readonly string[]) => channels.map((channel) => ownerOf(channel, workers));
  const three = of(["a", "b", "c"]);
  for (const name of ["a", "b", "c"]) {
    const share = three.filter((owner) => owner === name).length;
    assert(share > 900 && share < 1_100, `${name} has ${share}`);
  }
  assertEquals(of(["c", "a", "b"]), three);
  for (const [i, owner] of of(["a", "b", "c", "d"]).entries()) assert(owner === three[i] || owner === "d");
  assertEquals(of(["a"]), channels.map(() => "a"));
});

Deno.test("a channel of another worker is heard, published in, asked about and recovered as one's own", async () => {
  using pair = open();
  const [far, near] = [pair.worker("gateway-1"), pair.worker("gateway-2")];
  const channel = channelOf("gateway-1");
  const [here, there] = [near.connect(ADA), far.connect(user("bob"))];
  await here.say("subscribe", { channel });
  const begun = await until(() => here.received.find(({ type }) => type === "subscribe"));
  await there.say("subscribe", { channel });
  await here.say("publish", { channel, data: 1 });
  await until(() => here.received.find(({ type }) => type === "publish"));
  await until(() => notes(here)[0]);
  assertEquals(notes(here), notes(there));
  const again = near.connect(ADA);
  await again.say("subscribe", { channel, offset: 0, epoch: begun.data.epoch });
  assertEquals((await until(() => notes(again)[0])).data.data, 1);
  assertEquals(again.received[0]!.data.recovered, true);
  await again.say("history", { channel });
  const history = await until(() => again.received.find(({ type }) => type === "history"));
  assertEquals(history.data.messages, notes(here));
  // Both know of both, whoever keeps the channel.
  for (const client of [here, there]) {
    await until(() => {
      void client.say("presence", { channel });
      const found = client.received.findLast(({ type }) => type === "presence");
      return found?.data.total === 2 ? found : undefined;
    });
  }
});

Deno.test("when the worker that keeps a channel starts anew, who hears it elsewhere is told to reload and goes on", async () => {
  using pair = open();
  const near = pair.worker("gateway-2");
  const channel = channelOf("gateway-1");
  const client = near.connect(ADA);
  await client.say("subscribe", { channel });
  await until(() => client.received.find(({ type }) => type === "subscribe"));
  await client.say("publish", { channel, data: 1 });
  await until(() => notes(client)[0]);
  const bob = pair.worker("gateway-1").connect(user("bob"));
  await bob.say("subscribe", { channel });
  await until(() => near.hub.present(channel).length === 2 ? true : undefined);
  pair.restart("gateway-1");
  // Its pauses are the test's to end.
  const reload = await until(() => {
    near.timer.fire();
    return notes(client).find(({ data }) => data.event === "reload");
  });
  assertEquals(reload.data.offset, 0);
  assertEquals(near.hub.present(channel).map(({ username }) => username), ["ada"]);
  await client.say("publish", { channel, data: 2 });
  const next = await until(() => notes(client).find(({ data }) => data.data === 2));
  assertEquals([next.data.offset, next.data.epoch], [1, reload.data.epoch]);
});
