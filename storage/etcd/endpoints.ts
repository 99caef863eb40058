/** The endpoints of a cluster: one connection each, which of them may be used now, and whose turn it is.
 *
 *      connecting ──► ready ── a call fails for the connection's sake ──► backed off ── time is up, or it answers ──► ready
 *          ▲                                                                 │
 *          └──────────────────────── connection lost ◄──────────────────────┘ */
import "./no_environment.ts";
import * as grpc from "@grpc/grpc-js";
import { CLIENT_CLOSED, EtcdError, GRPC } from "./errors.ts";
import { targetOf } from "./resolver.ts";
import { type EtcdTls, TlsCredentials } from "./tls.ts";

/** Pause of an endpoint after its first failure in a row, in milliseconds; doubles up to BACKOFF_MAX_MS. */
const BACKOFF_FIRST_MS = 50;
const BACKOFF_MAX_MS = 2_000;
/** The library's own pauses between attempts to connect, in milliseconds. */
const RECONNECT_FIRST_MS = 50;
const RECONNECT_MAX_MS = 1_000;
/** Largest answer taken, in bytes: more does not fit in a message between workers, with room for its other form. */
const RECEIVE_BYTES_MAX = 8 * 1_024 * 1_024;
/** Calls that may wait for an endpoint; more fail at once. Each holds a closure and its request. */
const WAITERS_MAX = 10_000;

/** How the cluster is reached. */
export interface EndpointsOptions {
  /** `host:port` each. */
  readonly addresses: readonly string[];
  /** Unset: without TLS. */
  readonly tls?: EtcdTls;
  /** Quiet time after which a connection is asked for a sign of life, in milliseconds; etcd wants 5,000 or more. */
  readonly keepaliveTimeMs: number;
  /** Time for that sign, in milliseconds; the connection counts as lost then, and its streams end. */
  readonly keepaliveTimeoutMs: number;
  readonly clock: { now(): number };
  /** A number in [0, 1), for jitter. */
  fraction(): number;
  /** Told when the first endpoint becomes, or the last ceases to be, usable. */
  onReachable?(isReachable: boolean, detail: string): void;
}

/** One endpoint. */
export interface Endpoint {
  readonly address: string;
  readonly client: grpc.Client;
}

interface Slot extends Endpoint {
  state: grpc.connectivityState;
  failures: number;
  /** Not chosen before this time. */
  backedOffUntilMs: number;
  lastError: string;
}

interface Waiter {
  resolve(endpoint: Endpoint): void;
  reject(error: EtcdError): void;
}

/** Chooses endpoints: the ready ones in turn. */
export class Endpoints {
  readonly #options: EndpointsOptions;
  readonly #slots: Slot[];
  readonly #waiters = new Set<Waiter>();
  #next: number;
  #wake: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;
  #wasReachable: boolean | undefined;

  constructor(options: EndpointsOptions) {
    this.#options = options;
    this.#slots = options.addresses.map((address): Slot => ({
      address,
      client: new grpc.Client(
        targetOf(address),
        credentialsOf(options.tls, address),
        channelOptions(options),
      ),
      state: grpc.connectivityState.IDLE,
      failures: 0,
      backedOffUntilMs: 0,
      lastError: "",
    }));
    this.#next = Math.floor(options.fraction() * this.#slots.length);
    for (const slot of this.#slots) this.#follow(slot);
  }

  get count(): number {
    return this.#slots.length;
  }

  /** The next endpoint in turn; undefined when none can be used now. */
  take(): Endpoint | undefined {
    const now = this.#options.clock.now();
    const { length } = this.#slots;
    for (let i = 0; i < length; i++) {
      const slot = this.#slots[(this.#next + i) % length]!;
      if (slot.state !== grpc.connectivityState.READY || slot.backedOffUntilMs > now) continue;
      this.#next = (this.#next + i + 1) % length;
      return slot;
    }
    return undefined;
  }

  /** The next endpoint in turn, waiting up to `timeoutMs` for one.
   *  @throws {EtcdError} UNAVAILABLE, unsent, with what is wrong with each; CANCELLED when `signal` aborts. */
  wait(timeoutMs: number, signal?: AbortSignal): Promise<Endpoint> {
    const endpoint = this.take();
    if (endpoint !== undefined) return Promise.resolve(endpoint);
    if (this.#isClosed || this.#waiters.size >= WAITERS_MAX) return Promise.reject(this.#unreachable());
    if (signal?.aborted) return Promise.reject(canceled());
    this.#planWake();
    return new Promise((resolve, reject) => {
      const done = () => {
        this.#waiters.delete(waiter);
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      const waiter: Waiter = {
        resolve(found) {
          done();
          resolve(found);
        },
        reject(error) {
          done();
          reject(error);
        },
      };
      const abort = () => waiter.reject(canceled());
      const timer = setTimeout(() => waiter.reject(this.#unreachable()), Math.max(0, timeoutMs));
      signal?.addEventListener("abort", abort);
      this.#waiters.add(waiter);
    });
  }

  /** An endpoint answered, be it with an error of its own. */
  succeeded(endpoint: Endpoint): void {
    const slot = endpoint as Slot;
    if (slot.failures === 0) return;
    slot.failures = 0;
    slot.backedOffUntilMs = 0;
    this.#changed();
  }

  /** A call failed for the endpoint's or its connection's sake: it pauses, longer with every failure in a row. */
  failed(endpoint: Endpoint, why: string): void {
    const slot = endpoint as Slot;
    const fullMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(slot.failures, 16));
    slot.failures++;
    slot.lastError = why;
    slot.backedOffUntilMs = this.#options.clock.now() + fullMs * (0.5 + this.#options.fraction() / 2);
    this.#changed();
  }

  /** Whether any endpoint can be used, and what is wrong with the others. */
  health(): { ok: boolean; detail: string } {
    const now = this.#options.clock.now();
    const bad = this.#slots.filter((slot) => !isUsable(slot, now));
    if (bad.length === 0) return { ok: true, detail: "" };
    const detail = bad.map((slot) => `${slot.address}: ${slot.lastError || "connecting"}`).join("; ");
    return {
      ok: bad.length < this.#slots.length,
      detail: `${bad.length} of ${this.#slots.length} etcd endpoints cannot be reached (${detail})`,
    };
  }

  /** Closes every connection once the calls on it have ended; those that wait for one fail. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#wake);
    for (const waiter of [...this.#waiters]) waiter.reject(this.#unreachable());
    for (const { client } of this.#slots) client.close();
  }

  /** Keeps `slot.state` true and the connection wanted. */
  #follow(slot: Slot): void {
    if (this.#isClosed) return;
    const channel = slot.client.getChannel();
    const state = channel.getConnectivityState(true);
    if (state !== slot.state) {
      const wasReady = slot.state === grpc.connectivityState.READY;
      slot.state = state;
      if (wasReady) this.failed(slot, "the connection was lost");
      else if (state === grpc.connectivityState.TRANSIENT_FAILURE) {
        slot.lastError = "no connection: refused, out of reach, or TLS failed";
      }
      this.#changed();
    }
    channel.watchConnectivityState(state, Infinity, () => this.#follow(slot));
  }

  /** Hands out what can be used now, and plans the next look. */
  #changed(): void {
    for (const waiter of this.#waiters) {
      const endpoint = this.take();
      if (endpoint === undefined) break;
      waiter.resolve(endpoint);
    }
    if (this.#waiters.size > 0) this.#planWake();
    const { ok, detail } = this.health();
    if (ok !== this.#wasReachable && !(this.#wasReachable === undefined && !ok)) {
      this.#wasReachable = ok;
      this.#options.onReachable?.(ok, detail);
    }
  }

  /** Looks again when the first pause of a connected endpoint ends. */
  #planWake(): void {
    clearTimeout(this.#wake);
    let atMs = Infinity;
    for (const slot of this.#slots) {
      if (slot.state === grpc.connectivityState.READY) atMs = Math.min(atMs, slot.backedOffUntilMs);
    }
    if (atMs === Infinity || this.#isClosed) return;
    this.#wake = setTimeout(() => this.#changed(), Math.max(1, Math.ceil(atMs - this.#options.clock.now())));
  }

  #unreachable(): EtcdError {
    if (this.#isClosed) {
      return new EtcdError(GRPC.UNAVAILABLE, CLIENT_CLOSED, { isUnsent: true });
    }
    return new EtcdError(GRPC.UNAVAILABLE, `etcd: ${this.health().detail || "no endpoint is free"}`, {
      isUnsent: true,
    });
  }
}

function isUsable(slot: Slot, now: number): boolean {
  return slot.state === grpc.connectivityState.READY && slot.backedOffUntilMs <= now;
}

function canceled(): EtcdError {
  return new EtcdError(GRPC.CANCELLED, "the call was cancelled", { isUnsent: true });
}

function credentialsOf(tls: EtcdTls | undefined, address: string): grpc.ChannelCredentials {
  if (tls === undefined) return grpc.credentials.createInsecure();
  return new TlsCredentials(tls, address.slice(0, address.lastIndexOf(":")));
}

function channelOptions(options: EndpointsOptions): grpc.ChannelOptions {
  const serverName = options.tls?.serverName;
  return {
    "grpc.keepalive_time_ms": options.keepaliveTimeMs,
    "grpc.keepalive_timeout_ms": options.keepaliveTimeoutMs,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.initial_reconnect_backoff_ms": RECONNECT_FIRST_MS,
    "grpc.min_reconnect_backoff_ms": RECONNECT_FIRST_MS,
    "grpc.max_reconnect_backoff_ms": RECONNECT_MAX_MS,
    "grpc.max_receive_message_length": RECEIVE_BYTES_MAX,
    "grpc.max_send_message_length": -1,
    "grpc.enable_retries": 0, // what may be tried again is decided here
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.use_local_subchannel_pool": 1,
    ...(serverName === undefined ? {} : { "grpc.default_authority": serverName }),
  };
}
