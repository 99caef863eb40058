import { assert, assertEquals } from "@std/assert";
import * as Y from "yjs";
import { type BareSocket, chunk, openBareSocket, textUpdate } from "../../../tests/support/sync_socket.ts";
import { openSyncWorld, type WorldGateway } from "../../../tests/support/sync_world.ts";

const EMPTY_VECTOR = Uint8Array.of(0);
const isAsk = (message: Uint8Array) => message[0] === 0 && message[1] === 0;
const isAnswer = (message: Uint8Array) => message[0] === 0 && message[1] === 1;
const isUpdate = (message: Uint8Array) => message[0] === 0 && message[1] === 2;
const PATH = "/api/v1/documents/d/sync?create=text";

/** Updates of 500,000 bytes that no buffers of a kernel hold. */
const UPDATES_BEYOND_BUFFERS = 13;

/** A client that is in sync. */
async function open(gateway: { readonly url: string }, path = PATH): Promise<BareSocket> {
  const client = await openBareSocket(gateway.url, path);
  client.send(0, 0, chunk(EMPTY_VECTOR));
  await client.message(isAsk);
  await client.message(isAnswer);
  return client;
}

/** The value of a figure. */
async function figure({ metrics }: WorldGateway, name: string, labels: Record<string, string> = {}) {
  const found = (await metrics.getMetricsAsJSON()).find((metric) =>
    metric.name === `aetherflow_gateway_sync_${name}`
  );
  const values = (found?.values ?? []) as { value: number; labels: Record<string, string> }[];
  return values.find((value) => Object.entries(labels).every(([key, text]) => value.labels[key] === text))
    ?.value ?? 0;
}

Deno.test("an update reaches the clients of all gateways, and the one that sent it", async () => {
  await using world = openSyncWorld({ gateways: 2 });
  using here = await open(world.gateways[0]!);
  using there = await open(world.gateways[1]!);
  using twin = await open(world.gateways[0]!);
  const { update } = textUpdate("hello");
  here.send(0, 2, chunk(update));
  for (const client of [here, there, twin]) {
    const doc = new Y.Doc();
    Y.applyUpdate(doc, (await client.message(isUpdate)).subarray(3));
    assertEquals(doc.getText("content").toString(), "hello");
    doc.destroy();
  }
  assertEquals(await figure(world.gateways[0]!, "sockets", { protocol: "y-websocket" }), 2);
  assertEquals(world.errors, []);
});

Deno.test("presence reaches the clients of all gateways, and its end does when the socket ends", async () => {
  await using world = openSyncWorld({ gateways: 2 });
  using there = await open(world.gateways[1]!);
  const here = await open(world.gateways[0]!);
  const json = new TextEncoder().encode('{"name":"ada"}');
  here.send(1, chunk(Uint8Array.of(1, 5, 1, ...chunk(json))));
  const shown = await there.message((message) => message[0] === 1 && message.length > 15);
  assertEquals(shown, Uint8Array.of(1, 5 + json.length - 1, 1, 5, 1, json.length, ...json));
  using late = await open(world.gateways[1]!);
  await late.message((message) => message[0] === 1 && message.length > 15);
  assertEquals(await figure(world.gateways[0]!, "presence_entries"), 1);
  here[Symbol.dispose]();
  const gone = await there.message((message) => message[0] === 1 && message[3] === 5 && message[4] === 2);
  assertEquals(gone, Uint8Array.of(1, 8, 1, 5, 2, 4, ...new TextEncoder().encode("null")));
});

Deno.test("a client that does not read is closed with its own code, and nobody waits for it", async () => {
  await using world = openSyncWorld({ sync: { maxQueueBytes: 65_536 } });
  using reader = await open(world);
  using writer = await open(world);
  // A socket of which nothing is read: bytes stop when the kernel's buffers are full.
  const slow = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(world.url).port) });
  const handshake = `GET ${PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
  await slow.write(new TextEncoder().encode(handshake));
  await slow.read(new Uint8Array(1));
  const doc = new Y.Doc();
  let update = new Uint8Array(0);
  doc.on("update", (made: Uint8Array) => update = made as Uint8Array<ArrayBuffer>);
  for (let i = 1; i <= UPDATES_BEYOND_BUFFERS; i++) {
    doc.getText("content").delete(0, doc.getText("content").length);
    doc.getText("content").insert(0, String.fromCharCode(65 + i).repeat(500_000));
    const head = [
      0,
      2,
      (update.length & 0x7f) | 0x80,
      ((update.length >> 7) & 0x7f) | 0x80,
      update.length >> 14,
    ];
    const frame = new Uint8Array(head.length + update.length);
    frame.set(head);
    frame.set(update, head.length);
    writer.socket.send(frame);
    await reader.message(() => reader.messages.filter(isUpdate).length >= i);
  }
  slow.close();
  for (let i = 0; i < 100 && await figure(world.gateways[0]!, "closed_total", { code: "4508" }) === 0; i++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assertEquals(await figure(world.gateways[0]!, "closed_total", { code: "4508" }), 1);
  assertEquals(reader.socket.readyState, WebSocket.OPEN);
  doc.destroy();
});

Deno.test("a peer that answers no ping is dropped", async () => {
  await using world = openSyncWorld({ sync: { pingIntervalMs: 1_000 } });
  using alive = await open(world);
  const dead = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(world.url).port) });
  const handshake = `GET ${PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
  await dead.write(new TextEncoder().encode(handshake));
  const bytes = new Uint8Array(4_096);
  let text = "";
  let hasPing = false;
  for (let count = await dead.read(bytes); count !== null; count = await dead.read(bytes)) {
    if (bytes.subarray(0, count).some((byte) => byte === 0x89)) hasPing = true;
    text += count;
    if (bytes.subarray(0, count).some((byte) => byte === 0x88)) break; // its close frame
  }
  assert(hasPing, text);
  dead.close();
  assertEquals(alive.socket.readyState, WebSocket.OPEN);
});

Deno.test("sockets are as many as may be, and one more is told to come later", async () => {
  await using world = openSyncWorld({ sync: { maxSockets: 1 } });
  using first = await open(world);
  using second = await openBareSocket(world.url, PATH);
  const { code, wasClean } = await second.closed;
  assertEquals([code, wasClean, first.socket.readyState], [1013, true, WebSocket.OPEN]);
});

Deno.test("a drain closes all sockets with 1001 and says why", async () => {
  await using world = openSyncWorld();
  using client = await open(world);
  using other = await openBareSocket(world.url, "/api/v1/sync");
  world.gateways[0]!.edge.drain();
  for (const { code, reason } of await Promise.all([client.closed, other.closed])) {
    assertEquals([code, reason], [1001, "the gateway is draining, come back"]);
  }
});

Deno.test("when the service dies its clients are closed to come back, and may when it is there again", async () => {
  await using world = openSyncWorld();
  using client = await open(world);
  world.isUp = false;
  world.breakLinks();
  assertEquals((await client.closed).code, 4503);
  using early = await openBareSocket(world.url, PATH);
  assertEquals((await early.closed).code, 4503);
  world.isUp = true;
  for (;;) {
    // While it is left alone for a moment after its failure.
    using again = await openBareSocket(world.url, PATH);
    again.send(0, 0, chunk(EMPTY_VECTOR));
    const answered = new Promise<boolean>((resolve) =>
      again.socket.addEventListener("message", ({ data }) => isAnswer(new Uint8Array(data)) && resolve(true))
    );
    const isIn = await Promise.race([answered, again.closed.then(() => false)]);
    if (isIn) break;
  }
  assertEquals(world.sync.figures().links, 1);
});

Deno.test("who shows no token within the protocol's time is closed", async () => {
  await using world = openSyncWorld({ sync: { authTimeoutMs: 100 } });
  using client = await openBareSocket(world.url, "/api/v1/sync");
  assertEquals((await client.closed).code, 4408);
});

Deno.test("paths are ids as they are written, and what is no socket is told so", async () => {
  await using world = openSyncWorld();
  const status = async (path: string) => {
    const response = await fetch(world.url + path);
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await status("/api/v1/documents/d/sync"), 400);
  assertEquals(await status("/api/v1/documents/a/b/sync"), 404);
  assertEquals(await status("/api/v1/documents//sync"), 404);
  const refused = async (path: string) => await openBareSocket(world.url, path).then(() => false, () => true);
  assertEquals(await refused("/api/v1/documents/%ff/sync"), true);
  assertEquals(await refused(`/api/v1/documents/${"x".repeat(257)}/sync`), true);
  assertEquals(await refused("/api/v1/documents/d/sync?create=poem"), true);
});

Deno.test("subprotocols: a token is not repeated where there is something else to choose", async () => {
  await using world = openSyncWorld();
  const chosen = async (protocols: string[]) => {
    const socket = new WebSocket(world.url.replace("http", "ws") + PATH, protocols);
    await new Promise((resolve) => socket.onopen = resolve);
    const { protocol } = socket;
    socket.close();
    await new Promise((resolve) => socket.onclose = resolve);
    return protocol;
  };
  assertEquals(await chosen(["bearer.secret", "yjs"]), "yjs");
  assertEquals(await chosen(["bearer.secret"]), "bearer.secret");
  assertEquals(await chosen([]), "");
});
