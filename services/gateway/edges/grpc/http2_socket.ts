/** One HTTP/2 connection at its socket. */
import type { Socket } from "node:net";
import type { Abuse } from "../../../../transport/http2/connection.ts";
import type { RequestHead } from "../../../../transport/http2/request.ts";
import { Http2ServerConnection } from "../../../../transport/http2/server.ts";
import type { Http2Stream } from "../../../../transport/http2/stream.ts";
import type { Timer } from "../../timer.ts";

/** What a connection needs, and whom it tells. */
export interface Http2SocketOptions {
  readonly clock: { now(): number };
  readonly timer: Timer;
  readonly maxConcurrentStreams: number;
  readonly minPingIntervalMs: number;
  onRequest(stream: Http2Stream, head: RequestHead, isWhole: boolean): void;
  /** The client did too much of something; the connection ends. */
  onAbuse(what: Abuse): void;
}

/** Request header bytes; as much as a call may carry to a worker. */
const MAX_HEADER_BYTES = 16 * 1024;

/** Time for a client to read why its connection was ended, in milliseconds: closing a socket with bytes unread would take
 *  back what was written. */
const LINGER_MS = 1_000;

/** Moves bytes between a socket and its connection: what one turn brings about leaves in one write, since a system call for
 *  each answer would cost more than the answer. */
export class Http2Socket {
  readonly #socket: Socket;
  readonly #timer: Timer;
  readonly #connection: Http2ServerConnection;
  /** Whether the socket has said to wait. */
  #isBlocked = false;
  #hasStarted = false;
  #isEnding = false;
  #cancelLinger: (() => void) | undefined;

  /** Takes over a socket of which `first` was read. A timeout set on it is taken off once the client has begun. */
  constructor(socket: Socket, first: Uint8Array, options: Http2SocketOptions) {
    this.#socket = socket;
    this.#timer = options.timer;
    const { clock, timer } = options;
    const flush = () => this.#flush();
    const connection = this.#connection = new Http2ServerConnection({
      onRequest: options.onRequest,
      onOutput: () => timer.endOfTurn(flush),
      onAbuse: options.onAbuse,
    }, {
      maxConcurrentStreams: options.maxConcurrentStreams,
      maxHeaderListBytes: MAX_HEADER_BYTES,
      minPingIntervalMs: options.minPingIntervalMs,
    });
    socket.on("data", (bytes: Uint8Array) => this.#receive(bytes, clock.now()));
    socket.on("drain", () => {
      this.#isBlocked = false;
      this.#flush();
    });
    socket.on("close", () => {
      this.#cancelLinger?.();
      connection.close();
    });
    this.#receive(first, clock.now());
  }

  /** Tells the client to go; the socket is closed when its streams have ended. Idempotent. */
  shutdown(): void {
    this.#connection.shutdown();
  }

  #receive(bytes: Uint8Array, nowMs: number): void {
    this.#connection.receive(bytes, nowMs);
    if (this.#hasStarted || !this.#connection.hasStarted) return;
    this.#hasStarted = true;
    this.#socket.setTimeout(0);
  }

  #flush(): void {
    const socket = this.#socket;
    const connection = this.#connection;
    if (socket.destroyed) return;
    while (!this.#isBlocked) {
      const bytes = connection.poll();
      if (bytes === undefined) break;
      this.#isBlocked = !socket.write(bytes);
    }
    if (!connection.isDone || this.#isEnding) return;
    this.#isEnding = true;
    socket.end();
    this.#cancelLinger = this.#timer.after(LINGER_MS, () => socket.destroy());
  }
}
