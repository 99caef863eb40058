/** A client's stream of lease keepalives that outlives the connections it runs on: what was asked and not answered when a
 *  connection ended is asked again on the next one. Doing so twice only gives the lease its time once more. */
import type { LeaseKeepAliveRequest, LeaseKeepAliveResponse } from "$proto/etcdserverpb/rpc_pb.ts";
import type { EtcdError } from "../../../../storage/etcd/mod.ts";
import { Resuming, type StreamSource } from "./resuming.ts";

/** Requests that may wait for their answers before no more should be given. */
export const KEEPALIVES_MAX = 1_024;

/** One connection's stream. */
export interface KeepAliveConnection {
  send(request: LeaseKeepAliveRequest): void;
  cancel(): void;
}

/** Where streams come from. */
export type KeepAliveSource = StreamSource<KeepAliveConnection, LeaseKeepAliveResponse>;

/** One client's stream. */
export class ResumingKeepAlive {
  readonly #stream: Resuming<KeepAliveConnection, LeaseKeepAliveResponse>;
  readonly #onReady: () => void;
  /** Not answered yet, in order: etcd answers in order. */
  #waiting: LeaseKeepAliveRequest[] = [];
  /** How many of those this connection was sent. */
  #sent = 0;
  #answers: LeaseKeepAliveResponse[] = [];

  /** `onReady` is called when `take` has something, and when the stream has failed. */
  constructor(source: KeepAliveSource, onReady: () => void) {
    this.#onReady = onReady;
    this.#stream = new Resuming(source, {
      onOpen: (connection) => {
        this.#sent = 0;
        this.#send(connection);
      },
      onAnswer: (answer) => {
        this.#waiting.shift();
        this.#sent--;
        this.#answers.push(answer);
        this.#onReady();
      },
      onClosed: () => this.#onReady(),
    });
  }

  /** True once it was closed or has failed. */
  get isClosed(): boolean {
    return this.#stream.isClosed;
  }

  /** Why it failed; undefined when it did not. */
  get failure(): EtcdError | undefined {
    return this.#stream.failure;
  }

  /** Whether no more requests should be given until some answers are taken. */
  get isFull(): boolean {
    return this.#waiting.length + this.#answers.length >= KEEPALIVES_MAX;
  }

  /** Whether everything was answered and taken. */
  get isIdle(): boolean {
    return this.#waiting.length === 0 && this.#answers.length === 0;
  }

  /** Takes a request of the client. The first one opens the connection. */
  request(request: LeaseKeepAliveRequest): void {
    const { isClosed, connection } = this.#stream;
    if (isClosed) return;
    this.#waiting.push(request);
    if (connection === undefined) this.#stream.open();
    else this.#send(connection);
  }

  /** The next answer for the client; undefined when there is none now. */
  take(): LeaseKeepAliveResponse | undefined {
    return this.#answers.shift();
  }

  /** Ends the stream. Idempotent. */
  close(): void {
    if (!this.#stream.isClosed) this.#answers = [];
    this.#stream.close();
  }

  #send(connection: KeepAliveConnection): void {
    while (this.#sent < this.#waiting.length) connection.send(this.#waiting[this.#sent++]!);
  }
}
