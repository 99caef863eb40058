import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { channelSuite, echo, firstDifference, pattern, StreamProbe } from "../testing/channel_suite.ts";
import { type Channel, ChannelError, type ChannelStream } from "./channel.ts";
import { openQuantumNode, type QuantumNode } from "./quantum.ts";

const LISTEN = { hostname: "127.0.0.1", port: 0 };
const SECRET = new Uint8Array(32).fill(3);

interface Nodes {
  readonly serverNode: QuantumNode;
  readonly clientNode: QuantumNode;
  readonly client: Channel;
  readonly server: Channel;
  close(): Promise<void>;
}

async function open(): Promise<Nodes> {
  const accepted = Promise.withResolvers<Channel>();
  const serverNode = openQuantumNode({ listen: LISTEN, secret: SECRET, onChannel: accepted.resolve });
  const clientNode = openQuantumNode({ listen: LISTEN, secret: SECRET });
  const client = await clientNode.connect(serverNode.address);
  const server = await accepted.promise;
  const close = async () => {
    await Promise.all([clientNode.close(), serverNode.close()]);
  };
  return { serverNode, clientNode, client, server, close };
}

function nodesTest(name: string, body: (nodes: Nodes) => Promise<void>): void {
  Deno.test(name, async () => {
    const nodes = await open();
    try {
      await body(nodes);
    } finally {
      await nodes.close();
    }
  });
}

channelSuite("Quantum", open);

nodesTest("QuantumNode carries 50 MB over loopback intact, the reader checking as it goes", async (nodes) => {
  const total = 50_000_000;
  const wrong = Promise.withResolvers<number>();
  let received = 0;
  nodes.server.onStream((stream) => ({
    onData(bytes, fin) {
      const difference = firstDifference(bytes, received);
      if (difference >= 0) wrong.resolve(received + difference);
      received += bytes.length;
      stream.consumed(bytes.length);
      if (fin) wrong.resolve(-1);
    },
    onReset() {},
    onStop() {},
    onDrain() {},
  }));
  let offered = 0;
  const fill = () => {
    while (offered < total) {
      const bytes = pattern(Math.min(50_000, total - offered), offered);
      offered += bytes.length;
      if (!stream.write(bytes, offered === total)) return;
    }
  };
  const stream: ChannelStream = nodes.client.openStream({
    onData() {},
    onReset() {},
    onStop() {},
    onDrain: fill,
  });
  fill();
  assertEquals([await wrong.promise, received], [-1, total]);
});

nodesTest("QuantumNode bounds what a slow reader makes both ends hold", async ({ client, server }) => {
  const slow = new StreamProbe({ consume: false });
  server.onStream((stream) => slow.on(stream));
  let offered = 0;
  const paused = Promise.withResolvers<void>();
  const fill = () => {
    while (stream.write(new Uint8Array(10_000), false)) offered += 10_000;
    paused.resolve();
  };
  const stream: ChannelStream = client.openStream({ onData() {}, onReset() {}, onStop() {}, onDrain: fill });
  fill();
  await paused.promise;
  const held = await slow.quiet();
  assert(held <= 4 * 1024 * 1024, `the reader holds ${held} bytes`);
  assert(offered - held <= 2 * 1024 * 1024, `the writer holds ${offered - held} bytes`);
});

Deno.test("QuantumNode.connect() gets nothing from a peer with another secret, and is stopped by its signal", async () => {
  let channels = 0;
  const log: string[] = [];
  const serverNode = openQuantumNode({
    listen: LISTEN,
    secret: SECRET,
    onChannel: () => channels++,
    log: (message) => log.push(message),
  });
  const stranger = openQuantumNode({ listen: LISTEN, secret: new Uint8Array(32).fill(4) });
  const abort = new AbortController();
  const attempt = stranger.connect(serverNode.address, abort.signal);
  while (serverNode.stats().datagramsReceived < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  abort.abort(new Error("enough"));
  await assertRejects(() => attempt, Error, "enough");
  assertEquals([channels, serverNode.stats().datagramsSent, serverNode.stats().channels, log], [0, 0, 0, []]);
  await Promise.all([serverNode.close(), stranger.close()]);
});

nodesTest(
  "QuantumNode shrugs off random datagrams while it works",
  async ({ client, server, serverNode }) => {
    server.onStream(echo);
    const noise = Deno.listenDatagram({ transport: "udp", ...LISTEN });
    const { hostname, port } = serverNode.address;
    for (let i = 0; i < 300; i++) {
      const bytes = crypto.getRandomValues(new Uint8Array(1 + i * 4));
      if (i % 2 === 0) bytes.set([0x51, 0x55, 0x4e, 0x54, 2].slice(0, bytes.length));
      await noise.send(bytes, { transport: "udp", hostname, port });
    }
    const probe = new StreamProbe();
    client.openStream(probe).write(pattern(1_000, 0), true);
    assertEquals(await probe.whole, pattern(1_000, 0));
    noise.close();
  },
);

Deno.test("QuantumNode.connect() rejects at once when its signal was aborted before", async () => {
  const node = openQuantumNode({ listen: LISTEN, secret: SECRET });
  await assertRejects(() => node.connect(LISTEN, AbortSignal.abort(new Error("before"))), Error, "before");
  assertEquals(node.stats().connecting, 0);
  await node.close();
});

Deno.test("QuantumNode.connect() rejects when the node closes under it, and after", async () => {
  const node = openQuantumNode({ listen: LISTEN, secret: SECRET });
  const silent = Deno.listenDatagram({ transport: "udp", ...LISTEN });
  const attempt = node.connect({ hostname: "127.0.0.1", port: (silent.addr as Deno.NetAddr).port });
  attempt.catch(() => {});
  await node.close();
  for (const refused of [attempt, node.connect(LISTEN)]) {
    const error = await assertRejects(() => refused);
    assertInstanceOf(error, ChannelError);
    assertEquals(error.code, "closed");
  }
  silent.close();
});

Deno.test("QuantumNode.connect() rejects when the peer accepts no channels", async () => {
  const [a, b] = [
    openQuantumNode({ listen: LISTEN, secret: SECRET }),
    openQuantumNode({ listen: LISTEN, secret: SECRET }),
  ];
  await assertRejects(() => a.connect(b.address), ChannelError);
  await Promise.all([a.close(), b.close()]);
});

Deno.test("QuantumNode.close() is idempotent and ends open streams at both ends", async () => {
  const { client, server, clientNode, serverNode } = await open();
  const atServer = new StreamProbe();
  server.onStream((stream) => atServer.on(stream));
  const atClient = new StreamProbe();
  client.openStream(atClient).write(pattern(100, 0), false);
  await atServer.someData;
  await Promise.all([clientNode.close(300, "bye"), clientNode.close(301, "again")]);
  assertEquals(await client.closed, { code: 300, reason: "bye", by: "local" });
  assertEquals(await server.closed, { code: 300, reason: "bye", by: "peer" });
  assertEquals([await atClient.resetCode, await atClient.stopCode], [300, 300]);
  assertEquals([await atServer.resetCode, await atServer.stopCode], [300, 300]);
  await clientNode.close();
  await serverNode.close();
});

Deno.test("QuantumNode.close() delivers what was written before it", async () => {
  const { client, server, clientNode, serverNode } = await open();
  const atServer = new StreamProbe();
  server.onStream((stream) => atServer.on(stream));
  client.openStream(new StreamProbe()).write(pattern(500_000, 0), true);
  await clientNode.close();
  assertEquals((await atServer.whole).length, 500_000);
  await serverNode.close();
});

nodesTest(
  "QuantumNode opens many channels between the same two nodes",
  async ({ clientNode, serverNode }) => {
    const channels = await Promise.all(
      Array.from({ length: 50 }, () => clientNode.connect(serverNode.address)),
    );
    assertEquals(clientNode.stats().channels, 51);
    for (const channel of channels) channel.close(0, "");
    assertEquals(clientNode.stats().channels, 1);
  },
);

Deno.test("QuantumNode notices a peer that was killed and came back on the same port", async () => {
  let worker = await startEcho(0);
  const node = openQuantumNode({ listen: LISTEN, secret: SECRET });
  const to = { hostname: "127.0.0.1", port: worker.port };
  const channel = await node.connect(to);
  assertEquals(await roundTrip(channel), 10);
  worker.thread.terminate();
  worker = await startEcho(to.port);
  channel.openStream(new StreamProbe()).write(new Uint8Array(1), true);
  const { by } = await channel.closed;
  assertEquals(by, "lost");
  assertEquals(await roundTrip(await node.connect(to)), 10);
  await node.close();
  worker.thread.terminate();
});

async function roundTrip(channel: Channel): Promise<number> {
  const probe = new StreamProbe();
  channel.openStream(probe).write(new Uint8Array(10), true);
  return (await probe.whole).length;
}

/** Starts the echo in a thread; tries again while a killed one still holds the port. */
async function startEcho(port: number): Promise<{ thread: Worker; port: number }> {
  const thread = new Worker(new URL("../testing/echo_worker.ts", import.meta.url), { type: "module" });
  for (;;) {
    const bound = await new Promise<number | undefined>((resolve) => {
      thread.onmessage = ({ data }) => resolve(data);
      thread.postMessage({ port, secret: SECRET });
    });
    if (bound !== undefined) return { thread, port: bound };
  }
}
