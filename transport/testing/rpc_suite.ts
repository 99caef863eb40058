/** What RPC must do, whatever channel carries it. Deadlines run on clocks of the suite's own, so nothing here waits for time. */
import { create, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient, type ServiceImpl } from "@connectrpc/connect";
import { assert, assertEquals, assertInstanceOf, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { Channel, ChannelStream, StreamHandler } from "../channels/channel.ts";
import { pathBytes, writeCall } from "../rpc/call_header.ts";
import { FRAME, FrameWriter } from "../rpc/frame.ts";
import {
  callUnary,
  type ChannelTransport,
  type ChannelTransportOptions,
  createChannelTransport,
  createRpcServer,
  type RawCallOptions,
  type RawEnd,
  type RpcServer,
  type RpcServerOptions,
  startRawCall,
  systemRpcClock,
} from "../rpc/mod.ts";
import { ManualRpcClock } from "./manual_clock.ts";
import { TestMessageSchema, TestService } from "./test_service.ts";

/** Two ends of one open channel. */
export interface RpcPair {
  readonly client: Channel;
  readonly server: Channel;
  /** Releases what was opened; called once, after the test. */
  close(): Promise<void>;
}

/** Registers the tests on one kind of channel. `openPair` is called once for each. */
export function rpcSuite(name: string, openPair: () => Promise<RpcPair>): void {
  function test(what: string, body: (open: OpenWorld) => Promise<void>): void {
    Deno.test(`RPC over ${name} ${what}`, async () => {
      const pair = await openPair();
      try {
        await body((setup) => openWorld(pair, setup));
      } finally {
        await pair.close();
      }
    });
  }

  // Raw

  test("carries raw messages and metadata of a unary call", async (open) => {
    const { transport } = open({
      impl: {
        unary(request, context) {
          context.responseHeader.set("x-head", "h");
          context.responseTrailer.set("x-trail", context.requestHeader.get("token")!);
          return { text: `hello ${request.text}` };
        },
      },
    });
    const raw = rawCall(transport, TestService.method.unary, {
      message: encode("a"),
      isWhole: true,
      headers: { token: "t" },
    });
    assertEquals(await raw.ended, { code: 0, message: "", trailers: { "x-trail": "t" } });
    assertEquals([raw.texts, raw.headers], [["hello a"], { "x-head": "h" }]);
    assertEquals(transport.stats(), { running: 0, queued: 0 });
  });

  test("ends a raw call with the server's code and text, and at its deadline", async (open) => {
    const { transport, clientClock, started } = open({
      impl: (signals) => ({
        unary(_, context) {
          if (context.timeoutMs() === undefined) throw new ConnectError("no ☃", Code.OutOfRange);
          return hangs()(signals).unary!(_, context);
        },
      }),
    });
    const message = encode("");
    const refused = rawCall(transport, TestService.method.unary, { message, isWhole: true });
    assertEquals(await refused.ended, { code: Code.OutOfRange, message: "no ☃", trailers: undefined });
    const late = rawCall(transport, TestService.method.unary, { message, isWhole: true, timeoutMs: 50 });
    await started.promise;
    clientClock.advance(50);
    assertEquals((await late.ended).code, Code.DeadlineExceeded);
  });

  test("carries raw messages both ways, and holds answers back while paused", async (open) => {
    const { transport } = open({
      impl: {
        async *chat(requests) {
          for await (const { text } of requests) {
            if (text !== "many") yield { text };
            else for (let i = 0; i < 2_000; i++) yield { text: String(i), body: new Uint8Array(1_000) };
          }
        },
      },
    });
    const raw = rawCall(transport, TestService.method.chat, { message: encode("a") });
    raw.call.send(encode("b"));
    await raw.count(2);
    raw.call.pause();
    raw.call.send(encode("many"));
    await settled(() => raw.texts.length);
    assertEquals(raw.texts, ["a", "b"]);
    raw.call.resume();
    await raw.count(2_002);
    raw.call.endRequest();
    assertEquals((await raw.ended).code, 0);
    assertEquals(raw.texts.slice(2), Array.from({ length: 2_000 }, (_, i) => String(i)));
    assertEquals(transport.stats(), { running: 0, queued: 0 });
  });

  test("tells the handler when a raw call is cancelled, and the caller nothing more", async (open) => {
    const { transport, aborted } = open({ impl: hangs() });
    const raw = rawCall(transport, TestService.method.chat, {});
    await raw.count(1);
    raw.call.cancel();
    raw.call.cancel();
    assertInstanceOf(await aborted.promise, ConnectError);
    assertEquals([raw.isOver, transport.stats()], [false, { running: 0, queued: 0 }]);
  });

  test("refuses a raw request that is too large before it is sent", async (open) => {
    const { transport } = open({ impl: {}, client: { maxMessageBytes: 100 } });
    const message = new Uint8Array(101);
    const raw = rawCall(transport, TestService.method.unary, { message, isWhole: true });
    assertEquals((await raw.ended).code, Code.ResourceExhausted);
  });

  test("carries an answer that is larger than any request may be", async (open) => {
    const body = new Uint8Array(5_000_000).fill(7);
    const { transport } = open({ impl: { unary: () => ({ body }) } });
    const raw = rawCall(transport, TestService.method.unary, { message: encode(""), isWhole: true });
    assertEquals([(await raw.ended).code, raw.byteCounts[0]! > body.length], [0, true]);
  });

  // Unary

  test("answers a unary call, through createClient and through callUnary", async (open) => {
    const { client, transport } = open({
      impl: { unary: (request) => ({ text: `hello ${request.text}`, number: request.number + 1 }) },
    });
    const answer = await client.unary({ text: "a", number: 1 });
    assertEquals([answer.text, answer.number], ["hello a", 2]);
    const lean = await callUnary(transport, TestService.method.unary, { text: "b", number: -5 });
    assertEquals([lean.text, lean.number, lean.$typeName], ["hello b", -4, TestMessageSchema.typeName]);
    assertEquals(transport.stats(), { running: 0, queued: 0 });
  });

  test("answers handlers that return promises, and empty messages", async (open) => {
    const { client } = open({ impl: { unary: async () => (await Promise.resolve(), {}) } });
    assertEquals(await client.unary({}), create(TestMessageSchema));
  });

  test("carries an error's code, text, details and metadata", async (open) => {
    const detail = { desc: TestMessageSchema, value: { text: "why", number: 7 } };
    const { client } = open({
      impl: {
        unary(_, context) {
          context.responseHeader.set("x-head", "h");
          context.responseTrailer.set("x-trail", "t");
          throw new ConnectError("not today: naïve ☃", Code.FailedPrecondition, { "x-own": "o" }, [detail]);
        },
      },
    });
    const error = await failure(client.unary({}));
    assertEquals([error.code, error.rawMessage], [Code.FailedPrecondition, "not today: naïve ☃"]);
    assertEquals(error.findDetails(TestMessageSchema), [create(TestMessageSchema, detail.value)]);
    assertEquals([error.metadata.get("x-own"), error.metadata.get("x-trail")], ["o", "t"]);
  });

  test("hides what a handler throws unless it is a ConnectError, and reports it", async (open) => {
    const reported: unknown[][] = [];
    const secret = new Error("password is 1234");
    const { client } = open({
      impl: {
        unary() {
          throw secret;
        },
        upload: () => Promise.reject(secret),
      },
      server: {
        onError: (method, error, header) => reported.push([method, error, header.get("x-request-id")]),
      },
    });
    const options = { headers: { "x-request-id": "r1" } };
    for (
      const error of [
        await failure(client.unary({}, options)),
        await failure(client.upload(from([]), options)),
      ]
    ) {
      assertEquals([error.code, error.rawMessage], [Code.Internal, "internal error"]);
    }
    assertEquals(reported, [["/aetherflow.test.v1.TestService/Unary", secret, "r1"], [
      "/aetherflow.test.v1.TestService/Upload",
      secret,
      "r1",
    ]]);
  });

  test("answers methods without a handler with unimplemented, naming them", async (open) => {
    const { client } = open({ impl: {} });
    const error = await failure(client.unary({}));
    assertEquals(error.code, Code.Unimplemented);
    assertStringIncludes(error.rawMessage, "/aetherflow.test.v1.TestService/Unary");
    assertEquals((await failure(collect(client.chat(from([]))))).code, Code.Unimplemented);
  });

  test("tells the observer of every end with method and code", async (open) => {
    const ends: [string, number][] = [];
    const { client, server } = open({
      impl: {
        unary(request) {
          if (request.number === 0) throw new ConnectError("no", Code.NotFound);
          return {};
        },
      },
      server: { observer: { onCallEnd: (method, code) => ends.push([method, code]) } },
    });
    await client.unary({ number: 1 });
    await failure(client.unary({ number: 0 }));
    const path = "/aetherflow.test.v1.TestService/Unary";
    assertEquals(ends, [[path, 0], [path, Code.NotFound]]);
    assertEquals(server.stats(), { running: 0, accepted: 2, refused: 0, failed: 1, channels: 1 });
  });

  // Metadata

  test("carries headers and trailers both ways, the trace context unchanged", async (open) => {
    const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const { client } = open({
      impl: {
        unary(_, context) {
          context.responseHeader.append("x-many", "1");
          context.responseHeader.append("x-many", "2");
          context.responseTrailer.set("x-cost", "3");
          return { text: [...context.requestHeader].map(([key, value]) => `${key}=${value}`).join(";") };
        },
      },
    });
    let header = new Headers();
    let trailer = new Headers();
    for (
      const headers of [
        { Traceparent: trace, "x-request-id": " r1 " },
        [["traceparent", trace], ["X-Request-Id", "r1"]] as [string, string][],
        new Headers({ traceparent: trace, "x-request-id": "r1" }),
      ]
    ) {
      const answer = await client.unary({}, {
        headers,
        onHeader: (value) => header = value,
        onTrailer: (value) => trailer = value,
      });
      assertEquals(answer.text, `traceparent=${trace};x-request-id=r1`);
      assertEquals([header.get("x-many"), trailer.get("x-cost"), header.get("x-cost")], ["1, 2", "3", null]);
    }
  });

  test("carries headers and trailers of streams", async (open) => {
    const { client } = open({
      impl: {
        async *download(_, context) {
          context.responseHeader.set("x-head", context.requestHeader.get("x-in") ?? "");
          yield { number: 1 };
          context.responseTrailer.set("x-trail", "t");
        },
      },
    });
    const seen: (string | null)[] = [];
    const answers = client.download({}, {
      headers: { "x-in": "i" },
      onHeader: (header) => seen.push(header.get("x-head")),
      onTrailer: (trailer) => seen.push(trailer.get("x-trail")),
    });
    assertEquals((await collect(answers)).length, 1);
    assertEquals(seen, ["i", "t"]);
  });

  test("refuses headers that cannot be sent, and goes on", async (open) => {
    const { client } = open({ impl: { unary: () => ({}) } });
    for (
      const headers of [{ "bad name": "x" }, { ok: "line\nbreak" }, { ok: "☃" }, { big: "x".repeat(20_000) }]
    ) {
      assertEquals((await failure(client.unary({}, { headers }))).code, Code.InvalidArgument);
    }
    await client.unary({});
  });

  test("ends a call with internal when the handler's headers are too large", async (open) => {
    const { client } = open({
      impl: {
        unary(_, context) {
          context.responseHeader.set("big", "x".repeat(20_000));
          return {};
        },
      },
    });
    assertEquals((await failure(client.unary({}))).code, Code.Internal);
  });

  // Streams

  test("streams answers in order", async (open) => {
    const { client } = open({
      impl: {
        async *download(request) {
          for (let number = 0; number < request.number; number++) yield { number };
        },
      },
    });
    const numbers = (await collect(client.download({ number: 1000 }))).map((message) => message.number);
    assertEquals(numbers, Array.from({ length: 1000 }, (_, i) => i));
    assertEquals(await collect(client.download({ number: 0 })), []);
  });

  test("streams requests in order and answers once", async (open) => {
    const { client } = open({
      impl: {
        async upload(requests) {
          let text = "";
          for await (const request of requests) text += `${request.number},`;
          return { text };
        },
      },
    });
    const answer = await client.upload(from([{ number: 1 }, { number: 2 }, { number: 3 }]));
    assertEquals(answer.text, "1,2,3,");
    assertEquals((await client.upload(from([]))).text, "");
  });

  test("streams both ways at a time", async (open) => {
    const { client } = open({
      impl: {
        async *chat(requests) {
          for await (const request of requests) yield { number: request.number * 2 };
        },
      },
    });
    const requests = new Mailbox<{ number: number }>();
    const answers = client.chat(requests)[Symbol.asyncIterator]();
    for (let number = 1; number <= 50; number++) {
      requests.put({ number });
      assertEquals((await answers.next()).value?.number, number * 2);
    }
    requests.end();
    assertEquals((await answers.next()).done, true);
  });

  test("lets the server speak first on a bidirectional stream", async (open) => {
    const { client } = open({
      impl: {
        async *chat() {
          yield { text: "welcome" };
        },
      },
    });
    const requests = new Mailbox<Record<never, never>>();
    const answers = client.chat(requests)[Symbol.asyncIterator]();
    assertEquals((await answers.next()).value?.text, "welcome");
    assertEquals((await answers.next()).done, true);
    // The server ended the call, so nobody reads requests any more.
    await requests.returned;
  });

  test("does not take a handler that stops reading for a cancelled call", async (open) => {
    const { client } = open({
      impl: {
        async *chat(requests) {
          for await (const request of requests) {
            yield request;
            break;
          }
          yield { text: "still here" };
        },
        async upload(requests) {
          for await (const request of requests) return { number: request.number };
          return {};
        },
      },
    });
    const requests = new Mailbox<{ number: number }>();
    requests.put({ number: 1 });
    requests.put({ number: 2 });
    assertEquals((await collect(client.chat(requests))).map((m) => m.text), ["", "still here"]);
    assertEquals((await client.upload(from([{ number: 5 }, { number: 6 }]))).number, 5);
  });

  test("ends a stream with the handler's error after the messages before it", async (open) => {
    const { client } = open({
      impl: {
        async *download() {
          yield { number: 1 };
          throw new ConnectError("enough", Code.Aborted);
        },
      },
    });
    const answers = client.download({})[Symbol.asyncIterator]();
    assertEquals((await answers.next()).value?.number, 1);
    const error = await failure(answers.next());
    assertEquals([error.code, error.rawMessage], [Code.Aborted, "enough"]);
  });

  test("cancels the call when the caller's own source of requests fails", async (open) => {
    const aborted = Promise.withResolvers<unknown>();
    const started = Promise.withResolvers<void>();
    const { client } = open({
      impl: {
        async upload(requests, context) {
          context.signal.addEventListener("abort", () => aborted.resolve(context.signal.reason));
          started.resolve();
          for await (const _ of requests);
          return {};
        },
      },
    });
    const source = (async function* () {
      yield { number: 1 };
      // A request that is cancelled before it was sent may never reach the server.
      await started.promise;
      throw new ConnectError("source broke", Code.DataLoss);
    })();
    assertEquals((await failure(client.upload(source))).code, Code.DataLoss);
    assertEquals(ConnectError.from(await aborted.promise).code, Code.Canceled);
  });

  // Deadlines and cancellation

  test("ends a call at its deadline, on the caller's clock", async (open) => {
    const { client, clientClock, started, aborted, transport } = open({ impl: hangs() });
    const call = failure(client.unary({}, { timeoutMs: 250 }));
    await started.promise;
    clientClock.advance(249);
    assertEquals(transport.stats().running, 1);
    clientClock.advance(1);
    assertEquals((await call).code, Code.DeadlineExceeded);
    assertEquals(ConnectError.from(await aborted.promise).code, Code.Canceled);
    assertEquals(clientClock.timers, 0);
  });

  test("enforces the deadline on the server's clock, and tells the handler", async (open) => {
    const { client, serverClock, started, aborted, server } = open({ impl: hangs() });
    const call = failure(client.unary({}, { timeoutMs: 250 }));
    assertEquals(await started.promise, 250);
    serverClock.advance(250);
    assertEquals((await call).code, Code.DeadlineExceeded);
    assertEquals(ConnectError.from(await aborted.promise).code, Code.DeadlineExceeded);
    assertEquals([server.stats().running, serverClock.timers], [0, 0]);
  });

  test("takes the default deadline, and none when told so", async (open) => {
    const { client } = open({
      impl: { unary: (_, context) => ({ number: context.timeoutMs() ?? -1 }) },
      client: { defaultTimeoutMs: 5000 },
    });
    assertEquals((await client.unary({})).number, 5000);
    assertEquals((await client.unary({}, { timeoutMs: 70 })).number, 70);
    assertEquals((await client.unary({}, { timeoutMs: 0 })).number, -1);
  });

  test("ends a stream at its deadline while messages flow", async (open) => {
    const { client, clientClock } = open({
      impl: {
        async *download(_, context) {
          yield { number: 1 };
          await aborting(context.signal);
        },
      },
    });
    const answers = client.download({}, { timeoutMs: 100 })[Symbol.asyncIterator]();
    await answers.next();
    const next = failure(answers.next());
    clientClock.advance(100);
    assertEquals((await next).code, Code.DeadlineExceeded);
  });

  test("cancels a unary call by AbortSignal and aborts the handler's", async (open) => {
    const { client, started, aborted, server } = open({ impl: hangs() });
    const controller = new AbortController();
    const call = failure(client.unary({}, { signal: controller.signal }));
    await started.promise;
    controller.abort();
    assertEquals((await call).code, Code.Canceled);
    assertEquals(ConnectError.from(await aborted.promise).code, Code.Canceled);
    assertEquals(server.stats().running, 0);
    assertEquals((await failure(client.unary({}, { signal: controller.signal }))).code, Code.Canceled);
  });

  test("cancels streams by AbortSignal", async (open) => {
    const { client, aborted } = open({ impl: hangs() });
    const controller = new AbortController();
    const requests = new Mailbox<Record<never, never>>();
    const answers = client.chat(requests, { signal: controller.signal })[Symbol.asyncIterator]();
    assertEquals((await answers.next()).value?.text, "started");
    const next = failure(answers.next());
    controller.abort(new ConnectError("changed my mind", Code.Aborted));
    assertEquals((await next).rawMessage, "changed my mind");
    assertEquals(ConnectError.from(await aborted.promise).code, Code.Canceled);
    await requests.returned;
  });

  test("cancels a stream whose reader leaves", async (open) => {
    const { transport, aborted } = open({ impl: hangs() });
    const requests = new Mailbox<Record<never, never>>();
    const method = TestService.method.chat;
    const response = await transport.stream(method, undefined, undefined, undefined, requests);
    for await (const message of response.message) {
      assertEquals(message.text, "started");
      break;
    }
    assertEquals(ConnectError.from(await aborted.promise).code, Code.Canceled);
    assertEquals(transport.stats().running, 0);
  });

  // Back-pressure and limits

  test("stops an endless answer while nobody reads, and goes on when somebody does", async (open) => {
    let produced = 0;
    const { client } = open({
      impl: {
        async *download() {
          for (;;) yield { number: produced++, body: new Uint8Array(10_000) };
        },
      },
    });
    const controller = new AbortController();
    const answers = client.download({}, { signal: controller.signal })[Symbol.asyncIterator]();
    await answers.next();
    const held = await settled(() => produced);
    assert(held < 5000, `${held} messages of 10 kB were produced for a reader of one`);
    for (let number = 1; number < held + 500; number++) {
      assertEquals((await answers.next()).value?.number, number);
    }
    controller.abort();
  });

  test("stops an endless request while the handler does not read", async (open) => {
    const go = Promise.withResolvers<void>();
    const { client } = open({
      impl: {
        async upload(requests) {
          await go.promise;
          let count = 0;
          for await (const request of requests) assertEquals(request.number, count++);
          return { number: count };
        },
      },
    });
    let produced = 0;
    let total = Infinity;
    const answer = client.upload((async function* () {
      while (produced < total) {
        yield { number: produced++, body: new Uint8Array(10_000) };
      }
    })());
    const held = await settled(() => produced);
    assert(held < 5000, `${held} messages of 10 kB were taken for a handler that reads none`);
    total = held + 500;
    go.resolve();
    assertEquals((await answer).number, total);
  });

  test("carries messages larger than a stream's window, both ways and streamed", async (open) => {
    const { client } = open({
      impl: {
        unary: (request) => ({ body: request.body }),
        async *chat(requests) {
          for await (const request of requests) yield { body: request.body };
        },
      },
    });
    const body = Uint8Array.from({ length: 3_000_000 }, (_, i) => i * 31);
    assertEquals((await client.unary({ body })).body, body);
    const echoed = await collect(client.chat(from([{ body }, { body: body.subarray(1) }])));
    assertEquals(echoed.map((message) => message.body.length), [3_000_000, 2_999_999]);
    assertEquals(echoed[0]!.body, body);
  });

  test("refuses messages over the limit with resource_exhausted, at either end", async (open) => {
    const impl: Partial<ServiceImpl<typeof TestService>> = {
      unary: (request) => ({ body: new Uint8Array(request.number) }),
      async upload(requests) {
        for await (const _ of requests);
        return {};
      },
    };
    const { client, channel } = open({ impl, server: { maxMessageBytes: 1000 } });
    for (
      const error of [
        await failure(client.unary({ body: new Uint8Array(2000) })),
        await failure(client.unary({ number: 2000 })),
        await failure(client.upload(from([{ body: new Uint8Array(2000) }]))),
      ]
    ) {
      assertEquals(error.code, Code.ResourceExhausted);
      assertStringIncludes(error.rawMessage, "limit of 1000");
    }
    const small = createClient(
      TestService,
      createChannelTransport({ channel: () => channel, maxMessageBytes: 500 }),
    );
    assertEquals((await failure(small.unary({ body: new Uint8Array(600) }))).code, Code.ResourceExhausted);
    assertEquals((await failure(small.unary({ number: 600 }))).code, Code.ResourceExhausted);
    assertEquals((await small.unary({ number: 400 })).body.length, 400);
  });

  test("refuses calls above maxConcurrentCalls, naming the limit, and takes them again", async (open) => {
    const gate = Promise.withResolvers<void>();
    const { client, server } = open({
      impl: { unary: () => gate.promise.then(() => ({})) },
      server: { maxConcurrentCalls: 3 },
    });
    const calls = Array.from({ length: 3 }, () => client.unary({}));
    const error = await failure(client.unary({}));
    assertEquals(error.code, Code.ResourceExhausted);
    assertStringIncludes(error.rawMessage, "maxConcurrentCalls is 3");
    gate.resolve();
    await Promise.all(calls);
    await client.unary({});
    assertEquals([server.stats().accepted, server.stats().refused], [4, 1]);
  });

  test("answers thousands of calls at a time, more than there are streams", async (open) => {
    const { client, transport } = open({
      impl: { unary: (request) => ({ number: request.number }) },
      // Waiting calls look for stream credit by timer when no call is left to end.
      client: { clock: systemRpcClock },
    });
    const count = 5000;
    const calls = Array.from({ length: count }, (_, number) => client.unary({ number }));
    const numbers = (await Promise.all(calls)).map((answer) => answer.number);
    assertEquals(numbers, Array.from({ length: count }, (_, i) => i));
    assertEquals(transport.stats(), { running: 0, queued: 0 });
  });

  test("bounds the calls that wait for a stream, and lets them go at their deadline", async (open) => {
    const { client, transport, channel, clientClock } = open({
      impl: hangs(),
      client: { maxQueuedCalls: 2 },
    });
    const room = channel.streamCredit;
    const running = Array.from({ length: room }, () => failure(client.unary({}, { timeoutMs: 2000 })));
    const waiting = [
      failure(client.unary({}, { timeoutMs: 50 })),
      failure(client.unary({}, { timeoutMs: 60 })),
    ];
    const refused = await failure(client.unary({}));
    assertEquals(refused.code, Code.ResourceExhausted);
    assertEquals(transport.stats(), { running: room, queued: 2 });
    clientClock.advance(100);
    assertEquals((await Promise.all(waiting)).map((e) => e.code), [
      Code.DeadlineExceeded,
      Code.DeadlineExceeded,
    ]);
    assertEquals(transport.stats(), { running: room, queued: 0 });
    clientClock.advance(2000);
    await Promise.all(running);
  });

  // Ends

  test("drain() refuses new calls with unavailable and waits for the running ones", async (open) => {
    const gate = Promise.withResolvers<void>();
    const started = Promise.withResolvers<void>();
    const { client, server } = open({
      impl: {
        unary() {
          started.resolve();
          return gate.promise.then(() => ({ text: "done" }));
        },
      },
    });
    const running = client.unary({});
    await started.promise;
    let drained = false;
    const draining = server.drain().then(() => drained = true);
    const error = await failure(client.unary({}));
    assertEquals([error.code, error.rawMessage, drained], [
      Code.Unavailable,
      "the server is draining",
      false,
    ]);
    gate.resolve();
    assertEquals((await running).text, "done");
    await draining;
    await server.drain();
  });

  test("abort() ends running calls with unavailable", async (open) => {
    const { client, server, started, aborted } = open({ impl: hangs() });
    const call = failure(client.unary({}));
    await started.promise;
    server.abort("stopping now");
    const error = await call;
    assertEquals([error.code, error.rawMessage], [Code.Unavailable, "stopping now"]);
    assertEquals(ConnectError.from(await aborted.promise).code, Code.Unavailable);
    await server.drain();
  });

  test("ends calls with unavailable when the channel is lost, and aborts their handlers", async (open) => {
    const { client, channel, started, aborted, server } = open({ impl: hangs() });
    const unary = failure(client.unary({}));
    await started.promise;
    const answers = client.chat(new Mailbox<Record<never, never>>())[Symbol.asyncIterator]();
    await answers.next();
    const next = failure(answers.next());
    channel.close(7, "gone");
    assertEquals([(await unary).code, (await next).code], [Code.Unavailable, Code.Unavailable]);
    assertEquals(ConnectError.from(await aborted.promise).code, Code.Canceled);
    await server.drain();
    assertEquals((await failure(client.unary({}))).code, Code.Unavailable);
  });

  test("ends calls with unavailable when the server's side closes", async (open) => {
    const { client, serverChannel, started } = open({ impl: hangs() });
    const unary = failure(client.unary({}));
    await started.promise;
    serverChannel.close(3, "bye");
    assertEquals((await unary).code, Code.Unavailable);
  });

  test("fails fast when there is no channel to be had", async (open) => {
    const { channel } = open({ impl: {} });
    for (
      const [source, expected] of [
        [() => Promise.reject(new ConnectError("kv is down", Code.Unavailable)), "kv is down"],
        [() => Promise.reject(new Error("no route")), "no route"],
        [() => {
          throw new ConnectError("kv is down", Code.Unavailable);
        }, "kv is down"],
      ] as [() => Promise<Channel>, string][]
    ) {
      const client = createClient(TestService, createChannelTransport({ channel: source }));
      const error = await failure(client.unary({}));
      assertEquals([error.code, error.rawMessage], [Code.Unavailable, expected]);
      assertEquals((await failure(collect(client.download({})))).code, Code.Unavailable);
    }
    const slow = createClient(
      TestService,
      createChannelTransport({ channel: () => Promise.resolve(channel) }),
    );
    assertEquals((await failure(slow.unary({}))).code, Code.Unimplemented);
  });

  // Hostile peers

  test("survives any bytes a client sends, and answers the next call", async (open) => {
    const { client, channel, server } = open({
      impl: { unary: (request) => ({ number: request.number }), chat: (requests) => requests },
    });
    const paths = ["/aetherflow.test.v1.TestService/Unary", "/aetherflow.test.v1.TestService/Chat"].map(
      pathBytes,
    );
    await fc.assert(
      fc.asyncProperty(
        hostileHalf(paths),
        fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 4 }),
        async (bytes, cuts) => {
          await sendRaw(channel, bytes, cuts);
        },
      ),
      { numRuns: 150 },
    );
    assertEquals((await client.unary({ number: 9 })).number, 9);
    assertEquals(server.stats().running, 0);
  });

  test("survives any bytes a server sends, and settles every call", async (open) => {
    const { client, serverChannel, transport } = open({ impl: {} });
    let script: Uint8Array = new Uint8Array(0);
    serverChannel.onStream((stream) => {
      stream.write(script, true);
      return sink(stream);
    });
    await fc.assert(
      fc.asyncProperty(hostileHalf([]), async (bytes) => {
        script = bytes.slice();
        await Promise.allSettled([
          client.unary({}),
          collect(client.download({})),
          collect(client.chat(from([{}]))),
        ]);
      }),
      { numRuns: 150 },
    );
    assertEquals(transport.stats(), { running: 0, queued: 0 });
  });

  test("answers broken calls with a status that says what is wrong", async (open) => {
    const { channel } = open({ impl: { unary: () => ({}) } });
    const writer = new FrameWriter();
    const call = (path: string) => {
      writeCall(writer, pathBytes(path), undefined, undefined);
      return writer.take().slice();
    };
    const unary = call("/aetherflow.test.v1.TestService/Unary");
    const oldVersion = unary.slice();
    oldVersion[5] = 9;
    const cases: [string, Uint8Array, Code][] = [
      ["no bytes", new Uint8Array(0), Code.InvalidArgument],
      ["an unknown frame", Uint8Array.of(9, 0, 0, 0, 0), Code.InvalidArgument],
      ["a header of 4 GB", Uint8Array.of(1, 255, 255, 255, 255), Code.InvalidArgument],
      ["a message before the header", Uint8Array.of(2, 0, 0, 0, 0), Code.InvalidArgument],
      ["an unknown version", oldVersion, Code.Unimplemented],
      ["an unknown method", call("/nobody/nothing"), Code.Unimplemented],
      ["no message", unary, Code.InvalidArgument],
      ["two messages", concat(unary, [2, 0, 0, 0, 0, 2, 0, 0, 0, 0]), Code.InvalidArgument],
      ["a message of 4 GB", concat(unary, [2, 255, 255, 255, 255]), Code.ResourceExhausted],
      ["half a message", concat(unary, [2, 0, 0, 0, 9, 1]), Code.InvalidArgument],
      ["a message that is no protobuf", concat(unary, [2, 0, 0, 0, 1, 0xff]), Code.InvalidArgument],
    ];
    for (const [what, bytes, code] of cases) {
      const answer = await sendRaw(channel, bytes, []);
      assertEquals(answer[0], FRAME.END, what);
      assertEquals(answer[5], code, what);
    }
  });
}

type OpenWorld = (setup: Setup) => World;

interface Setup {
  impl:
    | Partial<ServiceImpl<typeof TestService>>
    | ((world: Signals) => Partial<ServiceImpl<typeof TestService>>);
  server?: RpcServerOptions;
  client?: Omit<ChannelTransportOptions, "channel">;
}

interface Signals {
  /** Settles with the handler's `timeoutMs()` when it has begun. */
  readonly started: PromiseWithResolvers<number | undefined>;
  /** Settles with the reason when the handler's signal is aborted. */
  readonly aborted: PromiseWithResolvers<unknown>;
}

interface World extends Signals {
  readonly channel: Channel;
  readonly serverChannel: Channel;
  readonly transport: ChannelTransport;
  readonly client: Client<typeof TestService>;
  readonly server: RpcServer;
  readonly clientClock: ManualRpcClock;
  readonly serverClock: ManualRpcClock;
}

function openWorld(pair: RpcPair, setup: Setup): World {
  const clientClock = new ManualRpcClock();
  const serverClock = new ManualRpcClock();
  const signals: Signals = { started: Promise.withResolvers(), aborted: Promise.withResolvers() };
  const impl = typeof setup.impl === "function" ? setup.impl(signals) : setup.impl;
  const server = createRpcServer({ clock: serverClock, ...setup.server }).service(TestService, impl);
  server.accept(pair.server);
  const transport = createChannelTransport({
    channel: () => pair.client,
    clock: clientClock,
    ...setup.client,
  });
  const client = createClient(TestService, transport);
  return {
    ...signals,
    channel: pair.client,
    serverChannel: pair.server,
    transport,
    client,
    server,
    clientClock,
    serverClock,
  };
}

/** Handlers that begin, and then wait for their signal. */
function hangs(): (signals: Signals) => Partial<ServiceImpl<typeof TestService>> {
  return ({ started, aborted }) => ({
    async unary(_, context) {
      started.resolve(context.timeoutMs());
      aborted.resolve(await aborting(context.signal));
      return {};
    },
    async *chat(_, context) {
      yield { text: "started" };
      aborted.resolve(await aborting(context.signal));
    },
  });
}

function aborting(signal: AbortSignal): Promise<unknown> {
  if (signal.aborted) return Promise.resolve(signal.reason);
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason)));
}

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.then((value) => {
    throw new Error(`expected a failure, got ${JSON.stringify(value)}`);
  }, (error) => error);
  assertInstanceOf(error, ConnectError);
  return error;
}

async function collect<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const message of messages) all.push(message);
  return all;
}

async function* from<T>(items: T[]): AsyncGenerator<T> {
  yield* items;
}

/** A source of requests that the test feeds by hand. */
class Mailbox<T> implements AsyncIterableIterator<T> {
  readonly #items: T[] = [];
  #ended = false;
  #wake: (() => void) | undefined;
  readonly #returned = Promise.withResolvers<void>();

  /** Settles when the consumer said that it wants no more. */
  get returned(): Promise<void> {
    return this.#returned.promise;
  }

  put(item: T): void {
    this.#items.push(item);
    this.#wake?.();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<T>> {
    while (this.#items.length === 0) {
      if (this.#ended) return { done: true, value: undefined };
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return { done: false, value: this.#items.shift()! };
  }

  return(): Promise<IteratorResult<T>> {
    this.end();
    this.#returned.resolve();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** A raw call, and what came of it. */
function rawCall(transport: ChannelTransport, method: DescMethod, options: RawCallOptions) {
  const texts: string[] = [];
  const byteCounts: number[] = [];
  const ended = Promise.withResolvers<Omit<RawEnd, "trailers"> & { trailers: unknown }>();
  let look = () => {};
  const raw = {
    texts,
    byteCounts,
    headers: undefined as unknown,
    isOver: false,
    ended: ended.promise,
    /** Settles when so many answers have come. */
    count: (wanted: number) =>
      new Promise<void>((resolve) => {
        look = () => texts.length >= wanted && resolve();
        look();
      }),
  };
  const call = startRawCall(transport, method, {
    onHeaders: (headers) => raw.headers = Object.fromEntries(headers),
    onMessage(bytes) {
      texts.push(fromBinary(TestMessageSchema, bytes).text);
      byteCounts.push(bytes.length);
      look();
    },
    onDrain() {},
    onEnd(end) {
      raw.isOver = true;
      const { trailers } = end;
      ended.resolve({ ...end, trailers: trailers === undefined ? undefined : Object.fromEntries(trailers) });
    },
  }, options);
  return Object.assign(raw, { call });
}

function encode(text: string): Uint8Array {
  return toBinary(TestMessageSchema, create(TestMessageSchema, { text }));
}

/** The value once many turns of the event loop have left it alone. */
async function settled(read: () => number): Promise<number> {
  let value = read();
  for (let quietTurns = 0; quietTurns < QUIET_TURNS; quietTurns++) {
    await new Promise<void>((resolve) => setTimeout(resolve));
    if (read() !== value) quietTurns = 0;
    value = read();
  }
  return value;
}

/** Turns without change after which nothing more is expected: many round trips of a loopback channel. */
const QUIET_TURNS = 50;

/** Sends `bytes` on a stream of its own, in the given cuts, and returns what came back. */
function sendRaw(channel: Channel, bytes: Uint8Array, cuts: number[]): Promise<Uint8Array> {
  return new Promise((resolve) => {
    const parts: Uint8Array[] = [];
    const handler: StreamHandler = {
      onData(chunk, fin) {
        stream.consumed(chunk.length);
        parts.push(chunk);
        if (fin) resolve(concat(...parts));
      },
      onReset: () => resolve(concat(...parts)),
      onStop: () => stream.reset(0),
      onDrain() {},
    };
    const stream = channel.openStream(handler);
    let at = 0;
    for (const cut of cuts) {
      stream.write(bytes.slice(at, at + cut), false);
      at += cut;
    }
    stream.write(bytes.slice(at), true);
  });
}

function sink(stream: ChannelStream): StreamHandler {
  return { onData: (bytes) => stream.consumed(bytes.length), onReset() {}, onStop() {}, onDrain() {} };
}

/** Halves of calls, from noise to nearly right: frames of any type, with lengths that may lie. */
function hostileHalf(paths: Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const frame = fc.tuple(
    fc.oneof(fc.constantFrom(1, 2, 3, 4), fc.nat(255)),
    fc.uint8Array({ maxLength: 60 }),
    fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer() }),
  ).map(([type, payload, lie]) => {
    const length = (payload.length + lie) >>> 0;
    return concat([type, length >>> 24, length >>> 16, length >>> 8, length], payload);
  });
  const frames = fc.array(frame, { maxLength: 6 }).map((all) => concat(...all));
  const noise = fc.uint8Array({ maxLength: 200 });
  if (paths.length === 0) return fc.oneof(noise, frames);
  const call = fc.constantFrom(...paths).map((path) => {
    const writer = new FrameWriter();
    writeCall(writer, path, 60_000, { "x-request-id": "r" });
    return writer.take();
  });
  return fc.oneof(noise, frames, fc.tuple(call, frames).map(([head, rest]) => concat(head, rest)));
}

function concat(...parts: ArrayLike<number>[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...Array.from(part)]));
}
