/** What an endpoint is told by its owner, and the defaults. */

import * as params from "../params.ts";

/** Options of `createQuantumEndpoint`. Everything but the first two has a default from params.ts. */
export interface QuantumOptions {
  /** Pre-shared secret, at least 32 bytes; the same at both ends. Copied. */
  readonly secret: Uint8Array;
  /** Whether peers may connect to this endpoint; else a valid SYN is refused. */
  readonly acceptConnections: boolean;
  /** Treat peers at 127.0.0.0/8 and ::1 as loopback: large datagrams, socket budget. Default true. */
  readonly loopback?: boolean;
  /** Wall clock minus `now`, in milliseconds. Only spares a round trip at connect: SPEC §2.9. Default 0. */
  readonly wallOffsetMs?: number;
  /** Largest datagram this endpoint's owner can receive. Default MAX_DATAGRAM_BYTES. */
  readonly receiveBytesMax?: number;
  /** Largest datagram tried on a loopback path. Default LOOPBACK_DATAGRAM_BYTES. */
  readonly loopbackBytesMax?: number;
  /** Largest datagram tried on other paths. Default NETWORK_DATAGRAM_BYTES. */
  readonly networkBytesMax?: number;
  /** What the owner's socket buffer is trusted to hold. Default SOCKET_BUDGET_BYTES. */
  readonly socketBudgetBytes?: number;
  readonly streamWindowBytes?: number;
  readonly connectionWindowBytes?: number;
  readonly streamsOpenMax?: number;
  readonly writeHighWaterBytes?: number;
  readonly writeLowWaterBytes?: number;
  /** 0 = never. */
  readonly idleTimeoutMs?: number;
  /** 0 = never. */
  readonly keepAliveMs?: number;
  readonly handshakeTimeoutMs?: number;
  readonly ackDelayMaxMs?: number;
  readonly connectionsMax?: number;
  readonly halfOpenMax?: number;
  readonly retryThreshold?: number;
  readonly seenSynsMax?: number;
  readonly closingMax?: number;
  readonly packetNumberLimit?: number;
}

/** Options with every default filled in. */
export type ResolvedOptions = Required<QuantumOptions>;

/** Fills in defaults.
 *  @throws {RangeError} if the secret is too short or a size is out of its range. */
export function resolveOptions(options: QuantumOptions): ResolvedOptions {
  const resolved: ResolvedOptions = {
    loopback: true,
    wallOffsetMs: 0,
    receiveBytesMax: params.MAX_DATAGRAM_BYTES,
    loopbackBytesMax: params.LOOPBACK_DATAGRAM_BYTES,
    networkBytesMax: params.NETWORK_DATAGRAM_BYTES,
    socketBudgetBytes: params.SOCKET_BUDGET_BYTES,
    streamWindowBytes: params.STREAM_WINDOW_BYTES,
    connectionWindowBytes: params.CONNECTION_WINDOW_BYTES,
    streamsOpenMax: params.MAX_STREAMS_OPEN,
    writeHighWaterBytes: params.WRITE_HIGH_WATER_BYTES,
    writeLowWaterBytes: params.WRITE_LOW_WATER_BYTES,
    idleTimeoutMs: params.IDLE_TIMEOUT_MS,
    keepAliveMs: params.KEEP_ALIVE_MS,
    handshakeTimeoutMs: params.HANDSHAKE_TIMEOUT_MS,
    ackDelayMaxMs: params.MAX_ACK_DELAY_MS,
    connectionsMax: params.MAX_CONNECTIONS,
    halfOpenMax: params.MAX_HALF_OPEN,
    retryThreshold: params.RETRY_THRESHOLD,
    seenSynsMax: params.MAX_SEEN_SYNS,
    closingMax: params.MAX_CLOSING,
    packetNumberLimit: params.PACKET_NUMBER_LIMIT,
    ...options,
  };
  if (resolved.secret.length < params.MIN_SECRET_BYTES) {
    throw new RangeError(
      `Cannot create endpoint: secret must have at least ${params.MIN_SECRET_BYTES} bytes, got ${resolved.secret.length}`,
    );
  }
  for (const name of ["receiveBytesMax", "loopbackBytesMax", "networkBytesMax"] as const) {
    const value = resolved[name];
    if (!(value >= params.BASE_DATAGRAM_BYTES && value <= params.MAX_DATAGRAM_BYTES)) {
      throw new RangeError(
        `Cannot create endpoint: ${name} must be ${params.BASE_DATAGRAM_BYTES}..${params.MAX_DATAGRAM_BYTES}, got ${value}`,
      );
    }
  }
  return resolved;
}
