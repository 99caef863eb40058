import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { brief, concat, drain, frame, framesOf, type Sent, setting, u32 } from "./_frames.ts";
import type { Abuse } from "./connection.ts";
import { Http2ServerConnection } from "./server.ts";
import { ERROR } from "./errors.ts";
import { FLAG, PREFACE, readU32, SETTING, TYPE } from "./frames.ts";
import { encodeFields, HpackDecoder } from "./hpack.ts";
import {
  CONNECTION_WINDOW_BYTES,
  MAX_CONTROL_BYTES,
  MAX_OUTPUT_BYTES,
  STREAM_QUEUE_BYTES,
  STREAM_WINDOW_BYTES,
} from "./params.ts";
import type { RequestHead } from "./request.ts";
import type { Http2Stream } from "./stream.ts";

const START = concat(PREFACE, frame(TYPE.SETTINGS));
const HEAD: [string, string][] = [[":method", "POST"], [":scheme", "http"], [":path", "/a"], [
  ":authority",
  "h",
]];
const END = FLAG.END_STREAM;
const ALL = FLAG.END_HEADERS | FLAG.END_STREAM;
const OK = encodeFields([[":status", "200"]]);
const TRAILERS = encodeFields([["grpc-status", "0"]]);

function headers(id: number, flags: number = FLAG.END_HEADERS, fields = HEAD): Uint8Array {
  return frame(TYPE.HEADERS, id, encodeFields(fields), flags);
}

/** A connection with a client by hand. */
class World {
  nowMs = 1_000_000;
  readonly events: string[] = [];
  readonly abuses: Abuse[] = [];
  readonly streams: Http2Stream[] = [];
  heads: RequestHead[] = [];
  received = 0;
  signals = 0;
  onRequest: ((stream: Http2Stream) => void) | undefined;
  readonly connection = new Http2ServerConnection({
    onRequest: (stream, head, isWhole) => {
      this.events.push(`${stream.id} ${head.method} ${head.path}${isWhole ? " whole" : ""}`);
      this.streams.push(stream);
      this.heads.push(head);
      stream.handler = {
        onBody: (bytes) => {
          this.received += bytes.length;
          // Pieces depend on how the bytes came.
          const last = this.events.length - 1;
          const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
          if (this.events[last]!.startsWith(`${stream.id} data `)) this.events[last] += text;
          else this.events.push(`${stream.id} data ${text}`);
        },
        onBodyEnd: () => this.events.push(`${stream.id} end`),
        onReset: (code) => this.events.push(`${stream.id} reset ${code}`),
        onWritable: () => this.events.push(`${stream.id} drain`),
      };
      this.onRequest?.(stream);
    },
    onOutput: () => this.signals++,
    onAbuse: (what) => this.abuses.push(what),
  }, { maxConcurrentStreams: 100, maxHeaderListBytes: 16_384, minPingIntervalMs: 5_000 });

  receive(...parts: readonly Uint8Array[]): void {
    this.connection.receive(concat(...parts), this.nowMs);
  }

  /** Everything that was sent since the last time. */
  sent(): Sent[] {
    return framesOf(drain(this.connection));
  }
}

function started(): World {
  const world = new World();
  world.receive(START);
  world.sent();
  return world;
}

Deno.test("Http2ServerConnection answers the preface with its settings and a window, and acknowledges settings", () => {
  const world = new World();
  world.receive(START);
  const [settings, window, ack] = world.sent();
  assertEquals(
    settings!.payload,
    Uint8Array.from([
      ...setting(SETTING.MAX_CONCURRENT_STREAMS, 100),
      ...setting(SETTING.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES),
      ...setting(SETTING.MAX_HEADER_LIST_SIZE, 16_384),
    ]),
  );
  assertEquals(readU32(window!.payload, 0), CONNECTION_WINDOW_BYTES - 65_535);
  assertEquals(brief([ack!]), [[TYPE.SETTINGS, FLAG.ACK, 0, 0]]);
});

Deno.test("Http2ServerConnection passes a request on and frames its answer", () => {
  const world = started();
  world.receive(headers(1), frame(TYPE.DATA, 1, [1, 2]), frame(TYPE.DATA, 1, [3], END));
  assertEquals(world.events, ["1 POST /a", "1 data 010203", "1 end"]);
  world.streams[0]!.answer(OK, Uint8Array.of(7), Uint8Array.of(8, 9), TRAILERS);
  const [head, data, trailers] = world.sent();
  // The first block begins with a table size update.
  assertEquals(head!.payload, concat(Uint8Array.of(0x20), OK));
  assertEquals([data!.payload, data!.flags], [Uint8Array.of(7, 8, 9), 0]);
  assertEquals([trailers!.payload, trailers!.flags], [TRAILERS, ALL]);
  assertEquals([world.connection.streamCount, world.signals], [0, 2]);
});

Deno.test("Http2ServerConnection takes padding and priority off, and counts padding in the windows", () => {
  const world = started();
  const block = encodeFields(HEAD);
  const flags = FLAG.PADDED | FLAG.PRIORITY | FLAG.END_HEADERS;
  world.receive(frame(TYPE.HEADERS, 1, [2, 0, 0, 0, 0, 16, ...block, 0, 0], flags));
  for (let i = 0; i < 40; i++) {
    world.receive(frame(TYPE.DATA, 1, [255, 1, ...new Uint8Array(255)], FLAG.PADDED));
  }
  world.receive(frame(TYPE.DATA, 1, [0], FLAG.PADDED | END));
  assertEquals(world.events, ["1 POST /a", `1 data ${"01".repeat(40)}`, "1 end"]);
});

Deno.test("Http2ServerConnection puts header blocks together from CONTINUATION, and checks trailers", () => {
  const world = started();
  const block = encodeFields(HEAD);
  world.receive(frame(TYPE.HEADERS, 1, block.subarray(0, 3)));
  world.receive(frame(TYPE.CONTINUATION, 1, block.subarray(3, 5)));
  world.receive(frame(TYPE.CONTINUATION, 1, block.subarray(5), FLAG.END_HEADERS));
  world.receive(headers(1, ALL, [["x", "y"]]));
  assertEquals(world.events, ["1 POST /a", "1 end"]);
  world.receive(headers(3), headers(3, ALL, HEAD));
  world.receive(headers(5), headers(5, FLAG.END_HEADERS, [["x", "y"]]));
  assertEquals(world.events.slice(2), ["3 POST /a", "3 reset 1", "5 POST /a", "5 reset 1"]);
});

// Mistakes: what the client sends behind its preface and settings, and the code it is told.

const BIG = new Uint8Array(16_385);
const CONNECTION_ERRORS: Readonly<Record<string, readonly [code: keyof typeof ERROR, ...Uint8Array[]]>> = {
  "a frame that is too long": ["FRAME_SIZE_ERROR", frame(TYPE.DATA, 1, BIG)],
  "DATA on no stream": ["PROTOCOL_ERROR", frame(TYPE.DATA, 0, [1])],
  "DATA on an idle stream": ["PROTOCOL_ERROR", frame(TYPE.DATA, 1, [1])],
  "DATA padded beyond its end": ["PROTOCOL_ERROR", headers(1), frame(TYPE.DATA, 1, [9, 1], FLAG.PADDED)],
  "padded DATA of nothing": ["FRAME_SIZE_ERROR", headers(1), frame(TYPE.DATA, 1, [], FLAG.PADDED)],
  "HEADERS on no stream": ["PROTOCOL_ERROR", headers(0)],
  "HEADERS on an even stream": ["PROTOCOL_ERROR", headers(2)],
  "HEADERS on a stream that has ended": [
    "STREAM_CLOSED",
    headers(1),
    frame(TYPE.RST_STREAM, 1, u32(8)),
    headers(1),
  ],
  "HEADERS below the last stream": ["STREAM_CLOSED", headers(5), headers(3)],
  "HEADERS padded beyond its end": ["PROTOCOL_ERROR", frame(TYPE.HEADERS, 1, [9, 0x82], 0x0c)],
  "HEADERS too short for its priority": ["FRAME_SIZE_ERROR", frame(TYPE.HEADERS, 1, [0, 0], 0x24)],
  "a block that is no HPACK": ["COMPRESSION_ERROR", frame(TYPE.HEADERS, 1, [0xff, 0xff], 0x04)],
  "a block that is interrupted": ["PROTOCOL_ERROR", headers(1, 0), frame(TYPE.PING, 0, new Uint8Array(8))],
  "a block that goes on elsewhere": ["PROTOCOL_ERROR", headers(1, 0), frame(TYPE.CONTINUATION, 3, [], 0x04)],
  "CONTINUATION without HEADERS": ["PROTOCOL_ERROR", frame(TYPE.CONTINUATION, 1, [], 0x04)],
  "PRIORITY on no stream": ["PROTOCOL_ERROR", frame(TYPE.PRIORITY, 0, new Uint8Array(5))],
  "PRIORITY of 4 bytes": ["FRAME_SIZE_ERROR", frame(TYPE.PRIORITY, 1, new Uint8Array(4))],
  "RST_STREAM on no stream": ["PROTOCOL_ERROR", frame(TYPE.RST_STREAM, 0, u32(8))],
  "RST_STREAM on an idle stream": ["PROTOCOL_ERROR", frame(TYPE.RST_STREAM, 1, u32(8))],
  "RST_STREAM of 3 bytes": ["FRAME_SIZE_ERROR", headers(1), frame(TYPE.RST_STREAM, 1, [0, 0, 8])],
  "SETTINGS on a stream": ["PROTOCOL_ERROR", frame(TYPE.SETTINGS, 1)],
  "SETTINGS of 5 bytes": ["FRAME_SIZE_ERROR", frame(TYPE.SETTINGS, 0, new Uint8Array(5))],
  "an acknowledgement with settings": [
    "FRAME_SIZE_ERROR",
    frame(TYPE.SETTINGS, 0, new Uint8Array(6), FLAG.ACK),
  ],
  "a push setting of 2": ["PROTOCOL_ERROR", frame(TYPE.SETTINGS, 0, setting(SETTING.ENABLE_PUSH, 2))],
  "a window of 2^31": [
    "FLOW_CONTROL_ERROR",
    frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 2 ** 31)),
  ],
  "frames of 16,383 bytes": [
    "PROTOCOL_ERROR",
    frame(TYPE.SETTINGS, 0, setting(SETTING.MAX_FRAME_SIZE, 16_383)),
  ],
  "frames of 2^24 bytes": [
    "PROTOCOL_ERROR",
    frame(TYPE.SETTINGS, 0, setting(SETTING.MAX_FRAME_SIZE, 2 ** 24)),
  ],
  "an initial window that overflows a stream's": [
    "FLOW_CONTROL_ERROR",
    headers(1),
    frame(TYPE.WINDOW_UPDATE, 1, u32(2 ** 31 - 1 - 65_535)),
    frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 65_536)),
  ],
  "a push": ["PROTOCOL_ERROR", frame(TYPE.PUSH_PROMISE, 1, new Uint8Array(4), 0x04)],
  "PING on a stream": ["PROTOCOL_ERROR", frame(TYPE.PING, 1, new Uint8Array(8))],
  "PING of 7 bytes": ["FRAME_SIZE_ERROR", frame(TYPE.PING, 0, new Uint8Array(7))],
  "GOAWAY on a stream": ["PROTOCOL_ERROR", frame(TYPE.GOAWAY, 1, new Uint8Array(8))],
  "GOAWAY of 7 bytes": ["FRAME_SIZE_ERROR", frame(TYPE.GOAWAY, 0, new Uint8Array(7))],
  "WINDOW_UPDATE of 5 bytes": ["FRAME_SIZE_ERROR", frame(TYPE.WINDOW_UPDATE, 0, new Uint8Array(5))],
  "WINDOW_UPDATE by nothing": ["PROTOCOL_ERROR", frame(TYPE.WINDOW_UPDATE, 0, u32(0))],
  "WINDOW_UPDATE on an idle stream": ["PROTOCOL_ERROR", frame(TYPE.WINDOW_UPDATE, 1, u32(1))],
  "a connection window that overflows": [
    "FLOW_CONTROL_ERROR",
    frame(TYPE.WINDOW_UPDATE, 0, u32(2 ** 31 - 1)),
  ],
};

for (const [name, [code, ...parts]] of Object.entries(CONNECTION_ERRORS)) {
  Deno.test(`Http2ServerConnection.receive() ends the connection with ${code} on ${name}`, () => {
    const world = started();
    world.receive(...parts);
    const goAway = world.sent().at(-1)!;
    assertEquals([goAway.type, readU32(goAway.payload, 4)], [TYPE.GOAWAY, ERROR[code]]);
    assertEquals([world.connection.isDone, world.connection.streamCount], [true, 0]);
    const { length } = world.events;
    world.receive(headers(99));
    assertEquals([world.events.length, world.connection.poll()], [length, undefined]);
  });
}

Deno.test("Http2ServerConnection.receive() ends the connection when it does not begin as HTTP/2 does", () => {
  const wrong = [
    concat(PREFACE.subarray(0, 20), Uint8Array.of(1)),
    concat(PREFACE, headers(1)),
    concat(PREFACE, frame(TYPE.SETTINGS, 0, [], FLAG.ACK)),
  ];
  for (const bytes of wrong) {
    const world = new World();
    world.receive(bytes);
    const goAway = world.sent().at(-1)!;
    assertEquals([goAway.type, readU32(goAway.payload, 4)], [TYPE.GOAWAY, ERROR.PROTOCOL_ERROR]);
  }
});

const post = (...more: [string, string][]) => [...HEAD, ...more];
const STREAM_ERRORS: Readonly<Record<string, readonly [code: keyof typeof ERROR, ...Uint8Array[]]>> = {
  "DATA behind the end": ["STREAM_CLOSED", headers(1, ALL), frame(TYPE.DATA, 1, [1])],
  "HEADERS behind the end": ["STREAM_CLOSED", headers(1, ALL), headers(1, ALL)],
  "DATA beyond its window": [
    "FLOW_CONTROL_ERROR",
    headers(1),
    ...Array.from({ length: 17 }, () => frame(TYPE.DATA, 1, BIG.subarray(1))),
  ],
  "WINDOW_UPDATE by nothing": ["PROTOCOL_ERROR", headers(1), frame(TYPE.WINDOW_UPDATE, 1, u32(0))],
  "a window that overflows": [
    "FLOW_CONTROL_ERROR",
    headers(1),
    frame(TYPE.WINDOW_UPDATE, 1, u32(2 ** 31 - 1)),
  ],
  "PRIORITY of 4 bytes": ["FRAME_SIZE_ERROR", headers(1), frame(TYPE.PRIORITY, 1, new Uint8Array(4))],
  "a pseudo-header behind a field": [
    "PROTOCOL_ERROR",
    headers(1, ALL, [[":method", "GET"], ["x", "y"], [":scheme", "http"], [":path", "/"]]),
  ],
  "a pseudo-header twice": ["PROTOCOL_ERROR", headers(1, ALL, [[":method", "GET"], ...HEAD])],
  "an unknown pseudo-header": ["PROTOCOL_ERROR", headers(1, ALL, [[":x", "GET"], ...HEAD])],
  "a status in a request": ["PROTOCOL_ERROR", headers(1, ALL, [[":status", "200"], ...HEAD])],
  "no method": ["PROTOCOL_ERROR", headers(1, ALL, HEAD.slice(1))],
  "no scheme": ["PROTOCOL_ERROR", headers(1, ALL, HEAD.filter(([name]) => name !== ":scheme"))],
  "no path": ["PROTOCOL_ERROR", headers(1, ALL, HEAD.filter(([name]) => name !== ":path"))],
  "an empty path": [
    "PROTOCOL_ERROR",
    headers(1, ALL, [[":method", "GET"], [":scheme", "http"], [":path", ""]]),
  ],
  "CONNECT with a path": ["PROTOCOL_ERROR", headers(1, ALL, [[":method", "CONNECT"], [":path", "/"]])],
  "an upper-case name": [
    "PROTOCOL_ERROR",
    frame(TYPE.HEADERS, 1, [...encodeFields(HEAD), 0, 1, 0x41, 1, 0x41], ALL),
  ],
  "a connection field": ["PROTOCOL_ERROR", headers(1, ALL, post(["connection", "close"]))],
  "a transfer-encoding": ["PROTOCOL_ERROR", headers(1, ALL, post(["transfer-encoding", "chunked"]))],
  "an upgrade": ["PROTOCOL_ERROR", headers(1, ALL, post(["upgrade", "x"]))],
  "a keep-alive": ["PROTOCOL_ERROR", headers(1, ALL, post(["keep-alive", "x"]))],
  "a proxy-connection": ["PROTOCOL_ERROR", headers(1, ALL, post(["proxy-connection", "x"]))],
  "te that is not trailers": ["PROTOCOL_ERROR", headers(1, ALL, post(["te", "gzip"]))],
  "a content-length that is no number": ["PROTOCOL_ERROR", headers(1, ALL, post(["content-length", "-1"]))],
  "two content-lengths": [
    "PROTOCOL_ERROR",
    headers(1, FLAG.END_HEADERS, post(["content-length", "1"], ["content-length", "2"])),
  ],
  "a content-length and no body": ["PROTOCOL_ERROR", headers(1, ALL, post(["content-length", "1"]))],
  "a body shorter than content-length": [
    "PROTOCOL_ERROR",
    headers(1, FLAG.END_HEADERS, post(["content-length", "2"])),
    frame(TYPE.DATA, 1, [1], END),
  ],
  "a body longer than content-length": [
    "PROTOCOL_ERROR",
    headers(1, FLAG.END_HEADERS, post(["content-length", "2"])),
    frame(TYPE.DATA, 1, [1, 2, 3], END),
  ],
};

for (const [name, [code, ...parts]] of Object.entries(STREAM_ERRORS)) {
  Deno.test(`Http2ServerConnection.receive() resets a stream with ${code} on ${name}, and serves others`, () => {
    const world = started();
    // The handler takes nothing: the stream's window is not widened.
    world.onRequest = (stream) => stream.pause();
    world.receive(...parts);
    const resets = world.sent().filter(({ type }) => type === TYPE.RST_STREAM);
    assertEquals(resets.map(({ id, payload }) => [id, readU32(payload, 0)]), [[1, ERROR[code]]]);
    if (world.events.length > 0) assertEquals(world.events.at(-1), `1 reset ${ERROR[code]}`);
    // What was on its way is ignored.
    world.receive(frame(TYPE.DATA, 1, [1]), headers(1, ALL), frame(TYPE.WINDOW_UPDATE, 1, u32(5)));
    world.receive(headers(3, ALL));
    assertEquals([world.events.at(-1), world.connection.end], ["3 POST /a whole", undefined]);
  });
}

Deno.test("Http2ServerConnection takes what HTTP/2 allows", () => {
  const world = started();
  world.receive(
    headers(1, ALL, post(["te", "trailers"], ["content-length", "0"], ["cookie", "a=b"])),
    headers(3, FLAG.END_HEADERS, [[":method", "CONNECT"], [":authority", "h:1"]]),
    headers(5, ALL, [[":method", "OPTIONS"], [":scheme", "http"], [":path", "*"]]),
    frame(0xfa, 0, [1, 2, 3]),
    frame(TYPE.PRIORITY, 77, new Uint8Array(5)),
    frame(TYPE.GOAWAY, 0, new Uint8Array(20)),
    frame(TYPE.SETTINGS, 0, setting(0x99, 1)),
    frame(TYPE.SETTINGS, 0, [], FLAG.ACK),
  );
  assertEquals(world.events, ["1 POST /a whole", "3 CONNECT ", "5 OPTIONS * whole"]);
  assertEquals(world.heads[0]!.get("cookie"), "a=b");
  assertEquals(world.connection.end, undefined);
});

Deno.test("Http2ServerConnection answers 431 to a head that is too large, and ends the connection on a block that is", () => {
  const world = started();
  const field: [string, string] = ["x", "v".repeat(8_100)];
  world.receive(headers(1, ALL, post(field, field)));
  const [answer] = world.sent();
  assertEquals(new HpackDecoder(1_000).decode(answer!.payload, 0, answer!.payload.length).fields, [
    ":status",
    "431",
  ]);
  assertEquals([world.events, world.connection.streamCount], [[], 0]);
  world.receive(headers(3, 0, [field]));
  for (let i = 0; i < 4; i++) world.receive(frame(TYPE.CONTINUATION, 3, encodeFields([field])));
  assertEquals([world.connection.end, world.abuses], [
    { code: ERROR.ENHANCE_YOUR_CALM, message: "headers_too_large" },
    ["frames"],
  ]);
});

Deno.test("Http2ServerConnection refuses streams over its limit, and takes new ones when others end", () => {
  const world = started();
  for (let i = 0; i < 101; i++) world.receive(headers(2 * i + 1));
  const [reset] = world.sent();
  assertEquals([reset!.id, readU32(reset!.payload, 0)], [201, ERROR.REFUSED_STREAM]);
  assertEquals(world.connection.streamCount, 100);
  world.receive(frame(TYPE.RST_STREAM, 1, u32(8)), headers(203, ALL));
  assertEquals(world.events.at(-1), "203 POST /a whole");
});

// Windows.

Deno.test("Http2ServerConnection keeps to the stream's and the connection's window, and goes on as they widen", () => {
  const world = started();
  world.receive(
    frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 40_000)),
    headers(1, ALL),
    headers(3, ALL),
  );
  world.sent();
  const body = new Uint8Array(50_000).map((_, i) => i);
  for (const stream of world.streams) stream.answer(OK, body.subarray(0, 5), body.subarray(5), TRAILERS);
  const received: Record<number, number> = { 1: 0, 3: 0 };
  const take = () => {
    for (const { type, id, payload } of world.sent()) {
      if (type !== TYPE.DATA) continue;
      assert(payload.every((byte, i) => byte === ((received[id]! + i) & 0xff)));
      received[id]! += payload.length;
    }
    return [received[1], received[3]];
  };
  // 65,535 for both; they take turns by frames.
  assertEquals(take().reduce((a, b) => a! + b!), 65_535);
  assert(received[1]! <= 40_000 && received[3]! <= 40_000);
  world.receive(frame(TYPE.WINDOW_UPDATE, 0, u32(100_000)));
  assertEquals(take(), [40_000, 40_000]);
  world.receive(frame(TYPE.WINDOW_UPDATE, 3, u32(9_999)));
  assertEquals(take(), [40_000, 49_999]);
  // A smaller initial window makes windows negative, a larger one wakes.
  world.receive(frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 0)));
  world.receive(frame(TYPE.WINDOW_UPDATE, 1, u32(40_000)));
  assertEquals(take(), [40_000, 49_999]);
  world.receive(frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 60_000)));
  assertEquals(take(), [50_000, 50_000]);
  assertEquals(world.connection.streamCount, 0);
});

Deno.test("Http2ServerConnection asks a writer to wait while its client does not read, and keeps little framed", () => {
  const world = started();
  world.receive(
    frame(TYPE.WINDOW_UPDATE, 0, u32(2 ** 30)),
    frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 2 ** 30)),
    headers(1, ALL),
  );
  const stream = world.streams[0]!;
  stream.respond(OK);
  let written = 0;
  while (stream.write(new Uint8Array(10_000))) written += 10_000;
  assert(written < MAX_OUTPUT_BYTES + STREAM_QUEUE_BYTES + 20_000, String(written));
  const first = world.connection.poll()!;
  assert(first.length < MAX_OUTPUT_BYTES + 20_000);
  while (world.connection.poll() !== undefined);
  assertEquals(world.events.at(-1), "1 drain");
  stream.end();
  assertEquals(brief(world.sent()), [[TYPE.DATA, END, 1, 0]]);
  // One message of any size is kept as it is, and leaves in pieces.
  world.receive(headers(3, ALL));
  world.streams[1]!.answer(OK, NOTHING, new Uint8Array(10_000_000), TRAILERS);
  let most = 0;
  let all = 0;
  for (let part = world.connection.poll(); part !== undefined; part = world.connection.poll()) {
    most = Math.max(most, part.length);
    all += part.length;
  }
  assert(most < MAX_OUTPUT_BYTES + 20_000 && all > 10_000_000);
  assertEquals(world.connection.streamCount, 0);
});

const NOTHING = new Uint8Array(0);

Deno.test("Http2ServerConnection widens the client's windows as the body is taken, not while a stream is paused", () => {
  const world = started();
  const piece = new Uint8Array(16_000);
  const updates = () =>
    world.sent().filter(({ type }) => type === TYPE.WINDOW_UPDATE).map((
      { id, payload },
    ) => [id, readU32(payload, 0)]);
  world.receive(headers(1));
  for (let i = 0; i < 9; i++) world.receive(frame(TYPE.DATA, 1, piece));
  assertEquals(updates(), [[1, 144_000]]);
  world.streams[0]!.pause();
  for (let i = 0; i < 16; i++) world.receive(frame(TYPE.DATA, 1, piece));
  assertEquals(updates(), []);
  world.streams[0]!.resume();
  assertEquals(updates(), [[1, 256_000]]);
  for (let i = 0; i < 10; i++) world.receive(frame(TYPE.DATA, 1, piece));
  assertEquals(updates(), [[0, 528_000], [1, 144_000]].slice(0, 2));
  // What a stream held goes back to the connection with its end.
  world.receive(headers(3));
  world.streams[1]!.pause();
  for (let i = 0; i < 16; i++) world.receive(frame(TYPE.DATA, 3, piece));
  world.receive(frame(TYPE.RST_STREAM, 3, u32(8)), headers(5));
  for (let i = 0; i < 16; i++) world.receive(frame(TYPE.DATA, 5, piece));
  assert(updates().some(([id]) => id === 0));
});

Deno.test("Http2ServerConnection takes no more streams while too much waits for the client", () => {
  const world = started();
  world.receive(headers(1, ALL), headers(3, ALL), headers(5, ALL));
  const largest = new Uint8Array(64 * 2 ** 20);
  for (const stream of world.streams.slice(0, 2)) stream.answer(OK, NOTHING, largest, TRAILERS);
  // A window's worth has been framed.
  world.receive(headers(7, ALL));
  assertEquals(world.events.at(-1), "7 POST /a whole");
  world.streams[2]!.answer(OK, NOTHING, largest, TRAILERS);
  world.receive(headers(9, ALL));
  const refused = world.sent().find(({ type }) => type === TYPE.RST_STREAM)!;
  assertEquals([refused.id, readU32(refused.payload, 0)], [9, ERROR.REFUSED_STREAM]);
  for (const id of [1, 3, 5, 7]) world.receive(frame(TYPE.RST_STREAM, id, u32(8)));
  assertEquals(world.connection.queuedBytes, 0);
  world.receive(headers(11, ALL));
  assertEquals(world.events.at(-1), "11 POST /a whole");
});

// Floods.

const FLOODS: Readonly<Record<string, (i: number) => Uint8Array>> = {
  "resets": (i) => concat(headers(2 * i + 1), frame(TYPE.RST_STREAM, 2 * i + 1, u32(8))),
  "mistakes that make us reset": (i) =>
    concat(headers(2 * i + 1), frame(TYPE.WINDOW_UPDATE, 2 * i + 1, u32(0))),
  "malformed requests": (i) => headers(2 * i + 1, ALL, []),
  "pings": () => frame(TYPE.PING, 0, new Uint8Array(8)),
  "settings": () => frame(TYPE.SETTINGS),
  "empty DATA": (i) => i === 0 ? headers(1) : frame(TYPE.DATA, 1),
  "priorities": () => frame(TYPE.PRIORITY, 1, new Uint8Array(5)),
  "unknown frames": () => frame(0x77),
  "goodbyes": () => frame(TYPE.GOAWAY, 0, new Uint8Array(8)),
  "empty CONTINUATION": (i) => i === 0 ? headers(1, 0) : frame(TYPE.CONTINUATION, 1),
};

for (const [name, make] of Object.entries(FLOODS)) {
  Deno.test(`Http2ServerConnection ends the connection with ENHANCE_YOUR_CALM on a flood of ${name}`, () => {
    const world = started();
    let most = 0;
    for (let i = 0; i < 10_000 && world.connection.end === undefined; i++) {
      world.receive(make(i));
      // The client reads.
      most = Math.max(most, world.connection.poll()?.length ?? 0);
    }
    assertEquals([world.connection.end!.code, world.abuses.length], [ERROR.ENHANCE_YOUR_CALM, 1]);
    assert(most < 1_000, `${most} bytes at once`);
    assertEquals(world.connection.streamCount, 0);
  });
}

Deno.test("Http2ServerConnection bounds the answers to a client that makes us send them and does not read", () => {
  const world = started();
  world.receive(headers(1));
  let at = 0;
  while (world.connection.end === undefined && at++ < 100_000) {
    world.nowMs += 10_000;
    world.receive(frame(TYPE.PING, 0, new Uint8Array(8)));
  }
  assertEquals(world.connection.end!.message, "too_many_answers_unread");
  assert(world.connection.poll()!.length < MAX_OUTPUT_BYTES + MAX_CONTROL_BYTES + 100);
});

Deno.test("Http2ServerConnection forgives early pings when it sends something, and cancels now and then", () => {
  const world = started();
  for (let i = 0; i < 2_000; i++) {
    world.nowMs += 20;
    world.receive(
      headers(4 * i + 1, ALL),
      frame(TYPE.PING, 0, new Uint8Array(8)),
      headers(4 * i + 3),
      frame(TYPE.RST_STREAM, 4 * i + 3, u32(8)),
    );
    world.streams[2 * i]!.respond(OK, true);
    world.sent();
  }
  assertEquals([world.connection.end, world.abuses], [undefined, []]);
  for (let i = 0; i < 3; i++) world.receive(frame(TYPE.PING, 0, new Uint8Array(8)));
  assertEquals(world.connection.end!.message, "too_many_pings");
});

// Ends.

Deno.test("Http2ServerConnection.shutdown() lets what runs finish, in two steps", () => {
  const world = started();
  world.receive(headers(1, ALL));
  world.connection.shutdown();
  world.connection.shutdown();
  const [first, ping] = world.sent();
  assertEquals([first!.type, readU32(first!.payload, 0), ping!.type], [TYPE.GOAWAY, 2 ** 31 - 1, TYPE.PING]);
  // Opened before the client knew: served.
  world.receive(headers(3, ALL), frame(TYPE.PING, 0, ping!.payload, FLAG.ACK));
  const [second] = world.sent();
  assertEquals([second!.type, readU32(second!.payload, 0)], [TYPE.GOAWAY, 3]);
  world.receive(headers(5, ALL));
  assertEquals(world.events, ["1 POST /a whole", "3 POST /a whole"]);
  for (const stream of world.streams) {
    assertEquals(world.connection.isDone, false);
    stream.respond(OK, true);
  }
  assertEquals(world.connection.isDone, false);
  world.sent();
  assertEquals(world.connection.isDone, true);
});

Deno.test("Http2ServerConnection.close() ends all streams, and commands do nothing then", () => {
  const world = started();
  world.receive(headers(1, ALL), headers(3));
  world.connection.close();
  assertEquals(world.events.slice(2), ["1 reset 8", "3 reset 8"]);
  for (const stream of world.streams) {
    stream.respond(OK);
    assertEquals(stream.write(new Uint8Array(10)), true);
    stream.end();
    stream.reset(2);
    stream.resume();
  }
  assertEquals(world.connection.poll(), undefined);
});

// Any bytes.

/** Valid traffic, from numbers. */
function traffic(choices: readonly number[]): Uint8Array {
  const parts = [START];
  let next = 1;
  for (const choice of choices) {
    const id = next - 2 > 0 ? next - 2 : 1;
    switch (choice % 9) {
      case 0:
      case 1:
        parts.push(headers(next, choice % 2 === 0 ? FLAG.END_HEADERS : ALL, post(["n", String(choice)])));
        next += 2;
        break;
      case 2:
        parts.push(
          frame(TYPE.DATA, id, new Uint8Array(choice % 300).fill(choice), choice % 4 === 0 ? END : 0),
        );
        break;
      case 3:
        parts.push(frame(TYPE.DATA, id, [3, choice, choice, 0, 0, 0], FLAG.PADDED));
        break;
      case 4:
        parts.push(frame(TYPE.PING, 0, new Uint8Array(8).fill(choice)));
        break;
      case 5:
        parts.push(frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, choice * 100)));
        break;
      case 6:
        parts.push(frame(TYPE.WINDOW_UPDATE, choice % 2 === 0 ? 0 : id, u32(choice + 1)));
        break;
      case 7: {
        const block = encodeFields(HEAD);
        parts.push(
          frame(TYPE.HEADERS, next, block.subarray(0, choice % block.length), choice % 2 === 0 ? END : 0),
        );
        parts.push(frame(TYPE.CONTINUATION, next, block.subarray(choice % block.length), FLAG.END_HEADERS));
        next += 2;
        break;
      }
      case 8:
        parts.push(frame(TYPE.RST_STREAM, id, u32(8)));
    }
  }
  return concat(...parts);
}

function outcome(bytes: Uint8Array, cuts: (at: number) => number): unknown {
  const world = new World();
  // Answers to every third, so that output and input mix.
  world.onRequest = (stream) => {
    if (stream.id % 3 === 0) stream.answer(OK, NOTHING, new Uint8Array(500), TRAILERS);
  };
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + cuts(at));
    world.connection.receive(bytes.slice(at, end), world.nowMs);
    at = end;
  }
  return [world.events, world.connection.end, world.sent()];
}

Deno.test("Http2ServerConnection.receive() says the same of the same bytes, wherever chunks are cut", () => {
  const choices = fc.array(fc.nat(1_000), { maxLength: 25 });
  fc.assert(
    fc.property(choices, fc.integer({ min: 1, max: 40 }), (of, step) => {
      const bytes = traffic(of);
      const whole = outcome(bytes, () => bytes.length);
      assertEquals(outcome(bytes, () => step), whole);
      assertEquals(outcome(bytes, (at) => 1 + (at * 7919) % 61), whole);
    }),
    { numRuns: 200 },
  );
  const bytes = traffic([0, 2, 1, 3, 7, 4, 7, 11, 20, 22, 8, 6]);
  const whole = outcome(bytes, () => bytes.length);
  for (let cut = 1; cut < bytes.length; cut++) {
    assertEquals(outcome(bytes, (at) => at < cut ? cut - at : bytes.length), whole, `cut at ${cut}`);
  }
});

Deno.test("Http2ServerConnection.receive() never throws on random or mutated bytes, and stays bounded", () => {
  const mutation = fc.tuple(fc.nat(), fc.nat(255));
  fc.assert(
    fc.property(
      fc.array(fc.nat(1_000), { maxLength: 30 }),
      fc.array(mutation, { maxLength: 8 }),
      fc.uint8Array({ maxLength: 60 }),
      (choices, mutations, tail) => {
        const bytes = concat(traffic(choices), tail);
        for (const [at, value] of mutations) {
          bytes[START.length + at % (bytes.length - START.length + 1)] = value;
        }
        const world = new World();
        world.onRequest = (stream) => stream.answer(OK, NOTHING, new Uint8Array(100), TRAILERS);
        for (let at = 0; at < bytes.length; at += 50) world.receive(bytes.subarray(at, at + 50));
        assert(world.connection.streamCount <= 100);
        assert((world.connection.poll()?.length ?? 0) <= MAX_OUTPUT_BYTES + MAX_CONTROL_BYTES + 20_000);
        world.connection.close();
        assertEquals([world.connection.streamCount, world.connection.queuedBytes], [0, 0]);
      },
    ),
    { numRuns: 3_000 },
  );
});
