/** Documents as channels of the hub: events, operations, rights, in the whole product. */
import { assertEquals } from "@std/assert";
import { HubClient, type Received } from "../support/hub_client.ts";
import { type Product, startProduct } from "../support/product.ts";

const PASSWORD = "correct horse battery staple";

async function ask(
  product: Product,
  method: string,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Received> {
  const response = await fetch(product.url + path, { method, headers, body: JSON.stringify(body) });
  assertEquals(response.status, 200, `${method} ${path}`);
  return await response.json();
}

const text = (doc: string, insert: string) => ({
  doc_id: doc,
  type: "text",
  client_id: "test",
  text: { edits: [{ index: 0, insert }] },
});

Deno.test("a document is a channel: operations by socket, their events to all, and back to where one was after a restart", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  try {
    let position: { offset: number; epoch: string };
    {
      await using product = await startProduct({ data });
      await ask(product, "POST", "/api/v1/documents", { docId: "a:b/../*", type: "text", name: "notes" });
      await ask(product, "POST", "/api/v1/documents", { docId: "a", type: "text", name: "other" });
      using writer = await HubClient.connect(product);
      using reader = await HubClient.connect(product);
      using other = await HubClient.connect(product);
      const begun = (await reader.ask("subscribe", { channel: "doc:a:b/../*" })).data;
      await other.ask("subscribe", { channel: "doc:a" });
      const applied = (await writer.ask("operation", text("a:b/../*", "one"))).data;
      assertEquals([applied.success, applied.operation.status], [true, "applied"]);
      const event = (await reader.next("notify")).data;
      assertEquals(
        [event.event, event.offset, event.data.operation.id],
        ["operation_applied", begun.offset + 1, applied.operation.id],
      );
      assertEquals((await writer.ask("operation", { type: "text" }, "error")).code, "invalid_argument");
      assertEquals((await writer.ask("operation", text("absent", "x"), "error")).code, "not_found");
      assertEquals((await writer.ask("subscribe", { channel: "doc:absent" }, "error")).code, "not_found");
      await other.ask("ping", undefined, "pong");
      assertEquals(other.received.filter(({ type }) => type === "notify"), []);
      position = { offset: event.offset, epoch: event.epoch };
      await writer.ask("operation", text("a:b/../*", "two"));
      assertEquals(await product.stop(), 0);
    }
    await using product = await startProduct({ data });
    using reader = await HubClient.connect(product);
    const back = (await reader.ask("subscribe", { channel: "doc:a:b/../*", ...position })).data;
    assertEquals(back.recovered, true);
    const missed = (await reader.next("notify")).data;
    assertEquals([missed.offset, missed.event], [position.offset + 1, "operation_applied"]);
    const lost = (await reader.ask("subscribe", { channel: "doc:a:b/../*", ...position, epoch: "x" })).data;
    assertEquals([lost.recovered, lost.reload], [false, true]);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("who loses the right to read a document hears no more of it, and who never had it hears nothing", async () => {
  await using product = await startProduct();
  await ask(product, "POST", "/api/v1/users", { username: "ada", password: PASSWORD });
  const bearer = async (username: string) => {
    const { accessToken } = await ask(product, "POST", "/api/v1/auth/login", {
      username,
      password: PASSWORD,
    });
    return { authorization: `Bearer ${accessToken}` };
  };
  const root = await bearer("ada");
  for (const username of ["bob", "eve"]) {
    await ask(product, "POST", "/api/v1/users", { username, password: PASSWORD }, root);
  }
  const [bob, eve] = [await bearer("bob"), await bearer("eve")];
  await ask(product, "POST", "/api/v1/documents", { docId: "d", type: "text", name: "d" }, root);
  const share = (viewers: string[]) =>
    ask(
      product,
      "PATCH",
      "/api/v1/documents/d",
      { metadata: { permissions: { owner: "ada", viewers } } },
      root,
    );
  await share(["bob"]);
  using writer = await HubClient.connect(product, root);
  using viewer = await HubClient.connect(product, bob);
  using stranger = await HubClient.connect(product, eve);
  await viewer.ask("subscribe", { channel: "doc:d" });
  assertEquals((await stranger.ask("subscribe", { channel: "doc:d" }, "error")).code, "not_found");
  assertEquals((await stranger.ask("presence", { channel: "doc:d" }, "error")).code, "not_found");
  assertEquals((await viewer.ask("operation", text("d", "x"), "error")).code, "permission_denied");
  await writer.ask("operation", text("d", "one"));
  assertEquals((await viewer.next("notify")).data.event, "operation_applied");
  await share([]);
  const gone = (await viewer.next("unsubscribe")).data;
  assertEquals([gone.channel, gone.code], ["doc:d", "not_found"]);
  await writer.ask("operation", text("d", "two"));
  await viewer.ask("ping", undefined, "pong");
  assertEquals(
    viewer.received.filter(({ type }) => type === "notify").map(({ data }) => data.event),
    ["operation_applied"],
  );
});
