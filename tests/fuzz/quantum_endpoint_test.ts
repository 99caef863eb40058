/** Fuzzing of live Quantum endpoints: what strangers send, and what a peer that holds the keys sends. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { pattern, Pipe, seededRandom } from "../../transport/quantum/core/_pipe.ts";
import { Lonely } from "../../transport/quantum/core/_lonely.ts";
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
    step: fc.nat(3),
    ack: fc.oneof({ weight: 6, arbitrary: fc.nat(12) }, { weight: 1, arbitrary: fc.nat(0xffffffff) }),
    blocks: fc.array(fc.tuple(fc.nat(20), fc.nat(6)), { maxLength: 3 }),
    payload,
    gapMs: fc.nat(40),
    action: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(packet, { maxLength: 40 }), (packets) => {
      const lonely = new Lonely({ streamsOpenMax: 64 });
      const connection = lonely.connection;
      let now = 0;
      for (const { step, ack, blocks, payload, gapMs, action } of packets) {
        if (lonely.end !== undefined) break;
        lonely.receive(
          payload.slice(),
          now,
          ack,
          blocks.map(([start, length]) => [start, start + length] as const),
        );
        lonely.sequence += step;
        now += gapMs;
        if (lonely.end === undefined) {
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
      for (const event of lonely.events) {
        if (event.type !== "data" && event.type !== "reset") continue;
        // Each half ends once and says nothing afterwards.
        assert(!ended.has(event.stream));
        if (event.type === "reset" || event.fin) ended.add(event.stream);
      }
    }),
    { numRuns: 1500 },
  );
});
