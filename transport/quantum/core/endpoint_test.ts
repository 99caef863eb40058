import { assert, assertEquals, assertThrows } from "@std/assert";
import { CLOSE_CODE, type DropReason, QuantumError } from "../errors.ts";
import { MAX_RESETS_PER_SECOND, MAX_RESPONSES_QUEUED } from "../params.ts";
import type { QuantumEndpoint, QuantumEvent } from "../types.ts";
import { AT, FLAG, HEADER_BYTES, TAG_BYTES, writeHeader } from "../wire/header.ts";
import { createQuantumEndpoint, type QuantumOptions } from "./endpoint.ts";
import { pattern, Pipe, SECRET, seededRandom } from "./_pipe.ts";

const EMPTY = new Uint8Array(0);

function dropped(endpoint: QuantumEndpoint): Partial<Record<DropReason, number>> {
  return Object.fromEntries(Object.entries(endpoint.stats().dropped).filter(([, count]) => count > 0));
}

function types(events: readonly QuantumEvent[]): string[] {
  return events.map((event) =>
    event.type === "data" ? `data ${event.bytes.length}${event.fin ? " fin" : ""}` : event.type
  );
}

/** A connected pipe on which nothing is under way. */
function settled(options: ConstructorParameters<typeof Pipe>[0] = {}) {
  const pipe = new Pipe(options);
  const handles = pipe.connect();
  pipe.run(200);
  pipe.trace = [];
  return { pipe, ...handles };
}

Deno.test("createQuantumEndpoint() refuses a short secret and sizes out of range", () => {
  const make = (options: Partial<QuantumOptions>) => () =>
    createQuantumEndpoint({ secret: SECRET, acceptConnections: true, ...options }, seededRandom(1));
  assertThrows(make({ secret: new Uint8Array(31) }), RangeError, "at least 32 bytes, got 31");
  assertThrows(make({ loopbackBytesMax: 70_000 }), RangeError, "got 70000");
  assertThrows(make({ receiveBytesMax: 1199 }), RangeError, "got 1199");
});

// ------------------------------------------------------------------ acknowledgement

Deno.test("one call at a time costs one datagram each way, without any that only acknowledges", () => {
  const { pipe, client } = settled({ network: "127.0.0." });
  pipe.wire = () => [0.05];
  let calls = 0;
  pipe.server.onEvent = (event) => {
    if (event.type === "data" && event.fin) {
      pipe.server.endpoint.write(event.connection, event.stream, EMPTY, true);
    }
  };
  const call = () => {
    pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(64), true);
  };
  pipe.client.onEvent = (event) => {
    if (event.type === "data" && ++calls < 100) call();
  };
  pipe.trace = [];
  call();
  pipe.runUntil(() => calls === 100, 1000);
  assertEquals(pipe.trace.length, 200);
  assertEquals(pipe.client.endpoint.connectionStats(client)!.streamsOpen, 0);
});

Deno.test("calls of one turn share one datagram each way", () => {
  const { pipe, client } = settled();
  let answers = 0;
  pipe.server.onEvent = (event) => {
    if (event.type === "data") {
      pipe.server.endpoint.write(event.connection, event.stream, new Uint8Array(8), true);
    }
  };
  pipe.client.onEvent = (event) => {
    if (event.type === "data" && event.fin) answers++;
  };
  for (let i = 0; i < 30; i++) {
    pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(16), true);
  }
  pipe.runUntil(() => answers === 30, 100);
  assertEquals(pipe.trace!.map(({ from }) => from), ["client", "server"]);
});

Deno.test("an acknowledgement that nothing can carry follows after max_ack_delay", () => {
  const { pipe, client } = settled();
  const start = pipe.now;
  pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(10), true);
  pipe.run(50);
  assertEquals(pipe.trace!.map(({ from, at }) => [from, at - start]), [["client", 0], ["server", 9]]);
  assertEquals(pipe.client.endpoint.connectionStats(client)!.bytesInFlight, 0);
});

Deno.test("numbers lost for good stop being reported: ACK_FLOOR excuses them", () => {
  const { pipe, client } = settled();
  let n = 0;
  pipe.wire = (_, from) => from === "client" && ++n % 3 === 0 ? [] : [1];
  pipe.server.onEvent = () => {};
  for (let i = 0; i < 60; i++) {
    pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(900), true);
    pipe.flush();
  }
  pipe.run(500);
  pipe.wire = () => [1];
  pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(10), true);
  pipe.run(100);
  const last = pipe.trace!.filter(({ from }) => from === "server").at(-1)!.bytes;
  const payloadBytes = last[AT.payloadBytes]! << 8 | last[AT.payloadBytes + 1]!;
  assertEquals(last.length, HEADER_BYTES + payloadBytes, "no SACK blocks are left");
});

// ------------------------------------------------------------------ streams

Deno.test("a lost packet holds back only the streams whose bytes it carried", () => {
  const { pipe, client } = settled();
  let lose = true;
  pipe.wire = (_, from) => {
    if (from === "client" && lose) {
      lose = false;
      return [];
    }
    return [1];
  };
  for (const name of ["first", "second", "third"]) {
    const stream = pipe.client.endpoint.openStream(client);
    pipe.client.endpoint.write(client, stream, new TextEncoder().encode(name), true);
    pipe.flush();
  }
  pipe.run(100);
  const order = pipe.server.events.flatMap((event) =>
    event.type === "data" ? [new TextDecoder().decode(event.bytes)] : []
  );
  assertEquals(order, ["second", "third", "first"]);
});

Deno.test("streams take turns: a small one passes a large one", () => {
  const { pipe, client } = settled();
  const large = pipe.client.endpoint.openStream(client);
  pipe.client.endpoint.write(client, large, new Uint8Array(300_000), true);
  const small = pipe.client.endpoint.openStream(client);
  pipe.client.endpoint.write(client, small, new Uint8Array(100), true);
  const ends: number[] = [];
  pipe.server.onEvent = (event) => {
    if (event.type === "data" && event.fin) ends.push(event.stream);
  };
  pipe.runUntil(() => ends.length === 2, 5000);
  assertEquals(ends, [small, large]);
});

Deno.test("both sides may open streams, empty ones too", () => {
  const { pipe, client, server } = settled();
  const a = pipe.client.endpoint.openStream(client);
  const b = pipe.server.endpoint.openStream(server);
  pipe.client.endpoint.write(client, a, EMPTY, true);
  pipe.server.endpoint.write(server, b, EMPTY, true);
  pipe.run(20);
  assertEquals([a, b], [0, 1]);
  assertEquals([types(pipe.client.events), types(pipe.server.events)], [["stream", "data 0 fin"], [
    "stream",
    "data 0 fin",
  ]]);
});

Deno.test("resetStream() reaches the peer once, also when packets are lost, and ends the half", () => {
  const { pipe, client } = settled();
  let n = 0;
  pipe.wire = () => n++ % 2 === 0 ? [] : [1];
  const stream = pipe.client.endpoint.openStream(client);
  pipe.client.endpoint.write(client, stream, new Uint8Array(5000), false);
  pipe.flush();
  pipe.client.endpoint.resetStream(client, stream, 77);
  assertEquals(pipe.client.endpoint.write(client, stream, new Uint8Array(1), true), false);
  pipe.run(3000);
  const resets = pipe.server.events.filter((event) => event.type === "reset");
  assertEquals(resets, [{ type: "reset", connection: 1, stream, code: 77 }]);
  pipe.server.endpoint.write(1, stream, EMPTY, true);
  pipe.run(3000);
  assertEquals([pipe.client, pipe.server].map((end) => end.endpoint.connectionStats(1)!.streamsOpen), [0, 0]);
});

Deno.test("stopStream() makes the peer reset its half with the same code; bytes on the way are discarded", () => {
  const { pipe, client, server } = settled();
  const stream = pipe.client.endpoint.openStream(client);
  pipe.client.endpoint.write(client, stream, new Uint8Array(100_000), false);
  pipe.runUntil(() => pipe.server.events.some((event) => event.type === "data"), 100);
  pipe.server.endpoint.stopStream(server, stream, 55);
  pipe.server.events.length = 0;
  pipe.run(100);
  assertEquals(pipe.client.events, [{ type: "stop", connection: 1, stream, code: 55 }]);
  assertEquals(pipe.server.events, [{ type: "reset", connection: 1, stream, code: 55 }]);
});

Deno.test("openStream() throws stream_limit at the peer's limit, and credit comes back as streams end", () => {
  const { pipe, client } = settled({ server: { streamsOpenMax: 8 } });
  const open = () => pipe.client.endpoint.openStream(client);
  const streams = Array.from({ length: 8 }, open);
  assertEquals(assertThrows(open, QuantumError).code, "stream_limit");
  pipe.server.onEvent = (event) => {
    if (event.type === "data" && event.fin) {
      pipe.server.endpoint.write(event.connection, event.stream, EMPTY, true);
    }
  };
  for (const stream of streams) pipe.client.endpoint.write(client, stream, EMPTY, true);
  pipe.run(100);
  assertEquals(pipe.client.endpoint.streamCredit(client), 8);
});

Deno.test("writers on both levels wait for credit, and consumed() gives it", () => {
  for (const windows of [{ streamWindowBytes: 1000 }, { connectionWindowBytes: 1000 }]) {
    const { pipe, client, server } = settled({ server: windows });
    const stream = pipe.client.endpoint.openStream(client);
    pipe.client.endpoint.write(client, stream, pattern(5000), true);
    let received = 0;
    pipe.server.onEvent = (event) => {
      if (event.type === "data") received += event.bytes.length;
    };
    pipe.run(2000);
    assertEquals(received, 1000);
    for (let used = 0; used < 4; used++) {
      pipe.server.endpoint.consumed(server, stream, 1000);
      pipe.run(100);
      assertEquals(received, (used + 2) * 1000);
    }
    pipe.server.endpoint.consumed(server, stream, 1e9);
    assertEquals(pipe.client.endpoint.connectionStats(client)!.bytesInFlight, 0);
  }
});

Deno.test("a bare fin passes while the connection's credit is used up", () => {
  const { pipe, client } = settled({ server: { connectionWindowBytes: 1000 } });
  const [blocked, other] = [pipe.client.endpoint.openStream(client), pipe.client.endpoint.openStream(client)];
  pipe.client.endpoint.write(client, blocked, new Uint8Array(5000), true);
  pipe.run(50);
  pipe.client.endpoint.write(client, other, EMPTY, true);
  pipe.server.events.length = 0;
  pipe.run(50);
  assertEquals(types(pipe.server.events), ["stream", "data 0 fin"]);
});

Deno.test("bytes of a stream that ended both ways count as used though nobody reported them", () => {
  const { pipe, client, server } = settled({ server: { connectionWindowBytes: 10_000 } });
  let ended = 0;
  pipe.server.onEvent = (event) => {
    if (event.type === "data" && event.fin) pipe.server.endpoint.write(server, event.stream, EMPTY, true);
  };
  pipe.client.onEvent = (event) => {
    if (event.type === "data") ended++;
  };
  for (let i = 0; i < 50; i++) {
    pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(1000), true);
  }
  pipe.runUntil(() => ended === 50, 5000);
});

Deno.test("write() says false above the high-water mark, and drain follows below the low one", () => {
  const { pipe, client } = settled({ client: { writeHighWaterBytes: 3000, writeLowWaterBytes: 1000 } });
  const stream = pipe.client.endpoint.openStream(client);
  const write = () => pipe.client.endpoint.write(client, stream, new Uint8Array(1000), false);
  assertEquals([write(), write(), write(), write()], [true, true, true, false]);
  pipe.run(50);
  assertEquals(types(pipe.client.events), ["drain"]);
});

// ------------------------------------------------------------------ datagrams

Deno.test("sendDatagram() delivers, refuses what cannot fit, drops what is late, and bounds its queue", () => {
  const { pipe, client } = settled({ client: { networkBytesMax: 1200 } });
  const send = (bytes: number, expiresAt: number) =>
    pipe.client.endpoint.sendDatagram(client, new Uint8Array(bytes), expiresAt);
  assertEquals([send(1000, Infinity), send(1200, Infinity), send(10, pipe.now)], [true, false, true]);
  pipe.run(50);
  assertEquals(pipe.server.events.map((event) => event.type === "datagram" && event.bytes.length), [1000]);
  let queued = 0;
  while (send(10, Infinity)) queued++;
  assertEquals(queued, 256);
});

Deno.test("waiting datagrams are bounded in bytes too", () => {
  const { pipe, client } = settled({ network: "127.0.0." });
  let queued = 0;
  while (pipe.client.endpoint.sendDatagram(client, new Uint8Array(32_000), Infinity)) queued++;
  assertEquals(queued, Math.floor(2 ** 20 / 32_000));
});

// ------------------------------------------------------------------ what strangers send

Deno.test("truncated, changed, repeated and random datagrams are dropped and counted; the connection goes on", () => {
  const { pipe, client } = settled();
  const packets: Uint8Array[] = [];
  pipe.wire = (bytes, from) => {
    if (from === "client") packets.push(bytes.slice());
    return [1];
  };
  const stream = pipe.client.endpoint.openStream(client);
  pipe.client.endpoint.write(client, stream, pattern(500), false);
  pipe.run(50);
  const packet = packets[0]!;
  const before = pipe.server.endpoint.stats();
  const offer = (bytes: Uint8Array, from = pipe.client.address) =>
    pipe.server.endpoint.handleDatagram(bytes, from, pipe.now);
  offer(packet);
  offer(packet, { hostname: "10.6.6.6", port: 6 });
  const fresh = packet.slice();
  fresh[AT.sequence + 3]! += 100;
  offer(fresh);
  for (let length = 0; length < packet.length; length += 7) offer(packet.subarray(0, length));
  const random = seededRandom(3);
  for (let i = 0; i < 100; i++) offer(random.fill(new Uint8Array(Math.floor(random.next() * 2000))));
  const after = dropped(pipe.server.endpoint);
  assertEquals([after.replay, after.address, after.authentication], [1, 1, 1]);
  assert(after.malformed! + after.version! >= 170);
  assertEquals(pipe.server.endpoint.stats().connections, before.connections);
  pipe.server.events.length = 0;
  pipe.client.endpoint.write(client, stream, pattern(100), true);
  pipe.run(50);
  assertEquals(types(pipe.server.events), ["data 100 fin"]);
});

Deno.test("a restarted peer is noticed within one round trip through its stateless reset", () => {
  const { pipe, client } = settled();
  pipe.server.endpoint = createQuantumEndpoint(
    { secret: SECRET, acceptConnections: true },
    seededRandom(1234),
  );
  const start = pipe.now;
  pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(10), true);
  pipe.runUntil(() => pipe.client.events.length > 0, 100);
  assertEquals(pipe.now - start, 2);
  assertEquals(pipe.client.events, [{
    type: "closed",
    connection: client,
    code: CLOSE_CODE.reset,
    reason: "the peer does not know this connection any more",
    by: "lost",
  }]);
  const reset = pipe.trace!.at(-1)!.bytes;
  assertEquals([reset[AT.flags], reset.length], [FLAG.RST, HEADER_BYTES + TAG_BYTES]);
});

Deno.test("a reset that is forged, for a packet not sent, or for one acknowledged long ago is ignored", () => {
  const { pipe, client } = settled();
  const stranger = createQuantumEndpoint({ secret: SECRET, acceptConnections: true }, seededRandom(5));
  const stream = pipe.client.endpoint.openStream(client);
  for (let i = 0; i < 5; i++) {
    pipe.client.endpoint.write(client, stream, new Uint8Array(10), false);
    pipe.run(50);
  }
  const sent = pipe.trace!.filter(({ from }) => from === "client").map(({ bytes }) => bytes);
  const resetFor = (packet: Uint8Array) => {
    stranger.handleDatagram(packet, pipe.client.address, pipe.now);
    return stranger.pollTransmit(pipe.now)!.bytes;
  };
  const future = sent[0]!.slice();
  future[AT.sequence + 2] = 0xff;
  const forged = resetFor(sent.at(-1)!);
  forged[HEADER_BYTES]! ^= 1;
  for (const bytes of [resetFor(sent[0]!), resetFor(future), forged]) {
    pipe.client.endpoint.handleDatagram(bytes, pipe.server.address, pipe.now);
  }
  assertEquals(pipe.client.events, []);
  assertEquals(dropped(pipe.client.endpoint), { unexpected: 2, mac: 1 });
});

Deno.test("resets are rate-limited, and neither resets nor the smallest packets cause any", () => {
  const endpoint = createQuantumEndpoint({ secret: SECRET, acceptConnections: true }, seededRandom(5));
  const from = { hostname: "10.0.0.9", port: 9 };
  const stray = (flags: number, extra: number) => {
    const bytes = new Uint8Array(HEADER_BYTES + TAG_BYTES + extra);
    writeHeader(bytes, flags, pattern(16), 1, 0, TAG_BYTES + extra);
    return bytes;
  };
  let answers = 0;
  const offer = (bytes: Uint8Array, now: number) => {
    endpoint.handleDatagram(bytes, from, now);
    while (endpoint.pollTransmit(now) !== undefined) answers++;
  };
  offer(stray(FLAG.ACK, 0), 0);
  offer(stray(FLAG.RST, 0), 0);
  offer(stray(FLAG.SYN | FLAG.ACK, 50), 0);
  assertEquals(answers, 0);
  for (let i = 0; i < 1000; i++) offer(stray(FLAG.ACK, 1), 0);
  assertEquals(answers, MAX_RESETS_PER_SECOND);
  for (let i = 0; i < 1000; i++) offer(stray(FLAG.ACK, 1), 500);
  assertEquals(answers, MAX_RESETS_PER_SECOND * 1.5);
  assertEquals([endpoint.stats().connections, endpoint.nextTimeout()], [0, undefined]);
});

// ------------------------------------------------------------------ the end

Deno.test("close() flushes what was written, then tells the peer, and both forget the connection", () => {
  const { pipe, client } = settled();
  const stream = pipe.client.endpoint.openStream(client);
  pipe.client.endpoint.write(client, stream, pattern(50_000), true);
  pipe.client.endpoint.close(client, 300, "done", pipe.now);
  pipe.run(50);
  let received = 0;
  for (const event of pipe.server.events) if (event.type === "data") received += event.bytes.length;
  assertEquals(received, 50_000);
  assertEquals(pipe.server.events.at(-1), {
    type: "closed",
    connection: 1,
    code: 300,
    reason: "done",
    by: "peer",
  });
  assertEquals(pipe.client.events, [{
    type: "closed",
    connection: 1,
    code: 300,
    reason: "done",
    by: "local",
  }]);
  assertEquals([pipe.client, pipe.server].map((end) => end.endpoint.stats().connections), [0, 0]);
  pipe.run(5000);
  assertEquals([pipe.client, pipe.server].map((end) => end.endpoint.nextTimeout()), [undefined, undefined]);
  assertEquals(assertThrows(() => pipe.client.endpoint.openStream(client), QuantumError).code, "closed");
});

Deno.test("close() ends within a second when the peer does not answer", () => {
  const { pipe, client } = settled();
  pipe.wire = () => [];
  pipe.client.endpoint.write(client, pipe.client.endpoint.openStream(client), new Uint8Array(50_000), true);
  const start = pipe.now;
  pipe.client.endpoint.close(client, 0, "", pipe.now);
  pipe.runUntil(() => pipe.client.events.some((event) => event.type === "closed"), 1000);
  assert(pipe.now - start <= 1000);
});

Deno.test("a lost CLOSE is repeated, and said again to a peer that keeps talking", () => {
  const { pipe, client, server } = settled();
  let lost = 0;
  pipe.wire = (bytes) => (bytes[AT.flags]! & FLAG.FIN) !== 0 && lost++ === 0 ? [] : [1];
  pipe.client.endpoint.close(client, 301, "bye", pipe.now);
  pipe.runUntil(() => pipe.server.events.some((event) => event.type === "closed"), 100);
  assertEquals(lost, 2);
  assertEquals(pipe.server.endpoint.connectionStats(server), undefined);
});

Deno.test("close() during the handshake ends it at once", () => {
  const pipe = new Pipe();
  const handle = pipe.client.endpoint.connect(pipe.server.address, pipe.now);
  pipe.client.endpoint.close(handle, 0, "never mind", pipe.now);
  assertEquals(pipe.client.endpoint.pollEvent(), {
    type: "closed",
    connection: handle,
    code: 0,
    reason: "never mind",
    by: "local",
  });
});

Deno.test("a silent peer is lost after the smaller idle timeout; keep-alive prevents it", () => {
  const { pipe, client } = settled({
    client: { keepAliveMs: 0 },
    server: { idleTimeoutMs: 5000, keepAliveMs: 0 },
  });
  pipe.run(5200);
  assertEquals(
    pipe.client.events.map((event) => event.type === "closed" && [event.connection, event.code, event.by]),
    [
      [client, CLOSE_CODE.idle, "lost"],
    ],
  );
  const kept = settled();
  kept.pipe.run(120_000);
  assertEquals(kept.pipe.client.events, []);
});

Deno.test("the connection closes before packet numbers run out", () => {
  const { pipe, client } = settled({ client: { packetNumberLimit: 200 } });
  const stream = pipe.client.endpoint.openStream(client);
  for (let i = 0; i < 300; i++) {
    pipe.client.endpoint.write(client, stream, new Uint8Array(10), false);
    pipe.run(10);
  }
  const closed = pipe.client.events.at(-1)!;
  assertEquals(closed.type === "closed" && [closed.code, closed.by], [CLOSE_CODE.packetNumbers, "local"]);
  assertEquals(types(pipe.server.events).at(-1), "closed");
});

Deno.test("closing records are bounded in time, and late packets of the peer do not become resets meanwhile", () => {
  const { pipe, client, server } = settled();
  pipe.wire = (_, from) => from === "client" ? [] : [1];
  pipe.client.endpoint.close(client, 0, "", pipe.now);
  pipe.flush();
  pipe.server.endpoint.write(server, pipe.server.endpoint.openStream(server), new Uint8Array(10), true);
  pipe.run(5);
  assertEquals(pipe.client.endpoint.stats().resetsSent, 0);
  assertEquals(dropped(pipe.client.endpoint), { closing: 1 });
});

Deno.test("closing records are bounded in number: the oldest is forgotten", () => {
  const pipe = new Pipe({ client: { closingMax: 2 } });
  const handles = [1, 2, 3].map(() => pipe.connect().client);
  pipe.run(200);
  const before = pipe.client.endpoint.stats().dropped.unknown_connection;
  const late: Uint8Array[] = [];
  pipe.wire = (bytes, from) => {
    if (from === "server") late.push(bytes.slice());
    return [];
  };
  for (const handle of handles) pipe.client.endpoint.close(handle, 0, "", pipe.now);
  pipe.flush();
  for (const server of [1, 2, 3]) {
    pipe.server.endpoint.write(server, pipe.server.endpoint.openStream(server), new Uint8Array(10), true);
  }
  pipe.flush();
  for (const bytes of late) pipe.client.endpoint.handleDatagram(bytes, pipe.server.address, pipe.now);
  const dropped = pipe.client.endpoint.stats().dropped;
  assertEquals([dropped.closing, dropped.unknown_connection - before], [2, 1]);
});

Deno.test("answers that the socket does not take are bounded", () => {
  const endpoint = createQuantumEndpoint(
    { secret: SECRET, acceptConnections: true, retryThreshold: 0 },
    seededRandom(1),
  );
  const stranger = createQuantumEndpoint({ secret: SECRET, acceptConnections: false }, seededRandom(2));
  for (let i = 0; i < MAX_RESPONSES_QUEUED + 50; i++) {
    stranger.connect({ hostname: "10.0.0.2", port: 2 }, 0);
    endpoint.handleDatagram(stranger.pollTransmit(0)!.bytes, { hostname: "10.0.0.1", port: 1 }, 0);
  }
  let answers = 0;
  while (endpoint.pollTransmit(0) !== undefined) answers++;
  assertEquals(answers, MAX_RESPONSES_QUEUED);
});
