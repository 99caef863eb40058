/** What a gRPC call costs for its way through the choice of an instance, beside the bare call of a worker. */
import { create, toBinary } from "@bufbuild/protobuf";
import { createMemoryChannelPair } from "../../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer, startRawCall } from "../../../../transport/rpc/mod.ts";
import type { RawCallHandler } from "../../../../transport/rpc/mod.ts";
import { TestMessageSchema, TestService } from "../../../../transport/testing/test_service.ts";
import { createTestUpstreams } from "../../testing/upstreams.ts";
import { RoutedCall, routedMethod } from "./routed_call.ts";

const CALLS = 256;
const [near, far] = createMemoryChannelPair();
createRpcServer().service(TestService, { unary: (request) => request }).accept(far);
const transport = createChannelTransport({ channel: () => near });
const method = routedMethod(createTestUpstreams(transport), TestService.method.unary, "test", false);
const message = toBinary(TestMessageSchema, create(TestMessageSchema, { text: "x".repeat(64) }));
const options = { message, isWhole: true, timeoutMs: 5_000 };

/** Many calls at once. */
function run(start: (handler: RawCallHandler) => unknown): Promise<void> {
  return new Promise((resolve) => {
    let left = CALLS;
    const handler = {
      onHeaders() {},
      onMessage() {},
      onDrain() {},
      onEnd: () => --left === 0 && resolve(),
    } as RawCallHandler;
    for (let i = 0; i < CALLS; i++) start(handler);
  });
}

Deno.bench(
  `${CALLS} calls, bare`,
  { baseline: true },
  () => run((handler) => startRawCall(transport, TestService.method.unary, handler, options)),
);
Deno.bench(
  `${CALLS} calls through RoutedCall`,
  () => run((handler) => new RoutedCall(method, handler, options)),
);
