import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { brief, concat, drain, frame, framesOf, type Sent, setting, u32 } from "./_frames.ts";
import { Http2ClientConnection, type Http2ClientStream, type ResponseHandler } from "./client.ts";
import { ERROR } from "./errors.ts";
import { FLAG, PREFACE, readU32, SETTING, TYPE } from "./frames.ts";
import { encodeFields, HpackDecoder } from "./hpack.ts";
import {
  CONNECTION_WINDOW_BYTES,
  MAX_CONTROL_BYTES,
  MAX_OUTPUT_BYTES,
  MAX_WAITING_STREAMS,
  STREAM_QUEUE_BYTES,
  STREAM_WINDOW_BYTES,
} from "./params.ts";
import { Http2ServerConnection } from "./server.ts";

const SETTINGS = frame(TYPE.SETTINGS);
const REQUEST = encodeFields([[":method", "POST"], [":scheme", "http"], [":path", "/a"]]);
const OK: [string, string][] = [[":status", "200"]];
const TRAILERS: [string, string][] = [["grpc-status", "0"]];
const END = FLAG.END_STREAM;
const ALL = FLAG.END_HEADERS | FLAG.END_STREAM;
const NOTHING = new Uint8Array(0);

function headers(id: number, flags: number = FLAG.END_HEADERS, fields = OK): Uint8Array {
  return frame(TYPE.HEADERS, id, encodeFields(fields), flags);
}

const goAway = (lastId: number, code: number, text = "") =>
  frame(TYPE.GOAWAY, 0, [...u32(lastId), ...u32(code), ...new TextEncoder().encode(text)]);

/** A connection with a server by hand. */
class World {
  readonly events: string[] = [];
  readonly streams: Http2ClientStream[] = [];
  received = 0;
  signals = 0;
  nowMs = 1_000_000;
  readonly connection: Http2ClientConnection = new Http2ClientConnection({
    onOutput: () => this.signals++,
    onReady: () => this.events.push("ready"),
    onGoAway: (code, text) => this.events.push(`goaway ${code} ${text}`),
    onPong: () => this.events.push("pong"),
  }, { maxHeaderListBytes: 16_384 });

  receive(...parts: readonly Uint8Array[]): void {
    this.connection.receive(concat(...parts), this.nowMs);
  }

  sent(): Sent[] {
    return framesOf(drain(this.connection));
  }

  /** What becomes of the n-th request. */
  handler(n: number): ResponseHandler {
    return {
      onHead: (head, isWhole) => this.events.push(`${n} ${head.status}${isWhole ? " whole" : ""}`),
      onBody: (bytes) => {
        this.received += bytes.length;
        // Pieces depend on how the bytes came.
        const last = this.events.length - 1;
        const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
        if (this.events[last]!.startsWith(`${n} data `)) this.events[last] += text;
        else this.events.push(`${n} data ${text}`);
      },
      onBodyEnd: (trailers) => this.events.push(`${n} end${trailers.map((text) => ` ${text}`).join("")}`),
      onReset: (code, cause) => this.events.push(`${n} reset ${code} ${cause}`),
      onWritable: () => this.events.push(`${n} drain`),
    };
  }

  open(isLast = true): Http2ClientStream {
    const stream = this.connection.open(REQUEST, this.handler(this.streams.length), isLast)!;
    this.streams.push(stream);
    return stream;
  }

  request(body: Uint8Array): Http2ClientStream {
    const stream = this.connection.request(
      REQUEST,
      body.subarray(0, 1),
      body.subarray(1),
      this.handler(this.streams.length),
    )!;
    this.streams.push(stream);
    return stream;
  }
}

function started(...settings: number[]): World {
  const world = new World();
  world.receive(frame(TYPE.SETTINGS, 0, settings));
  world.sent();
  world.events.length = 0;
  return world;
}

Deno.test("Http2ClientConnection begins with the preface, its settings and a window, and opens streams once it knows the server's", () => {
  const world = new World();
  world.open();
  const said = drain(world.connection);
  assertEquals(said.subarray(0, PREFACE.length), PREFACE);
  const [settings, window] = framesOf(said.subarray(PREFACE.length));
  assertEquals(
    settings!.payload,
    Uint8Array.from([
      ...setting(SETTING.ENABLE_PUSH, 0),
      ...setting(SETTING.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES),
      ...setting(SETTING.MAX_HEADER_LIST_SIZE, 16_384),
    ]),
  );
  assertEquals(readU32(window!.payload, 0), CONNECTION_WINDOW_BYTES - 65_535);
  assertEquals([world.connection.streamCount, world.connection.waitingCount], [0, 1]);
  world.receive(SETTINGS);
  const [ack, head] = world.sent();
  assertEquals([brief([ack!]), world.events], [[[TYPE.SETTINGS, FLAG.ACK, 0, 0]], ["ready"]]);
  assertEquals([head!.id, head!.flags, head!.payload], [1, ALL, concat(Uint8Array.of(0x20), REQUEST)]);
});

Deno.test("Http2ClientConnection sends requests and passes answers on, trailers and all", () => {
  const world = started();
  world.request(Uint8Array.of(1, 2, 3));
  const stream = world.open(false);
  stream.write(Uint8Array.of(4), Uint8Array.of(5));
  stream.end(encodeFields([["x", "y"]]));
  assertEquals(world.sent().map(({ type, flags, id, payload }) => [type, flags, id, payload.length]), [
    [TYPE.HEADERS, FLAG.END_HEADERS, 1, REQUEST.length + 1],
    [TYPE.DATA, END, 1, 3],
    [TYPE.HEADERS, FLAG.END_HEADERS, 3, REQUEST.length],
    [TYPE.DATA, 0, 3, 2],
    [TYPE.HEADERS, ALL, 3, encodeFields([["x", "y"]]).length],
  ]);
  const block = encodeFields([...OK, ["content-length", "3"]]);
  world.receive(
    headers(3, FLAG.END_HEADERS, [[":status", "103"]]),
    frame(TYPE.HEADERS, 3, block.subarray(0, 2)),
    frame(TYPE.CONTINUATION, 3, block.subarray(2), FLAG.END_HEADERS),
    frame(TYPE.DATA, 3, [2, 6, 7, 0, 0], FLAG.PADDED),
    headers(1, ALL, [[":status", "204"]]),
    frame(TYPE.DATA, 3, [8]),
    headers(3, ALL, TRAILERS),
  );
  assertEquals(world.events, ["1 200", "1 data 0607", "0 204 whole", "1 data 08", "1 end grpc-status 0"]);
  assertEquals([world.connection.streamCount, stream.isOpen], [0, false]);
});

Deno.test("Http2ClientConnection lets an answer count that comes before the request is sent, and stops sending", () => {
  for (const reset of [[], [frame(TYPE.RST_STREAM, 1, u32(ERROR.NO_ERROR))]]) {
    const world = started();
    world.request(new Uint8Array(3_000_000));
    assertEquals(
      world.sent().reduce((sum, { type, payload }) => sum + (type === TYPE.DATA ? payload.length : 0), 0),
      65_535,
    );
    world.receive(headers(1), headers(1, ALL, [["grpc-status", "8"]]), ...reset);
    assertEquals(world.events.slice(0, 2), ["0 200", "0 end grpc-status 8"]);
    if (reset.length > 0) assertEquals(world.events.slice(2), ["0 reset 0 peer"]);
    else world.streams[0]!.reset(ERROR.NO_ERROR);
    world.receive(frame(TYPE.WINDOW_UPDATE, 0, u32(2 ** 30)), frame(TYPE.WINDOW_UPDATE, 1, u32(2 ** 30)));
    assertEquals(world.sent().filter(({ type }) => type === TYPE.DATA), []);
    assertEquals([world.connection.streamCount, world.connection.queuedBytes], [0, 0]);
    assertEquals(world.connection.end, undefined);
  }
});

Deno.test("Http2ClientConnection ignores what comes for a stream that was given up", () => {
  const world = started();
  world.open().reset(ERROR.CANCEL);
  assertEquals(world.sent().at(-1)!.type, TYPE.RST_STREAM);
  world.receive(
    headers(1),
    frame(TYPE.DATA, 1, [1, 2]),
    frame(TYPE.WINDOW_UPDATE, 1, u32(5)),
    headers(1, ALL, TRAILERS),
    frame(TYPE.RST_STREAM, 1, u32(8)),
  );
  assertEquals([world.events, world.connection.end], [[], undefined]);
  // Thousands of such streams are no flood of the server's.
  for (let i = 0; i < 20_000; i++) {
    const stream = world.open();
    stream.reset(ERROR.CANCEL);
    world.receive(headers(stream.id), frame(TYPE.DATA, stream.id, [1]), headers(stream.id, ALL, TRAILERS));
    world.sent();
  }
  assertEquals([world.events, world.connection.end], [[], undefined]);
});

// How many streams the server takes.

Deno.test("Http2ClientConnection opens no more streams than the server takes, in the order they were asked for", () => {
  const world = started(...setting(SETTING.MAX_CONCURRENT_STREAMS, 2));
  const streams = Array.from({ length: 5 }, () => world.open());
  const opened = () => world.sent().filter(({ type }) => type === TYPE.HEADERS).map(({ id }) => id);
  assertEquals(opened(), [1, 3]);
  streams[3]!.reset(ERROR.CANCEL); // it waits still: the server hears nothing of it
  world.receive(headers(1, ALL));
  assertEquals([opened(), streams[2]!.id], [[5], 5]);
  assertEquals(world.connection.waitingCount, 1);
  world.receive(frame(TYPE.SETTINGS, 0, setting(SETTING.MAX_CONCURRENT_STREAMS, 100)));
  assertEquals([opened(), streams[4]!.id], [[7], 7]);
  world.receive(frame(TYPE.SETTINGS, 0, setting(SETTING.MAX_CONCURRENT_STREAMS, 0)));
  for (let i = 0; i < MAX_WAITING_STREAMS; i++) assert(world.connection.open(REQUEST, world.handler(9)));
  assertEquals(world.connection.open(REQUEST, world.handler(9)), undefined);
});

Deno.test("Http2ClientConnection opens no streams while the socket takes nothing, and ids go up all the same", () => {
  const world = started(...setting(SETTING.INITIAL_WINDOW_SIZE, 2 ** 30));
  world.receive(frame(TYPE.WINDOW_UPDATE, 0, u32(2 ** 30)));
  const body = new Uint8Array(100_000);
  for (let i = 0; i < 50; i++) world.request(body);
  assert(world.connection.waitingCount > 0);
  const frames = world.sent();
  const ids = frames.filter(({ type }) => type === TYPE.HEADERS).map(({ id }) => id);
  assertEquals(ids, Array.from({ length: 50 }, (_, i) => 2 * i + 1));
  const bytes = frames.reduce((sum, { type, payload }) => sum + (type === TYPE.DATA ? payload.length : 0), 0);
  assertEquals([bytes, world.connection.waitingCount], [50 * body.length, 0]);
});

// Ends.

Deno.test("Http2ClientConnection lets streams the server knows of finish after its goodbye, and ends the others as unprocessed", () => {
  const world = started(...setting(SETTING.MAX_CONCURRENT_STREAMS, 3));
  for (let i = 0; i < 4; i++) world.open();
  world.receive(goAway(2 ** 31 - 1, ERROR.NO_ERROR));
  assertEquals(world.events, ["goaway 0 ", "3 reset 7 unprocessed"]);
  assertEquals([world.connection.isOpen, world.connection.open(REQUEST, world.handler(9))], [
    false,
    undefined,
  ]);
  world.events.length = 0;
  world.receive(goAway(3, ERROR.ENHANCE_YOUR_CALM, "too_many_pings"));
  assertEquals(world.events, ["goaway 11 too_many_pings", "2 reset 7 unprocessed"]);
  world.sent();
  world.receive(headers(1, ALL));
  assertEquals([world.events.at(-1), world.connection.isDone], ["0 200 whole", false]);
  world.receive(headers(3, ALL));
  assertEquals([world.events.at(-1), world.connection.isDone], ["1 200 whole", true]);
});

Deno.test("Http2ClientConnection.shutdown() lets what runs finish and tells the server", () => {
  const world = started(...setting(SETTING.MAX_CONCURRENT_STREAMS, 1));
  world.open();
  world.open();
  world.connection.shutdown();
  world.connection.shutdown();
  const bye = world.sent().filter(({ type }) => type === TYPE.GOAWAY);
  assertEquals(bye.map(({ payload }) => [readU32(payload, 0), readU32(payload, 4)]), [[0, 0]]);
  assertEquals([world.events, world.connection.isDone], [["1 reset 7 unprocessed"], false]);
  world.receive(headers(1, ALL));
  assertEquals([world.events.at(-1), world.connection.isDone], ["0 200 whole", true]);
});

Deno.test("Http2ClientConnection.close() ends every stream, and says which the server cannot have seen", () => {
  const world = started(...setting(SETTING.MAX_CONCURRENT_STREAMS, 1));
  const streams = [world.open(false), world.open(false)];
  world.sent();
  world.connection.close();
  assertEquals(world.events.sort(), ["0 reset 8 connection", "1 reset 7 unprocessed"]);
  for (const stream of streams) {
    assertEquals(stream.write(new Uint8Array(10)), true);
    stream.end();
    stream.reset(2);
    stream.resume();
  }
  assertEquals([world.connection.poll(), world.connection.open(REQUEST, world.handler(0))], [
    undefined,
    undefined,
  ]);
});

Deno.test("Http2ClientConnection tells a refused stream from one that was reset", () => {
  const world = started();
  world.open();
  world.open();
  world.receive(frame(TYPE.RST_STREAM, 1, u32(ERROR.REFUSED_STREAM)), frame(TYPE.RST_STREAM, 3, u32(2)));
  assertEquals(world.events, ["0 reset 7 unprocessed", "1 reset 2 peer"]);
});

Deno.test("Http2ClientConnection answers pings, and hears the answers to its own", () => {
  const world = started();
  world.receive(frame(TYPE.PING, 0, [1, 2, 3, 4, 5, 6, 7, 8]));
  world.connection.ping();
  const [answer, own] = world.sent();
  assertEquals([answer!.flags, answer!.payload], [FLAG.ACK, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)]);
  assertEquals([own!.type, own!.flags], [TYPE.PING, 0]);
  world.receive(frame(TYPE.PING, 0, own!.payload, FLAG.ACK));
  assertEquals(world.events, ["pong"]);
});

// Windows.

Deno.test("Http2ClientConnection keeps to both windows, and asks a writer to wait", () => {
  const world = started(...setting(SETTING.INITIAL_WINDOW_SIZE, 40_000));
  const stream = world.open(false);
  let written = 0;
  while (stream.write(new Uint8Array(1_000))) written += 1_000;
  assert(written >= 40_000 && written < 40_000 + STREAM_QUEUE_BYTES + 2_000, String(written));
  const data = () =>
    world.sent().reduce((sum, { type, payload }) => sum + (type === TYPE.DATA ? payload.length : 0), 0);
  assertEquals(data(), 40_000);
  world.receive(frame(TYPE.WINDOW_UPDATE, 1, u32(10)));
  assertEquals(data(), 10);
  world.receive(frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 100_000)));
  assertEquals([data() > 0, world.events], [true, ["0 drain"]]);
  const other = world.request(new Uint8Array(100_000));
  assertEquals(world.connection.queuedBytes, other.queuedBytes);
  world.receive(frame(TYPE.WINDOW_UPDATE, 0, u32(100_000)));
  data();
  assertEquals(world.connection.queuedBytes, 0);
});

Deno.test("Http2ClientConnection holds a paused stream back, and no other", () => {
  const world = started();
  for (let i = 0; i < 10; i++) world.open();
  world.sent();
  const piece = new Uint8Array(16_000);
  const updates = () =>
    world.sent().filter(({ type }) => type === TYPE.WINDOW_UPDATE).map((
      { id, payload },
    ) => [id, readU32(payload, 0)]);
  // Many paused streams with full windows: more than the connection's.
  for (let i = 0; i < 9; i++) {
    world.streams[i]!.pause();
    world.receive(headers(2 * i + 1));
    for (let n = 0; n < 16; n++) world.receive(frame(TYPE.DATA, 2 * i + 1, piece));
    assert(updates().every(([id]) => id === 0));
  }
  world.receive(headers(19));
  for (let n = 0; n < 9; n++) world.receive(frame(TYPE.DATA, 19, piece));
  assertEquals(updates().filter(([id]) => id !== 0), [[19, 144_000]]);
  world.streams[0]!.resume();
  assertEquals(updates(), [[1, 256_000]]);
  // Its end gives nothing back that was given already.
  world.streams[1]!.reset(ERROR.CANCEL);
  assertEquals(updates(), []);
  world.receive(frame(TYPE.DATA, 5, new Uint8Array(7_000)));
  assertEquals(world.events.at(-1), "2 reset 3 mistake");
});

// Servers that break the rules.

const CONNECTION_ERRORS: Readonly<Record<string, readonly [code: keyof typeof ERROR, ...Uint8Array[]]>> = {
  "a frame that is too long": ["FRAME_SIZE_ERROR", frame(TYPE.DATA, 1, new Uint8Array(16_385))],
  "HEADERS on a stream that was not opened": ["PROTOCOL_ERROR", headers(5)],
  "HEADERS on an even stream": ["PROTOCOL_ERROR", headers(2)],
  "DATA on a stream that was not opened": ["PROTOCOL_ERROR", frame(TYPE.DATA, 5, [1])],
  "RST_STREAM on a stream that was not opened": ["PROTOCOL_ERROR", frame(TYPE.RST_STREAM, 5, u32(0))],
  "WINDOW_UPDATE on a stream that was not opened": ["PROTOCOL_ERROR", frame(TYPE.WINDOW_UPDATE, 5, u32(1))],
  "a push": ["PROTOCOL_ERROR", frame(TYPE.PUSH_PROMISE, 1, new Uint8Array(4), 0x04)],
  "pushes announced": ["PROTOCOL_ERROR", frame(TYPE.SETTINGS, 0, setting(SETTING.ENABLE_PUSH, 1))],
  "a block that is no HPACK": ["COMPRESSION_ERROR", frame(TYPE.HEADERS, 1, [0xff, 0xff], 0x04)],
  "a block that is interrupted": ["PROTOCOL_ERROR", headers(1, 0), frame(TYPE.PING, 0, new Uint8Array(8))],
  "GOAWAY of 7 bytes": ["FRAME_SIZE_ERROR", frame(TYPE.GOAWAY, 0, new Uint8Array(7))],
};

for (const [name, [code, ...parts]] of Object.entries(CONNECTION_ERRORS)) {
  Deno.test(`Http2ClientConnection.receive() ends the connection with ${code} on ${name}`, () => {
    const world = started();
    world.open();
    world.sent();
    world.receive(...parts);
    const bye = world.sent().at(-1)!;
    assertEquals([bye.type, readU32(bye.payload, 0), readU32(bye.payload, 4)], [TYPE.GOAWAY, 0, ERROR[code]]);
    assertEquals([world.connection.isDone, world.events], [true, ["0 reset 8 connection"]]);
  });
}

Deno.test("Http2ClientConnection.receive() ends the connection when the server does not begin with settings", () => {
  const world = new World();
  world.open();
  world.receive(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
  assertEquals(world.events, ["0 reset 7 unprocessed"]);
  assert(world.connection.end !== undefined);
});

const STREAM_ERRORS: Readonly<Record<string, readonly [code: keyof typeof ERROR, ...Uint8Array[]]>> = {
  "DATA before its head": ["PROTOCOL_ERROR", frame(TYPE.DATA, 1, [1])],
  "a head without a status": ["PROTOCOL_ERROR", headers(1, ALL, [["a", "b"]])],
  "a status that is none": ["PROTOCOL_ERROR", headers(1, ALL, [[":status", "20"]])],
  "a request's pseudo-header": ["PROTOCOL_ERROR", headers(1, ALL, [...OK, [":path", "/"]])],
  "a connection field": ["PROTOCOL_ERROR", headers(1, ALL, [...OK, ["connection", "close"]])],
  "an interim answer that ends": ["PROTOCOL_ERROR", headers(1, ALL, [[":status", "100"]])],
  "interim answers without end": [
    "PROTOCOL_ERROR",
    ...Array.from({ length: 17 }, () => headers(1, FLAG.END_HEADERS, [[":status", "103"]])),
  ],
  "a second head": ["PROTOCOL_ERROR", headers(1), headers(1)],
  "a status behind the body": ["PROTOCOL_ERROR", headers(1), headers(1, ALL)],
  "DATA behind the end": ["STREAM_CLOSED", headers(1, ALL), frame(TYPE.DATA, 1, [1])],
  "a body shorter than content-length": [
    "PROTOCOL_ERROR",
    headers(1, FLAG.END_HEADERS, [...OK, ["content-length", "2"]]),
    frame(TYPE.DATA, 1, [1], END),
  ],
  "header fields that are too many": [
    "ENHANCE_YOUR_CALM",
    headers(1, ALL, [...OK, ["x", "v".repeat(8_150)], ["y", "v".repeat(8_150)]]),
  ],
};

for (const [name, [code, ...parts]] of Object.entries(STREAM_ERRORS)) {
  Deno.test(`Http2ClientConnection.receive() resets a stream with ${code} on ${name}, and goes on with others`, () => {
    const world = started();
    world.open(false); // the request goes on, so that the stream is open after the answer
    world.open();
    world.sent();
    world.receive(...parts);
    const resets = world.sent().filter(({ type }) => type === TYPE.RST_STREAM);
    assertEquals(resets.map(({ id, payload }) => [id, readU32(payload, 0)]), [[1, ERROR[code]]]);
    assertEquals(world.events.at(-1), `0 reset ${ERROR[code]} mistake`);
    world.receive(headers(3, ALL));
    assertEquals([world.events.at(-1), world.connection.end], ["1 200 whole", undefined]);
  });
}

const FLOODS: Readonly<Record<string, () => Uint8Array>> = {
  "settings": () => SETTINGS,
  "unknown frames": () => frame(0x77),
  "priorities": () => frame(TYPE.PRIORITY, 1, new Uint8Array(5)),
  "empty DATA": () => frame(TYPE.DATA, 1),
  "answers to pings that were not sent": () => frame(TYPE.PING, 0, new Uint8Array(8), FLAG.ACK),
  "goodbyes": () => goAway(2 ** 31 - 1, 0),
};

for (const [name, make] of Object.entries(FLOODS)) {
  Deno.test(`Http2ClientConnection ends the connection with ENHANCE_YOUR_CALM on a flood of ${name}`, () => {
    const world = started();
    world.open();
    world.receive(headers(1));
    for (let i = 0; i < 10_000 && world.connection.end === undefined; i++) {
      world.receive(make());
      world.connection.poll();
    }
    assertEquals(world.connection.end?.code, ERROR.ENHANCE_YOUR_CALM);
  });
}

Deno.test("Http2ClientConnection bounds its answers to a server that pings and does not read", () => {
  const world = started();
  for (let i = 0; i < 100_000 && world.connection.end === undefined; i++) {
    world.receive(frame(TYPE.PING, 0, new Uint8Array(8)));
  }
  assertEquals(world.connection.end!.message, "too_many_answers_unread");
  assert(world.connection.poll()!.length < MAX_OUTPUT_BYTES + MAX_CONTROL_BYTES + 100);
});

Deno.test("Http2ClientConnection bounds header blocks that are cut into frames", () => {
  const world = started();
  world.open();
  world.receive(headers(1, 0, [["x", "v".repeat(8_000)]]));
  for (let i = 0; i < 4; i++) {
    world.receive(frame(TYPE.CONTINUATION, 1, encodeFields([["x", "v".repeat(8_000)]])));
  }
  assertEquals(world.connection.end, { code: ERROR.ENHANCE_YOUR_CALM, message: "headers_too_large" });
});

// Both ends of ours, and any bytes.

Deno.test("Http2ClientConnection and Http2ServerConnection carry any bodies both ways, wherever chunks are cut", () => {
  const body = fc.integer({ min: 0, max: 300_000 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(body, body), { maxLength: 8 }),
      fc.integer({ min: 1, max: 50_000 }),
      (calls, cut) => {
        const answers: string[] = [];
        const server = new Http2ServerConnection({
          onRequest(stream, head, isWhole) {
            let received = 0;
            const answer = () => {
              const [asked, size] = calls[Number(head.path.slice(1))]!;
              assertEquals(received, asked);
              stream.answer(
                encodeFields(OK),
                NOTHING,
                new Uint8Array(size).fill(size),
                encodeFields(TRAILERS),
              );
            };
            stream.handler = {
              onBody: (bytes) => received += bytes.length,
              onBodyEnd: answer,
              onReset() {},
              onWritable() {},
            };
            if (isWhole) answer();
          },
          onOutput() {},
          onAbuse() {},
        }, { maxConcurrentStreams: 3, maxHeaderListBytes: 16_384, minPingIntervalMs: 5_000 });
        const client = new Http2ClientConnection(
          { onOutput() {}, onReady() {}, onGoAway() {}, onPong() {} },
          { maxHeaderListBytes: 16_384 },
        );
        calls.forEach(([size], n) => {
          let received = 0;
          client.request(
            encodeFields([[":method", "POST"], [":scheme", "http"], [":path", `/${n}`]]),
            NOTHING,
            new Uint8Array(size),
            {
              onHead() {},
              onBody: (bytes) => received += bytes.length,
              onBodyEnd: (trailers) => answers[n] = `${received} ${trailers.join()}`,
              onReset: (code, cause) => answers[n] = `${code} ${cause}`,
              onWritable() {},
            },
          );
        });
        const ends = [client, server] as const;
        for (let isQuiet = false; !isQuiet;) {
          isQuiet = true;
          for (const [from, to] of [ends, [server, client]] as const) {
            const said = drain(from);
            for (let at = 0; at < said.length; at += cut) to.receive(said.slice(at, at + cut), 0);
            if (said.length > 0) isQuiet = false;
          }
        }
        assertEquals(answers, calls.map(([, size]) => `${size} grpc-status,0`));
        for (const end of ends) assertEquals([end.end, end.streamCount, end.queuedBytes], [undefined, 0, 0]);
      },
    ),
    { numRuns: 60 },
  );
});

/** What a server might say, from numbers. */
function traffic(choices: readonly number[]): Uint8Array {
  const parts = [SETTINGS];
  for (const choice of choices) {
    const id = 1 + 2 * (choice % 5);
    const more: [string, string][] = [["n", String(choice)]];
    const one = [
      () => headers(id, FLAG.END_HEADERS, [...OK, ...more]),
      () => headers(id, ALL, [...TRAILERS, ...more]),
      () => frame(TYPE.DATA, id, new Uint8Array(choice % 300).fill(choice), choice % 4 === 0 ? END : 0),
      () => frame(TYPE.DATA, id, [3, choice, choice, 0, 0, 0], FLAG.PADDED),
      () => frame(TYPE.RST_STREAM, id, u32(choice % 14)),
      () => frame(TYPE.SETTINGS, 0, setting(SETTING.INITIAL_WINDOW_SIZE, choice * 100)),
      () => frame(TYPE.SETTINGS, 0, setting(SETTING.MAX_CONCURRENT_STREAMS, choice % 7)),
      () => frame(TYPE.WINDOW_UPDATE, choice % 2 === 0 ? 0 : id, u32(choice + 1)),
      () => frame(TYPE.PING, 0, new Uint8Array(8).fill(choice)),
      () => goAway(choice % 12, choice % 14),
    ][choice % 10]!;
    parts.push(one());
  }
  return concat(...parts);
}

function outcome(bytes: Uint8Array, cuts: (at: number) => number): unknown {
  const world = new World();
  for (let i = 0; i < 4; i++) world.request(new Uint8Array(300 * i));
  world.open(false);
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + cuts(at));
    world.receive(bytes.slice(at, end));
    at = end;
  }
  const said = drain(world.connection).subarray(PREFACE.length);
  return [world.events, world.connection.end, framesOf(said)];
}

Deno.test("Http2ClientConnection.receive() says the same of the same bytes, wherever chunks are cut", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(1_000), { maxLength: 25 }), fc.integer({ min: 1, max: 40 }), (of, step) => {
      const bytes = traffic(of);
      const whole = outcome(bytes, () => bytes.length);
      assertEquals(outcome(bytes, () => step), whole);
      assertEquals(outcome(bytes, (at) => 1 + (at * 7919) % 61), whole);
    }),
    { numRuns: 200 },
  );
});

Deno.test("Http2ClientConnection.receive() never throws on random or mutated bytes, tells each end once, and stays bounded", () => {
  const mutation = fc.tuple(fc.nat(), fc.nat(255));
  fc.assert(
    fc.property(
      fc.array(fc.nat(1_000), { maxLength: 30 }),
      fc.array(mutation, { maxLength: 8 }),
      fc.uint8Array({ maxLength: 60 }),
      (choices, mutations, tail) => {
        const bytes = concat(traffic(choices), tail);
        for (const [at, value] of mutations) bytes[9 + at % (bytes.length - 8)] = value;
        const world = new World();
        for (let i = 0; i < 8; i++) world.request(new Uint8Array(100 * i));
        for (let at = 0; at < bytes.length; at += 50) world.receive(bytes.subarray(at, at + 50));
        assert((world.connection.poll()?.length ?? 0) <= MAX_OUTPUT_BYTES + MAX_CONTROL_BYTES + 20_000);
        world.connection.close();
        assertEquals([
          world.connection.streamCount,
          world.connection.waitingCount,
          world.connection.queuedBytes,
        ], [0, 0, 0]);
        for (let n = 0; n < 8; n++) {
          const ends = world.events.filter((event) =>
            event.startsWith(`${n} `) && /end|whole|reset/.test(event)
          );
          assert(
            ends.length >= 1 && ends.filter((event) => /end|whole/.test(event)).length <= 1,
            ends.join(),
          );
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

Deno.test("Http2ClientConnection sends heads that any decoder reads", () => {
  const world = started();
  world.open();
  const [head] = world.sent();
  const { fields } = new HpackDecoder(1_000).decode(head!.payload, 0, head!.payload.length);
  assertEquals(fields, [":method", "POST", ":scheme", "http", ":path", "/a"]);
});
