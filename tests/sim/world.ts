import type { Address, Transmit } from "../../transport/quantum/types.ts";
import { Link, type LinkProfile, QUIET_LINK } from "./network.ts";
import { SimRandom } from "./random.ts";
import { Trace } from "./trace.ts";

/** A sans-IO machine at an address: the part of QuantumEndpoint that the world itself drives. */
export interface SimNode {
  handleDatagram(bytes: Uint8Array, from: Address, now: number): void;
  handleTimeout(now: number): void;
  nextTimeout(): number | undefined;
  pollTransmit(now: number): Transmit | undefined;
  /** Runs the application on what the machine has to say; true when it did anything. */
  runApplication(now: number): boolean;
}

export interface WorldOptions {
  /** Decides everything that chance decides here. */
  seed: number;
  /** What every link does unless told otherwise; missing fields are QUIET_LINK's. */
  link?: Partial<LinkProfile>;
  /** Timers fire up to this much late, as setTimeout does. Default 1.2. */
  timerLateMsMax?: number;
}

/** Sends at one instant, or timer calls without the clock moving, after which a node is looping. */
const SPIN_LIMIT = 200_000;

/** Virtual clock, event queue, links and nodes. Nothing in it reads a real clock or real chance, so one seed is one run. */
export class World {
  /** Virtual milliseconds since the world began. */
  now = 0;
  readonly random: SimRandom;
  readonly trace = new Trace();
  /** Datagrams that arrived where nobody listens. */
  unheard = 0;
  #queue = new EventQueue();
  #nodes = new Map<string, Seat>();
  #links = new Map<string, Link>();
  #profile: LinkProfile;
  #timerLateMsMax: number;
  #timerRandom: SimRandom;

  constructor(options: WorldOptions) {
    this.random = new SimRandom(options.seed, "world");
    this.#timerRandom = new SimRandom(options.seed, "timers");
    this.#profile = { ...QUIET_LINK, ...options.link };
    this.#timerLateMsMax = options.timerLateMsMax ?? 1.2;
  }

  /** Puts a node at an address that is free. */
  add(address: Address, node: SimNode): void {
    const key = keyOf(address);
    if (this.#nodes.has(key)) throw new RangeError(`Cannot add a node: ${key} is taken`);
    this.#nodes.set(key, { address, node, dueMs: Infinity, armedMs: Infinity, spins: 0, spinsAtMs: -1 });
    this.touch(address);
  }

  /** Takes a node away, as a crash does: nothing is sent, later datagrams to it go unheard. */
  remove(address: Address): void {
    this.#nodes.delete(keyOf(address));
  }

  /** To be called after commands were given to a node from outside its application. */
  touch(address: Address): void {
    const seat = this.#nodes.get(keyOf(address));
    if (seat) this.#settle(seat);
  }

  /** The link from one address to another, made on first use. */
  link(from: Address, to: Address): Link {
    const key = `${keyOf(from)}>${keyOf(to)}`;
    let link = this.#links.get(key);
    if (!link) {
      link = new Link({ ...this.#profile }, this.random.fork(`link ${key}`));
      this.#links.set(key, link);
    }
    return link;
  }

  /** Changes both directions between two addresses. */
  change(a: Address, b: Address, change: Partial<LinkProfile>): void {
    Object.assign(this.link(a, b).profile, change);
    Object.assign(this.link(b, a).profile, change);
  }

  /** Cuts or joins both directions between two addresses. What is in flight still arrives. */
  partition(a: Address, b: Address, cut: boolean): void {
    this.link(a, b).up = !cut;
    this.link(b, a).up = !cut;
  }

  /** Runs `action` at a virtual time. */
  at(timeMs: number, action: () => void): void {
    this.#queue.push(Math.max(timeMs, this.now), action);
  }

  /** Runs until `done()`; @throws {Error} when `limitMs` of virtual time pass, or nothing is left to happen, before that. */
  run(done: () => boolean, limitMs: number): void {
    const endMs = this.now + limitMs;
    while (!done()) {
      const event = this.#queue.pop();
      if (!event) throw new Error(`nothing left to happen at ${this.now.toFixed(1)} ms`);
      if (event.timeMs > endMs) {
        this.#queue.push(event.timeMs, event.action);
        this.now = endMs;
        throw new Error(`not done after ${limitMs} ms of virtual time`);
      }
      this.now = event.timeMs;
      event.action();
    }
  }

  /** Runs for `durationMs`, or until nothing is left to happen. */
  runFor(durationMs: number): void {
    const endMs = this.now + durationMs;
    for (let event = this.#queue.peek(); event && event.timeMs <= endMs; event = this.#queue.peek()) {
      this.#queue.pop();
      this.now = event.timeMs;
      event.action();
    }
    this.now = endMs;
  }

  #settle(seat: Seat): void {
    const { node } = seat;
    for (let sends = 0; sends < SPIN_LIMIT;) {
      const acted = node.runApplication(this.now);
      const before = sends;
      for (let out = node.pollTransmit(this.now); out; out = node.pollTransmit(this.now)) {
        if (++sends >= SPIN_LIMIT) break;
        this.#send(seat.address, out);
      }
      if (!acted && sends === before) return this.#arm(seat);
    }
    throw new Error(`${keyOf(seat.address)} sends without end at ${this.now} ms`);
  }

  #send(from: Address, { to, bytes }: Transmit): void {
    if (bytes.length === 0) throw new Error(`${keyOf(from)} sent an empty datagram`);
    this.link(from, to).carry(
      bytes,
      this.now,
      (copy, atMs) => this.at(atMs, () => this.#deliver(copy, from, to)),
    );
  }

  #deliver(bytes: Uint8Array, from: Address, to: Address): void {
    this.trace.record("datagram", this.now, from.port, to.port);
    this.trace.bytes(bytes);
    const seat = this.#nodes.get(keyOf(to));
    if (!seat) {
      this.unheard++;
      return;
    }
    seat.node.handleDatagram(bytes, from, this.now);
    // The caller may reuse the buffer at once: whoever kept a view of it finds this.
    bytes.fill(0xaa);
    this.#settle(seat);
  }

  #arm(seat: Seat): void {
    const next = seat.node.nextTimeout();
    if (next === undefined) return;
    if (Number.isNaN(next)) throw new Error(`${keyOf(seat.address)} asks for a timer at NaN`);
    if (next >= seat.dueMs) return;
    seat.dueMs = next;
    const atMs = Math.max(next, this.now) + this.#timerRandom.float() * this.#timerLateMsMax;
    seat.armedMs = atMs;
    this.at(atMs, () => this.#wake(seat, atMs));
  }

  #wake(seat: Seat, atMs: number): void {
    if (seat.armedMs !== atMs || this.#nodes.get(keyOf(seat.address)) !== seat) return;
    seat.armedMs = seat.dueMs = Infinity;
    if (seat.spinsAtMs !== this.now) {
      seat.spinsAtMs = this.now;
      seat.spins = 0;
    } else if (++seat.spins > SPIN_LIMIT) {
      throw new Error(`${keyOf(seat.address)} asks for timers without end`);
    }
    seat.node.handleTimeout(this.now);
    this.#settle(seat);
  }
}

interface Seat {
  readonly address: Address;
  readonly node: SimNode;
  /** When the node wants its timer, and when the armed one fires; Infinity when none is. */
  dueMs: number;
  armedMs: number;
  spins: number;
  spinsAtMs: number;
}

function keyOf(address: Address): string {
  return `${address.hostname}:${address.port}`;
}

interface QueuedEvent {
  readonly timeMs: number;
  readonly order: number;
  readonly action: () => void;
}

/** Binary heap by time, then by order of insertion, so that simultaneous events have one order. */
class EventQueue {
  #heap: QueuedEvent[] = [];
  #order = 0;

  peek(): QueuedEvent | undefined {
    return this.#heap[0];
  }

  push(timeMs: number, action: () => void): void {
    const heap = this.#heap;
    const event = { timeMs, order: this.#order++, action };
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(event, heap[parent] as QueuedEvent)) break;
      heap[at] = heap[parent] as QueuedEvent;
      at = parent;
    }
    heap[at] = event;
  }

  pop(): QueuedEvent | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      const right = child + 1;
      if (right < heap.length && before(heap[right] as QueuedEvent, heap[child] as QueuedEvent)) {
        child = right;
      }
      if (!before(heap[child] as QueuedEvent, last)) break;
      heap[at] = heap[child] as QueuedEvent;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

function before(a: QueuedEvent, b: QueuedEvent): boolean {
  return a.timeMs < b.timeMs || (a.timeMs === b.timeMs && a.order < b.order);
}
