/** A connection that hears what others NOTIFY, and is made again when it is lost. */
import {
  answerInTime,
  type Connections,
  connectionsOf,
  endConnections,
  type PostgresOptions,
  retryPauseMs,
} from "./client.ts";

/** Who is told. */
export interface ListenerHandlers {
  /** What was said, in the order of the commits that said it. */
  readonly onNotice: (payload: string) => void;
  /** The connection was lost and is there again: what was said meanwhile is lost. */
  readonly onGap: () => void;
}

/** How often a connection that hears nothing is asked whether it is there, in milliseconds. */
const HEARTBEAT_MS = 10_000;

/** Listens from when it resolves on. Rejects with a PostgresError when the first attempt fails. */
export async function openListener(
  options: PostgresOptions,
  channel: string,
  handlers: ListenerHandlers,
): Promise<PostgresListener> {
  const listener = new PostgresListener(options, channel, handlers);
  await listener.start();
  return listener;
}

/** The connection. */
export class PostgresListener {
  readonly #options: PostgresOptions;
  readonly #channel: string;
  readonly #handlers: ListenerHandlers;
  #connection: Connections | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;
  #isClosed = false;

  /** Use openListener. */
  constructor(options: PostgresOptions, channel: string, handlers: ListenerHandlers) {
    this.#options = options;
    this.#channel = channel;
    this.#handlers = handlers;
  }

  /** The first attempt, or the next one. */
  async start(): Promise<void> {
    const connection: Connections = connectionsOf(this.#options, 1, {
      onnotify: (_channel, payload) => {
        if (this.#connection === connection) this.#handlers.onNotice(payload);
      },
      onclose: () => {
        if (this.#connection === connection) this.#lose(connection);
      },
    });
    try {
      await this.#ask(connection, `LISTEN "${this.#channel}"`);
    } catch (error) {
      endConnections(connection);
      throw error;
    }
    if (this.#isClosed) {
      await endConnections(connection);
      return;
    }
    this.#connection = connection;
    this.#attempt = 0;
    this.#armHeartbeat(connection);
  }

  /** Lets go of the connection. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection !== undefined) await endConnections(connection);
  }

  #ask(connection: Connections, sql: string): Promise<unknown> {
    return answerInTime(connection.unsafe(sql), this.#options.statementTimeoutMs);
  }

  #armHeartbeat(connection: Connections): void {
    this.#timer = setTimeout(() => {
      this.#ask(connection, "SELECT 1").then(
        () => this.#connection === connection && this.#armHeartbeat(connection),
        () => this.#connection === connection && this.#lose(connection),
      );
    }, HEARTBEAT_MS);
  }

  #lose(connection: Connections): void {
    this.#connection = undefined;
    endConnections(connection);
    this.#retry();
  }

  #retry(): void {
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    this.#timer = setTimeout(() => {
      this.start().then(
        () => this.#connection !== undefined && this.#handlers.onGap(),
        () => this.#retry(),
      );
    }, retryPauseMs(this.#attempt++));
  }
}
