import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { assert, assertEquals } from "@std/assert";
import { PREFACE, TYPE } from "../../../../transport/http2/frames.ts";
import { encodeFields } from "../../../../transport/http2/hpack.ts";
import type { Http2Stream } from "../../../../transport/http2/stream.ts";
import { Http2Socket } from "./http2_socket.ts";

const SETTINGS = Uint8Array.of(0, 0, 0, TYPE.SETTINGS, 0, 0, 0, 0, 0);
const OK = encodeFields([[":status", "200"]]);

function headers(id: number): Uint8Array {
  const block = encodeFields([[":method", "GET"], [":scheme", "http"], [":path", "/"]]);
  return Uint8Array.of(0, 0, block.length, TYPE.HEADERS, 5, 0, 0, 0, id, ...block);
}

/** A connection at a socket that is a stub, and time by hand. */
function open() {
  const writes: Uint8Array[] = [];
  const world = {
    timeouts: [] as number[],
    isFull: false,
    ends: 0,
    destroyed: 0,
    turns: [] as (() => void)[],
    timers: [] as (() => void)[],
  };
  const socket = Object.assign(new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() }), {
    write(bytes: Uint8Array) {
      writes.push(bytes);
      return !world.isFull;
    },
    end: () => world.ends++,
    destroy: () => world.destroyed++,
    setTimeout: (ms: number) => void world.timeouts.push(ms),
  });
  const streams: Http2Stream[] = [];
  const connection = new Http2Socket(socket as unknown as Socket, PREFACE, {
    clock: { now: () => 0 },
    timer: {
      endOfTurn: (fn) => void world.turns.push(fn),
      after(_delayMs, fn) {
        world.timers.push(fn);
        return () => world.timers.splice(world.timers.indexOf(fn), 1);
      },
    },
    maxConcurrentStreams: 10,
    minPingIntervalMs: 5_000,
    onRequest: (stream) => void streams.push(stream),
    onAbuse() {},
  });
  assertEquals(world.timeouts, []);
  socket.emit("data", SETTINGS);
  assertEquals(world.timeouts, [0]);
  const endTurn = () => {
    for (const fn of world.turns.splice(0)) fn();
  };
  endTurn();
  return { world, writes, socket, connection, streams, endTurn };
}

Deno.test("Http2Socket writes once for all that one turn brings about", () => {
  const { writes, socket, streams, endTurn } = open();
  assertEquals(writes.length, 1);
  for (const id of [1, 3, 5]) socket.emit("data", headers(id));
  for (const stream of streams) stream.respond(OK, true);
  assertEquals(writes.length, 1);
  endTurn();
  assertEquals([writes.length, writes[1]!.length], [2, 3 * (9 + OK.length) + 1]);
});

Deno.test("Http2Socket writes nothing while its socket is full", () => {
  const { world, writes, socket, streams, endTurn } = open();
  for (const id of [1, 3, 5]) socket.emit("data", headers(id));
  world.isFull = true;
  streams[0]!.respond(OK, true);
  endTurn();
  streams[1]!.respond(OK, true);
  endTurn();
  streams[2]!.respond(OK, true);
  endTurn();
  assertEquals(writes.length, 2);
  world.isFull = false;
  socket.emit("drain");
  assertEquals([writes.length, writes[2]!.length], [3, 2 * (9 + OK.length)]);
});

Deno.test("Http2Socket ends the socket behind the last bytes, and closes it when the client does not", () => {
  const { world, writes, socket, endTurn } = open();
  socket.emit("data", headers(2));
  endTurn();
  assert(writes.at(-1)!.includes(TYPE.GOAWAY));
  assertEquals([world.ends, world.destroyed, world.timers.length], [1, 0, 1]);
  world.timers[0]!();
  assertEquals(world.destroyed, 1);
  socket.emit("close");
  assertEquals(world.timers.length, 0);
});

Deno.test("Http2Socket.shutdown() ends the socket when the last stream has ended", () => {
  const { world, writes, socket, connection, streams, endTurn } = open();
  socket.emit("data", headers(1));
  connection.shutdown();
  endTurn();
  const ping = writes.at(-1)!.slice(-8);
  socket.emit("data", Uint8Array.of(0, 0, 8, TYPE.PING, 1, 0, 0, 0, 0, ...ping));
  endTurn();
  assertEquals(world.ends, 0);
  streams[0]!.reset(0);
  endTurn();
  assertEquals(world.ends, 1);
});
