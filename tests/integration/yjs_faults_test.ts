/** Yjs clients while things go wrong: the server dies, clients are away, a client is hostile, ids are strange. */
import { assert, assertEquals } from "@std/assert";
import * as Y from "yjs";
import { startProduct } from "../support/product.ts";
import { on, openHocuspocus, openHocuspocusSocket, openYWebsocket, showing, until } from "../support/yjs.ts";

/** The providers leave timers of their reconnects behind when they are destroyed, and close their sockets without waiting. */
const LEAKY = { sanitizeOps: false, sanitizeResources: false } as const;
const CREATE = { params: { create: "text" } } as const;

Deno.test({
  name: "a server that is killed loses nothing that was shown as saved, and clients come back by themselves",
  ...LEAKY,
  async fn() {
    const data = await Deno.makeTempDir({ prefix: "aetherflow-yjs-" });
    try {
      const first = await startProduct({ data });
      const socket = openHocuspocusSocket(first.url, "?create=text");
      using ada = openHocuspocus(socket, "kept");
      await ada.saved();
      using bob = openYWebsocket(first.url, "kept");
      await bob.synced();
      ada.text.insert(0, "saved");
      await ada.saved();
      await showing("saved", bob);
      const gone = until(
        "the end of the connection",
        (look) => on(bob.provider, "status", look),
        () => !bob.provider.wsconnected,
      );
      first.kill("SIGKILL");
      await first.exited;
      await gone;
      // While nobody is there.
      ada.text.insert(5, " and more");
      bob.text.insert(0, "it was ");
      assert(ada.provider.hasUnsyncedChanges);
      const { port } = new URL(first.url);
      await using second = await startProduct({ data, args: ["--set", `gateway.http.port=${port}`] });
      await showing("it was saved and more", ada, bob);
      await ada.saved();
      using eve = openYWebsocket(second.url, "kept");
      await eve.synced();
      assertEquals(eve.text.toString(), "it was saved and more");
      socket.destroy();
    } finally {
      await Deno.remove(data, { recursive: true });
    }
  },
});

Deno.test({
  name: "edits of clients that were away are merged when they come back",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    using ada = openYWebsocket(product.url, "away", CREATE);
    using bob = openYWebsocket(product.url, "away", CREATE);
    await Promise.all([ada.synced(), bob.synced()]);
    ada.text.insert(0, "abc");
    await showing("abc", bob);
    bob.provider.disconnect();
    bob.text.insert(3, " by bob");
    bob.text.delete(0, 1);
    ada.text.insert(0, "ada: ");
    bob.provider.connect();
    await bob.synced();
    await showing("ada: bc by bob", ada, bob);
  },
});

Deno.test({
  name: "a hostile update closes its sender for good, and the others notice nothing",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    using ada = openYWebsocket(product.url, "calm", CREATE);
    using bob = openYWebsocket(product.url, "calm", CREATE);
    await Promise.all([ada.synced(), bob.synced()]);
    const billions = Uint8Array.of(1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0, 0);
    const cases: Record<string, Uint8Array> = {
      "an update that announces billions of structs": Uint8Array.of(0, 2, billions.length, ...billions),
      "an update that is cut off": Uint8Array.of(0, 2, 4, 1, 1, 1, 0),
      "a message of no type": Uint8Array.of(77, 1, 2, 3),
      "a length beyond the message": Uint8Array.of(0, 2, 0xff, 0xff, 0x7f, 1),
      "nothing": new Uint8Array(0),
      "presence of more clients than there are bytes": Uint8Array.of(1, 3, 0xff, 0xff, 0x7f),
      "a state vector that is none": Uint8Array.of(0, 0, 3, 0xff, 0xff, 0xff),
    };
    for (const [what, message] of Object.entries(cases)) {
      const closed = await closeOf(product.url, "calm", message);
      assertEquals([what, closed.code], [what, 4400]);
    }
    const text = await closeOf(product.url, "calm", "text");
    assertEquals(text.code, 4400);
    const large = await closeOf(product.url, "calm", new Uint8Array(1_048_577));
    assertEquals(large.code, 4413);
    ada.text.insert(0, "calm");
    await showing("calm", bob);
    assertEquals([ada.closes, bob.closes], [[], []]);
  },
});

Deno.test({
  name: "ids of any characters name their own document and no other",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    const ids = [
      "a",
      "a/b",
      "a%2Fb",
      "a:b",
      "*",
      "a*",
      "...",
      "日本語",
      "😀",
      " a",
      "a?b#c",
      "A",
      "%",
      "a/../b",
      "sync",
    ];
    const socket = openHocuspocusSocket(product.url, "?create=text");
    for (const id of ids) {
      using client = openYWebsocket(product.url, id, CREATE);
      await client.synced();
      assertEquals([id, client.text.toString()], [id, ""]);
      client.text.insert(0, `this is ${id}`);
      using other = openHocuspocus(socket, id);
      await showing(`this is ${id}`, other);
    }
    for (const id of ids) {
      using client = openYWebsocket(product.url, id);
      await client.synced();
      assertEquals(client.text.toString(), `this is ${id}`);
    }
    // A path of two dots is another path before it is sent; what is there takes no y-websocket client.
    using dots = openYWebsocket(product.url, "..");
    await until(
      "the end",
      (look) => on(dots.provider, "connection-close", look),
      () => dots.closes.some(({ code }) => code === 4400),
    );
    socket.destroy();
  },
});

Deno.test({
  name: "a document that is not there closes a y-websocket client for good, and denies a Hocuspocus one",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    using client = openYWebsocket(product.url, "nowhere");
    // A reset may overtake the close frame, since the client was still speaking: it comes again and is told again.
    const isTold = () => client.closes.some(({ code }) => code === 4404);
    await until("the end", (look) => on(client.provider, "closed", look), isTold);
    assertEquals(client.provider.shouldConnect, false);
    const socket = openHocuspocusSocket(product.url);
    using other = openHocuspocus(socket, "nowhere");
    await new Promise((resolve) => other.provider.on("authenticationFailed", resolve));
    socket.destroy();
    const answer = await fetch(`${product.url}/api/v1/documents/nowhere/sync`);
    assertEquals(answer.status, 400);
    await answer.body?.cancel();
  },
});

Deno.test({
  name: "sessions of one document on one socket are told apart",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    const socket = openHocuspocusSocket(product.url, "?create=text");
    using left = openHocuspocus(socket, "twice", { sessionAwareness: true });
    using right = openHocuspocus(socket, "twice", { sessionAwareness: true });
    await Promise.all([left.saved(), right.saved()]);
    left.text.insert(0, "left");
    await showing("left", right);
    right.text.insert(4, " right");
    await showing("left right", left);
    await Promise.all([left.saved(), right.saved()]);
    socket.destroy();
  },
});

Deno.test({
  name: "a long document with deletions reaches a client as it is",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    using writer = openYWebsocket(product.url, "long", CREATE);
    await writer.synced();
    // More than one message between workers, in updates of less than a client's message.
    const piece = "0123456789abcdef".repeat(20_000);
    for (let i = 0; i < 9; i++) writer.text.insert(i * 7, piece);
    writer.text.delete(100, 1_000);
    using reader = openYWebsocket(product.url, "long");
    await reader.synced();
    await until(
      "the whole text",
      (look) => on(reader.doc, "update", look),
      () => reader.text.length === writer.text.length,
    );
    assertEquals(Y.encodeStateVector(reader.doc), Y.encodeStateVector(writer.doc));
    assert(reader.text.toString() === writer.text.toString());
  },
});

/** How a socket ends that sends one message. */
async function closeOf(url: string, id: string, message: Uint8Array | string): Promise<CloseEvent> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/api/v1/documents/${id}/sync`);
  return await new Promise((resolve) => {
    socket.onopen = () => socket.send(message as Uint8Array<ArrayBuffer>);
    socket.onclose = resolve;
  });
}
