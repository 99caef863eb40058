/** The sockets of synchronising clients. What is said on them is said in sync/; this edge lets clients in, moves their bytes, and
 *  lets go of those that do not read, say nothing that is a message, or may not go on.
 *
 *      GET /api/v1/documents/{id}/sync    y-websocket, one document
 *      GET /api/v1/sync                   Hocuspocus, several documents, each with a token
 */
import { Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { Bag, type Bagged } from "../../../transport/rpc/bag.ts";
import type { Authenticator } from "../auth/authentication.ts";
import { following } from "../auth/followers.ts";
import type { Exchange } from "../exchange.ts";
import { GatewayError } from "../problem.ts";
import { CLOSE, type CloseName, closeReason } from "../sockets/close_codes.ts";
import type { Caller } from "../stages.ts";
import { LARGE_STATE_BYTES } from "../sync/document.ts";
import { BadMessage } from "../sync/frames.ts";
import { HocuspocusSession } from "../sync/hocuspocus.ts";
import { Links, type LinksDeps } from "../sync/link.ts";
import type { SyncConfig } from "../sync/config.ts";
import type { SyncMetrics, SyncProtocol } from "../sync/metrics.ts";
import type { SyncSession, SyncSocket } from "../sync/socket.ts";
import { StateQueue, type StateTarget } from "../sync/state_queue.ts";
import { YWebsocketSession } from "../sync/y_websocket.ts";
import type { Timer } from "../timer.ts";
import type { SocketEndpoint } from "./socket_endpoint.ts";
import { wantsWebSocket } from "./websocket.ts";

/** What the edge is made of. */
export interface SyncEdgeDeps {
  readonly config: SyncConfig;
  readonly peers: LinksDeps["peers"];
  readonly authenticator: Pick<Authenticator, "authenticateCall" | "confirm" | "follow" | "unfollow">;
  readonly timer: Timer;
  readonly clock: { now(): number };
  readonly metrics: SyncMetrics;
  readonly log: {
    info(message: string, fields?: Record<string, unknown>): void;
    error(message: string, fields?: Record<string, unknown>): void;
  };
}

/** The edge. */
export interface SyncEdge {
  readonly endpoints: readonly SocketEndpoint[];
  /** Open sockets. */
  readonly sockets: number;
  /** Closes all sockets, so that clients come back to another worker. Idempotent. */
  drain(): void;
}

const DOCUMENT_PATH = { before: "/api/v1/documents/", after: "/sync" } as const;
const MULTIPLEXED_PATH = "/api/v1/sync";
/** Types that `?create=` may name. */
const CREATE_TYPES = ["whiteboard", "text", "canvas", "sheet"];
/** Longest id of a document, in bytes. */
const DOCUMENT_ID_BYTES_MAX = 256;
/** What a subprotocol begins with that is a token; browsers can send no other header with a handshake. */
const BEARER_PROTOCOL = "bearer.";
/** How often it is looked for clients that have heard nothing, in milliseconds; they go after 30 s without a word. */
const SILENCE_CHECK_MS = 10_000;

/** Creates the edge. */
export function createSyncEdge(deps: SyncEdgeDeps): SyncEdge {
  const { config, timer, authenticator } = deps;
  const links = new Links({ ...deps, maxMessageBytes: config.maxMessageBytes });
  const states = new StateQueue({ bytesMax: config.stateBytesInFlight, timer, clock: deps.clock });
  const sockets = new Bag<ClientSocket>();
  let isDraining = false;
  let cancelSilenceCheck: (() => void) | undefined;

  function follow(caller: Caller, revoke: (error: GatewayError) => void): () => void {
    return following(authenticator, caller, revoke);
  }

  function confirm(caller: Caller): Promise<void> {
    return authenticator.confirm(caller);
  }

  function authenticate(token: string): Caller | Promise<Caller> {
    return authenticator.authenticateCall({
      authorization: `Bearer ${token}`,
      apiKey: undefined,
      token: undefined,
      isForStore: false,
    });
  }

  /** Takes the handshake. `why` is set for a client that is told so and closed: browsers see no status of a handshake. */
  function open(
    request: Request,
    protocol: SyncProtocol,
    begin: (socket: ClientSocket) => SyncSession,
    why?: { readonly name: CloseName; readonly detail?: string },
  ): Response {
    const { socket, response } = upgrade(request, config.pingIntervalMs);
    const refusal = why ??
      (isDraining
        ? { name: "draining" as const }
        : sockets.size >= config.maxSockets
        ? { name: "tryAgain" as const }
        : undefined);
    const client = new ClientSocket(socket, protocol, {
      config,
      states,
      timer,
      metrics: deps.metrics,
      onOpen() {
        if (refusal !== undefined) client.close(refusal.name, refusal.detail);
        else client.begin(begin(client));
      },
      onEnd: () => sockets.delete(client),
      onFault: (error) => deps.log.error("a synchronising client's message failed", { error }),
    });
    sockets.add(client);
    checkSilence();
    return response;
  }

  function checkSilence(): void {
    if (cancelSilenceCheck !== undefined || isDraining) return;
    cancelSilenceCheck = timer.after(SILENCE_CHECK_MS, () => {
      cancelSilenceCheck = undefined;
      for (const socket of sockets.snapshot()) socket.breakSilence();
      if (sockets.size > 0) checkSilence();
    });
  }

  /** Who opens a socket: whom its token stands for, or the request's own caller. */
  async function callerOf(request: Request, exchange: Exchange): Promise<Caller> {
    const token = new URLSearchParams(exchange.query).get("token") || tokenOf(protocolsOf(request));
    return token === undefined || token === "" ? exchange.caller! : await authenticate(token);
  }

  function revoker(client: ClientSocket): (error: GatewayError) => void {
    return (error) =>
      client.close(error.code === "unauthenticated" ? "unauthenticated" : "unavailable", error.message);
  }

  const document: SocketEndpoint = {
    template: "/api/v1/documents/{id}/sync",
    methods: ["GET"],
    matches: (path) => encodedIdOf(path) !== undefined,
    async answer(request, exchange) {
      requireWebSocket(request);
      const docId = decodeId(encodedIdOf(exchange.path)!);
      const createType = createTypeOf(exchange);
      let caller: Caller | undefined;
      let why: { name: CloseName; detail?: string } | undefined;
      try {
        caller = await callerOf(request, exchange);
        if (caller.principal.kind === Principal_Kind.ANONYMOUS) why = { name: "unauthenticated" };
      } catch (error) {
        why = refusalOf(error);
      }
      return open(request, "y-websocket", (client) => {
        client.onEnd(follow(caller!, revoker(client)));
        return new YWebsocketSession({ socket: client, links, docId, caller: caller!, createType, confirm });
      }, why);
    },
  };

  const multiplexed: SocketEndpoint = {
    template: MULTIPLEXED_PATH,
    methods: ["GET"],
    matches: (path) => path === MULTIPLEXED_PATH,
    async answer(request, exchange) {
      requireWebSocket(request);
      const createType = createTypeOf(exchange);
      let caller: Caller | undefined;
      let why: { name: CloseName; detail?: string } | undefined;
      try {
        caller = await callerOf(request, exchange);
      } catch (error) {
        why = refusalOf(error);
      }
      return open(request, "hocuspocus", (client) => {
        client.onEnd(follow(caller!, revoker(client)));
        return new HocuspocusSession({
          socket: client,
          links,
          caller: caller!,
          createType,
          documentsMax: config.maxDocumentsPerSocket,
          authTimeoutMs: config.authTimeoutMs,
          timer,
          authenticate,
          confirm,
          follow,
          revoke: revoker(client),
          refused: deps.metrics.refused,
        });
      }, why);
    },
  };

  return {
    endpoints: [document, multiplexed],
    get sockets() {
      return sockets.size;
    },
    drain() {
      isDraining = true;
      cancelSilenceCheck?.();
      for (const socket of sockets.snapshot()) socket.close("draining");
      links.close();
      states.close();
    },
  };
}

interface ClientSocketDeps {
  readonly config: SyncConfig;
  readonly states: StateQueue;
  readonly timer: Timer;
  readonly metrics: SyncMetrics;
  onOpen(): void;
  /** It has ended, and its connection too. */
  onEnd(): void;
  onFault(error: unknown): void;
}

/** A client's socket. */
class ClientSocket implements SyncSocket, StateTarget, Bagged {
  bagIndex = -1;
  isOver = false;
  readonly #socket: WebSocket;
  readonly #protocol: SyncProtocol;
  readonly #deps: ClientSocketDeps;
  #session: SyncSession | undefined;
  #onEnd: () => void = () => {};
  /** Bytes that it may have unwritten: those of a queue, and of states. */
  #unwrittenMax: number;
  #hasSent = false;
  #isSlow = false;
  #code = 0;
  #isGone = false;

  constructor(socket: WebSocket, protocol: SyncProtocol, deps: ClientSocketDeps) {
    this.#socket = socket;
    this.#protocol = protocol;
    this.#deps = deps;
    this.#unwrittenMax = deps.config.maxQueueBytes;
    socket.binaryType = "arraybuffer";
    deps.metrics.socketOpened(protocol);
    socket.onopen = () => this.#guard(() => deps.onOpen());
    socket.onmessage = ({ data }) => this.#guard(() => this.#onMessage(data));
    socket.onclose = () => this.#gone();
    socket.onerror = () => this.#end();
  }

  get unwrittenBytes(): number {
    return this.#socket.bufferedAmount;
  }

  /** Takes the protocol that speaks on it. */
  begin(session: SyncSession): void {
    // Its first words may have ended it.
    if (this.isOver) session.end();
    else this.#session = session;
  }

  /** Calls `fn` when it ends. */
  onEnd(fn: () => void): void {
    this.#onEnd = fn;
  }

  send(frame: Uint8Array): void {
    if (this.isOver || this.#isSlow || this.#socket.readyState !== WebSocket.OPEN) return;
    if (this.#socket.bufferedAmount > this.#unwrittenMax) return this.dropSlow();
    this.#hasSent = true;
    this.#socket.send(frame as Uint8Array<ArrayBuffer>);
  }

  sendState(frames: readonly Uint8Array[], onSent: () => void): void {
    let bytes = 0;
    for (const { length } of frames) bytes += length;
    if (bytes >= LARGE_STATE_BYTES) return this.#deps.states.send(this, frames, bytes, onSent);
    for (const frame of frames) this.send(frame);
    this.#deps.metrics.sent(1, bytes);
    onSent();
  }

  push(frames: readonly Uint8Array[], bytes: number): void {
    this.#unwrittenMax += bytes;
    for (const frame of frames) this.send(frame);
    this.#deps.metrics.sent(1, bytes);
  }

  written(bytes: number): void {
    this.#unwrittenMax -= bytes;
  }

  dropSlow(): void {
    if (this.#isSlow) return;
    this.#isSlow = true;
    // Whoever sends goes through all clients of a document, so none leaves meanwhile.
    this.#deps.timer.endOfTurn(() => this.close("slow"));
  }

  close(why: CloseName, detail?: string): void {
    if (this.isOver) return;
    this.#code = CLOSE[why].code;
    const { readyState } = this.#socket;
    if (readyState === WebSocket.OPEN || readyState === WebSocket.CONNECTING) {
      this.#socket.close(this.#code, closeReason(why, detail));
    }
    this.#end();
  }

  /** Says something to a client that has heard nothing since the last time. */
  breakSilence(): void {
    if (!this.#hasSent && this.#session !== undefined) this.send(this.#session.silentFrame);
    this.#hasSent = false;
  }

  #onMessage(data: unknown): void {
    if (this.isOver) return; // what comes behind its end is nobody's
    if (!(data instanceof ArrayBuffer)) throw new BadMessage("it is text");
    if (data.byteLength > this.#deps.config.maxMessageBytes) {
      return this.close(
        "tooLarge",
        `${this.#deps.config.maxMessageBytes} bytes (gateway.sync.maxMessageBytes)`,
      );
    }
    this.#session?.onMessage(new Uint8Array(data));
  }

  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      if (error instanceof BadMessage) {
        this.#deps.metrics.refused("message");
        return this.close("badMessage", error.message);
      }
      this.#deps.onFault(error);
      this.close("unavailable");
    }
  }

  /** Nothing is said or heard any more. */
  #end(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#onEnd();
    this.#session?.end();
  }

  /** The connection has ended. */
  #gone(): void {
    this.#end();
    if (this.#isGone) return;
    this.#isGone = true;
    this.#deps.metrics.socketClosed(this.#protocol, this.#code);
    this.#deps.onEnd();
  }
}

function requireWebSocket(request: Request): void {
  if (!wantsWebSocket(request)) {
    throw new GatewayError("invalid_argument", "this path speaks WebSocket only");
  }
}

function upgrade(request: Request, pingIntervalMs: number): Deno.WebSocketUpgrade {
  const protocol = chosen(protocolsOf(request));
  try {
    return Deno.upgradeWebSocket(request, {
      // A ping at half of it, the end at the whole.
      idleTimeout: Math.max(1, Math.round(pingIntervalMs * 2 / 1000)),
      ...(protocol === undefined ? {} : { protocol }),
    });
  } catch (error) {
    throw new GatewayError(
      "invalid_argument",
      `the WebSocket handshake is not one: ${(error as Error).message}`,
    );
  }
}

function protocolsOf(request: Request): string[] {
  const header = request.headers.get("sec-websocket-protocol");
  return header === null ? [] : header.split(",").map((protocol) => protocol.trim());
}

function tokenOf(protocols: readonly string[]): string | undefined {
  return protocols.find((protocol) => protocol.startsWith(BEARER_PROTOCOL))?.slice(BEARER_PROTOCOL.length);
}

/** Browsers take a handshake that chooses none of what they offered for a failed one. A token is repeated only if all are. */
function chosen(protocols: readonly string[]): string | undefined {
  return protocols.find((protocol) => !protocol.startsWith(BEARER_PROTOCOL)) ?? protocols[0];
}

/** The id in a path, encoded; undefined for a path of somebody else. */
function encodedIdOf(path: string): string | undefined {
  const { before, after } = DOCUMENT_PATH;
  if (!path.startsWith(before) || !path.endsWith(after) || path.length <= before.length + after.length) {
    return undefined;
  }
  const id = path.slice(before.length, path.length - after.length);
  return id.includes("/") ? undefined : id;
}

/** Every sequence of octets stands for one id at most, and each id is the document of just that name. */
function decodeId(encoded: string): string {
  let id: string;
  try {
    id = decodeURIComponent(encoded);
  } catch {
    throw new GatewayError("invalid_argument", "the document's id is not percent-encoded UTF-8");
  }
  if (new TextEncoder().encode(id).length > DOCUMENT_ID_BYTES_MAX) {
    throw new GatewayError(
      "invalid_argument",
      `the document's id has more than ${DOCUMENT_ID_BYTES_MAX} bytes`,
    );
  }
  return id;
}

function createTypeOf({ query }: Exchange): string {
  const type = new URLSearchParams(query).get("create") ?? "";
  if (type === "" || CREATE_TYPES.includes(type)) return type;
  throw new GatewayError("invalid_argument", `create is none of ${CREATE_TYPES.join(", ")}`);
}

function refusalOf(error: unknown): { name: CloseName; detail: string } {
  if (!(error instanceof GatewayError)) throw error;
  const name = error.code === "unauthenticated"
    ? "unauthenticated"
    : error.retryAfterS !== undefined
    ? "unavailable"
    : "forbidden";
  return { name, detail: error.message };
}
