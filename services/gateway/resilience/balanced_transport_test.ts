import { assertEquals, assertRejects } from "@std/assert";
import { Code, ConnectError, createClient, createRouterTransport, type Transport } from "@connectrpc/connect";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { createTestUpstreams, testPeer } from "../testing/upstreams.ts";
import { createVirtualTime } from "../testing/virtual_time.ts";

/** A client of a service with instances, each of which refuses while it is in `down`. */
function world(names: readonly string[]) {
  const time = createVirtualTime();
  const down = new Set<string>();
  const calls: string[] = [];
  const book = names.map((name) => testPeer(name, "kv"));
  const answer = (name: string) => {
    calls.push(name);
    if (down.has(name)) throw new ConnectError("going away", Code.Unavailable);
  };
  const transports = new Map<string, Transport>(
    names.map((name) => [
      name,
      createRouterTransport((router) =>
        router.service(KeyValueService, {
          get: () => (answer(name), {}),
          put: () => (answer(name), {}),
          async *watch() {
            answer(name);
            yield {};
          },
        })
      ),
    ]),
  );
  const upstreams = createTestUpstreams(transports.get(names[0]!)!, {
    clock: time.clock,
    timer: time.timer,
    waitMs: 500,
    peers: { instances: () => book, transport: (name) => transports.get(name)! },
  });
  const client = createClient(KeyValueService, upstreams.transport("kv"));
  return { time, down, calls, client, upstreams };
}

Deno.test("a balanced transport makes reads again at another instance, and writes not", async () => {
  const { time, down, calls, client } = world(["a", "b"]);
  down.add("a");
  for (let i = 0; i < 5; i++) await time.run(client.get({}));
  assertEquals(calls.filter((name) => name === "b").length, 5);
  calls.length = 0;
  down.add("b");
  await assertRejects(() => time.run(client.put({})), ConnectError, "going away");
  assertEquals(calls.length, 1);
});

Deno.test("a balanced transport waits for its service, and fails with errors of a transport", async () => {
  const { time, down, client } = world(["kv"]);
  down.add("kv");
  time.timer.after(200, () => down.delete("kv"));
  await time.run(client.get({}));
  down.add("kv");
  for (let i = 0; i < 10; i++) await time.run(client.put({})).catch(() => {});
  const error = await assertRejects(() => time.run(client.put({})), ConnectError, "circuit breaker is open");
  assertEquals(error.code, Code.Unavailable);
});

Deno.test("a stream of a balanced transport is answered by one instance", async () => {
  const { client, upstreams } = world(["a", "b"]);
  const answers = [];
  for await (const message of client.watch({})) answers.push(message);
  assertEquals(answers.length, 1);
  assertEquals(upstreams.caller("kv").upstream.targets().map((target) => target.outstanding), [0, 0]);
});
