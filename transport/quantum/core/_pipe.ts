/** Two endpoints and a scripted wire between them in virtual time, for tests of the core. */

import type { Address, QuantumEndpoint, QuantumEvent, Random } from "../types.ts";
import { createQuantumEndpoint, type QuantumOptions } from "./endpoint.ts";

/** Seeded chance (mulberry32): same seed, same bytes. */
export function seededRandom(seed: number): Random & { next(): number } {
  let state = seed >>> 0;
  const next = (): number => {
    state = state + 0x6d2b79f5 >>> 0;
    let t = Math.imul(state ^ state >>> 15, state | 1);
    t = t + Math.imul(t ^ t >>> 7, t | 61) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
  return {
    next,
    fill(target) {
      for (let i = 0; i < target.length; i++) target[i] = Math.floor(next() * 256);
      return target;
    },
  };
}

/** What the wire does with one datagram: the delays after which copies arrive (none = lost), or changed bytes. */
export type Wire = (bytes: Uint8Array, from: "client" | "server", now: number) => readonly number[];

/** One end of the pipe. */
export interface End {
  readonly name: "client" | "server";
  endpoint: QuantumEndpoint;
  readonly address: Address;
  /** Called with every event, in place of collecting it. */
  onEvent: ((event: QuantumEvent) => void) | undefined;
  readonly events: QuantumEvent[];
}

/** Secret of tests. */
export const SECRET = new Uint8Array(32).fill(7);

/** Two endpoints and the wire between them. */
export class Pipe {
  now = 1000;
  wire: Wire = () => [1];
  readonly client: End;
  readonly server: End;
  /** Every datagram sent, in order, if asked for. */
  trace:
    | { readonly from: "client" | "server"; readonly bytes: Uint8Array; readonly at: number }[]
    | undefined;
  readonly #flying: {
    readonly at: number;
    readonly order: number;
    readonly to: End;
    readonly bytes: Uint8Array;
  }[] = [];
  #order = 0;

  constructor(
    options: {
      client?: Partial<QuantumOptions>;
      server?: Partial<QuantumOptions>;
      seed?: number;
      network?: string;
    } = {},
  ) {
    const seed = options.seed ?? 1;
    const network = options.network ?? "10.0.0.";
    const base = { secret: SECRET, acceptConnections: true };
    this.client = {
      name: "client",
      endpoint: createQuantumEndpoint(
        { ...base, acceptConnections: false, ...options.client },
        seededRandom(seed),
      ),
      address: { hostname: `${network}1`, port: 1 },
      onEvent: undefined,
      events: [],
    };
    this.server = {
      name: "server",
      endpoint: createQuantumEndpoint({ ...base, ...options.server }, seededRandom(seed + 1)),
      address: { hostname: `${network}2`, port: 2 },
      onEvent: undefined,
      events: [],
    };
  }

  /** Connects and returns both handles. */
  connect(): { client: number; server: number } {
    const client = this.client.endpoint.connect(this.server.address, this.now);
    let server: number | undefined;
    this.runUntil(() => {
      for (const event of this.server.events) if (event.type === "connected") server = event.connection;
      return server !== undefined && this.client.events.some((event) => event.type === "connected");
    }, 20_000);
    this.client.events.length = 0;
    this.server.events.length = 0;
    return { client, server: server! };
  }

  /** Lets both ends say what they have to say now. */
  flush(): void {
    for (const end of [this.client, this.server]) {
      for (;;) {
        const event = end.endpoint.pollEvent();
        if (event !== undefined) {
          if (end.onEvent !== undefined) end.onEvent(event);
          else end.events.push(event);
          continue;
        }
        const transmit = end.endpoint.pollTransmit(this.now);
        if (transmit === undefined) break;
        this.send(end, transmit.bytes);
      }
    }
  }

  /** Puts a datagram on the wire as if `from` had sent it. */
  send(from: End, bytes: Uint8Array): void {
    this.trace?.push({ from: from.name, bytes: bytes.slice(), at: this.now });
    const to = from === this.client ? this.server : this.client;
    for (const delay of this.wire(bytes, from.name, this.now)) {
      const flight = { at: this.now + delay, order: this.#order++, to, bytes: bytes.slice() };
      let i = this.#flying.length;
      while (i > 0 && this.#flying[i - 1]!.at > flight.at) i--;
      this.#flying.splice(i, 0, flight);
    }
  }

  /** Moves to the next arrival or timer; false when nothing waits, or nothing before `until`. */
  step(until = Infinity): boolean {
    this.flush();
    const timers = [this.client, this.server].map((end) => end.endpoint.nextTimeout() ?? Infinity);
    const at = Math.min(this.#flying[0]?.at ?? Infinity, ...timers);
    if (at === Infinity || at > until) return false;
    this.now = Math.max(this.now, at);
    let arrived = false;
    while (this.#flying.length > 0 && this.#flying[0]!.at <= this.now) {
      const flight = this.#flying.shift()!;
      const from = flight.to === this.client ? this.server : this.client;
      flight.to.endpoint.handleDatagram(flight.bytes, from.address, this.now);
      this.flush();
      arrived = true;
    }
    if (!arrived) { for (const end of [this.client, this.server]) end.endpoint.handleTimeout(this.now); }
    this.flush();
    return true;
  }

  /** Steps until `done`, at most for `ms` of virtual time.
   *  @throws {Error} if the time ran out. */
  runUntil(done: () => boolean, ms: number): void {
    const until = this.now + ms;
    this.flush();
    while (!done()) {
      if (!this.step(until)) {
        if (done()) return;
        throw new Error(`not done after ${ms} ms of virtual time`);
      }
    }
  }

  /** Runs everything that happens within `ms`. */
  run(ms: number): void {
    const until = this.now + ms;
    while (this.step(until));
    this.now = until;
  }
}

/** Bytes that tell their position. */
export function pattern(count: number, seed = 0): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let i = 0; i < count; i++) bytes[i] = i * 31 + (i >>> 8) * 7 + (i >>> 16) * 3 + seed;
  return bytes;
}
