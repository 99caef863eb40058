import { assertEquals, assertThrows } from "@std/assert";
import { Code, ConnectError } from "@connectrpc/connect";
import { startTestGateway } from "../testing/harness.ts";
import { FALLBACK_HEADER } from "./fallbacks.ts";

const GET_KEY = "GET /api/v1/kv/{key=**}";
const DOWN = new ConnectError("the kv worker is down", Code.Unavailable);

function start(fallback: Record<string, unknown>, route = GET_KEY) {
  return startTestGateway({ config: { readRetryMs: 0, fallbacks: [{ route, ...fallback }] } });
}

/** Status, body, and what the headers say of where it comes from. */
async function told(response: Response) {
  const { status, headers } = response;
  const body = await response.text();
  return [status, body, headers.get(FALLBACK_HEADER), headers.get("warning")?.slice(0, 3) ?? null];
}

Deno.test("fallback cacheFirst answers with the last good answer, as stale", async () => {
  await using gateway = start({ strategy: "cacheFirst" });
  const revision = gateway.kv.put("k", "v");
  assertEquals(await told(await fetch(`${gateway.url}/api/v1/kv/k`)), [200, "v", null, null]);
  gateway.kv.failure = DOWN;
  const stale = await fetch(`${gateway.url}/api/v1/kv/k`);
  assertEquals([stale.headers.get("age"), stale.headers.get("etag")], ["0", `"${revision}"`]);
  assertEquals(await told(stale), [200, "v", "cacheFirst", "110"]);
  assertEquals((await told(await fetch(`${gateway.url}/api/v1/kv/other`)))[0], 503);
  const page = await (await fetch(`${gateway.url}/metrics`)).text();
  const counted = (what: string) =>
    new RegExp(`^aetherflow_gateway_cache_${what}_total\\{.*cache="fallback".*\\} (\\d+)$`, "m").exec(page)
      ?.[1];
  assertEquals(["hits", "misses", "evictions"].map(counted), ["1", "1", "0"]);
});

Deno.test("fallback cacheFirst keeps no answer longer than ttlMs, and gives none to another caller", async () => {
  await using gateway = start({ strategy: "cacheFirst", ttlMs: 1 });
  gateway.kv.put("k", "v");
  const url = `${gateway.url}/api/v1/kv/k`;
  await (await fetch(url, { headers: { token: "a" } })).body?.cancel();
  gateway.kv.failure = DOWN;
  const before = performance.now();
  while (performance.now() - before < 3); // the harness counts real time
  assertEquals((await told(await fetch(url, { headers: { token: "a" } })))[0], 503);

  await using lasting = start({ strategy: "cacheFirst" });
  lasting.kv.put("k", "v");
  const other = `${lasting.url}/api/v1/kv/k`;
  await (await fetch(other, { headers: { token: "a" } })).body?.cancel();
  lasting.kv.failure = DOWN;
  assertEquals((await told(await fetch(other, { headers: { token: "b" } })))[0], 503);
});

Deno.test("fallback defaultResponse answers what is configured, and only for trouble of the service", async () => {
  await using gateway = start({ strategy: "defaultResponse", status: 202, body: '{"later":true}' });
  assertEquals((await told(await fetch(`${gateway.url}/api/v1/kv/none`)))[0], 404);
  gateway.kv.failure = DOWN;
  const answer = await fetch(`${gateway.url}/api/v1/kv/k`);
  assertEquals(answer.headers.get("content-type"), "application/json");
  assertEquals(await told(answer), [202, '{"later":true}', "defaultResponse", "199"]);
});

Deno.test("fallback silent answers nothing, and says so", async () => {
  await using gateway = start({ strategy: "silent" }, "DELETE /api/v1/kv/{key=**}");
  gateway.kv.failure = DOWN;
  const answer = await fetch(`${gateway.url}/api/v1/kv/k`, { method: "DELETE" });
  assertEquals(await told(answer), [204, "", "silent", "199"]);
});

Deno.test("fallback failFast does not wait for a service", async () => {
  await using gateway = startTestGateway({
    config: { fallbacks: [{ route: GET_KEY, strategy: "failFast" }] },
  });
  gateway.kv.failure = DOWN;
  assertEquals((await told(await fetch(`${gateway.url}/api/v1/kv/k`)))[0], 503);
});

Deno.test("fallback retry makes a call again so many times", async () => {
  await using gateway = startTestGateway({
    config: {
      fallbacks: [{ route: GET_KEY, strategy: "retry", times: 2 }],
      upstreams: { retry: { firstPauseMs: 1 } },
    },
    realTimers: true,
  });
  gateway.kv.failure = DOWN;
  assertEquals((await told(await fetch(`${gateway.url}/api/v1/kv/k`)))[0], 503);
  const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
  assertEquals(/upstream_retries_total\{service="kv",worker="gateway"\} (\d+)/.exec(metrics)?.[1], "2");
});

Deno.test("fallbacks of what is no route, or cannot be kept, end the start", () => {
  assertThrows(() => start({ strategy: "silent" }, "GET /nowhere"), Error, "there is no route GET /nowhere");
  assertThrows(
    () => start({ strategy: "cacheFirst" }, "PUT /api/v1/kv/{key=**}"),
    Error,
    "is no read with one answer",
  );
});
