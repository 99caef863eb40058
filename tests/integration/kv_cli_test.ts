/** Every `aetherflow kv …` command against the product, as its users type them. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type Outcome, type Product, runProduct, startProduct } from "../support/product.ts";

/** Runs commands against one product. */
function commands(product: Product, env: Record<string, string> = {}) {
  const run = (...args: string[]) =>
    runProduct(["kv", ...args], { env: { AETHERFLOW_ENDPOINT: product.url, ...env } });
  return {
    run,
    /** Its output, when it succeeds without a word of complaint. */
    async ok(...args: string[]): Promise<string> {
      const outcome = await run(...args);
      assertEquals([outcome.code, outcome.stderr], [0, ""], args.join(" "));
      return outcome.stdout;
    },
    async json(...args: string[]) {
      return JSON.parse(await this.ok(...args, "--json"));
    },
  };
}

function refusal({ code, stderr }: Outcome): [number, string] {
  return [code, stderr.trim()];
}

Deno.test("kv: values, history, transactions and times to live", async () => {
  await using product = await startProduct();
  const kv = commands(product);
  await kv.ok("put", "a", "1");
  await kv.ok("put", "a", "2");
  assertEquals(await kv.ok("get", "a", "--revision", "2"), "1");
  assertEquals(await kv.ok("history", "a"), "3\tPUT\t2\n2\tPUT\t1\n");
  const take = JSON.stringify({
    conditions: [{ keyText: "lock", exists: false }],
    then: [{ put: { keyText: "lock", valueText: "me" } }],
    otherwise: [{ get: { keyText: "lock" } }],
  });
  assertEquals((await kv.json("txn", take)).succeeded, true);
  const second = await kv.run("txn", take, "--json");
  assertEquals([second.code, JSON.parse(second.stdout).results[0].entries[0].valueText], [1, "me"]);
  assertEquals((await kv.run("txn", "{")).code, 1);
  await kv.ok("put", "brief", "x", "--ttl", "60");
  assertEquals((await kv.ok("lease", "list")).trim().split("\n").length, 1);
  assertEquals((await kv.run("put", "brief", "x", "--ttl", "soon")).code, 1);
  assertEquals(await product.stop(), 0);
});

Deno.test("kv lease: grant, renew, look, revoke", async () => {
  await using product = await startProduct();
  const kv = commands(product);
  assertEquals(await kv.json("lease", "grant", "60", "--id", "beef"), { id: "beef", ttl: 60 });
  assertMatch((await kv.run("lease", "grant", "60", "--id", "beef")).stderr, /lease already exists/);
  assertMatch(await kv.ok("lease", "keep-alive", "beef", "--once"), /^beef\t60 s\n$/);
  assertMatch(await kv.ok("lease", "ttl", "beef", "--keys"), /^beef\t(59|60) s of 60 s\n$/);
  assertEquals(await kv.ok("lease", "list"), "beef\n");
  await kv.ok("lease", "revoke", "beef");
  assertEquals(refusal(await kv.run("lease", "ttl", "beef")), [3, "aetherflow: there is no lease beef"]);
  assertEquals((await kv.run("lease", "grant", "0")).code, 2);
  assertEquals((await kv.run("lease", "revoke", "xyz")).code, 2);
  assertEquals(await product.stop(), 0);
});

Deno.test("kv auth, user and role: who may do what", async () => {
  await using product = await startProduct();
  const kv = commands(product);
  await kv.ok("user", "add", "root", "r00t");
  await kv.ok("user", "add", "ann", "secret");
  await kv.ok("role", "add", "reader");
  await kv.ok("role", "grant", "reader", "read", "docs/", "--prefix");
  await kv.ok("user", "grant", "ann", "reader");
  await kv.ok("user", "grant", "root", "root");
  assertEquals(await kv.ok("role", "get", "reader"), "READ\tdocs/\tdocs0\n");
  await kv.ok("put", "docs/a", "1");
  await kv.ok("auth", "enable");

  assertEquals((await kv.run("get", "docs/a")).code, 1);
  const ann = commands(product, { AETHERFLOW_USER: "ann", AETHERFLOW_PASSWORD: "secret" });
  assertEquals(await ann.ok("get", "docs/a"), "1");
  assertStringIncludes((await ann.run("put", "docs/a", "2")).stderr, "permission denied");
  assertStringIncludes((await ann.run("user", "list")).stderr, "permission denied");
  assertStringIncludes(
    (await kv.run("get", "docs/a", "--user", "ann:wrong")).stderr,
    "authentication failed",
  );
  assertEquals((await kv.run("get", "docs/a", "--user", "ann")).code, 2);

  const root = commands(product, { AETHERFLOW_USER: "root:r00t" });
  assertEquals(await root.ok("user", "list"), "ann\nroot\n");
  assertEquals(await root.ok("user", "get", "ann"), "reader\n");
  await root.ok("user", "passwd", "ann", "other");
  assertStringIncludes((await ann.run("get", "docs/a")).stderr, "authentication failed");
  await root.ok("role", "revoke", "reader", "docs/", "--prefix");
  await root.ok("user", "revoke", "ann", "reader");
  await root.ok("role", "del", "reader");
  await root.ok("user", "del", "ann");
  assertEquals((await root.json("auth", "status")).enabled, true);
  await root.ok("auth", "disable");
  assertEquals(await kv.ok("auth", "status"), "disabled\n");
  assertEquals(await product.stop(), 0);
});

Deno.test("kv: status, members, compaction, alarms, and a snapshot that restores", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-test-" });
  try {
    await using product = await startProduct();
    const kv = commands(product);
    for (const value of ["1", "2", "3"]) await kv.ok("put", "k", value);
    assertEquals((await kv.json("status")).revision, "4");
    assertEquals((await kv.ok("member")).split("\n").length, 2);
    await kv.ok("compact", "3", "--physical");
    assertStringIncludes((await kv.run("compact", "2")).stderr, "compacted");
    await kv.ok("defrag");
    assertEquals(await kv.ok("alarm", "list"), "");
    assertEquals(await kv.ok("alarm", "disarm"), "");
    const file = `${folder}/backup.db`;
    assertEquals((await kv.json("snapshot", file)).file, file);
    assertEquals((await kv.run("snapshot", `${folder}/none/backup.db`)).code, 1);
    assertEquals(await product.stop(), 0);

    const data = `${folder}/data`;
    const restored = await runProduct(["kv", "restore", file, "--data", data, "--json"]);
    assertEquals([restored.code, restored.stderr], [0, ""]);
    assertEquals(JSON.parse(restored.stdout).revision, 4);
    assertEquals((await runProduct(["kv", "restore", file, "--data", data])).code, 1);
    await using second = await startProduct({ data });
    assertEquals(await commands(second).ok("get", "k"), "3");
    assertEquals(await second.stop(), 0);

    const bytes = await Deno.readFile(file);
    bytes[9_000]! ^= 1;
    await Deno.writeFile(file, bytes);
    const damaged = await runProduct(["kv", "restore", file, "--data", `${folder}/other`]);
    assertEquals(damaged.code, 1);
    assertMatch(damaged.stderr, /hash|checksum|sha256/i);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
