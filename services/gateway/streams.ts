/** Response bodies that go on: server-sent events or, where asked for, JSON lines for our own APIs; JSON lines of their own
 *  form on etcd's paths. */
import type { DescMessage, Message } from "@bufbuild/protobuf";
import { isFieldSet } from "@bufbuild/protobuf";
import { type GatewayError, problemOf, rpcStatusOf } from "./problem.ts";
import type { Route } from "./routes.ts";
import type { Timer } from "./timer.ts";
import { messageToJson } from "./transcode.ts";

/** How messages, heartbeats and ends are written. */
export interface StreamFormat {
  readonly contentType: string;
  message(message: Message, isFirst: boolean): string;
  /** What keeps an idle stream open, or undefined when the format has nothing for it. */
  readonly heartbeat: string | undefined;
  /** The last words when the stream fails. */
  failure(error: GatewayError): string;
  /** The last words when the gateway drains. */
  readonly farewell: string;
}

/** Milliseconds after which an EventSource comes back. */
const RECONNECT_MS = 1_000;

/** Server-sent events. `resumed`: the client named the revision to go on from. */
export function eventFormat(route: Route, requestId: string, resumed: boolean): StreamFormat {
  const desc = route.rpc.output;
  const { eventId } = route;
  return {
    contentType: "text/event-stream",
    heartbeat: ": heartbeat\n\n",
    message(message, isFirst) {
      const id = eventId === undefined ? undefined : String(eventId.get(message));
      if (id !== undefined && carriesOnlyId(desc, message, eventId!.leaf.name)) {
        // The stream is in place. From now on the client can resume at this point, unless it has resumed from an
        // earlier one: then what lies between is still to come, and its own id is the right one.
        const open = isFirst ? `retry: ${RECONNECT_MS}\n: open\n\n` : ": progress\n\n";
        return isFirst && resumed ? open : `id: ${id}\n${open}`;
      }
      const idLine = id === undefined ? "" : `id: ${id}\n`;
      return `${idLine}event: change\ndata: ${messageToJson(desc, message, "aetherflow")}\n\n`;
    },
    failure(error) {
      // What passes by itself is no news for the client: it comes back after RECONNECT_MS and resumes.
      if (error.retryAfterS !== undefined) return `: ${error.code}, come back\n\n`;
      return `event: error\ndata: ${JSON.stringify(problemOf(error, requestId))}\n\n`;
    },
    farewell: ": draining, come back\n\n",
  };
}

function carriesOnlyId(desc: DescMessage, message: Message, idField: string): boolean {
  return desc.fields.every((field) => field.name === idField || !isFieldSet(message, field));
}

/** Lines of JSON as grpc-gateway writes them: `{"result":…}`, and `{"error":…}` as the last one. */
export function lineFormat(route: Route, drainError: GatewayError): StreamFormat {
  const failure = (error: GatewayError) => `${JSON.stringify({ error: rpcStatusOf(error) })}\n`;
  return {
    contentType: "application/json",
    heartbeat: undefined,
    message: (message) => `{"result":${messageToJson(route.rpc.output, message, "etcd")}}\n`,
    failure,
    farewell: failure(drainError),
  };
}

const LINE_TYPES: readonly string[] = ["application/x-ndjson", "application/jsonl", "application/ndjson"];

/** The type of JSON lines that an Accept header asks for; undefined where it does not, or names event streams before. */
export function wantedLines(accept: string | null): string | undefined {
  if (accept === null) return undefined;
  for (const part of accept.split(",")) {
    const type = part.split(";", 1)[0]!.trim().toLowerCase();
    if (type === "text/event-stream") return undefined;
    if (LINE_TYPES.includes(type)) return type;
  }
  return undefined;
}

/** One JSON message a line, and `{"error":…}` with a problem as the last one. Nothing is sent while nothing happens: not
 *  every reader of lines knows empty ones. */
export function recordFormat(
  route: Route,
  contentType: string,
  requestId: string,
  drainError: GatewayError,
): StreamFormat {
  const failure = (error: GatewayError) => `${JSON.stringify({ error: problemOf(error, requestId) })}\n`;
  return {
    contentType,
    heartbeat: undefined,
    message: (message) => `${messageToJson(route.rpc.output, message, "aetherflow")}\n`,
    failure,
    farewell: failure(drainError),
  };
}

/** What a streaming body is made of. */
export interface StreamBodyOptions {
  readonly format: StreamFormat;
  /** The message that is there already, which proved that the stream is open, if it is. */
  readonly first: IteratorResult<Message> | undefined;
  readonly rest: Pick<AsyncIterator<Message>, "next">;
  readonly timer: Timer;
  readonly heartbeatMs: number;
  toError(error: unknown): GatewayError;
  onMessage(): void;
  /** Called once, when the body has ended for whatever reason; lets go of the call. */
  onEnd(): void;
}

/** A streaming body, and the way to end it early. */
export interface StreamBody {
  readonly body: ReadableStream<Uint8Array>;
  /** Says farewell and ends the body. Idempotent. */
  drain(): void;
  /** Says why and ends the body. Idempotent. */
  fail(error: GatewayError): void;
}

const encoder = new TextEncoder();

/** Creates the body. It asks for the next message only when the client has taken the last one, so that a slow reader
 *  costs one message here and fills the flow-control window of its call, no more. */
export function createStreamBody(options: StreamBodyOptions): StreamBody {
  const { format, rest, timer } = options;
  let controller: ReadableStreamDefaultController<Uint8Array>;
  let ended = false;
  let { first } = options;
  let isFirst = true;
  let cancelHeartbeat: () => void = () => {};

  function end(lastWords: string | undefined): void {
    if (ended) return;
    ended = true;
    cancelHeartbeat();
    if (lastWords !== undefined) {
      if (lastWords !== "") controller.enqueue(encoder.encode(lastWords));
      controller.close();
    }
    options.onEnd();
  }

  function beat(): void {
    if (format.heartbeat === undefined) return;
    cancelHeartbeat = timer.after(options.heartbeatMs, () => {
      // A reader that has not taken what is there needs no reminder that we live.
      if ((controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(format.heartbeat));
      beat();
    });
  }

  async function pull(): Promise<void> {
    let next: IteratorResult<Message>;
    try {
      next = first ?? await rest.next();
      first = undefined;
    } catch (error) {
      if (!ended) end(format.failure(options.toError(error)));
      return;
    }
    if (ended) return;
    if (next.done) return end("");
    options.onMessage();
    controller.enqueue(encoder.encode(format.message(next.value, isFirst)));
    isFirst = false;
  }

  const body = new ReadableStream<Uint8Array>({
    start(started) {
      controller = started;
      beat();
    },
    pull,
    cancel: () => end(undefined),
  });
  return { body, drain: () => end(format.farewell), fail: (error) => end(format.failure(error)) };
}
