/** A Connect `Transport` to a service rather than to one instance: for what the gateway calls on its own account. */
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { DescMethod } from "@bufbuild/protobuf";
import { ConnectError, type Transport } from "@connectrpc/connect";
import { GatewayError } from "../problem.ts";
import { type AttemptsPlan, runAttempts } from "./attempts.ts";
import type { Upstreams } from "./upstreams.ts";

/** Longest time that a call without a deadline has, in milliseconds. */
const DEFAULT_TIMEOUT_MS = 60_000;

/** Creates it. Repeatable unary calls wait `waitMs` for the service when it is away. */
export function createBalancedTransport(upstreams: Upstreams, service: string, waitMs: number): Transport {
  const { upstream, attempts, method } = upstreams.caller(service);
  const { clock } = attempts;

  function planOf(rpc: DescMethod, timeoutMs: number | undefined, isRepeatable: boolean): AttemptsPlan {
    return {
      deadlineAtMs: clock.now() + (timeoutMs ?? DEFAULT_TIMEOUT_MS),
      isRepeatable: isRepeatable && rpc.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN,
      waitMs,
      retriesMax: Infinity,
      mayWait: false,
      hash: undefined,
      onRetry: (isSent) => isSent && upstreams.metrics.retried(service),
    };
  }

  async function counted<T>(rpc: DescMethod, isUnary: boolean, call: () => Promise<T>): Promise<T> {
    const startedAtMs = clock.now();
    const metrics = method(`${rpc.parent.typeName}/${rpc.name}`);
    try {
      const answer = await call();
      metrics.end(0, isUnary ? clock.now() - startedAtMs : -1);
      return answer;
    } catch (error) {
      // Callers of a transport know its errors only.
      const failure = error instanceof GatewayError
        ? new ConnectError(error.message, error.grpcCode, undefined, undefined, error)
        : ConnectError.from(error);
      metrics.end(failure.code, isUnary ? clock.now() - startedAtMs : -1);
      throw failure;
    }
  }

  return {
    unary: (rpc, signal, timeoutMs, headers, input, values) =>
      counted(
        rpc,
        true,
        () =>
          runAttempts(attempts, upstream, planOf(rpc, timeoutMs, true), (target, leftMs) =>
            target.transport.unary(rpc, signal, leftMs, headers, input, values)),
      ),
    // A stream's requests can be read once, so that only what was never sent is sent elsewhere; and it lives as long as its
    // caller wants, whatever time is left for it to begin.
    stream: (rpc, signal, timeoutMs, headers, input, values) =>
      counted(
        rpc,
        false,
        () =>
          runAttempts(attempts, upstream, planOf(rpc, timeoutMs, false), (target) =>
            target.transport.stream(rpc, signal, timeoutMs, headers, input, values)),
      ),
  };
}
