/** The gRPC edge: one port that speaks HTTP/2 with gRPC and, as etcd's does, plain HTTP/1.1. */
import type { Socket } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { encodeFields } from "../../../transport/http2/hpack.ts";
import type { RequestHead } from "../../../transport/http2/request.ts";
import type { Http2Stream } from "../../../transport/http2/stream.ts";
import { Bag, type Bagged } from "../../../transport/rpc/bag.ts";
import { type CallGate, isDeveloper } from "../auth/call_gate.ts";
import { ANONYMOUS_CALLER } from "../auth/identity.ts";
import { authorityHost, type ProtectedMode } from "../limits/protected_mode.ts";
import type { CallLimits } from "../limits/rate_limits.ts";
import type { TlsTexts } from "../config.ts";
import { Slots } from "../limits/slots.ts";
import { DRAINING } from "../limits/stream_slots.ts";
import type { Caller, Remote, Tracing } from "../stages.ts";
import type { Timer } from "../timer.ts";
import { type CallOwner, GrpcCall, refuseCall } from "./grpc/call.ts";
import { type CallHead, readCallHead } from "./grpc/call_head.ts";
import { Http2Socket } from "./grpc/http2_socket.ts";
import type { AcceptSocket, TcpListener } from "./grpc/listener.ts";
import type { GrpcMethod, GrpcMethods } from "./grpc/method.ts";
import { codeName, type GrpcMetrics } from "./grpc/metrics.ts";
import type { PlainHttp } from "./grpc/plain_http.ts";
import { fromServiceError, type GatewayError } from "../problem.ts";
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
  /** Judges `:authority` and `origin` while nobody has to show who they are; undefined where clients prove who they are by certificate. */
  readonly protectedMode: ProtectedMode | undefined;
  readonly rateLimits: CallLimits;
  /** Says who calls, and whether they may. */
  readonly gate: CallGate;
  /** Whether the port speaks TLS. */
  readonly isSecure: boolean;
  readonly tracing: Tracing;
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
  /** Takes other certificates for connections that come from now on. @throws {Error} if they are none, or the port has no TLS;
   *  then the old ones stay. */
  reload(tls: TlsTexts): void;
  /** Closes all connections at once. */
  close(): void;
}

/** Time for a client to begin HTTP/1 or HTTP/2, in milliseconds: a connection that says nothing holds a place that others
 *  may need. */
const FIRST_BYTES_MS = 10_000;
/** Pause after which the kernel asks a silent client whether it is still there, in milliseconds. */
const KEEP_ALIVE_MS = 30_000;
/** Calls under way from which further ones start together at the end of the turn, and share datagrams; see calls.ts. */
const GATHER_FROM = 4;

const METHOD_NOT_ALLOWED = encodeFields([[":status", "405"], ["allow", "POST"]]);

/** Creates the edge and starts to listen. */
export function createGrpcEdge(deps: GrpcEdgeDeps): GrpcEdge {
  const { limits, metrics, clock } = deps;
  const connections = new Bag<Connection>();
  const calls = new Bag<GrpcCall>();
  const streamSlots = new Slots(limits.maxStreamCalls);
  let isDraining = false;
  let drained: PromiseWithResolvers<void> | undefined;
  let gathered: GrpcCall[] = [];
  const owner: CallOwner = {
    maxMessageBytes: limits.maxMessageBytes,
    clock,
    newRequestId: deps.newRequestId,
    refreshPolicy: () => deps.gate.refreshPolicy(),
    schedule,
    onCallEnd,
  };
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
    readonly #remote: Remote;
    #http2: Http2Socket | undefined;

    constructor(socket: Socket) {
      this.#socket = socket;
      this.#remote = {
        hostname: socket.remoteAddress ?? "",
        port: socket.remotePort ?? 0,
        isSecure: deps.isSecure,
      };
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
      this.#http2?.shutdown();
    }

    destroy(): void {
      this.#socket.destroy();
    }

    /** `PRI` begins HTTP/2 and no method of HTTP/1 that is answered here. */
    #onFirstBytes(bytes: Uint8Array): void {
      const socket = this.#socket;
      if (bytes[0] === 0x50 && (bytes.length === 1 || bytes[1] === 0x52)) {
        this.#http2 = new Http2Socket(socket, bytes, {
          clock,
          timer: deps.timer,
          maxConcurrentStreams: limits.maxConcurrentStreams,
          minPingIntervalMs: limits.minPingIntervalMs,
          onRequest: (stream, head, isWhole) => onRequest(stream, head, isWhole, this.#remote),
          onAbuse: metrics.refused,
        });
        return;
      }
      socket.setTimeout(0);
      socket.pause();
      socket.unshift(bytes);
      deps.http.serve(socket);
      socket.resume();
    }

    #onClose(): void {
      connections.delete(this);
      metrics.connectionClosed();
      settleDrain();
    }
  }

  function onRequest(stream: Http2Stream, head: RequestHead, isWhole: boolean, remote: Remote): void {
    const callHead = (head.memo ??= readCallHead(head, deps.methods, foreignness)) as CallHead;
    if (!callHead.isGrpc) return deps.http.answer(stream, head, isWhole, remote);
    if (head.method !== "POST") return stream.respond(METHOD_NOT_ALLOWED, true);
    const refusal = callHead.refusal ?? refuse(callHead.method!, remote);
    if (refusal !== undefined) return refuseCall(stream, refusal.code, refusal.message);
    const method = callHead.method!;
    const trace = deps.tracing.beginCall(method.path, callHead.traceparent);
    const call = new GrpcCall(owner, method, stream, callHead, trace, remote);
    calls.add(call);
    method.metrics.begin();
    authenticate(call);
    if (!call.isOver) call.begin(isWhole);
  }

  /** Finds out who calls: at once, or while the request is being read. */
  function authenticate(call: GrpcCall): void {
    // What the gateway answers itself tells nothing of anybody.
    if (call.method.rule === undefined) return call.admit(ANONYMOUS_CALLER);
    try {
      const caller = deps.gate.callerOf(call.head.shown);
      if (!(caller instanceof Promise)) return admit(call, caller);
      caller.then((known) => admit(call, known)).catch((error) => refuseWith(call, error));
    } catch (error) {
      refuseWith(call, error);
    }
  }

  /** Lets the call reach its worker. @throws {GatewayError} when the caller may not make it. */
  function admit(call: GrpcCall, caller: Caller): void {
    const { method, remote, head } = call;
    if (call.isOver) return;
    if (head.foreign !== undefined && isDeveloper(caller)) {
      return call.end(head.foreign.code, head.foreign.message);
    }
    const limited = deps.rateLimits.admitCaller(caller.principal, remote.hostname, method.path);
    if (limited !== undefined) return call.end(limited.code, limited.message);
    const refusal = deps.gate.refusalOf(method.rule!, caller);
    if (refusal !== undefined) throw refusal;
    if (method.isLong) {
      const revoke = (error: GatewayError) => call.fail(error);
      call.followed = { bagIndex: -1, caller, revoke };
      deps.gate.follow(call.followed);
    }
    call.admit(caller);
  }

  function refuseWith(call: GrpcCall, error: unknown): void {
    call.fail(fromServiceError(error));
  }

  /** Why a call of a known method does not begin now. */
  function refuse(method: GrpcMethod, remote: Remote): { code: Code; message: string } | undefined {
    if (isDraining) return { code: Code.Unavailable, message: DRAINING };
    const limited = deps.rateLimits.admit(remote.hostname, method.path);
    if (limited !== undefined) return limited;
    if (method.streams && !streamSlots.tryEnter()) {
      return {
        code: Code.ResourceExhausted,
        message: `${streamSlots.max} streams are open (gateway.grpc.maxStreamCalls)`,
      };
    }
    return undefined;
  }

  function foreignness(authority: string, origin: string | undefined): string | undefined {
    if (deps.protectedMode === undefined) return undefined;
    // Some clients write things there that are no host at all; a browser, against which this stands, never does.
    const host = authorityHost(authority) === undefined ? "localhost" : authority;
    const verdict = deps.protectedMode.check(host, origin);
    if (verdict === "ok") return undefined;
    return "no users are configured, so only calls for a loopback name (localhost, 127.0.0.1) are answered; " +
      "name other hosts in gateway.allowedHosts";
  }

  /** Starts a call now or, when many run, together with others that came on this turn. */
  function schedule(call: GrpcCall): void {
    if (calls.size < GATHER_FROM) return call.start();
    if (gathered.push(call) === 1) deps.timer.endOfTurn(startGathered);
  }

  function startGathered(): void {
    const starting = gathered;
    gathered = [];
    for (const call of starting) call.start();
  }

  function onCallEnd(call: GrpcCall, code: number, message: string): void {
    const { method, requestId } = call;
    calls.delete(call);
    if (call.followed !== undefined) deps.gate.unfollow(call.followed);
    settleDrain();
    if (method.streams) streamSlots.leave();
    const durationMs = clock.now() - call.startedAtMs;
    method.metrics.end(code, method.streams ? -1 : durationMs);
    call.trace?.endCall(code === 0 ? undefined : new ConnectError(message, code));
    const fields = {
      requestId,
      traceId: call.trace?.traceId,
      method: method.path,
      code: codeName(code),
      durationMs,
    };
    // Not for errors that are a client's own, as at the HTTP edge.
    if (isFault(code)) deps.log.info("call", { ...fields, message });
    else deps.log.debug("call", fields);
  }

  function settleDrain(): void {
    if (connections.size === 0 && calls.size === 0) drained?.resolve();
  }

  return {
    listening: listener.listening,
    get address() {
      return listener.address;
    },
    reload: (tls) => listener.reload(tls),
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

function ignore(): void {}
