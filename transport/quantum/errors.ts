/** What goes wrong in Quantum: errors thrown at the owner, close codes sent to the peer, reasons for dropping a datagram. */

/** Why a command was refused. */
export type QuantumErrorCode = "closed" | "stream_limit" | "connection_limit";

/** A refused command of a QuantumEndpoint. Nothing changed. */
export class QuantumError extends Error {
  override readonly name = "QuantumError";
  constructor(readonly code: QuantumErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** Codes of CLOSE frames and `closed` events. SPEC §10.8; applications use 256 and up. */
export const CLOSE_CODE = {
  none: 0,
  internal: 1,
  protocol: 2,
  frame: 3,
  flowControl: 4,
  streamLimit: 5,
  finalSize: 6,
  packetNumbers: 7,
  idle: 8,
  handshakeTimeout: 9,
  refused: 10,
  reset: 11,
  shutdown: 12,
} as const;

/** Every reason for which a datagram is dropped; each has a counter in `EndpointStats.dropped`. */
export const DROP_REASONS = [
  /** Shorter or longer than any datagram, or of inconsistent lengths. SPEC §1.2, §1.3. */
  "malformed",
  /** Not Quantum, or another version. */
  "version",
  /** A combination of flags that means nothing. SPEC §1.4. */
  "flags",
  /** A handshake or reset whose MAC is wrong: another secret, or damage. SPEC §2.2. */
  "mac",
  /** A session packet that does not open. SPEC §2.7. */
  "authentication",
  /** A packet number or handshake seen before. SPEC §2.10, §3.4. */
  "replay",
  /** Authentic, but from another address than the connection's. SPEC §12.3. */
  "address",
  /** For a connection not known here; may have been answered with a reset. SPEC §10.6. */
  "unknown_connection",
  /** Does not fit the state of its connection, as a late SYN|ACK. */
  "unexpected",
  /** A limit of SPEC §11 was reached. */
  "limit",
  /** For a connection that is closing or draining. SPEC §10.3. */
  "closing",
  /** A SYN to an endpoint that accepts no connections. SPEC §2.13. */
  "refused",
] as const;

/** One of DROP_REASONS. */
export type DropReason = (typeof DROP_REASONS)[number];

/** A broken invariant: a mistake in this code, never the peer's doing. */
export function invariant(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`Quantum invariant broken: ${what}`);
}
