/** Unmodified Yjs clients against the product: y-websocket and Hocuspocus's provider, each as applications use it. */
import { assertEquals } from "@std/assert";
import { removeAwarenessStates } from "y-protocols/awareness";
import { type Product, startProduct } from "../support/product.ts";
import {
  on,
  openHocuspocus,
  openHocuspocusSocket,
  openYWebsocket,
  showing,
  until,
  type YClient,
} from "../support/yjs.ts";

/** The providers leave timers of their reconnects behind when they are destroyed, and close their sockets without waiting. */
const LEAKY = { sanitizeOps: false, sanitizeResources: false } as const;

async function create(product: Product, id: string, type = "text"): Promise<void> {
  const response = await fetch(`${product.url}/api/v1/documents`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ docId: id, name: id, type }),
  });
  assertEquals(response.status, 200, await response.text());
}

Deno.test({
  name: "two y-websocket clients edit one document, and a third one that comes later has it all",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    await create(product, "doc-1");
    using ada = openYWebsocket(product.url, "doc-1");
    using bob = openYWebsocket(product.url, "doc-1");
    await Promise.all([ada.synced(), bob.synced()]);
    ada.text.insert(0, "Hello");
    await showing("Hello", bob);
    bob.text.insert(5, ", world");
    await showing("Hello, world", ada, bob);
    using eve = openYWebsocket(product.url, "doc-1");
    await eve.synced();
    await showing("Hello, world", eve);
    assertEquals([ada.closes, bob.closes, eve.closes], [[], [], []]);
  },
});

Deno.test({
  name: "Hocuspocus clients share a socket, meet y-websocket clients, and say saved",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    const socket = openHocuspocusSocket(product.url, "?create=text");
    using one = openHocuspocus(socket, "h/one");
    using two = openHocuspocus(socket, "h/two");
    await Promise.all([one.saved(), two.saved()]);
    using other = openYWebsocket(product.url, "h/one");
    await other.synced();
    one.text.insert(0, "first");
    two.text.insert(0, "second");
    await Promise.all([one.saved(), two.saved()]);
    await showing("first", other);
    other.text.insert(5, "!");
    await showing("first!", one);
    await showing("second", two);
    assertEquals(one.provider.authorizedScope, "read-write");
    socket.destroy();
  },
});

Deno.test({
  name: "clients see who is there, and that somebody has left",
  ...LEAKY,
  async fn() {
    await using product = await startProduct();
    await create(product, "who");
    using ada = openYWebsocket(product.url, "who");
    await ada.synced();
    ada.provider.awareness.setLocalState({ user: { name: "ada" } });
    const bob = openYWebsocket(product.url, "who");
    bob.provider.awareness.setLocalState({ user: { name: "bob" } });
    const sees = (who: YClient, name: string) =>
      [...who.provider.awareness.getStates().values()].some((state) => state.user?.name === name);
    const seeing = (who: YClient, name: string, does = true) =>
      until(
        `presence of ${name}`,
        (look) => on(who.provider.awareness, "change", look),
        () => sees(who, name) === does,
      );
    await seeing(bob, "ada");
    await seeing(ada, "bob");
    const socket = openHocuspocusSocket(product.url);
    using eve = openHocuspocus(socket, "who");
    eve.provider.setAwarenessField("user", { name: "eve" });
    await eve.synced();
    await seeing(ada, "eve");
    bob[Symbol.dispose]();
    await seeing(ada, "bob", false);
    removeAwarenessStates(eve.provider.awareness!, [eve.doc.clientID], "test");
    await seeing(ada, "eve", false);
    socket.destroy();
  },
});
