/** Spans of requests at the gateway: one over each request, one below it for each call to a service. */
import { type Span, SpanKind, SpanStatusCode, trace, TraceFlags } from "@opentelemetry/api";
import { callAttributes, endCallSpan, formatTraceparent, startSpan, traceIdOf } from "../runtime/tracing.ts";
import type { Exchange } from "./exchange.ts";
import type { CallTrace, RequestTrace, Tracing } from "./stages.ts";

/** Passes the client's context on, and records nothing. */
const PASSING: Tracing = {
  begin: ({ traceparent }) => traceparent === undefined ? undefined : new PassedTrace(traceparent),
  beginCall: (_path, traceparent) => traceparent === undefined ? undefined : new PassedTrace(traceparent),
};

/** Makes spans if they go anywhere, and tells `onTrace` of each request that has one; if not, what the client sent is passed on
 *  as it is. */
export function createTracing(isTracing: boolean, onTrace: (isSampled: boolean) => void = () => {}): Tracing {
  if (!isTracing) return PASSING;
  const counted = (trace: RecordedTrace) => {
    onTrace(trace.isSampled);
    return trace;
  };
  return {
    begin: (exchange) => counted(beginRequest(exchange)),
    beginCall: (path, traceparent) => counted(beginCall(path, traceparent)),
  };
}

class PassedTrace implements RequestTrace {
  constructor(readonly traceparent: string) {}

  get traceId(): string | undefined {
    return traceIdOf(this.traceparent);
  }

  routed(): void {}

  call(): undefined {
    return undefined;
  }

  end(): void {}

  endCall(): void {}
}

function beginRequest({ method, traceparent, path }: Exchange): RecordedTrace {
  // The HTTP server of the runtime makes a span of its own, which is the request's then.
  const active = trace.getActiveSpan();
  if (active !== undefined) return new RecordedTrace(active, false);
  const attributes = { "http.request.method": method, "url.path": path };
  return new RecordedTrace(startSpan(method, SpanKind.SERVER, traceparent, attributes), true);
}

function beginCall(path: string, traceparent: string | undefined): RecordedTrace {
  const [service, method] = path.slice(1).split("/") as [string, string];
  const attributes = { ...callAttributes(service, method), "rpc.system": "grpc" };
  return new RecordedTrace(startSpan(path.slice(1), SpanKind.SERVER, traceparent, attributes), true);
}

class RecordedTrace implements RequestTrace {
  readonly traceparent: string;
  readonly traceId: string;
  readonly #span: Span;
  /** Whether the span is ours to end. */
  readonly #isOwn: boolean;

  constructor(span: Span, isOwn: boolean) {
    this.#span = span;
    this.#isOwn = isOwn;
    this.traceparent = formatTraceparent(span.spanContext());
    this.traceId = span.spanContext().traceId;
  }

  /** Whether it is exported. */
  get isSampled(): boolean {
    return (this.#span.spanContext().traceFlags & TraceFlags.SAMPLED) !== 0;
  }

  routed({ method, match, requestId }: Exchange): void {
    const span = this.#span;
    span.setAttribute("aetherflow.request_id", requestId);
    if (match === undefined) return;
    span.setAttribute("http.route", match.route.template);
    span.updateName(`${method} ${match.route.template}`);
  }

  call(service: string, method: string, peer: string): CallTrace {
    const span = startSpan(`${service}/${method}`, SpanKind.CLIENT, this.traceparent, {
      ...callAttributes(service, method),
      "peer.service": peer,
    });
    return {
      traceparent: formatTraceparent(span.spanContext()),
      retried: (attempt) => void span.addEvent("retry", { attempt }),
      end: (error) => endCallSpan(span, error),
    };
  }

  end(status: number, error: unknown): void {
    const span = this.#span;
    if (status >= 500) {
      const message = error instanceof Error ? error.message : String(status);
      span.setStatus({ code: SpanStatusCode.ERROR, message });
      span.setAttribute(
        "error.type",
        error instanceof Error && "code" in error ? String(error.code) : String(status),
      );
    }
    if (!this.#isOwn) return;
    span.setAttribute("http.response.status_code", status);
    span.end();
  }

  endCall(error: unknown): void {
    endCallSpan(this.#span, error);
  }
}
