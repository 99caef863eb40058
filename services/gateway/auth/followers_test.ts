import { assert, assertEquals } from "@std/assert";
import { Code, ConnectError } from "@connectrpc/connect";
import { createFakeCredentials, type FakeCredentials, principal } from "../testing/fake_credentials.ts";
import { startTestGateway, type TestGateway } from "../testing/harness.ts";
import { RECHECK_MS } from "./followers.ts";

const BOB = principal({
  username: "bob",
  roles: ["member"],
  grants: [{ service: "kv", prefix: "", write: true }],
});

function required(): FakeCredentials {
  const credentials = createFakeCredentials();
  credentials.require();
  credentials.sessions.set("s-bob", BOB);
  credentials.keys.set("afk_bob", BOB);
  return credentials;
}

async function watch(gateway: TestGateway, token?: string): Promise<ReadableStreamDefaultReader<string>> {
  const response = await fetch(`${gateway.url}/api/v1/kv?watch=true&prefix=`, {
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
  });
  assertEquals(response.status, 200);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  await reader.read();
  return reader;
}

async function rest(reader: ReadableStreamDefaultReader<string>): Promise<string> {
  let text = "";
  for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
  return text;
}

async function until(condition: () => boolean): Promise<void> {
  const giveUpAt = performance.now() + 5_000;
  while (!condition()) {
    assert(performance.now() < giveUpAt, "the condition never held");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("a stream ends in the round after its credential has ended; others go on, each asked about once", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const bySession = await watch(gateway, "s-bob");
  const again = await watch(gateway, "s-bob");
  const byKey = await watch(gateway, "afk_bob");
  const asked = credentials.calls.authenticate;
  assertEquals(gateway.timer.fire(RECHECK_MS), 1);
  await until(() => credentials.calls.authenticate === asked + 2);

  credentials.sessions.delete("s-bob");
  await until(() => gateway.timer.fire(RECHECK_MS) === 1);
  for (const reader of [bySession, again]) {
    const words = await rest(reader);
    assert(words.includes("event: error") && words.includes("unauthenticated"), words);
  }
  gateway.kv.put("a", "1");
  assert((await byKey.read()).value!.includes("event: change"));
  await byKey.cancel();
  // With nothing left to look at, no timer is left.
  await until(() => {
    gateway.timer.fire(RECHECK_MS);
    return !gateway.timer.waiting.includes(RECHECK_MS);
  });
});

Deno.test("a stream ends when its caller's rights have changed, and its client comes back", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const reader = await watch(gateway, "s-bob");
  credentials.sessions.set("s-bob", { ...BOB, grants: [] });
  assertEquals(gateway.timer.fire(RECHECK_MS), 1);
  assertEquals(await rest(reader), ": unavailable, come back\n\n");
});

Deno.test("streams go on while it cannot be found out whether their credentials hold", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials, config: { readRetryMs: 0 } });
  const reader = await watch(gateway, "s-bob");
  const asked = credentials.calls.authenticate;
  credentials.failure = new ConnectError("restarting", Code.Unavailable);
  assertEquals(gateway.timer.fire(RECHECK_MS), 1);
  await until(() => credentials.calls.authenticate > asked);
  gateway.kv.put("a", "1");
  assert((await reader.read()).value!.includes("event: change"));
  await reader.cancel();
});

Deno.test("with the first user the streams of nobody in particular end", async () => {
  const credentials = createFakeCredentials();
  await using gateway = startTestGateway({ credentials });
  const reader = await watch(gateway);
  assert(!gateway.timer.waiting.includes(RECHECK_MS));
  credentials.require();
  const words = await rest(reader);
  assert(words.includes("event: error") && words.includes("unauthenticated"), words);
});

Deno.test("a WebSocket ends with its credential", async () => {
  const credentials = required();
  await using gateway = startTestGateway({ credentials });
  const url = `${gateway.url.replace("http", "ws")}/api/v1/kv?watch=true&prefix=`;
  const socket = new WebSocket(url, { headers: { authorization: "Bearer s-bob" } });
  const closed = new Promise<CloseEvent>((resolve) => socket.addEventListener("close", resolve));
  const texts: string[] = [];
  socket.addEventListener("message", ({ data }) => texts.push(data));
  await until(() => texts.length > 0);
  credentials.sessions.delete("s-bob");
  assertEquals(gateway.timer.fire(RECHECK_MS), 1);
  const { code, reason } = await closed;
  assertEquals([code, reason], [1008, "unauthenticated"]);
});
