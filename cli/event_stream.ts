/** Server-sent events for as long as a command runs, over as many connections as it takes. */
import { EventReader, type ServerEvent } from "./event_reader.ts";
import { ApiError, EXIT_ERROR } from "./kv/client.ts";
import { complain } from "./output.ts";

/** Waits between attempts to take up a lost stream, in milliseconds: doubled each time up to the maximum. */
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 5_000;

/** Hands each event to `onEvent` until the signal aborts, which must end the requests of `open` too. A lost connection is
 *  taken up after the last event seen, so that nothing is missed and nothing comes twice: `open` sends the id that it is given
 *  as `Last-Event-ID`, the first time that of `from`. @throws {ApiError} when the first connection fails, or the server ends
 *  the stream for good. */
export async function followEvents(
  open: (lastEventId: string | undefined) => Promise<Response>,
  onEvent: (event: ServerEvent) => void,
  from?: string,
  signal?: AbortSignal,
): Promise<void> {
  let lastEventId = from;
  let retryMs = RETRY_MIN_MS;
  let wasConnected = false;
  for (;;) {
    try {
      const answer = await open(lastEventId);
      wasConnected = true;
      retryMs = RETRY_MIN_MS;
      const reader = new EventReader();
      for await (const chunk of answer.body!) {
        for (const event of reader.push(chunk)) {
          if (event.type === "error") throw refusalOf(event);
          if (event.type === "change") onEvent(event);
          if (signal?.aborted) return;
        }
        lastEventId = reader.lastEventId ?? lastEventId;
      }
    } catch (error) {
      if (signal?.aborted) return;
      // The first connection must succeed: an endpoint that was never there is a mistake, not an outage.
      if (!wasConnected || (error instanceof ApiError && !error.retryable)) throw error;
    }
    complain(`connection lost, trying again in ${retryMs} ms`);
    await pause(retryMs, signal);
    if (signal?.aborted) return;
    retryMs = Math.min(2 * retryMs, RETRY_MAX_MS);
  }
}

/** The header by which a stream goes on behind an event. */
export function resumeHeaders(lastEventId: string | undefined): HeadersInit {
  return lastEventId === undefined ? {} : { "Last-Event-ID": lastEventId };
}

/** Resolves after `ms`, or when the signal aborts. */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

function refusalOf({ data }: ServerEvent): ApiError {
  const { detail, title } = JSON.parse(data) as { detail?: string; title?: string };
  return new ApiError(detail ?? title ?? "the stream has ended", EXIT_ERROR, false);
}
