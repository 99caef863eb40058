/** Writes the messages of an iterable to a stream no faster than it takes them: SPEC §7.3. */

/** Where the messages go. */
export interface OutboundTarget<T> {
  /** Sends one message; false to be told to wait for `Outbound.drained`. May throw. */
  sendMessage(message: T): boolean;
  /** All messages were sent. */
  onSourceEnd(): void;
  /** The iterable, or sending one of its messages, failed. */
  onSourceError(error: unknown): void;
}

/** One pass over an iterable. */
export class Outbound<T> {
  readonly #iterator: AsyncIterator<T>;
  readonly #target: OutboundTarget<T>;
  #stopped = false;
  #resume: (() => void) | undefined;

  constructor(source: AsyncIterable<T>, target: OutboundTarget<T>) {
    this.#iterator = source[Symbol.asyncIterator]();
    this.#target = target;
  }

  /** Runs until the source ends, fails or `stop` is called. Never rejects. */
  async run(): Promise<void> {
    try {
      while (!this.#stopped) {
        const item = await this.#iterator.next();
        if (this.#stopped) return;
        if (item.done === true) {
          this.#stopped = true;
          this.#target.onSourceEnd();
          return;
        }
        if (!this.#target.sendMessage(item.value) && !this.#stopped) {
          await new Promise<void>((resolve) => this.#resume = resolve);
        }
      }
    } catch (error) {
      if (this.#stopped) return;
      this.stop();
      this.#target.onSourceError(error);
    }
  }

  /** The stream takes more. */
  drained(): void {
    const resume = this.#resume;
    this.#resume = undefined;
    resume?.();
  }

  /** Nothing more is to be sent; the source is told to clean up, whenever it gets round to it. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.drained();
    try {
      // What a source says while it is being dismissed concerns nobody: the call is over.
      this.#iterator.return?.()?.then(undefined, ignore);
    } catch {
      ignore();
    }
  }
}

function ignore(): void {}
