/** The bytes of one connection on their way between its socket and the HTTP/2 server, watched. */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { FrameFilter, type FrameFilterHandler } from "./frame_filter.ts";

/** Resets that a client may send at once, and how many more each second. A call costs the server more than the client's
 *  reset, so one that opens and resets calls without end must be stopped; ordinary clients cancel now and then. */
const RESET_BURST = 1_000;
const RESETS_PER_SECOND = 100;

/** Pings in a row that may come too early, as gRPC's servers count them. */
const EARLY_PINGS_MAX = 2;

/** What a pipe needs, and whom it tells. */
export interface PipeOptions {
  readonly clock: { now(): number };
  readonly minPingIntervalMs: number;
  /** The client sends more pings or resets than it may; called once, the owner then closes the connection. */
  onAbuse(what: "pings" | "resets"): void;
}

/** What the HTTP/2 server takes for its socket. */
export class Pipe extends Duplex implements FrameFilterHandler {
  readonly #socket: Socket;
  readonly #options: PipeOptions;
  readonly #filter = new FrameFilter(this);
  #isFull = false;
  #isAbused = false;
  #lastPingAtMs = -Infinity;
  #earlyPings = 0;
  #resets = RESET_BURST;
  #resetsAtMs: number;

  constructor(socket: Socket, options: PipeOptions) {
    super();
    this.#socket = socket;
    this.#options = options;
    this.#resetsAtMs = options.clock.now();
    socket.on("data", (chunk: Uint8Array) => {
      this.#filter.push(chunk);
      if (this.#isFull) socket.pause();
    });
    socket.on("end", () => this.push(null));
    socket.on("close", () => this.destroy());
  }

  /** Data or headers were sent: pings before it are forgiven, since clients measure the line while data flows. */
  forgivePings(): void {
    this.#earlyPings = 0;
  }

  onBytes(bytes: Uint8Array): void {
    if (!this.push(bytes)) this.#isFull = true;
  }

  onPing(): void {
    const now = this.#options.clock.now();
    if (now - this.#lastPingAtMs < this.#options.minPingIntervalMs && ++this.#earlyPings > EARLY_PINGS_MAX) {
      this.#abuse("pings");
    }
    this.#lastPingAtMs = now;
  }

  onReset(): void {
    const now = this.#options.clock.now();
    this.#resets = Math.min(RESET_BURST, this.#resets + (now - this.#resetsAtMs) * RESETS_PER_SECOND / 1000) -
      1;
    this.#resetsAtMs = now;
    if (this.#resets < 0) this.#abuse("resets");
  }

  override _read(): void {
    if (!this.#isFull) return;
    this.#isFull = false;
    this.#socket.resume();
  }

  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    if (this.#socket.destroyed) done();
    else this.#socket.write(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end();
    done();
  }

  override _destroy(_error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    // Why a connection ended concerns nobody once it has.
    done(null);
  }

  #abuse(what: "pings" | "resets"): void {
    if (this.#isAbused) return;
    this.#isAbused = true;
    this.#options.onAbuse(what);
  }
}
