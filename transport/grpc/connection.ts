/** One HTTP/2 connection of a client at its socket: moves the bytes, and asks for signs of life. */
import { Http2ClientConnection } from "../http2/client.ts";
import { ERROR } from "../http2/errors.ts";
import type { ByteSocket } from "./dial.ts";

/** What a connection needs, and whom it tells. */
export interface GrpcConnectionOptions {
  readonly clock: { now(): number };
  /** Quiet time after which the server is asked for a sign of life while calls are open, in milliseconds; 0 never asks. */
  readonly keepaliveTimeMs: number;
  /** Time for that sign, in milliseconds; the connection counts as lost then. */
  readonly keepaliveTimeoutMs: number;
  /** The server speaks HTTP/2. */
  onReady(): void;
  /** The server takes no more calls; those that run go on. */
  onClosing(): void;
  /** It is over, with everything that ran. Told once, and last. */
  onEnd(): void;
}

/** Header fields of one answer, in bytes: error texts and what services put into trailers. */
const MAX_HEADER_BYTES = 64 * 1024;

/** A connection. */
export class GrpcConnection {
  readonly http2: Http2ClientConnection;
  /** Why it is over, or about to be; "" while nothing is wrong. */
  reason = "";
  readonly #socket: ByteSocket;
  readonly #options: GrpcConnectionOptions;
  #isWriting = false;
  #isOver = false;
  #lastReadMs: number;
  #keepalive: ReturnType<typeof setTimeout> | undefined;
  #isAsking = false;

  constructor(socket: ByteSocket, options: GrpcConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#lastReadMs = options.clock.now();
    this.http2 = new Http2ClientConnection({
      onOutput: () => this.#plan(),
      onReady: () => options.onReady(),
      onGoAway: (code, text) => {
        this.reason ||= `the server said goodbye (code ${code}${text === "" ? "" : `, ${text}`})`;
        options.onClosing();
      },
      onPong() {}, // any byte is a sign of life
    }, { maxHeaderListBytes: MAX_HEADER_BYTES });
    this.#plan();
    this.#read();
  }

  /** A call begins: from now on the connection is watched. */
  watch(): void {
    const { keepaliveTimeMs } = this.#options;
    if (keepaliveTimeMs > 0 && this.#keepalive === undefined && !this.#isOver) {
      this.#keepalive = setTimeout(() => this.#checkQuiet(), keepaliveTimeMs);
    }
  }

  /** Takes no more calls, and closes when those that run have ended. Idempotent. */
  shutdown(): void {
    this.reason ||= "this side has closed it";
    this.http2.shutdown();
  }

  /** Ends it at once, with everything that runs. Idempotent. */
  close(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.reason ||= reason;
    clearTimeout(this.#keepalive);
    this.#socket.close();
    this.http2.close();
    this.#options.onEnd();
  }

  async #read(): Promise<void> {
    while (!this.#isOver) {
      let bytes: Uint8Array | null;
      try {
        bytes = await this.#socket.read();
      } catch (error) {
        return this.close(messageOf(error));
      }
      if (this.#isOver) return;
      if (bytes === null) return this.close("the server closed it");
      this.#lastReadMs = this.#options.clock.now();
      if (this.#isAsking) this.#onSignOfLife();
      this.http2.receive(bytes, this.#lastReadMs);
      const { end } = this.http2;
      if (end !== undefined && end.code !== ERROR.NO_ERROR) {
        this.reason ||= `the server broke HTTP/2: ${end.message}`;
      }
    }
  }

  /** What one turn brings about leaves in one write. */
  #plan(): void {
    if (this.#isWriting) return;
    this.#isWriting = true;
    queueMicrotask(() => this.#write());
  }

  async #write(): Promise<void> {
    try {
      while (!this.#isOver) {
        const bytes = this.http2.poll();
        if (bytes === undefined) break;
        await this.#socket.write(bytes);
      }
    } catch (error) {
      this.close(messageOf(error));
    }
    this.#isWriting = false;
    if (this.http2.isDone) this.close("the last call has ended");
  }

  #checkQuiet(): void {
    this.#keepalive = undefined;
    const { clock, keepaliveTimeMs, keepaliveTimeoutMs } = this.#options;
    const { http2 } = this;
    if (http2.streamCount + http2.waitingCount === 0) return; // the next call watches again
    const leftMs = keepaliveTimeMs - (clock.now() - this.#lastReadMs);
    if (leftMs > 0) {
      this.#keepalive = setTimeout(() => this.#checkQuiet(), Math.ceil(leftMs));
      return;
    }
    http2.ping();
    this.#isAsking = true;
    this.#keepalive = setTimeout(
      () => this.close(`no sign of life within ${keepaliveTimeoutMs} ms`),
      keepaliveTimeoutMs,
    );
  }

  /** Bytes have come after a ping: whatever they say, the server lives. */
  #onSignOfLife(): void {
    this.#isAsking = false;
    clearTimeout(this.#keepalive);
    this.#keepalive = undefined;
    this.watch();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
