import { assert, assertEquals } from "@std/assert";
import {
  RedisService,
  type ServeRequest,
  type ServeResponseSchema,
} from "$proto/aetherflow/kv/v1/redis_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { systemTimer } from "../timer.ts";
import { OPEN_CONNECTIONS } from "../auth/connection_gate.ts";
import { listenResp, type RespListener } from "./resp.ts";

type Answer = MessageInitShape<typeof ServeResponseSchema>;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A kv that answers each piece with what `reply` makes of it. */
function start(
  reply: (connection: number, text: string) => Answer,
  options: {
    maxConnections?: number;
    isDown?: () => boolean;
    windowBytes?: number;
    /** What kv waits for before it takes a message. */
    mayTake?: Promise<void>;
  } = {},
): { listener: RespListener; seen: ServeRequest[]; connect(): Promise<Deno.TcpConn> } {
  const seen: ServeRequest[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(RedisService, {
      async *serve(requests) {
        if (options.isDown?.() === true) throw new ConnectError("down", Code.Unavailable);
        yield { windowBytes: options.windowBytes ?? 1_000 };
        await options.mayTake;
        for await (const request of requests) {
          seen.push({ ...request, data: request.data.slice() });
          let at = 0;
          for (const [i, connection] of request.pieceConnection.entries()) {
            const bytes = request.data.slice(at, at += request.pieceBytes[i]!);
            yield reply(connection, decoder.decode(bytes));
          }
        }
      },
    });
  });
  const listener = listenResp({
    transport: () => transport,
    config: { host: "127.0.0.1", port: 0, maxConnections: options.maxConnections ?? 10 },
    isShared: false,
    timer: systemTimer,
    gate: OPEN_CONNECTIONS,
    log: { debug: () => {} },
  });
  const port = Number(listener.address.split(":")[1]);
  return { listener, seen, connect: () => Deno.connect({ hostname: "127.0.0.1", port }) };
}

function piece(connection: number, text: string, more: Answer = {}): Answer {
  const data = encoder.encode(text);
  return { pieceConnection: [connection], pieceBytes: [data.length], data, ...more };
}

async function read(socket: Deno.TcpConn): Promise<string> {
  const buffer = new Uint8Array(1_000);
  const count = await socket.read(buffer);
  return count === null ? "(end)" : decoder.decode(buffer.subarray(0, count));
}

Deno.test("bytes of every connection reach kv and come back to it alone", async () => {
  const { listener, seen, connect } = start((connection, text) => piece(connection, `${connection}:${text}`));
  using one = await connect();
  using two = await connect();
  await one.write(encoder.encode("a"));
  assertEquals(await read(one), "1:a");
  await two.write(encoder.encode("b"));
  assertEquals(await read(two), "2:b");
  assertEquals(seen.flatMap(({ opened }) => opened.map(({ connection }) => connection)), [1, 2]);
  assertEquals(listener.connections, 2);
  await listener.shutdown();
  assertEquals(await read(one), "(end)");
});

Deno.test("what kv closes is closed once it is written", async () => {
  const { listener, connect } = start((connection) => piece(connection, "bye", { close: [connection] }));
  using socket = await connect();
  await socket.write(encoder.encode("x"));
  assertEquals(await read(socket), "bye");
  assertEquals(await read(socket), "(end)");
  await listener.shutdown();
});

Deno.test("a connection is not read beyond the window until kv has taken its bytes", async () => {
  let isTaking = false;
  const { listener, seen, connect } = start((connection, text) =>
    isTaking ? { takenConnection: [connection], takenBytes: [text.length] } : {}
  );
  using slow = await connect();
  using other = await connect();
  const bytes = new Uint8Array(20_000);
  const received = () => seen.flatMap(({ pieceBytes }) => pieceBytes).reduce((sum, each) => sum + each, 0);
  let sent = 0;
  while (sent < bytes.length) sent += await slow.write(bytes.subarray(sent));
  // Other connections go on; one that is read over and over would have been read by then.
  for (let i = 0; i < 50; i++) await other.write(encoder.encode("x"));
  await until(() => received() > 2_000);
  assert(received() <= 2_048 + 50, `${received()}`);
  isTaking = true;
  await listener.shutdown();
});

Deno.test("connections beyond the bound, and while kv is down, are told so", async () => {
  let isDown = false;
  const { listener, connect } = start(() => ({}), { maxConnections: 1, isDown: () => isDown });
  {
    using _one = await connect();
    using two = await connect();
    assertEquals(await read(two), "-ERR max number of clients reached\r\n");
  }
  await listener.shutdown();

  isDown = true;
  const down = start(() => ({}), { isDown: () => isDown });
  using early = await down.connect();
  assertEquals(await read(early), "-LOADING AetherFlow is loading the dataset in memory\r\n");
  isDown = false;
  using late = await down.connect();
  await late.write(encoder.encode("x"));
  await until(() => down.seen.length > 0);
  await down.listener.shutdown();
});

/** Waits, a turn at a time. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

Deno.test("what many connections send at once travels in messages that a channel carries", async () => {
  const gate = Promise.withResolvers<void>();
  const { listener, seen, connect } = start(() => ({}), {
    maxConnections: 100,
    windowBytes: 1_000_000,
    mayTake: gate.promise,
  });
  const sockets = await Promise.all(Array.from({ length: 80 }, connect));
  const bytes = new Uint8Array(300_000);
  const writing = sockets.map(async (socket) => {
    for (let sent = 0; sent < bytes.length;) sent += await socket.write(bytes.subarray(sent));
  });
  await Promise.race(writing); // the sockets' own buffers have taken what the edge does not read
  gate.resolve();
  await Promise.all(writing);
  const received = () => seen.reduce((sum, { data }) => sum + data.length, 0);
  await until(() => received() === sockets.length * bytes.length);
  const most = Math.max(...seen.map(({ data }) => data.length));
  assert(most < 2_500_000, `a message of ${most} bytes`);
  for (const socket of sockets) socket.close();
  await listener.shutdown();
});
