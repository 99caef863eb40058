/** Handlers that pass every call of etcd's services on to the cluster. They know the descriptors, not the messages, but for
 *  the two streams that have to outlive a connection. */
import { type DescMethod, type DescService, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import {
  Auth,
  Cluster,
  KV,
  Lease,
  type LeaseKeepAliveRequest,
  LeaseKeepAliveRequestSchema,
  type LeaseKeepAliveResponse,
  LeaseKeepAliveResponseSchema,
  Maintenance,
  type TxnRequest,
  Watch,
  type WatchRequest,
  WatchRequestSchema,
  type WatchResponse,
  WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { Election } from "$proto/v3electionpb/v3election_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import { EtcdError, type EtcdStream, GRPC } from "../../../../storage/etcd/mod.ts";
import { type Credentials, type EtcdCluster, toConnectError } from "./cluster.ts";
import { type KeepAliveSource, ResumingKeepAlive } from "./keepalive_resume.ts";
import { ResumingWatch, type WatchSource } from "./watch_resume.ts";

/** The services that are passed on. */
export const FORWARDED: readonly DescService[] = [
  KV,
  Watch,
  Lease,
  Cluster,
  Maintenance,
  Auth,
  Lock,
  Election,
];

/** What streams need besides the cluster. */
export interface ForwardOptions {
  readonly cluster: EtcdCluster;
  /** Longest time of a call that answers at once, in milliseconds. */
  readonly requestTimeoutMs: number;
  /** Lets `ms` milliseconds pass. */
  pause(ms: number): Promise<void>;
  /** A number in [0, 1), for jitter. */
  fraction(): number;
}

/** Calls that change nothing, by service and method: they may be tried again whatever became of the first try. */
const REPEATABLE: ReadonlySet<string> = new Set([
  "KV/Range",
  "Lease/LeaseTimeToLive",
  "Lease/LeaseLeases",
  "Cluster/MemberList",
  "Maintenance/Status",
  "Maintenance/Hash",
  "Maintenance/HashKV",
  "Auth/AuthStatus",
  "Auth/Authenticate",
  "Auth/UserGet",
  "Auth/UserList",
  "Auth/RoleGet",
  "Auth/RoleList",
  "Election/Leader",
]);

/** Calls that may take as long as their caller waits. */
const UNBOUNDED: ReadonlySet<string> = new Set([
  "KV/Compact",
  "Maintenance/Defragment",
  "Maintenance/Hash",
  "Maintenance/HashKV",
  "Maintenance/MoveLeader",
  "Lock/Lock",
  "Election/Campaign",
]);

/** Messages of a server's stream that may wait here before it is told to pause. */
const AHEAD_MAX = 16;
/** Pauses between tries to reopen a stream, in milliseconds, on top of those of the endpoints. */
const REOPEN_FIRST_MS = 20;
const REOPEN_MAX_MS = 1_000;

/** The handlers of one service. */
export function forwardService(
  service: DescService,
  options: ForwardOptions,
): Partial<ServiceImpl<DescService>> {
  const handlers: Record<string, unknown> = {};
  for (const method of service.methods) {
    if (method === Watch.method.watch) handlers[method.localName] = forwardWatch(options);
    else if (method === Lease.method.leaseKeepAlive) handlers[method.localName] = forwardKeepAlive(options);
    else if (method.methodKind === "unary") handlers[method.localName] = forwardUnary(method, options);
    else if (method.methodKind === "server_streaming") {
      handlers[method.localName] = forwardAnswers(method, options);
    }
  }
  return handlers as Partial<ServiceImpl<DescService>>;
}

function forwardUnary(method: DescMethod, { cluster, requestTimeoutMs }: ForwardOptions) {
  const name = `${method.parent.name}/${method.name}`;
  const isRepeatable = REPEATABLE.has(name);
  const isTxn = method === KV.method.txn;
  const boundMs = UNBOUNDED.has(name) ? Infinity : requestTimeoutMs;
  return async (request: Message, context: HandlerContext): Promise<Message> => {
    try {
      return await cluster.unary(method, request, {
        ...credentialsOf(context),
        isRepeatable: isRepeatable || (isTxn && readsOnly(request as TxnRequest)),
        timeoutMs: Math.min(context.timeoutMs() ?? Infinity, boundMs),
        signal: context.signal,
      });
    } catch (error) {
      throw toConnectError(error);
    }
  };
}

/** Whether no branch of a transaction can write. */
function readsOnly({ success, failure }: TxnRequest): boolean {
  return [...success, ...failure].every(({ request }) =>
    request.case === "requestRange" || (request.case === "requestTxn" && readsOnly(request.value))
  );
}

function forwardAnswers(method: DescMethod, { cluster }: ForwardOptions) {
  return async function* (request: Message, context: HandlerContext): AsyncGenerator<Message, void, void> {
    const ahead: Uint8Array[] = [];
    let wake = () => {};
    let end: { readonly error: EtcdError | undefined } | undefined;
    let isPaused = false;
    let stream: EtcdStream | undefined;
    const abort = () => {
      stream?.cancel();
      end = { error: undefined };
      wake();
    };
    context.signal.addEventListener("abort", abort);
    try {
      stream = await cluster.answers(method, toBinary(method.input, request), {
        onMessage(bytes) {
          ahead.push(bytes);
          if (ahead.length >= AHEAD_MAX && !isPaused) {
            isPaused = true;
            stream?.pause();
          }
          wake();
        },
        onEnd(error) {
          end = { error };
          wake();
        },
      }, { ...credentialsOf(context), signal: context.signal });
      for (;;) {
        const bytes = ahead.shift();
        if (bytes !== undefined) {
          yield fromBinary(method.output, bytes);
          if (isPaused && ahead.length < AHEAD_MAX / 2) {
            isPaused = false;
            stream.resume();
          }
        } else if (end !== undefined) {
          if (end.error !== undefined) throw end.error;
          return;
        } else await new Promise<void>((resolve) => wake = resolve);
      }
    } catch (error) {
      throw toConnectError(error);
    } finally {
      context.signal.removeEventListener("abort", abort);
      stream?.cancel();
    }
  };
}

// ---- streams that outlive a connection ----

function forwardWatch(options: ForwardOptions) {
  return async function* (
    requests: AsyncIterable<WatchRequest>,
    context: HandlerContext,
  ): AsyncGenerator<WatchResponse, void, void> {
    const source = watchSource(options, credentialsOf(context));
    yield* relay(requests, context.signal, (onReady) => new ResumingWatch(source, onReady), false);
  };
}

function forwardKeepAlive(options: ForwardOptions) {
  return async function* (
    requests: AsyncIterable<LeaseKeepAliveRequest>,
    context: HandlerContext,
  ): AsyncGenerator<LeaseKeepAliveResponse, void, void> {
    const source = keepAliveSource(options, credentialsOf(context));
    yield* relay(requests, context.signal, (onReady) => new ResumingKeepAlive(source, onReady), true);
  };
}

/** What both kinds of streams have in common. */
interface Resuming<I, O> {
  readonly isClosed: boolean;
  readonly isFull: boolean;
  readonly failure: EtcdError | undefined;
  request(request: I): void;
  take(): O | undefined;
  close(): void;
}

/** Moves requests in and answers out until the client goes. `endsWithRequests`: when the client has said that it asks no
 *  more, the stream ends with the answer to its last request; else it goes on. */
async function* relay<I, O>(
  requests: AsyncIterable<I>,
  signal: AbortSignal,
  open: (onReady: () => void) => Resuming<I, O> & { readonly isIdle?: boolean },
  endsWithRequests: boolean,
): AsyncGenerator<O, void, void> {
  let wake = () => {};
  let onTaken = () => {};
  let hasAskedAll = false;
  let requestError: unknown;
  const stream = open(() => wake());
  const leave = () => stream.close();
  signal.addEventListener("abort", leave);

  async function ask(): Promise<void> {
    for await (const request of requests) {
      if (stream.isClosed) return;
      stream.request(request);
      while (stream.isFull && !stream.isClosed) await new Promise<void>((resolve) => onTaken = resolve);
    }
    hasAskedAll = true;
    wake();
  }

  try {
    ask().catch((error) => {
      requestError = error;
      stream.close();
    });
    for (;;) {
      const answer = stream.take();
      if (answer !== undefined) {
        onTaken();
        yield answer;
      } else if (stream.isClosed) break;
      else if (endsWithRequests && hasAskedAll && stream.isIdle === true) return;
      else await new Promise<void>((resolve) => wake = resolve);
    }
  } finally {
    signal.removeEventListener("abort", leave);
    stream.close();
    onTaken();
  }
  if (requestError !== undefined) throw requestError;
  if (stream.failure !== undefined) throw toConnectError(stream.failure);
}

/** Where the watch streams of one caller come from. A member that has lost its leader says so, and another is asked. */
export function watchSource(options: ForwardOptions, credentials: Credentials): WatchSource {
  return {
    async open(listener, tries) {
      if (tries > 0) await reopenPause(options, tries);
      if (tries > 1) options.cluster.forgetToken(); // what failed may have been the age of the token
      const stream = await options.cluster.duplex(Watch.method.watch, {
        onMessage(bytes) {
          const answer = fromBinary(WatchResponseSchema, bytes);
          options.cluster.sawHeader(answer.header);
          listener.onAnswer(answer);
        },
        onEnd: (error) => listener.onEnd(error),
      }, { ...credentials, metadata: { ...credentials.metadata, hasleader: "true" } });
      return {
        send: (request) => stream.send(toBinary(WatchRequestSchema, request)),
        pause: () => stream.pause(),
        resume: () => stream.resume(),
        cancel: () => stream.cancel(),
      };
    },
    mayResume: (error) => mayResume(options, error),
  };
}

function keepAliveSource(options: ForwardOptions, credentials: Credentials): KeepAliveSource {
  return {
    async open(listener, tries) {
      if (tries > 0) await reopenPause(options, tries);
      const stream = await options.cluster.duplex(Lease.method.leaseKeepAlive, {
        onMessage: (bytes) => listener.onAnswer(fromBinary(LeaseKeepAliveResponseSchema, bytes)),
        onEnd: (error) => listener.onEnd(error),
      }, { ...credentials, metadata: { ...credentials.metadata, hasleader: "true" } });
      return {
        send: (request) => stream.send(toBinary(LeaseKeepAliveRequestSchema, request)),
        cancel: () => stream.cancel(),
      };
    },
    mayResume: (error) => mayResume(options, error),
  };
}

/** A stream goes on after everything that passes: a lost connection, a lost leader, a server that stops. */
function mayResume({ cluster }: ForwardOptions, error: EtcdError | undefined): boolean {
  if (cluster.isClosed) return false;
  if (error === undefined) return true;
  return error instanceof EtcdError && (error.code === GRPC.UNAVAILABLE || error.code === GRPC.INTERNAL);
}

function reopenPause({ pause, fraction }: ForwardOptions, tries: number): Promise<void> {
  const fullMs = Math.min(REOPEN_MAX_MS, REOPEN_FIRST_MS * 2 ** Math.min(tries, 16));
  return pause(fullMs * (0.5 + fraction() / 2));
}

const BEARER = /^bearer +/i;

/** The caller's own token, by either name that clients use, and what else etcd reads of the metadata. */
export function credentialsOf({ requestHeader }: Pick<HandlerContext, "requestHeader">): Credentials {
  const token = (requestHeader.get("token") ?? requestHeader.get("authorization"))?.replace(BEARER, "");
  const hasLeader = requestHeader.get("hasleader");
  return {
    ...(token === undefined || token === "" ? {} : { token }),
    ...(hasLeader === null ? {} : { metadata: { hasleader: hasLeader } }),
  };
}
