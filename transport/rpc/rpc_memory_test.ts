import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assertEquals, assertRejects } from "@std/assert";
import { createMemoryChannelPair, type MemoryChannelOptions } from "../channels/memory.ts";
import { createChannelTransport, createRpcServer, wasNeverSent } from "./mod.ts";
import { TestService } from "../testing/test_service.ts";
import { rpcSuite } from "../testing/rpc_suite.ts";

function suite(name: string, options: MemoryChannelOptions): void {
  rpcSuite(name, () => {
    const [client, server] = createMemoryChannelPair(options);
    const close = () => {
      client.close(0, "end of test");
      return Promise.resolve();
    };
    return Promise.resolve({ client, server, close });
  });
}

suite("memory", {});
// Every chunk border falls somewhere awkward, and every window is smaller than a message.
suite("memory in crumbs", {
  maxChunkBytes: 7919,
  streamWindowBytes: 20_011,
  channelWindowBytes: 1_000_003,
  highWaterBytes: 9973,
  maxStreams: 64,
});

Deno.test("RPC gives its stream back however a call ends", async () => {
  const [client, server] = createMemoryChannelPair({
    maxStreams: 1,
    streamWindowBytes: 1000,
    highWaterBytes: 1000,
  });
  const rpc = createRpcServer({ maxMessageBytes: 10_000 }).service(TestService, {
    unary(request, context) {
      if (request.text === "fail") throw new ConnectError("failed", Code.Aborted);
      if (request.text !== "hang") return request;
      return new Promise((_, reject) => context.signal.onabort = () => reject(context.signal.reason));
    },
    async *download() {
      for (;;) yield { body: new Uint8Array(600) };
    },
    upload: (_, context) =>
      new Promise((_, reject) => context.signal.onabort = () => reject(context.signal.reason)),
  });
  rpc.accept(server);
  const transport = createChannelTransport({ channel: () => client });
  const calls = createClient(TestService, transport);
  const body = new Uint8Array(600);
  const endless = async function* () {
    for (;;) yield { body };
  };
  const ends: [string, (signal: AbortSignal, abort: () => void) => Promise<unknown>, Code][] = [
    ["handler's error", () => calls.unary({ text: "fail" }), Code.Aborted],
    [
      "abort before it was sent",
      (signal, abort) => both(calls.unary({ text: "hang" }, { signal }), abort()),
      Code.Canceled,
    ],
    [
      "abort",
      (signal, abort) => both(calls.unary({ text: "hang" }, { signal }), setTimeout(abort)),
      Code.Canceled,
    ],
    ["deadline", () => calls.unary({ text: "hang" }, { timeoutMs: 1 }), Code.DeadlineExceeded],
    ["request over the limit", () => calls.unary({ body: new Uint8Array(20_000) }), Code.ResourceExhausted],
    [
      "abort of a full answer",
      (signal, abort) => both(first(calls.download({}, { signal })), setTimeout(abort)),
      Code.Canceled,
    ],
    [
      "abort of a full request",
      (signal, abort) => both(calls.upload(endless(), { signal }), setTimeout(abort)),
      Code.Canceled,
    ],
  ];
  for (const [what, call, code] of ends) {
    const controller = new AbortController();
    const error = await call(controller.signal, () => controller.abort()).then(
      () => undefined,
      (error) => error,
    );
    assertEquals(ConnectError.from(error).code, code, what);
    assertEquals((await calls.unary({ text: what })).text, what);
    assertEquals([transport.stats().running, rpc.stats().running], [0, 0], what);
  }
  client.close(0, "end of test");
});

/** The call; the second argument is only evaluated. */
function both<T>(call: Promise<T>, _: unknown): Promise<T> {
  return call;
}

/** Reads one message, waits, and reads on until the stream fails. */
async function first(messages: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of messages) await new Promise((resolve) => setTimeout(resolve));
}

Deno.test("wasNeverSent() is true of calls that found no channel, and of no call that was written", async () => {
  const [client, server] = createMemoryChannelPair();
  createRpcServer().service(TestService, {
    unary: () => {
      throw new ConnectError("busy", Code.Unavailable);
    },
  }).accept(server);
  const error = await assertRejects(() =>
    createClient(TestService, createChannelTransport({ channel: () => client })).unary({})
  );
  assertEquals(wasNeverSent(error), false);
  client.close(0, "end of test");
  const unsent = await assertRejects(() =>
    createClient(TestService, createChannelTransport({ channel: () => client })).unary({})
  );
  assertEquals([(unsent as ConnectError).code, wasNeverSent(unsent)], [Code.Unavailable, true]);
});
