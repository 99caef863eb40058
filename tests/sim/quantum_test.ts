import { assert, assertEquals, assertGreater, assertLess, assertNotEquals } from "@std/assert";
import type { Address } from "../../transport/quantum/types.ts";
import type { LinkProfile } from "./network.ts";
import { type PeerOptions, QuantumPeer } from "./quantum_peer.ts";
import { SimRandom } from "./random.ts";
import { simTest } from "./seeds.ts";
import { World } from "./world.ts";

const MB = 1_000_000;
const CLIENT: Address = { hostname: "10.0.0.1", port: 4001 };
const SERVER: Address = { hostname: "10.0.0.2", port: 4002 };

interface Pair {
  readonly world: World;
  readonly client: QuantumPeer;
  readonly server: QuantumPeer;
}

function pair(seed: number, link: Partial<LinkProfile> = {}, options: PeerOptions = {}): Pair {
  const world = new World({ seed, link });
  const server = new QuantumPeer(world, SERVER, options);
  const client = new QuantumPeer(world, CLIENT, options);
  return { world, client, server };
}

/** A pair with an open connection. */
function connectedPair(seed: number, link: Partial<LinkProfile> = {}, options: PeerOptions = {}) {
  const { world, client, server } = pair(seed, link, options);
  const connection = client.connect(server);
  world.run(() => client.connected.length * server.connected.length + client.closed.length > 0, 30_000);
  assertEquals(client.closed, []);
  return { world, client, server, connection };
}

/** Runs until the server has `count` whole streams, each of `byteCount` right bytes; how long it took in virtual time. */
function finish({ world, client, server }: Pair, count: number, byteCount: number, limitMs: number): number {
  const startMs = world.now;
  try {
    world.run(
      () => server.finished >= count || client.closed.length > 0 || server.closed.length > 0,
      limitMs,
    );
  } catch (cause) {
    throw new Error(`${server.bytesReceived} bytes in ${server.finished} whole streams after ${limitMs} ms`, {
      cause,
    });
  }
  assertEquals([client.closed, server.closed], [[], []]);
  for (const received of server.received.values()) {
    assertEquals([received.wrongAt, received.bytes], [-1, byteCount]);
  }
  return world.now - startMs;
}

/** One stream of `byteCount` bytes from client to server over such a link. */
function transfer(
  seed: number,
  link: Partial<LinkProfile>,
  byteCount: number,
  limitMs: number,
  options?: PeerOptions,
) {
  const pair = connectedPair(seed, link, options);
  pair.client.send(pair.connection, byteCount);
  return { ...pair, tookMs: finish(pair, 1, byteCount, limitMs) };
}

for (const loss of [0, 0.01, 0.05, 0.2]) {
  simTest(`Quantum carries 10 MB intact at ${loss * 100} % loss`, {}, (seed) => {
    transfer(seed, { loss }, 10 * MB, 1_200_000);
  });
}

simTest("Quantum completes 50 handshakes at 30 % loss both ways", {}, (seed) => {
  const world = new World({ seed, link: { loss: 0.3 } });
  const server = new QuantumPeer(world, SERVER);
  const clients = Array.from(
    { length: 50 },
    (_, i) => new QuantumPeer(world, { hostname: "10.0.1.1", port: 5_000 + i }),
  );
  for (const client of clients) client.connect(server);
  const all = () =>
    clients.every(({ connected }) => connected.length === 1) && server.connected.length === 50;
  const anyClosed = () => clients.some(({ closed }) => closed.length > 0) || server.closed.length > 0;
  world.run(() => all() || anyClosed(), 300_000);
  assertEquals([all(), anyClosed()], [true, false]);
  assertEquals(new Set(server.connected.map(({ peer }) => peer.port)).size, 50);
});

simTest("Quantum takes the same path for the same seed and another for another", {}, (seed) => {
  const rough = { loss: 0.02, jitterMs: 4, duplicate: 0.02, reorder: 0.05, corrupt: 0.01 };
  const digest = (chosen: number) => transfer(chosen, rough, MB, 120_000).world.trace.digest();
  const first = digest(seed);
  assertEquals(digest(seed), first);
  assertNotEquals(digest(seed + 1), first);
});

const HARD_LINKS: readonly [string, Partial<LinkProfile>][] = [
  ["2 % corrupted datagrams", { corrupt: 0.02 }],
  ["20 % duplicated datagrams", { duplicate: 0.2, reorderMs: 60 }],
  ["30 % reordered datagrams", { reorder: 0.3, reorderMs: 40 }],
  ["bursts of loss", { burst: { enter: 0.005, leave: 0.2, loss: 0.9 } }],
  ["jitter of 40 ms", { jitterMs: 40 }],
  ["a long path", { latencyMs: 375, loss: 0.005 }],
  ["all of it at once", { loss: 0.02, corrupt: 0.01, duplicate: 0.05, reorder: 0.1, jitterMs: 10 }],
];
for (const [name, link] of HARD_LINKS) {
  simTest(`Quantum carries 2 MB intact through ${name}`, { seeds: 2 }, (seed) => {
    transfer(seed, link, 2 * MB, 600_000);
  });
}

simTest("Quantum settles below the path's MTU of 1,300 and loses nothing", {}, (seed) => {
  const { client, connection } = transfer(seed, { mtuBytes: 1_300 }, 3 * MB, 60_000);
  const { datagramBytesMax } = client.endpoint.connectionStats(connection)!;
  assert(datagramBytesMax >= 1_200 && datagramBytesMax <= 1_300, `datagrams of ${datagramBytesMax} B`);
});

simTest("Quantum finds a loopback path's large datagrams", {}, (seed) => {
  const world = new World({ seed, link: { mtuBytes: 65_507, latencyMs: 0.03 } });
  const server = new QuantumPeer(world, { hostname: "127.0.0.1", port: 1 });
  const client = new QuantumPeer(world, { hostname: "127.0.0.1", port: 2 });
  const connection = client.connect(server);
  world.run(() => client.connected.length * server.connected.length > 0, 1_000);
  client.send(connection, 20 * MB);
  finish({ world, client, server }, 1, 20 * MB, 60_000);
  const { datagramBytesMax } = client.endpoint.connectionStats(connection)!;
  assertGreater(datagramBytesMax, 16_000);
});

simTest("Quantum falls back when a path's MTU shrinks under it", {}, (seed) => {
  const pair = transfer(seed, {}, 2 * MB, 60_000);
  pair.world.change(CLIENT, SERVER, { mtuBytes: 1_250 });
  pair.client.send(pair.connection, 2 * MB);
  finish(pair, 2, 2 * MB, 120_000);
});

simTest("Quantum fills a 10 Mbit/s link with a queue of 25 packets", {}, (seed) => {
  const link = { latencyMs: 15, rateBytesPerSecond: 1_250_000, queueBytes: 37_500 };
  const { tookMs } = transfer(seed, link, 10 * MB, 60_000);
  const share = 10 * MB / (tookMs / 1_000) / 1_250_000;
  assertGreater(share, 0.75, `${(share * 100).toFixed(0)} % of the link`);
});

simTest("Quantum survives a path that is 5 s there and 2 s gone, with one handshake", {}, (seed) => {
  const pair = connectedPair(seed, { latencyMs: 15, rateBytesPerSecond: 1_250_000, queueBytes: 37_500 });
  for (let cycle = 0; cycle < 20; cycle++) {
    pair.world.at(cycle * 7_000 + 5_000, () => pair.world.partition(CLIENT, SERVER, true));
    pair.world.at(cycle * 7_000 + 7_000, () => pair.world.partition(CLIENT, SERVER, false));
  }
  pair.client.send(pair.connection, 10 * MB);
  finish(pair, 1, 10 * MB, 60_000);
  assertEquals(pair.server.connected.length, 1);
});

simTest("Quantum finishes a stream whose datagrams arrived while another's is lost", {}, (seed) => {
  const { world, client, server, connection } = connectedPair(seed, { latencyMs: 20 });
  world.runFor(1_000);
  world.link(CLIENT, SERVER).up = false;
  const hit = client.send(connection, 500);
  world.link(CLIENT, SERVER).up = true;
  const spared = client.send(connection, 500);
  const serverSide = server.connected[0]!.connection;
  world.run(() => server.stream(serverSide, spared)?.fin === true, 1_000);
  assertEquals(server.stream(serverSide, hit)?.fin ?? false, false);
  world.run(() => server.stream(serverSide, hit)?.fin === true, 5_000);
});

simTest("Quantum carries many streams at once through loss", {}, (seed) => {
  const link = { loss: 0.03, jitterMs: 2 };
  const { world, client, server, connection } = connectedPair(seed, link, {});
  const count = Math.min(60, client.endpoint.streamCredit(connection));
  for (let i = 0; i < count; i++) client.send(connection, 20_000);
  finish({ world, client, server }, count, 20_000, 60_000);
});

simTest("Quantum refills stream credit, so that hundreds of short streams follow one another", {}, (seed) => {
  const { world, client, server, connection } = connectedPair(seed, { loss: 0.02 }, {});
  const total = 1_500;
  let opened = 0;
  const serverSide = server.connected[0]!.connection;
  const open = () => {
    while (opened < total && client.endpoint.streamCredit(connection) > 0) {
      client.send(connection, 100);
      opened++;
    }
    for (const [key, received] of server.received) {
      if (!received.fin) continue;
      server.received.delete(key);
      const stream = Number(key.split("/")[1]);
      server.command((endpoint) => endpoint.write(serverSide, stream, new Uint8Array(0), true));
    }
    if (opened < total) world.at(world.now + 5, open);
  };
  open();
  world.run(() => opened >= total, 120_000);
  assertEquals([client.closed, server.closed], [[], []]);
});

simTest("Quantum stops a sender whose reader reports nothing", {}, (seed) => {
  const { world, client, server, connection } = connectedPair(seed, {}, { consume: false });
  const stream = client.send(connection, 40 * MB);
  world.runFor(20_000);
  const before = server.bytesReceived;
  world.runFor(5_000);
  assertEquals(server.bytesReceived, before);
  assertLess(before, 20 * MB);
  assertEquals([client.closed, server.closed], [[], []]);
  const serverSide = server.connected[0]!.connection;
  server.command((endpoint) => endpoint.consumed(serverSide, stream, before));
  world.run(() => server.bytesReceived > before, 5_000);
});

simTest("Quantum notices a restarted peer by its stateless reset", {}, (seed) => {
  const { world, client, server, connection } = connectedPair(seed);
  client.send(connection, 1_000);
  world.runFor(1_000);
  world.remove(SERVER);
  const reborn = new QuantumPeer(world, SERVER, { incarnation: 1 });
  const restartMs = world.now;
  client.send(connection, 1_000);
  world.run(() => client.closed.length > 0, 5_000);
  assertEquals(client.closed[0]?.by, "lost");
  assertLess(world.now - restartMs, 1_000);
  assertEquals([reborn.connected, reborn.received.size, server.closed], [[], 0, []]);
});

simTest(
  "Quantum gives up after the idle timeout when the path is gone, and then wants nothing more",
  {},
  (seed) => {
    const { world, client, server, connection } = connectedPair(seed);
    client.send(connection, 1_000);
    world.runFor(1_000);
    world.partition(CLIENT, SERVER, true);
    world.run(() => client.closed.length > 0 && server.closed.length > 0, 120_000);
    assertEquals([client.closed[0]?.by, server.closed[0]?.by], ["lost", "lost"]);
    world.runFor(120_000);
    assertEquals([client.nextTimeout(), server.nextTimeout()], [undefined, undefined]);
  },
);

simTest("Quantum keeps an idle connection alive on a path that works", {}, (seed) => {
  const { world, client, server, connection } = connectedPair(seed, { loss: 0.1 });
  world.runFor(300_000);
  client.send(connection, 1_000);
  finish({ world, client, server }, 1, 1_000, 5_000);
});

simTest("Quantum answers no one with another secret", {}, (seed) => {
  const world = new World({ seed });
  const server = new QuantumPeer(world, SERVER);
  const stranger = new QuantumPeer(world, CLIENT, { secret: new Uint8Array(32).fill(8) });
  stranger.connect(server);
  world.run(() => stranger.closed.length > 0, 120_000);
  assertEquals([stranger.connected, server.connected, server.closed], [[], [], []]);
  world.runFor(60_000);
  assertEquals(server.nextTimeout(), undefined);
});

simTest("Quantum tells the peer of a close, and then wants nothing more", {}, (seed) => {
  const { world, client, server, connection } = connectedPair(seed);
  client.command((endpoint, now) => endpoint.close(connection, 42, "done", now));
  world.run(() => client.closed.length > 0 && server.closed.length > 0, 60_000);
  assertEquals([client.closed[0]?.by, client.closed[0]?.code], ["local", 42]);
  assertEquals([server.closed[0]?.by, server.closed[0]?.code, server.closed[0]?.reason], [
    "peer",
    42,
    "done",
  ]);
  world.runFor(60_000);
  assertEquals([client.nextTimeout(), server.nextTimeout()], [undefined, undefined]);
});

simTest("Quantum resets and stops streams with their codes through loss", { seeds: 3 }, (seed) => {
  const { world, client, server, connection } = connectedPair(seed, { loss: 0.2 });
  const stream = client.send(connection, 5 * MB);
  world.runFor(200);
  const serverSide = server.connected[0]!.connection;
  client.command((endpoint) => endpoint.resetStream(connection, stream, 5));
  server.command((endpoint) => endpoint.stopStream(serverSide, stream, 6));
  const other = client.send(connection, 1_000);
  world.run(() => server.stream(serverSide, other)?.fin === true, 60_000);
  world.runFor(20_000);
  assertEquals([client.closed, server.closed], [[], []]);
});

simTest(
  "Quantum ignores garbage and answers it with no more than three times its size",
  { seeds: 2 },
  (seed) => {
    const { world, client, server, connection } = connectedPair(seed);
    const random = world.random.fork("garbage");
    const attacker: Address = { hostname: "10.6.6.6", port: 666 };
    let sentBytes = 0;
    for (let i = 0; i < 2_000; i++) {
      world.at(world.now + i, () => {
        const bytes = random.fill(new Uint8Array(1 + random.below(1_400)));
        // Half of it looks like the protocol from afar.
        if (random.chance(0.5) && bytes.length > 6) {
          bytes.set([0x51, 0x55, 0x4e, 0x54, 2, random.pick([0, 1, 2, 3, 4, 8])]);
        }
        sentBytes += bytes.length;
        // From a stranger, or as if from the client itself.
        server.handleDatagram(bytes, random.chance(0.5) ? attacker : CLIENT, world.now);
        world.touch(SERVER);
      });
    }
    client.send(connection, MB);
    finish({ world, client, server }, 1, MB, 60_000);
    world.runFor(5_000);
    assertLess(world.link(SERVER, attacker).bytes, 3 * sentBytes);
    assertEquals(server.connected.length, 1);
    assertEquals([client.closed, server.closed], [[], []]);
  },
);

simTest("Quantum drops replayed datagrams", { seeds: 2 }, (seed) => {
  const { world, client, server, connection } = connectedPair(seed);
  const recorded: Uint8Array[] = [];
  const deliver = server.handleDatagram.bind(server);
  server.handleDatagram = (bytes, from, now) => {
    recorded.push(bytes.slice());
    deliver(bytes, from, now);
  };
  client.send(connection, 200_000);
  finish({ world, client, server }, 1, 200_000, 10_000);
  const events = server.received.size;
  for (const bytes of [...recorded]) deliver(bytes.slice(), CLIENT, world.now);
  world.touch(SERVER);
  world.runFor(1_000);
  assertEquals([server.received.size, server.finished], [events, 1]);
  assertEquals([client.closed, server.closed], [[], []]);
});

/** A path drawn from the seed, from loopback's delay to a satellite's and from clean to hopeless. */
function drawLink(draw: SimRandom): Partial<LinkProfile> {
  return {
    latencyMs: draw.pick([0.05, 1, 10, 60, 200]),
    jitterMs: draw.pick([0, 0, 1, 20]),
    loss: draw.pick([0, 0, 0.01, 0.05, 0.15]),
    burst: draw.chance(0.25) ? { enter: 0.01, leave: 0.3, loss: 0.8 } : undefined,
    reorder: draw.pick([0, 0, 0.02, 0.2]),
    reorderMs: draw.pick([1, 20, 100]),
    duplicate: draw.pick([0, 0, 0.02, 0.2]),
    corrupt: draw.pick([0, 0, 0.005, 0.03]),
    mtuBytes: draw.pick([1_200, 1_280, 1_500, 1_500, 9_000]),
    rateBytesPerSecond: draw.pick([undefined, undefined, 100_000, 1_250_000, 12_500_000]),
    queueBytes: draw.pick([20_000, 50_000, 200_000]),
  };
}

/** A pair on such a path, which may be cut for a while. */
function drawnPair(seed: number, draw: SimRandom) {
  const both = connectedPair(seed, drawLink(draw));
  const { world } = both;
  if (draw.chance(0.3)) {
    const fromMs = world.now + draw.below(2_000);
    world.at(fromMs, () => world.partition(CLIENT, SERVER, true));
    world.at(fromMs + 200 + draw.below(3_000), () => world.partition(CLIENT, SERVER, false));
  }
  return { ...both, serverSide: both.server.connected[0]!.connection };
}

const DRAWN_SIZES = [0, 1, 100, 1_200, 30_000, 300_000];

/** The widest net: everything drawn from the seed. Meant for many seeds in a soak. */
simTest("Quantum delivers everything intact in a world drawn from the seed", { seeds: 12 }, (seed) => {
  const draw = new SimRandom(seed, "scenario");
  const { world, client, server, connection, serverSide } = drawnPair(seed, draw);
  const sizes = (count: number) => Array.from({ length: count }, () => draw.pick(DRAWN_SIZES));
  const [upSizes, downSizes] = [sizes(1 + draw.below(8)), sizes(draw.below(4))];
  const upStreams = upSizes.map((bytes) => client.send(connection, bytes));
  const downStreams = downSizes.map((bytes) => server.send(serverSide, bytes));
  const anyClosed = () => client.closed.length + server.closed.length > 0;
  const done = () => server.finished === upSizes.length && client.finished === downSizes.length;
  world.run(() => done() || anyClosed(), 3_600_000);
  assertEquals([client.closed, server.closed], [[], []]);
  const outcome = (peer: QuantumPeer, handle: number, streams: number[]) =>
    streams.map((stream) => peer.stream(handle, stream)).map((got) => [got?.bytes, got?.wrongAt]);
  assertEquals(outcome(server, serverSide, upStreams), upSizes.map((bytes) => [bytes, -1]));
  assertEquals(outcome(client, connection, downStreams), downSizes.map((bytes) => [bytes, -1]));
});

simTest("Quantum keeps its word when streams are reset and stopped at random", { seeds: 12 }, (seed) => {
  const draw = new SimRandom(seed, "resets");
  const { world, client, server, connection, serverSide } = drawnPair(seed, draw);
  const disturbed = new Set<number>();
  const sizes = Array.from({ length: 20 + draw.below(40) }, () => draw.pick(DRAWN_SIZES));
  const streams = sizes.map((bytes) => client.send(connection, bytes));
  for (const stream of streams) {
    if (!draw.chance(0.5)) continue;
    disturbed.add(stream);
    const code = 256 + draw.below(1_000);
    const byClient = draw.chance(0.5);
    world.at(world.now + draw.float() * draw.pick([1, 100, 3_000]), () => {
      if (byClient) client.command((endpoint) => endpoint.resetStream(connection, stream, code));
      // An application stops only streams that it has heard of.
      else if (server.stream(serverSide, stream)) {
        server.command((endpoint) => endpoint.stopStream(serverSide, stream, code));
      }
    });
  }
  // Every stream is answered, so that both halves of all of them end and their memory goes.
  const answered = new Set<number>();
  const ended = (peer: QuantumPeer, handle: number, stream: number) => {
    const got = peer.stream(handle, stream);
    return got !== undefined && (got.fin || got.resetCode !== undefined);
  };
  const done = () => {
    for (const stream of streams) {
      if (answered.has(stream) || !ended(server, serverSide, stream)) continue;
      answered.add(stream);
      server.command((endpoint) => endpoint.write(serverSide, stream, new Uint8Array(0), true));
    }
    return answered.size === streams.length && streams.every((stream) => ended(client, connection, stream));
  };
  world.run(() => done() || client.closed.length + server.closed.length > 0, 3_600_000);
  assertEquals([client.closed, server.closed], [[], []]);
  streams.forEach((stream, i) => {
    const got = server.stream(serverSide, stream)!;
    assertEquals(got.wrongAt, -1);
    if (!disturbed.has(stream)) assertEquals([got.bytes, got.fin], [sizes[i], true]);
  });
  world.runFor(30_000);
  const open = [client.endpoint.connectionStats(connection), server.endpoint.connectionStats(serverSide)];
  assertEquals(open.map((stats) => stats?.streamsOpen), [0, 0]);
});

simTest("Quantum gives back the credit of streams that were reset or stopped", { seeds: 2 }, (seed) => {
  const { world, client, server, connection } = connectedPair(seed, { loss: 0.05, latencyMs: 1 }, {
    consume: false,
  });
  const serverSide = server.connected[0]!.connection;
  // Five times the connection's window goes by unread; only its return lets the last stream through.
  for (let i = 0; i < 20; i++) {
    const stream = client.send(connection, 8 * MB);
    world.run(() => (server.stream(serverSide, stream)?.bytes ?? 0) > MB, 60_000);
    if (i % 2 === 0) client.command((endpoint) => endpoint.resetStream(connection, stream, 1));
    else server.command((endpoint) => endpoint.stopStream(serverSide, stream, 1));
    server.command((endpoint) => endpoint.write(serverSide, stream, new Uint8Array(0), true));
  }
  const last = client.send(connection, 2 * MB);
  world.run(() => server.stream(serverSide, last)?.fin === true, 60_000);
  assertEquals([client.closed, server.closed], [[], []]);
});
