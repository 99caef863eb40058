/** Spans of OpenTelemetry, exported by the runtime when the process was started so (`telemetry.otlp.endpoint`). Where they are not,
 *  nothing here costs anything: handlers and stores are wrapped only if there is somebody to tell. */
import { type Span, type SpanContext, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { context, isSpanContextValid, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import type { DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import type { RpcServices } from "./worker_context.ts";

/** Name of our spans' scope. */
const tracer = trace.getTracer("aetherflow");

/** Name of the metadata and the header that carry a span's context (W3C Trace Context, version 00). */
export const TRACEPARENT = "traceparent";

const TRACEPARENT_FORM = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

/** Codes that speak of trouble here rather than of the request. */
const FAULTS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/** Whether spans go anywhere from this thread. */
export function isTracing(): boolean {
  const probe = tracer.startSpan("probe", { kind: SpanKind.INTERNAL }, UNSAMPLED);
  return isSpanContextValid(probe.spanContext()) && probe.spanContext().spanId !== UNSAMPLED_SPAN.spanId;
}

// A parent that is not sampled, so that the probe is not exported.
const UNSAMPLED_SPAN: SpanContext = { traceId: "1".repeat(32), spanId: "1".repeat(16), traceFlags: 0 };
const UNSAMPLED = trace.setSpanContext(ROOT_CONTEXT, UNSAMPLED_SPAN);

/** The context that a `traceparent` names; undefined when it names none. */
export function parseTraceparent(text: string | null | undefined): SpanContext | undefined {
  const match = text == null ? null : TRACEPARENT_FORM.exec(text);
  if (match === null) return undefined;
  const parsed = {
    traceId: match[1]!,
    spanId: match[2]!,
    traceFlags: parseInt(match[3]!, 16),
    isRemote: true,
  };
  return isSpanContextValid(parsed) ? parsed : undefined;
}

/** The `traceparent` of a span's context. */
export function formatTraceparent({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`;
}

/** The id of the trace that a `traceparent` belongs to, for logs. */
export function traceIdOf(traceparent: string | null | undefined): string | undefined {
  return parseTraceparent(traceparent)?.traceId;
}

/** Starts a span under the context that `traceparent` names, or one of its own trace. */
export function startSpan(
  name: string,
  kind: SpanKind,
  traceparent: string | null | undefined,
  attributes: Readonly<Record<string, string | number | boolean>>,
): Span {
  const parent = parseTraceparent(traceparent);
  const parentContext = parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, parent);
  return tracer.startSpan(name, { kind, attributes: { ...attributes } }, parentContext);
}

/** Ends a span of a call by how the call ended. */
export function endCallSpan(span: Span, error: unknown): void {
  if (error !== undefined) {
    const { code, rawMessage } = ConnectError.from(error);
    span.setAttribute("rpc.grpc.status_code", code);
    if (FAULTS.has(code)) {
      span.setAttribute("error.type", Code[code] ?? "Unknown");
      span.setStatus({ code: SpanStatusCode.ERROR, message: rawMessage });
    }
  }
  span.end();
}

/** Attributes of a call of `method` of `service`, by the conventions for RPC. */
export function callAttributes(service: string, method: string): Record<string, string> {
  return { "rpc.system": "quantum", "rpc.service": service, "rpc.method": method };
}

/** The same services, with a span around each call. What a handler does before its first `await` runs in the span's context, so
 *  that a store can hang its own span below it. */
export function tracedServices(services: RpcServices, worker: string): RpcServices {
  return {
    service: (service, implementation) =>
      services.service(service, traceHandlers(service, implementation, worker)),
  };
}

type Handler = (request: unknown, context: HandlerContext) => unknown;

function traceHandlers<S extends DescService>(
  service: S,
  implementation: Partial<ServiceImpl<S>>,
  worker: string,
): Partial<ServiceImpl<S>> {
  const handlers = implementation as Record<string, Handler | undefined>;
  const traced: Record<string, Handler> = {};
  for (const { localName, name } of service.methods) {
    const handler = handlers[localName]?.bind(implementation);
    if (handler === undefined) continue;
    const attributes = { ...callAttributes(service.typeName, name), "aetherflow.worker": worker };
    traced[localName] = (request, call) => {
      const parent = call.requestHeader.get(TRACEPARENT);
      // A call that belongs to no trace is the product's own (health, figures).
      if (parent === null) return handler(request, call);
      const span = startSpan(`${service.typeName}/${name}`, SpanKind.SERVER, parent, attributes);
      return runInSpan(span, () => handler(request, call));
    };
  }
  return traced as Partial<ServiceImpl<S>>;
}

/** Ends with the answer; of a stream when it has been opened, since it may live for days. */
function runInSpan(span: Span, run: () => unknown): unknown {
  let answer: unknown;
  try {
    answer = context.with(trace.setSpan(ROOT_CONTEXT, span), run);
  } catch (error) {
    endCallSpan(span, error);
    throw error;
  }
  if (!(answer instanceof Promise)) {
    endCallSpan(span, undefined);
    return answer;
  }
  return answer.then((value) => {
    endCallSpan(span, undefined);
    return value;
  }, (error) => {
    endCallSpan(span, error);
    throw error;
  });
}

/** Starts a span below the one that runs now; undefined when none does. */
export function startInnerSpan(
  name: string,
  attributes: Readonly<Record<string, string | number>>,
): Span | undefined {
  const parent = trace.getActiveSpan();
  if (parent === undefined) return undefined;
  return tracer.startSpan(
    name,
    { kind: SpanKind.INTERNAL, attributes: { ...attributes } },
    trace.setSpan(ROOT_CONTEXT, parent),
  );
}
