/** The states of a session, and which may follow which.
 *
 *      CONNECTING ──► ACTIVE ◄──► IDLE
 *          │            │          │       CLOSED ends the session from anywhere: it is not kept in that state,
 *          └────────────┼──────────┘       it is gone.
 *                       ▼
 *                 DISCONNECTING ──► CLOSED
 *
 *  Use (a heartbeat, a verified token) makes it ACTIVE from CONNECTING and IDLE. A session that is DISCONNECTING is not
 *  prolonged by use: it ends, by CLOSED or when its time is up. */

/** State of a session, by the contract's name in lower case. */
export type SessionState = "connecting" | "active" | "idle" | "disconnecting" | "closed";

/** Every state that a session can be found in, in their order. */
export const LIVE_STATES = [
  "connecting",
  "active",
  "idle",
  "disconnecting",
] as const satisfies SessionState[];

const FOLLOWING: Readonly<Record<SessionState, readonly SessionState[]>> = {
  connecting: ["active", "idle", "disconnecting", "closed"],
  active: ["idle", "disconnecting", "closed"],
  idle: ["active", "disconnecting", "closed"],
  disconnecting: ["closed"],
  closed: [],
};

/** Whether a session in state `from` may be told to be in state `to`; to stay where it is is no change. */
export function mayFollow(from: SessionState, to: SessionState): boolean {
  return from === to ? from !== "closed" : FOLLOWING[from].includes(to);
}

/** The state after use, or undefined where use prolongs nothing. */
export function stateAfterUse(state: SessionState): SessionState | undefined {
  return state === "disconnecting" || state === "closed" ? undefined : "active";
}
