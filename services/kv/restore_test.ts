/** Backups both ways between this store and a real etcd, and what they must not lose. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { createPrng } from "../../storage/testing/fault_fs.ts";
import { MemoryFile } from "../../storage/bolt/testing/memory_file.ts";
import { BINARIES, requireBinary, startEtcd } from "../../tests/support/server.ts";
import { BoltError } from "../../storage/bolt/mod.ts";
import { createManualClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { kvConfigSchema } from "./config.ts";
import { type EngineSeeds, memoryEngine } from "./engine.ts";
import { createKvModule, type KvModule } from "./mod.ts";
import { openSqliteEngine, SQLITE_FILE } from "./stores/sqlite/engine.ts";
import { restoreBackup, RestoreError } from "./restore.ts";
import { hashKeys, writeEtcdFile } from "./stores/etcd_file.ts";
import { openLogStore } from "./stores/log.ts";
import type { KvService } from "./service.ts";
import type { DeleteOp, PutOp } from "./txn.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array) => new TextDecoder().decode(value);
const pause = () => Promise.resolve();
const RESTORE = { random: systemRandom };
const EVERYTHING = { key: bytes("\0"), range: { start: bytes("\0"), end: undefined } };

Deno.test("a backup restored here has every revision, deletion, lease and user of the store", async () => {
  await using folder = await temporaryFolder();
  const before = await openStore(`${folder.path}/before`);
  const { service } = before;
  await writeHistory(service, 11, 400);
  await service.mutate((log) => {
    log.meta("lease/00000000000004d2", leaseValue(60_000));
    log.meta("lease/ffffffffffffffff", leaseValue(1_500));
    log.meta("auth/enabled", Uint8Array.of(1));
    log.meta("auth/revision", new Uint8Array(8).fill(1));
    log.meta("auth/user/root", bytes("\n\u0004root"));
    log.meta("auth/role/root", bytes("\n\u0004root"));
  });
  await before.alarms.activate({ memberId: 5n, kind: 1 });
  const entries = (module: KvModule) => {
    const pinned = module.service.pin();
    pinned.release();
    return [...pinned.entries].sort(([a], [b]) => a < b ? -1 : 1);
  };
  for (const compactAt of [0, 150, 380]) {
    if (compactAt > 0) await service.compact(compactAt, true);
    const backup = await saveBackup(service, `${folder.path}/backup`);
    const directory = `${folder.path}/after${compactAt}`;
    const report = await restoreBackup({ backup, directory, ...RESTORE });
    assertEquals(report.revision, service.revision);
    assertEquals(report.compactRevision, compactAt);
    const after = await openStore(directory);
    assertEquals(after.service.revision, service.revision);
    assertEquals(contentOf(after.service), contentOf(service));
    assertEquals(entries(after), entries(before));
    assert(after.service.identity.clusterId !== service.identity.clusterId);
    assert(after.service.figures().historyBytes <= service.figures().historyBytes);
    await after.close();
  }
  await before.close();
});

for (const index of ["memory", "disk"] as const) {
  Deno.test(`a backup restored for SQLite with the index in ${index} is read, compacted and written as the store was`, async () => {
    await using folder = await temporaryFolder();
    const before = await openStore(`${folder.path}/before`);
    const { service } = before;
    await writeHistory(service, 23, 300);
    await service.mutate((log) => log.meta("lease/00000000000004d2", leaseValue(60_000)));
    for (const compactAt of [0, 120, 280]) {
      if (compactAt > 0) await service.compact(compactAt, true);
      const backup = await saveBackup(service, `${folder.path}/backup`);
      const directory = `${folder.path}/after${compactAt}`;
      const report = await restoreBackup({ backup, directory, ...RESTORE, engine: "sqlite" });
      const after = await openStore(directory, index);
      assertEquals(report.keys, service.figures().keys);
      assertEquals(after.service.revision, service.revision);
      assertEquals(contentOf(after.service), contentOf(service));
      await after.service.put(put(bytes("key/0"), "later"));
      await after.service.compact(after.service.revision, true);
      assertEquals(after.service.figures().keys, Math.max(report.keys, oursAt(after.service, 0).length));
      await after.close();
    }
    await before.close();
  });
}

Deno.test("a backup whose last deletions were compacted away keeps the revision on every engine", async () => {
  await using folder = await temporaryFolder();
  const before = await openStore(`${folder.path}/before`);
  await before.service.put(put(bytes("a"), "1"));
  await before.service.delete(remove(bytes("a")));
  await before.service.compact(3, true);
  const backup = await saveBackup(before.service, `${folder.path}/backup`);
  await before.close();
  for (const engine of ["memory", "sqlite"] as const) {
    for (const index of ["memory", "disk"] as const) {
      const directory = `${folder.path}/${engine}-${index}`;
      await restoreBackup({ backup, directory, ...RESTORE, engine });
      const after = await openStore(directory, engine === "sqlite" ? index : undefined);
      assertEquals([after.service.revision, oursAt(after.service, 3)], [3, []]);
      assertEquals((await after.service.put(put(bytes("a"), "2"))).revision, 4);
      await after.close();
    }
  }
});

Deno.test("a damaged backup is restored, or refused with the format's error, and leaves no folder then", async () => {
  await using folder = await temporaryFolder();
  const store = await openStore(`${folder.path}/store`);
  await writeHistory(store.service, 9, 60);
  await store.service.mutate((log) => log.meta("lease/00000000000004d2", leaseValue(60_000)));
  const backup = await saveBackup(store.service, `${folder.path}/backup`);
  await store.close();
  const whole = (await Deno.readFile(backup)).subarray(0, -32);
  const directory = `${folder.path}/new`;
  let refused = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const random = createPrng(seed);
    const damaged = whole.slice();
    for (let i = 0; i < 3; i++) damaged[Math.floor(random() * damaged.length)] = random() * 256;
    await Deno.writeFile(backup, damaged);
    try {
      await restoreBackup({ backup, directory, ...RESTORE, skipHashCheck: true });
      await Deno.remove(directory, { recursive: true });
    } catch (error) {
      if (!(error instanceof RestoreError && error.cause instanceof BoltError)) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
      refused++;
      await assertRejects(() => Deno.stat(directory), Deno.errors.NotFound);
      await assertRejects(() => Deno.stat(`${directory}.restoring`), Deno.errors.NotFound);
    }
  }
  assert(refused > 20 && refused < 150, `${refused} were refused`);
});

Deno.test("restoreBackup() refuses a folder with something in it, and files without the right hash", async () => {
  await using folder = await temporaryFolder();
  const store = await openStore(`${folder.path}/store`);
  await writeHistory(store.service, 3, 20);
  const backup = await saveBackup(store.service, `${folder.path}/backup`);
  await store.close();
  const directory = `${folder.path}/new`;
  const restore = (options: { skipHashCheck?: boolean; directory?: string } = {}) =>
    restoreBackup({ backup, directory, ...RESTORE, ...options });
  await assertRejects(
    () => restore({ directory: `${folder.path}/store` }),
    RestoreError,
    "not empty",
  );
  const whole = await Deno.readFile(backup);
  const damaged = whole.slice();
  damaged[whole.length - 100]! ^= 1;
  await Deno.writeFile(backup, damaged);
  await assertRejects(() => restore(), RestoreError, "does not have the hash");
  await Deno.writeFile(backup, whole.subarray(0, -32));
  await assertRejects(() => restore(), RestoreError, "--skip-hash-check");
  await assertRejects(() => Deno.stat(directory), Deno.errors.NotFound);
  assertEquals((await restore({ skipHashCheck: true })).revision, 21);
  const left: string[] = [];
  for await (const { name } of Deno.readDir(folder.path)) left.push(name);
  assertEquals(left.sort(), ["backup", "new", "store"]);
});

Deno.test("an etcd's backup is restored here, and one of ours into an etcd", async (t) => {
  if (!await requireBinary(t, BINARIES.etcdctl.name, BINARIES.etcdctl.debianPackage)) return;
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using folder = await temporaryFolder();
  const ctl = (...args: string[]) => etcdctl(etcd.address, args);
  await ctl("lease", "grant", "3600");
  const random = createPrng(5);
  for (let i = 0; i < 300; i++) {
    const key = `key/${Math.floor(random() * 40)}`;
    if (random() < 0.3) await call(etcd.address, "deleterange", { key: btoa(key) });
    else await call(etcd.address, "put", { key: btoa(key), value: btoa("x".repeat(random() * 200)) });
  }
  const leased = await call(etcd.address, "/v3/lease/grant", { TTL: 600, ID: 1234 });
  assertEquals(leased.ID, "1234");
  await call(etcd.address, "put", { key: btoa("leased"), value: btoa("v"), lease: 1234 });
  await ctl("user", "add", "alice:secret");
  await ctl("role", "add", "reader");
  await ctl("role", "grant-permission", "reader", "--prefix=true", "read", "key/");
  await ctl("user", "grant-role", "alice", "reader");
  for (const compactAt of [0, 60, 200]) {
    if (compactAt > 0) await ctl("compaction", "--physical", String(compactAt));
    const saved = `${folder.path}/saved`;
    await ctl("snapshot", "save", saved);
    const directory = `${folder.path}/ours${compactAt}`;
    const report = await restoreBackup({ backup: saved, directory, ...RESTORE });
    const ours = await openStore(directory);
    const { service } = ours;
    for (let revision = Math.max(1, compactAt); revision <= report.revision; revision += 13) {
      const theirs = await call(etcd.address, "range", {
        key: btoa("\0"),
        range_end: btoa("\0"),
        revision,
      });
      assertEquals(oursAt(service, revision), (theirs.kvs ?? []).map(plain), `revision ${revision}`);
    }
    const newest = report.revision;
    for (const revision of [compactAt + 1, compactAt + 7, newest - 50, newest]) {
      const pinned = service.pin();
      await pinned.prepare(pause);
      const hash = await hashKeys(pinned, revision, pause);
      pinned.release();
      const out = JSON.parse(await ctl("endpoint", "hashkv", `--rev=${revision}`, "-w", "json"));
      assertEquals(hash, out[0].HashKV.hash, `hash of revision ${revision} compacted at ${compactAt}`);
    }
    const backup = await saveBackup(service, `${folder.path}/backup`);
    const status = JSON.parse(await etcdctl(undefined, ["snapshot", "status", backup, "-w", "json"]));
    assertEquals(status.revision, report.revision);
    const data = `${folder.path}/etcd${compactAt}`;
    await Deno.mkdir(data);
    await etcdctl(undefined, ["snapshot", "restore", backup, `--data-dir=${data}/etcd`]);
    {
      await using second = await startEtcd(t, { unsafeNoFsync: true, dataDirectory: data });
      assert(second !== undefined);
      const theirs = await call(second.address, "range", { key: btoa("\0"), range_end: btoa("\0") });
      assertEquals(theirs.kvs.map(plain), oursAt(service, report.revision));
      assertEquals(Number(theirs.header.revision), report.revision);
      const lease = await call(second.address, "/v3/lease/timetolive", { ID: 1234, keys: true });
      assertEquals([lease.grantedTTL, lease.keys], ["600", [btoa("leased")]]);
      const users = await etcdctl(second.address, ["user", "get", "alice"]);
      assert(users.includes("Roles: reader"), users);
      const roles = await etcdctl(second.address, ["role", "get", "reader"]);
      assert(roles.includes("[key/, key0)"), roles);
      // It goes on from there.
      const put = await call(second.address, "put", { key: btoa("a"), value: btoa("b") });
      assertEquals(Number(put.header.revision), report.revision + 1);
    }
    await ours.close();
  }
});

// ---- arrangement ----

async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempDir({ prefix: "aetherflow-restore-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Opens the store of a folder: on the log, or on SQLite with the index there. */
function openStore(directory: string, index?: "memory" | "disk"): Promise<KvModule> {
  const openEngine = index === undefined
    ? memoryEngine((replay) => openLogStore({ directory, durability: "none" }, replay))
    : (seeds: EngineSeeds) => {
      const { cacheBytes, pageBytes } = kvConfigSchema.parse({}).sqlite;
      const path = `${directory}/${SQLITE_FILE}`;
      return Promise.resolve(
        openSqliteEngine({ path, index, cacheBytes, pageBytes, durability: "none", intervalMs: 100 }, seeds),
      );
    };
  return createKvModule({
    openEngine,
    config: kvConfigSchema.parse({}),
    random: systemRandom,
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause,
  });
}

async function saveBackup(service: KvService, path: string): Promise<string> {
  const pinned = service.pin();
  await pinned.prepare(pause);
  const file = new MemoryFile();
  const length = await writeEtcdFile(file, pinned);
  pinned.release();
  const hash = createHash("sha256").update(file.bytes).digest();
  await Deno.writeFile(path, file.bytes.subarray(0, length));
  await Deno.writeFile(path, hash, { append: true });
  return path;
}

async function writeHistory(service: KvService, seed: number, writes: number): Promise<void> {
  const random = createPrng(seed);
  for (let i = 0; i < writes; i++) {
    const key = bytes(`key/${Math.floor(random() * 50)}`);
    const kind = random();
    if (kind < 0.7) {
      await service.put(put(key, "v".repeat(random() * 300)));
    } else if (kind < 0.8) {
      const success = [put(key, "t"), put(bytes(`other/${i % 9}`), "t"), remove(bytes(`third/${i % 3}`))];
      await service.txn({ compares: [], success, failure: [] });
    } else {
      const { revision } = await service.delete(remove(key));
      // Every turn makes a revision, so that tests can name them.
      if (revision < i + 2) await service.put(put(key, "again"));
    }
  }
}

function put(key: Uint8Array, value: string): PutOp {
  return {
    kind: "put",
    key,
    value: bytes(value),
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
  };
}

function remove(key: Uint8Array): DeleteOp {
  return { kind: "delete", key, range: "single", prevKv: false };
}

function leaseValue(ttlMs: number): Uint8Array {
  const value = new Uint8Array(9);
  new DataView(value.buffer).setFloat64(1, ttlMs);
  return value;
}

/** Everything a store can be asked: each readable revision. */
function contentOf(service: KvService): unknown[] {
  const content: unknown[] = [];
  for (let revision = Math.max(1, service.compactRevision); revision <= service.revision; revision++) {
    content.push(oursAt(service, revision));
  }
  return content;
}

interface Plain {
  readonly key: string;
  readonly value: string;
  readonly create: string;
  readonly mod: string;
  readonly version: string;
  readonly lease: string;
}

function oursAt(service: KvService, revision: number): Plain[] {
  return service.range({ ...EVERYTHING, revision }).kvs.map((kv) => ({
    key: text(kv.key),
    value: text(kv.value),
    create: String(kv.createRevision),
    mod: String(kv.modRevision),
    version: String(kv.version),
    lease: String(kv.lease),
  }));
}

/** A key-value of etcd's JSON, in the same form. */
function plain(kv: Record<string, string>): Plain {
  return {
    key: atob(kv.key!),
    value: atob(kv.value ?? ""),
    create: kv.create_revision!,
    mod: kv.mod_revision!,
    version: kv.version!,
    lease: kv.lease ?? "0",
  };
}

// deno-lint-ignore no-explicit-any
async function call(address: string, path: string, body: unknown): Promise<any> {
  const url = `http://${address}${path.startsWith("/") ? path : `/v3/kv/${path}`}`;
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  return await response.json();
}

async function etcdctl(address: string | undefined, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("etcdctl", {
    args: address === undefined ? args : [`--endpoints=${address}`, ...args],
    env: { ETCDCTL_API: "3" },
    stdin: "null",
  }).output();
  const output = new TextDecoder().decode(stdout);
  assert(success, `etcdctl ${args.join(" ")}: ${output}${new TextDecoder().decode(stderr)}`);
  return output;
}
