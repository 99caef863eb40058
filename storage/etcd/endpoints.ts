/** The endpoints of a cluster: one connection each, which of them may be used now, and whose turn it is.
 *
 *      connecting ──► ready ── a call fails for the connection's sake ──► backed off ── time is up, or it answers ──► ready
 *          ▲                                                                 │
 *          └──────────────────────── connection lost ◄──────────────────────┘ */
import { type ChannelState, GrpcChannel, type GrpcTls } from "../../transport/grpc/mod.ts";
import { CLIENT_CLOSED, EtcdError, GRPC } from "./errors.ts";

/** Pause of an endpoint after its first failure in a row, in milliseconds; doubles up to BACKOFF_MAX_MS. */
const BACKOFF_FIRST_MS = 50;
const BACKOFF_MAX_MS = 2_000;
/** Pauses between attempts to connect to an endpoint, in milliseconds. */
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
  readonly tls?: GrpcTls;
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
  readonly channel: GrpcChannel;
}

interface Slot extends Endpoint {
  isReady: boolean;
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
    this.#slots = options.addresses.map((address) => this.#open(address));
    this.#next = Math.floor(options.fraction() * this.#slots.length);
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
      if (!slot.isReady || slot.backedOffUntilMs > now) continue;
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
    for (const { channel } of this.#slots) channel.close();
  }

  /** An endpoint whose connection is kept from now on. */
  #open(address: string): Slot {
    const { tls, keepaliveTimeMs, keepaliveTimeoutMs, clock, fraction } = this.#options;
    const channel = new GrpcChannel({
      address,
      ...(tls === undefined ? {} : { tls }),
      isEager: true,
      keepaliveTimeMs,
      keepaliveTimeoutMs,
      reconnectFirstMs: RECONNECT_FIRST_MS,
      reconnectMaxMs: RECONNECT_MAX_MS,
      maxReceiveBytes: RECEIVE_BYTES_MAX,
      clock,
      fraction,
      onState: (state) => this.#follow(slot, state),
    });
    const slot: Slot = { address, channel, isReady: false, failures: 0, backedOffUntilMs: 0, lastError: "" };
    return slot;
  }

  #follow(slot: Slot, state: ChannelState): void {
    if (this.#isClosed) return;
    const wasReady = slot.isReady;
    slot.isReady = state === "ready";
    if (wasReady) this.failed(slot, `the connection was lost: ${slot.channel.lastError}`);
    else if (state === "waiting") slot.lastError = `no connection: ${slot.channel.lastError}`;
    this.#changed();
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
      if (slot.isReady) atMs = Math.min(atMs, slot.backedOffUntilMs);
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
  return slot.isReady && slot.backedOffUntilMs <= now;
}

function canceled(): EtcdError {
  return new EtcdError(GRPC.CANCELLED, "the call was cancelled", { isUnsent: true });
}
