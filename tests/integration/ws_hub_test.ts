/** The hub in the whole product: plain WebSocket clients, users, the store, sessions, several gateway workers. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { HubClient, type Received } from "../support/hub_client.ts";
import { type Product, startProduct } from "../support/product.ts";

/** How soon a revocation must have closed a socket, in ms. */
const REVOKED_WITHIN_MS = 1_000;
const PASSWORD = "correct horse battery staple";

async function post(product: Product, path: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(product.url + path, { method: "POST", headers, body: JSON.stringify(body) });
  assertEquals(response.status, 200, path);
  return await response.json();
}

async function login(product: Product, username: string): Promise<{ token: string; sessionId: string }> {
  const { accessToken, sessionId } = await post(product, "/api/v1/auth/login", {
    username,
    password: PASSWORD,
  });
  return { token: accessToken, sessionId };
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

async function put(product: Product, key: string, value: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${product.url}/api/v1/kv/${key}`, { method: "PUT", body: value, headers });
  assertEquals(response.status, 200);
  await response.body?.cancel();
}

Deno.test("a socket of the product: changes of the store and of sessions as channels, and back to where one was", async () => {
  await using product = await startProduct();
  using client = await HubClient.connect(product);
  const { offset, epoch } = (await client.ask("subscribe", { channel: "kv:app/" })).data;
  await put(product, "app/a", "1");
  await put(product, "other", "1");
  await put(product, "app/b", "2");
  const keys = [];
  for (let i = 0; i < 2; i++) {
    const { data } = await client.next("notify");
    keys.push(data.data.changes.map(({ entry }: Received) => entry.keyText));
  }
  assertEquals(keys, [["app/a"], ["app/b"]]);
  // From before this worker followed the prefix, and by another client: the store has kept it.
  using again = await HubClient.connect(product);
  const back = await again.ask("subscribe", { channel: "kv:app/", offset, epoch });
  assertEquals(back.data.recovered, true);
  assertEquals((await again.next("notify")).data.data.changes[0].entry.keyText, "app/a");
  assertEquals((await again.next("notify")).data.data.changes[0].entry.keyText, "app/b");
  using elsewhere = await HubClient.connect(product);
  const lost = await elsewhere.ask("subscribe", { channel: "kv:app/", offset, epoch: "of-another-store" });
  assertEquals([lost.data.recovered, lost.data.reload, lost.data.reason], [false, true, "new_epoch"]);
  const ahead = await elsewhere.ask("subscribe", { channel: "kv:app/", offset: offset + 1_000, epoch });
  assertEquals([ahead.data.recovered, ahead.data.reload], [false, true]);

  await client.ask("subscribe", { channel: "session:*" });
  const { session } = await post(product, "/api/v1/sessions", { userId: "u1" });
  const { data } = await client.next("notify");
  assertEquals([data.event, data.data.session.sessionId], ["created", session.sessionId]);
  assertEquals(await product.stop(), 0);
  assertEquals((await client.closed).code, 1001);
});

Deno.test("users of the product: what is not theirs they do not hear, and a session that ends takes its socket along", async () => {
  await using product = await startProduct();
  await post(product, "/api/v1/users", { username: "ada", password: PASSWORD });
  const ada = await login(product, "ada");
  const grants = [{ service: "kv", prefix: "b/", write: true }];
  await post(product, "/api/v1/users", { username: "bob", password: PASSWORD, grants }, bearer(ada.token));
  const bob = await login(product, "bob");

  using client = await HubClient.connect(product);
  assertEquals((await client.ask("subscribe", { channel: "kv:b/" }, "error")).error, "Not authenticated");
  const { data } = await client.ask("auth", { token: bob.token }, "auth_result");
  assertEquals([data.success, data.session_id], [true, bob.sessionId]);
  assertEquals((await client.ask("subscribe", { channel: "kv:b/" })).data.success, true);
  for (const channel of ["kv:", "kv:a", `session:${ada.sessionId}`]) {
    const { code } = await client.ask("subscribe", { channel }, "error");
    assert(code === "permission_denied" || code === "not_found", `${channel}: ${code}`);
  }
  assertEquals((await client.ask("subscribe", { channel: `session:${bob.sessionId}` })).data.success, true);
  await client.ask("subscribe", { channel: "session:*" });
  await client.ask("subscribe", { channel: "news" });
  await login(product, "ada");
  const second = await login(product, "bob");
  const event = (await client.next("notify")).data;
  assertEquals([event.channel, event.data.session.sessionId], ["session:*", second.sessionId]);

  const ended = await fetch(`${product.url}/api/v1/sessions/${bob.sessionId}`, {
    method: "DELETE",
    headers: bearer(ada.token),
  });
  await ended.body?.cancel();
  const endedAt = performance.now();
  client.say("publish", { channel: "news", data: "from the beyond" });
  const { code } = await client.closed;
  const took = performance.now() - endedAt;
  assertEquals(code, 4401);
  assert(took < REVOKED_WITHIN_MS, `it took ${Math.round(took)} ms`);
  const history = await fetch(`${product.url}/api/v1/channels/news/history`, { headers: bearer(ada.token) });
  assertEquals((await history.json()).messages, []);
  using idle = await HubClient.connect(product, bearer(second.token));
  await idle.ask("ping", undefined, "pong");
  await post(product, "/api/v1/sessions:revokeUser", { userId: data.user_id }, bearer(ada.token));
  const revokedAt = performance.now();
  assertEquals((await idle.closed).code, 4401);
  assert(performance.now() - revokedAt < REVOKED_WITHIN_MS);
});

Deno.test("several gateway workers are one hub: what is published at one is heard at all, and who is where is known", async () => {
  await using product = await startProduct({
    args: ["--set", "gateway.workers=3", "--set", "gateway.hub.presenceTickMs=10"],
  });
  const clients: HubClient[] = [];
  try {
    for (let i = 0; i < 12; i++) clients.push(await HubClient.connect(product));
    const channels = ["a", "b", "c", "d", "e", "f"];
    const epochs = new Map<string, string>();
    for (const client of clients) {
      for (const channel of channels) {
        const { data } = await client.ask("subscribe", { channel });
        assertEquals(epochs.get(channel) ?? data.epoch, data.epoch, `one ${channel} for all workers`);
        epochs.set(channel, data.epoch);
      }
    }
    const spread = new Set<string>();
    for (const [i, client] of clients.entries()) {
      const { data } = await client.ask("publish", { channel: channels[i % channels.length], data: i });
      assert(data.offset === 1 || data.offset === 2, String(data.offset));
    }
    for (const client of clients) {
      const heard: [string, number][] = [];
      for (const message of client.received) {
        if (message.type === "notify") heard.push([message.data.channel, message.data.data]);
      }
      while (heard.length < clients.length) {
        const { data } = await client.next("notify");
        const row: [string, number] = [data.channel, data.data];
        if (!heard.some(([channel, n]) => channel === row[0] && n === row[1])) heard.push(row);
      }
      for (const channel of channels) {
        const order = heard.filter(([name]) => name === channel).map(([, n]) => n);
        assertEquals(order, order.toSorted((a, b) => a - b));
        assertEquals(order.length, 2);
      }
      spread.add(JSON.stringify(heard));
    }
    // Until every worker has told every other one.
    for (const client of clients) {
      for (;;) {
        const { data } = await client.ask("presence", { channel: "a" });
        if (data.users[0].connections === clients.length) break;
      }
      const { data } = await client.ask("history", { channel: "a" });
      assertEquals(data.messages.map((message: Received) => message.data.offset), [1, 2]);
    }
    const back = await clients[3]!.ask("subscribe", { channel: "b", offset: 1, epoch: epochs.get("b") });
    assertEquals(back.data.recovered, true);
    assertEquals((await clients[3]!.next("notify")).data.offset, 2);
  } finally {
    for (const client of clients) client[Symbol.dispose]();
  }
  assertEquals(await product.stop(), 0);
});

Deno.test("a peer that says nothing more is pinged, then dropped", async () => {
  await using product = await startProduct({ args: ["--set", "gateway.hub.pingIntervalMs=1000"] });
  const { hostname, port } = new URL(product.url);
  using silent = await Deno.connect({ hostname, port: Number(port) });
  await silent.write(
    new TextEncoder().encode(
      `GET /ws HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
  );
  using polite = await HubClient.connect(product);
  const buffer = new Uint8Array(4_096);
  assertMatch(
    new TextDecoder().decode(buffer.subarray(0, await silent.read(buffer) ?? 0)),
    /^HTTP\/1\.1 101/,
  );
  const opcodes: number[] = [];
  for (let count = await silent.read(buffer); count !== null; count = await silent.read(buffer)) {
    opcodes.push(buffer[0]! & 0x0f);
  }
  assertEquals(opcodes, [0x9, 0x8], "a ping, then the end");
  assertEquals((await polite.ask("ping", undefined, "pong")).type, "pong");
});
