/** `aetherflow config` and `aetherflow cluster`, as their users run them. */
import { assertEquals, assertMatch } from "@std/assert";
import { runProduct } from "../tests/support/product.ts";

Deno.test("config check says what start would refuse, files included, and takes what start takes", async () => {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-config-" });
  const run = (...args: string[]) => runProduct(["config", ...args], { cwd: folder });
  assertEquals(await run("check"), { code: 0, stdout: "the configuration is good\n", stderr: "" });
  const wrong = await run("check", "--set", "kv.maxKeyBytes=-1");
  assertEquals([wrong.code, wrong.stdout], [2, ""]);
  assertMatch(wrong.stderr, /^aetherflow: config: kv\.maxKeyBytes is -1, expected 1\.\./);

  const { stdout: secret } = await runProduct(["cluster", "secret"], { cwd: folder });
  assertEquals(Uint8Array.fromBase64(secret.trim()).length, 32);
  await Deno.writeTextFile(`${folder}/secret`, secret);
  const named = (name: string) => ["check", "--set", `cluster.secretFile=${name}`];
  assertEquals((await run(...named("secret"))).code, 0);
  assertMatch((await run(...named("other"))).stderr, /cannot read other \(cluster\.secretFile\)/);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("config show prints what start would use, without secrets", async () => {
  const args = ["--json", "--set", "kv.etcd.password=hunter2", "--set", "cluster.secretFile=s"];
  const { code, stdout } = await runProduct(["config", "show", ...args]);
  const { kv, cluster } = JSON.parse(stdout);
  assertEquals([code, kv.etcd.password, cluster.secretFile], [0, "[redacted]", "s"]);
});
