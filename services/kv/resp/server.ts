/** All Redis connections of the store: who they are, what they share, and the bounds on all of them together. */
import type { ServeRequest, ServeResponse } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import type { Caller, KvBackend } from "../api.ts";
import { prefixRange } from "../key.ts";
import { AbsentWatches } from "./absent_watches.ts";
import { CommandTable } from "./commands/table.ts";
import { KeyspaceEvents } from "./events.ts";
import { Link } from "./link.ts";
import type { ParserLimits } from "./parser.ts";
import { PubSub } from "./pubsub.ts";
import { Failure } from "./reply.ts";
import { CursorTable } from "./scan.ts";
import { Session } from "./session.ts";
import type { KeyRange } from "../key.ts";

/** What a client may take. */
export interface RedisLimits {
  /** Longest value, in bytes: `proto-max-bulk-len`. */
  readonly valueBytesMax: number;
  /** Most unread bytes of answers of one connection; it is closed beyond. */
  readonly outputBytesMax: number;
}

/** Figures of the store, for INFO. */
export interface StoreFigures {
  /** Bytes of keys, values and history, and the bound on them. */
  readonly bytes: number;
  readonly quotaBytes: number;
  readonly durability: string;
  readonly engine: string;
  readonly isWritable: boolean;
  readonly version: string;
}

/** Somebody who has logged in. */
export interface RedisLogin {
  readonly username: string;
  readonly caller: Caller;
  /** Ends the looking at whether it still holds. Idempotent. */
  close(): void;
}

/** Users whom the store does not know itself. */
export interface RedisUsers {
  /** Who name and password, or an API key as the password, prove somebody to be. `onChange` is told when that may do
   *  something else and, with undefined, when it may do nothing more. @throws {KvError} `authFailed`. */
  login(
    shown: { readonly username: string; readonly secret: string },
    onChange: (caller: Caller | undefined) => void,
  ): Promise<RedisLogin>;
}

/** What the server is made of. */
export interface RedisDeps {
  readonly backend: KvBackend;
  /** What Redis's keys begin with in the store; at least one byte. */
  readonly keyPrefix: Uint8Array;
  readonly limits: RedisLimits;
  /** Whether the store's own users must authenticate. */
  readonly isAuthEnabled: () => boolean;
  /** The product's users, asked where a client must show who it is; undefined where there are none. */
  readonly products?: RedisUsers;
  /** Whether writes are applied in the order of the calls, in the same turn: embedded engines do. */
  readonly startsInOrder: boolean;
  /** Time of day in milliseconds since 1970. */
  readonly clock: { nowMs(): number };
  /** Calls `fn` when the events that wait now have been handled. */
  readonly endOfTurn: (fn: () => void) => void;
  readonly random: { fill(target: Uint8Array): Uint8Array };
  readonly log: { error(message: string, fields?: Record<string, unknown>): void };
  readonly figures: () => StoreFigures;
}

/** Bytes of writes under way above which commands wait; the log takes 32 MiB of all its users. */
const STARTED_BYTES_MAX = 8 * 1_024 * 1_024;
/** Bytes of commands that are not whole, of all connections. */
const BUFFERED_BYTES_MAX = 256 * 1_024 * 1_024;
/** Unread bytes of answers, of all connections; each one's first UNREAD_FREE_BYTES do not count, since small amounts are
 *  told of late. */
const UNREAD_BYTES_MAX = 512 * 1_024 * 1_024;
const UNREAD_FREE_BYTES = 64 * 1_024;
/** What a command may have beside its longest values. */
const COMMAND_EXTRA_BYTES = 64 * 1_024 * 1_024;

/** The server. */
export class RedisServer {
  readonly backend: KvBackend;
  readonly limits: RedisLimits;
  readonly parserLimits: ParserLimits;
  readonly clock: { nowMs(): number };
  readonly endOfTurn: (fn: () => void) => void;
  readonly startsInOrder: boolean;
  readonly isAuthEnabled: () => boolean;
  readonly products: RedisUsers | undefined;
  readonly figures: () => StoreFigures;
  readonly commands = new CommandTable();
  readonly absentWatches = new AbsentWatches();
  readonly pubsub: PubSub;
  readonly events: KeyspaceEvents;
  readonly cursors: CursorTable;
  /** Every key of Redis clients. */
  readonly keyRange: KeyRange;
  readonly keyPrefix: Uint8Array;
  readonly startedMs: number;
  /** Sessions by id. Bounded by the gateway's connections. */
  readonly sessions: Map<number, Session> = new Map();
  readonly runId: string;
  connectionsReceived = 0;
  commandsProcessed = 0;
  connectionsAborted = 0;
  #nextId = 1;
  #startedBytes = 0;
  #bufferedBytes = 0;
  #unreadBytes = 0;
  /** Sessions that wait for room; each once or a few times. */
  #waiting: Session[] = [];
  readonly #log: RedisDeps["log"];

  constructor(deps: RedisDeps) {
    if (deps.keyPrefix.length === 0) throw new RangeError("Cannot serve Redis without a key prefix");
    this.backend = deps.backend;
    this.limits = deps.limits;
    this.parserLimits = {
      bulkBytesMax: deps.limits.valueBytesMax,
      commandBytesMax: deps.limits.valueBytesMax + COMMAND_EXTRA_BYTES,
    };
    this.clock = deps.clock;
    this.endOfTurn = deps.endOfTurn;
    this.startsInOrder = deps.startsInOrder;
    this.isAuthEnabled = deps.isAuthEnabled;
    this.products = deps.products;
    this.figures = deps.figures;
    this.keyPrefix = deps.keyPrefix;
    this.keyRange = prefixRange(deps.keyPrefix);
    this.startedMs = deps.clock.nowMs();
    this.#log = deps.log;
    const random = deps.random.fill(new Uint8Array(24));
    this.runId = Array.from(random.subarray(0, 20), (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.cursors = new CursorTable(random[20]! * 65_536 + random[21]! * 256 + random[22]!);
    this.pubsub = new PubSub(this);
    this.events = new KeyspaceEvents(this);
  }

  /** Whether so many bytes are under way that further commands wait. */
  get isFull(): boolean {
    return this.#startedBytes > STARTED_BYTES_MAX;
  }

  get unreadBytes(): number {
    return this.#unreadBytes;
  }

  /** Serves the connections of one gateway worker until its requests end or fail. */
  async *serve(requests: AsyncIterable<ServeRequest>): AsyncGenerator<ServeResponse, void, void> {
    const link = new Link(this.endOfTurn);
    const sessions = new Map<number, Session>();
    const reading = this.#read(requests, link, sessions);
    try {
      yield* link.messages();
    } finally {
      link.isClosed = true;
      for (const session of sessions.values()) this.remove(session);
    }
    await reading;
  }

  /** The key as the store has it. */
  storeKey(key: Uint8Array): Uint8Array {
    const { keyPrefix } = this;
    const whole = new Uint8Array(keyPrefix.length + key.length);
    whole.set(keyPrefix);
    whole.set(key, keyPrefix.length);
    return whole;
  }

  /** The key as clients have it; a view. */
  clientKey(storeKey: Uint8Array): Uint8Array {
    return storeKey.subarray(this.keyPrefix.length);
  }

  /** A command with so many bytes is under way. */
  started(bytes: number): void {
    this.#startedBytes += bytes;
  }

  finished(bytes: number): void {
    this.#startedBytes -= bytes;
    if (this.#waiting.length === 0 || this.#startedBytes > STARTED_BYTES_MAX / 2) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const session of waiting) session.run();
  }

  /** Runs the session again when there is room. */
  whenRoom(session: Session): void {
    this.#waiting.push(session);
  }

  /** A session holds more, or fewer, bytes of unfinished commands. */
  buffered(session: Session, more: number): void {
    this.#bufferedBytes += more;
    if (more > 0 && this.#bufferedBytes > BUFFERED_BYTES_MAX) this.#drop(session);
  }

  /** More was sent to a session. */
  sent(session: Session, bytes: number): void {
    const before = session.unreadBytes - bytes;
    this.#unreadBytes += excess(session.unreadBytes) - excess(before);
    if (session.unreadBytes > this.limits.outputBytesMax) this.#drop(session);
    else if (this.#unreadBytes > UNREAD_BYTES_MAX && excess(session.unreadBytes) > 0) this.#drop(session);
  }

  /** A session's unread bytes changed. */
  unread(session: Session, change: number): void {
    const before = excess(session.unreadBytes);
    session.unreadBytes += change;
    this.#unreadBytes += excess(session.unreadBytes) - before;
  }

  /** Lets go of a session. Idempotent. */
  remove(session: Session): void {
    if (session.isClosed) return;
    this.#bufferedBytes -= session.bufferedBytes;
    this.#unreadBytes -= excess(session.unreadBytes);
    session.closed();
    this.sessions.delete(session.id);
    this.pubsub.leaveAll(session);
  }

  /** Logs a fault of the code and says what clients are told of it. */
  fault(error: unknown): Failure {
    this.#log.error("redis command failed", { error });
    return new Failure("ERR internal error");
  }

  #drop(session: Session): void {
    this.connectionsAborted++;
    session.abort();
  }

  async #read(
    requests: AsyncIterable<ServeRequest>,
    link: Link,
    sessions: Map<number, Session>,
  ): Promise<void> {
    try {
      for await (const request of requests) {
        if (link.isClosed) break;
        this.#take(request, link, sessions);
      }
      // The gateway drains: what was begun is answered.
      await Promise.all([...sessions.values()].map((session) => session.idle()));
    } catch {
      // The gateway has gone; so have its connections.
    } finally {
      link.end();
    }
  }

  #take(request: ServeRequest, link: Link, sessions: Map<number, Session>): void {
    for (const { connection, remoteAddress, localAddress, mustAuthenticate } of request.opened) {
      const peer = { remoteAddress, localAddress, mustAuthenticate };
      const session = new Session(this, link, connection, this.#nextId++, peer);
      this.connectionsReceived++;
      sessions.set(connection, session);
      this.sessions.set(session.id, session);
    }
    const { writtenConnection, writtenBytes } = request;
    for (let i = 0; i < writtenConnection.length; i++) {
      sessions.get(writtenConnection[i]!)?.written(writtenBytes[i]!);
    }
    const { data, pieceConnection, pieceBytes } = request;
    let at = 0;
    for (let i = 0; i < pieceConnection.length; i++) {
      const end = at + pieceBytes[i]!;
      sessions.get(pieceConnection[i]!)?.receive(data.subarray(at, end));
      at = end;
    }
    for (const connection of request.closed) {
      const session = sessions.get(connection);
      if (session === undefined) continue;
      sessions.delete(connection);
      this.remove(session);
    }
  }
}

function excess(bytes: number): number {
  return Math.max(0, bytes - UNREAD_FREE_BYTES);
}
