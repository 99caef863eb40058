/** The answers of a stream of watchers, as an RPC gives them. */
import type { ApiWatch } from "./api.ts";
import { KvError } from "./errors.ts";
import { mapped, toConnectError } from "./rpc_errors.ts";
import type { WatchAnswer } from "./watch.ts";

/** Where a stream of watchers comes from. */
export interface WatchAnswersOptions<S extends ApiWatch> {
  open(onReady: () => void): S;
  /** Makes the first watchers, or what will make them. */
  start(stream: S): void;
  /** Whether the store has stopped. */
  isStopped(): boolean;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
  /** Aborts when the client goes. */
  readonly signal: AbortSignal;
}

/** The answers of a new stream until the client goes. Throws `stopped` when the store ends it. */
export async function* answersOf<S extends ApiWatch>(
  options: WatchAnswersOptions<S>,
): AsyncGenerator<WatchAnswer, void, void> {
  const { signal } = options;
  let wake = () => {};
  const stream = options.open(() => wake());
  let isLeft = signal.aborted;
  const leave = () => {
    isLeft = true;
    stream.close();
  };
  signal.addEventListener("abort", leave);
  try {
    mapped(() => options.start(stream));
    for (;;) {
      const answer = stream.take();
      if (answer === "again") await options.pause();
      else if (answer !== undefined) yield answer;
      else if (stream.isClosed) break;
      else await new Promise<void>((resolve) => wake = resolve);
    }
  } finally {
    signal.removeEventListener("abort", leave);
    stream.close();
  }
  if (!isLeft && options.isStopped()) throw toConnectError(new KvError("stopped"));
}
