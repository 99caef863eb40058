/** The library's own files are read, and ours are accepted by it: both through etcd's tools. */
import { assert, assertEquals } from "@std/assert";
import { BINARIES, requireBinary, startEtcd } from "../../tests/support/server.ts";
import { createPrng } from "../testing/fault_fs.ts";
import { type BoltEntry, openBolt, writeBolt } from "./mod.ts";
import { MemoryFile } from "./testing/memory_file.ts";

Deno.test("openBolt() reads what a real etcd saved", async (t) => {
  if (!await requireBinary(t, BINARIES.etcdctl.name, BINARIES.etcdctl.debianPackage)) return;
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  const puts = 2_000;
  for (let i = 0; i < puts; i++) {
    const value = btoa(String(i).repeat(i % 97 === 0 ? 2_000 : 10));
    const response = await fetch(`http://${etcd.address}/v3/kv/put`, {
      method: "POST",
      body: JSON.stringify({ key: btoa(`key ${i % 500}`), value }),
    });
    await response.body?.cancel();
  }
  const path = `${etcd.dataDirectory}/saved.db`;
  await run("etcdctl", [`--endpoints=${etcd.address}`, "snapshot", "save", path]);
  const bytes = await Deno.readFile(path);
  const found = await openBolt(new MemoryFile(bytes.subarray(0, -32)));
  assert(found.bucketNames.includes("key") && found.bucketNames.includes("meta"), `${found.bucketNames}`);
  const revisions: number[] = [];
  await found.forEach("key", (key, value) => {
    assertEquals(key.length, 17);
    assert(value.length > 0);
    revisions.push(Number(new DataView(key.buffer, key.byteOffset).getBigUint64(0)));
  });
  assertEquals(revisions, Array.from({ length: puts }, (_, i) => i + 2));
  const status = JSON.parse(await run("etcdctl", ["snapshot", "status", path, "-w", "json"]));
  let entries = 0;
  for (const name of found.bucketNames) await found.forEach(name, () => entries++);
  assertEquals([status.totalKey, status.totalSize], [entries, found.bytes]);
});

Deno.test("writeBolt() writes files that etcd's own check finds no fault with", async (t) => {
  if (!await requireBinary(t, BINARIES.etcdctl.name, BINARIES.etcdctl.debianPackage)) return;
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-bolt-" });
  try {
    for (const [name, counts] of CASES) {
      const path = `${directory}/file.db`;
      const random = createPrng(7);
      const file = new MemoryFile();
      let entries = 0;
      const buckets = counts.map(({ count, bytes }, i) => {
        entries += count;
        return { name: `bucket ${i}`, entries: sized(random, count, bytes) };
      });
      const length = await writeBolt(file, buckets);
      await Deno.writeFile(path, file.bytes);
      const status = JSON.parse(await run("etcdctl", ["snapshot", "status", path, "-w", "json"]));
      assertEquals([status.totalKey, status.totalSize], [entries, length], name);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

const CASES: [string, { count: number; bytes: number }[]][] = [
  ["no bucket", []],
  ["empty buckets", [{ count: 0, bytes: 0 }, { count: 0, bytes: 0 }]],
  ["one entry", [{ count: 1, bytes: 10 }]],
  ["one huge entry", [{ count: 1, bytes: 1_500_000 }]],
  ["a few huge entries", [{ count: 5, bytes: 300_000 }, { count: 3, bytes: 5_000 }]],
  ["two levels", [{ count: 500, bytes: 100 }, { count: 0, bytes: 0 }, { count: 41, bytes: 100 }]],
  ["three levels", [{ count: 40_000, bytes: 60 }]],
  ["mixed sizes", [{ count: 3_000, bytes: -9_000 }]],
];

/** Entries with values of `bytes` bytes, or of up to that many when negative. */
function sized(random: () => number, count: number, bytes: number): BoltEntry[] {
  return Array.from({ length: count }, (_, i) => {
    const key = new Uint8Array(17);
    new DataView(key.buffer).setUint32(4, i);
    return { key, value: new Uint8Array(bytes < 0 ? random() ** 3 * -bytes : bytes).fill(i) };
  });
}

async function run(command: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, env: { ETCDCTL_API: "3" } })
    .output();
  const text = new TextDecoder().decode(stdout);
  assert(success, text + new TextDecoder().decode(stderr));
  return text;
}
