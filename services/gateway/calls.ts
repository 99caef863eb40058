/** Calls from the gateway to the services: deadline, metadata, further tries, and one call for equal reads. */
import type { DescMessage, DescMethodStreaming, DescMethodUnary, Message } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { callUnary } from "../../transport/rpc/mod.ts";
import type { Exchange } from "./exchange.ts";
import { PRINCIPAL_METADATA } from "../runtime/principal.ts";
import { GatewayError } from "./problem.ts";
import { type AttemptsPlan, outOfTime, runAttempts } from "./resilience/attempts.ts";
import type { Upstream } from "./resilience/upstream.ts";
import type { UpstreamCaller, Upstreams } from "./resilience/upstreams.ts";
import type { Route } from "./routes.ts";
import type { CallTrace } from "./stages.ts";
import type { Timer } from "./timer.ts";

/** What the caller is made of. */
export interface CallsDeps {
  readonly upstreams: Upstreams;
  readonly clock: { now(): number };
  readonly timer: Timer;
  /** How long a read waits for an unavailable service. */
  readonly readRetryMs: number;
  /** Whether equal GETs share a call. */
  readonly singleFlight: boolean;
  onRetry(peer: string): void;
}

/** A stream that has given its first message. */
export interface OpenCall {
  readonly first: IteratorResult<Message>;
  readonly rest: AsyncIterator<Message>;
}

/** Calls RPCs on behalf of HTTP requests. */
export interface Calls {
  /** One answer, within the request's deadline. @throws {ConnectError} what the service said. */
  unary(route: Route, exchange: Exchange, message: Message): Promise<Message>;
  /** A stream, once its first message is there, within the request's deadline. `requests` makes the request messages of
   *  one try. `abort` ends the call at any time. @throws {ConnectError} what the service said instead. */
  open(
    route: Route,
    exchange: Exchange,
    requests: () => AsyncIterable<Message>,
    abort: AbortController,
  ): Promise<OpenCall>;
}

/** Unary calls under way from which further ones wait until the turn of the event loop ends. The HTTP server hands over
 *  each request by itself, so that each would cost a datagram each way; calls that start together share one. With 64
 *  requests in flight that is half the processor time a request; a call that is nearly alone does not wait. */
const GATHER_FROM = 4;

/** Calls that wait for the end of a turn. */
interface Turn {
  readonly end: Promise<void>;
  /** Reads among them, by who asks for what. Nothing of them was sent yet, so that a request which finds its like here gets
   *  an answer made after it came: no write that it could know of is missing from it. */
  readonly flights: Map<string, Flight>;
}

/** One read for several requests. */
interface Flight {
  /** Set before anybody else can see the flight. */
  answer: Promise<Message> | undefined;
  requests: number;
}

/** Creates the caller. */
export function createCalls(deps: CallsDeps): Calls {
  const { clock, upstreams } = deps;
  let underWay = 0;
  let turn: Turn | undefined;

  function thisTurn(): Turn {
    return turn ??= {
      end: new Promise((resolve) => {
        deps.timer.endOfTurn(() => {
          turn = undefined;
          resolve();
        });
      }),
      flights: new Map(),
    };
  }

  function planOf(
    route: Route,
    exchange: Exchange,
    upstream: Upstream,
    message: Message | undefined,
    trace: CallTrace | undefined,
  ): AttemptsPlan {
    const { waits, retriesMax } = upstreams.policy(route);
    let tries = 0;
    return {
      deadlineAtMs: exchange.deadlineAtMs,
      // The requests of a stream are read off the client's as they go, and cannot be read again.
      isRepeatable: waits && route.isIdempotent && (message !== undefined || route.httpMethod === "GET"),
      waitMs: deps.readRetryMs,
      retriesMax,
      mayWait: route.mayWait,
      hash: upstream.isHashed ? upstreams.hashOf(route.rpc, route.peer, message, exchange.caller) : undefined,
      onRetry(isSent) {
        trace?.retried(++tries);
        deps.onRetry(route.peer);
        if (isSent) upstreams.metrics.retried(route.peer);
      },
    };
  }

  /** Runs a call of a route's service: counted, traced, with a place among the service's calls. */
  async function call<T>(
    route: Route,
    exchange: Exchange,
    message: Message | undefined,
    run: (caller: UpstreamCaller, plan: AttemptsPlan, headers: Record<string, string>) => Promise<T>,
  ): Promise<T> {
    const startedAtMs = clock.now();
    const caller = upstreams.caller(route.peer);
    const metrics = caller.method(route.rpcName);
    const isUnary = route.rpc.methodKind === "unary";
    const trace = exchange.trace?.call(route.rpc.parent.typeName, route.rpc.name, route.peer);
    const headers = metadata(exchange);
    if (trace !== undefined) headers.traceparent = trace.traceparent;
    const { bulkhead } = caller;
    try {
      if (isUnary && !bulkhead.tryEnter()) await enterBulkhead(caller, exchange);
      try {
        const answer = await run(caller, planOf(route, exchange, caller.upstream, message, trace), headers);
        metrics.end(0, isUnary ? clock.now() - startedAtMs : -1);
        trace?.end(undefined);
        return answer;
      } finally {
        if (isUnary) bulkhead.leave();
      }
    } catch (error) {
      metrics.end(codeOf(error), isUnary ? clock.now() - startedAtMs : -1);
      trace?.end(error);
      throw error;
    }
  }

  async function enterBulkhead({ bulkhead, upstream }: UpstreamCaller, exchange: Exchange): Promise<void> {
    const waitMs = exchange.deadlineAtMs - clock.now();
    if (waitMs < 1) throw outOfTime();
    if (await bulkhead.enter(waitMs)) return;
    upstreams.metrics.rejected(upstream.name);
    throw new GatewayError(
      "too_many_requests",
      `${bulkhead.maxConcurrent} requests are under way at ${upstream.name} and too many wait ` +
        "(gateway.upstreams.bulkhead)",
    );
  }

  function callOnce(
    route: Route,
    exchange: Exchange,
    message: Message,
    signal: AbortSignal | undefined,
  ): Promise<Message> {
    const rpc = route.rpc as DescMethodUnary<DescMessage, DescMessage>;
    return call(
      route,
      exchange,
      message,
      (caller, plan, headers) =>
        runAttempts(
          caller.attempts,
          caller.upstream,
          plan,
          (target, timeoutMs) => callUnary(target.transport, rpc, message, { timeoutMs, headers, signal }),
        ),
    );
  }

  async function callAfterTurn(
    end: Promise<void>,
    route: Route,
    exchange: Exchange,
    message: Message,
  ): Promise<Message> {
    await end;
    return await callOnce(route, exchange, message, exchange.signal);
  }

  async function fly(flight: Flight, end: Promise<void>, route: Route, exchange: Exchange, message: Message) {
    await end;
    // Who takes part is known by now. A client that goes away must not end the call of others.
    const answer = await callOnce(
      route,
      exchange,
      message,
      flight.requests > 1 ? undefined : exchange.signal,
    );
    if (flight.requests > 1) route.shared?.set(answer, true);
    return answer;
  }

  /** Takes part in an equal read that was not sent yet, or begins one. */
  function share(
    { flights, end }: Turn,
    route: Route,
    exchange: Exchange,
    message: Message,
  ): Promise<Message> {
    const key = flightKey(exchange);
    const flight = flights.get(key);
    if (flight !== undefined) {
      flight.requests++;
      upstreams.metrics.shared(route.peer);
      return flight.answer!;
    }
    const begun: Flight = { answer: undefined, requests: 1 };
    flights.set(key, begun);
    return begun.answer = fly(begun, end, route, exchange, message);
  }

  return {
    async unary(route, exchange, message) {
      underWay++;
      try {
        if (underWay < GATHER_FROM) return await callOnce(route, exchange, message, exchange.signal);
        const turn = thisTurn();
        if (deps.singleFlight && route.isRead && route.httpMethod === "GET") {
          return await share(turn, route, exchange, message);
        }
        return await callAfterTurn(turn.end, route, exchange, message);
      } finally {
        underWay--;
      }
    },

    async open(route, exchange, requests, abort) {
      const rpc = route.rpc as DescMethodStreaming<DescMessage, DescMessage>;
      let late = false;
      const leftMs = exchange.deadlineAtMs - clock.now();
      if (leftMs < 1) throw outOfTime();
      const cancel = deps.timer.after(Math.floor(leftMs), () => {
        late = true;
        abort.abort();
      });
      try {
        return await call(
          route,
          exchange,
          undefined,
          (caller, plan, headers) =>
            runAttempts(caller.attempts, caller.upstream, plan, async ({ transport }) => {
              // No timeout of its own: once it has begun, a stream lives as long as its client.
              const answer = await transport.stream(rpc, abort.signal, undefined, headers, requests());
              const rest = answer.message[Symbol.asyncIterator]();
              return { first: await rest.next(), rest };
            }),
        );
      } catch (error) {
        if (!late) throw error;
        throw new GatewayError(
          "deadline_exceeded",
          "the stream did not begin in time (gateway.requestTimeoutMs)",
        );
      } finally {
        cancel();
      }
    },
  };
}

/** Who asks for what: equal keys, equal answers. What is judged of the answer afterwards (If-None-Match) is not in it. */
function flightKey({ method, path, query, caller, authorization, token }: Exchange): string {
  return JSON.stringify([caller?.encoded, method, path, query, authorization, token]);
}

function codeOf(error: unknown): number {
  return error instanceof ConnectError ? error.code : error instanceof GatewayError ? error.grpcCode : 2;
}

/** What a call of a request carries besides its message. */
export function metadata(
  { requestId, trace, traceparent, caller, authorization, token }: Exchange,
): Record<string, string> {
  const entries: Record<string, string> = { "x-request-id": requestId };
  const parent = trace?.traceparent ?? traceparent;
  if (parent !== undefined) entries.traceparent = parent;
  if (caller !== undefined) entries[PRINCIPAL_METADATA] = caller.encoded;
  // What has shown who calls is not the services' to see; an etcd token is theirs to judge.
  const isForService = caller === undefined || caller.credential === "none" ||
    caller.credential === "etcd_token";
  if (authorization !== undefined && isForService) entries.authorization = authorization;
  if (token !== undefined) entries.token = token;
  return entries;
}
