/** Streams of events: each comes back by itself where it ended, and is asked for anew where that is not possible. */

import { call, wasLeft } from "./api.ts";

/** Pause before a stream is opened again that the server has refused, in ms. */
const REOPEN_MS = 3_000;

/** What a stream tells. */
export interface StreamHandlers<Message> {
  onMessage(message: Message): void;
  /** Something may have been missed: read the present state. Called at the start, too. */
  onOpen(): void;
  /** It is interrupted, and tried again. */
  onInterrupted?(): void;
}

/** Follows a stream of server-sent events until `signal` ends it. */
export function follow<Message>(path: string, signal: AbortSignal, handlers: StreamHandlers<Message>): void {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function open(): void {
    source = new EventSource(path);
    source.onopen = () => handlers.onOpen();
    source.addEventListener("change", ({ data }) => handlers.onMessage(JSON.parse(data)));
    source.onerror = (event) => {
      handlers.onInterrupted?.();
      // With data it is the server's word that the place to go on from is gone; closed is a refusal.
      if (event instanceof MessageEvent || source?.readyState === EventSource.CLOSED) again();
    };
  }

  function again(): void {
    source?.close();
    clearTimeout(timer);
    timer = setTimeout(() => void reopen(), REOPEN_MS);
  }

  async function reopen(): Promise<void> {
    try {
      // It may be that the cookie has run out: this renews it.
      await call("GET", "/api/v1/auth/me", { signal });
    } catch (error) {
      if (wasLeft(error)) return;
      return again();
    }
    open();
  }

  open();
  signal.addEventListener("abort", () => {
    source?.close();
    clearTimeout(timer);
  });
}
