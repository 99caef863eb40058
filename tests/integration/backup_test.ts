/** Backups of the whole product: made while it runs, restored after it was killed, read by etcd's tools. */
import { assert, assertEquals } from "@std/assert";
import { restoreBackup } from "../../services/kv/restore.ts";
import { systemRandom } from "../../services/runtime/random.ts";
import { type Product, startProduct } from "../support/product.ts";
import { BINARIES, requireBinary } from "../support/server.ts";

for (const engine of ["memory", "sqlite"] as const) {
  Deno.test(`a backup of the product on ${engine} is restored after SIGKILL with content, revisions, leases and users`, async () => {
    const scratch = await Deno.makeTempDir({ prefix: "aetherflow-backup-" });
    try {
      const args = ["--set", `kv.engine=${engine}`];
      const backup = `${scratch}/backup.db`;
      const data = `${scratch}/restored`;
      let before: unknown;
      {
        await using product = await startProduct({ args });
        await fill(product);
        await saveBackup(product, backup);
        before = await contentOf(product);
        await call(product, "/v3/kv/put", { key: btoa("after the backup"), value: btoa("1") });
        product.kill("SIGKILL");
        await product.exited;
      }
      const report = await restoreBackup({ backup, directory: `${data}/kv`, engine, random: systemRandom });
      await using product = await startProduct({ args, data });
      assertEquals(await contentOf(product), before);
      const put = await call(product, "/v3/kv/put", { key: btoa("next"), value: btoa("1") });
      assertEquals(Number(put.header.revision), report.revision + 1);
      await call(product, "/v3/auth/enable", {});
      const { token } = await call(product, "/v3/auth/authenticate", { name: "root", password: "secret" });
      assert(typeof token === "string" && token.length > 0);
      assertEquals(await product.stop(), 0);
    } finally {
      await Deno.remove(scratch, { recursive: true });
    }
  });
}

Deno.test("etcdctl looks after the product as after a one-member cluster", async (t) => {
  if (!await requireBinary(t, BINARIES.etcdctl.name, BINARIES.etcdctl.debianPackage)) return;
  const scratch = await Deno.makeTempDir({ prefix: "aetherflow-etcdctl-" });
  try {
    await using product = await startProduct();
    await fill(product);
    const etcdctl = async (...args: string[]) => {
      const { stdout, stderr } = await new Deno.Command("etcdctl", {
        args: [`--endpoints=${product.grpc}`, ...args],
        env: { ETCDCTL_API: "3" },
      }).output();
      return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    };
    const [status] = JSON.parse(await etcdctl("endpoint", "status", "-w", "json"));
    const { members: [member] } = JSON.parse(await etcdctl("member", "list", "-w", "json"));
    assertEquals(status.Status.leader, member.ID);
    assertEquals(member.clientURLs, [`http://${product.grpc}`]);
    const backup = `${scratch}/backup.db`;
    await etcdctl("snapshot", "save", backup);
    const saved = JSON.parse(await etcdctl("snapshot", "status", backup, "-w", "json"));
    assertEquals(saved.revision, status.Status.header.revision);
    assert((await etcdctl("defrag")).includes("Finished defragmenting"));
    assert((await etcdctl("endpoint", "hashkv")).startsWith(`${product.grpc}, `));
    assertEquals(await etcdctl("alarm", "list"), "");
    await call(product, "/v3/maintenance/alarm", { action: "ACTIVATE", memberID: "7", alarm: "NOSPACE" });
    assertEquals(await etcdctl("alarm", "list"), "memberID:7 alarm:NOSPACE \n");
    assert((await etcdctl("put", "a", "1")).includes("etcdserver: mvcc: database space exceeded"));
    assertEquals(await etcdctl("alarm", "disarm"), "memberID:7 alarm:NOSPACE \n");
    assertEquals(await etcdctl("put", "a", "1"), "OK\n");
    const id = member.ID.toString(16);
    assert((await etcdctl("member", "remove", "1")).includes("etcdserver: member not found"), id);
    assert((await etcdctl("move-leader", "1")).includes("etcdserver: bad leader transferee"));
    assertEquals(await product.stop(), 0);
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
});

async function fill(product: Product): Promise<void> {
  for (let i = 0; i < 120; i++) {
    await call(product, "/v3/kv/put", { key: btoa(`key/${i % 40}`), value: btoa("v".repeat(i * 50)) });
  }
  await call(product, "/v3/kv/deleterange", { key: btoa("key/3") });
  await call(product, "/v3/lease/grant", { ID: "77", TTL: "500" });
  await call(product, "/v3/kv/put", { key: btoa("leased"), value: btoa("v"), lease: "77" });
  await call(product, "/v3/auth/user/add", { name: "root", password: "secret" });
  await call(product, "/v3/auth/role/add", { name: "root" });
  await call(product, "/v3/auth/user/grant", { user: "root", role: "root" });
}

/** What a client can ask of the store, but who it is and how long leases still have. */
async function contentOf(product: Product): Promise<unknown> {
  const everything = { key: btoa("\0"), range_end: btoa("\0") };
  const content: unknown[] = [];
  for (const revision of [20, 60, 100, 122]) {
    content.push((await call(product, "/v3/kv/range", { ...everything, revision: String(revision) })).kvs);
  }
  const newest = await call(product, "/v3/kv/range", everything);
  const { keys, grantedTTL } = await call(product, "/v3/lease/timetolive", { ID: "77", keys: true });
  const { users } = await call(product, "/v3/auth/user/list", {});
  const { hash } = await call(product, "/v3/maintenance/hashkv", {});
  return [content, newest.kvs, newest.header.revision, keys, grantedTTL, users, hash];
}

async function saveBackup(product: Product, path: string): Promise<void> {
  const response = await fetch(`${product.url}/v3/maintenance/snapshot`, { method: "POST", body: "{}" });
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  for (const line of (await response.text()).split("\n")) {
    if (line === "") continue;
    const bytes = Uint8Array.fromBase64(JSON.parse(line).result.blob ?? "");
    for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
  }
}

// deno-lint-ignore no-explicit-any
async function call(product: Product, path: string, body: unknown): Promise<any> {
  const response = await fetch(`${product.url}${path}`, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  assert(response.ok, `${path}: ${JSON.stringify(answer)}`);
  return answer;
}
