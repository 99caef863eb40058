/** A client's stream of lease keepalives that outlives the connections it runs on: what was asked and not answered when a
 *  connection ended is asked again on the next one. Doing so twice only gives the lease its time once more. */
import type { LeaseKeepAliveRequest, LeaseKeepAliveResponse } from "$proto/etcdserverpb/rpc_pb.ts";
import type { EtcdError } from "../../../../storage/etcd/mod.ts";

/** Requests that may wait for their answers before no more should be given. */
export const KEEPALIVES_MAX = 1_024;

/** One connection's stream. */
export interface KeepAliveConnection {
  send(request: LeaseKeepAliveRequest): void;
  cancel(): void;
}

/** What a connection tells. */
export interface KeepAliveListener {
  onAnswer(answer: LeaseKeepAliveResponse): void;
  onEnd(error: EtcdError | undefined): void;
}

/** Where streams come from; as WatchSource has it. */
export interface KeepAliveSource {
  open(listener: KeepAliveListener, tries: number): Promise<KeepAliveConnection>;
  mayResume(error: EtcdError | undefined): boolean;
}

/** One client's stream. */
export class ResumingKeepAlive {
  readonly #source: KeepAliveSource;
  readonly #onReady: () => void;
  /** Not answered yet, in order: etcd answers in order. */
  #waiting: LeaseKeepAliveRequest[] = [];
  /** How many of those this connection was sent. */
  #sent = 0;
  #answers: LeaseKeepAliveResponse[] = [];
  #connection: KeepAliveConnection | undefined;
  #isOpening = false;
  #isClosed = false;
  #failure: EtcdError | undefined;

  /** `onReady` is called when `take` has something, and when the stream has failed. */
  constructor(source: KeepAliveSource, onReady: () => void) {
    this.#source = source;
    this.#onReady = onReady;
  }

  /** True once it was closed or has failed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Why it failed; undefined when it did not. */
  get failure(): EtcdError | undefined {
    return this.#failure;
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
    if (this.#isClosed) return;
    this.#waiting.push(request);
    if (this.#connection === undefined) this.#open(0);
    else this.#send();
  }

  /** The next answer for the client; undefined when there is none now. */
  take(): LeaseKeepAliveResponse | undefined {
    return this.#answers.shift();
  }

  /** Ends the stream. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#answers = [];
    this.#connection?.cancel();
    this.#onReady();
  }

  #open(tries: number): void {
    if (this.#isOpening || this.#isClosed) return;
    this.#isOpening = true;
    let hasEnded = false;
    let hasAnswered = false;
    const listener: KeepAliveListener = {
      onAnswer: (answer) => {
        hasAnswered = true;
        if (hasEnded || this.#isClosed) return;
        this.#waiting.shift();
        this.#sent--;
        this.#answers.push(answer);
        this.#onReady();
      },
      onEnd: (error) => {
        hasEnded = true;
        if (this.#connection !== undefined) this.#lost(error, hasAnswered ? 0 : tries + 1);
      },
    };
    this.#source.open(listener, tries).then(
      (connection) => {
        this.#isOpening = false;
        if (this.#isClosed) return connection.cancel();
        this.#connection = connection;
        this.#sent = 0;
        if (hasEnded) return this.#lost(undefined, tries + 1);
        this.#send();
      },
      (error) => {
        this.#isOpening = false;
        this.#lost(error, tries + 1);
      },
    );
  }

  #send(): void {
    while (this.#sent < this.#waiting.length) this.#connection!.send(this.#waiting[this.#sent++]!);
  }

  #lost(error: EtcdError | undefined, tries: number): void {
    this.#connection = undefined;
    if (this.#isClosed) return;
    if (this.#source.mayResume(error)) return this.#open(tries);
    this.#failure = error;
    this.#isClosed = true;
    this.#onReady();
  }
}
