/** What one connection does with packets that a pipe of two honest endpoints never brings: violations, full bounds, timers. */

import { assert, assertEquals } from "@std/assert";
import { CLOSE_CODE } from "../errors.ts";
import { MAX_PROBE_BACKOFF, MAX_REASSEMBLY_PIECES } from "../params.ts";
import { FRAME, FrameReader, writeFrame2, writeReset, writeStreamHeader } from "../wire/frames.ts";
import { FLAG } from "../wire/header.ts";
import { Lonely } from "./_lonely.ts";
import { pattern } from "./_pipe.ts";

function stream(id: number, offset: number, data: Uint8Array, fin = false): Uint8Array {
  const bytes = new Uint8Array(data.length + 32);
  const at = writeStreamHeader(bytes, 0, id, offset, data.length, fin);
  bytes.set(data, at);
  return bytes.subarray(0, at + data.length);
}

function frames(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function reset(id: number, code: number, finalSize: number): Uint8Array {
  const bytes = new Uint8Array(32);
  return bytes.subarray(0, writeReset(bytes, 0, id, code, finalSize));
}

function typesIn(plain: Uint8Array): number[] {
  const reader = new FrameReader();
  reader.reset(plain, plain.length);
  const out: number[] = [];
  for (let type = reader.next(); type >= 0; type = reader.next()) out.push(type);
  return out;
}

const SMALL = { connectionWindowBytes: 1000, streamWindowBytes: 600, streamsOpenMax: 4 };

Deno.test("a peer that breaks the rules has its connection closed with the code that says how", () => {
  const cases: [string, number, (lonely: Lonely) => void][] = [
    ["unknown frame", CLOSE_CODE.frame, (l) => l.receive(Uint8Array.of(0x3f))],
    ["reserved frame", CLOSE_CODE.frame, (l) => l.receive(Uint8Array.of(0x20))],
    ["beyond the stream's window", CLOSE_CODE.flowControl, (l) => l.receive(stream(0, 0, pattern(601)))],
    [
      "beyond the connection's window",
      CLOSE_CODE.flowControl,
      (l) => l.receive(frames(stream(0, 0, pattern(600)), stream(2, 0, pattern(401)))),
    ],
    ["reset beyond the window", CLOSE_CODE.flowControl, (l) => l.receive(reset(0, 1, 601))],
    ["too many streams", CLOSE_CODE.streamLimit, (l) => l.receive(stream(8, 0, pattern(1)))],
    [
      "bytes behind the fin",
      CLOSE_CODE.finalSize,
      (l) => l.receive(frames(stream(0, 4, pattern(4), true), stream(0, 8, pattern(1)))),
    ],
    [
      "a second fin elsewhere",
      CLOSE_CODE.finalSize,
      (l) => l.receive(frames(stream(0, 4, pattern(4), true), stream(0, 2, pattern(2), true))),
    ],
    [
      "reset changes the size",
      CLOSE_CODE.finalSize,
      (l) => l.receive(frames(stream(0, 4, pattern(4)), reset(0, 1, 7))),
    ],
    ["a stream of ours not opened", CLOSE_CODE.protocol, (l) => l.receive(stream(1, 0, pattern(1)))],
    ["acknowledges what was not sent", CLOSE_CODE.protocol, (l) => l.receive(Uint8Array.of(1), 0, 99)],
    ["SACK of what was not sent", CLOSE_CODE.protocol, (l) => l.receive(Uint8Array.of(1), 0, 0, [[5, 6]])],
    ["SACK upside down", CLOSE_CODE.protocol, (l) => (l.sent(), l.receive(Uint8Array.of(1), 0, 0, [[2, 1]]))],
    ["floor above the packet", CLOSE_CODE.protocol, (l) => l.receive(Uint8Array.of(FRAME.ACK_FLOOR, 9))],
  ];
  for (const [what, code, act] of cases) {
    const lonely = new Lonely(SMALL);
    act(lonely);
    assertEquals([lonely.end?.code, lonely.end?.by], [code, "local"], what);
    assert(lonely.end!.farewell !== undefined, what);
  }
});

Deno.test("reassembly is bounded in pieces over all streams", () => {
  const lonely = new Lonely({ streamWindowBytes: 2 ** 30, connectionWindowBytes: 2 ** 30 });
  // Every second byte, so that no two pieces touch.
  const perPacket = 256;
  for (let n = 0; lonely.end === undefined; n++) {
    assert(n * perPacket <= MAX_REASSEMBLY_PIECES, "the bound was passed");
    const parts: Uint8Array[] = [];
    for (let i = 0; i < perPacket; i++) parts.push(stream(0, 2 * (n * perPacket + i) + 2, Uint8Array.of(1)));
    lonely.receive(frames(...parts));
  }
  assertEquals(lonely.end.code, CLOSE_CODE.flowControl);
});

Deno.test("pieces that were delivered, reset or stopped leave the bound free again", () => {
  const lonely = new Lonely({ streamWindowBytes: 2 ** 30, connectionWindowBytes: 2 ** 30 });
  for (let round = 0; round < 3 * MAX_REASSEMBLY_PIECES / 1000; round++) {
    const id = 2 * round;
    for (let n = 0; n < 4; n++) {
      const parts: Uint8Array[] = [];
      for (let i = 0; i < 250; i++) parts.push(stream(id, 2 * (n * 250 + i) + 2, Uint8Array.of(1)));
      lonely.receive(frames(...parts));
    }
    if (round % 3 === 0) lonely.receive(reset(id, 1, 5000));
    else if (round % 3 === 1) lonely.connection.stopStream(id, 1);
    else lonely.receive(stream(id, 0, new Uint8Array(2001)));
  }
  assertEquals(lonely.end, undefined);
});

Deno.test("the peer's window bounds what is sent, whatever was written", () => {
  const lonely = new Lonely({}, { streamWindowBytes: 700, connectionWindowBytes: 1000 });
  const open = () => lonely.connection.openStream();
  for (const id of [open(), open()]) lonely.connection.write(id, pattern(5000), true);
  let total = 0;
  for (const { plain } of lonely.sent()) {
    const reader = new FrameReader();
    reader.reset(plain, plain.length);
    for (let type = reader.next(); type >= 0; type = reader.next()) {
      if (type === FRAME.STREAM) total += reader.dataEnd - reader.dataStart;
    }
  }
  assertEquals(total, 1000);
});

Deno.test("a probe timeout sends the oldest frames again with PSH, backs off, and an acknowledgement resets the backoff", () => {
  const lonely = new Lonely({ keepAliveMs: 0, idleTimeoutMs: 0 }, { idleTimeoutMs: 0 });
  const id = lonely.connection.openStream();
  lonely.connection.write(id, pattern(100), true);
  assertEquals(lonely.sent(0).map(({ plain }) => typesIn(plain)), [[FRAME.STREAM]]);
  const at: number[] = [];
  let last = 0;
  let newest = 0;
  for (let i = 0; i < MAX_PROBE_BACKOFF + 2; i++) {
    const due = lonely.connection.timeoutAt;
    if (due === Infinity || due > 25_000) break;
    at.push(due - last);
    last = due;
    lonely.connection.onTimeout(due);
    const out = lonely.sent(due);
    assert(out.length >= 1 && out.every(({ flags }) => (flags & FLAG.PSH) !== 0));
    assertEquals(typesIn(out[0]!.plain), [FRAME.PING, FRAME.STREAM]);
    newest = out.at(-1)!.sequence;
  }
  // RTT 10, variance 5, the peer's delay 8: 38 ms, doubling.
  assertEquals(at.slice(0, 4), [38, 76, 152, 304]);
  lonely.receive(Uint8Array.of(), last + 10, newest + 1);
  assertEquals(lonely.connection.timeoutAt, Infinity);
  lonely.connection.write(lonely.connection.openStream(), pattern(10), true);
  lonely.sent(last + 10);
  assertEquals(Math.round(lonely.connection.timeoutAt - (last + 10)), 33);
});

Deno.test("a packet is lost after three higher ones were acknowledged, or after 9/8 RTT, not before", () => {
  const lonely = new Lonely();
  const send = (now: number) => {
    lonely.connection.write(lonely.connection.openStream(), pattern(10), true);
    lonely.sent(now);
  };
  for (let i = 0; i < 4; i++) send(i * 0.1);
  lonely.receive(Uint8Array.of(), 10, 0, [[1, 2]]);
  assertEquals(lonely.connection.stats().packetsLost, 0);
  assertEquals(lonely.connection.timeoutAt < 13, true);
  lonely.receive(Uint8Array.of(), 10.1, 0, [[1, 3]]);
  assertEquals(lonely.connection.stats().packetsLost, 1);
  const late = new Lonely();
  for (let i = 0; i < 2; i++) {
    late.connection.write(late.connection.openStream(), pattern(10), true);
    late.sent(0);
  }
  late.receive(Uint8Array.of(), 10, 0, [[1, 1]]);
  assertEquals(late.connection.stats().packetsLost, 0);
  late.connection.onTimeout(late.connection.timeoutAt);
  assertEquals(late.connection.stats().packetsLost, 1);
});

Deno.test("credit frames come in quarters of the window, on both levels", () => {
  const lonely = new Lonely({ connectionWindowBytes: 2000, streamWindowBytes: 1000 });
  lonely.receive(stream(0, 0, pattern(900)));
  lonely.sent();
  lonely.connection.consumed(0, 200);
  assertEquals(lonely.sent(), []);
  lonely.connection.consumed(0, 100);
  assertEquals(lonely.sent().map(({ plain }) => typesIn(plain)), [[FRAME.MAX_STREAM_DATA]]);
  lonely.connection.consumed(0, 300);
  assertEquals(lonely.sent().map(({ plain }) => typesIn(plain)), [[FRAME.MAX_DATA, FRAME.MAX_STREAM_DATA]]);
});

Deno.test("STOP for a half whose bytes are all sent is answered with RESET of the size that was sent", () => {
  const lonely = new Lonely();
  const id = lonely.connection.openStream();
  lonely.connection.write(id, pattern(300), true);
  lonely.sent();
  const stop = new Uint8Array(8);
  lonely.receive(stop.subarray(0, writeFrame2(stop, 0, FRAME.STOP, id, 5)));
  const [packet] = lonely.sent();
  const reader = new FrameReader();
  reader.reset(packet!.plain, packet!.plain.length);
  assertEquals([reader.next(), reader.stream, reader.value, reader.finalSize], [FRAME.RESET, id, 5, 300]);
});
