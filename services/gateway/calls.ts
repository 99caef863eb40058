/** Calls from the gateway to the services: deadline, metadata, and a second try for reads. */
import type { DescMessage, DescMethodStreaming, DescMethodUnary, Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { callUnary } from "../../transport/rpc/mod.ts";
import type { Exchange } from "./exchange.ts";
import { PRINCIPAL_METADATA } from "../runtime/principal.ts";
import { GatewayError } from "./problem.ts";
import type { Route } from "./routes.ts";
import { pause, type Timer } from "./timer.ts";

/** What the caller is made of. */
export interface CallsDeps {
  /** The transport to a peer; its calls fail with `unavailable` while the peer is down. */
  transport(peer: string): Transport;
  readonly clock: { now(): number };
  readonly timer: Timer;
  /** How long a read waits for an unavailable service. */
  readonly readRetryMs: number;
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

/** Pauses between tries of a read, in milliseconds: the first ones are short, since a restarted worker is back soon. */
const RETRY_FIRST_MS = 10;
const RETRY_MAX_MS = 160;

/** Unary calls under way from which further ones wait until the turn of the event loop ends. The HTTP server hands over
 *  each request by itself, so that each would cost a datagram each way; calls that start together share one. With 64
 *  requests in flight that is half the processor time a request; a call that is nearly alone does not wait. */
const GATHER_FROM = 4;

/** Creates the caller. */
export function createCalls(deps: CallsDeps): Calls {
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

  function remainingMs(exchange: Exchange): number {
    const left = exchange.deadlineAtMs - deps.clock.now();
    if (left < 1) {
      throw new GatewayError("deadline_exceeded", "the request's time ran out (gateway.requestTimeoutMs)");
    }
    return Math.floor(left);
  }

  /** Runs `attempt`, again and again for a read whose service is unavailable, until readRetryMs have passed. */
  function withRetry<T>(route: Route, exchange: Exchange, attempt: () => Promise<T>): Promise<T> {
    if (route.httpMethod !== "GET") return attempt();
    return attempt().catch((error: unknown) => {
      if (!isUnavailable(error)) throw error;
      return retry(route, exchange, attempt);
    });
  }

  async function retry<T>(route: Route, exchange: Exchange, attempt: () => Promise<T>): Promise<T> {
    const giveUpAtMs = Math.min(deps.clock.now() + deps.readRetryMs, exchange.deadlineAtMs);
    for (let pauseMs = RETRY_FIRST_MS;; pauseMs = Math.min(pauseMs * 2, RETRY_MAX_MS)) {
      await pause(deps.timer, pauseMs);
      deps.onRetry(route.peer);
      try {
        return await attempt();
      } catch (error) {
        if (!isUnavailable(error) || deps.clock.now() + pauseMs >= giveUpAtMs) throw error;
      }
    }
  }

  return {
    async unary(route, exchange, message) {
      const rpc = route.rpc as DescMethodUnary<DescMessage, DescMessage>;
      underWay++;
      try {
        if (underWay >= GATHER_FROM) await endOfTurn();
        return await withRetry(
          route,
          exchange,
          async () =>
            await callUnary(deps.transport(route.peer), rpc, message, {
              timeoutMs: remainingMs(exchange),
              headers: metadata(exchange),
            }),
        );
      } finally {
        underWay--;
      }
    },

    async open(route, exchange, requests, abort) {
      const rpc = route.rpc as DescMethodStreaming<DescMessage, DescMessage>;
      let late = false;
      const cancel = deps.timer.after(remainingMs(exchange), () => {
        late = true;
        abort.abort();
      });
      try {
        return await withRetry(route, exchange, async () => {
          // No timeout of its own: once it has begun, a stream lives as long as its client.
          const answer = await deps.transport(route.peer)
            .stream(rpc, abort.signal, undefined, metadata(exchange), requests());
          const rest = answer.message[Symbol.asyncIterator]();
          return { first: await rest.next(), rest };
        });
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

function isUnavailable(error: unknown): boolean {
  return error instanceof ConnectError && error.code === Code.Unavailable;
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
