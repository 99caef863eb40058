/** Fuzzing of live Quantum endpoints: what strangers send, and what a peer that holds the keys sends. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { pattern, Pipe, seededRandom } from "../../transport/quantum/core/_pipe.ts";
import { Connection, type ConnectionOwner } from "../../transport/quantum/core/connection.ts";
import { PacketCipher } from "../../transport/quantum/core/keys.ts";
import { resolveOptions } from "../../transport/quantum/core/options.ts";
import type { QuantumEvent } from "../../transport/quantum/types.ts";
import { FLAG, HEADER_BYTES, writeHeader, writeU32 } from "../../transport/quantum/wire/header.ts";
import { frameCorpus } from "./quantum_corpus.ts";

Deno.test("random and mutated datagrams never disturb a live connection", () => {
  fc.assert(
    fc.property(
      fc.nat(),
      fc.array(fc.tuple(fc.nat(3), fc.nat(), fc.nat(255), fc.nat(1500)), { maxLength: 60 }),
      (seed, attacks) => {
        const pipe = new Pipe({ seed: seed + 1 });
        const seen: Uint8Array[] = [];
        pipe.wire = (bytes) => {
          seen.push(bytes.slice());
          return [1];
        };
        const { client, server } = pipe.connect();
        const random = seededRandom(seed);
        const expected = pattern(40_000);
        const stream = pipe.client.endpoint.openStream(client);
        pipe.client.endpoint.write(client, stream, expected, true);
        const parts: Uint8Array[] = [];
        let finished = false;
        pipe.server.onEvent = (event) => {
          if (event.type !== "data") return;
          parts.push(event.bytes.slice());
          finished = event.fin;
          pipe.server.endpoint.consumed(server, stream, event.bytes.length);
        };
        for (const [kind, where, value, length] of attacks) {
          pipe.step();
          let bytes: Uint8Array;
          if (kind === 0) bytes = random.fill(new Uint8Array(length));
          else {
            bytes = seen[where % seen.length]!.slice();
            if (kind === 1) bytes[where % bytes.length]! ^= value | 1;
            else if (kind === 2) bytes = bytes.subarray(0, where % bytes.length);
            else bytes = new Uint8Array([...bytes, ...random.fill(new Uint8Array(value))]);
          }
          for (const end of [pipe.client, pipe.server]) {
            const from = end === pipe.client ? pipe.server.address : pipe.client.address;
            end.endpoint.handleDatagram(
              bytes,
              value % 8 === 0 ? { hostname: "10.9.9.9", port: value } : from,
              pipe.now,
            );
          }
        }
        pipe.runUntil(() => finished, 60_000);
        assertEquals(parts.reduce((sum, part) => sum + part.length, 0), expected.length);
        let at = 0;
        for (const part of parts) {
          assertEquals(part, expected.slice(at, at + part.length));
          at += part.length;
        }
        assertEquals(pipe.server.endpoint.stats().connections, 1);
        assertEquals(pipe.server.endpoint.stats().halfOpen, 0);
      },
    ),
    { numRuns: 40 },
  );
});

/** One established connection without a socket or a peer: packets go in already opened. */
function lonely() {
  const events: QuantumEvent[] = [];
  const options = resolveOptions({ secret: new Uint8Array(32), acceptConnections: true, streamsOpenMax: 64 });
  let isOver = false;
  const owner: ConnectionOwner = {
    options,
    scratch: new Uint8Array(65_507),
    allocate: (bytes) => new Uint8Array(bytes),
    emit: (event) => void events.push(event),
    drop: () => {},
    wake: () => {},
    over: () => isOver = true,
  };
  const keys = { key: new Uint8Array(32), iv: new Uint8Array(12) };
  const connection = new Connection(owner, {
    handle: 1,
    side: "server",
    guuid: new Uint8Array(16),
    peer: { hostname: "10.0.0.1", port: 1 },
    isLoopback: false,
    sealer: new PacketCipher(keys),
    opener: new PacketCipher(keys),
    peerParams: {
      connectionWindowBytes: 100_000,
      streamWindowBytes: 50_000,
      streamsOpenMax: 64,
      idleTimeoutMs: 30_000,
      datagramBytesMax: 1472,
      socketBudgetBytes: 65_536,
      ackDelayMaxMs: 8,
    },
    rttMs: 10,
  }, 0);
  return { connection, events, isOver: () => isOver };
}

Deno.test("a peer that holds the keys can close its connection with nonsense, but not break the endpoint", () => {
  const corpus = frameCorpus();
  const payload = fc.oneof(
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 60 }) },
    { weight: 4, arbitrary: fc.constantFrom(...corpus) },
    {
      weight: 2,
      arbitrary: fc.tuple(fc.constantFrom(...corpus), fc.nat(), fc.nat(255)).map(([seed, at, value]) => {
        const bytes = seed.slice();
        bytes[at % bytes.length] = value;
        return bytes;
      }),
    },
  );
  const packet = fc.record({
    step: fc.nat(4),
    ack: fc.oneof({ weight: 6, arbitrary: fc.nat(12) }, { weight: 1, arbitrary: fc.nat(0xffffffff) }),
    blocks: fc.array(fc.tuple(fc.nat(20), fc.nat(6)), { maxLength: 3 }),
    payload,
    gapMs: fc.nat(40),
    action: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(packet, { maxLength: 40 }), (packets) => {
      const { connection, events, isOver } = lonely();
      let sequence = 0;
      let now = 0;
      for (const { step, ack, blocks, payload, gapMs, action } of packets) {
        if (isOver()) break;
        const bytes = new Uint8Array(HEADER_BYTES + payload.length + 16 + 8 * blocks.length);
        writeHeader(bytes, FLAG.ACK, new Uint8Array(16), sequence, ack, payload.length + 16);
        blocks.forEach(([start, length], i) => {
          writeU32(bytes, bytes.length - 8 * (blocks.length - i), start);
          writeU32(bytes, bytes.length - 8 * (blocks.length - i) + 4, start + length);
        });
        connection.onPacket(bytes, blocks.length, payload.slice(), now);
        sequence += step;
        now += gapMs;
        if (!isOver()) {
          if (action === 0 && connection.streamCredit > 0) {
            connection.write(connection.openStream(), pattern(3000), true);
          }
          if (action === 1) connection.write(0, pattern(100), true);
          if (action === 2) connection.stopStream(0, 1);
          if (action === 3) connection.resetStream(0, 2);
          if (action === 4) connection.consumed(0, 1000);
          connection.onTimeout(now);
          for (let sent = 0; connection.pollTransmit(now) !== undefined; sent++) assert(sent < 200);
          assert(connection.stats().streamsOpen <= 128);
          assert(connection.stats().bytesInFlight >= 0);
        }
      }
      const ended = new Set<number>();
      for (const event of events) {
        if (event.type !== "data" && event.type !== "reset") continue;
        // Each half ends once and says nothing afterwards.
        assert(!ended.has(event.stream));
        if (event.type === "reset" || event.fin) ended.add(event.stream);
      }
    }),
    { numRuns: 1500 },
  );
});
