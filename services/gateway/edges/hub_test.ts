import { assert, assertEquals, assertMatch } from "@std/assert";
import { createFakeCredentials, type FakeCredentials, principal } from "../testing/fake_credentials.ts";
import { startTestGateway, type TestGateway } from "../testing/harness.ts";

// deno-lint-ignore no-explicit-any -- what is in it, its type says
type Received = Record<string, any>;

/** A client of the socket. */
interface Client extends Disposable {
  readonly socket: WebSocket;
  readonly closed: Promise<CloseEvent>;
  readonly received: Received[];
  say(type: string, data?: unknown): void;
  /** The next message of a type. */
  next(type: string): Promise<Received>;
  ask(type: string, data?: unknown, answer?: string): Promise<Received>;
}

async function connect(gateway: TestGateway, headers: Record<string, string> = {}): Promise<Client> {
  const socket = new WebSocket(`${gateway.url.replace("http", "ws")}/ws`, { headers });
  const received: Received[] = [];
  let wake = () => {};
  let taken = 0;
  socket.addEventListener("message", ({ data }) => {
    received.push(JSON.parse(data));
    wake();
  });
  const closed = new Promise<CloseEvent>((resolve) =>
    socket.addEventListener("close", (event) => {
      resolve(event);
      wake();
    })
  );
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("error", () => reject(new Error("refused")));
  });
  const client: Client = {
    socket,
    closed,
    received,
    say: (type, data) => socket.send(JSON.stringify({ id: "r", type, data })),
    async next(type) {
      for (;;) {
        while (taken < received.length) {
          const message = received[taken++]!;
          if (message.type === type) return message;
          if (message.type === "error") throw new Error(`${type} is awaited: ${JSON.stringify(message)}`);
        }
        if (socket.readyState === WebSocket.CLOSED) throw new Error(`closed: ${JSON.stringify(received)}`);
        await new Promise<void>((resolve) => wake = resolve);
      }
    },
    ask(type, data, answer = type) {
      client.say(type, data);
      return client.next(answer);
    },
    [Symbol.dispose]: () => socket.close(),
  };
  return client;
}

function withUsers(): FakeCredentials {
  const credentials = createFakeCredentials();
  credentials.sessions.set("token-of-ada", principal({ username: "ada", sessionId: "s-ada" }));
  credentials.sessions.set("token-of-bob", principal({ username: "bob", sessionId: "s-bob" }));
  credentials.require();
  return credentials;
}

Deno.test("a socket lives on after its handshake: it subscribes, and hears what another publishes", async () => {
  await using gateway = startTestGateway();
  using ada = await connect(gateway);
  using bob = await connect(gateway);
  assertEquals((await ada.ask("subscribe", { channel: "news" })).data.success, true);
  assertEquals((await bob.ask("publish", { channel: "news", data: { n: 1 } })).data.subscribers, 1);
  const { data } = await ada.next("notify");
  assertEquals([data.channel, data.event, data.data, data.offset], ["news", "publish", { n: 1 }, 1]);
  const stats = await (await fetch(`${gateway.url}/ws/stats`)).json();
  assertEquals(stats, { total_connections: 2, authenticated_users: 1, total_channels: 1 });
});

Deno.test("what a socket has shown with its handshake counts at once, and else it shows it in band", async () => {
  await using gateway = startTestGateway({ credentials: withUsers() });
  using ada = await connect(gateway, { authorization: "Bearer token-of-ada" });
  assertEquals((await ada.ask("subscribe", { channel: "news" })).data.success, true);
  using bob = await connect(gateway);
  assertEquals((await bob.ask("subscribe", { channel: "news" }, "error")).error, "Not authenticated");
  assertEquals((await bob.ask("auth", { token: "wrong" }, "auth_result")).data.success, false);
  const { data } = await bob.ask("auth", { token: "token-of-bob" }, "auth_result");
  assertEquals(data, { success: true, message: "authenticated", user_id: "id-of-bob", session_id: "s-bob" });
  assertEquals((await bob.ask("subscribe", { channel: "news" })).data.success, true);
  using byCookie = await connect(gateway, {
    cookie: "aetherflow-access=token-of-ada",
    origin: gateway.url,
  });
  assertEquals((await byCookie.ask("presence", { channel: "news" })).data.total, 2);
});

Deno.test("a page of another origin opens no socket and no event stream, with a cookie or without", async () => {
  await using gateway = startTestGateway({
    credentials: withUsers(),
    config: { cors: { origins: ["https://app.example.com"] } },
  });
  const handshake = async (path: string, headers: Record<string, string>) => {
    const { hostname, port } = new URL(gateway.url);
    using connection = await Deno.connect({ hostname, port: Number(port) });
    const lines = Object.entries({
      host: `${hostname}:${port}`,
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
      ...headers,
    }).map(([name, value]) => `${name}: ${value}\r\n`);
    await connection.write(new TextEncoder().encode(`GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`));
    const buffer = new Uint8Array(4_096);
    const count = await connection.read(buffer) ?? 0;
    return Number(new TextDecoder().decode(buffer.subarray(0, count)).split(" ")[1]);
  };
  const cookie = "aetherflow-access=token-of-ada";
  assertEquals(await handshake("/ws", { origin: "https://evil.example" }), 403);
  assertEquals(await handshake("/ws", { origin: "https://evil.example", cookie }), 403);
  assertEquals(await handshake("/ws", { origin: "null", cookie }), 403);
  assertEquals(await handshake("/ws", { cookie }), 403);
  assertEquals(await handshake("/ws", { origin: "https://app.example.com" }), 101);
  assertEquals(await handshake("/ws", { origin: gateway.url, cookie }), 101);
  assertEquals(await handshake("/ws", {}), 101);
  const headers = { authorization: "Bearer token-of-ada", origin: "https://evil.example" };
  const events = await fetch(`${gateway.url}/sse?channel=news`, { headers });
  assertEquals([events.status, (await events.json()).code], [403, "csrf_refused"]);
});

Deno.test("while there are no users, pages of other machines open no socket", async () => {
  await using gateway = startTestGateway();
  const refused = await fetch(`${gateway.url}/sse?channel=news`, {
    headers: { origin: "https://evil.example" },
  });
  assertEquals([refused.status, (await refused.json()).code], [403, "foreign_origin"]);
  using local = await connect(gateway, { origin: "http://localhost:3000" });
  assertEquals((await local.ask("ping", undefined, "pong")).type, "pong");
});

Deno.test("a request that is no handshake, or another method, is told so", async () => {
  await using gateway = startTestGateway();
  const plain = await fetch(`${gateway.url}/ws`);
  assertEquals([plain.status, (await plain.json()).code], [400, "invalid_argument"]);
  const post = await fetch(`${gateway.url}/ws`, { method: "POST" });
  assertEquals([post.status, post.headers.get("allow"), (await post.json()).code], [
    405,
    "GET",
    "method_not_allowed",
  ]);
});

Deno.test("a revoked session's socket is closed, and its event stream", async () => {
  const credentials = withUsers();
  await using gateway = startTestGateway({ credentials, realTimers: true });
  const headers = { authorization: "Bearer token-of-ada" };
  using ada = await connect(gateway, headers);
  await ada.ask("subscribe", { channel: "news" });
  const events = await fetch(`${gateway.url}/sse?channel=news`, { headers });
  const text = events.text();
  credentials.sessions.delete("token-of-ada");
  const { code } = await ada.closed;
  assertEquals(code, 4401);
  assertMatch(await text, /"code":"unauthenticated"/);
});

Deno.test("what is sent after a revocation is not carried out, though no round of asking has come by", async () => {
  const credentials = withUsers();
  await using gateway = startTestGateway({ credentials });
  using ada = await connect(gateway, { authorization: "Bearer token-of-ada" });
  using bob = await connect(gateway, { authorization: "Bearer token-of-bob" });
  await ada.ask("subscribe", { channel: "news" });
  credentials.sessions.delete("token-of-bob");
  bob.say("publish", { channel: "news", data: 1 });
  assertEquals((await bob.closed).code, 4401);
  assertEquals((await ada.ask("history", { channel: "news" })).data.messages, []);
  // Other rights are told, and not used.
  credentials.sessions.set(
    "token-of-ada",
    principal({ username: "ada", sessionId: "s-ada", roles: ["admin"] }),
  );
  const { code, error } = await ada.ask("publish", { channel: "news", data: 2 }, "error");
  assertEquals([code, error], ["unavailable", "the caller's rights have changed, come back"]);
});

Deno.test("users that come into being send developers away", async () => {
  const credentials = createFakeCredentials();
  await using gateway = startTestGateway({ credentials });
  using client = await connect(gateway);
  await client.ask("subscribe", { channel: "news" });
  credentials.require();
  assertEquals((await client.closed).code, 4401);
});

Deno.test("frames that are too large or no text end in a word, and never in a fault", async () => {
  await using gateway = startTestGateway({ config: { hub: { maxMessageBytes: 1_024 } } });
  using binary = await connect(gateway);
  binary.socket.send(new Uint8Array([1, 2, 3]));
  assertEquals((await binary.next("error")).error, "Invalid message format");
  using large = await connect(gateway);
  large.socket.send("x".repeat(2_000));
  assertEquals((await large.next("error")).code, "body_too_large");
  assertEquals((await large.closed).code, 4413);
  assertEquals(gateway.logged.filter(({ level }) => level === "error"), []);
});

Deno.test("a client that does not read is closed, and the others hear everything", async () => {
  await using gateway = startTestGateway({
    config: { hub: { maxQueuedBytes: 65_536, messagesPerSecond: 10_000, messageBurst: 10_000 } },
  });
  const { hostname, port } = new URL(gateway.url);
  const stuck = await Deno.connect({ hostname, port: Number(port) });
  const text = JSON.stringify({ type: "subscribe", data: { channel: "news" } });
  const frame = new Uint8Array([0x81, 0x80 | text.length, 0, 0, 0, 0, ...new TextEncoder().encode(text)]);
  await stuck.write(
    new TextEncoder().encode(
      `GET /ws HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
  );
  await stuck.read(new Uint8Array(1_024));
  await stuck.write(frame);
  using reader = await connect(gateway);
  await reader.ask("subscribe", { channel: "news" });
  using writer = await connect(gateway);
  let subscribers = 2;
  let sent = 0;
  // Until the kernel's buffers are full and the rest waits in ours.
  for (; subscribers === 2 && sent < 2_000; sent++) {
    subscribers =
      (await writer.ask("publish", { channel: "news", data: "x".repeat(60_000) })).data.subscribers;
  }
  assertEquals(subscribers, 1);
  for (let i = 1; i <= sent; i++) assertEquals((await reader.next("notify")).data.offset, i);
  const metrics = await (await fetch(`${gateway.url}/metrics`)).text();
  assertMatch(metrics, /aetherflow_gateway_websocket_closed_total\{code="4508"[^}]*\} 1/);
  stuck.close();
});

Deno.test("a drain closes sockets with 1001 and a time to come back", async () => {
  const gateway = startTestGateway();
  using client = await connect(gateway);
  const events = await fetch(`${gateway.url}/sse?channel=news`);
  await client.ask("subscribe", { channel: "news" });
  const drained = gateway.module.drain(60_000);
  const { code, reason } = await client.closed;
  assertEquals(code, 1001);
  assertMatch(reason, /reconnect_after_ms=\d+$/);
  assertEquals((await client.next("error")).code, "unavailable");
  assertMatch(await events.text(), /"reconnect_after_ms":\d+/);
  gateway.timer.fire();
  await drained;
});

/** Reads events of a stream. */
function reading(response: Response) {
  assertEquals([response.status, response.headers.get("content-type")], [200, "text/event-stream"]);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  return {
    async next(): Promise<{ id: string; message: Received }> {
      for (;;) {
        const [event, ...rest] = text.split("\n\n");
        if (rest.length > 0) {
          text = rest.join("\n\n");
          if (event!.startsWith(":")) continue;
          const [, id, data] = /^id: (.*)\ndata: (.*)$/.exec(event!)!;
          return { id: id!, message: JSON.parse(data!) };
        }
        const { value, done } = await reader.read();
        if (done) throw new Error("the stream ended");
        text += value;
      }
    },
    end: () => reader.cancel(),
  };
}

Deno.test("server-sent events: several channels, and what was missed in each by Last-Event-ID", async () => {
  await using gateway = startTestGateway();
  const publish = async (channel: string, data: unknown) => {
    const path = `${gateway.url}/api/v1/channels/${encodeURIComponent(channel)}`;
    const response = await fetch(path, { method: "POST", body: JSON.stringify({ data }) });
    assertEquals(response.status, 200);
    return await response.json();
  };
  const first = reading(await fetch(`${gateway.url}/sse?channel=a&channel=b%2Fc%20%F0%9F%98%80`));
  for (const channel of ["a", "b/c 😀"]) {
    const { message } = await first.next();
    assertEquals([message.type, message.data.channel], ["subscribe", channel]);
  }
  const published = await publish("a", 1);
  assertEquals([published.success, published.subscribers, published.offset], [true, 1, "1"]);
  const { id, message } = await first.next();
  assertEquals([message.type, message.data.data], ["notify", 1]);
  await first.end();
  await publish("b/c 😀", { text: "two\n\nlines" });
  await publish("a", 2);
  const again = reading(
    await fetch(`${gateway.url}/sse?channel=a&channel=b%2Fc%20%F0%9F%98%80`, {
      headers: { "last-event-id": id },
    }),
  );
  const seen = [];
  for (let i = 0; i < 4; i++) seen.push((await again.next()).message);
  assertEquals(seen.map(({ type, data }) => [type, data.channel, data.recovered ?? data.data]), [
    ["subscribe", "a", true],
    ["notify", "a", 2],
    ["subscribe", "b/c 😀", true],
    ["notify", "b/c 😀", { text: "two\n\nlines" }],
  ]);
  await again.end();
  const lost = reading(
    await fetch(`${gateway.url}/api/v1/channels/a/events?lastEventId=${encodeURIComponent("other:1")}`),
  );
  const { data } = (await lost.next()).message;
  assertEquals([data.recovered, data.reload, data.reason], [false, true, "new_epoch"]);
  await lost.end();
});

Deno.test("an event stream that cannot begin is refused as any request is", async () => {
  await using gateway = startTestGateway({ credentials: withUsers() });
  const get = async (
    path: string,
    headers: Record<string, string> = { authorization: "Bearer token-of-ada" },
  ) => {
    const response = await fetch(gateway.url + path, { headers });
    return [response.status, (await response.json()).code];
  };
  assertEquals(await get("/sse?channel=news", {}), [401, "unauthenticated"]);
  assertEquals(await get("/sse"), [400, "invalid_argument"]);
  assertEquals(await get("/sse?channel=kv:"), [403, "permission_denied"]);
  assertEquals(await get("/sse?channel=job:1"), [501, "unimplemented"]);
  assertEquals(await get("/sse?channel=%ff"), [400, "invalid_argument"]);
  assertEquals(await get("/api/v1/channels/a%00/events"), [400, "invalid_argument"]);
  assertEquals(await get("/sse?channel=a&channel=b&lastEventId=x:1"), [400, "invalid_argument"]);
  assertEquals(await get("/sse?channel=a&lastEventId=1"), [400, "invalid_argument"]);
  assertEquals(
    await get(
      `/sse?${"channel=a&".repeat(20)}${[..."bcdefghijklmnopqr"].map((c) => `channel=${c}`).join("&")}`,
    ),
    [
      400,
      "invalid_argument",
    ],
  );
});

Deno.test("channels over plain requests: history, who is there, and no publishing where others speak", async () => {
  await using gateway = startTestGateway();
  using client = await connect(gateway);
  await client.ask("subscribe", { channel: "news" });
  const get = async (path: string) => await (await fetch(`${gateway.url}/api/v1/channels/${path}`)).json();
  const post = (channel: string, body: unknown) =>
    fetch(`${gateway.url}/api/v1/channels/${channel}`, { method: "POST", body: JSON.stringify(body) });
  for (const data of [{ a: [1, null, "x"] }, null, "text"]) {
    await (await post("news", { data })).body?.cancel();
  }
  const history = await get("news/history");
  assertEquals(history.messages.map(({ event, data, offset }: Received) => [event, data, offset]), [
    ["publish", { a: [1, null, "x"] }, "1"],
    ["publish", null, "2"],
    ["publish", "text", "3"],
  ]);
  assertEquals([history.offset, history.complete], ["3", true]);
  const rest = await get(`news/history?sinceOffset=2&sinceEpoch=${history.epoch}&limit=5`);
  assertEquals(rest.messages.map(({ offset }: Received) => offset), ["3"]);
  assertEquals((await get("news/presence")).users, [{ userId: "", username: "dev", connections: 1 }]);
  const refused = await post("doc:d", { data: 1 });
  assertEquals([refused.status, (await refused.json()).code], [403, "permission_denied"]);
  const large = await post("news", { data: "x".repeat(70_000) });
  assertEquals([large.status, (await large.json()).detail.includes("gateway.hub.maxMessageBytes")], [
    429,
    true,
  ]);
  assertEquals((await get("news/history?limit=2000")).code, "invalid_argument");
});

Deno.test("changes of the store are a channel: one watch for all, by revision, without what workers keep", async () => {
  await using gateway = startTestGateway();
  const clients = [await connect(gateway), await connect(gateway)];
  const { offset, epoch } = (await clients[0]!.ask("subscribe", { channel: "kv:app/" })).data;
  await clients[1]!.ask("subscribe", { channel: "kv:app/" });
  assertEquals(gateway.kv.watching.count, 1);
  gateway.kv.put("other", "0");
  gateway.kv.put("app/a", "1");
  for (const client of clients) {
    const { data } = await client.next("notify");
    assertEquals([data.event, data.data.changes[0].entry.keyText ?? data.data.changes[0].entry.key], [
      "changed",
      "YXBwL2E=",
    ]);
    assert(data.offset > offset);
  }
  using late = await connect(gateway);
  const answer = await late.ask("subscribe", { channel: "kv:app/", offset, epoch });
  assertEquals(answer.data.recovered, true);
  assertEquals((await late.next("notify")).data.data.changes.length, 1);
  for (const client of clients) client[Symbol.dispose]();
});
