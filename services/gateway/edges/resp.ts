/** The Redis protocol's sockets. What is said on them is the kv worker's: this edge moves bytes, in batches.
 *
 *      sockets ─► what a turn brought, of all connections ─► one message ─► kv
 *      sockets ◄─ one write a connection ◄──────────────── one message ◄── kv
 *
 *  One call carries all connections. A connection is not read while the bytes that kv has not taken up exceed the window; kv
 *  in turn bounds what is sent to a client that does not read. When the call ends, its connections end with it. */
import type { ServeRequest, ServeResponse } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import { RedisService } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import type { Transport } from "@connectrpc/connect";
import { joinBytes } from "../../runtime/bytes.ts";
import type { Admitted, ConnectionGate } from "../auth/connection_gate.ts";
import type { Timer } from "../timer.ts";

/** What the edge is made of. */
export interface RespEdgeDeps {
  /** The transport to the kv worker. */
  transport(): Transport;
  readonly config: { readonly host: string; readonly port: number; readonly maxConnections: number };
  /** Whether other workers listen on the same port (Linux). */
  readonly isShared: boolean;
  readonly timer: Timer;
  /** Says whether clients must show who they are. */
  readonly gate: ConnectionGate;
  readonly log: { debug(message: string, fields?: Record<string, unknown>): void };
}

/** A listening edge. */
export interface RespListener {
  /** `127.0.0.1:6380`, with the real port. */
  readonly address: string;
  readonly connections: number;
  /** Accepts and reads no more, sends the answers that are still to come, closes all connections. Idempotent. */
  shutdown(): Promise<void>;
}

/** What one read takes: little while little comes, so that silent connections cost little. */
const READ_BYTES_MIN = 2 * 1_024;
const READ_BYTES_MAX = 64 * 1_024;
/** Bytes of a message from which on the connections wait, each with what it has read; a message carries 4 MiB. */
const BATCH_BYTES_MAX = 2 * 1_024 * 1_024;
/** What a piece takes in it besides its bytes, at most. */
const PIECE_EXTRA_BYTES = 10;
/** Written bytes that are told of while more is to be written, and when nothing is. */
const WRITTEN_BYTES = 256 * 1_024;
const WRITTEN_BYTES_IDLE = 16 * 1_024;
/** A buffer that grew beyond this is let go of after use. */
const KEPT_BYTES = 256 * 1_024;

const FULL = new TextEncoder().encode("-ERR max number of clients reached\r\n");
const LOADING = new TextEncoder().encode("-LOADING AetherFlow is loading the dataset in memory\r\n");

/** Starts to listen.
 *  @throws {Deno.errors.AddrInUse} when the port is taken. */
export function listenResp(deps: RespEdgeDeps): RespListener {
  const { host, port, maxConnections } = deps.config;
  const listener = Deno.listen({ hostname: host, port, reusePort: deps.isShared });
  const address = listener.addr as Deno.NetAddr;
  const connections = new Set<Connection>();
  let upstream: Upstream | undefined;
  let isDown = false;

  /** The call that is open, or a new one. */
  function openUpstream(): Upstream {
    if (upstream === undefined || upstream.isOver) upstream = new Upstream(deps);
    return upstream;
  }

  async function accept(): Promise<void> {
    for (;;) {
      let socket: Deno.TcpConn;
      try {
        socket = await listener.accept();
      } catch (error) {
        if (isDown) return;
        // The client went before it was taken, or the process has no more descriptors: the next one may come.
        deps.log.debug("a Redis connection was not accepted", { error: String(error) });
        await new Promise<void>((resolve) => void deps.timer.after(ACCEPT_PAUSE_MS, resolve));
        continue;
      }
      if (connections.size >= maxConnections) {
        refuse(socket, FULL);
        continue;
      }
      const connection = new Connection(socket);
      connections.add(connection);
      serve(connection).finally(() => connections.delete(connection));
    }
  }

  async function serve(connection: Connection): Promise<void> {
    const via = openUpstream();
    const admitted = await deps.gate.admit(() => connection.close());
    try {
      if (admitted === undefined || !await via.opened) return connection.refuse(LOADING);
      if (isDown) return connection.close();
      await connection.run(via, admitted);
    } finally {
      admitted?.leave();
    }
  }

  const accepting = accept();
  return {
    address: `${address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname}:${address.port}`,
    get connections() {
      return connections.size;
    },
    async shutdown() {
      if (!isDown) {
        isDown = true;
        listener.close();
      }
      await accepting;
      await upstream?.drain();
      for (const connection of connections) connection.close();
    },
  };
}

const ACCEPT_PAUSE_MS = 10;

function refuse(socket: Deno.TcpConn, words: Uint8Array): void {
  socket.write(words).catch(ignore).finally(() => socket.close());
}

/** The call to kv, for all connections of this worker. */
class Upstream {
  /** Whether kv answered. */
  readonly opened: Promise<boolean>;
  isOver = false;
  windowBytes = 0;
  readonly #connections = new Map<number, Connection>();
  readonly #timer: Timer;
  readonly #log: RespEdgeDeps["log"];
  #nextNumber = 1;
  #batch = new Batch();
  /** The batch that was given out last; its buffer is free again when the next one is asked for. */
  #spare = new Batch();
  #isScheduled = false;
  #isDue = false;
  #isEnding = false;
  #wake: (() => void) | undefined;
  #waiting: (() => void)[] = [];
  readonly #over = Promise.withResolvers<void>();

  constructor(deps: RespEdgeDeps) {
    this.#timer = deps.timer;
    this.#log = deps.log;
    const opened = Promise.withResolvers<boolean>();
    this.opened = opened.promise;
    this.#run(deps, opened.resolve);
  }

  /** Takes a connection in and gives it a number. */
  add(
    connection: Connection,
    remoteAddress: string,
    localAddress: string,
    mustAuthenticate: boolean,
  ): number {
    const number = this.#nextNumber++;
    this.#connections.set(number, connection);
    this.#batch.opened.push({
      $typeName: "aetherflow.kv.v1.RedisClient",
      connection: number,
      remoteAddress,
      localAddress,
      mustAuthenticate,
    });
    this.#schedule();
    return number;
  }

  /** Passes bytes on; they are copied. */
  data(number: number, bytes: Uint8Array): void {
    this.#batch.add(number, bytes);
    this.#schedule();
  }

  /** Whether readers must wait for the batch to be taken: one piece more might be too much for a message. */
  get isFull(): boolean {
    return !this.isOver && this.#batch.messageBytes >= BATCH_BYTES_MAX;
  }

  /** Resolves when a batch was taken. */
  whenTaken(): Promise<void> {
    if (this.isOver) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  written(number: number, bytes: number): void {
    this.#batch.writtenConnection.push(number);
    this.#batch.writtenBytes.push(bytes);
    this.#schedule();
  }

  /** The connection is closed. */
  remove(number: number): void {
    if (!this.#connections.delete(number) || this.isOver) return;
    this.#batch.closed.push(number);
    this.#schedule();
  }

  /** Sends nothing more; resolves when the last answers are written. */
  async drain(): Promise<void> {
    this.#isEnding = true;
    for (const connection of this.#connections.values()) connection.stopReading();
    this.#isDue = true;
    this.#signal();
    await this.#over.promise;
  }

  async #run(deps: RespEdgeDeps, tell: (isOpen: boolean) => void): Promise<void> {
    try {
      const call = await deps.transport().stream(
        RedisService.method.serve,
        undefined,
        undefined,
        undefined,
        this.#requests(),
      );
      for await (const answer of call.message) {
        if (this.windowBytes === 0) {
          this.windowBytes = answer.windowBytes;
          tell(true);
        }
        this.#take(answer);
      }
    } catch (error) {
      this.#log.debug("the Redis connections' call to kv ended", { error: String(error) });
    }
    this.isOver = true;
    this.#signal();
    tell(false);
    this.#release();
    await Promise.all(Array.from(this.#connections.values(), (connection) => connection.finish()));
    this.#connections.clear();
    this.#over.resolve();
  }

  async *#requests(): AsyncGenerator<ServeRequest, void, void> {
    for (;;) {
      if (this.isOver) return;
      if (this.#isDue && !this.#batch.isEmpty) {
        const batch = this.#batch;
        this.#batch = this.#spare;
        this.#spare = batch;
        this.#isDue = false;
        this.#release();
        yield batch.message();
        batch.clear();
        // What came meanwhile goes at once: its turn has ended.
        this.#isDue = !this.#batch.isEmpty;
        continue;
      }
      if (this.#isEnding) return;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  #take(answer: ServeResponse): void {
    const { data, pieceConnection, pieceBytes, takenConnection, takenBytes } = answer;
    let at = 0;
    for (let i = 0; i < pieceConnection.length; i++) {
      const end = at + pieceBytes[i]!;
      this.#connections.get(pieceConnection[i]!)?.write(data.subarray(at, end));
      at = end;
    }
    for (let i = 0; i < takenConnection.length; i++) {
      this.#connections.get(takenConnection[i]!)?.taken(takenBytes[i]!);
    }
    for (const number of answer.close) this.#connections.get(number)?.finish();
    for (const number of answer.abort) this.#connections.get(number)?.close();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#timer.endOfTurn(() => {
      this.#isScheduled = false;
      this.#isDue = true;
      this.#signal();
    });
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #release(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** What is to be sent next. */
class Batch {
  opened: ServeRequest["opened"] = [];
  pieceConnection: number[] = [];
  pieceBytes: number[] = [];
  closed: number[] = [];
  writtenConnection: number[] = [];
  writtenBytes: number[] = [];
  length = 0;
  #buffer = new Uint8Array(READ_BYTES_MAX);

  get isEmpty(): boolean {
    return this.length === 0 && this.opened.length === 0 && this.closed.length === 0 &&
      this.writtenBytes.length === 0;
  }

  /** Length of the pieces in the message, about. */
  get messageBytes(): number {
    return this.length + this.pieceBytes.length * PIECE_EXTRA_BYTES;
  }

  add(number: number, bytes: Uint8Array): void {
    const end = this.length + bytes.length;
    if (end > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(end, this.#buffer.length * 2));
      grown.set(this.#buffer.subarray(0, this.length));
      this.#buffer = grown;
    }
    this.#buffer.set(bytes, this.length);
    this.length = end;
    const last = this.pieceConnection.length - 1;
    if (this.pieceConnection[last] === number) this.pieceBytes[last]! += bytes.length;
    else {
      this.pieceConnection.push(number);
      this.pieceBytes.push(bytes.length);
    }
  }

  message(): ServeRequest {
    const { opened, pieceConnection, pieceBytes, closed, writtenConnection, writtenBytes } = this;
    return {
      $typeName: "aetherflow.kv.v1.ServeRequest",
      opened,
      pieceConnection,
      pieceBytes,
      data: this.#buffer.subarray(0, this.length),
      closed,
      writtenConnection,
      writtenBytes,
    };
  }

  clear(): void {
    this.opened = [];
    this.pieceConnection = [];
    this.pieceBytes = [];
    this.closed = [];
    this.writtenConnection = [];
    this.writtenBytes = [];
    this.length = 0;
    if (this.#buffer.length > KEPT_BYTES) this.#buffer = new Uint8Array(READ_BYTES_MAX);
  }
}

/** One client. */
class Connection {
  readonly #socket: Deno.TcpConn;
  #via: Upstream | undefined;
  #number = 0;
  #isClosed = false;
  #isReading = true;
  /** Sent to kv and not taken up. */
  #untakenBytes = 0;
  #resume: (() => void) | undefined;
  /** Pieces that wait for the write under way; kv bounds them. */
  #pending: Uint8Array[] = [];
  #isWriting = false;
  #writtenBytes = 0;
  #idle: (() => void) | undefined;

  constructor(socket: Deno.TcpConn) {
    this.#socket = socket;
    socket.setNoDelay(true);
  }

  /** Reads until the client goes or the connection is closed. */
  async run(via: Upstream, { mustAuthenticate }: Admitted): Promise<void> {
    this.#via = via;
    const { remoteAddr, localAddr } = this.#socket;
    this.#number = via.add(this, textOf(remoteAddr), textOf(localAddr), mustAuthenticate);
    let buffer = new Uint8Array(READ_BYTES_MIN);
    try {
      while (this.#isReading) {
        const count = await this.#socket.read(buffer);
        if (count === null) break;
        // Others may have filled the batch since this one looked, in this turn too.
        while (via.isFull) await via.whenTaken();
        if (!this.#isReading) return;
        via.data(this.#number, count === buffer.length ? buffer : buffer.subarray(0, count));
        this.#untakenBytes += count;
        if (count === buffer.length) {
          if (count < READ_BYTES_MAX) buffer = new Uint8Array(count * 4);
        } else if (count < READ_BYTES_MIN && buffer.length > READ_BYTES_MIN) {
          buffer = new Uint8Array(READ_BYTES_MIN);
        }
        while (this.#untakenBytes >= via.windowBytes && this.#isReading) {
          await new Promise<void>((resolve) => this.#resume = resolve);
        }
      }
      // Answers may still come.
      if (!this.#isReading) return;
    } catch {
      // The client has gone.
    }
    this.close();
  }

  /** kv took bytes up. */
  taken(bytes: number): void {
    this.#untakenBytes -= bytes;
    this.#wakeReader();
  }

  write(bytes: Uint8Array): void {
    if (this.#isClosed) return;
    if (this.#isWriting) this.#pending.push(bytes);
    else this.#write(bytes);
  }

  stopReading(): void {
    this.#isReading = false;
    this.#wakeReader();
  }

  /** Closes when everything is written. */
  async finish(): Promise<void> {
    this.stopReading();
    if (this.#isWriting) await new Promise<void>((resolve) => this.#idle = resolve);
    this.close();
  }

  /** Says why and closes; for a connection that was never run. */
  refuse(words: Uint8Array): void {
    this.#isClosed = true;
    refuse(this.#socket, words);
  }

  /** Closes now. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#pending = [];
    this.#socket.close();
    this.stopReading();
    this.#via?.remove(this.#number);
    this.#idle?.();
  }

  async #write(bytes: Uint8Array): Promise<void> {
    this.#isWriting = true;
    try {
      for (let next: Uint8Array | undefined = bytes; next !== undefined; next = this.#nextPiece()) {
        for (let at = 0; at < next.length;) {
          const count = await this.#socket.write(at === 0 ? next : next.subarray(at));
          at += count;
          this.#written(count);
        }
      }
    } catch {
      // The client has gone.
      this.close();
    }
    this.#isWriting = false;
    this.#idle?.();
  }

  /** What waits, as one piece. */
  #nextPiece(): Uint8Array | undefined {
    const pending = this.#pending;
    if (pending.length <= 1) return pending.pop();
    this.#pending = [];
    let length = 0;
    for (const piece of pending) length += piece.length;
    if (length > KEPT_BYTES) {
      // Large pieces go one by one.
      this.#pending = pending.slice(1);
      return pending[0];
    }
    return joinBytes(pending);
  }

  #written(bytes: number): void {
    this.#writtenBytes += bytes;
    const enough = this.#pending.length > 0 ? WRITTEN_BYTES : WRITTEN_BYTES_IDLE;
    if (this.#writtenBytes < enough || this.#isClosed) return;
    this.#via?.written(this.#number, this.#writtenBytes);
    this.#writtenBytes = 0;
  }

  #wakeReader(): void {
    const resume = this.#resume;
    this.#resume = undefined;
    resume?.();
  }
}

function textOf(address: Deno.Addr): string {
  const { hostname, port } = address as Deno.NetAddr;
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

function ignore(): void {}
