/** The one table of how the gateway ends WebSockets: code, text, and whether the client should come back.
 *
 *  Codes follow the convention of Yjs clients: 4400 to 4499 mirror HTTP's 4xx and are for good, 4500 to 4599 pass. Every other
 *  code passes too. */

/** How a socket ends. */
export interface CloseKind {
  readonly code: number;
  /** For people; at most 100 bytes of ASCII, so that a detail of the gateway's own may follow within the 123 of a reason. */
  readonly text: string;
  /** Whether the same client may find another answer later. */
  readonly mayReconnect: boolean;
}

/** Every way in which the gateway closes a socket. */
export const CLOSE = {
  normal: { code: 1000, text: "done", mayReconnect: false },
  draining: { code: 1001, text: "the gateway is draining, come back", mayReconnect: true },
  tryAgain: { code: 1013, text: "too many at once, come back later", mayReconnect: true },

  badMessage: { code: 4400, text: "a message that is none", mayReconnect: false },
  unauthenticated: { code: 4401, text: "not signed in, or not any more", mayReconnect: false },
  forbidden: { code: 4403, text: "this is not for you", mayReconnect: false },
  notFound: { code: 4404, text: "there is no such thing, or not any more", mayReconnect: false },
  authTimeout: { code: 4408, text: "who calls was not shown in time", mayReconnect: false },
  tooLarge: { code: 4413, text: "a message larger than one may be", mayReconnect: false },

  unavailable: { code: 4503, text: "the service behind is away, come back", mayReconnect: true },
  slow: { code: 4508, text: "what was sent was not read in time", mayReconnect: true },
  tooFast: { code: 4529, text: "more than can be taken, come back slower", mayReconnect: true },
} as const satisfies Record<string, CloseKind>;

/** Name of a row of the table. */
export type CloseName = keyof typeof CLOSE;

/** Bytes that a close frame has for its reason (RFC 6455 section 5.5.1). */
const REASON_BYTES_MAX = 123;

/** The reason that a close frame carries: the table's text and, where there is room, a detail. */
export function closeReason(name: CloseName, detail?: string): string {
  const { text } = CLOSE[name];
  if (detail === undefined || detail === "") return text;
  const whole = `${text}: ${detail}`;
  const bytes = new TextEncoder().encode(whole);
  if (bytes.length <= REASON_BYTES_MAX) return whole;
  // Cut between characters: what is left of one is taken for nothing.
  return new TextDecoder().decode(bytes.subarray(0, REASON_BYTES_MAX - 3)).replace(/\uFFFD+$/, "");
}
