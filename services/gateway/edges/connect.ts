/** The Connect protocol and gRPC-Web: an RPC by its own name, `POST /package.Service/Method`. Requests have passed every
 *  stage when they come here; messages are passed on as the bytes they are, unless a client speaks JSON. */
import { Code } from "@connectrpc/connect";
import { MessageReader } from "../../../transport/grpc/message_reader.ts";
import type { RawCall, RawCallHandler, RawCallOptions } from "../../../transport/rpc/mod.ts";
import { fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { joinBytes } from "../../runtime/bytes.ts";
import type { Departures } from "./departures.ts";
import { takesSignIn } from "../auth/sign_in.ts";
import { type Calls, metadata } from "../calls.ts";
import type { Exchange } from "../exchange.ts";
import { type BodyLimits, EMPTY_BODY, readBody } from "../limits/body.ts";
import type { Slots } from "../limits/slots.ts";
import { DRAINING, takeStreamSlot } from "../limits/stream_slots.ts";
import type { GatewayMetrics } from "../metrics.ts";
import { errorResponse, fromServiceError, GatewayError } from "../problem.ts";
import type { Route } from "../routes.ts";
import type { Timer } from "../timer.ts";
import { AnswerStream, errorOf } from "./connect/answer_stream.ts";
import { errorValue, statusOf } from "./connect/failure.ts";
import { decodeBase64, endOf, envelope, passedOn, TextBody } from "./connect/frames.ts";
import { type CallHead, contentTypesOf, readHead, timeoutOf } from "./connect/head.ts";
import { callOnce } from "./connect/unary_call.ts";

/** What the edge is made of. */
export interface ConnectEdgeDeps {
  /** Starts a call of a route's RPC. */
  start(route: Route, handler: RawCallHandler, options: RawCallOptions): RawCall;
  readonly timer: Timer;
  readonly clock: { now(): number };
  readonly metrics: GatewayMetrics;
  readonly bodyLimits: BodyLimits;
  readonly streamSlots: Slots;
  readonly departures: Departures;
  /** Makes a call that takes more than passing bytes on, such as signing in. */
  readonly calls: Pick<Calls, "unary">;
  /** Calls `revoke` when the caller of an open stream may not go on, until the returned function is called. */
  follow(exchange: Exchange, revoke: (error: GatewayError) => void): () => void;
  /** Reports a fault that the client is not told the cause of. */
  onFault(error: GatewayError, exchange: Exchange): void;
}

/** Answers requests for RPCs by their name. */
export interface ConnectEdge {
  /** @throws {GatewayError} what `refuse` makes an answer of. */
  answer(request: Request, exchange: Exchange): Promise<Response>;
  /** The answer to a request that is refused, in the request's own protocol. */
  refuse(exchange: Exchange, error: GatewayError): Response;
  /** Ends all open streams with `unavailable` and refuses new ones. Idempotent. */
  drain(): void;
}

/** Time to wait for the service's first sign before an answer's head is sent without its metadata, in milliseconds: what
 *  comes later goes behind the answers. */
const HEAD_WAIT_MS = 250;
/** Calls under way from which further ones start together at the end of the turn; see calls.ts. */
const GATHER_FROM = 4;

const encoder = new TextEncoder();

/** Creates the edge. */
export function createConnectEdge(deps: ConnectEdgeDeps): ConnectEdge {
  const open = new Set<AnswerStream>(); // bounded by streamSlots
  let isDraining = false;
  let underWay = 0;
  let turn: Promise<void> | undefined;

  function endOfTurn(): Promise<void> {
    return turn ??= new Promise((resolve) => {
      deps.timer.endOfTurn(() => {
        turn = undefined;
        resolve();
      });
    });
  }

  async function answer(request: Request, exchange: Exchange): Promise<Response> {
    const { route } = exchange.match!;
    const head = readHead(exchange, route.rpc);
    if (head === undefined) throw unsupported(exchange, route);
    const timeoutMs = timeoutOf(head, exchange);
    if (timeoutMs === 0) throw new GatewayError("deadline_exceeded", "the call's time is 0");
    return route.rpc.methodKind === "unary"
      ? await answerUnary(request, exchange, route, head, timeoutMs)
      : await answerStream(request, exchange, route, head, timeoutMs);
  }

  async function answerUnary(
    request: Request,
    exchange: Exchange,
    route: Route,
    head: CallHead,
    timeoutMs = Infinity,
  ): Promise<Response> {
    const message = head.codec.toProto(route.rpc.input, await readOne(request, exchange, head));
    if (takesSignIn(route.rpc)) {
      const answer = await deps.calls.unary(route, exchange, decoded(route, message));
      const body = head.codec.fromProto(route.rpc.output, toBinary(route.rpc.output, answer));
      return succeeded(exchange, head, body, undefined, undefined);
    }
    underWay++;
    try {
      if (underWay >= GATHER_FROM) await endOfTurn();
      const options = {
        timeoutMs: Math.min(timeoutMs, remainingMs(exchange)),
        headers: metadata(exchange),
        message,
        isWhole: true,
      };
      let stop = ignore;
      const outcome = await callOnce(
        (handler) => deps.start(route, handler, options),
        (cancel) => stop = deps.departures.watch(request, cancel),
      );
      stop();
      const { headers, end } = outcome;
      const error = errorOf(end) ??
        (outcome.message === undefined
          ? new GatewayError("unimplemented", "the service answered with no message")
          : undefined);
      if (error !== undefined) {
        return failed(exchange, head, reported(error, exchange), headers, end.trailers);
      }
      const body = head.codec.fromProto(route.rpc.output, outcome.message!);
      return succeeded(exchange, head, body, headers, end.trailers);
    } finally {
      underWay--;
    }
  }

  function remainingMs(exchange: Exchange): number {
    const left = Math.floor(exchange.deadlineAtMs - deps.clock.now());
    if (left < 1) {
      throw new GatewayError("deadline_exceeded", "the request's time ran out (gateway.requestTimeoutMs)");
    }
    return left;
  }

  /** The one message of a request. */
  async function readOne(request: Request, exchange: Exchange, head: CallHead): Promise<Uint8Array> {
    if (request.method !== "POST") return messageOfQuery(exchange);
    const { headers } = exchange;
    if (head.protocol === "connect") {
      const encoding = headers.get("content-encoding");
      if (encoding !== null && encoding !== "identity") {
        throw new GatewayError(
          "unimplemented",
          `content-encoding ${encoding.slice(0, 32)}: only identity is known`,
        );
      }
    }
    const body = await readBody(request, exchange.contentLength, deps.bodyLimits);
    exchange.requestBytes = body.length;
    if (head.protocol === "connect") return body;
    const reader = messageReader(exchange, head);
    if (head.isText) {
      const text = new TextBody();
      reader.push(text.push(body));
      if (text.isPartial) throw malformed("the body is no base64");
    } else reader.push(body);
    const message = reader.next();
    if (message === undefined) {
      throw violationOf(reader) ??
        (reader.isPartial
          ? malformed("the body ends inside a message")
          : new GatewayError("unimplemented", "the call takes one message, and there is none"));
    }
    if (reader.next() !== undefined || reader.isPartial) {
      throw new GatewayError("unimplemented", "the call takes one message, and there are more");
    }
    return message;
  }

  function messageReader({ headers }: Exchange, head: CallHead): MessageReader {
    const name = head.protocol === "grpc_web" ? "grpc-encoding" : "connect-content-encoding";
    return new MessageReader(deps.bodyLimits.bytesMax, headers.get(name) ?? undefined);
  }

  async function answerStream(
    request: Request,
    exchange: Exchange,
    route: Route,
    head: CallHead,
    timeoutMs: number | undefined,
  ): Promise<Response> {
    const slots = deps.streamSlots;
    takeStreamSlot(slots, isDraining);
    const { rpc } = route;
    const metrics = deps.metrics.route(route.template, route.httpMethod);
    const takesOne = rpc.methodKind === "server_streaming";
    const stream = new AnswerStream({
      frame: (message) => envelope(head.codec.fromProto(rpc.output, message), head.isText),
      end: (error, trailers) => endOf(head, error, exchange.requestId, trailers),
      onMessage: () => metrics.streamMessage("out"),
      onEnd(error) {
        unfollow();
        open.delete(stream);
        slots.leave();
        metrics.streamClosed();
        if (error === undefined) return;
        reported(error, exchange);
        exchange.errorStatus ??= error.status;
      },
    });
    const unfollow = deps.follow(exchange, (error) => stream.fail(error));
    open.add(stream);
    metrics.streamOpened();
    try {
      const options = { timeoutMs, headers: metadata(exchange) };
      if (takesOne) {
        const message = head.codec.toProto(rpc.input, await readOne(request, exchange, head));
        stream.run((handler) => deps.start(route, handler, { ...options, message, isWhole: true }));
      } else {
        stream.run((handler) => deps.start(route, handler, options));
        readRequests(request, exchange, route, head, stream, () => metrics.streamMessage("in"))
          .catch((error) => stream.fail(fromServiceError(error)));
      }
    } catch (error) {
      stream.fail(fromServiceError(error));
    }
    if (isDraining) stream.fail(new GatewayError("unavailable", DRAINING)); // it was being opened when the drain began
    await begun(stream);
    stream.sendHead();
    const headers = headOf(exchange, head, stream.headers);
    headers.push(["cache-control", "no-store"]);
    return new Response(stream.body, { headers });
  }

  /** Waits for the first sign of the service, but not for long. */
  function begun(stream: AnswerStream): Promise<void> {
    return new Promise((resolve) => {
      const cancel = deps.timer.after(HEAD_WAIT_MS, resolve);
      stream.onBegun(() => {
        cancel();
        resolve();
      });
    });
  }

  /** Passes the requests of a body on as they come. */
  async function readRequests(
    request: Request,
    exchange: Exchange,
    route: Route,
    head: CallHead,
    stream: AnswerStream,
    onMessage: () => void,
  ): Promise<void> {
    const chunks = request.body?.getReader();
    if (chunks !== undefined) {
      // What the client still sends has nobody to read it.
      stream.whenEnded(() => void chunks.cancel().catch(ignore));
      const reader = messageReader(exchange, head);
      const text = head.isText ? new TextBody() : undefined;
      for (let next = await readChunk(chunks); !next.done; next = await readChunk(chunks)) {
        exchange.requestBytes += next.value.length;
        reader.push(text === undefined ? next.value : text.push(next.value));
        for (let message = reader.next(); message !== undefined; message = reader.next()) {
          onMessage();
          await stream.send(head.codec.toProto(route.rpc.input, message));
          if (stream.hasEnded) return;
        }
        const violation = violationOf(reader);
        if (violation !== undefined) throw violation;
      }
      if (stream.hasEnded) return;
      if (reader.isPartial || text?.isPartial === true) throw malformed("the body ends inside a message");
    }
    stream.endRequest();
  }

  function succeeded(
    exchange: Exchange,
    head: CallHead,
    message: Uint8Array,
    metadata: Headers | undefined,
    trailers: Headers | undefined,
  ): Response {
    const headers = headOf(exchange, head, metadata);
    let body = message;
    if (head.protocol === "connect") addTrailers(headers, trailers);
    else {
      body = joinBytes([
        envelope(message, head.isText),
        endOf(head, undefined, exchange.requestId, trailers),
      ]);
    }
    exchange.responseBytes = body.length;
    return new Response(body as Uint8Array<ArrayBuffer>, { headers });
  }

  function failed(
    exchange: Exchange,
    head: CallHead,
    error: GatewayError,
    metadata?: Headers,
    trailers?: Headers,
  ): Response {
    const { requestId } = exchange;
    const headers = headOf(exchange, head, metadata);
    if (head.protocol !== "connect") {
      exchange.errorStatus = error.status;
      return new Response(endOf(head, error, requestId, trailers), { headers });
    }
    headers[0] = ["content-type", "application/json"];
    addTrailers(headers, trailers);
    if (error.retryAfterS !== undefined) headers.push(["retry-after", String(error.retryAfterS)]);
    // RFC 9110 §15.5.2: a 401 says how to authenticate.
    if (error.code === "unauthenticated") headers.push(["www-authenticate", error.challenge ?? "Bearer"]);
    if (error.code === "unimplemented") headers.push(["accept-encoding", "identity"]);
    const status = statusOf(error);
    return new Response(encoder.encode(JSON.stringify(errorValue(error, requestId))), { status, headers });
  }

  /** The error itself, reported when it is a fault of ours. */
  function reported(error: GatewayError, exchange: Exchange): GatewayError {
    if (error.isFault) deps.onFault(error, exchange);
    return error;
  }

  return {
    answer,
    refuse(exchange, error) {
      const { route } = exchange.match!;
      const head = error.code === "unsupported_media_type" ? undefined : readHead(exchange, route.rpc);
      if (head !== undefined) return failed(exchange, head, error);
      const response = errorResponse(error, exchange.requestId, "aetherflow");
      response.headers.set("accept-post", contentTypesOf(route.rpc).join(", "));
      return response;
    },
    drain() {
      isDraining = true;
      for (const stream of [...open]) stream.fail(new GatewayError("unavailable", DRAINING));
    },
  };
}

function decoded({ rpc }: Route, bytes: Uint8Array): Message {
  try {
    return fromBinary(rpc.input, bytes);
  } catch {
    throw malformed(`the body is no ${rpc.input.typeName}`);
  }
}

type HeaderList = [name: string, value: string][];

/** The head of an answer; the content type stands first. */
function headOf(exchange: Exchange, head: CallHead, metadata: Headers | undefined): HeaderList {
  const headers: HeaderList = [
    ["content-type", head.contentType],
    ["x-content-type-options", "nosniff"],
    ["x-request-id", exchange.requestId],
  ];
  for (const entry of passedOn(metadata)) if (entry[0] !== "x-request-id") headers.push(entry);
  return headers;
}

function addTrailers(headers: HeaderList, trailers: Headers | undefined): void {
  for (const [name, value] of passedOn(trailers)) headers.push([`trailer-${name}`, value]);
}

/** The message of `?message=…&encoding=…&base64=1&connect=v1`. */
function messageOfQuery(exchange: Exchange): Uint8Array {
  const query = new URLSearchParams(exchange.query);
  const message = query.get("message");
  const version = query.get("connect");
  const compression = query.get("compression");
  if (message === null || !query.has("encoding")) {
    throw new GatewayError("invalid_argument", "GET takes the query parameters encoding and message");
  }
  if (version !== null && version !== "v1") {
    throw new GatewayError("invalid_argument", "the parameter connect is not v1");
  }
  if (compression !== null && compression !== "" && compression !== "identity") {
    throw new GatewayError("unimplemented", "compressed messages are not read");
  }
  if (query.get("base64") === "1") return decodeBase64(message.replaceAll(" ", "+"));
  return message === "" ? EMPTY_BODY : encoder.encode(message);
}

async function readChunk(
  chunks: ReadableStreamDefaultReader<Uint8Array>,
): Promise<ReadableStreamReadResult<Uint8Array>> {
  try {
    return await chunks.read();
  } catch (error) {
    throw new GatewayError("canceled", "the request body was not received whole", { cause: error });
  }
}

function violationOf({ violation }: MessageReader): GatewayError | undefined {
  if (violation === undefined) return undefined;
  const { code, message } = violation;
  const name = code === Code.Unimplemented
    ? "unimplemented"
    : code === Code.ResourceExhausted
    ? "body_too_large"
    : "malformed_message";
  return new GatewayError(name, message);
}

function unsupported({ method, headers }: Exchange, route: Route): GatewayError {
  const given = method === "POST" ? headers.get("content-type") ?? "no content type" : "the encoding";
  return new GatewayError(
    "unsupported_media_type",
    `${given.slice(0, 64)} is none of ${contentTypesOf(route.rpc).join(", ")}`,
  );
}

function malformed(message: string): GatewayError {
  return new GatewayError("malformed_message", message);
}

function ignore(): void {}
