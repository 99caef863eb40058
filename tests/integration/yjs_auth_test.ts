/** Who may do what with Yjs providers, once there are users. */
import { assert, assertEquals } from "@std/assert";
import { type Product, startProduct } from "../support/product.ts";
import { on, openHocuspocus, openHocuspocusSocket, openYWebsocket, showing, until } from "../support/yjs.ts";

/** The providers leave timers of their reconnects behind when they are destroyed, and close their sockets without waiting. */
const LEAKY = { sanitizeOps: false, sanitizeResources: false } as const;
/** How soon a revocation must have ended what is open, in ms. */
const REVOKED_WITHIN_MS = 1_000;
const PASSWORD = "correct horse battery staple";

interface World extends AsyncDisposable {
  readonly product: Product;
  /** Administers. */
  readonly ada: string;
  /** May edit `shared`. */
  readonly bob: string;
  /** May read `shared`. */
  readonly eve: string;
  call(method: string, path: string, token: string, body?: unknown): Promise<Response>;
}

async function open(): Promise<World> {
  const product = await startProduct();
  const call = async (method: string, path: string, token: string, body?: unknown) => {
    const response = await fetch(product.url + path, {
      method,
      headers: {
        "content-type": "application/json",
        ...(token === "" ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    assertEquals(response.status, 200, response.ok ? "" : await response.text());
    return response;
  };
  const json = async (response: Promise<Response>) => await (await response).json();
  const user = async (username: string, token: string) => {
    await json(call("POST", "/api/v1/users", token, { username, password: PASSWORD }));
    return (await json(call("POST", "/api/v1/auth/login", "", { username, password: PASSWORD }))).accessToken;
  };
  const ada = await user("ada", "");
  const [bob, eve] = [await user("bob", ada), await user("eve", ada)];
  await json(call("POST", "/api/v1/documents", ada, {
    docId: "shared",
    name: "shared",
    type: "text",
    metadata: { permissions: { editors: ["bob"], viewers: ["eve"] } },
  }));
  return { product, ada, bob, eve, call, [Symbol.asyncDispose]: () => product[Symbol.asyncDispose]() };
}

Deno.test({
  name: "tokens come in the query, as a subprotocol or in band, and without one nobody comes in",
  ...LEAKY,
  async fn() {
    await using world = await open();
    const { url } = world.product;
    using query = openYWebsocket(url, "shared", { params: { token: world.bob } });
    using protocol = openYWebsocket(url, "shared", { protocols: [`bearer.${world.bob}`] });
    const socket = openHocuspocusSocket(url);
    using inBand = openHocuspocus(socket, "shared", { token: world.bob });
    await Promise.all([query.synced(), protocol.synced(), inBand.saved()]);
    query.text.insert(0, "in");
    await showing("in", protocol, inBand);

    for (const params of [{}, { token: "afk_none" }, { token: "a.b.c" }] as Record<string, string>[]) {
      using client = openYWebsocket(url, "shared", { params });
      // A reset may overtake the close frame, since the client was still speaking: it comes again and is told again.
      const isTold = () => client.closes.some(({ code }) => code === 4401);
      await until("the end", (look) => on(client.provider, "closed", look), isTold);
      assertEquals(client.provider.synced, false);
    }
    for (const token of ["", "afk_none", world.bob]) {
      using client = openHocuspocus(socket, "another", { token });
      await new Promise((resolve) => client.provider.on("authenticationFailed", resolve));
    }
    assertEquals(inBand.provider.isAuthenticated, true);
    socket.destroy();
  },
});

Deno.test({
  name: "who may only read is told so when it writes, and its edits reach nobody",
  ...LEAKY,
  async fn() {
    await using world = await open();
    const { url } = world.product;
    using bob = openYWebsocket(url, "shared", { params: { token: world.bob } });
    await bob.synced();
    bob.text.insert(0, "hello");
    bob.text.delete(0, 1);
    using eve = openYWebsocket(url, "shared", { params: { token: world.eve } });
    const socket = openHocuspocusSocket(url);
    using mallory = openHocuspocus(socket, "shared", { token: world.eve });
    await Promise.all([eve.synced(), mallory.saved()]);
    await showing("ello", eve, mallory);
    assertEquals(mallory.provider.authorizedScope, "readonly");

    const denied: string[] = [];
    const output = globalThis.console;
    const { warn } = output;
    output.warn = (text: string) => void denied.push(text);
    try {
      eve.text.insert(0, "E");
      mallory.text.insert(0, "M");
      bob.text.insert(4, "!");
      await showing("Eello!", eve);
      await showing("Mello!", mallory);
    } finally {
      output.warn = warn;
    }
    assertEquals(denied.length, 1, denied.join());
    assert(mallory.provider.hasUnsyncedChanges);
    using other = openYWebsocket(url, "shared", { params: { token: world.bob } });
    await other.synced();
    assertEquals([bob.text.toString(), other.text.toString()], ["ello!", "ello!"]);
    assertEquals([bob.closes, eve.closes], [[], []]);
    socket.destroy();
  },
});

Deno.test({
  name: "whoever is let in to edit later is asked for what was refused",
  ...LEAKY,
  async fn() {
    await using world = await open();
    const { url } = world.product;
    const socket = openHocuspocusSocket(url);
    using eve = openHocuspocus(socket, "shared", { token: world.eve });
    await eve.saved();
    eve.text.insert(0, "later");
    await until(
      "the refusal",
      (look) => on(eve.provider, "message", look),
      () => eve.provider.hasUnsyncedChanges,
    );
    using bob = openYWebsocket(url, "shared", { params: { token: world.bob } });
    await bob.synced();
    await (await world.call("PATCH", "/api/v1/documents/shared", world.ada, {
      metadata: { permissions: { owner: "ada", editors: ["bob", "eve"] } },
    })).body?.cancel();
    await showing("later", bob);
    await eve.saved();
    socket.destroy();
  },
});

Deno.test({
  name: "a revoked session's sockets end within a second, and those of others stay",
  ...LEAKY,
  async fn() {
    await using world = await open();
    const { url } = world.product;
    using bob = openYWebsocket(url, "shared", { params: { token: world.bob } });
    using ada = openYWebsocket(url, "shared", { params: { token: world.ada } });
    const socket = openHocuspocusSocket(url);
    using inBand = openHocuspocus(socket, "shared", { token: world.bob });
    await Promise.all([bob.synced(), ada.synced(), inBand.saved()]);
    const ends: number[] = [];
    socket.on("close", ({ event }: { event: CloseEvent }) => void ends.push(event.code));
    const began = performance.now();
    await (await world.call("POST", "/api/v1/auth/logout", world.bob, {})).body?.cancel();
    await until("the end", (look) => on(bob.provider, "closed", look), () => bob.closes.length > 0);
    await until("the end in band", (look) => on(socket, "close", look), () => ends.length > 0);
    assert(performance.now() - began < REVOKED_WITHIN_MS, `${performance.now() - began} ms`);
    assertEquals([bob.closes[0]!.code, ends[0]], [4401, 4401]);
    ada.text.insert(0, "still here");
    await until("its own edit", (look) => on(ada.doc, "update", look), () => ada.text.length > 0);
    assertEquals(ada.closes, []);
    socket.destroy();
  },
});

Deno.test({
  name: "taking a document from somebody ends what they have open of it",
  ...LEAKY,
  async fn() {
    await using world = await open();
    const { url } = world.product;
    using eve = openYWebsocket(url, "shared", { params: { token: world.eve } });
    await eve.synced();
    await (await world.call("PATCH", "/api/v1/documents/shared", world.ada, {
      metadata: { permissions: { owner: "ada", editors: ["bob"] } },
    })).body?.cancel();
    const isTold = () => eve.closes.some(({ code }) => code === 4403 || code === 4404);
    await until("the end", (look) => on(eve.provider, "closed", look), isTold);
  },
});

Deno.test({
  name: "pages of other origins do not ride on a browser's cookie",
  ...LEAKY,
  async fn() {
    await using world = await open();
    const url = `${world.product.url.replace("http", "ws")}/api/v1/documents/shared/sync`;
    const cookie = `aetherflow-access=${world.bob}`;
    assertEquals(await endOf(url, { cookie, origin: "https://evil.example" }), "refused");
    assertEquals(await endOf(url, { cookie, origin: world.product.url }), "open");
  },
});

/** Whether a handshake with these headers is taken. */
async function endOf(url: string, headers: Record<string, string>): Promise<"open" | "refused"> {
  const socket = new WebSocket(url, { headers });
  return await new Promise((resolve) => {
    socket.onmessage = () => {
      resolve("open");
      socket.close();
    };
    socket.onerror = () => resolve("refused");
    socket.onclose = () => resolve("refused");
  });
}
