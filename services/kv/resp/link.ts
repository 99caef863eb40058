/** One gateway worker's stream: its connections, and what is to be sent on them, gathered until the turn ends. */
import type { ServeResponse } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import { type Reply, ReplyWriter } from "./reply.ts";

/** What a link knows of a connection. */
export interface LinkedConnection {
  readonly number: number;
  /** Bytes sent of which the client has not taken all yet. */
  unreadBytes: number;
}

/** Data of one message: what travels between workers is bounded, and short messages let others in between. */
const MESSAGE_BYTES = 1_024 * 1_024;

/** Bytes of one connection that the gateway may send before they are told as taken. */
export const WINDOW_BYTES = 1_024 * 1_024;

/** Gathers and cuts messages. */
export class Link {
  readonly writer = new ReplyWriter();
  isClosed = false;
  readonly #endOfTurn: (fn: () => void) => void;
  #connections: number[] = [];
  #lengths: number[] = [];
  #current: LinkedConnection | undefined;
  #close: number[] = [];
  #abort: number[] = [];
  #takenConnections: number[] = [];
  #takenBytes: number[] = [];
  #isScheduled = false;
  /** Cut and not yet taken. Bounded by the unread bytes of the connections. */
  #ready: ServeResponse[] = [];
  #wake: (() => void) | undefined;

  constructor(endOfTurn: (fn: () => void) => void) {
    this.#endOfTurn = endOfTurn;
  }

  /** Adds a reply for a connection and returns its length. */
  reply(connection: LinkedConnection, reply: Reply, isResp3: boolean): number {
    const { writer } = this;
    const start = writer.length;
    if (reply instanceof Uint8Array) writer.bulk(reply);
    else writer.reply(reply, isResp3);
    const bytes = writer.length - start;
    if (this.#current === connection) this.#lengths[this.#lengths.length - 1]! += bytes;
    else {
      this.#current = connection;
      this.#connections.push(connection.number);
      this.#lengths.push(bytes);
    }
    connection.unreadBytes += bytes;
    if (writer.length >= MESSAGE_BYTES) this.#cut();
    this.#schedule();
    return bytes;
  }

  /** Ends a connection once what was sent to it is written. */
  close(connection: LinkedConnection): void {
    this.#close.push(connection.number);
    this.#current = undefined;
    this.#schedule();
  }

  /** Ends a connection now. */
  abort(connection: LinkedConnection): void {
    this.#abort.push(connection.number);
    this.#schedule();
  }

  /** Tells that bytes of a connection were taken up. */
  taken(connection: LinkedConnection, bytes: number): void {
    this.#takenConnections.push(connection.number);
    this.#takenBytes.push(bytes);
    this.#schedule();
  }

  /** The messages, as they come, until `end`. */
  async *messages(): AsyncGenerator<ServeResponse, void, void> {
    yield { ...message(NO_BYTES, [], []), windowBytes: WINDOW_BYTES };
    for (;;) {
      const next = this.#ready.shift();
      if (next !== undefined) yield next;
      else if (this.isClosed) return;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** Ends `messages`, once all are taken. */
  end(): void {
    this.isClosed = true;
    this.#signal();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#endOfTurn(() => {
      this.#isScheduled = false;
      this.#cut();
      this.#signal();
    });
  }

  #cut(): void {
    let data = this.writer.take();
    let connections = this.#connections;
    let lengths = this.#lengths;
    this.#current = undefined;
    this.#connections = [];
    this.#lengths = [];
    while (data.length > MESSAGE_BYTES) {
      const head = splitAt(MESSAGE_BYTES, connections, lengths);
      this.#ready.push(message(data.subarray(0, MESSAGE_BYTES), head.connections, head.lengths));
      data = data.subarray(MESSAGE_BYTES);
      connections = head.restConnections;
      lengths = head.restLengths;
    }
    const { length } = this.#close;
    const hasMore = length + this.#abort.length + this.#takenConnections.length > 0;
    if (data.length === 0 && !hasMore) return;
    const last = message(data, connections, lengths);
    last.close = this.#close;
    last.abort = this.#abort;
    last.takenConnection = this.#takenConnections;
    last.takenBytes = this.#takenBytes;
    this.#ready.push(last);
    this.#close = [];
    this.#abort = [];
    this.#takenConnections = [];
    this.#takenBytes = [];
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

const NO_BYTES = new Uint8Array(0);

function message(data: Uint8Array, connections: number[], lengths: number[]): ServeResponse {
  return {
    $typeName: "aetherflow.kv.v1.ServeResponse",
    pieceConnection: connections,
    pieceBytes: lengths,
    data: data as Uint8Array<ArrayBuffer>,
    close: [],
    abort: [],
    takenConnection: [],
    takenBytes: [],
    windowBytes: 0,
  };
}

/** Cuts the pieces after `bytes` bytes; a piece may be cut in two. */
function splitAt(bytes: number, connections: readonly number[], lengths: readonly number[]) {
  let left = bytes;
  let i = 0;
  for (; left > lengths[i]!; i++) left -= lengths[i]!;
  const rest = lengths[i]! - left;
  const from = rest > 0 ? i : i + 1;
  const restLengths = lengths.slice(from);
  if (rest > 0) restLengths[0] = rest;
  return {
    connections: connections.slice(0, i + 1),
    lengths: [...lengths.slice(0, i), left],
    restConnections: connections.slice(from),
    restLengths,
  };
}
