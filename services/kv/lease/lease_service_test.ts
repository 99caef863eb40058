import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { createFaultFs, type FaultFs } from "../../../storage/testing/fault_fs.ts";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import type { KvApi } from "../api.ts";
import { kvConfigSchema } from "../config.ts";
import { KvError } from "../errors.ts";
import { prefixRange } from "../key.ts";
import { LocalBackend } from "../local_api.ts";
import { createKvModule, type KvModule } from "../mod.ts";
import type { OpenStore } from "../store.ts";
import { openLogStore } from "../stores/log.ts";
import { type Disk, ManualStore, newDisk } from "../testing/manual_store.ts";
import type { DeleteOp, PutOp } from "../txn.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

const put = (key: string, options: Partial<PutOp> = {}): PutOp => ({
  kind: "put",
  key: bytes(key),
  value: bytes("1"),
  lease: 0n,
  prevKv: false,
  ignoreValue: false,
  ignoreLease: false,
  ...options,
});

const del = (key: string): DeleteOp => ({ kind: "delete", key: bytes(key), range: "single", prevKv: false });

const everything = { key: Uint8Array.of(0), range: { start: Uint8Array.of(0), end: undefined } };

interface Bench extends KvModule {
  readonly api: KvApi;
  readonly clock: ReturnType<typeof createManualClock>;
  readonly errors: string[];
}

async function openOn(openStore: OpenStore, config: Record<string, unknown> = {}): Promise<Bench> {
  const clock = createManualClock();
  const errors: string[] = [];
  const module = await createKvModule({
    openStore,
    config: kvConfigSchema.parse(config),
    random: createSeededRandom(3),
    log: { info: () => {}, error: (message) => errors.push(message) },
    clock,
    pause: () => Promise.resolve(),
  });
  const api = new LocalBackend(module.service, module.leases).as({ user: undefined });
  return { ...module, api, clock, errors };
}

/** A store that is fast unless the test makes it slow. */
async function open(config: Record<string, unknown> = {}, disk: Disk = newDisk()) {
  let manual: ManualStore | undefined;
  const bench = await openOn((replay) => {
    manual = new ManualStore(disk, replay);
    manual.isAutomatic = true;
    return Promise.resolve(manual);
  }, config);
  return { ...bench, manual: manual!, disk };
}

function keys({ service }: Bench): (string | undefined)[] {
  return service.range(everything).kvs.map(({ key }) => text(key));
}

async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.then(() => settled = true, () => settled = true);
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  return settled;
}

Deno.test("LeaseService tells of a lease when it is durable, and puts may use it before", async () => {
  const bench = await open();
  bench.manual.isAutomatic = false;
  const granted = bench.leases.grant(7n, 10n);
  const used = bench.service.put(put("a", { lease: 7n }));
  const listed = bench.leases.list();
  const renewed = bench.leases.renew(7n);
  const waiting = [granted, listed, renewed].map((answer) => isSettled(answer));
  assertEquals(await Promise.all(waiting), [false, false, false]);
  bench.manual.flush();
  assertEquals(await granted, { id: 7n, ttlMs: 10_000, revision: 1 });
  assertEquals([(await used).revision, await listed, await renewed], [2, [7n], 10_000]);
  await bench.close();
});

Deno.test("LeaseService.grant() is refused when the quota is used up", async () => {
  const bench = await open({ quotaBytes: 1_048_576 });
  await bench.service.put(put("a", { value: new Uint8Array(1_040_000) }));
  await bench.leases.grant(1n, 10n);
  await assertRejects(
    () => bench.service.put(put("b", { value: new Uint8Array(20_000) })),
    KvError,
    "database space exceeded",
  );
  await assertRejects(() => bench.leases.grant(2n, 10n), KvError, "database space exceeded");
  await bench.leases.revoke(1n);
  await bench.close();
});

Deno.test("LeaseService.expire() ends each lease at a revision of its own, also thousands, and no other", async () => {
  const bench = await open();
  const waiting: Promise<unknown>[] = [];
  for (let id = 1n; id <= 3_000n; id++) {
    waiting.push(bench.leases.grant(id, 10n), bench.service.put(put(`k${id}`, { lease: id })));
  }
  waiting.push(bench.leases.grant(5_000n, 11n), bench.service.put(put("stays", { lease: 5_000n })));
  await Promise.all(waiting);
  const { revision } = bench.service;
  assertEquals(bench.leases.nextExpiryMs, 10_000);
  bench.clock.advance(10_000);
  await bench.leases.expire();
  assertEquals([keys(bench), bench.service.revision, bench.leases.nextExpiryMs], [
    ["stays"],
    revision + 3_000,
    11_000,
  ]);
  const { leases, leaseGrants, leaseExpiries, leaseRevokes } = bench.leases.figures();
  assertEquals([leases, leaseGrants, leaseExpiries, leaseRevokes], [1, 3_001, 3_000, 0]);
  await bench.close();
});

Deno.test("LeaseService tries again later when the log has no room for the end of a lease", async () => {
  const bench = await open();
  await bench.leases.grant(1n, 10n);
  await bench.service.put(put("a", { lease: 1n }));
  bench.clock.advance(10_000);
  bench.manual.isFull = true;
  await bench.leases.expire();
  assertEquals([keys(bench), bench.leases.nextExpiryMs, bench.errors], [["a"], 10_100, []]);
  bench.manual.isFull = false;
  bench.clock.advance(100);
  await bench.leases.expire();
  assertEquals([keys(bench), bench.leases.nextExpiryMs], [[], Infinity]);
  await bench.close();
});

Deno.test("LeaseService stops with the log: nothing is ended, nothing waited for", async () => {
  const bench = await open();
  await bench.leases.grant(1n, 10n);
  bench.manual.fail("the disk is gone");
  bench.clock.advance(10_000);
  await Promise.resolve();
  await bench.leases.expire();
  assertEquals([bench.leases.lessor.size, bench.leases.nextExpiryMs], [1, Infinity]);
  await bench.close();
});

Deno.test("a lease with more keys than one record holds ends in several revisions, itself with the last", async () => {
  const bench = await open();
  await bench.leases.grant(1n, 10n);
  const names = Array.from({ length: 150 }, (_, i) => String(i).padStart(60_000, "x"));
  await Promise.all(names.map((name) => bench.service.put(put(name, { lease: 1n }))));
  const before = bench.service.revision;
  assertEquals(await bench.leases.revoke(1n), before + 2);
  assertEquals([keys(bench), bench.leases.lessor.size], [[], 0]);
  await bench.close();
});

Deno.test("a restart gives leases their keys back and their whole time, checkpointed ones what they had left", async () => {
  const bench = await open({ lease: { checkpointIntervalMs: 60_000 } });
  await bench.leases.grant(1n, 3_600n);
  await bench.leases.grant(2n, 3_600n);
  await bench.leases.grant(3n, 60n);
  await bench.service.put(put("a", { lease: 1n }));
  await bench.service.put(put("own", { ttlMs: 3_600_500 }));
  bench.clock.advance(50_000);
  await bench.leases.renew(2n);
  assertEquals(await bench.leases.checkpoint(), 2);
  assertEquals(await bench.leases.checkpoint(), 0);
  bench.clock.advance(5_000);
  const again = await open({}, bench.disk);
  const own = again.service.range({ key: bytes("own"), range: "single" }).kvs[0]!.lease;
  const left = async (id: bigint) => (await again.leases.timeOf(id, false))?.remainingMs;
  assertEquals([await left(1n), await left(2n), await left(3n), await left(own)], [
    3_550_000,
    3_600_000,
    60_000,
    3_550_500,
  ]);
  assertEquals(again.leases.lessor.keysOf(1n).map(text), ["a"]);
  assertEquals(again.leases.lessor.isOwn(own), true);
  await bench.close();
  await again.close();
});

Deno.test("a renewal takes a checkpoint back before it is answered, once", async () => {
  const bench = await open({ lease: { checkpointIntervalMs: 60_000 } });
  await bench.leases.grant(1n, 3_600n);
  bench.clock.advance(50_000);
  await bench.leases.checkpoint();
  const records = bench.disk.records.length;
  assertEquals(await bench.leases.renew(1n), 3_600_000);
  assertEquals(bench.disk.records.length, records + 1);
  await bench.leases.renew(1n);
  assertEquals(bench.disk.records.length, records + 1);
  const again = await open({}, bench.disk);
  assertEquals((await again.leases.timeOf(1n, false))?.remainingMs, 3_600_000);
  await bench.close();
  await again.close();
});

Deno.test("closing writes what every lease has left, short ones too", async () => {
  const bench = await open();
  await bench.leases.grant(1n, 10n);
  await bench.service.put(put("a", { ttlMs: 1_500 }));
  bench.clock.advance(1_000);
  await bench.close();
  await bench.close();
  const again = await open({}, bench.disk);
  assertEquals(
    again.leases.lessor.ids().map((id) => again.leases.lessor.remainingMsOf(id, again.clock.now())),
    [500, 9_000],
  );
  await again.close();
});

Deno.test("a crash between a grant and its put leaves the lease alone; one before a revocation is durable, all of it", async () => {
  const bench = await open();
  bench.manual.isAutomatic = false;
  const { leases, service, manual, disk } = bench;
  const granted = leases.grant(1n, 10n);
  const unheard = service.put(put("a", { lease: 1n })).catch(() => "unknown");
  manual.flush(1);
  await granted;
  const second = await open({}, disk);
  assertEquals([second.leases.lessor.ids(), keys(second)], [[1n], []]);
  second.manual.isAutomatic = false;
  const attached = second.service.put(put("a", { lease: 1n }));
  second.manual.flush();
  await attached;
  const revoked = second.leases.revoke(1n).catch(() => "unknown");
  assertEquals([second.leases.lessor.size, keys(second)], [0, ["a"]]);
  const third = await open({}, disk);
  assertEquals([third.leases.lessor.keysOf(1n).map(text), keys(third)], [["a"], ["a"]]);
  await third.leases.revoke(1n);
  const fourth = await open({}, disk);
  assertEquals([fourth.leases.lessor.size, keys(fourth)], [0, []]);
  manual.fail("end of test");
  second.manual.fail("end of test");
  assertEquals([await unheard, await revoked], ["unknown", "unknown"]);
  for (const each of [bench, second, third, fourth]) await each.close();
});

Deno.test("leases survive a restart from the log's files, and from a snapshot", async () => {
  const fs: FaultFs = createFaultFs(1);
  const openLog = () =>
    openOn((replay) => {
      let now = 0;
      const clock = { now: () => now++, wallMs: () => now };
      return openLogStore(
        { fs, directory: "/kv", durability: "always", segmentBytes: 65_536, clock, salt: () => 7 },
        replay,
      );
    }, { snapshotLogBytes: 65_536 });
  const bench = await openLog();
  await bench.leases.grant(1n, 10n);
  await bench.service.put(put("a", { lease: 1n }));
  await bench.close();
  const second = await openLog();
  assertEquals(second.leases.lessor.keysOf(1n).map(text), ["a"]);
  await second.service.put(put("b", { ttlMs: 5_000 }));
  await second.service.checkpoint();
  assertEquals(second.service.figures().snapshotFailures, 0);
  await second.close();
  const third = await openLog();
  assertEquals([third.leases.lessor.size, third.leases.lessor.keysOf(1n).map(text)], [2, ["a"]]);
  third.clock.advance(10_000);
  await third.leases.expire();
  assertEquals(keys(third), []);
  await third.close();
  const fourth = await openLog();
  assertEquals([fourth.leases.lessor.size, keys(fourth)], [0, []]);
  await fourth.close();
});

// ---- KvApi ----

Deno.test("KvApi does not show keys that ran out, durably ended or not; others it shows as ever", async () => {
  const bench = await open();
  const { api, service, manual, clock } = bench;
  for (const key of ["a", "b", "c", "d", "e"]) {
    await service.put(put(key, key === "b" || key === "d" ? { ttlMs: 1_500 } : {}));
  }
  const lease = (await api.range({ key: bytes("b"), range: "single" })).kvs[0]!.lease;
  assertEquals(await api.leaseTtlMs(lease), 1_500);
  clock.advance(1_499);
  assertEquals([await api.leaseTtlMs(lease), (await api.range(everything)).count], [1, 5]);
  clock.advance(1);
  manual.isAutomatic = false;
  const look = async () => {
    const single = await api.range({ key: bytes("b"), range: "single" });
    const two = await api.range({ ...everything, limit: 2 });
    const three = await api.range({ ...everything, limit: 3, sortOrder: "descend" });
    const count = await api.range({ ...everything, countOnly: true });
    const list = await api.list({ prefix: bytes(""), pageSize: 3, pageToken: "", keysOnly: true });
    return [
      [single.count, single.kvs.length],
      [two.kvs.map(({ key }) => text(key)), two.more, two.count],
      [three.kvs.map(({ key }) => text(key)), three.more, three.count],
      [count.count],
      [list.entries.map(({ key }) => text(key)), list.count, list.nextPageToken !== ""],
      await api.leaseTtlMs(lease),
    ];
  };
  const expected = [
    [0, 0],
    [["a", "c"], true, 3],
    [["e", "c", "a"], false, 3],
    [3],
    [["a", "c"], 3, true],
    undefined,
  ];
  assertEquals(await look(), expected);
  // Seeing one began to end them; what etcd's clients see is the durable store.
  assertEquals([manual.pendingCount, keys(bench)], [2, ["a", "b", "c", "d", "e"]]);
  assertEquals(await look(), expected);
  assertEquals((await api.range({ ...everything, revision: service.revision })).count, 3);
  assertEquals((await api.range({ ...everything, revision: service.revision - 1 })).count, 4);
  manual.flush();
  assertEquals(keys(bench), ["a", "c", "e"]);
  await bench.close();
});

Deno.test("KvApi looks at the range's keys when more ran out than it looks up", async () => {
  const bench = await open();
  const waiting: Promise<unknown>[] = [];
  for (let i = 0; i < 5_000; i++) waiting.push(bench.service.put(put(`k${i}`, { ttlMs: 1 + (i & 1) })));
  await Promise.all(waiting);
  bench.clock.advance(1);
  bench.manual.isAutomatic = false;
  const half = await bench.api.range({ key: bytes("k"), range: prefixRange(bytes("k")), countOnly: true });
  bench.clock.advance(1);
  const none = await bench.api.range({ key: bytes("k"), range: prefixRange(bytes("k")), countOnly: true });
  assertEquals([half.count, none.count, bench.service.range(everything).count], [2_500, 0, 5_000]);
  bench.manual.isAutomatic = true;
  bench.manual.flush();
  await bench.leases.expire();
  await bench.close();
});

Deno.test("KvApi's writes meet no key that ran out: its deletion is a revision before theirs", async () => {
  const bench = await open();
  const { api, service, clock } = bench;
  const writes: Record<string, () => Promise<unknown>> = {
    put: () => api.put(put("a"), 0),
    transact: () =>
      api.transact(
        [bytes("a")],
        ([found]) => ({ writes: [put("a")], result: assertEquals(found, undefined) }),
      ),
    txn: async () => {
      const compare = {
        key: bytes("a"),
        range: "single",
        target: "version",
        result: "equal",
        operand: 0,
      } as const;
      assertEquals(
        (await api.txn({ compares: [compare], success: [put("a")], failure: [] })).succeeded,
        true,
      );
    },
    delete: async () => assertEquals((await api.delete(del("a"))).deleted, 0),
    deleteRange: async () => {
      const op: DeleteOp = { kind: "delete", ...everything, prevKv: false };
      assertEquals((await api.delete(op)).deleted, 0);
    },
  };
  for (const [name, write] of Object.entries(writes)) {
    await service.put(put("a", { ttlMs: 10 }));
    const { revision } = service;
    clock.advance(10);
    await write();
    const [found] = service.range({ key: bytes("a"), range: "single" }).kvs;
    assertEquals(
      [
        found?.version,
        found?.createRevision,
        service.revision,
        service.state.rowAt(bytes("a"), revision + 1),
      ],
      name.startsWith("delete")
        ? [undefined, undefined, revision + 1, -1]
        : [1, revision + 2, revision + 2, -1],
      name,
    );
    await service.delete(del("a"));
  }
  await bench.close();
});

Deno.test("leases and keys agree after a crash anywhere", async () => {
  type Step =
    | { kind: "grant" | "revoke" | "renew"; id: bigint }
    | { kind: "put"; key: string; lease: bigint; ttlMs: number }
    | { kind: "delete"; key: string }
    | { kind: "advance"; ms: number }
    | { kind: "flush" | "crash"; count: number }
    | { kind: "checkpoint" | "turns" };
  const id = fc.bigInt(1n, 4n);
  const key = fc.constantFrom("a", "b", "c");
  const aStep = fc.oneof(
    fc.record({ kind: fc.constantFrom("grant", "grant", "revoke", "renew"), id }),
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant("put"),
        key,
        lease: fc.bigInt(0n, 4n),
        ttlMs: fc.constantFrom(0, 0, 900, 4_000),
      }),
    },
    fc.record({ kind: fc.constant("delete"), key }),
    fc.record({ kind: fc.constant("advance"), ms: fc.constantFrom(500, 2_000) }),
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("flush"), count: fc.integer({ min: 1, max: 4 }) }),
    },
    fc.record({ kind: fc.constant("crash"), count: fc.nat(3) }),
    fc.record({ kind: fc.constantFrom("checkpoint", "turns") }),
  ) as fc.Arbitrary<Step>;
  await fc.assert(
    fc.asyncProperty(fc.array(aStep, { maxLength: 60, size: "max" }), async (steps) => {
      const disk = newDisk();
      const config = { lease: { minTtlSeconds: 1, checkpointIntervalMs: 1_000 } };
      const reopen = async () => {
        const bench = await open(config, disk);
        bench.manual.isAutomatic = false;
        return bench;
      };
      let bench = await reopen();
      const check = () => {
        const { lessor } = bench.leases;
        const held = new Map<bigint, (string | undefined)[]>();
        bench.service.state.visitLeased((row) => {
          const lease = bench.service.state.leaseOf(row);
          held.set(lease, [...held.get(lease) ?? [], text(bench.service.state.keyOf(row))]);
        });
        for (const [lease, names] of held) assertEquals(lessor.keysOf(lease).map(text), names.sort());
        let owned = 0;
        for (const lease of lessor.ids()) {
          if (!held.has(lease)) assertEquals([lessor.keyCountOf(lease), lessor.isOwn(lease)], [0, false]);
          if (lessor.isOwn(lease)) owned++;
          const remainingMs = lessor.remainingMsOf(lease, bench.clock.now())!;
          assert(remainingMs <= lessor.ttlMsOf(lease)!);
        }
        assertEquals(owned, lessor.ownSize);
      };
      const ignore = () => {};
      for (const step of steps) {
        const { leases, service, manual, clock } = bench;
        if (step.kind === "grant") leases.grant(step.id, 2n + step.id).catch(ignore);
        else if (step.kind === "revoke") leases.revoke(step.id).catch(ignore);
        else if (step.kind === "renew") leases.renew(step.id).catch(ignore);
        else if (step.kind === "put") {
          const options = step.ttlMs > 0 ? { ttlMs: step.ttlMs } : { lease: step.lease };
          service.put(put(step.key, options)).catch(ignore);
        } else if (step.kind === "delete") service.delete(del(step.key)).catch(ignore);
        else if (step.kind === "flush") manual.flush(step.count);
        else if (step.kind === "checkpoint") leases.checkpoint().catch(ignore);
        else if (step.kind === "turns") { for (let i = 0; i < 10; i++) await Promise.resolve(); }
        else if (step.kind === "advance") {
          clock.advance(step.ms);
          leases.expire();
        } else if (step.kind === "crash") {
          manual.fail("crash", step.count);
          await bench.close();
          bench = await reopen();
        }
        check();
      }
      bench.manual.isAutomatic = true;
      bench.manual.flush();
      bench.clock.advance(10_000);
      await bench.leases.expire();
      check();
      assertEquals(bench.leases.lessor.size, 0);
      await bench.close();
    }),
    { numRuns: 150 },
  );
});
