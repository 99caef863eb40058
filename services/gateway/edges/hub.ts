/** The hub's ways in: the WebSocket `/ws`, and server-sent events for clients without. */
import { Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { DEVELOPER_CALLER } from "../auth/identity.ts";
import { csrfRefusal, isCrossSite } from "../auth/cookies.ts";
import { credentialNeeded } from "../auth/failure.ts";
import type { Exchange } from "../exchange.ts";
import { parseChannelName } from "../hub/channel_name.ts";
import type { HubSocket } from "../hub/connection.ts";
import type { Position } from "../hub/history.ts";
import type { Hub } from "../hub/hub.ts";
import { Subscription } from "../hub/subscription.ts";
import type { GatewayMetrics } from "../metrics.ts";
import { GatewayError } from "../problem.ts";
import { CLOSE } from "../sockets/close_codes.ts";
import type { Caller } from "../stages.ts";
import type { Timer } from "../timer.ts";
import { parseQuery, percentDecode } from "../transcode.ts";
import type { SocketEndpoint } from "./socket_endpoint.ts";

/** What the ways in are made of. */
export interface HubEdgeDeps {
  readonly hub: Hub;
  readonly metrics: GatewayMetrics;
  readonly timer: Timer;
  /** Silence after which a client is pinged, in milliseconds. */
  readonly pingIntervalMs: number;
  /** Interval of the comment that keeps an idle event stream open, in milliseconds. */
  readonly heartbeatMs: number;
  /** Whether pages of another origin may open sockets. */
  isAllowedOrigin(origin: string): boolean;
}

/** Path of the socket. */
export const SOCKET_PATH = "/ws";
/** Path of event streams with channels in the query. */
export const EVENTS_PATH = "/sse";
const CHANNEL_EVENTS = /^\/api\/v1\/channels\/([^/]+)\/events$/;
/** Channels of one event stream: what was missed in all of them comes before the first is read. */
const EVENT_CHANNELS_MAX = 16;
/** Longest `Last-Event-ID`, in characters. */
const LAST_EVENT_ID_CHARS_MAX = 4_096;
/** Buffered bytes of an event stream at which its reader is asked to take them: counted by us, not by the stream. */
const STREAM_MARK = 1;

/** The socket. */
export function createHubSocketEndpoint(deps: HubEdgeDeps): SocketEndpoint {
  return {
    template: SOCKET_PATH,
    methods: ["GET"],
    matches: (path) => path === SOCKET_PATH,
    answer(request, exchange) {
      try {
        refuseOthersPages(exchange, deps);
        deps.hub.admit();
        return openSocket(request, somebody(exchange.caller!), deps);
      } catch (error) {
        deps.metrics.socketRefused();
        throw error;
      }
    },
  };
}

/** Event streams, at both their paths. */
export function createHubEventEndpoints(deps: HubEdgeDeps): SocketEndpoint[] {
  return [
    {
      template: EVENTS_PATH,
      methods: ["GET"],
      matches: (path) => path === EVENTS_PATH,
      answer: (_request, exchange) => openEvents(exchange, channelsOf(exchange.query), deps),
    },
    {
      template: "/api/v1/channels/{channel}/events",
      methods: ["GET"],
      matches: (path) => CHANNEL_EVENTS.test(path),
      answer: (_request, exchange) =>
        openEvents(exchange, [decodeText(CHANNEL_EVENTS.exec(exchange.path)![1]!)], deps),
    },
  ];
}

/** A page of another site has no business here, with a cookie or without: it would speak in the name of whoever looks at it.
 *  While there are no users, protected mode has looked at Host and Origin. */
function refuseOthersPages(exchange: Exchange, { isAllowedOrigin }: HubEdgeDeps): void {
  if (exchange.caller === DEVELOPER_CALLER) return;
  if (isCrossSite(exchange, isAllowedOrigin)) throw csrfRefusal();
}

/** Undefined for nobody. */
function somebody(caller: Caller): Caller | undefined {
  return caller.principal.kind === Principal_Kind.ANONYMOUS ? undefined : caller;
}

// ---- sockets ----

function openSocket(request: Request, caller: Caller | undefined, deps: HubEdgeDeps): Response {
  const { hub, metrics } = deps;
  // Deno pings after half of it without a sign of life, and drops the socket after the other half.
  const idleTimeout = deps.pingIntervalMs * 2 / 1_000;
  const { socket, response } = upgrade(request, idleTimeout);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => {
    metrics.socketOpened();
    const connection = hub.open(hubSocket(socket), caller);
    socket.addEventListener("message", ({ data }) => {
      connection.receive(typeof data === "string" ? data : undefined);
    });
    socket.addEventListener("close", () => {
      metrics.socketClosed();
      connection.gone();
    }, { once: true });
    // A close follows; without a listener the error would end the worker.
    socket.addEventListener("error", () => {});
  });
  return response;
}

function hubSocket(socket: WebSocket): HubSocket {
  return {
    send(text) {
      if (socket.readyState === WebSocket.OPEN) socket.send(text);
    },
    get queuedBytes() {
      return socket.bufferedAmount;
    },
    close(code, reason) {
      if (socket.readyState === WebSocket.OPEN) socket.close(code, reason);
    },
  };
}

function upgrade(request: Request, idleTimeout: number): Deno.WebSocketUpgrade {
  try {
    return Deno.upgradeWebSocket(request, { idleTimeout });
  } catch (error) {
    throw new GatewayError(
      "invalid_argument",
      `the WebSocket handshake is not one: ${(error as Error).message}`,
    );
  }
}

// ---- event streams ----

/** An event stream is a connection that says nothing: its channels are in the request, and where it was is in
 *  `Last-Event-ID`, one `epoch:offset` a channel. */
async function openEvents(
  exchange: Exchange,
  channels: readonly string[],
  deps: HubEdgeDeps,
): Promise<Response> {
  const { hub } = deps;
  refuseOthersPages(exchange, deps);
  const caller = somebody(exchange.caller!);
  if (caller === undefined) throw credentialNeeded();
  if (channels.length === 0) throw new GatewayError("invalid_argument", "Channel is required");
  const names = [...new Set(channels)].map(parseChannelName);
  if (names.length > EVENT_CHANNELS_MAX) {
    throw new GatewayError(
      "invalid_argument",
      `${names.length} channels, expected up to ${EVENT_CHANNELS_MAX}`,
    );
  }
  const places = placesOf(exchange, names.length);
  hub.admit();
  const stream = new EventStream(names.map(({ text }) => text), places, deps);
  const connection = hub.open(stream, caller);
  stream.onGone = () => connection.gone();
  try {
    for (const [i, name] of names.entries()) {
      const options = { requestId: "", events: undefined, wantsPresence: false, from: places[i] };
      await connection.subscribe(new Subscription(connection, name, options), caller);
    }
  } catch (error) {
    connection.gone();
    stream.close();
    throw error;
  }
  return new Response(stream.body, {
    headers: {
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      "x-request-id": exchange.requestId,
    },
  });
}

const encoder = new TextEncoder();

/** An event stream as the hub writes to it. Each event's id says where the client is in all its channels. */
class EventStream implements HubSocket {
  readonly body: ReadableStream<Uint8Array>;
  onGone: () => void = () => {};
  readonly #places: Map<string, Position | undefined>;
  readonly #deps: HubEdgeDeps;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #cancelBeat: () => void = () => {};
  #isClosed = false;

  constructor(names: readonly string[], places: readonly (Position | undefined)[], deps: HubEdgeDeps) {
    this.#deps = deps;
    this.#places = new Map(names.map((name, i) => [name, places[i]]));
    this.body = new ReadableStream<Uint8Array>({
      start: (controller) => void (this.#controller = controller),
      cancel: () => {
        this.#end();
        this.onGone();
      },
    }, { highWaterMark: STREAM_MARK, size: (chunk) => chunk.byteLength });
    this.#beat();
  }

  get queuedBytes(): number {
    return this.#isClosed ? 0 : STREAM_MARK - (this.#controller.desiredSize ?? STREAM_MARK);
  }

  send(text: string, channel?: string, epoch?: string, offset?: number): void {
    if (this.#isClosed) return;
    if (channel !== undefined) this.#places.set(channel, { epoch: epoch!, offset: offset! });
    this.#controller.enqueue(encoder.encode(`id: ${this.#id()}\ndata: ${text}\n\n`));
  }

  /** Ends it; what was not taken yet is still sent, but not to one that does not take it. */
  close(code?: number): void {
    if (this.#isClosed) return;
    const isSlow = code === CLOSE.slow.code;
    this.#end();
    if (isSlow) this.#controller.error(new Error(CLOSE.slow.text));
    else this.#controller.close();
    this.onGone();
  }

  #id(): string {
    return [...this.#places.values()].map((place) =>
      place === undefined ? "" : `${encodeURIComponent(place.epoch)}:${place.offset}`
    ).join(",");
  }

  #beat(): void {
    this.#cancelBeat = this.#deps.timer.after(this.#deps.heartbeatMs, () => {
      // A reader that has not taken what is there needs no reminder that we live.
      if (this.queuedBytes === 0) this.#controller.enqueue(encoder.encode(":\n\n"));
      this.#beat();
    });
  }

  #end(): void {
    this.#isClosed = true;
    this.#cancelBeat();
  }
}

function channelsOf(query: string): string[] {
  return parseQuery(query).filter(({ name }) => name === "channel").map(({ rawValue }) =>
    decodeText(rawValue)
  );
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decodeText(raw: string): string {
  const bytes = percentDecode(raw);
  try {
    if (bytes !== undefined) return utf8.decode(bytes);
  } catch {
    // told below
  }
  throw new GatewayError("invalid_argument", "channel is not percent-encoded UTF-8");
}

/** Where the client was in each channel, by `Last-Event-ID`, or `lastEventId` in the query for who cannot set headers. */
function placesOf(exchange: Exchange, channels: number): (Position | undefined)[] {
  const { lastEventId, query } = exchange;
  const inQuery = query === "" ? undefined : parseQuery(query).find(({ name }) => name === "lastEventId");
  const text = lastEventId ?? (inQuery === undefined ? "" : decodeText(inQuery.rawValue));
  if (text === "") return [];
  const parts = text.length > LAST_EVENT_ID_CHARS_MAX ? [] : text.split(",");
  if (parts.length !== channels) {
    throw new GatewayError(
      "invalid_argument",
      `Last-Event-ID has ${parts.length} positions for ${channels} channels`,
    );
  }
  return parts.map((part) => {
    if (part === "") return undefined;
    const [, epoch, offset] = /^([^:,]+):(\d{1,16})$/.exec(part) ?? [];
    if (epoch === undefined) throw new GatewayError("invalid_argument", "Last-Event-ID is not epoch:offset");
    return { epoch: decodeText(epoch), offset: Number(offset) };
  });
}
