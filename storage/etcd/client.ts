/** A client of an etcd cluster at the level of calls: endpoint, deadline, what may be tried again. It knows no messages:
 *  requests and answers are bytes. */
import { GrpcError, type GrpcStatus } from "../../transport/grpc/mod.ts";
import { type Endpoint, Endpoints, type EndpointsOptions } from "./endpoints.ts";
import { CLIENT_CLOSED, EtcdError, GRPC } from "./errors.ts";

/** How the cluster is reached and how long is waited. */
export interface EtcdClientOptions extends EndpointsOptions {
  /** Longest wait for an endpoint, in milliseconds. */
  readonly connectTimeoutMs: number;
  /** Time of a call that names none, in milliseconds. */
  readonly requestTimeoutMs: number;
}

/** What a call may carry besides its request. */
export interface CallOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** A unary call. */
export interface UnaryOptions extends CallOptions {
  /** Time for the call with all its tries, in milliseconds; the client's `requestTimeoutMs` when left out. */
  readonly timeoutMs?: number;
  /** True when doing it twice is doing it once: it may be tried again whatever happened. Others only when they certainly
   *  reached no server. */
  readonly isRepeatable: boolean;
}

/** What a stream tells. */
export interface StreamListener {
  onMessage(bytes: Uint8Array): void;
  /** The end, told once: undefined when the server ended it in peace. */
  onEnd(error: EtcdError | undefined): void;
}

/** An open stream. */
export interface EtcdStream {
  /** Sends a message; ignored once the stream has ended. */
  send(bytes: Uint8Array): void;
  /** Says that no more is sent. */
  endSending(): void;
  /** Stops and goes on with messages; those that were on their way, a window's worth, come still. */
  pause(): void;
  resume(): void;
  /** Ends it; the listener hears no more. */
  cancel(): void;
}

/** Tries of one call: with the pauses of failing endpoints this is more than any deadline leaves time for. */
const TRIES_MAX = 32;
/** With several endpoints a repeatable call leaves one that is silent for this part of its time for another. */
const SILENCE_PART = 0.4;

/** The client. */
export class EtcdClient {
  readonly #options: EtcdClientOptions;
  readonly #endpoints: Endpoints;
  /** Ends each open stream. As many as callers keep open: the bound is theirs. */
  readonly #streams = new Set<() => void>();

  constructor(options: EtcdClientOptions) {
    this.#options = options;
    this.#endpoints = new Endpoints(options);
  }

  /** Calls `path` (`/package.Service/Method`).
   *  @throws {EtcdError} what the server said, or that none could be reached. */
  async unary(path: string, request: Uint8Array, options: UnaryOptions): Promise<Uint8Array> {
    const { clock, requestTimeoutMs, connectTimeoutMs } = this.#options;
    const totalMs = Math.min(options.timeoutMs ?? requestTimeoutMs, requestTimeoutMs);
    const deadlineMs = clock.now() + totalMs;
    for (let tries = 1;; tries++) {
      const leftMs = deadlineMs - clock.now();
      const endpoint = this.#endpoints.take() ??
        await this.#endpoints.wait(Math.min(leftMs, connectTimeoutMs), options.signal);
      const callMs = deadlineMs - clock.now();
      const tryMs = options.isRepeatable && this.#endpoints.count > 1
        ? Math.min(callMs, Math.max(50, totalMs * SILENCE_PART))
        : callMs;
      try {
        const answer = await this.#call(endpoint, path, request, options, tryMs);
        this.#endpoints.succeeded(endpoint);
        return answer;
      } catch (error) {
        if (!(error instanceof EtcdError)) throw error;
        this.#judge(endpoint, error);
        const timeIsUp = clock.now() >= deadlineMs || tries >= TRIES_MAX;
        if (timeIsUp || !mayRepeat(error, options.isRepeatable)) throw error;
      }
    }
  }

  /** Opens a stream in both directions on the next endpoint.
   *  @throws {EtcdError} UNAVAILABLE when none could be reached in time. */
  async duplex(path: string, listener: StreamListener, options: CallOptions): Promise<EtcdStream> {
    const endpoint = await this.#endpoints.wait(this.#options.connectTimeoutMs, options.signal);
    return this.#stream(endpoint, path, listener, options, undefined);
  }

  /** Opens a stream of answers to one request.
   *  @throws {EtcdError} UNAVAILABLE when no endpoint could be reached in time. */
  async answers(
    path: string,
    request: Uint8Array,
    listener: StreamListener,
    options: CallOptions,
  ): Promise<EtcdStream> {
    const endpoint = await this.#endpoints.wait(this.#options.connectTimeoutMs, options.signal);
    return this.#stream(endpoint, path, listener, options, request);
  }

  /** Whether any endpoint can be reached, and what is wrong with the others. */
  health(): { ok: boolean; detail: string } {
    return this.#endpoints.health();
  }

  /** Ends the streams and closes the connections once unary calls under way have ended. Idempotent. */
  close(): void {
    this.#endpoints.close();
    for (const end of [...this.#streams]) end();
  }

  async #call(
    { channel }: Endpoint,
    path: string,
    request: Uint8Array,
    options: CallOptions,
    timeoutMs: number,
  ): Promise<Uint8Array> {
    try {
      return await channel.unary(path, request, { ...options, timeoutMs: Math.max(1, timeoutMs) });
    } catch (error) {
      throw toEtcdError(error);
    }
  }

  /** Opens a stream: with one request, or of those that are sent. */
  #stream(
    endpoint: Endpoint,
    path: string,
    listener: StreamListener,
    { metadata }: CallOptions,
    request: Uint8Array | undefined,
  ): EtcdStream {
    let isOver = false;
    let hasAnswered = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      this.#streams.delete(end);
      call.cancel();
      listener.onEnd(new EtcdError(GRPC.UNAVAILABLE, CLIENT_CLOSED));
    };
    const call = endpoint.channel.start(path, {
      onMessage: (bytes) => {
        if (isOver) return;
        if (!hasAnswered) {
          hasAnswered = true;
          this.#endpoints.succeeded(endpoint);
        }
        listener.onMessage(bytes);
      },
      onEnd: (status) => {
        if (isOver) return;
        isOver = true;
        this.#streams.delete(end);
        if (status.code === GRPC.OK) return listener.onEnd(undefined);
        const error = etcdErrorOf(status);
        this.#judge(endpoint, error);
        listener.onEnd(error);
      },
    }, { ...(metadata === undefined ? {} : { metadata }), ...(request === undefined ? {} : { request }) });
    if (call.isOpen) this.#streams.add(end);
    return {
      send: (bytes) => void call.send(bytes),
      endSending: () => call.endSending(),
      pause: () => call.pause(),
      resume: () => call.resume(),
      cancel: () => {
        isOver = true;
        this.#streams.delete(end);
        call.cancel();
      },
    };
  }

  /** What a failure says of the endpoint. */
  #judge(endpoint: Endpoint, error: EtcdError): void {
    if (error.code === GRPC.UNAVAILABLE || error.code === GRPC.DEADLINE_EXCEEDED) {
      this.#endpoints.failed(endpoint, error.message);
    } else if (error.code !== GRPC.CANCELLED) this.#endpoints.succeeded(endpoint);
  }
}

function mayRepeat(error: EtcdError, isRepeatable: boolean): boolean {
  if (error.isUnsent) return error.code === GRPC.UNAVAILABLE;
  if (!isRepeatable) return false;
  return error.code === GRPC.UNAVAILABLE || error.code === GRPC.DEADLINE_EXCEEDED;
}

function toEtcdError(error: unknown): unknown {
  if (error instanceof GrpcError) return etcdErrorOf(error);
  // A name or value that cannot be sent, such as a token of bytes that no header field has.
  if (error instanceof TypeError) {
    return new EtcdError(GRPC.INVALID_ARGUMENT, error.message, { cause: error });
  }
  return error;
}

function etcdErrorOf({ code, message, isUnsent }: GrpcStatus): EtcdError {
  return new EtcdError(code, message, { isUnsent });
}
