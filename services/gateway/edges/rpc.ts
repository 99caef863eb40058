/** A matched request → RPC → HTTP answer. */
import { create, type JsonObject, type Message } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import type { Code } from "@connectrpc/connect";
import type { Calls } from "../calls.ts";
import type { Exchange } from "../exchange.ts";
import type { Departures } from "./departures.ts";
import { type BodyLimits, readBody } from "../limits/body.ts";
import type { Slots } from "../limits/slots.ts";
import { DRAINING, takeStreamSlot } from "../limits/stream_slots.ts";
import type { GatewayMetrics } from "../metrics.ts";
import { fromServiceError, GatewayError } from "../problem.ts";
import type { Route } from "../routes.ts";
import { createStreamBody, eventFormat, lineFormat, recordFormat, wantedLines } from "../streams.ts";
import type { Timer } from "../timer.ts";
import { openSocketStream, type SocketStream, wantsWebSocket } from "./websocket.ts";
import {
  bindPathVariable,
  bindQuery,
  formatTtl,
  JsonSplitter,
  matchHits,
  messageFromJson,
  messageFromValue,
  messageToJson,
  messageToValue,
  noneMatchHits,
  parseJson,
  parseLastEventId,
  parseMask,
  parsePrecondition,
  parseQuery,
  parseTtl,
  presentFields,
} from "../transcode.ts";

/** What the RPC edge is made of. */
export interface RpcEdgeDeps {
  readonly calls: Calls;
  readonly timer: Timer;
  readonly clock: { now(): number };
  readonly metrics: GatewayMetrics;
  readonly bodyLimits: BodyLimits;
  readonly heartbeatMs: number;
  readonly streamSlots: Slots;
  readonly departures: Departures;
  /** Calls `revoke` when the caller of an open stream may not go on, until the returned function is called. */
  follow(exchange: Exchange, revoke: (error: GatewayError) => void): () => void;
  /** Reports a fault that the client is not told the cause of. */
  onFault(error: GatewayError, exchange: Exchange): void;
}

/** Answers requests that have a route. */
export interface RpcEdge {
  /** @throws {GatewayError} what the answer is when it is no success. */
  answer(request: Request, exchange: Exchange): Promise<Response>;
  /** Ends all open streams, each with a farewell, and refuses new ones. Idempotent. */
  drain(): void;
}

const encoder = new TextEncoder();
/** A form's characters are ASCII or escapes; others mean themselves. */
const formDecoder = new TextDecoder();

/** Creates the edge. */
export function createRpcEdge(deps: RpcEdgeDeps): RpcEdge {
  const open = new Set<{ drain(): void }>(); // bounded by streamSlots
  let isDraining = false;

  async function answer(request: Request, exchange: Exchange): Promise<Response> {
    const route = exchange.match!.route;
    try {
      if (route.rpc.methodKind === "unary") {
        const message = await readMessage(request, exchange, route);
        const answer = route.mayWait
          ? await waitFor(request, exchange, () => deps.calls.unary(route, exchange, message))
          : await deps.calls.unary(route, exchange, message);
        return encodeAnswer(route, exchange, answer);
      }
      if (exchange.method === "HEAD") {
        throw new GatewayError("method_not_allowed", "a stream has no HEAD", { allow: route.httpMethod });
      }
      return wantsWebSocket(request)
        ? await answerSocket(request, exchange, route)
        : await answerStream(request, exchange, route);
    } catch (error) {
      throw fromServiceError(error, failedCondition(route, exchange));
    }
  }

  /** A call that may wait long ends when its client goes. */
  async function waitFor(
    request: Request,
    exchange: Exchange,
    call: () => Promise<Message>,
  ): Promise<Message> {
    const gone = new AbortController();
    exchange.signal = gone.signal;
    const stop = deps.departures.watch(request, () => gone.abort());
    try {
      return await call();
    } finally {
      stop();
    }
  }

  async function readMessage(request: Request, exchange: Exchange, route: Route): Promise<Message> {
    const body = route.body.kind === "none"
      ? undefined
      : await readBody(request, exchange.contentLength, deps.bodyLimits);
    if (body !== undefined) exchange.requestBytes = body.length;
    let message: Message;
    if (body === undefined) {
      message = create(route.rpc.input);
    } else if (route.body.kind === "raw") {
      message = create(route.rpc.input);
      route.body.field.set(message, body);
    } else if (route.formBody && isForm(request)) {
      message = create(route.rpc.input);
      bindQuery(message, parseQuery(formDecoder.decode(body)), route.queryFields, NO_SWITCHES);
    } else if (route.body.kind === "field") {
      const { leaf } = route.body.field;
      const json = parseJson(body, false);
      message = messageFromValue(route.rpc.input, json, route.dialect, leaf);
      const { updateMask } = route;
      if (updateMask !== undefined && leaf.message !== undefined) {
        const given = queryMask(exchange, route);
        const paths = given === undefined
          ? presentFields(leaf.message, json, route.pathFields)
          : parseMask(leaf.message, given);
        updateMask.set(message, create(FieldMaskSchema, { paths }));
      }
    } else {
      message = messageFromJson(route.rpc.input, body, route.dialect);
    }
    return bound(message, exchange, route);
  }

  /** Takes a slot for a stream. `end` gives it back and ends the call; it may be called more than once. */
  function enterStream(): { abort: AbortController; end: () => void } {
    const slots = deps.streamSlots;
    takeStreamSlot(slots, isDraining);
    const abort = new AbortController();
    let hasEnded = false;
    const end = () => {
      if (hasEnded) return;
      hasEnded = true;
      slots.leave();
      abort.abort();
    };
    return { abort, end };
  }

  /** A stream over WebSocket. An RPC that only streams answers is called before the handshake, so that its refusal is an
   *  HTTP answer; of one that streams both ways the requests come over the socket. */
  async function answerSocket(request: Request, exchange: Exchange, route: Route): Promise<Response> {
    const { abort, end } = enterStream();
    const metrics = deps.metrics.route(route.template, route.httpMethod);
    try {
      const message = route.rpc.methodKind === "server_streaming"
        ? bound(create(route.rpc.input), exchange, route)
        : undefined;
      const call = message && await deps.calls.open(route, exchange, oneRequest(message).requests, abort);
      const stream = openSocketStream(request, {
        route,
        requestId: exchange.requestId,
        timer: deps.timer,
        requestCharsMax: deps.bodyLimits.bytesMax,
        toError: (error) => reported(fromServiceError(error), exchange),
        onMessage: () => metrics.streamMessage("out"),
        onFrame: deps.metrics.socketFrame,
        onEnd() {
          unfollow();
          open.delete(stream);
          metrics.streamClosed();
          deps.metrics.socketClosed();
          end();
        },
      });
      const unfollow = deps.follow(exchange, (error) => stream.fail(error));
      open.add(stream);
      metrics.streamOpened();
      deps.metrics.socketOpened();
      if (call !== undefined) stream.run(call.first, call.rest);
      else stream.run(undefined, talk(stream, exchange, route, abort, () => metrics.streamMessage("in")));
      if (isDraining) stream.drain(); // it was being opened when the drain began
      return stream.response;
    } catch (error) {
      deps.metrics.socketRefused();
      end();
      throw error;
    }
  }

  /** The answers of an RPC whose requests come over a socket; it is called when the first of them is there. */
  async function* talk(
    stream: SocketStream,
    exchange: Exchange,
    route: Route,
    abort: AbortController,
    onMessage: () => void,
  ): AsyncGenerator<Message, void, void> {
    const texts = stream.requests();
    const first = await texts.next();
    if (first.done === true) return;
    let refused: unknown;
    async function* requests(): AsyncGenerator<Message> {
      try {
        for (let next: IteratorResult<string, void> = first; next.done !== true; next = await texts.next()) {
          onMessage();
          yield messageFromJson(route.rpc.input, encoder.encode(next.value), route.dialect);
        }
      } catch (error) {
        refused = error;
        abort.abort(); // the call, so that the answering half hears of it
      }
    }
    const deadlineAtMs = deps.clock.now() + exchange.deadlineAtMs - exchange.startedAtMs;
    try {
      const call = await deps.calls.open(route, { ...exchange, deadlineAtMs }, requests, abort);
      for (let next = call.first; next.done !== true; next = await call.rest.next()) yield next.value;
    } catch (error) {
      throw refused ?? error;
    }
  }

  /** The error itself, reported when it is a fault of ours. */
  function reported(error: GatewayError, exchange: Exchange): GatewayError {
    if (error.isFault) deps.onFault(error, exchange);
    return error;
  }

  async function answerStream(request: Request, exchange: Exchange, route: Route): Promise<Response> {
    const { abort, end } = enterStream();
    const metrics = deps.metrics.route(route.template, route.httpMethod);
    const lines = route.dialect === "aetherflow" ? wantedLines(exchange.headers.get("accept")) : undefined;
    const wantsLines = lines !== undefined;
    try {
      const { requests, failure } = route.rpc.methodKind === "server_streaming"
        ? oneRequest(await readMessage(request, exchange, route))
        : await manyRequests(request, route, abort, () => metrics.streamMessage("in"));
      const toError = (error: unknown) => fromServiceError(failure() ?? error);
      let call;
      try {
        call = await deps.calls.open(route, exchange, requests, abort);
      } catch (error) {
        throw toError(error);
      }
      return streamResponse(call.first, call.rest, toError);
    } catch (error) {
      // An EventSource shows its page nothing of an answer that is no stream, and this is what the page must know: what
      // it resumes from is gone, it has to reload.
      if (
        error instanceof GatewayError && error.code === "out_of_range" && route.resume !== undefined &&
        !wantsLines
      ) {
        const failed = { next: () => Promise.reject(error) };
        return streamResponse(undefined, failed, () => error);
      }
      end();
      throw error;
    }

    function streamResponse(
      first: IteratorResult<Message> | undefined,
      rest: Pick<AsyncIterator<Message>, "next">,
      toError: (error: unknown) => GatewayError,
    ): Response {
      const draining = new GatewayError("unavailable", DRAINING);
      const format = route.dialect === "etcd"
        ? lineFormat(route, draining)
        : lines !== undefined
        ? recordFormat(route, lines, exchange.requestId, draining)
        : eventFormat(
          route,
          exchange.requestId,
          exchange.lastEventId !== undefined || resumes(route, exchange),
        );
      const stream = createStreamBody({
        format,
        first,
        rest,
        timer: deps.timer,
        heartbeatMs: deps.heartbeatMs,
        toError: (error) => reported(toError(error), exchange),
        onMessage: () => metrics.streamMessage("out"),
        onEnd() {
          unfollow();
          open.delete(stream);
          metrics.streamClosed();
          end();
        },
      });
      const unfollow = deps.follow(exchange, (error) => stream.fail(error));
      open.add(stream);
      metrics.streamOpened();
      if (isDraining) stream.drain(); // it was being opened when the drain began
      return new Response(stream.body, {
        headers: {
          "content-type": format.contentType,
          "cache-control": "no-store",
          "x-content-type-options": "nosniff",
          "x-request-id": exchange.requestId,
        },
      });
    }
  }

  return {
    answer,
    drain() {
      isDraining = true;
      for (const stream of [...open]) stream.drain();
    },
  };

  /** Reads JSON requests off the body as they come. The body's end is the end of the call's request half: what that means
   *  is the service's to say. A watch goes on. */
  async function manyRequests(
    request: Request,
    route: Route,
    abort: AbortController,
    onMessage: () => void,
  ): Promise<{ requests: () => AsyncIterable<Message>; failure: () => GatewayError | undefined }> {
    let failed: GatewayError | undefined;
    const messages = jsonRequests(request, route);
    const first = await messages.next();
    if (first.done) throw new GatewayError("invalid_argument", "the body has no JSON request");
    async function* generate(): AsyncGenerator<Message> {
      try {
        for (let next: IteratorResult<Message> = first; !next.done; next = await messages.next()) {
          onMessage();
          yield next.value;
        }
      } catch (error) {
        failed = fromServiceError(error);
        abort.abort(); // the call, so that the answering half hears of it
      } finally {
        await messages.return(undefined);
      }
    }
    return { requests: generate, failure: () => failed };
  }

  async function* jsonRequests(request: Request, route: Route): AsyncGenerator<Message, undefined> {
    if (request.body === null) return;
    const splitter = new JsonSplitter(deps.bodyLimits.bytesMax);
    for await (const chunk of request.body) {
      for (const object of splitter.push(chunk)) {
        yield messageFromJson(route.rpc.input, object, route.dialect);
      }
    }
    if (splitter.isPartial) throw new GatewayError("invalid_argument", "the body ends inside a JSON request");
  }
}

const NO_SWITCHES: ReadonlySet<string> = new Set();

/** The text of the mask in the query, still encoded. */
function queryMask(exchange: Exchange, route: Route): string | undefined {
  if (exchange.query === "") return undefined;
  return parseQuery(exchange.query)
    .find((pair) => route.queryFields.get(pair.name)?.name === route.updateMask!.name)?.rawValue;
}

function isForm(request: Request): boolean {
  return request.headers.get("content-type")?.startsWith("application/x-www-form-urlencoded") === true;
}

function oneRequest(message: Message): { requests: () => AsyncIterable<Message>; failure: () => undefined } {
  return {
    async *requests() {
      yield message;
    },
    failure: () => undefined,
  };
}

/** The message with what path, query and headers say. */
function bound(message: Message, exchange: Exchange, route: Route): Message {
  const variables = exchange.match!.variables;
  for (let i = 0; i < route.pathFields.length; i++) {
    bindPathVariable(message, route.pathFields[i]!, variables[i]!);
  }
  // etcd's gateway takes no notice of a query beside a body.
  if (exchange.query !== "" && route.dialect === "aetherflow") {
    const { updateMask } = route;
    const pairs = parseQuery(exchange.query);
    bindQuery(
      message,
      updateMask === undefined
        ? pairs
        : pairs.filter(({ name }) => route.queryFields.get(name)?.name !== updateMask.name), // read with the body
      route.queryFields,
      route.switches,
    );
  }
  if (route.httpMethod !== "GET") bindPrecondition(message, exchange, route);
  if (route.ttl !== undefined && exchange.ttl !== undefined) {
    route.ttl.set(message, parseTtl(exchange.ttl));
  }
  if (route.resume !== undefined) {
    const last = parseLastEventId(exchange.lastEventId);
    if (last !== undefined) route.resume.set(message, last + 1n);
  }
  return message;
}

function bindPrecondition(message: Message, exchange: Exchange, route: Route): void {
  if (exchange.ifMatch === undefined && exchange.ifNoneMatch === undefined) return;
  if (route.dialect === "etcd") return; // conditions of etcd's API are compares of a transaction
  if (route.precondition === undefined) {
    throw new GatewayError(
      "invalid_argument",
      `${route.httpMethod} ${route.template} takes no If-Match or If-None-Match`,
    );
  }
  const condition = parsePrecondition(exchange.ifMatch, exchange.ifNoneMatch);
  if (condition === "never") {
    throw new GatewayError("precondition_failed", "If-Match names no revision that the resource can have");
  }
  if (condition !== undefined) route.precondition.set(message, condition);
}

/** What the service answers if the request's condition does not hold; undefined when it has none. */
function failedCondition({ precondition, preconditionCode }: Route, exchange: Exchange): Code | undefined {
  const isConditional = precondition !== undefined &&
    (exchange.ifMatch !== undefined || exchange.ifNoneMatch !== undefined);
  return isConditional ? preconditionCode : undefined;
}

/** True when the query names the revision to resume from. */
function resumes(route: Route, exchange: Exchange): boolean {
  if (route.resume === undefined || exchange.query === "") return false;
  return parseQuery(exchange.query).some((pair) =>
    route.queryFields.get(pair.name)?.name === route.resume!.name && pair.rawValue !== "0"
  );
}

function encodeAnswer(route: Route, exchange: Exchange, message: Message): Response {
  let etag: string | undefined;
  if (route.etag !== undefined) {
    const revision = route.etag.get(message);
    if (revision !== undefined) etag = `"${revision}"`;
  }
  if (etag !== undefined && route.httpMethod === "GET") {
    if (exchange.ifMatch !== undefined && !matchHits(exchange.ifMatch, etag)) {
      throw new GatewayError("precondition_failed", `the resource is at ${etag}`);
    }
    if (exchange.ifNoneMatch !== undefined && noneMatchHits(exchange.ifNoneMatch, etag)) {
      return new Response(null, { status: 304, headers: { etag, "x-request-id": exchange.requestId } });
    }
  }
  const body = encodeBody(route, message);
  exchange.responseBytes = body.length;
  const headers: Record<string, string> = {
    "content-type": route.rawResponse === undefined ? "application/json" : "application/octet-stream",
    // What is stored may be anything; no browser shall take it for a page of ours.
    "x-content-type-options": "nosniff",
    "x-request-id": exchange.requestId,
  };
  if (etag !== undefined) headers["etag"] = etag;
  const ttlMs = route.ttlResponse?.get(message) as bigint | undefined;
  if (ttlMs !== undefined && ttlMs > 0n) headers["ttl"] = formatTtl(ttlMs);
  return new Response(body, { headers });
}

function encodeBody(route: Route, message: Message): Uint8Array<ArrayBuffer> {
  if (route.rawResponse !== undefined) {
    return (route.rawResponse.get(message) as Uint8Array<ArrayBuffer> | undefined) ?? new Uint8Array(0);
  }
  const part = route.responseBody;
  if (part !== undefined && part.leaf.fieldKind !== "message") {
    const whole = messageToValue(route.rpc.output, message, route.dialect) as JsonObject;
    const name = route.dialect === "etcd" ? part.leaf.name : part.leaf.jsonName;
    return encoder.encode(JSON.stringify(whole[name] ?? null));
  }
  if (route.responseBody?.leaf.fieldKind === "message") {
    const part = route.responseBody.get(message) as Message | undefined;
    const desc = route.responseBody.leaf.message;
    return encoder.encode(messageToJson(desc, part ?? create(desc), route.dialect));
  }
  return encoder.encode(messageToJson(route.rpc.output, message, route.dialect));
}
