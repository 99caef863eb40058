import { assert, assertEquals, assertThrows } from "@std/assert";
import { CLOSE_CODE, type DropReason, QuantumError } from "../errors.ts";
import { AMPLIFICATION_FACTOR, BASE_DATAGRAM_BYTES, SYN_FRESH_MS, TOKEN_LIFE_MS } from "../params.ts";
import type { QuantumEndpoint } from "../types.ts";
import { AT, FLAG, writeU32 } from "../wire/header.ts";
import { createQuantumEndpoint } from "./endpoint.ts";
import { Pipe, SECRET, seededRandom } from "./_pipe.ts";

const HERE = { hostname: "10.0.0.1", port: 1 };
const THERE = { hostname: "10.0.0.2", port: 2 };

function server(options: Partial<Parameters<typeof createQuantumEndpoint>[0]> = {}): QuantumEndpoint {
  return createQuantumEndpoint({ secret: SECRET, acceptConnections: true, ...options }, seededRandom(99));
}

function client(
  seed: number,
  options: Partial<Parameters<typeof createQuantumEndpoint>[0]> = {},
): QuantumEndpoint {
  return createQuantumEndpoint({ secret: SECRET, acceptConnections: false, ...options }, seededRandom(seed));
}

function synOf(endpoint: QuantumEndpoint, now: number): Uint8Array {
  endpoint.connect(THERE, now);
  return endpoint.pollTransmit(now)!.bytes;
}

function dropped(endpoint: QuantumEndpoint): Partial<Record<DropReason, number>> {
  return Object.fromEntries(Object.entries(endpoint.stats().dropped).filter(([, count]) => count > 0));
}

function drain(endpoint: QuantumEndpoint, now: number): Uint8Array[] {
  const out: Uint8Array[] = [];
  for (let next = endpoint.pollTransmit(now); next !== undefined; next = endpoint.pollTransmit(now)) {
    out.push(next.bytes);
  }
  return out;
}

Deno.test("the handshake takes SYN, SYN|ACK, ACK and gives both sides a connection", () => {
  const pipe = new Pipe();
  pipe.trace = [];
  const { client, server } = pipe.connect();
  assertEquals([client, server], [1, 1]);
  assertEquals(
    pipe.trace.slice(0, 3).map(({ from, bytes }) => [from, bytes[AT.flags], bytes.length === 1200]),
    [
      ["client", FLAG.SYN, true],
      ["server", FLAG.SYN | FLAG.ACK, false],
      ["client", FLAG.ACK | FLAG.PSH, false],
    ],
  );
  assertEquals([pipe.client, pipe.server].map((end) => end.endpoint.streamCredit(1)), [4096, 4096]);
});

Deno.test("the same seed gives the same bytes, another seed others", () => {
  const trace = (seed: number) => {
    const pipe = new Pipe({ seed });
    pipe.trace = [];
    const { client } = pipe.connect();
    const stream = pipe.client.endpoint.openStream(client);
    pipe.client.endpoint.write(client, stream, new Uint8Array(5000), true);
    pipe.run(1000);
    return pipe.trace.map(({ from, bytes, at }) => `${from} ${at} ${bytes.toHex()}`);
  };
  assertEquals(trace(5), trace(5));
  assert(trace(5).join() !== trace(6).join());
});

Deno.test("50 handshakes end well at 30 % loss both ways", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const random = seededRandom(seed);
    const pipe = new Pipe({ seed });
    pipe.wire = () => random.next() < 0.3 ? [] : [10];
    pipe.connect();
  }
});

Deno.test("a peer with another secret is dropped by its MAC and leaves no trace", () => {
  const endpoint = server();
  endpoint.handleDatagram(synOf(client(1, { secret: new Uint8Array(32).fill(8) }), 0), HERE, 0);
  assertEquals([drain(endpoint, 0), endpoint.stats().halfOpen, endpoint.nextTimeout()], [[], 0, undefined]);
  assertEquals(dropped(endpoint), { mac: 1 });
});

Deno.test("connect() ends as lost with handshake_timeout when nobody answers", () => {
  const pipe = new Pipe();
  pipe.wire = () => [];
  pipe.trace = [];
  pipe.client.endpoint.connect(THERE, pipe.now);
  pipe.run(20_000);
  assertEquals(pipe.client.events, [{
    type: "closed",
    connection: 1,
    code: CLOSE_CODE.handshakeTimeout,
    reason: "the peer does not answer",
    by: "lost",
  }]);
  assertEquals(pipe.trace.slice(0, 6).map(({ at }) => at - 1000), [0, 150, 450, 1050, 1850, 2650]);
  assertEquals(pipe.client.endpoint.nextTimeout(), undefined);
});

Deno.test("a server that accepts no connections refuses at once", () => {
  const pipe = new Pipe({ server: { acceptConnections: false } });
  pipe.client.endpoint.connect(THERE, pipe.now);
  pipe.run(50);
  assertEquals(pipe.client.events.map((event) => event.type === "closed" && [event.code, event.by]), [
    [CLOSE_CODE.refused, "peer"],
  ]);
});

Deno.test("a SYN sent again is answered with the same SYN|ACK and makes no second state", () => {
  const endpoint = server();
  const syn = synOf(client(1), 0);
  endpoint.handleDatagram(syn, HERE, 0);
  const [first] = drain(endpoint, 0);
  endpoint.handleDatagram(syn, HERE, 200);
  assertEquals(drain(endpoint, 200), [first!]);
  assertEquals(endpoint.stats().halfOpen, 1);
});

Deno.test("a SYN of a half-open handshake from another address, or with other content, is dropped", () => {
  const endpoint = server();
  const first = client(1);
  const syn = synOf(first, 0);
  endpoint.handleDatagram(syn, HERE, 0);
  drain(endpoint, 0);
  endpoint.handleDatagram(syn, { hostname: "10.9.9.9", port: 1 }, 1);
  const changed = syn.slice();
  changed[40]! ^= 1;
  endpoint.handleDatagram(changed, HERE, 1);
  assertEquals(drain(endpoint, 1), []);
  assertEquals(dropped(endpoint), { address: 1, mac: 1 });
});

Deno.test("a recorded SYN makes no state: refused while remembered, answered with a retry once stale", () => {
  const endpoint = server();
  const syn = synOf(client(1), 0);
  endpoint.handleDatagram(syn, HERE, 0);
  drain(endpoint, 0);
  endpoint.handleTimeout(10_000);
  assertEquals(endpoint.stats().halfOpen, 0);
  endpoint.handleDatagram(syn, HERE, 10_001);
  assertEquals([endpoint.stats().halfOpen, dropped(endpoint)], [0, { replay: 1 }]);
  // A server that started later remembers nothing, but the SYN's time is old.
  const restarted = server();
  restarted.handleDatagram(syn, HERE, SYN_FRESH_MS + 1);
  const answers = drain(restarted, SYN_FRESH_MS + 1);
  assertEquals(answers.map((bytes) => bytes[AT.flags]), [FLAG.SYN | FLAG.RST]);
  assertEquals([restarted.stats().halfOpen, restarted.stats().retriesSent], [0, 1]);
});

Deno.test("clocks that disagree cost one retry, not the connection", () => {
  const pipe = new Pipe({ server: { wallOffsetMs: 1e9 } });
  pipe.connect();
  assertEquals(pipe.server.endpoint.stats().retriesSent, 1);
});

Deno.test("a token is good for its GUUID and address only, and for ten seconds only", () => {
  const endpoint = server({ retryThreshold: 0 });
  const peer = client(1);
  endpoint.handleDatagram(synOf(peer, 0), HERE, 0);
  peer.handleDatagram(drain(endpoint, 0)[0]!, THERE, 1);
  const withToken = drain(peer, 1)[0]!;
  assertEquals([withToken[AT.flags], withToken[AT.sequence + 3]], [FLAG.SYN, 1]);
  const elsewhere = { hostname: "10.0.0.3", port: 1 };
  endpoint.handleDatagram(withToken, elsewhere, 2);
  endpoint.handleDatagram(withToken, HERE, TOKEN_LIFE_MS + 1);
  assertEquals([endpoint.stats().halfOpen, endpoint.stats().retriesSent], [0, 3]);
  drain(endpoint, 2);
  endpoint.handleDatagram(withToken, HERE, 2);
  assertEquals(endpoint.stats().halfOpen, 1);
});

Deno.test("from the threshold on half-open handshakes cost a token, and at the limit SYNs are dropped", () => {
  const endpoint = server({ retryThreshold: 4, halfOpenMax: 6 });
  for (let i = 1; i <= 10; i++) {
    const peer = client(i);
    endpoint.handleDatagram(synOf(peer, 0), HERE, 0);
    const [answer] = drain(endpoint, 0);
    if (answer?.[AT.flags] !== (FLAG.SYN | FLAG.RST)) continue;
    peer.handleDatagram(answer, THERE, 0);
    endpoint.handleDatagram(drain(peer, 0)[0]!, HERE, 0);
    drain(endpoint, 0);
  }
  assertEquals(endpoint.stats().halfOpen, 6);
  assertEquals([endpoint.stats().retriesSent, dropped(endpoint)], [6, { limit: 4 }]);
  endpoint.handleTimeout(10_000);
  assertEquals([endpoint.stats().halfOpen, endpoint.nextTimeout()], [0, undefined]);
});

Deno.test("accepted GUUIDs are remembered up to a bound, and SYNs are dropped while it is full", () => {
  const endpoint = server({ seenSynsMax: 3 });
  for (let i = 1; i <= 5; i++) endpoint.handleDatagram(synOf(client(i), 0), HERE, 0);
  assertEquals([endpoint.stats().halfOpen, dropped(endpoint)], [3, { limit: 2 }]);
  endpoint.handleDatagram(synOf(client(6), 70_001), HERE, 70_001);
  assertEquals(endpoint.stats().halfOpen, 4);
});

Deno.test("connect() throws and SYNs are dropped when MAX_CONNECTIONS are open", () => {
  const endpoint = client(1, { connectionsMax: 2, acceptConnections: true });
  endpoint.connect(THERE, 0);
  endpoint.connect(THERE, 0);
  const error = assertThrows(() => endpoint.connect(THERE, 0), QuantumError);
  assertEquals(error.code, "connection_limit");
  drain(endpoint, 0);
  endpoint.handleDatagram(synOf(client(2), 0), HERE, 0);
  assertEquals(dropped(endpoint), { limit: 1 });
});

Deno.test("an unproven address gets at most three times what it sent", () => {
  for (const retryThreshold of [0, 64]) {
    const endpoint = server({ retryThreshold });
    const peer = client(1);
    let sent = 0;
    let received = 0;
    for (let round = 0; round < 20; round++) {
      const syn = round === 0 ? synOf(peer, 0) : drain(peer, round * 800)[0];
      if (syn !== undefined) {
        endpoint.handleDatagram(syn, HERE, round * 800);
        sent += syn.length;
      }
      endpoint.handleTimeout(round * 800);
      for (const bytes of drain(endpoint, round * 800)) received += bytes.length;
      assert(received <= AMPLIFICATION_FACTOR * sent);
      peer.handleTimeout((round + 1) * 800);
    }
  }
});

Deno.test("every changed byte of SYN, SYN|ACK and retry is noticed, nothing throws and the handshake still ends well", () => {
  for (const retryThreshold of [0, 64]) {
    const endpoint = server({ retryThreshold });
    const peer = client(1);
    const syn = synOf(peer, 0);
    const steps: [QuantumEndpoint, typeof HERE, Uint8Array][] = [[endpoint, HERE, syn]];
    while (steps.length > 0) {
      const [to, from, bytes] = steps.shift()!;
      for (let i = 0; i < bytes.length; i += bytes.length > 200 && i > 100 ? 37 : 1) {
        const changed = bytes.slice();
        changed[i]! ^= 1 << i % 8;
        to.handleDatagram(changed, from, 1);
        for (const answer of drain(to, 1)) {
          // Only a GUUID that is not known may be answered, with a reset.
          assertEquals(answer[AT.flags], FLAG.RST);
        }
      }
      to.handleDatagram(bytes, from, 1);
      const other = to === endpoint ? peer : endpoint;
      const otherFrom = to === endpoint ? THERE : HERE;
      for (const answer of drain(to, 1)) {
        if (answer[AT.flags]! & FLAG.SYN) steps.push([other, otherFrom, answer]);
        else other.handleDatagram(answer, otherFrom, 1);
      }
    }
    assertEquals(peer.pollEvent()?.type, "connected");
    assertEquals(endpoint.pollEvent()?.type, "connected");
  }
});

Deno.test("a SYN of another size than 1200 bytes is dropped", () => {
  const endpoint = server();
  const syn = synOf(client(1), 0);
  const short = syn.slice(0, BASE_DATAGRAM_BYTES - 8);
  short[AT.payloadBytes + 1] = (BASE_DATAGRAM_BYTES - 40) & 0xff;
  endpoint.handleDatagram(short, HERE, 0);
  assertEquals(dropped(endpoint), { malformed: 1 });
});

Deno.test("a reset for a handshake needs its MAC and its SYN's number", () => {
  const peer = client(1);
  const syn = synOf(peer, 0);
  const refusing = server({ acceptConnections: false });
  refusing.handleDatagram(syn, HERE, 0);
  const reset = drain(refusing, 0)[0]!;
  const forged = reset.slice();
  writeU32(forged, AT.ack, 7);
  peer.handleDatagram(forged, THERE, 1);
  assertEquals([peer.pollEvent(), dropped(peer)], [undefined, { mac: 1 }]);
  peer.handleDatagram(reset, THERE, 1);
  assertEquals(peer.pollEvent()?.type, "closed");
});
