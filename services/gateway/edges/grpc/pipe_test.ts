import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { assertEquals } from "@std/assert";
import { Pipe } from "./pipe.ts";

const PREFACE = new TextEncoder().encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const PING = Uint8Array.from([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
const RESET = Uint8Array.from([0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8]);

/** A pipe at a socket that is a stub, a clock by hand, and what became of it. */
function open() {
  const sent: Uint8Array[] = [];
  const socket = new Duplex({
    read() {},
    write(chunk, _encoding, done) {
      sent.push(new Uint8Array(chunk));
      done();
    },
  });
  const world = { nowMs: 0, abuses: [] as string[], sent, ends: [] as (() => void)[] };
  const pipe = new Pipe(socket as unknown as Socket, {
    clock: { now: () => world.nowMs },
    minPingIntervalMs: 5_000,
    endOfTurn: (fn) => world.ends.push(fn),
    onAbuse: (what) => world.abuses.push(what),
  });
  const receive = (bytes: Uint8Array) => socket.emit("data", bytes);
  receive(PREFACE);
  return { ...world, world, pipe, receive };
}

Deno.test("Pipe reports pings that come too early, and forgives them when data was sent in between", () => {
  const { pipe, receive, world } = open();
  for (let i = 0; i < 10; i++) {
    receive(PING);
    world.nowMs += 5_000;
  }
  for (let i = 0; i < 10; i++) {
    receive(PING);
    receive(PING);
    // What a client that reads one large message sees: data, and no new call.
    pipe.write(new Uint8Array(16_384));
  }
  assertEquals(world.abuses, []);
  for (let i = 0; i < 10; i++) {
    receive(PING);
    pipe.write(new Uint8Array(17));
  }
  assertEquals(world.abuses, ["pings"]);
  pipe.destroy();
});

Deno.test("Pipe reports resets without end, not a client that cancels now and then", () => {
  const { pipe, receive, world } = open();
  for (let i = 0; i < 3_000; i++) {
    receive(RESET);
    world.nowMs += 20;
  }
  for (let i = 0; i < 999; i++) receive(RESET);
  assertEquals(world.abuses, []);
  for (let i = 0; i < 10; i++) receive(RESET);
  assertEquals(world.abuses, ["resets"]);
  pipe.destroy();
});

Deno.test("Pipe writes what one turn wrote at once", () => {
  const { pipe, world } = open();
  pipe.write(new Uint8Array([1]));
  pipe.write(new Uint8Array([2, 3]));
  assertEquals(world.sent, []);
  for (const end of world.ends) end();
  assertEquals(world.sent, [new Uint8Array([1, 2, 3])]);
  pipe.destroy();
});
