/** Reads server-sent events as a browser's EventSource does, one at a time. */

/** One event. */
export interface ServerEvent {
  /** The id that was current when the event came: what a client names when it comes back. */
  readonly id: string | undefined;
  readonly type: string;
  readonly data: string;
}

/** An open stream of events. `await using` closes it. */
export interface Events extends AsyncDisposable {
  /** The next event. @throws {Error} if the stream ends before it comes. */
  next(): Promise<ServerEvent>;
  /** Resolves when the server ends the stream; events until then are left out. */
  ended(): Promise<void>;
}

/** Opens the stream and waits until the server says that it is in place. `lastEventId` resumes after that event.
 *  @throws {Error} if the answer is no stream of events. */
export async function openEvents(url: string, lastEventId?: string): Promise<Events> {
  const response = await fetch(
    url,
    lastEventId === undefined ? {} : { headers: { "last-event-id": lastEventId } },
  );
  if (response.status !== 200 || response.body === null) {
    throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let id: string | undefined;

  /** The next block of lines, or undefined at the end. */
  async function block(): Promise<string | undefined> {
    let end: number;
    while ((end = text.indexOf("\n\n")) < 0) {
      const { value, done } = await reader.read();
      if (done) return undefined;
      text += value;
    }
    const lines = text.slice(0, end);
    text = text.slice(end + 2);
    return lines;
  }

  async function next(): Promise<ServerEvent> {
    while (true) {
      const lines = await block();
      if (lines === undefined) throw new Error("the stream of events ended");
      const fields = Object.fromEntries(
        lines.split("\n").map((line) => [line.replace(/:.*/, ""), line.replace(/^[^:]*: ?/, "")]),
      );
      id = fields.id ?? id;
      if (fields.data !== undefined) return { id, type: fields.event ?? "message", data: fields.data };
    }
  }

  await block(); // the first says that the stream is open
  return {
    next,
    async ended() {
      while (await block() !== undefined);
    },
    [Symbol.asyncDispose]: () => reader.cancel(),
  };
}
