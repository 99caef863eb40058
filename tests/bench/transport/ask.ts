/** Two workers that measure something between them, and the main thread that asks them to. */

/** A worker that answers one message at a time. */
export class Asked {
  #worker: Worker;

  constructor(file: string) {
    this.#worker = new Worker(new URL(file, import.meta.url), { type: "module" });
  }

  /** Sends `message` and waits for the answer; a throw in the worker rejects. */
  ask<T>(message: unknown): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => resolve(data as T);
      this.#worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
      this.#worker.postMessage(message);
    });
  }

  stop(): void {
    this.#worker.terminate();
  }
}

/** In a worker: answers every message with what `handle` gives for it. */
export function answer<T>(handle: (message: T) => unknown): void {
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<T>) => void;
    postMessage(reply: unknown): void;
  };
  scope.onmessage = async ({ data }) => scope.postMessage(await handle(data));
}

/** The `share`-th quantile of `sorted`, 0..1. */
export function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
