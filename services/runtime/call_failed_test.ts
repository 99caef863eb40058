import { assertEquals } from "@std/assert";
import { logFailedCalls } from "./call_failed.ts";

Deno.test("logFailedCalls() names the request and the trace, where there are any", () => {
  const logged: unknown[] = [];
  const failed = logFailedCalls({ error: (message, fields) => void logged.push([message, fields]) });
  const error = new Error("why");
  const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
  failed(
    "/a.B/C",
    error,
    new Headers({ "x-request-id": "r", traceparent: `00-${traceId}-00f067aa0ba902b7-01` }),
  );
  failed("/a.B/C", error, new Headers({ traceparent: "nonsense" }));
  assertEquals(logged, [
    ["call failed", { method: "/a.B/C", error, requestId: "r", traceId }],
    ["call failed", { method: "/a.B/C", error, requestId: undefined, traceId: undefined }],
  ]);
});
