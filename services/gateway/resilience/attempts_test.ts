import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { Code, ConnectError, createRouterTransport, type Transport } from "@connectrpc/connect";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { callUnary, createChannelTransport } from "../../../transport/rpc/mod.ts";
import type { Peer } from "../../runtime/worker_context.ts";
import { GatewayError } from "../problem.ts";
import { createTestUpstreams, testPeer } from "../testing/upstreams.ts";
import { createVirtualTime } from "../testing/virtual_time.ts";
import { type AttemptsPlan, runAttempts } from "./attempts.ts";

const UNAVAILABLE = () => new ConnectError("it is going away", Code.Unavailable);

interface Fake {
  peer: Peer;
  calls: number;
  /** Of the next calls, in order; the last one stays. Undefined is success. */
  answers: ((() => unknown) | undefined)[];
}

/** A service `kv` with instances by name. */
function world(names: readonly string[], config: unknown = {}) {
  const time = createVirtualTime();
  const fakes = new Map<string, Fake>(
    names.map((name) => [name, { peer: testPeer(name, "kv"), calls: 0, answers: [undefined] }]),
  );
  let book = [...fakes.values()].map(({ peer }) => peer);
  const transports = new Map<string, Transport>();
  // A real transport without a channel: its calls fail before anything is sent.
  const [gone] = createMemoryChannelPair();
  gone.close(0, "gone");
  const unreachable = createChannelTransport({ channel: () => gone });
  const upstreams = createTestUpstreams(unreachable, {
    clock: time.clock,
    timer: time.timer,
    config,
    peers: {
      instances: () => book,
      transport: (name) => {
        const router = createRouterTransport((router) =>
          router.service(KeyValueService, {
            get() {
              const fake = fakes.get(name)!;
              fake.calls++;
              const answer = fake.answers.length > 1 ? fake.answers.shift() : fake.answers[0];
              const error = answer?.();
              if (error !== undefined) throw error;
              return {};
            },
          })
        );
        transports.set(name, router);
        return router;
      },
    },
  });
  const { upstream, attempts } = upstreams.caller("kv");
  const retries: boolean[] = [];
  const call = (plan: Partial<AttemptsPlan> = {}, isUnreachable = false) =>
    time.run(
      runAttempts(
        attempts,
        upstream,
        {
          deadlineAtMs: time.clock.now() + 30_000,
          isRepeatable: true,
          waitMs: 2_000,
          retriesMax: Infinity,
          mayWait: false,
          hash: undefined,
          onRetry: (isSent) => void retries.push(isSent),
          ...plan,
        },
        (target, timeoutMs) =>
          callUnary(isUnreachable ? unreachable : target.transport, KeyValueService.method.get, {}, {
            timeoutMs,
          }),
      ),
    );
  function set(name: string, change: Partial<Peer>): void {
    const fake = fakes.get(name)!;
    fake.peer = { ...fake.peer, ...change };
    book = [...fakes.values()].map(({ peer }) => peer);
  }
  return { time, upstreams, upstream, call, set, retries, fake: (name: string) => fakes.get(name)! };
}

Deno.test("a repeatable call goes to another instance when the first is unavailable", async () => {
  const { call, fake, retries } = world(["a", "b"]);
  fake("a").answers = [UNAVAILABLE];
  fake("b").answers = [undefined];
  for (let i = 0; i < 4; i++) await call();
  assertEquals(fake("b").calls, 4);
  assertEquals(fake("a").calls, retries.length);
});

Deno.test("a call that may have had effects is not made again, unless nothing of it was sent", async () => {
  const { call, fake } = world(["a", "b"]);
  fake("a").answers = fake("b").answers = [UNAVAILABLE];
  await assertRejects(() => call({ isRepeatable: false }), ConnectError, "going away");
  assertEquals(fake("a").calls + fake("b").calls, 1);

  const { call: callUnsent, retries } = world(["a", "b"]);
  const error = await assertRejects(() => callUnsent({ isRepeatable: false, deadlineAtMs: 1_000_100 }, true));
  assertEquals((error as ConnectError).code, Code.Unavailable);
  assert(retries.length > 1 && retries.every((isSent) => !isSent));
});

Deno.test("errors that another try cannot help are not tried again", async () => {
  for (const code of [Code.NotFound, Code.Internal, Code.DeadlineExceeded, Code.ResourceExhausted]) {
    const { call, fake } = world(["a", "b"]);
    fake("a").answers = fake("b").answers = [() => new ConnectError("no", code)];
    await assertRejects(() => call(), ConnectError);
    assertEquals(fake("a").calls + fake("b").calls, 1, Code[code]);
  }
});

Deno.test("a read waits for a service that is down without sending anything, and is answered when it is back", async () => {
  const { time, call, set, fake } = world(["kv"]);
  set("kv", { state: "down" });
  time.timer.after(1_500, () => set("kv", { state: "up", incarnation: 2 }));
  await call();
  assertEquals(fake("kv").calls, 1);
});

Deno.test("a read waits no longer than it may, and a write not at all", async () => {
  const { time, call, set } = world(["kv"]);
  set("kv", { state: "down" });
  const startMs = time.clock.now();
  await assertRejects(() => call(), ConnectError, "kv is down");
  const waitedMs = time.clock.now() - startMs;
  assert(waitedMs > 1_700 && waitedMs <= 2_000, `${waitedMs}`);
  await assertRejects(() => call({ isRepeatable: false }), ConnectError, "kv is down");
  assertEquals(time.clock.now() - startMs, waitedMs);
});

Deno.test("a worker that is replaced has a new breaker: its reads are answered at once", async () => {
  const { time, call, set, fake, upstream } = world(["kv"]);
  fake("kv").answers = [UNAVAILABLE];
  for (let i = 0; i < 5; i++) await assertRejects(() => call({ isRepeatable: false }));
  assertEquals(upstream.targets()[0]!.breakerState, "open");
  time.timer.after(300, () => set("kv", { state: "down" }));
  time.timer.after(900, () => {
    fake("kv").answers = [undefined];
    set("kv", { state: "up", incarnation: 2 });
  });
  const startMs = time.clock.now();
  await call();
  assert(time.clock.now() - startMs < 1_200);
  assertEquals(upstream.targets()[0]!.breakerState, "closed");
});

Deno.test("calls to an open breaker fail at once once it is clear that nobody replaces the worker", async () => {
  const { time, call, fake } = world(["kv"]);
  fake("kv").answers = [UNAVAILABLE];
  for (let i = 0; i < 5; i++) await assertRejects(() => call({ isRepeatable: false }));
  await time.pass(2_001);
  const startMs = time.clock.now();
  const error = await assertRejects(() => call(), GatewayError);
  assertEquals([error.code, error.retryAfterS, time.clock.now() - startMs], ["breaker_open", 58, 0]);
  assertEquals(fake("kv").calls, 5);
});

Deno.test("a request that tries again and again is one failure of its target", async () => {
  const { call, fake, upstream } = world(["kv"]);
  fake("kv").answers = [UNAVAILABLE];
  await assertRejects(() => call(), ConnectError);
  assert(fake("kv").calls > 10);
  assertEquals(upstream.targets()[0]!.breaker!.figures().failures, 1);
});

Deno.test("pauses between tries double, within bounds", async () => {
  const { time, call, fake } = world(["kv"], { breaker: { preset: "off" } });
  const at: number[] = [];
  fake("kv").answers = [() => {
    at.push(time.clock.now());
    return UNAVAILABLE();
  }];
  await assertRejects(() => call(), ConnectError);
  const pauses = at.slice(1).map((ms, i) => ms - at[i]!);
  assertEquals(pauses.slice(0, 6), [10, 20, 40, 80, 160, 160]);
});

Deno.test("retriesMax bounds the calls made again", async () => {
  const { call, fake } = world(["kv"], { breaker: { preset: "off" } });
  fake("kv").answers = [UNAVAILABLE];
  await assertRejects(() => call({ retriesMax: 3 }), ConnectError);
  assertEquals(fake("kv").calls, 4);
});

Deno.test("a call whose time is over is not sent", async () => {
  const { time, call, fake } = world(["kv"]);
  const error = await assertRejects(() => call({ deadlineAtMs: time.clock.now() }), GatewayError);
  assertEquals([error.code, fake("kv").calls], ["deadline_exceeded", 0]);
});

Deno.test("an instance that fails while others do not is put out, and comes back", async () => {
  const { time, call, fake, upstream } = world(["a", "b", "c"], { breaker: { preset: "off" } });
  fake("a").answers = [() => new ConnectError("broken", Code.Internal)];
  for (let i = 0; i < 200 && upstream.targets()[0]!.ejections === 0; i++) await call().catch(() => {});
  assertEquals(upstream.targets().map((target) => target.state(time.clock.now())), ["ejected", "up", "up"]);
  const calls = fake("a").calls;
  for (let i = 0; i < 30; i++) await call();
  assertEquals(fake("a").calls, calls);
  fake("a").answers = [undefined];
  await time.pass(30_000);
  for (let i = 0; i < 30; i++) await call();
  assert(fake("a").calls > calls);
});

Deno.test("a call whose client gave it little time cannot trip a breaker by running out of it", async () => {
  const { call, fake, upstream, time } = world(["kv"]);
  fake("kv").answers = [() => new ConnectError("too slow", Code.DeadlineExceeded)];
  for (let i = 0; i < 20; i++) {
    await assertRejects(() => call({ deadlineAtMs: time.clock.now() + 999 }), ConnectError);
  }
  for (let i = 0; i < 20; i++) await assertRejects(() => call({ mayWait: true }), ConnectError);
  assertEquals(upstream.targets()[0]!.breakerState, "closed");
  for (let i = 0; i < 5; i++) await assertRejects(() => call(), ConnectError);
  assertEquals(upstream.targets()[0]!.breakerState, "open");
});

Deno.test("what the service says of the request does not count against it", async () => {
  const { call, fake, upstream } = world(["kv"]);
  for (
    const code of [Code.NotFound, Code.InvalidArgument, Code.PermissionDenied, Code.Canceled, Code.Aborted]
  ) {
    fake("kv").answers = [() => new ConnectError("no", code)];
    for (let i = 0; i < 10; i++) await assertRejects(() => call(), ConnectError);
  }
  assertEquals([upstream.targets()[0]!.breakerState, upstream.targets()[0]!.outstanding], ["closed", 0]);
});

// Each failing read was once sent up to fifteen times in two seconds.
for (const preset of ["default", "off"]) {
  Deno.test(`a service that is down gets at most 1.2 times the calls, breaker ${preset}`, async () => {
    const { time, call, fake } = world(["kv"], { breaker: { preset } });
    let requests = 0;
    const running: Promise<unknown>[] = [];
    // 100 a second, for 6 s; unavailable from the second second on.
    for (let ms = 0; ms < 6_000; ms += 10) {
      time.timer.after(ms, () => {
        requests++;
        running.push(call().catch(() => {}));
      });
    }
    time.timer.after(1_000, () => fake("kv").answers = [UNAVAILABLE]);
    await time.pass(9_000);
    await time.run(Promise.all(running));
    assertEquals(requests, 600);
    assert(fake("kv").calls <= 1.2 * requests, `${fake("kv").calls} calls for ${requests} requests`);
  });
}

Deno.test("the only instance is chosen without asking a balancer, and its calls are counted", () => {
  const { upstream } = world(["kv"]);
  const attempt = upstream.begin(0);
  assertStrictEquals(attempt.target, upstream.targets()[0]);
  assertEquals(attempt.target.outstanding, 1);
  upstream.end(attempt, "success", 0);
  assertEquals(attempt.target.outstanding, 0);
});
