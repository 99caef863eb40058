/** A client of an etcd cluster at the level of calls: endpoint, deadline, what may be tried again. It knows no messages:
 *  requests and answers are bytes. */
import "./no_environment.ts";
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { type Endpoint, Endpoints, type EndpointsOptions } from "./endpoints.ts";
import { CLIENT_CLOSED, EtcdError, GRPC } from "./errors.ts";

/** How the cluster is reached and how long is waited. */
export interface EtcdClientOptions extends EndpointsOptions {
  /** Longest wait for an endpoint, in milliseconds. */
  readonly connectTimeoutMs: number;
  /** Time of a call that names none, in milliseconds. */
  readonly requestTimeoutMs: number;
  readonly clock: { now(): number; wallMs(): number };
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
  /** Stops and goes on with messages; what the library has read comes still. */
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
    const call = endpoint.client.makeBidiStreamRequest(
      path,
      toBuffer,
      fromBuffer,
      metadataOf(options.metadata),
    );
    return this.#stream(endpoint, call, listener, {
      send: (bytes) => call.write(bytes),
      endSending: () => call.end(),
    });
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
    const call = endpoint.client.makeServerStreamRequest(
      path,
      toBuffer,
      fromBuffer,
      request,
      metadataOf(options.metadata),
    );
    return this.#stream(endpoint, call, listener, { send() {}, endSending() {} });
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

  #call(
    { client }: Endpoint,
    path: string,
    request: Uint8Array,
    options: CallOptions,
    timeoutMs: number,
  ): Promise<Uint8Array> {
    const { signal } = options;
    if (signal?.aborted) {
      return Promise.reject(new EtcdError(GRPC.CANCELLED, "the call was cancelled", { isUnsent: true }));
    }
    return new Promise((resolve, reject) => {
      const call = client.makeUnaryRequest(
        path,
        toBuffer,
        fromBuffer,
        request,
        metadataOf(options.metadata),
        { deadline: this.#options.clock.wallMs() + Math.max(1, timeoutMs) },
        (error, answer) => {
          signal?.removeEventListener("abort", abort);
          if (error !== null) reject(toEtcdError(error));
          else resolve(answer ?? NO_BYTES);
        },
      );
      const abort = () => call.cancel();
      signal?.addEventListener("abort", abort);
    });
  }

  #stream(
    endpoint: Endpoint,
    call: grpc.ClientReadableStream<Uint8Array>,
    listener: StreamListener,
    sending: Pick<EtcdStream, "send" | "endSending">,
  ): EtcdStream {
    let isOver = false;
    let hasAnswered = false;
    call.on("data", (bytes: Uint8Array) => {
      if (isOver) return;
      if (!hasAnswered) {
        hasAnswered = true;
        this.#endpoints.succeeded(endpoint);
      }
      listener.onMessage(bytes);
    });
    // The status comes after the last message and with every end.
    call.on("status", (status: grpc.StatusObject) => {
      this.#streams.delete(end);
      if (isOver) return;
      isOver = true;
      if (status.code === 0) return listener.onEnd(undefined);
      const error = toEtcdError(status);
      this.#judge(endpoint, error);
      listener.onEnd(error);
    });
    const end = () => {
      this.#streams.delete(end);
      if (isOver) return;
      isOver = true;
      call.cancel();
      listener.onEnd(new EtcdError(GRPC.UNAVAILABLE, CLIENT_CLOSED));
    };
    this.#streams.add(end);
    call.on("error", ignore); // the same as the status; without a listener it would be thrown
    return {
      send(bytes) {
        if (!isOver) sending.send(bytes);
      },
      endSending() {
        if (!isOver) sending.endSending();
      },
      pause: () => void call.pause(),
      resume: () => void call.resume(),
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

const NO_BYTES = new Uint8Array(0);
/** What the library says when it did not send a request for want of a connection. */
const UNSENT = /^(No connection established|Name resolution failed|Failed to connect)/;

/** And when a connection broke while a call was on it. */
const BROKEN = /^Received RST_STREAM with code 2/;

function mayRepeat(error: EtcdError, isRepeatable: boolean): boolean {
  if (error.isUnsent) return error.code === GRPC.UNAVAILABLE;
  if (!isRepeatable) return false;
  return error.code === GRPC.UNAVAILABLE || error.code === GRPC.DEADLINE_EXCEEDED;
}

function toEtcdError({ code, details }: { code: number; details: string }): EtcdError {
  // A connection that breaks under a call is an internal error to the library; to its callers it is one that is gone.
  if (code === GRPC.INTERNAL && BROKEN.test(details)) return new EtcdError(GRPC.UNAVAILABLE, details);
  return new EtcdError(code, details, { isUnsent: code === GRPC.UNAVAILABLE && UNSENT.test(details) });
}

/** The library copies by Buffer's own methods, so plain bytes get Buffer's view of the same memory. */
function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function fromBuffer(buffer: Buffer): Uint8Array {
  return buffer;
}

function metadataOf(entries: Readonly<Record<string, string>> | undefined): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (entries !== undefined) { for (const name of Object.keys(entries)) metadata.set(name, entries[name]!); }
  return metadata;
}

function ignore(): void {}
