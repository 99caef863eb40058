/** Users that move between etcd and this store in a backup, and their passwords. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { MemoryFile } from "../../../storage/bolt/testing/memory_file.ts";
import { BINARIES, requireBinary, startEtcd } from "../../../tests/support/server.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { KvError } from "../errors.ts";
import { createKvModule, type KvModule } from "../mod.ts";
import { createPasswordHasher } from "./passwords.ts";
import { restoreBackup } from "../restore.ts";
import { writeEtcdFile } from "../stores/etcd_file.ts";
import { openLogStore } from "../stores/log.ts";
import { permission } from "../testing/auth.ts";

const pause = () => Promise.resolve();

Deno.test("users of an etcd log in here after a restore, and those made here with bcrypt there", async (t) => {
  if (!await requireBinary(t, BINARIES.etcdctl.name, BINARIES.etcdctl.debianPackage)) return;
  await using etcd = await startEtcd(t, { unsafeNoFsync: true });
  if (etcd === undefined) return;
  await using folder = await temporaryFolder();
  const ctl = (...args: string[]) => etcdctl(etcd.address, args);
  await ctl("user", "add", "root:päss");
  await ctl("user", "grant-role", "root", "root");
  await ctl("user", "add", "ann:apw");
  await ctl("role", "add", "r");
  await ctl("role", "grant-permission", "r", "--prefix=true", "readwrite", "k/");
  await ctl("user", "grant-role", "ann", "r");
  await ctl("auth", "enable");
  await ctl("--user=root:päss", "snapshot", "save", `${folder.path}/saved`);

  const directory = `${folder.path}/ours`;
  await restoreBackup({ backup: `${folder.path}/saved`, directory, random: systemRandom });
  const ours = await open(directory);
  try {
    assertEquals([ours.auth.isEnabled, ours.auth.userNames()], [true, ["ann", "root"]]);
    assertEquals((await ours.backend.login("ann", "apw")).user, "ann");
    assertEquals((await ours.backend.login("root", "päss")).user, "root");
    const wrong = await assertRejects(() => ours.backend.login("ann", "päss"), KvError);
    assertEquals(wrong.kind, "authFailed");

    const hash = await createPasswordHasher({ random: systemRandom, pause, newHashes: "bcrypt" }).hash(
      "bob's",
    );
    await ours.service.mutate((log) => ours.auth.addUser(log, "bob", hash));
    await ours.service.mutate((log) => ours.auth.grantRole(log, "bob", "r"));
    await ours.service.mutate((log) => ours.auth.grantPermission(log, "r", permission("read x")));
    await saveBackup(ours, `${folder.path}/backup`);
  } finally {
    await ours.close();
  }

  const data = `${folder.path}/etcd`;
  await Deno.mkdir(data);
  await etcdctl(undefined, ["snapshot", "restore", `${folder.path}/backup`, `--data-dir=${data}/etcd`]);
  await using second = await startEtcd(t, { unsafeNoFsync: true, dataDirectory: data });
  assert(second !== undefined);
  await etcdctl(second.address, ["--user=ann:apw", "put", "k/1", "v"]);
  assertEquals(await etcdctl(second.address, ["--user=bob:bob's", "get", "k/1"]), "k/1\nv\n");
  assertEquals(await etcdctl(second.address, ["--user=bob:bob's", "get", "x"]), "");
  assertEquals(await etcdctl(second.address, ["--user=root:päss", "user", "list"]), "ann\nbob\nroot\n");
});

async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempDir({ prefix: "aetherflow-users-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

function open(directory: string): Promise<KvModule> {
  return createKvModule({
    openStore: (replay) => openLogStore({ directory, durability: "none" }, replay),
    config: kvConfigSchema.parse({}),
    random: systemRandom,
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause,
  });
}

async function saveBackup({ service }: KvModule, path: string): Promise<void> {
  const pinned = service.pin();
  await pinned.prepare(pause);
  const file = new MemoryFile();
  const length = await writeEtcdFile(file, pinned);
  pinned.release();
  await Deno.writeFile(path, file.bytes.subarray(0, length));
  await Deno.writeFile(path, createHash("sha256").update(file.bytes).digest(), { append: true });
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
