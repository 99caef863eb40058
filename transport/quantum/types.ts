/** The shape of the sans-IO core: what goes in, what comes out. Nothing here knows a socket, a timer or a clock. */

import type { DropReason } from "./errors.ts";

/** Where datagrams go to and come from: IPv4 or IPv6 text and port. */
export interface Address {
  readonly hostname: string;
  readonly port: number;
}

/** One datagram to send. `bytes` is the driver's until the send has ended. */
export interface Transmit {
  readonly to: Address;
  readonly bytes: Uint8Array;
}

/** Source of chance. Production passes the operating system's; the simulator a seeded one. */
export interface Random {
  /** Fills `target` with random bytes and returns it. */
  fill(target: Uint8Array): Uint8Array;
}

/** Handle of one connection inside one endpoint; never reused. */
export type ConnectionHandle = number;

/** What the core tells its owner. */
export type QuantumEvent =
  /** The handshake ended well; streams can be opened. For a server: a new, authenticated peer. */
  | {
    readonly type: "connected";
    readonly connection: ConnectionHandle;
    readonly side: "client" | "server";
    readonly peer: Address;
  }
  /** The peer opened a stream. */
  | { readonly type: "stream"; readonly connection: ConnectionHandle; readonly stream: number }
  /** The next bytes of a stream, in order; `bytes` is the owner's. */
  | {
    readonly type: "data";
    readonly connection: ConnectionHandle;
    readonly stream: number;
    readonly bytes: Uint8Array;
    readonly fin: boolean;
  }
  /** The peer gave up its half of a stream. */
  | {
    readonly type: "reset";
    readonly connection: ConnectionHandle;
    readonly stream: number;
    readonly code: number;
  }
  /** The peer reads no more of our half of a stream. */
  | {
    readonly type: "stop";
    readonly connection: ConnectionHandle;
    readonly stream: number;
    readonly code: number;
  }
  /** A stream that was over its high-water mark can take more. */
  | { readonly type: "drain"; readonly connection: ConnectionHandle; readonly stream: number }
  /** An unreliable datagram arrived. */
  | { readonly type: "datagram"; readonly connection: ConnectionHandle; readonly bytes: Uint8Array }
  /** The connection is over, its state is gone; the last event of the connection. */
  | {
    readonly type: "closed";
    readonly connection: ConnectionHandle;
    readonly code: number;
    readonly reason: string;
    readonly by: "local" | "peer" | "lost";
  };

/** Figures of one connection; counters count from its start. */
export interface ConnectionStats {
  /** Smoothed round trip, and the shortest seen. */
  readonly rttMs: number;
  readonly minRttMs: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly packetsSent: number;
  readonly packetsReceived: number;
  readonly packetsLost: number;
  /** Packets whose content was sent again: the lost ones, and those that a probe repeated. */
  readonly packetsResent: number;
  readonly congestionWindowBytes: number;
  readonly bytesInFlight: number;
  /** Datagram size in use, as far as path probing has come. */
  readonly datagramBytesMax: number;
  readonly streamsOpen: number;
}

/** Figures of one endpoint; counters count from its start. */
export interface EndpointStats {
  readonly datagramsReceived: number;
  readonly bytesReceived: number;
  readonly datagramsSent: number;
  readonly bytesSent: number;
  readonly connections: number;
  readonly halfOpen: number;
  readonly resetsSent: number;
  readonly retriesSent: number;
  /** Session packets of all connections, ended ones included; the fields are those of ConnectionStats. */
  readonly packetsSent: number;
  readonly packetsReceived: number;
  readonly packetsLost: number;
  readonly packetsResent: number;
  /** Of the connections open now, summed up. */
  readonly congestionWindowBytes: number;
  readonly bytesInFlight: number;
  /** Datagrams dropped, by reason. */
  readonly dropped: Readonly<Record<DropReason, number>>;
}

/** One socket's worth of Quantum: many connections, client and server. All times are monotonic milliseconds.
 *
 *  Contract: call one mutator, then drain `pollEvent` and `pollTransmit` until both return undefined, then read
 *  `nextTimeout`. The same calls with the same arguments and the same `Random` give the same bytes. Input from the
 *  network never throws. */
export interface QuantumEndpoint {
  /** Takes one datagram; `bytes` may be reused by the caller as soon as this returns. */
  handleDatagram(bytes: Uint8Array, from: Address, now: number): void;
  /** Runs whatever was due at `now`. Calling early is harmless. */
  handleTimeout(now: number): void;
  /** When `handleTimeout` is next needed; undefined when nothing waits. */
  nextTimeout(): number | undefined;
  /** The next datagram to send, if pacing, congestion and amplification limits allow one at `now`. */
  pollTransmit(now: number): Transmit | undefined;
  /** The next event. */
  pollEvent(): QuantumEvent | undefined;
  /** Takes back the bytes of a Transmit whose send has ended, for a later one: the caller keeps no view of them.
   *  Optional; worth it for datagrams of tens of kB. */
  recycle(bytes: Uint8Array): void;

  /** Starts a handshake. */
  connect(to: Address, now: number): ConnectionHandle;
  /** Opens a bidirectional stream. @throws {QuantumError} `closed` or `stream_limit`. */
  openStream(connection: ConnectionHandle): number;
  /** Streams that may be opened now. */
  streamCredit(connection: ConnectionHandle): number;
  /** Queues stream bytes; false above the high-water mark. See ChannelStream.write. */
  write(connection: ConnectionHandle, stream: number, bytes: Uint8Array, fin: boolean): boolean;
  resetStream(connection: ConnectionHandle, stream: number, code: number): void;
  stopStream(connection: ConnectionHandle, stream: number, code: number): void;
  consumed(connection: ConnectionHandle, stream: number, byteCount: number): void;
  /** Queues an unreliable datagram, dropped if not sent before `expiresAtMs`; false if it can never fit a packet or the queue is full. */
  sendDatagram(connection: ConnectionHandle, bytes: Uint8Array, expiresAtMs: number): boolean;
  /** Closes one connection, telling the peer. */
  close(connection: ConnectionHandle, code: number, reason: string, now: number): void;

  /** Figures of a connection; undefined before it is established and after it ended. */
  connectionStats(connection: ConnectionHandle): ConnectionStats | undefined;
  /** Figures of the endpoint. */
  stats(): EndpointStats;
}
