/** One server-sent event. */
export interface ServerEvent {
  readonly type: string;
  readonly data: string;
}

/** Longest unfinished line or event that is kept, in characters: some times the largest value a server sends. */
const MAX_PENDING_LENGTH = 64 * 1024 * 1024;

/** Reads a `text/event-stream` body, chunk by chunk (WHATWG HTML, "Server-sent events"). */
export class EventReader {
  readonly #decoder = new TextDecoder();
  #pending = "";
  #type = "";
  #data: string[] = [];
  #dataLength = 0;
  #id: string | undefined;
  #lastEventId: string | undefined;

  /** Id of the last complete block that had one, which `Last-Event-ID` names when the stream is taken up again. */
  get lastEventId(): string | undefined {
    return this.#lastEventId;
  }

  /** Takes the next bytes; returns the events that they complete.
   *  @throws {RangeError} if a line or an event is longer than 64 Mi characters. */
  push(chunk: Uint8Array): ServerEvent[] {
    this.#pending += this.#decoder.decode(chunk, { stream: true });
    const lines = this.#pending.split(/\r\n|\n|\r(?!$)/);
    this.#pending = lines.pop()!;
    if (this.#pending.length + this.#dataLength > MAX_PENDING_LENGTH) {
      throw new RangeError(`Cannot read events: one is longer than ${MAX_PENDING_LENGTH} characters`);
    }
    const events: ServerEvent[] = [];
    for (const line of lines) this.#line(line, events);
    return events;
  }

  #line(line: string, events: ServerEvent[]): void {
    if (line === "") return this.#end(events);
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    switch (field) {
      case "event":
        this.#type = value;
        break;
      case "data":
        this.#data.push(value);
        this.#dataLength += value.length;
        break;
      case "id":
        if (!value.includes("\0")) this.#id = value;
        break;
    }
  }

  /** A blank line: the block is complete. One without data is no event, but its id counts. */
  #end(events: ServerEvent[]): void {
    this.#lastEventId = this.#id;
    if (this.#data.length > 0) events.push({ type: this.#type || "message", data: this.#data.join("\n") });
    this.#type = "";
    this.#data = [];
    this.#dataLength = 0;
  }
}
