/** A gateway for tests: connections to a RedisServer without sockets. */
import type { ServeRequest, ServeResponse } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import { MemoryApi } from "../../testing/memory_api.ts";
import { RedisServer } from "../server.ts";
import type { RedisDeps } from "../server.ts";
import { latin1 } from "../args.ts";
import { textBytes } from "../reply.ts";
import { ReplySplitter } from "./replies.ts";

/** A server on a store in memory, and what a test may turn. */
export interface TestServer {
  readonly api: MemoryApi;
  readonly server: RedisServer;
  readonly gateway: TestGateway;
  /** Whether clients must authenticate. */
  isAuthEnabled: boolean;
}

/** Makes a server on a store in memory. */
export function testServer(options: Partial<RedisDeps> = {}): TestServer {
  const api = new MemoryApi();
  const whole = { api, isAuthEnabled: false } as { -readonly [K in keyof TestServer]: TestServer[K] };
  whole.server = new RedisServer({
    backend: api.backend,
    keyPrefix: textBytes("redis/"),
    limits: { valueBytesMax: 1_000_000, outputBytesMax: 4_000_000 },
    isAuthEnabled: () => whole.isAuthEnabled,
    startsInOrder: true,
    clock: { nowMs: () => api.nowMs },
    endOfTurn: (fn) => void setImmediate(fn),
    random: { fill: (target) => target.fill(7) },
    log: {
      error: (message, fields) => {
        throw new Error(message, { cause: fields?.error });
      },
    },
    figures: () => ({
      bytes: 1_000,
      quotaBytes: 2_000_000,
      durability: "always",
      engine: "memory",
      isWritable: true,
      version: "0.0.0",
    }),
    ...options,
  });
  whole.gateway = new TestGateway(whole.server);
  return whole;
}

/** One call of RedisService. */
export class TestGateway {
  /** Acknowledges what clients get, at once. */
  acknowledges = true;
  readonly ended: Promise<void>;
  readonly #clients = new Map<number, TestClient>();
  #requests: ServeRequest[] = [];
  #wake: (() => void) | undefined;
  #isOver = false;
  #next = 1;

  constructor(server: RedisServer) {
    this.ended = this.#read(server);
  }

  connect(): TestClient {
    const number = this.#next++;
    const client = new TestClient(this, number);
    this.#clients.set(number, client);
    const remoteAddress = `127.0.0.1:${50_000 + number}`;
    this.send({
      opened: [{
        mustAuthenticate: false,
        $typeName: "aetherflow.kv.v1.RedisClient",
        connection: number,
        remoteAddress,
        localAddress: "127.0.0.1:6380",
      }],
    });
    return client;
  }

  send(part: Partial<ServeRequest>): void {
    this.#requests.push({
      $typeName: "aetherflow.kv.v1.ServeRequest",
      opened: [],
      pieceConnection: [],
      pieceBytes: [],
      data: new Uint8Array(0),
      closed: [],
      writtenConnection: [],
      writtenBytes: [],
      ...part,
    });
    this.#signal();
  }

  /** Ends the call. */
  async close(): Promise<void> {
    this.#isOver = true;
    this.#signal();
    await this.ended;
  }

  async #read(server: RedisServer): Promise<void> {
    for await (const answer of server.serve(this.#all())) this.#take(answer);
    for (const client of this.#clients.values()) client.onEnd("close");
  }

  #take(answer: ServeResponse): void {
    let at = 0;
    answer.pieceConnection.forEach((number, i) => {
      const bytes = answer.data.slice(at, at += answer.pieceBytes[i]!);
      this.#clients.get(number)?.onData(bytes);
      if (this.acknowledges) this.send({ writtenConnection: [number], writtenBytes: [bytes.length] });
    });
    answer.takenConnection.forEach((number, i) => {
      const client = this.#clients.get(number);
      if (client !== undefined) client.takenBytes += answer.takenBytes[i]!;
    });
    for (const number of answer.close) this.#clients.get(number)?.onEnd("close");
    for (const number of answer.abort) this.#clients.get(number)?.onEnd("abort");
  }

  async *#all(): AsyncGenerator<ServeRequest, void, void> {
    for (;;) {
      const next = this.#requests.shift();
      if (next !== undefined) yield next;
      else if (this.#isOver) return;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  #signal(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** One connection. */
export class TestClient {
  takenBytes = 0;
  /** How it was closed. */
  end: "close" | "abort" | undefined;
  readonly #replies = new ReplySplitter();
  #waiting: { count: number; resolve: (replies: string[]) => void }[] = [];
  #whenEnded: (() => void)[] = [];

  constructor(readonly gateway: TestGateway, readonly number: number) {}

  send(bytes: Uint8Array): void {
    this.gateway.send({
      pieceConnection: [this.number],
      pieceBytes: [bytes.length],
      data: bytes as Uint8Array<ArrayBuffer>,
    });
  }

  /** The next replies as text, one char a byte; fewer when the connection ends. */
  replies(count: number): Promise<string[]> {
    return new Promise((resolve) => {
      this.#waiting.push({ count, resolve });
      this.#serve();
    });
  }

  /** Sends one command as words and returns its reply. */
  async call(...words: (string | Uint8Array)[]): Promise<string> {
    this.send(encodeCommand(words));
    return (await this.replies(1))[0] ?? "(closed)";
  }

  /** Sends commands at once and returns their replies. */
  pipeline(...commands: readonly string[]): Promise<string[]> {
    this.send(concat(commands.map((line) => encodeCommand(line.split(" ")))));
    return this.replies(commands.length);
  }

  /** The client goes. */
  close(): void {
    this.gateway.send({ closed: [this.number] });
  }

  closed(): Promise<void> {
    if (this.end !== undefined) return Promise.resolve();
    return new Promise((resolve) => this.#whenEnded.push(resolve));
  }

  onData(bytes: Uint8Array): void {
    this.#replies.push(bytes);
    this.#serve();
  }

  onEnd(how: "close" | "abort"): void {
    this.end ??= how;
    for (const resolve of this.#whenEnded.splice(0)) resolve();
    this.#serve();
  }

  #serve(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#replies.ready.length < first.count && this.end === undefined) return;
      this.#waiting.shift();
      first.resolve(this.#replies.ready.splice(0, first.count).map(latin1));
    }
  }
}

/** A command as clients send it. */
export function encodeCommand(words: readonly (string | Uint8Array)[]): Uint8Array {
  const parts = words.map((word) => typeof word === "string" ? new TextEncoder().encode(word) : word);
  return concat([
    textBytes(`*${parts.length}\r\n`),
    ...parts.flatMap((part) => [textBytes(`$${part.length}\r\n`), part, textBytes("\r\n")]),
  ]);
}

/** Bytes one after the other. */
export function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
