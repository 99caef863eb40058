import { createQuantumEndpoint } from "../quantum/core/endpoint.ts";
import { IdMap } from "../quantum/core/id_map.ts";
import { QuantumDriver } from "../quantum/driver/driver.ts";
import type { SocketCounters } from "../quantum/driver/socket.ts";
import type {
  Address,
  ConnectionHandle,
  ConnectionStats,
  EndpointStats,
  QuantumEndpoint,
  QuantumEvent,
  Random,
} from "../quantum/types.ts";
import {
  type Channel,
  type ChannelClose,
  ChannelError,
  type ChannelStats,
  type ChannelStream,
  type StreamHandler,
} from "./channel.ts";

/** What a node needs. */
export interface QuantumNodeOptions {
  /** Where to bind; port 0 is any free one. */
  readonly listen: Address;
  /** Pre-shared secret, at least 32 bytes; both ends hold the same. */
  readonly secret: Uint8Array;
  /** Hears of every authenticated peer that connects to us; must call `onStream` before it returns.
   *  Without it the node answers no handshake. */
  readonly onChannel?: (channel: Channel) => void;
  /** Hears what an operator may want to know: channels that opened, closed and were lost, a broken socket. */
  readonly log?: (message: string, fields: Record<string, unknown>) => void;
}

/** Figures of one node since it was opened. */
export interface QuantumNodeStats extends Readonly<SocketCounters> {
  /** Channels open now. */
  readonly channels: number;
  /** Handshakes of ours under way now. */
  readonly connecting: number;
  /** Handshakes of peers that we answered and that have not come back. */
  readonly halfOpen: number;
  /** Stateless resets: peers that spoke of connections which this node does not know. */
  readonly resetsSent: number;
  /** Handshakes answered with a retry instead of state. */
  readonly retriesSent: number;
  /** Packets of all channels, closed ones included; the fields are those of ChannelStats. */
  readonly packetsSent: number;
  readonly packetsReceived: number;
  readonly packetsLost: number;
  readonly packetsResent: number;
  /** Of the channels open now, summed up. */
  readonly congestionWindowBytes: number;
  readonly bytesInFlight: number;
  /** Datagrams that arrived and were dropped, by reason. */
  readonly dropped: EndpointStats["dropped"];
}

/** One UDP socket's worth of channels, as client and as server. */
export interface QuantumNode {
  /** The address really bound. */
  readonly address: Address;
  /** Opens a channel. @throws {ChannelError} `closed` when the peer does not answer, does not share our secret or refuses,
   *  when the node closes or is full; @throws the signal's reason when it is aborted. */
  connect(to: Address, signal?: AbortSignal): Promise<Channel>;
  /** Figures for metrics. */
  stats(): QuantumNodeStats;
  /** Closes every channel, tells the peers, releases the socket. Idempotent. Default code 0. */
  close(code?: number, reason?: string): Promise<void>;
}

/** Opens a node on a UDP socket of its own. @throws whatever binding throws, `Deno.errors.AddrInUse` for one. */
export function openQuantumNode(options: QuantumNodeOptions): QuantumNode {
  return new Node(options);
}

/** The operating system's chance, in the chunks of 64 KiB that it gives at most. */
const systemRandom: Random = {
  fill(target) {
    for (let at = 0; at < target.length; at += 65_536) {
      crypto.getRandomValues(target.subarray(at, at + 65_536) as Uint8Array<ArrayBuffer>);
    }
    return target;
  },
};

interface Attempt {
  readonly resolve: (channel: Channel) => void;
  readonly reject: (error: unknown) => void;
}

class Node implements QuantumNode {
  #endpoint: QuantumEndpoint;
  #driver: QuantumDriver;
  #channels = new Map<ConnectionHandle, QuantumChannel>();
  #attempts = new Map<ConnectionHandle, Attempt>();
  #onChannel: ((channel: Channel) => void) | undefined;
  #log: (message: string, fields: Record<string, unknown>) => void;
  #closing: Promise<void> | undefined;
  /** Connections that were told to close and have not said that they did. */
  #closingConnections = new Set<ConnectionHandle>();
  #onAllClosed: (() => void) | undefined;

  constructor(options: QuantumNodeOptions) {
    this.#onChannel = options.onChannel;
    this.#log = options.log ?? (() => {});
    this.#endpoint = createQuantumEndpoint({
      secret: options.secret,
      acceptConnections: options.onChannel !== undefined,
      wallOffsetMs: performance.timeOrigin,
    }, systemRandom);
    this.#driver = new QuantumDriver({
      listen: options.listen,
      endpoint: this.#endpoint,
      onEvent: (event) => this.#onEvent(event),
      onBroken: (error) => this.#onBroken(error),
    });
  }

  get address(): Address {
    return this.#driver.address;
  }

  connect(to: Address, signal?: AbortSignal): Promise<Channel> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#closing) {
      return Promise.reject(new ChannelError("closed", "Cannot connect: the node is closed"));
    }
    let handle: ConnectionHandle;
    try {
      handle = this.#endpoint.connect(to, this.#driver.now());
    } catch (cause) {
      return Promise.reject(new ChannelError("closed", "Cannot connect: too many connections", { cause }));
    }
    this.#driver.requestFlush();
    const { promise, resolve, reject } = Promise.withResolvers<Channel>();
    const onAbort = () => {
      if (!this.#attempts.delete(handle)) return;
      this.closeConnection(handle, 0, "aborted");
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#attempts.set(handle, {
      resolve: (channel) => {
        signal?.removeEventListener("abort", onAbort);
        resolve(channel);
      },
      reject: (error) => {
        signal?.removeEventListener("abort", onAbort);
        reject(error);
      },
    });
    return promise;
  }

  stats(): QuantumNodeStats {
    // Of what both count, the socket's figures are those of the operating system.
    const { connections: _, ...endpoint } = this.#endpoint.stats();
    return {
      ...endpoint,
      ...this.#driver.counters,
      channels: this.#channels.size,
      connecting: this.#attempts.size,
    };
  }

  close(code = 0, reason = "closed"): Promise<void> {
    this.#closing ??= this.#closeOnce(code, reason);
    return this.#closing;
  }

  async #closeOnce(code: number, reason: string): Promise<void> {
    for (const [handle, attempt] of [...this.#attempts]) {
      this.#attempts.delete(handle);
      this.closeConnection(handle, code, reason);
      attempt.reject(new ChannelError("closed", "Cannot connect: the node was closed"));
    }
    for (const channel of [...this.#channels.values()]) channel.close(code, reason);
    // The endpoint flushes what streams had queued, for at most a second, before it says that a connection ended.
    if (this.#closingConnections.size > 0) await new Promise<void>((resolve) => this.#onAllClosed = resolve);
    await this.#driver.close();
  }

  /** For channels: commands go straight to the endpoint, a flush follows at the end of the turn. */
  get endpoint(): QuantumEndpoint {
    return this.#endpoint;
  }

  requestFlush(): void {
    this.#driver.requestFlush();
  }

  /** For channels: tells the peer; the channel is out of our books at once. */
  closeConnection(handle: ConnectionHandle, code: number, reason: string): void {
    this.#channels.delete(handle);
    this.#closingConnections.add(handle);
    this.#endpoint.close(handle, code, reason, this.#driver.now());
    this.#driver.requestFlush();
  }

  #onEvent(event: QuantumEvent): void {
    if (event.type === "connected") return this.#onConnected(event.connection, event.side, event.peer);
    const channel = this.#channels.get(event.connection);
    if (event.type === "closed") return this.#onClosed(event, channel);
    channel?.onEvent(event);
  }

  #onConnected(handle: ConnectionHandle, side: "client" | "server", peer: Address): void {
    const channel = new QuantumChannel(this, handle, textOf(peer));
    const attempt = this.#attempts.get(handle);
    if (side === "client" && !attempt) {
      // Aborted while its last packet was on the way.
      this.closeConnection(handle, 0, "aborted");
      return;
    }
    this.#channels.set(handle, channel);
    this.#log("channel open", { peer: channel.peer, side });
    if (attempt) {
      this.#attempts.delete(handle);
      attempt.resolve(channel);
    } else this.#onChannel?.(channel);
  }

  #onClosed(event: QuantumEvent & { type: "closed" }, channel: QuantumChannel | undefined): void {
    const { connection, code, reason, by } = event;
    const attempt = this.#attempts.get(connection);
    this.#attempts.delete(connection);
    this.#channels.delete(connection);
    if (this.#closingConnections.delete(connection) && this.#closingConnections.size === 0) {
      this.#onAllClosed?.();
    }
    attempt?.reject(
      new ChannelError("closed", `Cannot connect: ${reason || "closed"} (${by}, code ${code})`),
    );
    if (!channel) return;
    this.#log("channel closed", { peer: channel.peer, code, reason, by });
    channel.end({ code, reason, by });
  }

  #onBroken(error: Error): void {
    this.#log("socket broken", { error: error.message });
    const reason = `socket broken: ${error.message}`;
    for (const channel of [...this.#channels.values()]) channel.end({ code: 0, reason, by: "lost" });
    this.#channels.clear();
    void this.close(0, reason);
  }
}

const NO_STATS: ConnectionStats = {
  rttMs: 0,
  minRttMs: 0,
  bytesSent: 0,
  bytesReceived: 0,
  packetsSent: 0,
  packetsReceived: 0,
  packetsLost: 0,
  packetsResent: 0,
  congestionWindowBytes: 0,
  bytesInFlight: 0,
  datagramBytesMax: 0,
  streamsOpen: 0,
};

/** Data of a stream that the peer opened before `onStream` was called waits here; flow control bounds it. */
type StreamEvent = Extract<QuantumEvent, { readonly stream: number }>;

class QuantumChannel implements Channel {
  readonly closed: Promise<ChannelClose>;
  #node: Node;
  #handle: ConnectionHandle;
  #streams = new IdMap<QuantumStream>();
  #accept: ((stream: ChannelStream) => StreamHandler) | undefined;
  #unaccepted: StreamEvent[] = [];
  #resolveClosed: (close: ChannelClose) => void;
  #open = true;
  #lastStats: ConnectionStats = NO_STATS;

  constructor(node: Node, handle: ConnectionHandle, readonly peer: string) {
    this.#node = node;
    this.#handle = handle;
    const { promise, resolve } = Promise.withResolvers<ChannelClose>();
    this.closed = promise;
    this.#resolveClosed = resolve;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  get streamCredit(): number {
    return this.#open ? this.#node.endpoint.streamCredit(this.#handle) : 0;
  }

  openStream(handler: StreamHandler): ChannelStream {
    if (!this.#open) {
      throw new ChannelError("closed", `Cannot open a stream: the channel to ${this.peer} is closed`);
    }
    if (this.#node.endpoint.streamCredit(this.#handle) === 0) {
      throw new ChannelError("stream_limit", `Cannot open a stream: ${this.peer} allows no more now`);
    }
    const id = this.#node.endpoint.openStream(this.#handle);
    const stream = new QuantumStream(this, id);
    stream.handler = handler;
    this.#streams.set(id, stream);
    return stream;
  }

  onStream(accept: (stream: ChannelStream) => StreamHandler): void {
    this.#accept = accept;
    const waiting = this.#unaccepted;
    this.#unaccepted = [];
    for (const event of waiting) this.onEvent(event);
  }

  close(code: number, reason: string): void {
    if (!this.#open) return;
    this.#node.closeConnection(this.#handle, code, reason);
    this.end({ code, reason, by: "local" });
  }

  stats(): ChannelStats {
    // The endpoint forgets an ended connection; the last figures asked for remain.
    this.#lastStats = this.#node.endpoint.connectionStats(this.#handle) ?? this.#lastStats;
    return this.#lastStats;
  }

  /** For the node: one event of this connection. */
  onEvent(event: QuantumEvent): void {
    if (!this.#open || event.type === "datagram" || !("stream" in event)) return;
    if (event.type === "stream") {
      if (!this.#accept) this.#unaccepted.push(event);
      else this.#acceptStream(event.stream, this.#accept);
      return;
    }
    const stream = this.#streams.get(event.stream);
    if (stream) return this.#onStreamEvent(stream, event);
    // Either not accepted yet, or over for us while this was on its way.
    if (this.#unaccepted.length > 0) this.#unaccepted.push(event);
  }

  /** For the node: the connection is over. */
  end(close: ChannelClose): void {
    if (!this.#open) return;
    this.#open = false;
    const streams = this.#streams.values();
    this.#streams.clear();
    this.#unaccepted = [];
    for (const stream of streams) {
      const { handler, receiveEnded, sendEnded } = stream;
      stream.receiveEnded = stream.sendEnded = true;
      if (!receiveEnded) handler?.onReset(close.code);
      if (!sendEnded) handler?.onStop(close.code);
    }
    this.#resolveClosed(close);
  }

  /** For streams. */
  write(stream: QuantumStream, bytes: Uint8Array, fin: boolean): boolean {
    if (!this.#open) return true;
    const belowMark = this.#node.endpoint.write(this.#handle, stream.id, bytes, fin);
    this.#node.requestFlush();
    if (fin) this.#endSend(stream);
    return belowMark;
  }

  reset(stream: QuantumStream, code: number): void {
    if (!this.#open) return;
    this.#node.endpoint.resetStream(this.#handle, stream.id, code);
    this.#node.requestFlush();
    this.#endSend(stream);
  }

  stop(stream: QuantumStream, code: number): void {
    if (!this.#open) return;
    this.#node.endpoint.stopStream(this.#handle, stream.id, code);
    this.#node.requestFlush();
    this.#endReceive(stream);
  }

  consumed(stream: QuantumStream, byteCount: number): void {
    if (!this.#open) return;
    this.#node.endpoint.consumed(this.#handle, stream.id, byteCount);
    this.#node.requestFlush();
  }

  #acceptStream(id: number, accept: (stream: ChannelStream) => StreamHandler): void {
    const stream = new QuantumStream(this, id);
    this.#streams.set(id, stream);
    stream.handler = accept(stream);
  }

  #onStreamEvent(stream: QuantumStream, event: StreamEvent): void {
    const { handler } = stream;
    if (!handler) return;
    switch (event.type) {
      case "data":
        if (stream.receiveEnded) return;
        if (event.fin) this.#endReceive(stream);
        return handler.onData(event.bytes, event.fin);
      case "reset":
        if (stream.receiveEnded) return;
        this.#endReceive(stream);
        return handler.onReset(event.code);
      case "stop":
        if (stream.sendEnded) return;
        this.#endSend(stream);
        return handler.onStop(event.code);
      case "drain":
        if (!stream.sendEnded) handler.onDrain();
    }
  }

  #endReceive(stream: QuantumStream): void {
    stream.receiveEnded = true;
    if (stream.sendEnded) this.#streams.delete(stream.id);
  }

  #endSend(stream: QuantumStream): void {
    stream.sendEnded = true;
    if (stream.receiveEnded) this.#streams.delete(stream.id);
  }
}

class QuantumStream implements ChannelStream {
  /** Set before the first event reaches the stream. */
  handler: StreamHandler | undefined;
  receiveEnded = false;
  sendEnded = false;
  #channel: QuantumChannel;

  constructor(channel: QuantumChannel, readonly id: number) {
    this.#channel = channel;
  }

  write(bytes: Uint8Array, fin: boolean): boolean {
    return this.sendEnded || this.#channel.write(this, bytes, fin);
  }

  reset(code: number): void {
    if (!this.sendEnded) this.#channel.reset(this, code);
  }

  stop(code: number): void {
    if (!this.receiveEnded) this.#channel.stop(this, code);
  }

  consumed(byteCount: number): void {
    this.#channel.consumed(this, byteCount);
  }
}

function textOf(address: Address): string {
  return address.hostname.includes(":")
    ? `[${address.hostname}]:${address.port}`
    : `${address.hostname}:${address.port}`;
}
