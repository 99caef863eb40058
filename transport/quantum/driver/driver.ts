import type { Address, QuantumEndpoint, QuantumEvent } from "../types.ts";
import { type SocketCounters, UdpSocket } from "./socket.ts";

/** Microtasks that a flush waits without a new command before it sends. A handler's answer comes a few awaits after its
 *  event (an RPC handler's about ten), and each answer that comes later than its turn's flush costs a datagram of its
 *  own. Waiting costs 50 ns a step; setImmediate would gather as well, but costs 4 µs. */
const FLUSH_QUIET_STEPS = 16;

/** The most microtasks that one flush waits, however many commands keep coming. */
const FLUSH_STEPS_MAX = 512;

/** setTimeout takes 31 bits of milliseconds. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** What a driver is made of. */
export interface DriverOptions {
  /** Where to bind; port 0 is any free one. */
  readonly listen: Address;
  readonly endpoint: QuantumEndpoint;
  /** Hears every event on the turn that brought it; must not throw. */
  readonly onEvent: (event: QuantumEvent) => void;
  /** The socket broke by itself: no connection can go on. */
  readonly onBroken: (error: Error) => void;
}

/** Runs one sans-IO endpoint on one UDP socket with one timer.
 *
 *  Events are handed out as soon as a datagram was taken in. What there is to send goes out when the commands of the
 *  turn have dried up (see FLUSH_QUIET_STEPS), so the answers of all handlers that the turn woke, and their
 *  acknowledgements, share datagrams. */
export class QuantumDriver {
  #endpoint: QuantumEndpoint;
  #onEvent: (event: QuantumEvent) => void;
  #onBroken: (error: Error) => void;
  #socket: UdpSocket;
  #flushRequested = false;
  #steps = 0;
  #quietSteps = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAtMs = Infinity;
  #dispatching = false;
  #closed = false;

  constructor(options: DriverOptions) {
    this.#endpoint = options.endpoint;
    this.#onEvent = options.onEvent;
    this.#onBroken = options.onBroken;
    this.#socket = new UdpSocket(options.listen, {
      onDatagram: (bytes, from) => this.#receive(bytes, from),
      onWritable: () => this.requestFlush(),
      onReusable: (bytes) => this.#endpoint.recycle(bytes),
      onBroken: (error) => this.#onBroken(error),
    });
  }

  /** The address really bound. */
  get address(): Address {
    return this.#socket.address;
  }

  get counters(): Readonly<SocketCounters> {
    return this.#socket.counters;
  }

  /** Monotonic milliseconds: the endpoint's time. */
  now(): number {
    return performance.now();
  }

  /** To be called after every command given to the endpoint: sends at the end of this turn. Cheap to repeat. */
  requestFlush(): void {
    this.#quietSteps = 0;
    if (this.#flushRequested || this.#closed) return;
    this.#flushRequested = true;
    this.#steps = 0;
    queueMicrotask(this.#step);
  }

  /** Sends what the endpoint has left to say, waits for it, then releases socket and timer. Call once. */
  async close(): Promise<void> {
    this.#dispatch();
    this.#transmit(performance.now());
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#socket.close();
  }

  #receive(bytes: Uint8Array, from: Address): void {
    if (this.#closed) return;
    this.#endpoint.handleDatagram(bytes, from, performance.now());
    this.#dispatch();
    this.requestFlush();
  }

  #step = (): void => {
    if (++this.#quietSteps < FLUSH_QUIET_STEPS && ++this.#steps < FLUSH_STEPS_MAX) queueMicrotask(this.#step);
    else this.#flush();
  };

  #flush = (): void => {
    this.#flushRequested = false;
    if (this.#closed) return;
    // Commands may have left events (a local close, for one) that no datagram will flush out.
    this.#dispatch();
    const now = performance.now();
    this.#transmit(now);
    this.#dispatch();
    this.#arm(now);
  };

  #transmit(now: number): void {
    while (this.#socket.canSend) {
      const out = this.#endpoint.pollTransmit(now);
      if (out === undefined) return;
      this.#socket.send(out);
    }
  }

  #dispatch(): void {
    // A handler may give commands but not re-enter: the outer loop picks up what they cause.
    if (this.#dispatching) return;
    this.#dispatching = true;
    try {
      for (let event = this.#endpoint.pollEvent(); event; event = this.#endpoint.pollEvent()) {
        this.#onEvent(event);
      }
    } finally {
      this.#dispatching = false;
    }
  }

  /** Keeps one timer at or before the endpoint's deadline. It moves only to an earlier time: deadlines move later with
   *  almost every packet, and waking once too early is cheaper than clearing and setting a timer each time. */
  #arm(now: number): void {
    const next = this.#endpoint.nextTimeout();
    if (next === undefined) return;
    if (next >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = next;
    this.#timer = setTimeout(this.#onTimer, Math.min(Math.max(Math.ceil(next - now), 0), MAX_TIMEOUT_MS));
  }

  #onTimer = (): void => {
    this.#timer = undefined;
    this.#timerAtMs = Infinity;
    if (this.#closed) return;
    this.#endpoint.handleTimeout(performance.now());
    this.#dispatch();
    this.requestFlush();
  };
}
