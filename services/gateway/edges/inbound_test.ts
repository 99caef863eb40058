/** What a request meets before its route, over HTTP: that each stage is in its place. */
import { assertEquals } from "@std/assert";
import { startTestGateway } from "../testing/harness.ts";

Deno.test("a client that asks too often is told when to come again, on the page of an allowed origin too", async () => {
  await using gateway = startTestGateway({
    config: {
      cors: { origins: ["https://app.example.com"] },
      rateLimit: { exemptLoopback: false, address: { rate: 0.1, burst: 2 } },
    },
  });
  const seen = [];
  for (let i = 0; i < 3; i++) {
    const answer = await fetch(`${gateway.url}/version`, { headers: { origin: "https://app.example.com" } });
    await answer.body?.cancel();
    const { headers } = answer;
    seen.push([
      answer.status,
      headers.get("ratelimit")?.split(";t=")[0],
      headers.get("access-control-allow-origin"),
    ]);
    if (i === 2) {
      assertEquals([headers.get("retry-after"), headers.get("ratelimit-policy")], [
        "10",
        '"address";q=2;w=20',
      ]);
    }
  }
  assertEquals(seen, [
    [200, '"address";r=1', "https://app.example.com"],
    [200, '"address";r=0', "https://app.example.com"],
    [429, '"address";r=0', "https://app.example.com"],
  ]);
  const alive = await fetch(`${gateway.url}/livez`);
  assertEquals([alive.status, await alive.text(), alive.headers.get("ratelimit")], [200, "ok\n", null]);
});

Deno.test("a proxy that is trusted tells whose bucket counts", async () => {
  await using gateway = startTestGateway({
    config: { trustedProxies: ["127.0.0.0/8"], rateLimit: { address: { rate: 0.1, burst: 1 } } },
  });
  const ask = async (forwardedFor: string) => {
    const answer = await fetch(`${gateway.url}/version`, { headers: { "x-forwarded-for": forwardedFor } });
    await answer.body?.cancel();
    return answer.status;
  };
  assertEquals([await ask("203.0.113.1"), await ask("6.6.6.6, 203.0.113.1"), await ask("203.0.113.2")], [
    200,
    429,
    200,
  ]);
});

Deno.test("a preflight is answered before anything else is asked", async () => {
  await using gateway = startTestGateway({ config: { cors: { origins: ["https://app.example.com"] } } });
  const preflight = async (origin: string) => {
    const answer = await fetch(`${gateway.url}/api/v1/kv/a`, {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "PUT" },
    });
    await answer.body?.cancel();
    return [answer.status, answer.headers.get("access-control-allow-origin")];
  };
  assertEquals(await preflight("https://app.example.com"), [204, "https://app.example.com"]);
  assertEquals(await preflight("https://evil.example"), [403, null]);
});

Deno.test("a request with an Idempotency-Key is carried out once", async () => {
  await using gateway = startTestGateway();
  const put = async (value: string) => {
    const answer = await fetch(`${gateway.url}/v3/kv/put`, {
      method: "POST",
      headers: { "idempotency-key": '"k1"' },
      body: JSON.stringify({ key: btoa("a"), value: btoa(value) }),
    });
    const { header } = await answer.json();
    return [answer.status, header?.revision, answer.headers.get("idempotency-replayed")];
  };
  const [first, again, other] = [await put("1"), await put("1"), await put("2")];
  assertEquals(first[0], 200);
  assertEquals(again, [200, first[1], "true"]);
  assertEquals(other[0], 422);
});
