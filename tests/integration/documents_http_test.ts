/** Documents over plain HTTP: what entity tags and conditions mean for them. */
import { assertEquals } from "@std/assert";
import { startProduct } from "../support/product.ts";

Deno.test("a document's version is its entity tag: reads are spared by it, writes made sure of", async () => {
  await using product = await startProduct();
  const url = `${product.url}/api/v1/documents/a%2F..%2Fb`;
  const call = async (method: string, headers: Record<string, string>, body?: unknown) => {
    const response = await fetch(url, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const code = response.status >= 400 ? JSON.parse(text).code : "";
    return [response.status, response.headers.get("etag"), code];
  };
  const made = await fetch(`${product.url}/api/v1/documents`, {
    method: "POST",
    body: JSON.stringify({ docId: "a/../b", type: "text" }),
  });
  assertEquals((await made.json()).document.id, "a/../b");
  assertEquals(await call("GET", {}), [200, '"1"', ""]);
  assertEquals(await call("GET", { "if-none-match": '"1"' }), [304, '"1"', ""]);
  assertEquals(await call("PATCH", { "if-match": '"1"' }, { name: "one" }), [200, '"2"', ""]);
  assertEquals(await call("PATCH", { "if-match": '"1"' }, { name: "two" }), [
    412,
    null,
    "precondition_failed",
  ]);
  assertEquals(await call("GET", { "if-none-match": '"1"' }), [200, '"2"', ""]);
  // Archived is none of the condition.
  assertEquals(await call("PATCH", {}, { state: "archived" }), [200, '"3"', ""]);
  const content = new TextEncoder().encode("x").toBase64();
  assertEquals(await call("PATCH", { "if-match": '"3"' }, { content }), [409, null, "failed_precondition"]);
  assertEquals(await product.stop(), 0);
});
