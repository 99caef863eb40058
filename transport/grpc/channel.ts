/** A client of one server: a connection that is made when it is needed, or kept, and the calls on it.
 *
 *      idle ── a call, or eager ──► connecting ──► ready ── lost, or the server says goodbye ──► idle
 *        ▲                              └── refused ──► waiting ── time is up ──┐
 *        └──────────────────────────────────────────────────────────────────────┘  */
import { encodeFields } from "../http2/hpack.ts";
import { type CallListener, type CallSetup, GrpcCall } from "./call.ts";
import { GrpcConnection } from "./connection.ts";
import { dial, type GrpcTls } from "./dial.ts";
import { GRPC, GrpcError, type GrpcStatus, ownStatus } from "./status.ts";

/** How a server is reached. */
export interface GrpcChannelOptions {
  /** `host:port`; IPv6 in brackets. */
  readonly address: string;
  /** Unset: without TLS. */
  readonly tls?: GrpcTls;
  /** What the server is asked as; the name it is to carry, else the address, when left out. */
  readonly authority?: string;
  /** Whether a connection is made before a call wants one, and again whenever it is lost. */
  readonly isEager?: boolean;
  /** Quiet time after which a server that owes answers is asked for a sign of life, in milliseconds; 0, the default, never
   *  asks. Servers take offence at less than some seconds. */
  readonly keepaliveTimeMs?: number;
  /** Time for that sign, in milliseconds; the connection counts as lost then. */
  readonly keepaliveTimeoutMs?: number;
  /** Longest time for a connection to be made, in milliseconds. */
  readonly connectTimeoutMs?: number;
  /** Pause from one attempt to connect to the next, in milliseconds: the first, doubled each time up to the last. */
  readonly reconnectFirstMs?: number;
  readonly reconnectMaxMs?: number;
  /** Largest message taken, in bytes; 4 MiB as with other clients, Infinity for any. */
  readonly maxReceiveBytes?: number;
  readonly clock: { now(): number };
  /** A number in [0, 1), for jitter. */
  fraction(): number;
  /** Told of each change of `state`. */
  onState?(state: ChannelState): void;
}

/** What a channel is doing. "waiting": the last attempt failed, the next is not due; calls fail at once. */
export type ChannelState = "idle" | "connecting" | "ready" | "waiting" | "closed";

/** What a call may carry besides its messages. */
export interface GrpcCallOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Time for the call, in milliseconds; as long as it takes when left out. */
  readonly timeoutMs?: number;
  /** Cancels the call. Of `unary` only: what `start` returns has a `cancel`. */
  readonly signal?: AbortSignal;
}

const KEEPALIVE_TIMEOUT_MS = 20_000;
const CONNECT_TIMEOUT_MS = 20_000;
const RECONNECT_FIRST_MS = 50;
const RECONNECT_MAX_MS = 2_000;
const RECEIVE_BYTES = 4 * 1024 * 1024;
/** Calls that wait for the connection; more fail at once. Each holds its request. */
const MAX_PENDING_CALLS = 10_000;
/** Connections that a server has said goodbye to and that still have calls; the oldest is ended for another. */
const MAX_LEAVING = 4;

/** A client of one server. */
export class GrpcChannel implements Disposable {
  readonly #options: GrpcChannelOptions;
  readonly #head: Uint8Array;
  readonly #pending = new Set<GrpcCall>();
  readonly #leaving = new Set<GrpcConnection>();
  #state: ChannelState = "idle";
  #connection: GrpcConnection | undefined;
  /** Ends the attempt under way. */
  #attempt: AbortController | undefined;
  #failures = 0;
  /** When the next attempt is due. */
  #nextAttemptMs = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastError = "";

  /** Connects at once when it is to be eager. */
  constructor(options: GrpcChannelOptions) {
    this.#options = options;
    const { address, tls, authority = tls?.serverName ?? address } = options;
    this.#head = encodeFields([
      [":method", "POST"],
      [":scheme", tls === undefined ? "http" : "https"],
      [":authority", authority],
      ["content-type", "application/grpc"],
      ["te", "trailers"],
    ]);
    if (options.isEager !== true) return;
    this.#state = "connecting"; // nobody is told before there is a channel
    this.#connect();
  }

  get address(): string {
    return this.#options.address;
  }

  get state(): ChannelState {
    return this.#state;
  }

  /** What was wrong with the last attempt or connection; "" if nothing was. */
  get lastError(): string {
    return this.#lastError;
  }

  /** Makes a unary call of `path` (`/package.Service/Method`). The answer is a view of what was received.
   *  @throws {GrpcError} as a rejection, with what the server said or what kept the call from it. */
  unary(path: string, request: Uint8Array, options: GrpcCallOptions = {}): Promise<Uint8Array> {
    const { signal } = options;
    if (signal?.aborted === true) {
      return Promise.reject(new GrpcError(ownStatus(GRPC.CANCELLED, "Cancelled on client", true)));
    }
    return new Promise((resolve, reject) => {
      let answer: Uint8Array | undefined;
      const abort = () => call.cancel();
      const listener: CallListener = {
        onMessage(message) {
          if (answer !== undefined) throw new Error("a second message");
          answer = message;
        },
        onEnd(status) {
          signal?.removeEventListener("abort", abort);
          if (status.code !== GRPC.OK) reject(new GrpcError(status));
          else if (answer !== undefined) resolve(answer);
          else reject(new GrpcError(ownStatus(GRPC.INTERNAL, "the server sent a status and no message")));
        },
      };
      const call = this.#start(path, request, listener, options);
      if (call.isOpen) signal?.addEventListener("abort", abort);
    });
  }

  /** Begins a call: with `request` of one message, else of those that are sent with the call. The listener may be told of
   *  its end before this returns. */
  start(
    path: string,
    listener: CallListener,
    options: Omit<GrpcCallOptions, "signal"> & { readonly request?: Uint8Array } = {},
  ): GrpcCall {
    return this.#start(path, options.request, listener, options);
  }

  /** Takes no more calls, fails those that wait for a connection, and closes when those that run have ended. Idempotent. */
  close(): void {
    if (this.#state === "closed") return;
    clearTimeout(this.#timer);
    this.#attempt?.abort(new Error(CLOSED));
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection !== undefined) this.#leave(connection);
    this.#lastError = CLOSED;
    this.#become("closed");
    this.#failPending();
  }

  /** Closes at once, with everything that runs. Idempotent. */
  [Symbol.dispose](): void {
    this.close();
    for (const connection of this.#leaving) connection.close(CLOSED);
  }

  #start(
    path: string,
    request: Uint8Array | undefined,
    listener: CallListener,
    { metadata, timeoutMs }: GrpcCallOptions,
  ): GrpcCall {
    const { clock, maxReceiveBytes } = this.#options;
    const setup: CallSetup = {
      head: this.#headOf(path),
      metadata,
      request,
      deadlineMs: timeoutMs === undefined ? Infinity : clock.now() + timeoutMs,
      maxReceiveBytes: maxReceiveBytes ?? RECEIVE_BYTES,
      clock,
    };
    const call = new GrpcCall(setup, listener, (call) => void this.#pending.delete(call));
    if (timeoutMs !== undefined && timeoutMs <= 0) {
      call.end(ownStatus(GRPC.DEADLINE_EXCEEDED, "Deadline exceeded", true));
      return call;
    }
    if (this.#state === "idle" || this.#state === "waiting") this.#connect();
    if (this.#connection?.http2.isOpen === true) call.attach(this.#connection);
    else if (this.#state !== "connecting") call.end(this.#noConnection());
    else if (this.#pending.size >= MAX_PENDING_CALLS) {
      call.end(ownStatus(GRPC.UNAVAILABLE, `${MAX_PENDING_CALLS} calls wait for a connection`, true));
    } else this.#pending.add(call);
    return call;
  }

  #headOf(path: string): Uint8Array {
    const block = encodeFields([[":path", path]]);
    // Pseudo-header fields come first.
    const head = new Uint8Array(block.length + this.#head.length);
    head.set(block);
    head.set(this.#head, block.length);
    return head;
  }

  #noConnection(): GrpcStatus {
    return ownStatus(GRPC.UNAVAILABLE, `No connection established: ${this.#lastError}`, true);
  }

  #failPending(): void {
    const status = this.#noConnection();
    for (const call of this.#pending) call.end(status);
  }

  // ---- the connection

  /** Tries to connect, unless it is too early for that. */
  #connect(): void {
    const { clock, isEager } = this.#options;
    const now = clock.now();
    if (now < this.#nextAttemptMs) {
      // After an attempt that failed calls need not wait for the next, after a connection that was lost they may.
      const mayWait = this.#failures === 0;
      if (mayWait || isEager === true) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#connect(), Math.ceil(this.#nextAttemptMs - now));
      }
      return this.#become(mayWait ? "connecting" : "waiting");
    }
    this.#nextAttemptMs = now + this.#pauseMs();
    this.#become("connecting");
    this.#tryOnce();
  }

  #pauseMs(): number {
    const { reconnectFirstMs = RECONNECT_FIRST_MS, reconnectMaxMs = RECONNECT_MAX_MS, fraction } =
      this.#options;
    const fullMs = Math.min(reconnectMaxMs, reconnectFirstMs * 2 ** Math.min(this.#failures, 16));
    return fullMs * (0.75 + fraction() / 2);
  }

  async #tryOnce(): Promise<void> {
    const { address, tls, clock, connectTimeoutMs = CONNECT_TIMEOUT_MS } = this.#options;
    const { keepaliveTimeMs = 0, keepaliveTimeoutMs = KEEPALIVE_TIMEOUT_MS } = this.#options;
    const attempt = this.#attempt = new AbortController();
    const timer = setTimeout(
      () => attempt.abort(new Error(`no connection within ${connectTimeoutMs} ms`)),
      connectTimeoutMs,
    );
    let connection: GrpcConnection | undefined;
    try {
      const socket = await dial(address, tls, attempt.signal);
      if (attempt.signal.aborted) {
        socket.close();
        throw attempt.signal.reason;
      }
      await new Promise<void>((resolve, reject) => {
        const made = connection = new GrpcConnection(socket, {
          clock,
          keepaliveTimeMs,
          keepaliveTimeoutMs,
          onReady: resolve,
          onClosing: () => this.#lose(made, false),
          onEnd: () => {
            reject(new Error(made.reason));
            this.#lose(made, true);
          },
        });
        attempt.signal.addEventListener("abort", () => made.close(String(attempt.signal.reason.message)));
      });
    } catch (error) {
      return this.#failed(attempt, error);
    } finally {
      clearTimeout(timer);
      if (this.#attempt === attempt) this.#attempt = undefined;
    }
    this.#succeeded(connection!);
  }

  #succeeded(connection: GrpcConnection): void {
    if (this.#state === "closed") return connection.close(CLOSED);
    this.#failures = 0;
    this.#lastError = "";
    if (!connection.http2.isOpen) {
      // It was sent away with the server's first words.
      this.#lastError = connection.reason;
      connection.close("");
      this.#retreat();
      return this.#failPending();
    }
    this.#connection = connection;
    for (const call of this.#pending) {
      this.#pending.delete(call);
      call.attach(connection);
    }
    this.#become("ready");
  }

  #failed(attempt: AbortController, error: unknown): void {
    if (this.#state === "closed") return;
    const reason = attempt.signal.aborted ? attempt.signal.reason : error;
    this.#failures++;
    this.#lastError = reason instanceof Error ? reason.message : String(reason);
    this.#retreat();
    this.#failPending();
  }

  /** The connection takes no more calls, or has ended. */
  #lose(connection: GrpcConnection, hasEnded: boolean): void {
    if (hasEnded) this.#leaving.delete(connection);
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#lastError = connection.reason;
    if (!hasEnded) this.#leave(connection);
    this.#retreat();
  }

  /** Lets the calls of a connection end, and closes it then. */
  #leave(connection: GrpcConnection): void {
    this.#leaving.add(connection);
    connection.shutdown();
    for (const oldest of this.#leaving) {
      if (this.#leaving.size <= MAX_LEAVING) break;
      oldest.close("too many connections wait for their calls to end");
    }
  }

  #retreat(): void {
    if (this.#options.isEager === true) this.#connect();
    else this.#become(this.#failures > 0 ? "waiting" : "idle");
  }

  #become(state: ChannelState): void {
    if (this.#state === state || this.#state === "closed") return;
    this.#state = state;
    this.#options.onState?.(state);
  }
}

const CLOSED = "the client is closed";
