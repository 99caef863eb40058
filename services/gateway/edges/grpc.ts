/** The gRPC edge: one port that speaks HTTP/2 with gRPC and, as etcd's does, plain HTTP/1.1. */
import {
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Socket } from "node:net";
import { Code } from "@connectrpc/connect";
import { Bag, type Bagged } from "../../../transport/rpc/bag.ts";
import { authorityHost, type ProtectedMode } from "../limits/protected_mode.ts";
import { Slots } from "../limits/slots.ts";
import type { Timer } from "../timer.ts";
import { type CallOwner, GrpcCall } from "./grpc/call.ts";
import { encodeStatusMessage, isGrpc } from "./grpc/headers.ts";
import type { AcceptSocket, TcpListener } from "./grpc/listener.ts";
import type { GrpcMethod, GrpcMethods } from "./grpc/method.ts";
import { codeName, type GrpcMetrics } from "./grpc/metrics.ts";
import { Pipe } from "./grpc/pipe.ts";
import type { PlainHttp } from "./grpc/plain_http.ts";
import type { EdgeLog } from "./http.ts";

/** What the edge is made of. */
export interface GrpcEdgeDeps {
  readonly methods: GrpcMethods;
  readonly http: PlainHttp;
  readonly metrics: GrpcMetrics;
  readonly limits: {
    readonly maxConnections: number;
    readonly maxConcurrentStreams: number;
    readonly maxStreamCalls: number;
    readonly maxMessageBytes: number;
    readonly minPingIntervalMs: number;
  };
  /** Judges `:authority` and `origin`; undefined where clients prove who they are by certificate. */
  readonly protectedMode: ProtectedMode | undefined;
  readonly clock: { now(): number };
  readonly timer: Timer;
  newRequestId(): string;
  readonly log: EdgeLog;
  /** Starts the TCP server. */
  listen(accept: AcceptSocket, onTlsError: () => void): TcpListener;
}

/** A running edge. */
export interface GrpcEdge {
  readonly listening: Promise<void>;
  readonly address: string;
  /** Accepts no more, tells the clients to go (GOAWAY), ends streams with `unavailable` and waits for unary calls and
   *  their connections; `close` ends the wait. Idempotent. */
  drain(): Promise<void>;
  /** Closes all connections at once. */
  close(): void;
}

/** Time for a client's first bytes, in milliseconds: a connection that says nothing holds a place others may need. */
const FIRST_BYTES_MS = 10_000;
/** Pause after which the kernel asks a silent client whether it is still there, in milliseconds. */
const KEEP_ALIVE_MS = 30_000;
/** How much of a request may come before it is read, for each stream and for the connection, in bytes. */
const STREAM_WINDOW_BYTES = 256 * 1024;
const SESSION_WINDOW_BYTES = 1024 * 1024;
/** Request header bytes; as much as a call may carry to a worker. */
const MAX_HEADER_BYTES = 16 * 1024;
/** HTTP/2's error code for a client that asks too much. */
const ENHANCE_YOUR_CALM = 11;
/** Calls under way from which further ones start together at the end of the turn, and share datagrams; see calls.ts. */
const GATHER_FROM = 4;

const DRAINING = "the gateway is draining";

/** Creates the edge and starts to listen. */
export function createGrpcEdge(deps: GrpcEdgeDeps): GrpcEdge {
  const { limits, metrics, clock } = deps;
  const connections = new Bag<Connection>();
  const calls = new Bag<GrpcCall>();
  const streamSlots = new Slots(limits.maxStreamCalls);
  let isDraining = false;
  let drained: PromiseWithResolvers<void> | undefined;
  let gathered: (() => void)[] = [];

  const server = createServer({
    settings: {
      maxConcurrentStreams: limits.maxConcurrentStreams,
      initialWindowSize: STREAM_WINDOW_BYTES,
      maxHeaderListSize: MAX_HEADER_BYTES,
      enablePush: false,
    },
  });
  server.on("sessionError", ignore);
  const listener = deps.listen(accept, () => metrics.refused("tls"));

  function accept(socket: Socket): void {
    socket.on("error", ignore); // the close that follows says all
    if (isDraining) return void socket.destroy();
    if (connections.size >= limits.maxConnections) {
      metrics.refused("connections");
      return void socket.destroy();
    }
    new Connection(socket);
  }

  /** One TCP connection. */
  class Connection implements Bagged {
    bagIndex = -1;
    readonly #socket: Socket;
    #session: ServerHttp2Session | undefined;

    constructor(socket: Socket) {
      this.#socket = socket;
      connections.add(this);
      metrics.connectionOpened();
      socket.setKeepAlive(true, KEEP_ALIVE_MS);
      socket.setTimeout(FIRST_BYTES_MS, () => {
        metrics.refused("silent");
        socket.destroy();
      });
      socket.once("data", (bytes: Uint8Array) => this.#onFirstBytes(bytes));
      socket.once("close", () => this.#onClose());
    }

    drain(): void {
      if (this.#session === undefined) return;
      if (!this.#session.destroyed) this.#session.close();
    }

    destroy(): void {
      this.#socket.destroy();
    }

    /** `PRI` begins HTTP/2 and no method of HTTP/1 that is answered here. */
    #onFirstBytes(bytes: Uint8Array): void {
      const socket = this.#socket;
      socket.setTimeout(0);
      socket.pause();
      socket.unshift(bytes);
      if (bytes[0] !== 0x50 || (bytes.length > 1 && bytes[1] !== 0x52)) {
        deps.http.serve(socket);
        socket.resume();
        return;
      }
      const pipe = new Pipe(socket, {
        clock,
        minPingIntervalMs: limits.minPingIntervalMs,
        endOfTurn: deps.timer.endOfTurn,
        onAbuse: (what) => {
          metrics.refused(what);
          this.#goAway(ENHANCE_YOUR_CALM, what === "pings" ? "too_many_pings" : "too_many_resets");
        },
      });
      server.once("session", (session) => this.#onSession(session, pipe));
      server.emit("connection", pipe);
      socket.resume();
    }

    #onSession(session: ServerHttp2Session, pipe: Pipe): void {
      this.#session = session;
      session.on("error", ignore);
      session.setLocalWindowSize(SESSION_WINDOW_BYTES);
      const owner: CallOwner = {
        maxMessageBytes: limits.maxMessageBytes,
        clock,
        newRequestId: deps.newRequestId,
        schedule,
        onSend: () => pipe.forgivePings(),
        onCallEnd,
      };
      session.on("stream", (stream, headers) => onStream(owner, stream, headers));
    }

    #goAway(code: number, text: string): void {
      const session = this.#session;
      if (session === undefined || session.destroyed) return this.destroy();
      session.goaway(code, 0, new TextEncoder().encode(text));
      // Once the frame is on its way.
      deps.timer.endOfTurn(() => this.destroy());
    }

    #onClose(): void {
      connections.delete(this);
      metrics.connectionClosed();
      settleDrain();
    }
  }

  function onStream(owner: CallOwner, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    if (!isGrpc(headers["content-type"])) return deps.http.answer(stream, headers);
    if (headers[":method"] !== "POST") {
      stream.respond({ ":status": 405, "allow": "POST" }, { endStream: true });
      return;
    }
    const path = headers[":path"] ?? "";
    const method = deps.methods.find(path);
    const refusal = method === undefined
      ? { code: Code.Unimplemented, message: unknownMethod(path) }
      : refuse(method, headers);
    if (refusal !== undefined) return refuseCall(stream, refusal.code, refusal.message);
    const call = new GrpcCall(owner, method!, stream, headers);
    calls.add(call);
    method!.metrics.begin();
    call.begin();
  }

  /** Why a call of a known method does not begin. */
  function refuse(
    method: GrpcMethod,
    headers: IncomingHttpHeaders,
  ): { code: Code; message: string } | undefined {
    const foreign = foreignness(headers);
    if (foreign !== undefined) return { code: Code.PermissionDenied, message: foreign };
    if (isDraining) return { code: Code.Unavailable, message: DRAINING };
    if (method.streams && !streamSlots.tryEnter()) {
      return {
        code: Code.ResourceExhausted,
        message: `${streamSlots.max} streams are open (gateway.grpc.maxStreamCalls)`,
      };
    }
    return undefined;
  }

  function foreignness(headers: IncomingHttpHeaders): string | undefined {
    if (deps.protectedMode === undefined) return undefined;
    const authority = headers[":authority"] ?? headers.host ?? "";
    // Some clients write things there that are no host at all; a browser, against which this stands, never does.
    const host = authorityHost(authority) === undefined ? "localhost" : authority;
    const verdict = deps.protectedMode.check(host, headers.origin);
    if (verdict === "ok") return undefined;
    return "no users are configured, so only calls for a loopback name (localhost, 127.0.0.1) are answered; " +
      "name other hosts in gateway.allowedHosts";
  }

  /** Starts a call now or, when many run, together with others that came on this turn. */
  function schedule(start: () => void): void {
    if (calls.size < GATHER_FROM) return start();
    if (gathered.push(start) > 1) return;
    deps.timer.endOfTurn(() => {
      const starts = gathered;
      gathered = [];
      for (const start of starts) start();
    });
  }

  function onCallEnd(call: GrpcCall, code: number, message: string): void {
    const { method, requestId } = call;
    calls.delete(call);
    settleDrain();
    if (method.streams) streamSlots.leave();
    const durationMs = clock.now() - call.startedAtMs;
    method.metrics.end(code, method.streams ? -1 : durationMs);
    const fields = { requestId, method: method.path, code: codeName(code), durationMs };
    // Not for errors that are a client's own, as at the HTTP edge.
    if (isFault(code)) deps.log.info("call", { ...fields, message });
    else deps.log.debug("call", fields);
  }

  function unknownMethod(path: string): string {
    const at = path.lastIndexOf("/");
    if (!path.startsWith("/") || at < 1) return `malformed method name: ${JSON.stringify(path)}`;
    const service = path.slice(1, at);
    return deps.methods.hasService(service)
      ? `unknown method ${path.slice(at + 1)} for service ${service}`
      : `unknown service ${service}`;
  }

  function settleDrain(): void {
    if (connections.size === 0 && calls.size === 0) drained?.resolve();
  }

  return {
    listening: listener.listening,
    get address() {
      return listener.address;
    },
    drain() {
      if (drained !== undefined) return drained.promise;
      drained = Promise.withResolvers();
      isDraining = true;
      listener.close();
      for (const call of calls.snapshot()) {
        if (call.method.streams) call.end(Code.Unavailable, DRAINING);
      }
      for (const connection of connections.snapshot()) connection.drain();
      deps.http.drain();
      settleDrain();
      return drained.promise;
    },
    close() {
      for (const connection of connections.snapshot()) connection.destroy();
      deps.http.close();
    },
  };
}

/** Codes that speak of trouble here rather than of the request. */
function isFault(code: number): boolean {
  return code === Code.Internal || code === Code.Unknown || code === Code.Unavailable ||
    code === Code.DataLoss;
}

function refuseCall(stream: ServerHttp2Stream, code: Code, message: string): void {
  stream.on("error", ignore);
  stream.respond({
    ":status": 200,
    "content-type": "application/grpc",
    "grpc-status": String(code),
    "grpc-message": encodeStatusMessage(message),
  }, { endStream: true });
  // The rest of the request is not kept.
  stream.resume();
}

function ignore(): void {}
