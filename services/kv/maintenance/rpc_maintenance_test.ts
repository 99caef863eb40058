import {
  AlarmRequest_AlarmAction,
  AlarmType,
  Cluster,
  DowngradeRequest_DowngradeAction,
  KV,
  Maintenance,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { createHash } from "node:crypto";
import { openBolt } from "../../../storage/bolt/mod.ts";
import { MemoryFile } from "../../../storage/bolt/testing/memory_file.ts";
import { createMemoryChannelPair } from "../../../transport/channels/memory.ts";
import { createChannelTransport, createRpcServer } from "../../../transport/rpc/mod.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { kvConfigSchema } from "../config.ts";
import { type BackupFile, MemoryBackupFile, READERS_MAX } from "./maintenance.ts";
import { createKvModule } from "../mod.ts";
import { type Disk, ManualStore, newDisk } from "../testing/manual_store.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** The services behind RPC on a memory channel. `files` counts the backups' files that are open. */
async function open(config: Record<string, unknown> = {}, disk: Disk = newDisk()) {
  const files = { open: 0, begun: 0, hold: undefined as Promise<void> | undefined };
  const pauses = { run: () => Promise.resolve() };
  const { service, handlers, close } = await createKvModule({
    openStore: (replay) => {
      const store = new ManualStore(disk, replay);
      store.isAutomatic = true;
      return Promise.resolve(store);
    },
    openBackupFile: () => {
      files.open++;
      return Promise.resolve(counted(files));
    },
    config: kvConfigSchema.parse(config),
    random: createSeededRandom(1),
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause: () => pauses.run(),
  });
  const [near, far] = createMemoryChannelPair();
  const server = createRpcServer({
    onError: (method, error) => {
      throw new Error(`${method} failed`, { cause: error });
    },
  });
  server.service(KV, handlers.kv).service(Maintenance, handlers.maintenance).service(
    Cluster,
    handlers.cluster,
  );
  server.accept(far);
  const transport = createChannelTransport({ channel: () => near });
  return {
    files,
    pauses,
    service,
    memberId: service.identity.memberId,
    kv: createClient(KV, transport),
    maintenance: createClient(Maintenance, transport),
    cluster: createClient(Cluster, transport),
    async [Symbol.asyncDispose]() {
      await close();
      near.close(0, "end of test");
      await server.drain();
      assertEquals(files.open, 0);
    },
  };
}

function counted(files: { open: number; begun: number; hold: Promise<void> | undefined }): BackupFile {
  const file = new MemoryBackupFile();
  return {
    async write(at, part) {
      files.begun++;
      await files.hold;
      await file.write(at, part);
    },
    read: (at, into) => file.read(at, into),
    remove() {
      files.open--;
      return file.remove();
    },
  };
}

async function refusal(action: () => Promise<unknown>): Promise<[Code, string]> {
  try {
    await action();
  } catch (error) {
    assertInstanceOf(error, ConnectError);
    return [error.code, error.rawMessage];
  }
  throw new Error("expected a refusal");
}

Deno.test("Maintenance.Snapshot sends the database in pieces and its hash last, and leaves no file", async () => {
  await using bench = await open();
  for (let i = 0; i < 40; i++) {
    await bench.kv.put({ key: bytes(`key/${i % 30}`), value: new Uint8Array(20_000).fill(i) });
  }
  const pieces: Uint8Array[] = [];
  const remaining: bigint[] = [];
  for await (const { blob, remainingBytes, version } of bench.maintenance.snapshot({})) {
    pieces.push(blob);
    remaining.push(remainingBytes);
    assertEquals(version, "3.5.21");
  }
  const hash = pieces.pop()!;
  const content = new Uint8Array(await new Blob(pieces as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  assertEquals([...hash], [...createHash("sha256").update(content).digest()]);
  assertEquals(remaining.at(-1), 0n);
  assertEquals(remaining[0], BigInt(content.length - pieces[0]!.length));
  const file = await openBolt(new MemoryFile(content));
  assertEquals(file.bytes, content.length);
  let rows = 0;
  await file.forEach("key", () => rows++);
  assertEquals(rows, 40);
});

Deno.test("Maintenance.Snapshot is of one revision, whatever is written and compacted meanwhile", async () => {
  await using bench = await open();
  const { kv, files } = bench;
  const value = new Uint8Array(100);
  for (let i = 0; i < 60; i++) await kv.put({ key: bytes(`key/${i}`), value });
  const { promise, resolve } = Promise.withResolvers<void>();
  files.hold = promise;
  const reader = Array.fromAsync(bench.maintenance.snapshot({}), ({ blob }) => blob);
  while (files.begun === 0) await bench.maintenance.status({});
  await kv.deleteRange({ key: bytes("key/"), rangeEnd: bytes("key0") });
  const { header } = await kv.put({ key: bytes("last"), value });
  await kv.compact({ revision: header!.revision });
  resolve();
  const pieces = await reader as Uint8Array<ArrayBuffer>[];
  pieces.pop();
  const file = await openBolt(new MemoryFile(new Uint8Array(await new Blob(pieces).arrayBuffer())));
  const revisions: number[] = [];
  await file.forEach("key", (key) => revisions.push(new DataView(key.buffer, key.byteOffset).getUint32(4)));
  assertEquals(revisions, Array.from({ length: 60 }, (_, i) => i + 2));
  // What the backup held goes without a further write.
  assertEquals(bench.service.figures().historyBytes, 0);
});

Deno.test("a backup whose client left lets go of its file, and too many at a time are refused", async () => {
  await using bench = await open();
  const { promise, resolve } = Promise.withResolvers<void>();
  bench.files.hold = promise;
  const aborts = Array.from({ length: READERS_MAX }, () => new AbortController());
  const readers = aborts.map(async ({ signal }) => {
    for await (const _piece of bench.maintenance.snapshot({}, { signal })) { /* read on */ }
  });
  const ended = readers.map((reader) => refusal(() => reader));
  while (bench.files.open < READERS_MAX) await bench.maintenance.status({});
  assertEquals(await refusal(() => bench.maintenance.hashKV({})), [
    Code.ResourceExhausted,
    "etcdserver: too many requests",
  ]);
  for (const abort of aborts) abort.abort();
  resolve();
  for (const end of ended) assertEquals((await end)[0], Code.Canceled);
  while (bench.files.open > 0) await bench.maintenance.status({});
  assertEquals((await bench.maintenance.hashKV({})).compactRevision, -1n);
});

Deno.test("Maintenance.HashKV and Hash follow the content, and refuse what history does not have", async () => {
  await using bench = await open();
  await using other = await open();
  const hashes: number[] = [];
  for (const { kv, maintenance } of [bench, other]) {
    await kv.put({ key: bytes("a"), value: bytes("1") });
    await kv.put({ key: bytes("b"), value: bytes("2") });
    await kv.deleteRange({ key: bytes("a") });
    await kv.put({ key: bytes("c"), value: bytes("3") });
    const { hash, hashRevision, compactRevision, header } = await maintenance.hashKV({ revision: 4n });
    assertEquals([hashRevision, compactRevision, header?.revision], [4n, -1n, 5n]);
    hashes.push(hash);
    await kv.compact({ revision: 3n, physical: true });
    assertEquals((await maintenance.hashKV({})).compactRevision, 3n);
  }
  assertEquals(hashes[0], hashes[1]);
  const { maintenance, kv } = bench;
  assertEquals((await maintenance.hash({})).hash, (await other.maintenance.hash({})).hash);
  assertEquals((await maintenance.hashKV({})).hash, (await other.maintenance.hashKV({})).hash);
  await kv.put({ key: bytes("c"), value: bytes("4") });
  assert((await maintenance.hash({})).hash !== (await other.maintenance.hash({})).hash);
  assertEquals(await refusal(() => maintenance.hashKV({ revision: 3n })), [
    Code.OutOfRange,
    "etcdserver: mvcc: required revision has been compacted",
  ]);
  assertEquals(await refusal(() => maintenance.hashKV({ revision: 99n })), [
    Code.OutOfRange,
    "etcdserver: mvcc: required revision is a future revision",
  ]);
});

Deno.test("Maintenance.HashKV is of the newest revision though compaction passes that meanwhile", async () => {
  await using bench = await open();
  const { service, kv, maintenance, pauses } = bench;
  for (const value of ["1", "2", "3"]) await kv.put({ key: bytes("a"), value: bytes(value) });
  await kv.compact({ revision: 2n, physical: true });
  const { hash, hashRevision } = await maintenance.hashKV({});
  pauses.run = async () => {
    pauses.run = () => Promise.resolve();
    await kv.put({ key: bytes("a"), value: bytes("4") });
    await service.compact(5, false);
  };
  const again = await maintenance.hashKV({});
  assertEquals([again.hash, again.hashRevision], [hash, hashRevision]);
  assertEquals(service.compactRevision, 5);
});

Deno.test("Maintenance.Alarm raises, lists and ends alarms, over restarts, and Status tells of them", async () => {
  const disk = newDisk();
  const { ACTIVATE, DEACTIVATE, GET } = AlarmRequest_AlarmAction;
  const memberID = await (async () => {
    await using bench = await open({}, disk);
    const { memberId: memberID, maintenance } = bench;
    const raised = await maintenance.alarm({ action: ACTIVATE, memberID, alarm: AlarmType.NOSPACE });
    assertEquals([raised.header, raised.alarms.length], [undefined, 1]);
    await maintenance.alarm({ action: ACTIVATE, memberID: 5n, alarm: AlarmType.CORRUPT });
    return memberID;
  })();
  await using bench = await open({}, disk);
  const { maintenance } = bench;
  const list = async (alarm: AlarmType) =>
    (await maintenance.alarm({ action: GET, alarm })).alarms.map((each) => [each.memberID, each.alarm]);
  assertEquals(await list(AlarmType.NONE), [[memberID, AlarmType.NOSPACE], [5n, AlarmType.CORRUPT]]);
  assertEquals(await list(AlarmType.CORRUPT), [[5n, AlarmType.CORRUPT]]);
  assertEquals((await maintenance.status({})).errors, [
    `memberID:${memberID} alarm:NOSPACE `,
    "memberID:5 alarm:CORRUPT ",
  ]);
  const wrong = await maintenance.alarm({ action: DEACTIVATE, memberID: 6n, alarm: AlarmType.CORRUPT });
  assertEquals(wrong.alarms, []);
  assertEquals((await maintenance.alarm({ action: DEACTIVATE })).alarms.length, 2);
  assertEquals(await list(AlarmType.NONE), []);
});

Deno.test("Maintenance.Status and Defragment tell of space and give it back", async () => {
  await using bench = await open({ quotaBytes: 64 * 1_048_576 });
  const { kv, maintenance, memberId } = bench;
  for (let i = 0; i < 2_000; i++) await kv.put({ key: bytes(`key/${i}`), value: new Uint8Array(1_000) });
  for (let i = 0; i < 2_000; i++) if (i % 50 !== 0) await kv.deleteRange({ key: bytes(`key/${i}`) });
  await kv.compact({ revision: BigInt(bench.service.revision), physical: true });
  const before = await maintenance.status({});
  assertEquals([before.version, before.leader, before.isLearner], ["3.5.21", memberId, false]);
  assertEquals([before.raftIndex, before.raftTerm], [before.raftAppliedIndex, before.header!.raftTerm]);
  assertEquals(before.dbSizeQuota, BigInt(64 * 1_048_576));
  await Promise.all([maintenance.defragment({}), maintenance.defragment({})]);
  const after = await maintenance.status({});
  assertEquals(after.dbSizeInUse, before.dbSizeInUse);
  assert(
    after.dbSize < before.dbSize && after.dbSize >= after.dbSizeInUse,
    `${before.dbSize} → ${after.dbSize}`,
  );
});

Deno.test("Cluster and MoveLeader answer as a cluster of one that cannot be changed", async () => {
  await using bench = await open({ member: { name: "one", clientUrls: ["http://127.0.0.1:2379"] } });
  const { cluster, maintenance, memberId: ID } = bench;
  const list = await cluster.memberList({});
  assertEquals(
    list.members.map((
      member,
    ) => [member.ID, member.name, member.clientURLs, member.peerURLs, member.isLearner]),
    [
      [ID, "one", ["http://127.0.0.1:2379"], [], false],
    ],
  );
  assertEquals([list.header?.memberId, list.header?.revision], [ID, 0n]);
  const notEnough: [Code, string] = [
    Code.FailedPrecondition,
    "etcdserver: re-configuration failed due to not enough started members",
  ];
  const badUrls: [Code, string] = [Code.InvalidArgument, "etcdserver: given member URLs are invalid"];
  const notFound: [Code, string] = [Code.NotFound, "etcdserver: member not found"];
  assertEquals(await refusal(() => cluster.memberAdd({ peerURLs: ["http://10.0.0.2:2380"] })), notEnough);
  for (const url of ["", "10.0.0.2:2380", "ftp://a:1", "http://a", "http://a:1/path"]) {
    assertEquals(await refusal(() => cluster.memberAdd({ peerURLs: [url] })), badUrls, url);
  }
  assertEquals(await refusal(() => cluster.memberAdd({})), badUrls);
  assertEquals(await refusal(() => cluster.memberRemove({ ID })), notEnough);
  assertEquals(await refusal(() => cluster.memberRemove({ ID: 1n })), notFound);
  assertEquals(await refusal(() => cluster.memberUpdate({ ID: 1n })), notFound);
  assertEquals(await refusal(() => cluster.memberUpdate({ ID, peerURLs: ["http://a:1"] })), notEnough);
  assertEquals((await cluster.memberUpdate({ ID })).members.length, 1);
  assertEquals(await refusal(() => cluster.memberPromote({ ID })), [
    Code.FailedPrecondition,
    "etcdserver: can only promote a learner member",
  ]);
  assertEquals(await refusal(() => cluster.memberPromote({ ID: 1n })), notFound);
  await maintenance.moveLeader({ targetID: ID });
  assertEquals(await refusal(() => maintenance.moveLeader({ targetID: 1n })), [
    Code.FailedPrecondition,
    "etcdserver: bad leader transferee",
  ]);
});

Deno.test("Maintenance.Downgrade validates, begins and ends one as etcd does", async () => {
  await using bench = await open();
  const { VALIDATE, ENABLE, CANCEL } = DowngradeRequest_DowngradeAction;
  const call = (action: DowngradeRequest_DowngradeAction, version = "") =>
    bench.maintenance.downgrade({ action, version });
  assertEquals((await call(VALIDATE, "3.4.9")).version, "3.5.0");
  for (const version of ["", "3", "x", "3.4.", "3.4.0.0"]) {
    assertEquals(await refusal(() => call(VALIDATE, version)), [
      Code.InvalidArgument,
      "etcdserver: wrong downgrade target version format",
    ]);
  }
  for (const version of ["3.3", "3.5", "2.4.0"]) {
    assertEquals(await refusal(() => call(ENABLE, version)), [
      Code.InvalidArgument,
      "etcdserver: invalid downgrade target version",
    ]);
  }
  const none: [Code, string] = [Code.FailedPrecondition, "etcdserver: no inflight downgrade job"];
  assertEquals(await refusal(() => call(CANCEL)), none);
  assertEquals((await call(ENABLE, "3.4")).version, "3.5.0");
  assertEquals((await bench.maintenance.status({})).downgradeInfo?.targetVersion, "3.4.0");
  assertEquals(await refusal(() => call(ENABLE, "3.4")), [
    Code.FailedPrecondition,
    "etcdserver: cluster has a downgrade job in progress",
  ]);
  assertEquals((await call(CANCEL)).version, "3.5.0");
  assertEquals(await refusal(() => call(CANCEL)), none);
});
