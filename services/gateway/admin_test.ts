import { assert, assertEquals } from "@std/assert";
import { Code, ConnectError } from "@connectrpc/connect";
import { STATE_NUMBERS } from "./resilience/metrics.ts";
import { startTestGateway } from "./testing/harness.ts";

Deno.test("GET /api/v1/admin/breakers shows a breaker that opened, and a reset closes it", async () => {
  await using gateway = startTestGateway({ config: { readRetryMs: 0 } });
  const base = `${gateway.url}/api/v1/admin`;
  gateway.kv.failure = new ConnectError("down", Code.Unavailable);
  for (let i = 0; i < 5; i++) await (await fetch(`${gateway.url}/api/v1/kv/k`)).body?.cancel();
  gateway.kv.failure = undefined;

  const refused = await fetch(`${gateway.url}/api/v1/kv/k`);
  const problem = await refused.json();
  assertEquals([refused.status, problem.code, refused.headers.get("retry-after")], [
    503,
    "breaker_open",
    "60",
  ]);

  const listed = await (await fetch(`${base}/breakers`)).json();
  const kv = listed.breakers.find((each: { name: string }) => each.name === "kv");
  assert(kv.retryAfterMs > 59_000);
  assertEquals({ ...kv, retryAfterMs: 0 }, {
    name: "kv",
    state: "open",
    requests: "5",
    successes: "0",
    failures: "5",
    consecutiveSuccesses: 0,
    consecutiveFailures: 5,
    errorRate: 1,
    trips: "1",
    retryAfterMs: 0,
  });
  assertEquals(listed.worker, "gateway");

  const post = (path: string) => fetch(`${base}${path}`, { method: "POST", body: "{}" });
  assertEquals((await (await post("/breakers/nobody:reset")).json()).code, "not_found");
  assertEquals(await (await post("/breakers/kv:reset")).json(), { reset: 1, worker: "gateway" });
  assertEquals(await (await post("/breakers/reset")).json(), { reset: 0, worker: "gateway" });
  const answered = await fetch(`${gateway.url}/api/v1/kv/k`);
  assertEquals(answered.status, 404);
  await answered.body?.cancel();
});

Deno.test("a breaker's state is the same in its figures and in its description", async () => {
  await using gateway = startTestGateway({ config: { readRetryMs: 0 } });
  const told = async () => {
    const page = await (await fetch(`${gateway.url}/metrics`)).text();
    const { breakers } = await (await fetch(`${gateway.url}/api/v1/admin/breakers`)).json();
    const number = /^aetherflow_gateway_upstream_breaker_state\{[^}]*name="kv"[^}]*\} (\d)$/m.exec(page)?.[1];
    return [number, breakers.find((each: { name: string }) => each.name === "kv").state];
  };
  await (await fetch(`${gateway.url}/api/v1/kv/k`)).body?.cancel();
  assertEquals(await told(), ["0", "closed"]);
  gateway.kv.failure = new ConnectError("down", Code.Unavailable);
  for (let i = 0; i < 5; i++) await (await fetch(`${gateway.url}/api/v1/kv/k`)).body?.cancel();
  assertEquals(await told(), ["2", "open"]);
  assertEquals(STATE_NUMBERS, { closed: 0, half_open: 1, open: 2 });
});

Deno.test("GET /api/v1/admin/stats tells of requests, connections and targets", async () => {
  await using gateway = startTestGateway();
  await (await fetch(`${gateway.url}/api/v1/kv/k`)).body?.cancel();
  const stats = await (await fetch(`${gateway.url}/api/v1/admin/stats`)).json();
  assertEquals([stats.worker, stats.requestsTotal, stats.activeRequests], ["gateway", "1", "1"]);
  assertEquals(stats.connections, { grpc: "0", resp: "0", streams: "0" });
  const kv = stats.targets.find((each: { name: string }) => each.name === "kv");
  assertEquals([kv.service, kv.address, kv.state, kv.breaker, kv.outstanding], [
    "kv",
    "127.0.0.1:1",
    "up",
    "closed",
    0,
  ]);
});
