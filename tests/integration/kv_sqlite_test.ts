/** The product on the SQLite engine: it needs nothing but its folder, and what it acknowledged outlives it. */
import { assert, assertEquals } from "@std/assert";
import { type Product, startProduct } from "../support/product.ts";

const VALUE_BYTES = 20_000;
const KEYS = 40;

function engine(index: "memory" | "disk"): string[] {
  return ["kv.engine=sqlite", `kv.sqlite.index=${index}`, "kv.sqlite.cacheBytes=1048576", "log.level=off"]
    .flatMap((setting) => ["--set", setting]);
}

async function put(product: Product, key: string, value: string): Promise<number> {
  const answer = await fetch(`${product.url}/api/v1/kv/${key}`, { method: "PUT", body: value });
  await answer.body?.cancel();
  return answer.status;
}

async function get(product: Product, key: string): Promise<string> {
  return await (await fetch(`${product.url}/api/v1/kv/${key}`)).text();
}

async function call(product: Product, path: string, body: object): Promise<Record<string, unknown>> {
  const answer = await fetch(`${product.url}${path}`, { method: "POST", body: JSON.stringify(body) });
  const text = await answer.text();
  assertEquals(answer.status, 200, text);
  return JSON.parse(text);
}

Deno.test("the product on SQLite keeps every acknowledged key over SIGKILL, with its index moved between starts", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-sqlite-" });
  const value = (life: number, i: number) => `${life}/${i}`.padEnd(VALUE_BYTES, "x");
  try {
    const lives = ["memory", "disk", "disk", "memory"] as const;
    for (const [life, index] of lives.entries()) {
      await using product = await startProduct({ data, args: engine(index) });
      if (life > 0) {
        for (let i = 0; i < KEYS; i++) assertEquals(await get(product, `k${i}`), value(life - 1, i), `k${i}`);
      }
      const statuses = await Promise.all(
        Array.from({ length: KEYS }, (_, i) => put(product, `k${i}`, value(life, i))),
      );
      assertEquals(new Set(statuses), new Set([200]));
      product.kill("SIGKILL");
      await product.exited;
    }
    assert((await Deno.stat(`${data}/kv/kv.sqlite`)).isFile);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("the product on SQLite compacts, gives space back and goes on, whichever the index", async () => {
  for (const index of ["memory", "disk"] as const) {
    await using product = await startProduct({ args: engine(index) });
    const size = async () => (await Deno.stat(`${product.data}/kv/kv.sqlite`)).size;
    for (let round = 0; round < 4; round++) {
      await Promise.all(
        Array.from({ length: KEYS }, (_, i) => put(product, `k${i}`, `${round}`.padEnd(VALUE_BYTES))),
      );
    }
    const { header } = await call(product, "/v3/kv/range", { key: "aw==" }) as {
      header: { revision: string };
    };
    await call(product, "/v3/kv/compaction", { revision: header.revision, physical: true });
    await call(product, "/v3/maintenance/defragment", {});
    assert(await size() < 2 * KEYS * VALUE_BYTES, `the file has ${await size()} bytes`);
    assertEquals((await get(product, "k7")).trim(), "3");
    assertEquals(await put(product, "after", "x"), 200);
    assertEquals(await product.stop(), 0);
  }
});
