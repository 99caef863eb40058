import type { Logger } from "./log.ts";
import { traceIdOf, TRACEPARENT } from "./tracing.ts";

/** Makes what an RPC server tells of faults to: a line in the log with the request's id and the trace's. */
export function logFailedCalls(
  log: Pick<Logger, "error">,
): (method: string, error: unknown, header: Headers) => void {
  return (method, error, header) =>
    log.error("call failed", {
      method,
      error,
      requestId: header.get("x-request-id") ?? undefined,
      traceId: traceIdOf(header.get(TRACEPARENT)),
    });
}
