/** Paths that the gateway serves itself in the name of their callers: WebSockets with protocols of their own, and what stands
 *  beside them for clients without. They pass the same stages as every request; who is not authenticated comes as nobody, and
 *  the endpoint decides whether that is enough (a socket may show its credential in band). */
import type { Exchange } from "../exchange.ts";

/** One kind of path. */
export interface SocketEndpoint {
  /** Label of metrics: `/ws`, `/api/v1/documents/{id}/sync`. */
  readonly template: string;
  /** Methods it takes: `GET`. Others are 405. */
  readonly methods: readonly string[];
  /** Whether a path is its own. Paths are as they were sent: still encoded, nothing normalised. */
  matches(path: string): boolean;
  /** Answers: for a WebSocket with the response of the handshake. The caller is in `exchange.caller`. Throws, or rejects
   *  with, a GatewayError. Slots and rate limits of requests hold until it has resolved, not as long as the socket lives. */
  answer(request: Request, exchange: Exchange): Response | Promise<Response>;
}
