/** What workers keep in the store for themselves, while the store has users of its own. */
import {
  encodePrincipal,
  PRINCIPAL_METADATA,
  SYSTEM,
  SYSTEM_KEYS,
} from "../../services/runtime/principal.ts";
import { assertEquals } from "@std/assert";
import { startProduct } from "../support/product.ts";

Deno.test("Idempotency-Key works while the store has users, none of whom meets the gateway's records", async () => {
  await using product = await startProduct();
  const post = async (path: string, body: unknown, headers: Record<string, string> = {}) => {
    const response = await fetch(product.url + path, { method: "POST", headers, body: JSON.stringify(body) });
    return { status: response.status, headers: response.headers, body: await response.json() };
  };
  const all = { key: btoa("\0"), range_end: btoa("\0") };
  for (
    const [path, body] of [
      ["user/add", { name: "root", password: "root" }],
      ["user/grant", { user: "root", role: "root" }],
      ["user/add", { name: "bob", password: "bob" }],
      ["role/add", { name: "all" }],
      ["role/grant", { name: "all", perm: { permType: "READWRITE", ...all } }],
      ["user/grant", { user: "bob", role: "all" }],
      ["enable", {}],
    ] as const
  ) assertEquals([path, (await post(`/v3/auth/${path}`, body)).status], [path, 200]);
  const tokenOf = async (name: string) => ({
    authorization: (await post("/v3/auth/authenticate", { name, password: name })).body.token as string,
  });
  const [root, bob] = [await tokenOf("root"), await tokenOf("bob")];

  const repeated = { "idempotency-key": '"one"' };
  const first = await post("/api/v1/sessions", { userId: "ann" }, repeated);
  const second = await post("/api/v1/sessions", { userId: "ann" }, repeated);
  assertEquals([first.status, second.status, second.headers.get("idempotency-replayed")], [200, 200, "true"]);
  assertEquals(second.body, first.body);
  const put = { entries: [{ keyText: "a", valueText: "1" }] };
  const kept = await post("/api/v1/kv:batchPut", put, { ...bob, "idempotency-key": '"two"' });
  const again = await post("/api/v1/kv:batchPut", put, { ...bob, "idempotency-key": '"two"' });
  assertEquals([kept.status, again.body], [200, kept.body]);

  const keysOf = async (headers: Record<string, string>) =>
    ((await post("/v3/kv/range", { ...all, keys_only: true }, headers)).body.kvs as { key: string }[])
      .map(({ key }) => atob(key));
  assertEquals(await keysOf(bob), ["a"]);
  const records = (await keysOf(root)).filter((key) => key.startsWith(SYSTEM_KEYS));
  assertEquals(records.length, 2);
  const record = { key: btoa(records[0]!) };
  for (const rpc of ["range", "put", "deleterange"]) {
    assertEquals([rpc, (await post(`/v3/kv/${rpc}`, record, bob)).status], [rpc, 403]);
  }
  // Who says to be a worker is nobody for it.
  const forged = { [PRINCIPAL_METADATA]: encodePrincipal(SYSTEM) };
  const refused = await post("/v3/kv/range", record, forged);
  assertEquals([refused.status, refused.body.kvs], [400, undefined]);
  assertEquals((await post("/v3/kv/range", record, { ...forged, ...bob })).status, 403);
  assertEquals(await product.stop(), 0);
});
