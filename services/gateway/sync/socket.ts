/** A client's socket as its protocol sees it. */
import type { CloseName } from "../sockets/close_codes.ts";

/** What a protocol may do with its socket. None of these calls back before it returns. */
export interface SyncSocket {
  /** Sends a frame. A client that leaves too much unread is closed after this turn. */
  send(frame: Uint8Array): void;
  /** Sends frames that may be large, in turn with those of others; calls `onSent` when the socket has them. */
  sendState(frames: readonly Uint8Array[], onSent: () => void): void;
  /** Ends it; `detail` follows the table's text. Idempotent. */
  close(why: CloseName, detail?: string): void;
}

/** A protocol on one socket. */
export interface SyncSession {
  /** A message has come. The bytes are the session's. @throws {BadMessage} for one that is none: the client is to be closed. */
  onMessage(bytes: Uint8Array): void;
  /** What to send to a client that has heard nothing for a while. */
  readonly silentFrame: Uint8Array;
  /** The socket has ended. Idempotent. */
  end(): void;
}
