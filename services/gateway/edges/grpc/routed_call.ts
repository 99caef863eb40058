/** A gRPC call on its way to one of a service's instances, and what its end tells of that instance. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import {
  type RawCall,
  type RawCallHandler,
  type RawCallOptions,
  type RawEnd,
  startRawCall,
} from "../../../../transport/rpc/mod.ts";
import { GatewayError } from "../../problem.ts";
import { detailsOf } from "../connect/failure.ts";
import type { Outcome } from "../../resilience/breaker.ts";
import type { UpstreamMethodMetrics } from "../../resilience/metrics.ts";
import { type Attempt, outcomeOf, type Target, type Upstream } from "../../resilience/upstream.ts";
import type { Upstreams } from "../../resilience/upstreams.ts";

/** An RPC and where it is called. */
export interface RoutedMethod {
  readonly rpc: DescMethod;
  readonly upstreams: Upstreams;
  readonly upstream: Upstream;
  readonly metrics: UpstreamMethodMetrics;
  /** Whether a call whose request is one message may be made again although it may have had effects. */
  readonly isRepeatable: boolean;
  readonly isUnary: boolean;
  /** Whether calls may wait for one another. */
  readonly mayWait: boolean;
  readonly clock: { now(): number };
}

/** One call: it stands between what calls and the call of the instance. A call that fails before anything was answered goes
 *  to another instance, if it may and there is one; it never waits, since gRPC clients do that themselves. */
export class RoutedCall implements RawCall, RawCallHandler {
  readonly #method: RoutedMethod;
  readonly #handler: RawCallHandler;
  readonly #options: RawCallOptions;
  readonly #startedAtMs: number;
  #call: RawCall | undefined;
  #attempt: Attempt | undefined;
  #wasTold = false;
  #wasAnswered = false;
  #isOver = false;

  constructor(method: RoutedMethod, handler: RawCallHandler, options: RawCallOptions) {
    this.#method = method;
    this.#handler = handler;
    this.#options = options;
    this.#startedAtMs = method.clock.now();
    this.#begin(undefined, this.#startedAtMs);
  }

  send(message: Uint8Array): boolean {
    return this.#call?.send(message) ?? true;
  }

  endRequest(): void {
    this.#call?.endRequest();
  }

  pause(): void {
    this.#call?.pause();
  }

  resume(): void {
    this.#call?.resume();
  }

  cancel(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#leave("none", this.#method.clock.now());
    this.#method.metrics.end(Code.Canceled, -1);
    this.#call?.cancel();
  }

  onHeaders(headers: Headers): void {
    this.#wasAnswered = true;
    this.#handler.onHeaders(headers);
  }

  onMessage(message: Uint8Array): void {
    this.#wasAnswered = true;
    // A stream may live for days; that it answers says what there is to say.
    if (!this.#method.isUnary && !this.#wasTold) this.#tell("success", this.#method.clock.now());
    this.#handler.onMessage(message);
  }

  onDrain(): void {
    this.#handler.onDrain();
  }

  onEnd(end: RawEnd): void {
    const method = this.#method;
    const target = this.#attempt?.target;
    const nowMs = method.clock.now();
    this.#leave(outcomeOf(end.code, this.#options.timeoutMs ?? Infinity, method.mayWait), nowMs);
    if (end.code === Code.Unavailable && target !== undefined && this.#mayGoOn(target, end, nowMs)) {
      return this.#begin(target, nowMs);
    }
    this.#finish(end, nowMs);
  }

  #begin(avoid: Target | undefined, nowMs: number): void {
    const { rpc, upstreams, upstream } = this.#method;
    const options = this.#options;
    const hash = upstream.isHashed ? upstreams.hashOfBytes(rpc, upstream.name, options.message) : undefined;
    let attempt: Attempt;
    try {
      attempt = upstream.begin(nowMs, hash, avoid);
    } catch (error) {
      return this.#finish(refusal(error), nowMs);
    }
    this.#attempt = attempt;
    this.#wasTold = false;
    if (avoid === undefined) upstream.budget.request(nowMs);
    const { timeoutMs } = options;
    const call = startRawCall(
      attempt.target.transport,
      rpc,
      this,
      avoid === undefined || timeoutMs === undefined
        ? options
        : { ...options, timeoutMs: Math.max(1, timeoutMs - (nowMs - this.#startedAtMs)) },
    );
    // It may have ended already, and another one begun.
    if (this.#attempt === attempt) this.#call = call;
  }

  /** Whether a call that failed at `target` is made again elsewhere. */
  #mayGoOn(target: Target, end: RawEnd, nowMs: number): boolean {
    const { isRepeatable, upstream, upstreams } = this.#method;
    if (
      this.#isOver || this.#wasAnswered || this.#options.isWhole !== true || !upstream.hasOther(target, nowMs)
    ) {
      return false;
    }
    if (end.wasNeverSent === true) return true;
    if (!isRepeatable || !upstream.budget.take(nowMs)) return false;
    upstreams.metrics.retried(upstream.name);
    return true;
  }

  /** The attempt is over. */
  #leave(outcome: Outcome, nowMs: number): void {
    if (this.#attempt === undefined) return;
    this.#tell(outcome, nowMs);
    this.#method.upstream.release(this.#attempt);
    this.#attempt = undefined;
  }

  #tell(outcome: Outcome, nowMs: number): void {
    if (this.#wasTold) return;
    this.#wasTold = true;
    this.#method.upstream.tell(this.#attempt!, outcome, nowMs);
  }

  #finish(end: RawEnd, nowMs: number): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const { metrics, isUnary } = this.#method;
    metrics.end(end.code, isUnary ? nowMs - this.#startedAtMs : -1);
    this.#handler.onEnd(end);
  }
}

/** The end of a call that found no instance to go to: nothing was sent. */
function refusal(error: unknown): RawEnd {
  if (error instanceof GatewayError) {
    const { grpcCode: code, message } = error;
    return { code, message, trailers: undefined, wasNeverSent: true, details: detailsOf(error, undefined) };
  }
  const { code, rawMessage: message } = ConnectError.from(error);
  return { code, message, trailers: undefined, wasNeverSent: true };
}

/** What calls of an RPC need to find their instance. */
export function routedMethod(
  upstreams: Upstreams,
  rpc: DescMethod,
  service: string,
  mayWait: boolean,
): RoutedMethod {
  const { upstream, attempts, method } = upstreams.caller(service);
  return {
    rpc,
    upstreams,
    upstream,
    metrics: method(`${rpc.parent.typeName}/${rpc.name}`),
    isRepeatable: rpc.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN,
    isUnary: rpc.methodKind === "unary",
    mayWait,
    clock: attempts.clock,
  };
}
