import { assert, assertEquals } from "@std/assert";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl, type Transport } from "@connectrpc/connect";
import { createMemoryChannelPair } from "../../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer, type RawEnd } from "../../../../transport/rpc/mod.ts";
import { TestMessageSchema, TestService } from "../../../../transport/testing/test_service.ts";
import { createTestUpstreams, testPeer } from "../../testing/upstreams.ts";
import { RoutedCall, type RoutedMethod, routedMethod } from "./routed_call.ts";

type Impl = Partial<ServiceImpl<typeof TestService>>;

/** Instances `a`, `b`, … of a service, each with its own handlers; one without handlers cannot be reached. */
function world(impls: Record<string, Impl | undefined>) {
  const peers = Object.keys(impls).map((name) => testPeer(name, "test"));
  const calls: string[] = [];
  const channels = new Map<string, { close(): void }>();
  const transports = Object.fromEntries(
    Object.entries(impls).map(([name, impl]): [string, Transport] => {
      const [near, far] = createMemoryChannelPair();
      channels.set(name, { close: () => near.close(0, "gone") });
      if (impl === undefined) near.close(0, "gone");
      else createRpcServer({ onError() {} }).service(TestService, impl).accept(far);
      const transport = createChannelTransport({
        channel: () => {
          calls.push(name);
          return near;
        },
      });
      return [name, transport];
    }),
  );
  // Chance takes the first of the two that are drawn, so that `a` is tried before `b`.
  const upstreams = createTestUpstreams(transports["a"]!, {
    peers: { instances: () => peers, transport: (name) => transports[name]! },
    chance: () => 0,
  });
  const method = (name: "unary" | "chat", isRepeatable: boolean): RoutedMethod => ({
    ...routedMethod(upstreams, TestService.method[name], "test", false),
    isRepeatable,
  });
  /** Makes a unary call; gives its answers and its end. */
  function unary(isRepeatable: boolean): Promise<{ end: RawEnd; answers: number }> {
    return new Promise((resolve) => {
      let answers = 0;
      new RoutedCall(method("unary", isRepeatable), {
        onHeaders() {},
        onMessage: () => answers++,
        onDrain() {},
        onEnd: (end) => resolve({ end, answers }),
      }, { message: toBinary(TestMessageSchema, create(TestMessageSchema, { text: "x" })), isWhole: true });
    });
  }
  const { upstream } = upstreams.caller("test");
  const outstanding = () => upstream.targets().map((target) => target.outstanding);
  return {
    unary,
    method,
    calls,
    upstream,
    outstanding,
    close: (name: string) => channels.get(name)!.close(),
  };
}

const fine: Impl = { unary: (request) => request };
const away: Impl = {
  unary: () => {
    throw new ConnectError("going away", Code.Unavailable);
  },
};

Deno.test("RoutedCall makes a read again at another instance, and counts the first against its own", async () => {
  const { unary, calls, upstream, outstanding } = world({ a: away, b: fine });
  const { end, answers } = await unary(true);
  assertEquals([end.code, answers, calls], [0, 1, ["a", "b"]]);
  assertEquals(upstream.targets().map((target) => target.outlier.failuresInARow), [1, 0]);
  assertEquals(outstanding(), [0, 0]);
});

Deno.test("RoutedCall does not make a write again that may have had effects", async () => {
  const { unary, calls } = world({ a: away, b: fine });
  const { end } = await unary(false);
  assertEquals([end.code, end.message, calls], [Code.Unavailable, "going away", ["a"]]);
});

Deno.test("RoutedCall makes a write again of which nothing was sent", async () => {
  const { unary, calls } = world({ a: undefined, b: fine });
  const { end } = await unary(false);
  assertEquals([end.code, calls], [0, ["a", "b"]]);
});

Deno.test("RoutedCall ends with the last error when every instance fails", async () => {
  const { unary, outstanding } = world({ a: away, b: away, c: away });
  const { end } = await unary(true);
  assertEquals(end.code, Code.Unavailable);
  assertEquals(outstanding(), [0, 0, 0]);
});

Deno.test("RoutedCall is refused by an open breaker, and says so", async () => {
  const { unary, upstream, calls } = world({ a: away });
  for (let i = 0; i < 5; i++) await unary(true);
  const { end } = await unary(true);
  assertEquals([end.code, end.wasNeverSent, calls.length], [Code.Unavailable, true, 5]);
  assert(end.message.startsWith("circuit breaker is open"));
  assertEquals(end.details?.map(({ type }) => type), ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]);
  assertEquals(upstream.targets()[0]!.outstanding, 0);
});

Deno.test("RoutedCall of a stream tells of its instance at the first answer, and is under way until it ends", async () => {
  const { method, outstanding, upstream, close } = world({
    a: {
      async *chat(requests) {
        for await (const request of requests) yield request;
      },
    },
  });
  const ended = Promise.withResolvers<RawEnd>();
  const answered = Promise.withResolvers<void>();
  const call = new RoutedCall(method("chat", true), {
    onHeaders() {},
    onMessage: () => answered.resolve(),
    onDrain() {},
    onEnd: ended.resolve,
  }, {});
  call.send(toBinary(TestMessageSchema, create(TestMessageSchema, { text: "x" })));
  await answered.promise;
  const { breaker } = upstream.targets()[0]!;
  assertEquals([outstanding(), breaker!.figures().successes], [[1], 1]);
  close("a");
  assertEquals((await ended.promise).code, Code.Unavailable);
  assertEquals([outstanding(), breaker!.figures().failures], [[0], 0]);
});

Deno.test("RoutedCall that is cancelled tells nothing of its instance, and ends once", async () => {
  const { method, outstanding, upstream } = world({ a: { unary: () => new Promise(() => {}) } });
  let ends = 0;
  const call = new RoutedCall(method("unary", true), {
    onHeaders() {},
    onMessage() {},
    onDrain() {},
    onEnd: () => ends++,
  }, { message: new Uint8Array(), isWhole: true });
  await new Promise((resolve) => setTimeout(resolve, 0));
  call.cancel();
  call.cancel();
  assertEquals([ends, outstanding(), upstream.targets()[0]!.breaker!.figures().requests], [0, [0], 0]);
});
