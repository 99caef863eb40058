import { assertEquals, assertRejects } from "@std/assert";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import {
  GetTextRequestSchema,
  type GetTextResponse,
  KeyValueService,
} from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { create } from "@bufbuild/protobuf";
import { createCalls } from "./calls.ts";
import { type Exchange, readExchange } from "./exchange.ts";
import { GatewayError } from "./problem.ts";
import { buildRouteTable } from "./routes.ts";
import { createTestUpstreams } from "./testing/upstreams.ts";
import { createVirtualTime } from "./testing/virtual_time.ts";

const routes = buildRouteTable([{ service: KeyValueService, peer: "kv", dialect: "aetherflow" }]);

/** A key-value service whose one value is the number of writes so far, and calls of it. */
function world(options: { singleFlight?: boolean; config?: unknown } = {}) {
  const time = createVirtualTime();
  let writes = 0, reads = 0;
  let gate: Promise<void> | undefined;
  let failure: ConnectError | undefined;
  const transport = createRouterTransport((router) =>
    router.service(KeyValueService, {
      async getText({ key }) {
        reads++;
        const value = String(writes);
        await gate;
        if (failure !== undefined) throw failure;
        return { key, value, found: true };
      },
      async put() {
        writes++;
        await gate;
        return {};
      },
    })
  );
  const upstreams = createTestUpstreams(transport, {
    clock: time.clock,
    timer: time.timer,
    ...options.config !== undefined && { config: options.config },
  });
  const calls = createCalls({
    upstreams,
    clock: time.clock,
    timer: time.timer,
    readRetryMs: 0,
    singleFlight: options.singleFlight ?? true,
    onRetry() {},
  });
  function exchangeOf(method: string, path: string, headers: HeadersInit = {}): Exchange {
    const request = new Request(`http://localhost${path}`, { method, headers });
    const exchange = readExchange(request, time.clock.now(), 30_000, () => "id");
    exchange.match = routes.match(method, exchange.path, exchange.query);
    return exchange;
  }
  const read = (path = "/api/v1/kv?key=k", headers: HeadersInit = {}, signal?: AbortSignal) => {
    const exchange = exchangeOf("GET", path, headers);
    exchange.signal = signal;
    const { route } = exchange.match!;
    return calls.unary(route, exchange, create(GetTextRequestSchema, { key: "k" })) as Promise<
      GetTextResponse
    >;
  };
  const write = () => {
    const exchange = exchangeOf("PUT", "/api/v1/kv/k");
    const { route } = exchange.match!;
    return calls.unary(route, exchange, create(route.rpc.input));
  };
  return {
    time,
    read,
    write,
    upstreams,
    reads: () => reads,
    hold() {
      const held = Promise.withResolvers<void>();
      gate = held.promise;
      return () => {
        gate = undefined;
        held.resolve();
      };
    },
    fail: (error: ConnectError) => failure = error,
  };
}

Deno.test("equal GETs of one turn share a call, and their answers say so", async () => {
  const { read, reads } = world();
  const answers = await Promise.all(Array.from({ length: 13 }, () => read()));
  // The first three are sent at once: a call that is nearly alone does not wait.
  assertEquals(reads(), 4);
  assertEquals(answers.map(({ shared }) => shared), [...Array(3).fill(false), ...Array(10).fill(true)]);
});

Deno.test("GETs of other callers, paths and queries are never shared", async () => {
  const { read, reads } = world();
  const variants = [
    () => read(),
    () => read("/api/v1/kv?key=k", { token: "a" }),
    () => read("/api/v1/kv?key=k", { token: "b" }),
    () => read("/api/v1/kv?key=k", { authorization: "Bearer a" }),
    () => read("/api/v1/kv?key=k2"),
  ];
  const alone = [read(), read(), read()];
  await Promise.all([...alone, ...variants.map((one) => one()), ...variants.map((one) => one())]);
  assertEquals(reads(), 3 + variants.length);
});

Deno.test("single flight can be switched off", async () => {
  const { read, reads } = world({ singleFlight: false });
  await Promise.all(Array.from({ length: 10 }, () => read()));
  assertEquals(reads(), 10);
});

// Answers of reads begun before a write, handed to reads that came after it.
Deno.test("a GET that comes after a write was answered never gets an answer from before it", async () => {
  const { read, write, hold } = world();
  const before = Array.from({ length: 8 }, () => read());
  const release = hold(); // those reads have seen "0", and hang
  await new Promise((resolve) => setTimeout(resolve, 5));
  const written = write();
  release();
  await written;
  const again = hold();
  const after = Array.from({ length: 8 }, () => read());
  await new Promise((resolve) => setTimeout(resolve, 5));
  again();
  assertEquals((await Promise.all(after)).map(({ value }) => value), Array(8).fill("1"));
  await Promise.all(before);
});

Deno.test("an error is every sharer's, and the next GET is a new call", async () => {
  const { read, reads, fail } = world();
  fail(new ConnectError("no", Code.PermissionDenied));
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => read()));
  assertEquals(outcomes.map(({ status }) => status), Array(8).fill("rejected"));
  await assertRejects(() => read(), ConnectError);
  assertEquals(reads(), 5);
});

Deno.test("a client that goes away ends its own call, and none that others share", async () => {
  const { read, hold, upstreams } = world();
  const release = hold();
  const gone = new AbortController();
  const alone = [read(), read(), read("/api/v1/kv?key=k", {}, gone.signal)];
  const leader = read("/api/v1/kv?key=k", {}, gone.signal);
  const sharer = read();
  await new Promise((resolve) => setTimeout(resolve, 5));
  gone.abort();
  assertEquals((await assertRejects(() => alone[2]!, ConnectError)).code, Code.Canceled);
  release();
  assertEquals([(await sharer).shared, (await leader).shared], [true, true]);
  await Promise.all(alone.slice(0, 2));
  assertEquals(upstreams.caller("kv").upstream.targets()[0]!.outstanding, 0);
});

Deno.test("a service whose places are taken and whose queue is full refuses, and serves who waited", async () => {
  const config = { services: { kv: { bulkhead: { maxConcurrent: 2, maxQueued: 1 } } } };
  const { read, hold, upstreams } = world({ config, singleFlight: false });
  const release = hold();
  const running = [read(), read()];
  const waiting = read();
  const refused = await assertRejects(() => read(), GatewayError);
  assertEquals(refused.code, "too_many_requests");
  release();
  await Promise.all([...running, waiting]);
  const { bulkhead, upstream } = upstreams.caller("kv");
  assertEquals([bulkhead.underWay, bulkhead.queued, upstream.targets()[0]!.outstanding], [0, 0, 0]);
});
