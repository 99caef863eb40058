import { createQuantumEndpoint } from "../../transport/quantum/core/endpoint.ts";
import type {
  Address,
  ConnectionHandle,
  QuantumEndpoint,
  QuantumEvent,
  Transmit,
} from "../../transport/quantum/types.ts";
import { firstDifference, pattern } from "../../transport/testing/channel_suite.ts";
import type { SimNode, World } from "./world.ts";

/** The secret of every peer that is not told another. */
export const SECRET = new Uint8Array(32).fill(7);

export interface PeerOptions {
  readonly secret?: Uint8Array;
  /** Distinguishes the chance of successive peers at one address. */
  readonly incarnation?: number;
  /** Sends every received stream back. */
  readonly echo?: boolean;
  /** Received bytes are reported as used; true unless told otherwise. */
  readonly consume?: boolean;
}

/** What one stream brought. */
export interface Received {
  bytes: number;
  fin: boolean;
  resetCode: number | undefined;
  /** Position of the first byte that was not the pattern's; -1 while there is none. */
  wrongAt: number;
  finAtMs: number;
}

interface Outgoing {
  readonly connection: ConnectionHandle;
  readonly stream: number;
  readonly byteCount: number;
  offered: number;
}

type Closed = Extract<QuantumEvent, { readonly type: "closed" }>;
type Connected = Extract<QuantumEvent, { readonly type: "connected" }>;

/** Chunks an application writes; odd on purpose, so that they never match a packet. */
const CHUNK_BYTES = 16_411;

/** A Quantum endpoint at an address of the world, with an application that sends and checks patterned streams.
 *  It also checks the endpoint's promises on every event: order, one end per stream, nothing after `closed`. */
export class QuantumPeer implements SimNode {
  readonly endpoint: QuantumEndpoint;
  readonly connected: Connected[] = [];
  readonly closed: Closed[] = [];
  readonly datagrams: Uint8Array[] = [];
  readonly stops: { stream: number; code: number }[] = [];
  /** Keyed by connection and stream. */
  readonly received = new Map<string, Received>();
  #world: World;
  #outgoing = new Map<string, Outgoing>();
  #options: PeerOptions;
  #gone = new Set<ConnectionHandle>();

  constructor(world: World, readonly address: Address, options: PeerOptions = {}) {
    this.#world = world;
    this.#options = options;
    this.endpoint = createQuantumEndpoint(
      { secret: options.secret ?? SECRET, acceptConnections: true },
      world.random.fork(`peer ${address.hostname}:${address.port} ${options.incarnation ?? 0}`),
    );
    world.add(address, this);
  }

  connect(to: QuantumPeer): ConnectionHandle {
    const connection = this.endpoint.connect(to.address, this.#world.now);
    this.#world.touch(this.address);
    return connection;
  }

  /** Opens a stream and sends `byteCount` patterned bytes and the end on it, as fast as back-pressure lets it. */
  send(connection: ConnectionHandle, byteCount: number): number {
    const stream = this.endpoint.openStream(connection);
    const outgoing = { connection, stream, byteCount, offered: 0 };
    this.#outgoing.set(`${connection}/${stream}`, outgoing);
    this.#write(outgoing);
    this.#world.touch(this.address);
    return stream;
  }

  /** Runs `command` on the endpoint and sends what follows from it. */
  command(command: (endpoint: QuantumEndpoint, now: number) => void): void {
    command(this.endpoint, this.#world.now);
    this.#world.touch(this.address);
  }

  stream(connection: ConnectionHandle, stream: number): Received | undefined {
    return this.received.get(`${connection}/${stream}`);
  }

  /** Streams received whole and right. */
  get finished(): number {
    let count = 0;
    for (const { fin } of this.received.values()) if (fin) count++;
    return count;
  }

  get bytesReceived(): number {
    let bytes = 0;
    for (const received of this.received.values()) bytes += received.bytes;
    return bytes;
  }

  handleDatagram(bytes: Uint8Array, from: Address, now: number): void {
    this.endpoint.handleDatagram(bytes, from, now);
  }

  handleTimeout(now: number): void {
    this.endpoint.handleTimeout(now);
  }

  nextTimeout(): number | undefined {
    return this.endpoint.nextTimeout();
  }

  pollTransmit(now: number): Transmit | undefined {
    return this.endpoint.pollTransmit(now);
  }

  runApplication(now: number): boolean {
    let acted = false;
    for (let event = this.endpoint.pollEvent(); event; event = this.endpoint.pollEvent()) {
      acted = true;
      const stream = "stream" in event ? event.stream : 0;
      this.#world.trace.record(event.type, now, this.address.port, event.connection, stream);
      if (this.#gone.has(event.connection)) throw new Error(`event ${event.type} after closed`);
      this.#onEvent(event, now);
    }
    return acted;
  }

  #onEvent(event: QuantumEvent, now: number): void {
    switch (event.type) {
      case "connected":
        this.connected.push(event);
        return;
      case "closed":
        this.closed.push(event);
        this.#gone.add(event.connection);
        return;
      case "datagram":
        this.datagrams.push(event.bytes);
        return;
      case "stream": {
        const key = `${event.connection}/${event.stream}`;
        if (this.received.has(key)) throw new Error(`stream ${key} opened twice`);
        this.received.set(key, emptyReceived());
        return;
      }
      case "data":
        return this.#onData(event.connection, event.stream, event.bytes, event.fin, now);
      case "reset": {
        const received = this.#receivedOn(event.connection, event.stream);
        if (received.fin || received.resetCode !== undefined) throw new Error("reset after the end");
        received.resetCode = event.code;
        return;
      }
      case "stop":
        this.stops.push({ stream: event.stream, code: event.code });
        return;
      case "drain": {
        const outgoing = this.#outgoing.get(`${event.connection}/${event.stream}`);
        if (outgoing) this.#write(outgoing);
      }
    }
  }

  #onData(connection: ConnectionHandle, stream: number, bytes: Uint8Array, fin: boolean, now: number): void {
    const received = this.#receivedOn(connection, stream);
    if (received.fin || received.resetCode !== undefined) throw new Error("data after the end");
    if (bytes.length === 0 && !fin) throw new Error("an event without bytes and without an end");
    if (received.wrongAt < 0) {
      const difference = firstDifference(bytes, received.bytes);
      if (difference >= 0) received.wrongAt = received.bytes + difference;
    }
    received.bytes += bytes.length;
    received.fin = fin;
    if (fin) received.finAtMs = now;
    if (this.#options.consume !== false) this.endpoint.consumed(connection, stream, bytes.length);
    if (this.#options.echo) this.endpoint.write(connection, stream, bytes.slice(), fin);
    // The bytes are ours: whoever else kept them finds this.
    bytes.fill(0x55);
  }

  /** A stream of ours has no `stream` event; the peer's must have had one. */
  #receivedOn(connection: ConnectionHandle, stream: number): Received {
    const key = `${connection}/${stream}`;
    let received = this.received.get(key);
    if (!received) {
      if (!this.#outgoing.has(key)) throw new Error(`stream ${key} was never announced`);
      received = emptyReceived();
      this.received.set(key, received);
    }
    return received;
  }

  #write(outgoing: Outgoing): void {
    const { connection, stream, byteCount } = outgoing;
    do {
      const length = Math.min(CHUNK_BYTES, byteCount - outgoing.offered);
      const bytes = pattern(length, outgoing.offered);
      outgoing.offered += length;
      const fin = outgoing.offered === byteCount;
      if (!this.endpoint.write(connection, stream, bytes, fin)) return;
      if (fin) return;
    } while (outgoing.offered < byteCount);
  }
}

function emptyReceived(): Received {
  return { bytes: 0, fin: false, resetCode: undefined, wrongAt: -1, finAtMs: NaN };
}
