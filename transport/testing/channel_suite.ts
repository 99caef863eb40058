/** What every Channel must do, whatever carries it. */
import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { type Channel, ChannelError, type ChannelStream, type StreamHandler } from "../channels/channel.ts";

/** Two ends of one open channel. */
export interface ChannelPair {
  readonly client: Channel;
  readonly server: Channel;
  /** Releases what `open` took; called once, after the test, whether or not the channel is still open. */
  close(): Promise<void>;
}

/** Registers the tests of one kind of channel. `open` is called once for each. */
export function channelSuite(name: string, open: () => Promise<ChannelPair>): void {
  function test(what: string, body: (client: Channel, server: Channel) => Promise<void>): void {
    Deno.test(`${name} channel ${what}`, async () => {
      const pair = await open();
      try {
        await body(pair.client, pair.server);
      } finally {
        await pair.close();
      }
    });
  }

  test("carries bytes and the end of both halves of a stream", async (client, server) => {
    server.onStream(echo);
    const probe = new StreamProbe();
    const stream = client.openStream(probe);
    stream.write(ascii("hello "), false);
    stream.write(ascii("world"), true);
    assertEquals(text(await probe.whole), "hello world");
  });

  test("carries an end without bytes", async (client, server) => {
    server.onStream(echo);
    const probe = new StreamProbe();
    client.openStream(probe).write(new Uint8Array(0), true);
    assertEquals((await probe.whole).length, 0);
  });

  test("lets both sides open streams", async (client, server) => {
    client.onStream(echo);
    server.onStream(echo);
    const [ofClient, ofServer] = [new StreamProbe(), new StreamProbe()];
    client.openStream(ofClient).write(ascii("from client"), true);
    server.openStream(ofServer).write(ascii("from server"), true);
    assertEquals(text(await ofClient.whole), "from client");
    assertEquals(text(await ofServer.whole), "from server");
  });

  test("keeps many streams apart and each of them in order", async (client, server) => {
    server.onStream(echo);
    const count = Math.min(100, client.streamCredit);
    assert(count >= 2, `streamCredit is ${count}`);
    const probes = Array.from({ length: count }, () => new StreamProbe());
    const streams = probes.map((probe) => client.openStream(probe));
    for (let part = 0; part < 10; part++) {
      streams.forEach((stream, i) => stream.write(pattern(700, i * 10 + part), part === 9));
    }
    for (const [i, probe] of probes.entries()) {
      const expected = concat(Array.from({ length: 10 }, (_, part) => pattern(700, i * 10 + part)));
      assertEquals(await probe.whole, expected, `stream ${i}`);
    }
  });

  test("carries 8 MB intact when the writer waits for onDrain", async (client, server) => {
    const received = new StreamProbe();
    server.onStream((stream) => received.on(stream));
    const sender = new Writer(client, 8_000_000);
    const whole = await received.whole;
    assert(sender.pauses > 0, "the writer was never told to wait");
    assertEquals(whole.length, 8_000_000);
    assertEquals(firstDifference(whole, 0), -1);
  });

  test(
    "stops the writer while the reader reports nothing, and goes on when it does",
    async (client, server) => {
      const received = new StreamProbe({ consume: false });
      server.onStream((stream) => received.on(stream));
      const sender = new Writer(client, 16_000_000);
      await sender.paused;
      const held = await received.quiet();
      assert(held < 16_000_000, `all ${held} bytes were taken without credit`);
      assert(sender.offered < 16_000_000, "the writer was never stopped");
      received.consumeAll();
      assertEquals((await received.whole).length, 16_000_000);
    },
  );

  test("tells the peer of a reset with its code", async (client, server) => {
    const received = new StreamProbe();
    server.onStream((stream) => received.on(stream));
    const stream = client.openStream(new StreamProbe());
    stream.write(ascii("begun"), false);
    await received.someData;
    stream.reset(77);
    stream.write(ascii("ignored"), false);
    assertEquals(await received.resetCode, 77);
  });

  test("tells the writer of a stop with its code", async (client, server) => {
    server.onStream((stream) => {
      stream.stop(78);
      return new StreamProbe().on(stream);
    });
    const probe = new StreamProbe();
    client.openStream(probe).write(ascii("unwanted"), false);
    assertEquals(await probe.stopCode, 78);
  });

  test("lets the other half go on after a stop", async (client, server) => {
    server.onStream((stream) => {
      stream.stop(1);
      stream.write(ascii("answer"), true);
      return new StreamProbe().on(stream);
    });
    const probe = new StreamProbe();
    client.openStream(probe).write(ascii("question"), false);
    assertEquals(text(await probe.whole), "answer");
  });

  test(
    "close() ends both sides with code and reason, once, and every open half with it",
    async (client, server) => {
      const atServer = new StreamProbe();
      server.onStream((stream) => atServer.on(stream));
      const atClient = new StreamProbe();
      const stream = client.openStream(atClient);
      stream.write(ascii("x"), false);
      await atServer.someData;
      client.close(9, "enough");
      client.close(10, "again");
      assertEquals(await client.closed, { code: 9, reason: "enough", by: "local" });
      assertEquals(await server.closed, { code: 9, reason: "enough", by: "peer" });
      assertEquals([client.isOpen, server.isOpen], [false, false]);
      assertEquals(await Promise.all([atClient.resetCode, atClient.stopCode]), [9, 9]);
      assertEquals(await Promise.all([atServer.resetCode, atServer.stopCode]), [9, 9]);
      assertEquals([atClient.ends, atServer.ends], [2, 2]);
      stream.write(ascii("late"), true);
      stream.reset(1);
      stream.stop(1);
      stream.consumed(1);
      assertEquals([atClient.ends, atServer.ends], [2, 2]);
      const error = assertThrows(() => client.openStream(new StreamProbe()));
      assertInstanceOf(error, ChannelError);
      assertEquals(error.code, "closed");
    },
  );

  test(
    "refuses streams above the peer's limit and takes them again when others ended",
    async (client, server) => {
      const atServer: ChannelStream[] = [];
      server.onStream((stream) => {
        atServer.push(stream);
        return new StreamProbe().on(stream);
      });
      const open: StreamProbe[] = [];
      while (client.streamCredit > 0 && open.length < MAX_STREAMS_TRIED) {
        open.push(new StreamProbe());
        client.openStream(open.at(-1)!).write(ascii("x"), true);
      }
      if (client.streamCredit === 0) {
        const error = assertThrows(() => client.openStream(new StreamProbe()));
        assertInstanceOf(error, ChannelError);
        assertEquals(error.code, "stream_limit");
      }
      // Ping until the server has seen all of them, then end them all.
      await until(() => atServer.length === open.length);
      for (const stream of atServer) stream.write(new Uint8Array(0), true);
      await Promise.all(open.map((probe) => probe.whole));
      await until(() => client.streamCredit > 0);
    },
  );

  test("counts what it carried", async (client, server) => {
    server.onStream(echo);
    const probe = new StreamProbe();
    client.openStream(probe).write(pattern(10_000, 1), true);
    await probe.whole;
    const stats = client.stats();
    assert(stats.bytesSent >= 10_000, `${stats.bytesSent} bytes sent`);
    assert(stats.bytesReceived >= 10_000, `${stats.bytesReceived} bytes received`);
    assert(client.peer.length > 0);
  });
}

/** Streams opened at most while looking for a limit; a channel without one is not an error. */
const MAX_STREAMS_TRIED = 20_000;

/** A handler that keeps everything that happens to its stream. */
export class StreamProbe implements StreamHandler {
  readonly whole: Promise<Uint8Array>;
  readonly someData: Promise<void>;
  readonly resetCode: Promise<number>;
  readonly stopCode: Promise<number>;
  /** Halves ended by reset or stop. */
  ends = 0;
  received = 0;
  #chunks: Uint8Array[] = [];
  #stream: ChannelStream | undefined;
  #consume: boolean;
  #unreported = 0;
  #resolveWhole: (bytes: Uint8Array) => void;
  #resolveSome: () => void;
  #resolveReset: (code: number) => void;
  #resolveStop: (code: number) => void;

  /** Unless `consume` is false, received bytes are reported at once. */
  constructor(options: { consume: boolean } = { consume: true }) {
    this.#consume = options.consume;
    ({ promise: this.whole, resolve: this.#resolveWhole } = Promise.withResolvers<Uint8Array>());
    ({ promise: this.someData, resolve: this.#resolveSome } = Promise.withResolvers<void>());
    ({ promise: this.resetCode, resolve: this.#resolveReset } = Promise.withResolvers<number>());
    ({ promise: this.stopCode, resolve: this.#resolveStop } = Promise.withResolvers<number>());
  }

  /** Takes the peer's stream. */
  on(stream: ChannelStream): this {
    this.#stream = stream;
    return this;
  }

  onData(bytes: Uint8Array, fin: boolean): void {
    this.#chunks.push(bytes);
    this.received += bytes.length;
    if (this.#consume) this.#stream?.consumed(bytes.length);
    else this.#unreported += bytes.length;
    this.#resolveSome();
    if (fin) this.#resolveWhole(concat(this.#chunks));
  }

  onReset(code: number): void {
    this.ends++;
    this.#resolveReset(code);
  }

  onStop(code: number): void {
    this.ends++;
    this.#resolveStop(code);
  }

  onDrain(): void {}

  /** Reports everything received so far, and from now on at once. */
  consumeAll(): void {
    this.#consume = true;
    this.#stream?.consumed(this.#unreported);
    this.#unreported = 0;
  }

  /** How much had come when nothing more came for a while: there is no event for "the peer has no credit left". */
  async quiet(): Promise<number> {
    for (let before = -1; before !== this.received;) {
      before = this.received;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return this.received;
  }
}

/** Writes `byteCount` bytes of the pattern on a new stream, as fast as write() and onDrain allow. */
class Writer implements StreamHandler {
  pauses = 0;
  offered = 0;
  readonly paused: Promise<void>;
  #stream: ChannelStream;
  #byteCount: number;
  #resolvePaused: () => void;

  constructor(channel: Channel, byteCount: number) {
    ({ promise: this.paused, resolve: this.#resolvePaused } = Promise.withResolvers<void>());
    this.#byteCount = byteCount;
    this.#stream = channel.openStream(this);
    this.onDrain();
  }

  onDrain(): void {
    while (this.offered < this.#byteCount) {
      const length = Math.min(40_000, this.#byteCount - this.offered);
      const bytes = pattern(length, this.offered);
      this.offered += length;
      if (!this.#stream.write(bytes, this.offered === this.#byteCount)) {
        this.pauses++;
        this.#resolvePaused();
        return;
      }
    }
  }

  onData(): void {}
  onReset(): void {}
  onStop(): void {}
}

/** Sends back what arrives, and reports it as used once it is written. */
export function echo(stream: ChannelStream): StreamHandler {
  return {
    onData(bytes, fin) {
      stream.consumed(bytes.length);
      stream.write(bytes, fin);
    },
    onReset(code) {
      stream.reset(code);
    },
    onStop() {},
    onDrain() {},
  };
}

/** `length` bytes that depend on `start`, such that pattern(n, s) continues at pattern(m, s + n). */
export function pattern(length: number, start: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = patternByte(start + i);
  return bytes;
}

/** Index of the first byte that is not the pattern's from `start`; -1 when all are. */
export function firstDifference(bytes: Uint8Array, start: number): number {
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] !== patternByte(start + i)) return i;
  }
  return -1;
}

function patternByte(position: number): number {
  return Math.imul(position ^ (position >>> 13), 0x9e3779b1) >>> 24;
}

function concat(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

const ascii = (value: string) => new TextEncoder().encode(value);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Looks again on every turn of the event loop, for what no callback announces. The runner's timeout is the bound. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}
