/** Streams over WebSocket (RFC 6455): one text frame a message, for clients that cannot read a body as it comes, and for
 *  those that talk back. */
import type { Message } from "@bufbuild/protobuf";
import { GatewayError, problemOf, rpcStatusOf } from "../problem.ts";
import type { Route } from "../routes.ts";
import { pause, type Timer } from "../timer.ts";
import { messageToJson } from "../transcode.ts";

/** Bytes that may wait for a slow reader before the next message is asked for; what follows fills the call's
 *  flow-control window and no more. */
const UNSENT_BYTES_MAX = 256 * 1_024;
/** How often a slow reader is looked at: sockets do not tell when they have drained. */
const UNSENT_POLL_MS = 10;
/** Requests of a client that may wait to be taken; sockets cannot be told to stop reading. */
const UNREAD_REQUESTS_MAX = 1_024;

/** Close codes (RFC 6455 section 7.4.1, and "try again later" of the IANA registry). */
const CLOSE_NORMAL = 1000;
const CLOSE_GOING_AWAY = 1001;
const CLOSE_REFUSED = 1008;
const CLOSE_FAULT = 1011;
const CLOSE_TRY_AGAIN = 1013;

/** What a socket stream is made of. */
export interface SocketStreamOptions {
  readonly route: Route;
  readonly requestId: string;
  readonly timer: Timer;
  /** Largest text frame that a client may send, in characters. */
  readonly requestCharsMax: number;
  toError(error: unknown): GatewayError;
  onMessage(): void;
  /** A text frame came or goes, of so many characters. */
  onFrame(direction: "in" | "out", chars: number): void;
  /** Called once, when the socket has ended for whatever reason; lets go of the call. */
  onEnd(): void;
}

/** A stream on a socket. */
export interface SocketStream {
  /** Answer of the handshake. */
  readonly response: Response;
  /** The client's text frames until the socket ends. Throws when there are too many or one is too large. */
  requests(): AsyncGenerator<string, void, void>;
  /** Sends messages until they end or the client goes. */
  run(first: IteratorResult<Message> | undefined, rest: Pick<AsyncIterator<Message>, "next">): void;
  /** Says farewell and closes. Idempotent. */
  drain(): void;
  /** Says why and closes. Idempotent. */
  fail(error: GatewayError): void;
}

/** Whether a request asks for a WebSocket. */
export function wantsWebSocket(request: Request): boolean {
  return request.headers.get("upgrade")?.toLowerCase() === "websocket";
}

/** Takes the handshake. @throws {GatewayError} `invalid_argument` when it is none. */
export function openSocketStream(request: Request, options: SocketStreamOptions): SocketStream {
  const { route, requestId, timer } = options;
  const { socket, response } = upgrade(request);
  const unread: string[] = []; // up to UNREAD_REQUESTS_MAX
  let isEnded = false;
  let failure: GatewayError | undefined;
  let wake = () => {};

  const opened = new Promise<void>((resolve) => socket.addEventListener("open", () => resolve()));
  socket.addEventListener("message", ({ data }) => {
    if (typeof data === "string") options.onFrame("in", data.length);
    if (route.rpc.methodKind === "server_streaming") return; // there is nothing to say
    if (typeof data !== "string" || data.length > options.requestCharsMax) {
      fail(
        new GatewayError(
          "body_too_large",
          `a frame is not text of up to ${options.requestCharsMax} characters`,
        ),
      );
    } else if (unread.length >= UNREAD_REQUESTS_MAX) {
      fail(new GatewayError("too_many_requests", `${UNREAD_REQUESTS_MAX} requests wait to be read`));
    } else {
      unread.push(data);
      wake();
    }
  });
  socket.addEventListener("close", () => end());
  socket.addEventListener("error", () => end());

  function end(): void {
    if (isEnded) return;
    isEnded = true;
    wake();
    options.onEnd();
  }

  function close(code: number, reason: string): void {
    if (isEnded) return;
    // Reasons hold 123 bytes; the whole text was sent before.
    if (socket.readyState === WebSocket.OPEN) socket.close(code, reason.slice(0, 40));
    end();
  }

  function fail(error: GatewayError): void {
    failure ??= error;
    if (isEnded) return;
    if (socket.readyState === WebSocket.OPEN) {
      const body = route.dialect === "etcd" ? rpcStatusOf(error) : problemOf(error, requestId);
      socket.send(JSON.stringify({ error: body }));
    }
    close(
      error.retryAfterS !== undefined ? CLOSE_TRY_AGAIN : error.isFault ? CLOSE_FAULT : CLOSE_REFUSED,
      error.code,
    );
  }

  function textOf(message: Message): string {
    const json = messageToJson(route.rpc.output, message, route.dialect);
    return route.dialect === "etcd" ? `{"result":${json}}` : json;
  }

  async function pump(
    first: IteratorResult<Message> | undefined,
    rest: Pick<AsyncIterator<Message>, "next">,
  ): Promise<void> {
    await opened;
    for (let next = first ?? await rest.next(); !isEnded; next = await rest.next()) {
      if (next.done) return close(CLOSE_NORMAL, "");
      options.onMessage();
      const text = textOf(next.value);
      options.onFrame("out", text.length);
      socket.send(text);
      while (!isEnded && socket.bufferedAmount > UNSENT_BYTES_MAX) await pause(timer, UNSENT_POLL_MS);
    }
  }

  return {
    response,
    async *requests() {
      for (;;) {
        const next = unread.shift();
        if (next !== undefined) yield next;
        else if (failure !== undefined) throw failure;
        else if (isEnded) return;
        else await new Promise<void>((resolve) => wake = resolve);
      }
    },
    run(first, rest) {
      pump(first, rest).catch((error) => fail(options.toError(error)));
    },
    fail,
    drain: () => close(CLOSE_GOING_AWAY, "the gateway is draining, come back"),
  };
}

function upgrade(request: Request): Deno.WebSocketUpgrade {
  try {
    return Deno.upgradeWebSocket(request);
  } catch (error) {
    throw new GatewayError(
      "invalid_argument",
      `the WebSocket handshake is not one: ${(error as Error).message}`,
    );
  }
}
