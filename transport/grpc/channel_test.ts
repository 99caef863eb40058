/** The client against servers that are made here, byte by byte where need be. */
import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { CERTIFICATE, KEY } from "../../tests/bench/transport/localhost_certificate.ts";
import { ERROR } from "../http2/errors.ts";
import { encodeFields } from "../http2/hpack.ts";
import type { RequestHead } from "../http2/request.ts";
import { Http2ServerConnection } from "../http2/server.ts";
import type { Http2Stream } from "../http2/stream.ts";
import type { GrpcCall } from "./call.ts";
import { GrpcChannel, type GrpcChannelOptions } from "./channel.ts";
import { MessageReader, prefixOf } from "./message_reader.ts";
import { GRPC, GrpcError, type GrpcStatus } from "./status.ts";

type Fields = [name: string, value: string][];

const HEAD: Fields = [[":status", "200"], ["content-type", "application/grpc"]];
const OK: Fields = [["grpc-status", "0"]];
const NOTHING = new Uint8Array(0);
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array) => new TextDecoder().decode(value);

/** One connection at the server. */
interface Peer {
  readonly http2: Http2ServerConnection;
  readonly socket: Deno.Conn;
  flush(): void;
}

/** A request that has come whole, or the first message of one that goes on. */
interface Asked {
  readonly head: RequestHead;
  readonly stream: Http2Stream;
  readonly message: Uint8Array;
  readonly peer: Peer;
}

interface Serving {
  /** Called for each message. */
  onMessage?(asked: Asked): void;
  /** Called for each request, before anything of its body has come. */
  onHead?(asked: Omit<Asked, "message">): void;
  onReset?(code: number): void;
  readonly maxConcurrentStreams?: number;
  /** Says nothing at all. */
  readonly isMute?: boolean;
  readonly tls?: boolean;
}

/** A server of gRPC on our own HTTP/2. */
function serve(serving: Serving) {
  const base = { hostname: "127.0.0.1", port: 0 };
  const listener = serving.tls === true
    ? Deno.listenTls({ ...base, cert: CERTIFICATE, key: KEY, alpnProtocols: ["h2"] })
    : Deno.listen(base);
  const peers: Peer[] = [];
  const running: Promise<void>[] = [];

  async function run(socket: Deno.Conn): Promise<void> {
    let isWriting = false;
    const flush = async () => {
      if (isWriting || serving.isMute === true) return;
      isWriting = true;
      await Promise.resolve();
      try {
        for (let out = http2.poll(); out !== undefined; out = http2.poll()) {
          for (let at = 0; at < out.length;) at += await socket.write(out.subarray(at));
        }
      } catch {
        // The client has gone.
      }
      isWriting = false;
      if (http2.isDone) close();
    };
    const http2 = new Http2ServerConnection({
      onRequest(stream, head) {
        const reader = new MessageReader(100_000_000);
        stream.handler = {
          onBody(chunk) {
            reader.push(chunk);
            for (let message = reader.next(); message !== undefined; message = reader.next()) {
              serving.onMessage?.({ head, stream, message: message.slice(), peer });
            }
          },
          onBodyEnd() {},
          onReset: (code) => serving.onReset?.(code),
          onWritable() {},
        };
        serving.onHead?.({ head, stream, peer });
      },
      onOutput: () => void flush(),
      onAbuse() {},
    }, {
      maxConcurrentStreams: serving.maxConcurrentStreams ?? 1_000,
      maxHeaderListBytes: 16_384,
      minPingIntervalMs: 0,
    });
    const peer: Peer = { http2, socket, flush };
    peers.push(peer);
    const close = () => {
      try {
        socket.close();
      } catch {
        // It is closed.
      }
    };
    const buffer = new Uint8Array(65_536);
    try {
      for (let n = await socket.read(buffer); n !== null; n = await socket.read(buffer)) {
        http2.receive(buffer.slice(0, n), performance.now());
      }
    } catch {
      // The client has gone, or the test closed it.
    }
    http2.close();
    close();
  }

  const accepting = (async () => {
    try {
      for await (const socket of listener) running.push(run(socket));
    } catch (error) {
      // A handshake that failed, or the end.
      if (!(error instanceof Deno.errors.BadResource)) await next();
    }
  })();
  async function next(): Promise<void> {
    for (;;) {
      try {
        running.push(run(await listener.accept()));
      } catch (error) {
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
      }
    }
  }
  const { port } = listener.addr as Deno.NetAddr;
  return {
    port,
    address: `127.0.0.1:${port}`,
    peers,
    async [Symbol.asyncDispose]() {
      listener.close();
      for (const { socket } of peers) {
        try {
          socket.close();
        } catch {
          // It is closed.
        }
      }
      await accepting;
      await Promise.all(running);
    },
  };
}

function answer({ stream }: Pick<Asked, "stream">, message: Uint8Array, trailers = OK): void {
  stream.answer(encodeFields(HEAD), prefixOf(message), message, encodeFields(trailers));
}

/** Answers with the request, its text between brackets. */
const echo: Serving = { onMessage: (asked) => answer(asked, bytes(`[${text(asked.message)}]`)) };

function open(address: string, options: Partial<GrpcChannelOptions> = {}): GrpcChannel {
  return new GrpcChannel({
    address,
    clock: { now: () => performance.now() },
    fraction: () => 0.5,
    reconnectFirstMs: 1,
    ...options,
  });
}

async function failure(
  promise: Promise<unknown>,
): Promise<[code: number, message: string, isUnsent: boolean]> {
  const error = await assertRejects(() => promise);
  assertInstanceOf(error, GrpcError);
  return [error.code, error.message, error.isUnsent];
}

/** What a stream tells, to wait for. */
class Listener {
  readonly messages: string[] = [];
  readonly ended = Promise.withResolvers<GrpcStatus>();
  writable = Promise.withResolvers<void>();
  #changed = Promise.withResolvers<void>();

  onMessage(message: Uint8Array): void {
    this.messages.push(text(message));
    this.#changed.resolve();
  }
  onEnd(status: GrpcStatus): void {
    this.ended.resolve(status);
    this.#changed.resolve();
  }
  onWritable(): void {
    this.writable.resolve();
  }
  async count(count: number): Promise<void> {
    while (this.messages.length < count) {
      this.#changed = Promise.withResolvers();
      await this.#changed.promise;
    }
  }
}

Deno.test("GrpcChannel.unary() sends what gRPC asks for and returns the answer", async () => {
  let head: RequestHead | undefined;
  await using server = serve({
    onMessage(asked) {
      head = asked.head;
      echo.onMessage!(asked);
    },
  });
  using channel = open(server.address);
  const metadata = { token: "t", "x-y": "z" };
  assertEquals(text(await channel.unary("/a.B/C", bytes("hi"), { metadata, timeoutMs: 60_000 })), "[hi]");
  assertEquals([head!.method, head!.path, head!.scheme, head!.authority], [
    "POST",
    "/a.B/C",
    "http",
    server.address,
  ]);
  const fields = ["content-type", "te", "token", "x-y"].map((name) => head!.get(name));
  assertEquals(fields, ["application/grpc", "trailers", "t", "z"]);
  assert(Number.parseInt(head!.get("grpc-timeout")!) > 50_000);
  assertEquals(text(await channel.unary("/a.B/C", NOTHING)), "[]");
  assertEquals(head!.get("grpc-timeout"), undefined);
  await assertRejects(() => channel.unary("/a.B/C", NOTHING, { metadata: { token: "a\nb" } }), TypeError);
  assertEquals(server.peers.length, 1);
});

const ENDINGS: Readonly<
  Record<string, readonly [Parameters<typeof respond>[1], code: number, message: string]>
> = {
  "a status, its text percent-encoded": [
    { trailers: [["grpc-status", "9"], ["grpc-message", "100 %25 %E2%98%83 %zz"]] },
    9,
    "100 % ☃ %zz",
  ],
  "a status without a body": [{ head: [...HEAD, ["grpc-status", "5"], ["grpc-message", "gone"]] }, 5, "gone"],
  "a code that nobody knows": [{ trailers: [["grpc-status", "99"]] }, 99, ""],
  "a status that is no number": [
    { trailers: [["grpc-status", "x"]] },
    GRPC.UNKNOWN,
    "the server sent no status but x",
  ],
  "no status": [
    { trailers: [["a", "b"]] },
    GRPC.INTERNAL,
    "server closed the stream without sending trailers",
  ],
  "OK without a message": [{ trailers: OK }, GRPC.INTERNAL, "the server sent a status and no message"],
  "two messages": [
    { body: [prefixOf(NOTHING), prefixOf(NOTHING)], trailers: OK },
    GRPC.INTERNAL,
    "the answer cannot be read: Error: a second message",
  ],
  "half a message": [
    { body: [prefixOf(new Uint8Array(9))], trailers: OK },
    GRPC.INTERNAL,
    "the answer ends within a message",
  ],
  "a message that is too large": [
    { body: [prefixOf(new Uint8Array(1_001))], trailers: OK },
    GRPC.RESOURCE_EXHAUSTED,
    "grpc: received message larger than max (1001 vs. 1000)",
  ],
  "a compressed message": [
    { head: [...HEAD, ["grpc-encoding", "gzip"]], body: [Uint8Array.of(1, 0, 0, 0, 0)], trailers: OK },
    GRPC.UNIMPLEMENTED,
    'grpc: Decompressor is not installed for grpc-encoding "gzip"',
  ],
  "HTTP 503": [
    { head: [[":status", "503"], ["content-type", "text/plain"]] },
    GRPC.UNAVAILABLE,
    "unexpected HTTP status code received from server: 503",
  ],
  "HTTP 404 with a body": [
    { head: [[":status", "404"]], body: [bytes("no such page")], trailers: [] },
    GRPC.UNIMPLEMENTED,
    "unexpected HTTP status code received from server: 404",
  ],
  "a page": [
    { head: [[":status", "200"], ["content-type", "text/html"]], trailers: [] },
    GRPC.UNKNOWN,
    'received unexpected content-type "text/html"',
  ],
};

function respond(
  { stream }: Pick<Asked, "stream">,
  { head = HEAD, body = [], trailers }: { head?: Fields; body?: readonly Uint8Array[]; trailers?: Fields },
): void {
  stream.respond(encodeFields(head), trailers === undefined);
  for (const part of body) stream.write(part);
  if (trailers !== undefined) stream.end(encodeFields(trailers));
}

for (const [name, [ending, code, message]] of Object.entries(ENDINGS)) {
  Deno.test(`GrpcChannel.unary() fails with ${code} when the server sends ${name}, and the connection lives`, async () => {
    let isFirst = true;
    await using server = serve({
      onMessage(asked) {
        if (!isFirst) return echo.onMessage!(asked);
        isFirst = false;
        respond(asked, ending);
      },
    });
    using channel = open(server.address, { maxReceiveBytes: 1_000 });
    assertEquals(await failure(channel.unary("/a.B/C", bytes("hi"))), [code, message, false]);
    assertEquals(text(await channel.unary("/a.B/C", bytes("hi"))), "[hi]");
    assertEquals(server.peers.length, 1);
  });
}

for (const isReset of [false, true]) {
  Deno.test(`GrpcChannel.unary() takes an answer that comes while the request is sent${isReset ? ", with a reset" : ""}`, async () => {
    await using server = serve({
      onHead(asked) {
        if (asked.head.path !== "/a.B/Big") return;
        asked.stream.pause();
        asked.stream.respond(
          encodeFields([...HEAD, ["grpc-status", "8"], ["grpc-message", "too large"]]),
          true,
        );
        if (isReset) asked.stream.reset(ERROR.NO_ERROR);
      },
      onMessage: echo.onMessage!,
    });
    using channel = open(server.address);
    const big = new Uint8Array(3_000_000);
    for (let i = 0; i < 20; i++) {
      assertEquals(await failure(channel.unary("/a.B/Big", big)), [8, "too large", false]);
    }
    assertEquals(text(await channel.unary("/a.B/C", bytes("hi"))), "[hi]");
    assertEquals(server.peers.length, 1);
  });
}

Deno.test("GrpcChannel.start() carries a stream both ways and asks its sender to wait", async () => {
  let received = 0;
  const peers: Asked[] = [];
  await using server = serve({
    onHead({ stream }) {
      stream.pause();
      stream.respond(encodeFields(HEAD));
    },
    onMessage(asked) {
      peers.push(asked);
      received += asked.message.length;
      const size = bytes(String(asked.message.length));
      asked.stream.write(prefixOf(size), size);
      if (asked.message.length === 0) asked.stream.end(encodeFields(OK));
    },
  });
  using channel = open(server.address);
  const listener = new Listener();
  const call = channel.start("/a.B/C", listener);
  const piece = new Uint8Array(10_000);
  let sent = 0;
  for (; call.send(piece); sent++) assert(sent < 1_000);
  await listener.count(1);
  peers[0]!.stream.resume();
  await listener.writable.promise;
  assert(sent > 0 && received > 0);
  call.send(NOTHING);
  call.endSending();
  assertEquals([(await listener.ended.promise).code, call.isOpen], [GRPC.OK, false]);
  assertEquals(listener.messages.at(-1), "0");
  assertEquals(received, (sent + 1) * piece.length);
});

Deno.test("GrpcCall.pause() lets the server send a window's worth and no more, while other calls go on", async () => {
  let written = 0;
  const big = Promise.withResolvers<Asked>();
  await using server = serve({
    onMessage(asked) {
      if (asked.head.path !== "/a.B/Big") return echo.onMessage!(asked);
      asked.stream.respond(encodeFields(HEAD));
      const piece = bytes("x".repeat(5_000));
      while (asked.stream.write(prefixOf(piece), piece)) written += piece.length;
      big.resolve(asked);
    },
  });
  using channel = open(server.address);
  const listener = new Listener();
  const call = channel.start("/a.B/Big", listener, { request: NOTHING });
  call.pause();
  const { stream } = await big.promise;
  // More than any window; it stays at the server.
  for (let i = 0; i < 100; i++) {
    const piece = bytes("x".repeat(50_000));
    stream.write(prefixOf(piece), piece);
  }
  stream.end(encodeFields(OK));
  for (let i = 0; i < 20; i++) assertEquals(text(await channel.unary("/a.B/C", bytes("hi"))), "[hi]");
  assert(stream.queuedBytes > 4_000_000, String(stream.queuedBytes));
  call.resume();
  assertEquals((await listener.ended.promise).code, GRPC.OK);
  assertEquals(listener.messages.length, 100 + written / 5_000 + 1);
});

Deno.test("a call ends at its deadline, when it is cancelled, and by a signal; the server hears of each", async () => {
  const resets: number[] = [];
  let wake = () => {};
  await using server = serve({
    onReset(code) {
      resets.push(code);
      wake();
    },
  });
  using channel = open(server.address);
  const [code, message] = await failure(channel.unary("/a.B/C", NOTHING, { timeoutMs: 20 }));
  assertEquals([code, message], [GRPC.DEADLINE_EXCEEDED, "Deadline exceeded"]);
  assertEquals((await failure(channel.unary("/a.B/C", NOTHING, { timeoutMs: 0 })))[2], true);
  const listener = new Listener();
  const call = channel.start("/a.B/C", listener);
  call.cancel();
  call.cancel();
  assertEquals((await listener.ended.promise).code, GRPC.CANCELLED);
  const abort = new AbortController();
  const aborted = failure(channel.unary("/a.B/C", NOTHING, { signal: abort.signal }));
  abort.abort();
  assertEquals((await aborted)[0], GRPC.CANCELLED);
  assertEquals((await failure(channel.unary("/a.B/C", NOTHING, { signal: abort.signal })))[2], true);
  while (resets.length < 3) await new Promise<void>((resolve) => wake = resolve);
  assertEquals(resets, [ERROR.CANCEL, ERROR.CANCEL, ERROR.CANCEL]);
});

Deno.test("what a listener throws ends its call, and no other", async () => {
  await using server = serve(echo);
  using channel = open(server.address);
  const ended = Promise.withResolvers<GrpcStatus>();
  channel.start("/a.B/C", {
    onMessage() {
      throw new RangeError("no such thing");
    },
    onEnd: ended.resolve,
  }, { request: NOTHING });
  const { code, message } = await ended.promise;
  assertEquals([code, message], [GRPC.INTERNAL, "the answer cannot be read: RangeError: no such thing"]);
  assertEquals(text(await channel.unary("/a.B/C", bytes("hi"))), "[hi]");
});

// Connections.

Deno.test("a lost connection ends its calls with UNAVAILABLE, and the next call makes another", async () => {
  await using server = serve({
    onMessage(asked) {
      if (asked.head.path === "/a.B/Die") asked.peer.socket.close();
      else echo.onMessage!(asked);
    },
  });
  const states: string[] = [];
  using channel = open(server.address, { onState: (state) => void states.push(state) });
  const listener = new Listener();
  channel.start("/a.B/Wait", listener);
  const [code, message, isUnsent] = await failure(channel.unary("/a.B/Die", NOTHING));
  assertEquals([code, isUnsent, (await listener.ended.promise).code], [
    GRPC.UNAVAILABLE,
    false,
    GRPC.UNAVAILABLE,
  ]);
  assertStringIncludes(message, "the connection was lost: ");
  assertEquals(text(await channel.unary("/a.B/C", bytes("hi"))), "[hi]");
  assertEquals([server.peers.length, states], [2, ["connecting", "ready", "idle", "connecting", "ready"]]);
});

Deno.test("an eager channel connects by itself, again and again", async () => {
  await using server = serve(echo);
  let wake = () => {};
  using channel = open(server.address, { isEager: true, onState: () => wake() });
  for (let round = 1; round <= 3; round++) {
    while (channel.state !== "ready") await new Promise<void>((resolve) => wake = resolve);
    assertEquals(server.peers.length, round);
    server.peers.at(-1)!.socket.close();
    while (channel.state === "ready") await new Promise<void>((resolve) => wake = resolve);
  }
});

Deno.test("calls of a server that is not there fail unsent, at once until the next attempt is due", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${listener.addr.port}`;
  listener.close();
  let nowMs = 0;
  using channel = open(address, { clock: { now: () => nowMs }, reconnectFirstMs: 1_000 });
  const calls = [channel.unary("/a.B/C", NOTHING), channel.unary("/a.B/C", NOTHING)];
  for (const call of calls) {
    const [code, message, isUnsent] = await failure(call);
    assertEquals([code, isUnsent, message.startsWith("No connection established: ")], [
      GRPC.UNAVAILABLE,
      true,
      true,
    ]);
  }
  assertEquals(channel.state, "waiting");
  const status = new Listener();
  const call = channel.start("/a.B/C", status);
  assertEquals([call.isOpen, channel.state], [false, "waiting"]);
  nowMs = 10_000;
  await failure(channel.unary("/a.B/C", NOTHING));
  assertEquals((await failure(open("nowhere").unary("/a.B/C", NOTHING)))[0], GRPC.UNAVAILABLE);
});

Deno.test("a server's goodbye lets calls end where they are, and takes others elsewhere", async () => {
  const held: Asked[] = [];
  const both = Promise.withResolvers<void>();
  await using server = serve({
    onMessage(asked) {
      if (asked.head.path !== "/a.B/Hold") return echo.onMessage!(asked);
      if (held.push(asked) === 2) both.resolve();
    },
  });
  let wake = () => {};
  using channel = open(server.address, { onState: () => wake() });
  const calls = [channel.unary("/a.B/Hold", bytes("1")), channel.unary("/a.B/Hold", bytes("2"))];
  await both.promise;
  server.peers[0]!.http2.shutdown();
  while (channel.state === "ready") await new Promise<void>((resolve) => wake = resolve);
  assertEquals(text(await channel.unary("/a.B/C", bytes("hi"))), "[hi]");
  assertEquals(server.peers.length, 2);
  for (const asked of held) echo.onMessage!(asked);
  assertEquals((await Promise.all(calls)).map(text), ["[1]", "[2]"]);
});

Deno.test("calls wait for the server's streams, and those that never were are unsent", async () => {
  const first = Promise.withResolvers<Asked>();
  await using server = serve({ maxConcurrentStreams: 1, onMessage: (asked) => first.resolve(asked) });
  using channel = open(server.address);
  const running = channel.unary("/a.B/C", NOTHING);
  const asked = await first.promise;
  const late = failure(channel.unary("/a.B/C", NOTHING, { timeoutMs: 20 }));
  assertEquals(await late, [GRPC.DEADLINE_EXCEEDED, "Deadline exceeded", true]);
  const waiting = failure(channel.unary("/a.B/C", NOTHING));
  const lost = failure(running);
  asked.peer.socket.close();
  assertEquals([(await lost)[2], await waiting], [false, [
    GRPC.UNAVAILABLE,
    "the server did not take the call",
    true,
  ]]);
});

Deno.test("a server that gives no sign of life while it owes an answer is given up", async () => {
  const peer = Promise.withResolvers<Peer>();
  await using server = serve({ onHead: (asked) => peer.resolve(asked.peer) });
  using channel = open(server.address, { keepaliveTimeMs: 5, keepaliveTimeoutMs: 20 });
  const call = failure(channel.unary("/a.B/C", NOTHING));
  // It answers pings until it is stopped: by a write that never ends, for all the client sees.
  const { http2 } = await peer.promise;
  http2.poll = () => undefined;
  const [code, message] = await call;
  assertEquals([code, message], [GRPC.UNAVAILABLE, "the connection was lost: no sign of life within 20 ms"]);
});

Deno.test("signs of life keep a connection whose server takes its time", async () => {
  let pings = 0;
  const asked = Promise.withResolvers<Asked>();
  await using server = serve({ onMessage: asked.resolve });
  using channel = open(server.address, { keepaliveTimeMs: 1, keepaliveTimeoutMs: 20_000 });
  const call = channel.unary("/a.B/C", bytes("hi"));
  const { peer, ...rest } = await asked.promise;
  const enough = Promise.withResolvers<void>();
  const receive = peer.http2.receive.bind(peer.http2);
  peer.http2.receive = (bytes, nowMs) => {
    if (++pings === 3) enough.resolve();
    receive(bytes, nowMs);
  };
  await enough.promise;
  echo.onMessage!({ ...rest, peer });
  assertEquals(text(await call), "[hi]");
});

Deno.test("a server that is no HTTP/2 server, or says nothing, is no connection", async () => {
  await using mute = serve({ isMute: true });
  using channel = open(mute.address, { connectTimeoutMs: 20 });
  assertEquals(await failure(channel.unary("/a.B/C", NOTHING)), [
    GRPC.UNAVAILABLE,
    "No connection established: no connection within 20 ms",
    true,
  ]);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const answering = (async () => {
    const socket = await listener.accept();
    await socket.write(bytes("HTTP/1.1 400 Bad Request\r\n\r\n"));
    while (await socket.read(new Uint8Array(1_000)).catch(() => null) !== null);
    socket.close();
  })();
  using other = open(`127.0.0.1:${listener.addr.port}`);
  const [code, message] = await failure(other.unary("/a.B/C", NOTHING));
  assertEquals(code, GRPC.UNAVAILABLE);
  assertStringIncludes(message, "the server broke HTTP/2");
  await answering;
  listener.close();
});

// Ends.

Deno.test("Symbol.dispose ends what runs, what waits and what connects; close() lets what runs end", async () => {
  const asked = Promise.withResolvers<Asked>();
  await using server = serve({ onMessage: asked.resolve });
  await using mute = serve({ isMute: true });
  const connecting = open(mute.address);
  const pending = failure(connecting.unary("/a.B/C", NOTHING));
  connecting[Symbol.dispose]();
  assertEquals(await pending, [GRPC.UNAVAILABLE, "No connection established: the client is closed", true]);
  assertEquals((await failure(connecting.unary("/a.B/C", NOTHING)))[2], true);

  const channel = open(server.address);
  const running = channel.unary("/a.B/C", bytes("hi"));
  const request = await asked.promise;
  channel.close();
  channel.close();
  assertEquals((await failure(channel.unary("/a.B/C", NOTHING)))[2], true);
  echo.onMessage!(request);
  assertEquals(text(await running), "[hi]");

  const other = open(server.address);
  const cut = new Listener();
  other.start("/a.B/C", cut);
  const answers = new Listener();
  other.start("/a.B/C", answers, { timeoutMs: 60_000 });
  while (other.state !== "ready") await new Promise((resolve) => setTimeout(resolve, 1));
  other[Symbol.dispose]();
  for (const { ended } of [cut, answers]) assertEquals((await ended.promise).code, GRPC.UNAVAILABLE);
});

Deno.test("calls that wait for a connection are bounded", async () => {
  await using mute = serve({ isMute: true });
  const channel = open(mute.address);
  let ended = 0;
  const listener = { onMessage() {}, onEnd: () => void ended++ };
  const calls: GrpcCall[] = [];
  for (let i = 0; i < 10_000; i++) calls.push(channel.start("/a.B/C", listener, { request: NOTHING }));
  assertEquals([ended, calls.every(({ isOpen }) => isOpen)], [0, true]);
  const last = new Listener();
  channel.start("/a.B/C", last, { request: NOTHING });
  assertEquals((await last.ended.promise).message, "10000 calls wait for a connection");
  channel[Symbol.dispose]();
  assertEquals(ended, 10_000);
});

// TLS.

for (const serverName of [undefined, "localhost"]) {
  Deno.test(`TLS: a server is reached by its own name${serverName === undefined ? "" : " at another address"}, with its authority only`, async () => {
    await using server = serve({ ...echo, tls: true });
    const address = serverName === undefined ? `localhost:${server.port}` : server.address;
    const name = serverName === undefined ? {} : { serverName };
    using channel = open(address, { tls: { ca: CERTIFICATE, ...name } });
    assertEquals(text(await channel.unary("/a.B/C", bytes("hi"))), "[hi]");
    const big = await channel.unary("/a.B/C", new Uint8Array(1_000_000).fill(0x61));
    assertEquals(big.length, 1_000_002);
    using stranger = open(address, { tls: { ...name } });
    const [code, , isUnsent] = await failure(stranger.unary("/a.B/C", NOTHING));
    assertEquals([code, isUnsent], [GRPC.UNAVAILABLE, true]);
    using misnamed = open(server.address, { tls: { ca: CERTIFICATE, ...name, serverName: "other.example" } });
    assertEquals((await failure(misnamed.unary("/a.B/C", NOTHING)))[2], true);
  });

  Deno.test(`TLS: an attempt to connect ends with its channel${serverName === undefined ? "" : ", by name"}`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepting = listener.accept();
    const name = serverName === undefined ? {} : { serverName };
    const channel = open(`127.0.0.1:${listener.addr.port}`, { tls: { ca: CERTIFICATE, ...name } });
    const call = failure(channel.unary("/a.B/C", NOTHING));
    using socket = await accepting;
    channel[Symbol.dispose]();
    assertEquals((await call)[0], GRPC.UNAVAILABLE);
    while (await socket.read(new Uint8Array(1_000)).catch(() => null) !== null);
    listener.close();
  });
}
