/** One stream after another to the cluster: what a client's stream that outlives connections runs on.
 *
 *      opening ──► open ──► the connection ended ──► the reason passes by itself: opening
 *                                                └─► it does not: failed */
import type { EtcdError } from "../../../../storage/etcd/mod.ts";

/** What a connection tells. */
export interface StreamListener<A> {
  onAnswer(answer: A): void;
  /** Told once; undefined when the server ended the stream in peace. */
  onEnd(error: EtcdError | undefined): void;
}

/** Where streams come from. */
export interface StreamSource<C, A> {
  /** Opens a stream, waiting while that is worthwhile. `tries`: how often it failed in a row before this time.
   *  @throws {EtcdError} when it cannot be opened; `mayResume` says whether to ask again. */
  open(listener: StreamListener<A>, tries: number): Promise<C>;
  /** Whether a stream that ended so may go on with another. */
  mayResume(error: EtcdError | undefined): boolean;
}

/** Whom a Resuming tells. */
export interface ResumingHandlers<C, A> {
  /** A connection is open, the first or another: give it what the last one had. */
  onOpen(connection: C): void;
  onAnswer(answer: A): void;
  /** It was closed or has failed. */
  onClosed(): void;
}

/** Keeps a stream open until it is closed or fails for good. */
export class Resuming<C extends { cancel(): void }, A> {
  readonly #source: StreamSource<C, A>;
  readonly #handlers: ResumingHandlers<C, A>;
  #connection: C | undefined;
  #isOpening = false;
  #isClosed = false;
  #failure: EtcdError | undefined;

  constructor(source: StreamSource<C, A>, handlers: ResumingHandlers<C, A>) {
    this.#source = source;
    this.#handlers = handlers;
  }

  /** The connection that is open now. */
  get connection(): C | undefined {
    return this.#connection;
  }

  /** True once it was closed or has failed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Why it failed; undefined when it did not. */
  get failure(): EtcdError | undefined {
    return this.#failure;
  }

  /** Opens the first connection, unless that is under way. */
  open(): void {
    this.#open(0);
  }

  /** Ends the stream. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#connection?.cancel();
    this.#handlers.onClosed();
  }

  #open(tries: number): void {
    if (this.#isOpening || this.#isClosed) return;
    this.#isOpening = true;
    let hasEnded = false;
    let hasAnswered = false;
    const listener: StreamListener<A> = {
      onAnswer: (answer) => {
        hasAnswered = true;
        if (!hasEnded && !this.#isClosed) this.#handlers.onAnswer(answer);
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
        if (hasEnded) return this.#lost(undefined, tries + 1);
        this.#handlers.onOpen(connection);
      },
      (error) => {
        this.#isOpening = false;
        this.#lost(error, tries + 1);
      },
    );
  }

  #lost(error: EtcdError | undefined, tries: number): void {
    this.#connection = undefined;
    if (this.#isClosed) return;
    if (this.#source.mayResume(error)) return this.#open(tries);
    this.#failure = error;
    this.#isClosed = true;
    this.#handlers.onClosed();
  }
}
