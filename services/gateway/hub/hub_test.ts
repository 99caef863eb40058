import { assert, assertEquals, assertMatch } from "@std/assert";
import { createHubWorld, settle, user } from "./testing/hub_world.ts";

const ADA = user("ada");
const BOB = user("bob");

Deno.test("the hub speaks the envelope: every type answers with the request's id", async () => {
  const world = createHubWorld();
  const client = world.connect();
  await client.say("ping", undefined, "p1");
  assertEquals(client.last(), {
    id: "id-1",
    type: "pong",
    timestamp: "T1000000",
    request_id: "p1",
    data: { timestamp: "T1000000" },
  });
  world.tokens.set("token-of-ada", ADA);
  client.take();
  await client.say("auth", { token: "token-of-ada" }, "a1");
  await client.say("subscribe", { channel: "news" }, "s1");
  await client.say("publish", { channel: "news", data: { text: "hi" } }, "u1");
  await client.say("unsubscribe", { channel: "news" }, "n1");
  const epoch = client.received.find(({ type }) => type === "subscribe")!.data.epoch;
  assertEquals(client.take(), [
    {
      type: "auth_result",
      request_id: "a1",
      data: { success: true, message: "authenticated", user_id: "id-of-ada", session_id: "session-of-ada" },
    },
    {
      type: "subscribe",
      request_id: "s1",
      data: { channel: "news", success: true, epoch, offset: 0, recovered: false },
    },
    { type: "notify", data: { channel: "news", event: "publish", data: { text: "hi" }, offset: 1, epoch } },
    {
      type: "publish",
      request_id: "u1",
      data: { channel: "news", success: true, subscribers: 1, offset: 1, epoch },
    },
    { type: "unsubscribe", request_id: "n1", data: { channel: "news", success: true } },
  ]);
  world.hub.close();
});

Deno.test("the hub refuses what is no message, what it does not know, and what has no channel, in these words", async () => {
  const world = createHubWorld();
  const client = world.connect(ADA);
  for (const text of ["{", "[]", "1", '{"data":{}}', '{"type":1}', '{"type":"ping","data":[]}', undefined]) {
    client.connection.receive(text);
    assertEquals(
      [client.last().error, client.last().code],
      ["Invalid message format", "invalid_argument"],
      text,
    );
  }
  for (const type of ["create_document", "notify", "auth_result", "toString", ""]) {
    await client.say(type);
    assertEquals([client.last().error, client.last().request_id], ["Unknown message type", "r"], type);
  }
  for (const type of ["subscribe", "unsubscribe", "publish", "history", "presence"]) {
    for (const data of [undefined, {}, { channel: "" }]) {
      await client.say(type, data);
      assertEquals(client.last().error, "Channel is required", type);
    }
  }
  const { data } = client.last();
  assertEquals(
    [data.type, data.status, data.code],
    ["urn:aetherflow:problem:invalid_argument", 400, "invalid_argument"],
  );
  assertEquals(client.closed, []);
  world.hub.close();
});

Deno.test("who has not shown who it is gets nothing, and is closed when it takes too long", async () => {
  const world = createHubWorld({ authTimeoutMs: 5_000 });
  const client = world.connect();
  for (const type of ["subscribe", "unsubscribe", "publish", "history", "presence", "operation"]) {
    await client.say(type, { channel: "news" });
    assertEquals([client.last().error, client.last().code], ["Not authenticated", "unauthenticated"], type);
  }
  assertEquals(world.timer.fire(5_000), 1);
  assertEquals(client.closed.map(({ code }) => code), [4408]);
  assertEquals(world.hub.stats.channels, 0);
});

Deno.test("a credential that is none is told, and the third one ends the socket", async () => {
  const world = createHubWorld();
  const client = world.connect();
  for (const token of ["wrong", "", 7]) await client.say("auth", { token });
  assertEquals(client.received.map(({ type, data }) => [type, data.success, data.code]), [
    ["auth_result", false, "unauthenticated"],
    ["auth_result", false, "unauthenticated"],
    ["auth_result", false, "unauthenticated"],
  ]);
  assertEquals(client.closed.map(({ code }) => code), [4401]);
  assertEquals(world.timer.waiting, []);
});

Deno.test("a socket stays one user's: it may renew its credential and not become somebody else", async () => {
  const world = createHubWorld();
  world.tokens.set("a", ADA).set("b", BOB);
  const client = world.connect(ADA);
  await client.say("auth", { token: "a" });
  assertEquals(client.last().data.success, true);
  await client.say("auth", { token: "b" });
  assertEquals([client.last().data.success, client.last().data.code], [false, "failed_precondition"]);
  assertEquals(world.hub.stats.users, 1);
});

Deno.test("a message of a channel is encoded once, and everybody gets the same text", async () => {
  const world = createHubWorld();
  const clients = [world.connect(ADA), world.connect(BOB), world.connect(BOB)];
  for (const client of clients) await client.say("subscribe", { channel: "news" });
  for (const client of clients) client.take();
  await clients[0]!.say("publish", { channel: "news", data: 1 });
  const notes = clients.map(({ received }) => received.find(({ type }) => type === "notify"));
  assertEquals(new Set(notes.map((note) => JSON.stringify(note))).size, 1);
  assertEquals(clients[0]!.last().data.subscribers, 3);
});

Deno.test("what was missed comes back with the position: all of it, or a word that it must be loaded anew", async () => {
  const world = createHubWorld({ historyMessages: 3 });
  const writer = world.connect(ADA);
  const reader = world.connect(BOB);
  await reader.say("subscribe", { channel: "news" });
  const { epoch } = reader.last().data;
  for (let i = 1; i <= 5; i++) await writer.say("publish", { channel: "news", data: i });
  const comeBack = async (data: Record<string, unknown>) => {
    const again = world.connect(BOB);
    await again.say("subscribe", { channel: "news", ...data });
    const [answer, ...missed] = again.received;
    const { recovered, reason, reload, offset } = answer!.data;
    again.connection.gone();
    return [recovered, reason, reload, offset, missed.map(({ data }) => data.data)];
  };
  assertEquals(await comeBack({ offset: 3, epoch }), [true, undefined, undefined, 5, [4, 5]]);
  assertEquals(await comeBack({ offset: 2, epoch }), [true, undefined, undefined, 5, [3, 4, 5]]);
  assertEquals(await comeBack({ offset: 5, epoch }), [true, undefined, undefined, 5, []]);
  assertEquals(await comeBack({ offset: 1, epoch }), [false, "too_old", true, 5, []]);
  assertEquals(await comeBack({ offset: 6, epoch }), [false, "unknown_offset", true, 5, []]);
  assertEquals(await comeBack({ offset: 4, epoch: "another" }), [false, "new_epoch", true, 5, []]);
  assertEquals(await comeBack({}), [false, undefined, undefined, 5, []]);
  for (
    const data of [{ offset: -1, epoch }, { offset: 1.5, epoch }, { offset: 1 }, { epoch }, {
      offset: "1",
      epoch,
    }]
  ) {
    await reader.say("subscribe", { channel: "news", ...data });
    assertEquals(reader.last().code, "invalid_argument", JSON.stringify(data));
  }
});

Deno.test("history returns messages as they were sent, from a place on or the newest, and says whether any is missing", async () => {
  const world = createHubWorld({ historyMessages: 3 });
  const client = world.connect(ADA);
  const history = async (data: Record<string, unknown>) => {
    await client.say("history", { channel: "news", ...data });
    const { messages, offset, complete } = client.last().data;
    return [messages.map((message: { data: { data: unknown } }) => message.data.data), offset, complete];
  };
  assertEquals(await history({}), [[], undefined, true]);
  assertEquals(world.hub.stats.channels, 0);
  await client.say("publish", { channel: "news", data: 1 });
  const { epoch } = client.last().data;
  await client.say("publish", { channel: "news", data: 2 });
  assertEquals(await history({}), [[1, 2], 2, true]);
  assertEquals(await history({ limit: 1 }), [[2], 2, false]);
  for (const data of [3, 4]) await client.say("publish", { channel: "news", data });
  assertEquals(await history({}), [[2, 3, 4], 4, false]);
  assertEquals(await history({ since: { offset: 2, epoch } }), [[3, 4], 4, true]);
  assertEquals(await history({ since: { offset: 2, epoch }, limit: 1 }), [[3], 4, false]);
  assertEquals(await history({ since: { offset: 0, epoch } }), [[2, 3, 4], 4, false]);
  assertEquals(await history({ since: { offset: 2, epoch: "x" } }), [[2, 3, 4], 4, false]);
  for (const data of [{ limit: 0 }, { limit: 1_001 }, { since: 3 }, { since: { offset: 3 } }]) {
    await client.say("history", { channel: "news", ...data });
    assertEquals(client.last().code, "invalid_argument", JSON.stringify(data));
  }
});

Deno.test("presence: who is there, and joins and leaves of a tick in one message for those who asked", async () => {
  const world = createHubWorld({ presenceTickMs: 100 });
  const watcher = world.connect(ADA);
  await watcher.say("subscribe", { channel: "room", presence: true });
  world.timer.fire(100);
  watcher.take();
  const others = [world.connect(BOB), world.connect(BOB), world.connect(user("eve"))];
  for (const other of others) await other.say("subscribe", { channel: "room" });
  others[2]!.connection.gone();
  assertEquals(watcher.take(), []);
  assertEquals(world.timer.fire(100), 1);
  const bob = { user_id: "id-of-bob", username: "bob" };
  assertEquals(watcher.take(), [{
    type: "notify",
    data: {
      channel: "room",
      event: "presence",
      data: { joined: [{ ...bob, connections: 1 }], left: [], total: 2 },
    },
  }]);
  await watcher.say("presence", { channel: "room" });
  assertEquals(watcher.last().data, {
    channel: "room",
    success: true,
    users: [{ user_id: "id-of-ada", username: "ada", connections: 1 }, { ...bob, connections: 2 }],
    total: 2,
  });
  others[0]!.connection.gone();
  await others[1]!.say("unsubscribe", { channel: "room" });
  watcher.take();
  world.timer.fire(100);
  assertEquals(watcher.take()[0]!.data.data, { joined: [], left: [{ ...bob, connections: 0 }], total: 1 });
  assert(others[1]!.received.every(({ type }) => type !== "notify"));
  await watcher.say("presence", { channel: "elsewhere" });
  assertEquals(watcher.last().data.users, []);
});

Deno.test("nobody publishes in channels that tell what happens elsewhere, and job: is refused by name", async () => {
  const world = createHubWorld();
  const client = world.connect(ADA);
  for (const channel of ["doc:d1", "kv:a/", "kv:", "session:s1", "session:*"]) {
    await client.say("publish", { channel, data: 1 });
    assertEquals(client.last().code, "permission_denied", channel);
  }
  await client.say("subscribe", { channel: "job:1" });
  assertEquals(client.last().code, "unimplemented");
  for (const channel of ["doc:", "session:", "a\u0000b", "a\nb", "\ud800", "x".repeat(1_101), 7, { a: 1 }]) {
    await client.say("subscribe", { channel });
    assertEquals(client.last().code, "invalid_argument", JSON.stringify(channel));
  }
  assertEquals(world.hub.stats.channels, 0);
});

Deno.test("a channel is its name and nothing else: no pattern, escape or separator leads into another one", async () => {
  const world = createHubWorld();
  const names = [
    "a",
    "a:b",
    "a%3Ab",
    "*",
    "a*",
    "%2F",
    "/",
    "..",
    "../a",
    "A",
    "ä",
    "a\u0308",
    "a b",
    "__proto__",
    "😀",
  ];
  const readers = names.map(() => world.connect(BOB));
  for (const [i, reader] of readers.entries()) await reader.say("subscribe", { channel: names[i] });
  const writer = world.connect(ADA);
  for (const channel of names) await writer.say("publish", { channel, data: channel });
  assertEquals(
    readers.map(({ received }) =>
      received.filter(({ type }) => type === "notify").map(({ data }) => data.data)
    ),
    names.map((name) => [name]),
  );
});

Deno.test("an operation goes to its document in the caller's name and comes back with its result", async () => {
  const world = createHubWorld();
  const client = world.connect(ADA);
  await client.say("operation", { doc_id: "d", type: "text" }, "o1");
  assertEquals(world.operations, [{ doc_id: "d", type: "text" }]);
  assertEquals(client.take(), [
    { type: "operation", request_id: "o1", data: { success: true, version: "2" } },
  ]);
});

Deno.test("who is revoked is closed for good, and nothing it sends afterwards is carried out", async () => {
  const world = createHubWorld();
  const ada = world.connect(ADA);
  const bob = world.connect(BOB);
  await ada.say("subscribe", { channel: "news" });
  world.revoked.add("ada");
  // Before its socket is closed: the message itself is not accepted.
  await ada.say("publish", { channel: "news", data: 1 });
  assertEquals(ada.closed.map(({ code }) => code), [4401]);
  await ada.say("operation", { doc_id: "d" });
  await bob.say("publish", { channel: "news", data: 2 });
  assertEquals(ada.received.filter(({ type }) => type === "notify"), []);
  assertEquals(world.operations, []);
  assertEquals(bob.last().data.subscribers, 0);
  world.revoke("bob");
  assertEquals(bob.closed.map(({ code }) => code), [4401]);
  await bob.say("publish", { channel: "news", data: 3 });
  assertEquals(bob.last().type, "error");
  assertEquals(world.hub.stats.users, 0);
});

Deno.test("messages of one client are carried out in their order, and only so many wait", async () => {
  const world = createHubWorld({ messageBurst: 1_000, messagesPerSecond: 1_000 });
  const client = world.connect(ADA);
  const send = (data: unknown, i: number) =>
    client.connection.receive(
      JSON.stringify({ id: `m${i}`, type: "publish", data: { channel: "news", data } }),
    );
  for (let i = 0; i < 300; i++) send(i, i);
  for (let i = 0; i < 100; i++) await settle();
  assertEquals(client.received.filter(({ code }) => code === "too_many_requests").length, 300 - 256);
  assertEquals(
    client.received.filter(({ type }) => type === "publish").map(({ request_id }) => request_id),
    Array.from({ length: 256 }, (_, i) => `m${i}`),
  );
});

Deno.test("a client that sends too much is told, then closed with 4529; one that slows down is not", async () => {
  const world = createHubWorld({ messagesPerSecond: 10, messageBurst: 20 });
  const [fast, slow] = [world.connect(ADA), world.connect(BOB)];
  for (let i = 0; i < 25; i++) await slow.say("ping");
  assertEquals(slow.received.filter(({ code }) => code === "rate_limited").length, 5);
  for (let i = 0; i < 20 + 33; i++) await fast.say("ping");
  assertEquals(fast.closed.map(({ code }) => code), [4529]);
  assertMatch(fast.closed[0]!.reason, /reconnect_after_ms=2500/);
  assertEquals(fast.last().data.reconnect_after_ms, 2_500);
  world.nowMs += 2_000;
  await slow.say("ping");
  assertEquals([slow.last().type, slow.closed], ["pong", []]);
});

Deno.test("a message larger than allowed ends the socket, by its bytes and not its characters", async () => {
  const world = createHubWorld({ maxMessageBytes: 1_024 });
  const ofLength = (text: string) => JSON.stringify({ type: "ping", data: { text } });
  const padding = 1_024 - ofLength("").length;
  const client = world.connect(ADA);
  client.connection.receive(ofLength("x".repeat(padding)));
  assertEquals(client.last().type, "pong");
  client.connection.receive(ofLength("ä".repeat(padding / 2 + 1)));
  assertEquals(client.closed.map(({ code }) => code), [4413]);
  assertEquals(client.last().code, "body_too_large");
  await settle();
});

Deno.test("a client that does not read is closed with 4508, and nobody else waits", async () => {
  const world = createHubWorld({ maxQueuedBytes: 65_536 });
  const [stuck, reader, writer] = [world.connect(ADA), world.connect(BOB), world.connect(BOB)];
  for (const each of [stuck, reader]) await each.say("subscribe", { channel: "news" });
  stuck.wire.isStuck = true;
  for (let i = 0; i < 10; i++) await writer.say("publish", { channel: "news", data: "x".repeat(10_000) });
  assertEquals(stuck.closed.map(({ code }) => code), [4508]);
  assertMatch(stuck.closed[0]!.reason, /reconnect_after_ms=\d+/);
  assert(stuck.wire.queued < 65_536 + 11_000);
  assertEquals(reader.received.filter(({ type }) => type === "notify").length, 10);
  assertEquals(writer.last().data.subscribers, 1);
});

Deno.test("what a client missed may be more than may wait for it otherwise, once", async () => {
  const world = createHubWorld({ maxQueuedBytes: 65_536, historyMessages: 100 });
  const writer = world.connect(BOB);
  await writer.say("publish", { channel: "news", data: 0 });
  const { epoch } = writer.last().data;
  for (let i = 0; i < 20; i++) await writer.say("publish", { channel: "news", data: "x".repeat(10_000) });
  const reader = world.connect(ADA);
  reader.wire.isStuck = true;
  await reader.say("subscribe", { channel: "news", offset: 1, epoch });
  assertEquals([reader.received.length, reader.closed], [21, []]);
  // The next portion waits until it has read this one.
  await reader.say("subscribe", { channel: "news", offset: 1, epoch });
  assertEquals(reader.received.length, 21);
  reader.wire.queued = 0;
  world.timer.fire(10);
  await settle();
  assertEquals([reader.received.length, reader.closed], [42, []]);
  await reader.say("history", { channel: "news" });
  world.nowMs += 10_000;
  world.timer.fire(10);
  await settle();
  assertEquals(reader.closed.map(({ code }) => code), [4508]);
});

Deno.test("limits: channels of a socket, sockets and channels of a worker", async () => {
  const world = createHubWorld({ maxChannelsPerSocket: 2, maxSockets: 2, maxChannels: 3 });
  const client = world.connect(ADA);
  for (const channel of ["a", "b", "c"]) await client.say("subscribe", { channel });
  assertEquals([client.last().code, client.connection.channels], ["resource_exhausted", 2]);
  await client.say("subscribe", { channel: "a" });
  assertEquals(client.last().data.success, true);
  const other = world.connect(BOB);
  await other.say("subscribe", { channel: "c" });
  await other.say("subscribe", { channel: "d" });
  assertEquals(other.last().code, "resource_exhausted");
  await other.say("unsubscribe", { channel: "c" });
  await other.say("subscribe", { channel: "d" });
  assertEquals(other.last().data.success, true);
  let refusal: unknown;
  try {
    world.hub.admit();
  } catch (error) {
    refusal = error;
  }
  assertMatch(String(refusal), /2 sockets are open \(gateway\.hub\.maxSockets\)/);
  other.connection.gone();
  world.hub.admit();
});

Deno.test("histories of all channels stay within their bound, and who is not heard loses its own first", async () => {
  const world = createHubWorld({ historyTotalBytes: 100_000, historyMessages: 1_000 });
  const client = world.connect(ADA);
  await client.say("publish", { channel: "idle", data: "x".repeat(30_000) });
  await client.say("subscribe", { channel: "heard" });
  for (let i = 0; i < 20; i++) await client.say("publish", { channel: "heard", data: "x".repeat(10_000) });
  const bytes = await world.registry.getSingleMetric("aetherflow_gateway_hub_history_bytes")!.get();
  assert(
    bytes.values[0]!.value <= 100_000 && bytes.values[0]!.value > 80_000,
    String(bytes.values[0]!.value),
  );
  assertEquals(world.hub.stats.channels, 1);
});

Deno.test("a channel that nobody hears keeps its history for a while and then is another one", async () => {
  const world = createHubWorld({ idleChannelMs: 10_000 });
  const client = world.connect(ADA);
  await client.say("publish", { channel: "news", data: 1 });
  const { epoch } = client.last().data;
  world.nowMs += 9_000;
  world.timer.fire(1_000);
  assertEquals(world.hub.stats.channels, 1);
  world.nowMs += 1_000;
  world.timer.fire(1_000);
  assertEquals([world.hub.stats.channels, world.timer.waiting], [0, []]);
  await client.say("subscribe", { channel: "news", offset: 1, epoch });
  assertEquals([client.last().data.recovered, client.last().data.reason], [false, "new_epoch"]);
});

Deno.test("a filter lets through the events it names", async () => {
  const world = createHubWorld();
  const client = world.connect(ADA);
  await client.say("subscribe", { channel: "doc:d", filter: { events: ["lock_acquired"] } });
  const stream = world.stream("doc:d");
  for (const event of ["operation_applied", "lock_acquired"]) stream.add(event);
  await settle();
  assertEquals(client.take().slice(1).map(({ data }) => [data.event, data.offset]), [["lock_acquired", 2]]);
  for (
    const filter of [[], "x", { events: [] }, { events: [1] }, { kinds: ["x"] }, {
      events: new Array(33).fill("a"),
    }]
  ) {
    await client.say("subscribe", { channel: "doc:d", filter });
    assertEquals(client.last().code, "invalid_argument", JSON.stringify(filter));
  }
  world.hub.close();
});

Deno.test("one stream feeds a channel, however many hear it, and ends when nobody does", async () => {
  const world = createHubWorld();
  const clients = [world.connect(ADA), world.connect(BOB), world.connect(BOB)];
  for (const client of clients) await client.say("subscribe", { channel: "doc:d" });
  const stream = world.stream("doc:d");
  stream.add();
  await settle();
  assertEquals([stream.opened, stream.open_], [1, 1]);
  assertEquals(clients.map((client) => client.last().data.offset), [1, 1, 1]);
  for (const client of clients) client.connection.gone();
  await settle();
  assertEquals(stream.open_, 1);
  world.nowMs += 5_000;
  world.timer.fire(1_000);
  await settle();
  assertEquals([stream.open_, world.hub.stats.channels], [0, 0]);
});

Deno.test("who may not read a document any more hears nothing after that, not even the event that says so", async () => {
  const world = createHubWorld();
  const [ada, bob] = [world.connect(ADA), world.connect(BOB)];
  for (const client of [ada, bob]) await client.say("subscribe", { channel: "doc:d" });
  const stream = world.stream("doc:d");
  world.refused.add("doc:d bob");
  stream.add("operation_applied");
  stream.add("document_updated", true);
  stream.add("operation_applied");
  await settle();
  assertEquals(ada.take().slice(1).map(({ data }) => data.offset), [1, 2, 3]);
  assertEquals(bob.take().slice(1), [
    {
      type: "notify",
      data: { channel: "doc:d", event: "operation_applied", data: { n: 1 }, offset: 1, epoch: "e1" },
    },
    {
      type: "unsubscribe",
      data: { channel: "doc:d", success: true, code: "permission_denied", reason: "doc:d is not for you" },
    },
  ]);
  await bob.say("subscribe", { channel: "doc:d" });
  assertEquals(bob.last().code, "permission_denied");
  assertEquals([bob.closed, bob.connection.channels], [[], 0]);
  world.hub.close();
});

Deno.test("one's own view of all sessions is not another's", async () => {
  const world = createHubWorld();
  const [ada, bob] = [world.connect(ADA), world.connect(BOB)];
  for (const client of [ada, bob]) await client.say("subscribe", { channel: "session:*" });
  assertEquals([world.hub.stats.channels, world.stream("session:*").opened], [2, 2]);
  await ada.say("presence", { channel: "session:*" });
  assertEquals(ada.last().data.users.map(({ username }: { username: string }) => username), ["ada"]);
  world.hub.close();
});

Deno.test("a drain sends everybody away with a time to come back of its own, and takes nobody", async () => {
  const world = createHubWorld({ reconnectMs: 8_000 });
  const clients = [world.connect(ADA), world.connect()];
  await clients[0]!.say("subscribe", { channel: "news" });
  world.hub.drain();
  for (const client of clients) {
    assertEquals(client.closed, [{
      code: 1001,
      reason: "the gateway is draining, come back: reconnect_after_ms=4000",
    }]);
    assertEquals([client.last().code, client.last().data.reconnect_after_ms], ["unavailable", 4_000]);
  }
  const late = world.connect(BOB);
  assertEquals(late.closed.map(({ code }) => code), [1001]);
  let refusal: unknown;
  try {
    world.hub.admit();
  } catch (error) {
    refusal = error;
  }
  assertMatch(String(refusal), /draining/);
});

Deno.test("the hub counts messages, closes and recoveries", async () => {
  const world = createHubWorld();
  const [reader, writer] = [world.connect(ADA), world.connect(BOB)];
  await reader.say("subscribe", { channel: "news", offset: 0, epoch: "x" });
  await writer.say("publish", { channel: "news", data: 1 });
  await writer.say("nonsense");
  world.hub.drain();
  const text = await world.registry.metrics();
  for (
    const line of [
      'aetherflow_gateway_websocket_messages_total{type="subscribe",direction="in"} 1',
      'aetherflow_gateway_websocket_messages_total{type="invalid",direction="in"} 1',
      'aetherflow_gateway_websocket_messages_total{type="notify",direction="out"} 1',
      'aetherflow_gateway_websocket_closed_total{code="1001"} 2',
      'aetherflow_gateway_hub_recoveries_total{result="new_epoch"} 1',
      "aetherflow_gateway_hub_connections 2",
      "aetherflow_gateway_hub_subscriptions 0",
    ]
  ) assert(text.includes(`${line}\n`), `${line}\n${text}`);
});
