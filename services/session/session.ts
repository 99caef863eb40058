/** One session, as the domain has it. */
import { type SessionState, stateAfterUse } from "./state.ts";

/** A session. Values never change: every change makes another one. */
export interface Session {
  /** GUUID as 26 characters. */
  readonly id: string;
  readonly userId: string;
  /** GUUID as 26 characters. */
  readonly connectionId: string;
  readonly clientIp: string;
  readonly clientPort: number;
  readonly serverAddr: string;
  readonly state: SessionState;
  /** Milliseconds since the Unix epoch, as are all times here. */
  readonly createdAtMs: number;
  readonly lastActiveMs: number;
  /** How long it lives unused. */
  readonly idleTimeoutMs: number;
  /** When it ends however much it is used. */
  readonly endsAtMs: number;
  /** When it ends if it is not used: the sooner of the two. */
  readonly expiresAtMs: number;
  readonly metadata: Readonly<Record<string, string>>;
  /** Undefined until somebody told of them. */
  readonly stats: SessionStats | undefined;
}

/** What a connection has carried. */
export interface SessionStats {
  readonly packetsSent: bigint;
  readonly packetsReceived: bigint;
  readonly bytesSent: bigint;
  readonly bytesReceived: bigint;
  readonly retransmissions: bigint;
  readonly currentRttMs: number;
}

/** When a session ends that was used at `lastActiveMs`. */
export function expiryOf(lastActiveMs: number, idleTimeoutMs: number, endsAtMs: number): number {
  return Math.min(lastActiveMs + idleTimeoutMs, endsAtMs);
}

/** The session after use at `nowMs`; itself where use prolongs nothing. */
export function used(session: Session, nowMs: number): Session {
  const state = stateAfterUse(session.state);
  if (state === undefined) return session;
  return {
    ...session,
    state,
    lastActiveMs: nowMs,
    expiresAtMs: expiryOf(nowMs, session.idleTimeoutMs, session.endsAtMs),
  };
}

/** How far behind the kept time of last use may be, in milliseconds: uses within it are not written, or every request would
 *  cost a write. A store that crashes loses at most this much of a session's idle time. */
export function activityLagMs(idleTimeoutMs: number): number {
  return Math.min(ACTIVITY_LAG_MAX_MS, Math.floor(idleTimeoutMs / 4));
}

/** Largest activity lag: a second write of a session a minute is nothing, and half a minute of idle time little. */
const ACTIVITY_LAG_MAX_MS = 30_000;
