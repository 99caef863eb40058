/** A bounded pool of connections to a PostgreSQL server: statements with an answer or an error in time. Each statement is a
 *  transaction of its own; what belongs together is a function of the database's, so that no transaction is ever left open
 *  by a connection that is lost half-way. */
import "../no_environment.ts";
import postgres from "postgres";
import { PostgresError, postgresErrorOf } from "./errors.ts";

/** Where to connect, as whom, and within which bounds. */
export interface PostgresOptions {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly username: string;
  /** Empty: none is sent. */
  readonly password: string;
  /** Schema of the tables: a lower-case name. */
  readonly schema: string;
  /** Most connections at a time, that of a listener apart. */
  readonly connections: number;
  /** Time for one statement, after which the server ends it. */
  readonly statementTimeoutMs: number;
  /** `require`: encrypted, and the server's certificate is checked. */
  readonly ssl: "disable" | "require";
  /** As what the server lists the connections. */
  readonly applicationName: string;
}

/** A value to bind. Arrays go as `arrayText`, 64-bit numbers as texts. */
export type PostgresValue = string | number | boolean | Uint8Array | null;
/** One row: columns by name. 64-bit numbers are numbers, numeric and json are texts. */
export type PostgresRow = Readonly<Record<string, unknown>>;

/** Statements under way or waiting for a connection; more are refused, since waiting longer than this is waiting in vain. */
const RUNNING_MAX = 10_000;
/** How long a connection may take until it is given up, in milliseconds. */
const CONNECT_TIMEOUT_MS = 5_000;
/** Pauses between attempts to connect, in milliseconds: doubled each time, up to the largest. */
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 1_000;
/** How much longer than the server's own limit a statement is waited for: then it is the network that fails. */
const ANSWER_SLACK_MS = 2_000;
/** How long a lock of rows is waited for, as a part of a statement's time. */
const LOCK_PART = 0.5;

/** How long connections that are idle may take to end, in seconds. One that the server ended in the middle of a statement
 *  would count as busy for good. */
const END_TIMEOUT_S = 0.1;

/** Ends connections over which nothing is under way. */
export function endConnections(connections: Connections): Promise<void> {
  return connections.end({ timeout: END_TIMEOUT_S });
}

/** The library's connections. */
export type Connections = postgres.Sql<{ bigint: number }>;

/** Connections as the options say; none is made before it is needed. */
export function connectionsOf(
  options: PostgresOptions,
  count: number,
  more: { readonly onnotify?: (channel: string, payload: string) => void; readonly onclose?: () => void } =
    {},
): Connections {
  const { host, port, database, username, password, schema, statementTimeoutMs, ssl } = options;
  return postgres({
    host: host.startsWith("[") ? host.slice(1, -1) : host,
    port,
    database,
    username,
    // With none at all the library would look elsewhere.
    password: () => password,
    max: count,
    ssl: ssl === "require" ? { rejectUnauthorized: true } : false,
    connect_timeout: CONNECT_TIMEOUT_MS / 1_000,
    backoff: (attempt: number) => retryPauseMs(attempt) / 1_000,
    // Arrays are written as texts, so that the server's types need not be asked for.
    fetch_types: false,
    onnotice: () => {},
    connection: {
      application_name: options.applicationName,
      search_path: schema,
      statement_timeout: statementTimeoutMs,
      lock_timeout: Math.ceil(statementTimeoutMs * LOCK_PART),
      idle_in_transaction_session_timeout: statementTimeoutMs,
      // Compiling a statement takes longer than any here runs; a wrong estimate would cause it.
      jit: "off",
    },
    types: {
      bigint: { to: 20, from: [20], parse: Number, serialize: String },
      json: { to: 114, from: [114, 3802], parse: String, serialize: String },
    },
    ...more,
  } as postgres.Options<{ bigint: postgres.PostgresType<number> }>) as unknown as Connections;
}

/** The pause before the n-th attempt, in milliseconds. */
export function retryPauseMs(attempt: number): number {
  return Math.min(RETRY_FIRST_MS * 2 ** attempt, RETRY_MAX_MS);
}

/** Waits for an answer as long as one may take. Rejects with a PostgresError. */
export async function answerInTime<T>(answer: PromiseLike<T>, statementTimeoutMs: number): Promise<T> {
  const late = Promise.withResolvers<never>();
  const waitMs = statementTimeoutMs + ANSWER_SLACK_MS;
  const timer = setTimeout(() => {
    late.reject(new PostgresError("unavailable", `no answer within ${waitMs} ms`, { isUncertain: true }));
  }, waitMs);
  try {
    return await Promise.race([answer, late.promise]);
  } catch (error) {
    throw postgresErrorOf(error);
  } finally {
    clearTimeout(timer);
  }
}

/** The pool. */
export class PostgresClient {
  readonly #options: PostgresOptions;
  #connections: Connections;
  #running = 0;
  #isClosed = false;
  /** Called when nothing is under way any more. */
  #onIdle = () => {};

  constructor(options: PostgresOptions) {
    this.#options = options;
    this.#connections = connectionsOf(options, options.connections);
  }

  /** Runs one statement, prepared the first time on each connection. Rejects with a PostgresError. */
  async query(text: string, values: readonly PostgresValue[] = []): Promise<readonly PostgresRow[]> {
    if (this.#isClosed) throw new PostgresError("unavailable", "the connections are closed");
    if (this.#running >= RUNNING_MAX) {
      throw new PostgresError("unavailable", `${RUNNING_MAX} statements wait for the server`);
    }
    this.#running++;
    const connections = this.#connections;
    try {
      const answer = connections.unsafe(text, values as never[], { prepare: true });
      return await answerInTime(answer, this.#options.statementTimeoutMs);
    } catch (error) {
      if (error instanceof PostgresError && error.cause === undefined) this.#replace(connections);
      throw error;
    } finally {
      if (--this.#running === 0) this.#onIdle();
    }
  }

  /** Ends the connections once what is under way has its answer. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // Every statement ends in time.
    if (this.#running > 0) await new Promise<void>((resolve) => this.#onIdle = resolve);
    await endConnections(this.#connections);
  }

  /** Connections over which nothing comes any more are left, with whoever waits for them. */
  #replace(silent: Connections): void {
    if (this.#connections !== silent || this.#isClosed) return;
    this.#connections = connectionsOf(this.#options, this.#options.connections);
    endConnections(silent);
  }
}

/** A `text[]` as the server reads it. */
export function arrayText(values: readonly string[]): string {
  const quoted = values.map((value) => `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`);
  return `{${quoted.join(",")}}`;
}

/** A `bytea[]` as the server reads it. */
export function bytesArrayText(values: readonly (Uint8Array | undefined)[]): string {
  const quoted = values.map((value) => value === undefined ? "NULL" : `"\\\\x${value.toHex()}"`);
  return `{${quoted.join(",")}}`;
}

/** A text without NUL, which PostgreSQL does not keep; `originalText` gives it back. Order and equality stay as they are. */
export function storableText(text: string): string {
  return text.replace(/[\0\uFFFF]/g, (unit) => unit === "\0" ? "\uFFFF0" : "\uFFFF1");
}

/** What `storableText` was given. */
export function originalText(text: string): string {
  return text.replace(/\uFFFF[01]/g, (pair) => pair === "\uFFFF0" ? "\0" : "\uFFFF");
}
