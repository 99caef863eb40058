/** The product on an existing etcd cluster: the same edges, another engine. */
import { assert, assertEquals } from "@std/assert";
import { startProduct } from "../support/product.ts";
import { BINARIES, requireBinary, startEtcd } from "../support/server.ts";

function onEtcd(address: string): string[] {
  return ["kv.engine=etcd", `kv.etcd.endpoints=["${address}"]`].flatMap((setting) => ["--set", setting]);
}

async function json(response: Response): Promise<Record<string, unknown>> {
  return await response.json() as Record<string, unknown>;
}

Deno.test("on etcd a key is written, read, compared, listed and deleted over HTTP", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using product = await startProduct({ args: onEtcd(etcd.address) });
  const at = `${product.url}/api/v1/kv/greeting`;

  const put = await fetch(at, { method: "PUT", body: "hello", headers: { "if-none-match": "*" } });
  assertEquals(put.status, 200);
  const { modRevision, version } = await json(put);
  assertEquals(version, "1");
  const got = await fetch(at);
  assertEquals([got.status, got.headers.get("etag"), await got.text()], [200, `"${modRevision}"`, "hello"]);

  const again = await fetch(at, { method: "PUT", body: "bye", headers: { "if-none-match": "*" } });
  assertEquals(again.status, 412);
  assertEquals((await json(again)).code, "precondition_failed");
  const next = await fetch(at, {
    method: "PUT",
    body: "hello 2",
    headers: { "if-match": `"${modRevision}"` },
  });
  assertEquals((await json(next)).version, "2");

  for (let i = 0; i < 5; i++) {
    await (await fetch(`${product.url}/api/v1/kv/list/${i}`, { method: "PUT", body: `v${i}` })).body
      ?.cancel();
  }
  const first = await json(await fetch(`${product.url}/api/v1/kv?prefix=list/&pageSize=3`));
  assertEquals([(first.entries as unknown[]).length, first.count], [3, "5"]);
  const second = await json(
    await fetch(`${product.url}/api/v1/kv?prefix=list/&pageSize=3&pageToken=${first.nextPageToken}`),
  );
  assertEquals([(second.entries as unknown[]).length, second.nextPageToken, second.revision], [
    2,
    "",
    first.revision,
  ]);

  const gone = await fetch(at, { method: "DELETE" });
  assertEquals((await json(gone)).deleted, true);
  const missing = await fetch(at);
  assertEquals([missing.status, (await json(missing)).code], [404, "not_found"]);
  assertEquals(await product.stop(), 0);
});

Deno.test("on etcd the JSON paths and etcdctl work through the gateway", async (t) => {
  if (!await requireBinary(t, BINARIES.etcdctl.name, BINARIES.etcdctl.debianPackage)) return;
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using product = await startProduct({ args: onEtcd(etcd.address) });

  const ctl = async (...args: string[]) => {
    const { code, stdout, stderr } = await new Deno.Command("etcdctl", {
      args: [`--endpoints=${product.grpc}`, ...args],
      env: { ETCDCTL_API: "3" },
    }).output();
    const decoder = new TextDecoder();
    return { code, text: decoder.decode(stdout) + decoder.decode(stderr) };
  };
  assertEquals(await ctl("put", "a", "1"), { code: 0, text: "OK\n" });
  assertEquals(await ctl("get", "a"), { code: 0, text: "a\n1\n" });

  const watcher = new Deno.Command("etcdctl", {
    args: [`--endpoints=${product.grpc}`, "watch", "w", "--rev=1"],
    env: { ETCDCTL_API: "3" },
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  assertEquals((await ctl("put", "w", "seen")).code, 0);
  let seen = "";
  const reader = watcher.stdout.pipeThrough(new TextDecoderStream()).getReader();
  while (!seen.includes("seen")) {
    const { value, done } = await reader.read();
    assert(!done, `the watch ended: ${seen}`);
    seen += value;
  }
  assertEquals(seen, "PUT\nw\nseen\n");
  watcher.kill("SIGKILL");
  await reader.cancel();
  await watcher.status;

  const refused = await ctl("put", "--lease=123", "b", "1");
  assertEquals([refused.code, refused.text.includes("requested lease not found")], [1, true]);
  const granted = await ctl("lease", "grant", "60");
  const lease = /lease ([0-9a-f]+) granted with TTL\(60s\)/.exec(granted.text)?.[1];
  assert(lease !== undefined, granted.text);
  assertEquals((await ctl("put", `--lease=${lease}`, "b", "1")).code, 0);
  assert((await ctl("lease", "timetolive", "--keys", lease)).text.includes("attached keys([b])"));
  assertEquals((await ctl("lease", "keep-alive", "--once", lease)).code, 0);

  const ranged = await json(
    await fetch(`${product.url}/v3/kv/range`, { method: "POST", body: JSON.stringify({ key: btoa("a") }) }),
  );
  assertEquals((ranged.kvs as { value: string }[])[0]?.value, btoa("1"));
  const status = await ctl("endpoint", "status", "-w", "json");
  assertEquals(status.code, 0, status.text);
});

Deno.test("on etcd the Redis protocol works, transactions and times to live included", async (t) => {
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using product = await startProduct({ args: onEtcd(etcd.address) });
  const [hostname, port] = product.resp.split(":");
  using connection = await Deno.connect({ hostname: hostname!, port: Number(port) });
  const decoder = new TextDecoder();
  const ask = async (line: string, wanted: RegExp) => {
    await connection.write(new TextEncoder().encode(line.replaceAll("\n", "\r\n") + "\r\n"));
    let got = "";
    const buffer = new Uint8Array(1_024);
    // Every answer wanted is matched whole; a wrong one ends in an error or in the client's limit.
    while (!wanted.test(got)) {
      assert(!got.includes("-ERR") && got.length < 200, `${line}: ${got}`);
      const length = await connection.read(buffer);
      assert(length !== null, got);
      got += decoder.decode(buffer.subarray(0, length)).replaceAll("\r\n", "\n");
    }
  };
  await ask("SET a 1 EX 1000", /^\+OK\n$/);
  await ask("GET a", /^\$1\n1\n$/);
  await ask("TTL a", /^:(999|1000)\n$/);
  await ask("INCR a", /^:2\n$/);
  await ask("TTL a", /^:(999|1000)\n$/);
  await ask("SET a 3 NX", /^\$-1\n$/);
  await ask("MULTI\nINCR a\nINCR b\nEXEC", /^\+OK\n\+QUEUED\n\+QUEUED\n\*2\n:3\n:1\n$/);
  await ask("WATCH a\nMULTI\nINCR a\nEXEC", /^\+OK\n\+OK\n\+QUEUED\n\*1\n:4\n$/);
  await ask("MSET x 1 y 2\nMGET x y z", /^\+OK\n\*3\n\$1\n1\n\$1\n2\n\$-1\n$/);
  await ask("DEL a b x y nothing", /^:4\n$/);
  await ask("EXISTS a", /^:0\n$/);
});
