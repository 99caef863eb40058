import { assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { ConnectError, type Transport } from "@connectrpc/connect";
import type { Channel } from "../../transport/channels/channel.ts";
import { silentLogger } from "./log.ts";
import { createPeers } from "./peers.ts";
import type { Peer } from "./worker_context.ts";

/** A table whose channels are made by hand; `channel(name)` is what a call would ask for. */
function table() {
  const connects: { port: number; answer: PromiseWithResolvers<Channel> }[] = [];
  const channels: { isOpen: boolean; port: number }[] = [];
  const sources: (() => Channel | Promise<Channel>)[] = [];
  const peers = createPeers({
    connect(to) {
      const answer = Promise.withResolvers<Channel>();
      connects.push({ port: to.port, answer });
      return answer.promise;
    },
    createTransport({ channel }) {
      sources.push(channel);
      return { id: sources.length - 1 } as unknown as Transport;
    },
    log: silentLogger,
  });
  const channel = (name: string) => sources[(peers.transport(name) as unknown as { id: number }).id]!();
  const open = (index: number): Channel => {
    const closed = Promise.withResolvers<void>();
    const made = {
      isOpen: true,
      port: connects[index]!.port,
      closed: closed.promise,
      close() {
        this.isOpen = false;
        closed.resolve();
      },
    };
    channels.push(made);
    connects[index]!.answer.resolve(made as unknown as Channel);
    return made as unknown as Channel;
  };
  return { peers, connects, channels, channel, open };
}

const kv = (state: "up" | "down", incarnation: number): Peer => ({
  name: "kv",
  address: { hostname: "127.0.0.1", port: 7401 },
  state,
  incarnation,
});

Deno.test("Peers opens one channel for all calls and keeps it", async () => {
  const { peers, connects, channel, open } = table();
  peers.update([kv("up", 1)]);
  const waiting = [channel("kv"), channel("kv")];
  assertEquals(connects.map(({ port }) => port), [7401]);
  const opened = open(0);
  assertEquals(await Promise.all(waiting), [opened, opened]);
  assertEquals(channel("kv"), opened);
  assertEquals([peers.names(), peers.state("kv"), peers.state("nobody")], [["kv"], "up", "unknown"]);
  assertEquals(peers.transport("kv"), peers.transport("kv"));
});

Deno.test("Peers fails at once, and names the peer, while it is down or not in the book", () => {
  const { peers, connects, channel } = table();
  assertThrows(() => channel("kv"), ConnectError, "[unavailable] kv is not in the address book");
  peers.update([kv("down", 1)]);
  assertThrows(() => channel("kv"), ConnectError, "[unavailable] kv is down");
  assertEquals(connects, []);
});

Deno.test("Peers closes the channel when the peer goes down, and opens a new one to its next life", async () => {
  const { peers, channels, channel, open } = table();
  peers.update([kv("up", 1)]);
  const first = channel("kv");
  open(0);
  await first;
  peers.update([kv("down", 1)]);
  assertEquals(channels.map(({ isOpen }) => isOpen), [false]);
  peers.update([kv("up", 2)]);
  const second = channel("kv");
  const opened = open(1);
  assertEquals(await second, opened);
});

Deno.test("Peers opens the channel anew when it was lost while the peer is up", async () => {
  const { peers, connects, channels, channel, open } = table();
  peers.update([kv("up", 1)]);
  const first = channel("kv");
  open(0);
  await first;
  channels[0]!.isOpen = false;
  const second = channel("kv");
  assertEquals(connects.length, 2);
  open(1);
  await second;
});

Deno.test("Peers does not use a channel that opens after the peer's life has ended", async () => {
  const { peers, channels, channel, open } = table();
  peers.update([kv("up", 1)]);
  const late = Promise.resolve(channel("kv"));
  peers.update([kv("down", 1), kv("up", 2)]);
  open(0);
  await assertRejects(() => late, ConnectError, "kv went down while connecting");
  assertEquals(channels.map(({ isOpen }) => isOpen), [false]);
  const next = channel("kv");
  const opened = open(1);
  assertEquals(await next, opened);
});

Deno.test("Peers reports a peer that cannot be reached as unavailable, and tries again at the next call", async () => {
  const { peers, connects, channel } = table();
  peers.update([kv("up", 1)]);
  const failing = Promise.resolve(channel("kv"));
  connects[0]!.answer.reject(new Error("no answer"));
  await assertRejects(() => failing, ConnectError, "[unavailable] kv cannot be reached");
  Promise.resolve(channel("kv")).catch(() => {});
  assertEquals(connects.length, 2);
});

Deno.test("Peers.close() closes every channel and refuses later calls", async () => {
  const { peers, channels, channel, open } = table();
  peers.update([kv("up", 1)]);
  const first = channel("kv");
  open(0);
  await first;
  peers.close();
  assertEquals(channels[0]!.isOpen, false);
  assertThrows(() => channel("kv"), ConnectError, "this worker is stopping");
});

Deno.test("Peers lets calls finish at a peer that left in peace, and takes no new ones", async () => {
  const { peers, channels, channel, open } = table();
  peers.update([kv("up", 1)]);
  const waiting = channel("kv");
  open(0);
  await waiting;
  peers.update([], ["kv", "nobody"]);
  assertEquals([peers.names(), peers.state("kv"), channels[0]!.isOpen], [[], "unknown", true]);
  assertThrows(() => channel("kv"), ConnectError, "[unavailable] kv is not in the address book");
  peers.close();
  assertEquals(channels[0]!.isOpen, false);
});

Deno.test("Peers closes the channel to a peer that was down before it left", async () => {
  const { peers, channels, channel, open } = table();
  peers.update([kv("up", 1)]);
  const waiting = channel("kv");
  open(0);
  await waiting;
  peers.update([kv("down", 1)]);
  peers.update([], ["kv"]);
  assertEquals(channels[0]!.isOpen, false);
  peers.close();
});

Deno.test("Peers.instances() lists a service's peers, and is the same array until the book changes", () => {
  const { peers } = table();
  const far: Peer = { ...kv("up", 1), name: "kv@10.0.0.2:7402", service: "kv" };
  peers.update([kv("up", 1), far]);
  const before = peers.instances("kv");
  assertEquals(before.map(({ name }) => name), ["kv", "kv@10.0.0.2:7402"]);
  assertStrictEquals(peers.instances("kv"), before);
  peers.update([kv("down", 1)]);
  assertEquals(peers.instances("kv").map(({ state }) => state), ["down", "up"]);
  peers.update([], ["kv"]);
  assertEquals(peers.instances("kv").map(({ name }) => name), ["kv@10.0.0.2:7402"]);
  assertEquals(peers.instances("nobody"), []);
});

Deno.test("Peers.transport() of a service reaches an instance that is up when no peer has its name", async () => {
  const { peers, connects, channel, open } = table();
  const far = (port: number, state: "up" | "down"): Peer => ({
    ...kv(state, 1),
    name: `kv@10.0.0.2:${port}`,
    service: "kv",
    address: { hostname: "10.0.0.2", port },
  });
  peers.update([far(1, "down"), far(2, "up")]);
  const waiting = channel("kv");
  assertEquals(connects.map(({ port }) => port), [2]);
  open(0);
  await waiting;
  assertEquals(peers.channelStats("kv@10.0.0.2:1"), undefined);
});
