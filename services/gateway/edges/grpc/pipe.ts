/** The bytes of one connection on their way between its socket and the HTTP/2 server, watched. */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { FrameFilter, type FrameFilterHandler } from "./frame_filter.ts";

/** Resets that a client may send at once, and how many more each second. A call costs the server more than the client's
 *  reset, so one that opens and resets calls without end must be stopped; ordinary clients cancel now and then. */
const RESET_BURST = 1_000;
const RESETS_PER_SECOND = 100;

/** Written bytes that are gathered at most before the HTTP/2 server has to wait for the turn's end. */
const GATHER_MAX_BYTES = 256 * 1024;

/** Pings in a row that may come too early, as gRPC's servers count them. */
const EARLY_PINGS_MAX = 2;

/** A write of so many bytes holds data: a client that reads a large message measures the line with pings all the while.
 *  The answers to pings, 17 bytes each, would be as long only after far more pings than may come too early. */
const DATA_BYTES_MIN = 4_096;

/** What a pipe needs, and whom it tells. */
export interface PipeOptions {
  readonly clock: { now(): number };
  readonly minPingIntervalMs: number;
  /** Calls `fn` when all events that wait now have been handled. */
  endOfTurn(fn: () => void): void;
  /** The client sends more pings or resets than it may; called once, the owner then closes the connection. */
  onAbuse(what: "pings" | "resets"): void;
}

/** What the HTTP/2 server takes for its socket. */
export class Pipe extends Duplex implements FrameFilterHandler {
  readonly #socket: Socket;
  readonly #options: PipeOptions;
  readonly #filter = new FrameFilter(this);
  #isFull = false;
  #gathered: Uint8Array[] = [];
  #gatheredBytes = 0;
  /** Whether the socket has said to wait. */
  #isBlocked = false;
  #whenFlushed: ((error?: Error | null) => void) | undefined;
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
    socket.on("drain", () => this.#goOn());
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

  /** Gathers what is written on one turn: the HTTP/2 server writes frame by frame, and a system call for each would cost
   *  more than the call that it answers. */
  override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error | null) => void): void {
    if (chunk.length >= DATA_BYTES_MIN) this.forgivePings();
    this.#gathered.push(chunk);
    this.#gatheredBytes += chunk.length;
    if (this.#gathered.length === 1) this.#options.endOfTurn(() => this.#flush());
    if (this.#isBlocked || this.#gatheredBytes >= GATHER_MAX_BYTES) this.#whenFlushed = done;
    else done();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#flush();
    this.#socket.end();
    done();
  }

  override _destroy(_error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    // Why a connection ended concerns nobody once it has.
    done(null);
  }

  #flush(): void {
    const parts = this.#gathered;
    const byteCount = this.#gatheredBytes;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    if (parts.length > 0 && !this.#socket.destroyed) {
      this.#isBlocked = !this.#socket.write(parts.length === 1 ? parts[0]! : join(parts, byteCount));
    }
    if (!this.#isBlocked || this.#socket.destroyed) this.#goOn();
  }

  #goOn(): void {
    this.#isBlocked = false;
    const done = this.#whenFlushed;
    this.#whenFlushed = undefined;
    done?.();
  }

  #abuse(what: "pings" | "resets"): void {
    if (this.#isAbused) return;
    this.#isAbused = true;
    this.#options.onAbuse(what);
  }
}

function join(parts: readonly Uint8Array[], byteCount: number): Uint8Array {
  const whole = new Uint8Array(byteCount);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
