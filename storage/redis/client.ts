/** A connection to a Redis server, or to a cluster: commands of one turn travel together, a lost connection is made again, and
 *  whoever asks while there is none is told so at once. */
import "../no_environment.ts";
import { Cluster, Redis } from "ioredis";
import { RedisError } from "./errors.ts";

/** Where to connect, and as whom. */
export interface RedisClientOptions {
  /** One server, or nodes of a cluster. */
  readonly nodes: readonly { readonly hostname: string; readonly port: number }[];
  readonly cluster: boolean;
  /** Empty: the default user. */
  readonly username: string;
  /** Empty: none is sent. */
  readonly password: string;
  readonly database: number;
  /** Told when the connection came or went. */
  readonly onState?: (isReady: boolean, reason: string) => void;
}

/** A Lua script. Its keys must be on one node: they share what stands in braces. */
export interface RedisScript {
  readonly lua: string;
  readonly keys: number;
}

/** What a command may be given. */
export type RedisArgument = string | number;

/** How long a connection may take until it is given up, in milliseconds. */
const CONNECT_TIMEOUT_MS = 2_000;
/** How long a server may send nothing while it is asked something, until the connection is given up and everybody who waits
 *  is told, in milliseconds. */
const ANSWER_TIMEOUT_MS = 2_000;
/** Pauses between attempts to connect, in milliseconds: the n-th times n, up to the largest. */
const RETRY_STEP_MS = 50;
const RETRY_MAX_MS = 1_000;

/** A client. */
export interface RedisClient {
  /** Whether commands can be sent now. */
  readonly isReady: boolean;
  /** Sends a command; its answer as ioredis has it, texts for bulk strings. Rejects with what `redisErrorOf` understands. */
  send(command: string, args: readonly RedisArgument[]): Promise<unknown>;
  /** Runs a script, sending its text only to servers that do not know it. Rejects as `send` does. */
  run(script: string, keys: readonly string[], args: readonly RedisArgument[]): Promise<unknown>;
  /** Ends the connection; what is under way is told `unavailable`. Idempotent. */
  close(): Promise<void>;
}

/** Begins to connect and resolves when that succeeded, or failed for the first time: the client goes on trying. */
export async function openRedisClient(
  options: RedisClientOptions,
  scripts: Readonly<Record<string, RedisScript>>,
): Promise<RedisClient> {
  const client = new Client(options, scripts);
  await client.firstAttempt;
  return client;
}

class Client implements RedisClient {
  isReady = false;
  readonly firstAttempt: Promise<void>;
  readonly #redis: Redis | Cluster;
  #isClosed = false;
  #reason = "there is no connection";

  constructor(options: RedisClientOptions, scripts: Readonly<Record<string, RedisScript>>) {
    const redis = connect(options);
    this.#redis = redis;
    for (const [name, { lua, keys }] of Object.entries(scripts)) {
      redis.defineCommand(name, { lua, numberOfKeys: keys });
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.firstAttempt = promise;
    redis.on("ready", () => {
      this.isReady = true;
      this.#reason = "the connection was closed";
      options.onState?.(true, "");
      resolve();
    });
    redis.on("error", (error: Error) => {
      // Of a cluster the reason lies within.
      const { lastNodeError } = error as Error & { lastNodeError?: Error };
      this.#reason = (lastNodeError ?? error).message || error.name;
      resolve();
    });
    redis.on("close", () => {
      if (this.isReady && !this.#isClosed) options.onState?.(false, this.#reason);
      this.isReady = false;
      resolve();
    });
  }

  send(command: string, args: readonly RedisArgument[]): Promise<unknown> {
    return this.#call(command, args);
  }

  run(script: string, keys: readonly string[], args: readonly RedisArgument[]): Promise<unknown> {
    return this.#call(script, [...keys, ...args]);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.isReady = false;
    const { status } = this.#redis;
    // Between two attempts to connect there is nothing to end, and nothing tells of an end.
    const ended = status === "end" || status === "reconnecting"
      ? Promise.resolve()
      : new Promise<void>((resolve) => this.#redis.once("end", () => resolve()));
    this.#redis.disconnect();
    await ended;
  }

  #call(name: string, args: readonly RedisArgument[]): Promise<unknown> {
    if (!this.isReady) return Promise.reject(new RedisError("unavailable", this.#reason));
    const redis = this.#redis as unknown as Record<string, (...args: RedisArgument[]) => Promise<unknown>>;
    return redis[name]!(...args);
  }
}

function connect({ nodes, cluster, username, password, database }: RedisClientOptions): Redis | Cluster {
  const common = {
    ...(username === "" ? {} : { username }),
    ...(password === "" ? {} : { password }),
    connectTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: ANSWER_TIMEOUT_MS,
    // Who asks is told at once: waiting in a queue here would be waiting without a bound.
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    disableClientInfo: true,
  };
  const retry = (attempt: number) => Math.min(attempt * RETRY_STEP_MS, RETRY_MAX_MS);
  if (cluster) {
    return new Cluster(nodes.map(({ hostname, port }) => ({ host: unbracketed(hostname), port })), {
      redisOptions: common,
      enableOfflineQueue: false,
      enableAutoPipelining: true,
      clusterRetryStrategy: retry,
      slotsRefreshTimeout: CONNECT_TIMEOUT_MS,
      // Nodes are named as their permissions are.
      dnsLookup: (address, callback) => callback(null, address),
    });
  }
  const [{ hostname, port }] = nodes as readonly [{ hostname: string; port: number }];
  return new Redis({
    ...common,
    host: unbracketed(hostname),
    port,
    db: database,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    retryStrategy: retry,
  });
}

/** An IPv6 address without its brackets. */
function unbracketed(hostname: string): string {
  return hostname.startsWith("[") ? hostname.slice(1, -1) : hostname;
}
