import { createManualClock } from "../runtime/clock.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ALARM_CORRUPT, ALARM_NO_SPACE, ALARMS_MAX } from "./maintenance/alarms.ts";
import { kvConfigSchema } from "./config.ts";
import { KvError } from "./errors.ts";
import { prefixRange } from "./key.ts";
import { createKvModule, type KvModule } from "./mod.ts";
import { type Disk, ManualStore, newDisk } from "./testing/manual_store.ts";
import type { DeleteOp, PutOp, Txn } from "./txn.ts";
import type { WatchAnswer, WatchStream } from "./watch.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

const put = (key: string, value: string, options: Partial<PutOp> = {}): PutOp => ({
  kind: "put",
  key: bytes(key),
  value: bytes(value),
  lease: 0n,
  prevKv: false,
  ignoreValue: false,
  ignoreLease: false,
  ...options,
});

const del = (key: string): DeleteOp => ({ kind: "delete", key: bytes(key), range: "single", prevKv: true });

interface Bench extends KvModule {
  readonly manual: ManualStore;
  readonly errors: string[];
}

async function open(config: Record<string, unknown> = {}, disk: Disk = newDisk()): Promise<Bench> {
  let manual: ManualStore | undefined;
  const errors: string[] = [];
  const module = await createKvModule({
    openStore: (replay) => {
      manual = new ManualStore(disk, replay);
      manual.isAutomatic = true;
      return Promise.resolve(manual);
    },
    config: kvConfigSchema.parse(config),
    random: { fill: (target) => target.fill(7) },
    log: { info: () => {}, error: (message) => errors.push(message) },
    clock: createManualClock(),
    pause: () => Promise.resolve(),
  });
  manual!.isAutomatic = false;
  return { ...module, manual: manual!, errors };
}

function get({ service }: Bench, key: string, revision = 0): string | undefined {
  return text(service.range({ key: bytes(key), range: "single", revision }).kvs[0]?.value);
}

/** Runs `action` with a store that is fast. */
async function done<T>(bench: Bench, action: Promise<T>): Promise<T> {
  bench.manual.flush();
  return await action;
}

async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.then(() => settled = true, () => settled = true);
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  return settled;
}

function watchAll({ service }: Bench, startRevision = 0): WatchStream {
  const stream = service.watches.openStream(() => {});
  stream.create({
    key: bytes("\0"),
    range: { start: bytes("\0"), end: undefined },
    startRevision,
    watchId: 0n,
    prevKv: false,
    progressNotify: false,
    fragmentBytes: 0,
    noPut: false,
    noDelete: false,
  });
  return stream;
}

function drain(stream: WatchStream): WatchAnswer[] {
  const answers: WatchAnswer[] = [];
  for (let answer = stream.take(); answer !== undefined; answer = stream.take()) {
    if (answer !== "again") answers.push(answer);
  }
  return answers;
}

const revisions = (answers: WatchAnswer[]) =>
  answers.flatMap(({ events }) => events.map(({ kv }) => kv.modRevision));

Deno.test("KvService.put() is neither answered nor seen by readers and watchers before it is durable", async () => {
  const bench = await open();
  const stream = watchAll(bench);
  drain(stream);
  const answer = bench.service.put(put("a", "1"));
  assertEquals(await isSettled(answer), false);
  assertEquals(get(bench, "a"), undefined);
  assertEquals(bench.service.revision, 1);
  assertThrows(() => get(bench, "a", 2), KvError, "future revision");
  assertEquals(drain(stream), []);
  bench.manual.flush();
  assertEquals(get(bench, "a"), "1");
  assertEquals(revisions(drain(stream)), [2]);
  assertEquals(await answer, { revision: 2, version: 1, prevKv: undefined });
  await bench.close();
});

Deno.test("KvService counts and ranges as of the durable revision while writes wait", async () => {
  const bench = await open();
  await done(bench, bench.service.put(put("a", "1")));
  const waiting = [
    bench.service.put(put("b", "1")),
    bench.service.delete(del("a")),
    bench.service.put(put("a", "2")),
  ];
  const everything = { key: bytes("a"), range: { start: bytes("a"), end: undefined } };
  const seen = bench.service.range(everything);
  assertEquals([seen.count, seen.kvs.map((kv) => text(kv.value)), seen.revision], [1, ["1"], 2]);
  assertEquals(bench.service.range({ ...everything, countOnly: true }).count, 1);
  bench.manual.flush(1);
  assertEquals(bench.service.range(everything).count, 2);
  bench.manual.flush(1);
  assertEquals(bench.service.range(everything).kvs.map((kv) => text(kv.key)), ["b"]);
  bench.manual.flush();
  await Promise.all(waiting);
  assertEquals(bench.service.range(everything).count, 2);
  await bench.close();
});

Deno.test("KvService refuses on what is not durable yet only when it is", async () => {
  const bench = await open();
  const first = bench.service.put(put("a", "1"));
  const second = bench.service.put(put("a", "2"), 0);
  const outcome = second.then(() => "ok", (error: KvError) => error.message);
  assertEquals(await isSettled(outcome), false);
  bench.manual.flush();
  await first;
  assertEquals(
    await outcome,
    "kv: the key's mod revision is not if_mod_revision: expected 0 (absent), found 2",
  );
  assertEquals(get(bench, "a"), "1");
  await bench.close();
});

Deno.test("KvService.txn() sees applied writes, uses one revision and answers when durable", async () => {
  const bench = await open();
  const first = bench.service.put(put("a", "1"));
  const txn: Txn = {
    compares: [{ key: bytes("a"), range: "single", target: "value", result: "equal", operand: bytes("1") }],
    success: [put("b", "1"), put("c", "2"), {
      kind: "range",
      query: { key: bytes("b"), range: "single" },
      hasValidSort: true,
    }],
    failure: [],
  };
  const second = bench.service.txn(txn);
  assertEquals(await isSettled(second), false);
  bench.manual.flush();
  await first;
  const { revision, succeeded, results } = await second;
  assertEquals([revision, succeeded], [3, true]);
  const read = results[2]!;
  assert(read.kind === "range");
  assertEquals([read.result.revision, text(read.result.kvs[0]?.value)], [3, "1"]);
  await bench.close();
});

Deno.test("KvService.txn() that fails a check leaves no trace", async () => {
  const bench = await open();
  await done(bench, bench.service.put(put("a", "1")));
  const txn: Txn = {
    compares: [],
    success: [put("b", "1"), put("none", "", { ignoreValue: true })],
    failure: [],
  };
  await assertRejects(() => done(bench, bench.service.txn(txn)), KvError, "etcdserver: key not found");
  assertEquals([get(bench, "b"), bench.service.revision, bench.manual.pendingCount], [undefined, 2, 0]);
  await bench.close();
});

Deno.test("KvService becomes read-only when the log fails, and never shows what was not durable", async () => {
  const disk = newDisk();
  const bench = await open({}, disk);
  await done(bench, bench.service.put(put("a", "1")));
  const stream = watchAll(bench);
  drain(stream);
  const lost = bench.service.put(put("a", "2"));
  bench.manual.fail("disk on fire");
  await assertRejects(() => lost, KvError, "whether it survives a restart is unknown");
  assertEquals([get(bench, "a"), bench.service.revision, drain(stream)], ["1", 2, []]);
  const refused = assertThrows(() => bench.service.put(put("b", "1")), KvError);
  assertEquals(
    [refused.code, refused.message],
    ["unavailable", "kv: the log failed, so writes are refused: disk on fire"],
  );
  assertThrows(() => bench.service.delete(del("a")), KvError, "writes are refused");
  await assertRejects(() => bench.service.compact(2, false), KvError, "writes are refused");
  assertEquals(bench.errors, ["the log failed; the store is read-only"]);
  const again = await open({}, disk);
  assertEquals([get(again, "a"), again.service.revision], ["1", 2]);
  assertEquals((await done(again, again.service.put(put("b", "1")))).revision, 3);
});

Deno.test("KvService undoes a write that the log has no room for", async () => {
  const bench = await open();
  await done(bench, bench.service.put(put("a", "1")));
  bench.manual.isFull = true;
  await assertRejects(() => bench.service.put(put("a", "2")), KvError, "etcdserver: too many requests");
  await assertRejects(() => bench.service.delete(del("a")), KvError, "etcdserver: too many requests");
  bench.manual.isFull = false;
  assertEquals(get(bench, "a"), "1");
  assertEquals((await done(bench, bench.service.put(put("a", "3")))).revision, 3);
  await bench.close();
});

Deno.test("KvService refuses puts beyond the quota until there is room and the alarm was disarmed", async () => {
  const disk = newDisk();
  let bench = await open({ quotaBytes: 1_048_576, retainHistoryBytes: 65_536 }, disk);
  bench.manual.isAutomatic = true;
  const noSpace = "etcdserver: mvcc: database space exceeded";
  const alarm = { memberId: bench.service.identity.memberId, kind: ALARM_NO_SPACE };
  const value = "x".repeat(20_000);
  let refusal: KvError | undefined;
  for (let i = 0; i < 100 && refusal === undefined; i++) {
    await bench.service.put(put(`key/${i}`, value)).catch((error: KvError) => refusal = error);
  }
  assertEquals([refusal?.code, refusal?.message], ["resource_exhausted", noSpace]);
  assert(bench.service.figures().bytes <= 1_048_576);
  assertEquals(bench.alarms.list(0), [alarm]);
  const range = prefixRange(bytes("key/"));
  await bench.service.delete({ kind: "delete", key: range.start, range, prevKv: false });
  await bench.service.compact(bench.service.revision, true);
  await assertRejects(() => bench.service.put(put("key/0", "")), KvError, noSpace);
  await bench.close();
  bench = await open({ quotaBytes: 1_048_576 }, disk);
  bench.manual.isAutomatic = true;
  assertEquals(bench.alarms.list(ALARM_NO_SPACE), [alarm]);
  await assertRejects(() => bench.service.put(put("key/0", "")), KvError, noSpace);
  const txn = { compares: [], success: [put("key/0", "")], failure: [] };
  await assertRejects(() => bench.service.txn(txn), KvError, noSpace);
  await assertRejects(
    () => bench.service.txn({ ...txn, success: [], failure: txn.success }),
    KvError,
    noSpace,
  );
  await bench.service.txn({ ...txn, success: [del("key/0")] });
  assertEquals(await bench.alarms.deactivate(alarm), true);
  assertEquals(await bench.alarms.deactivate(alarm), false);
  await bench.service.put(put("key/0", value));
  assertEquals(bench.service.figures().keys, 1);
  await bench.close();
});

Deno.test("a put that an alarm refuses raises no alarm of its own", async () => {
  const bench = await open();
  bench.manual.isAutomatic = true;
  const alarm = { memberId: 9n, kind: ALARM_NO_SPACE };
  await bench.alarms.activate(alarm);
  await assertRejects(() => bench.service.put(put("a", "1")), KvError, "database space exceeded");
  assertEquals(bench.alarms.list(0), [alarm]);
  await bench.close();
});

Deno.test("an alarm CORRUPT refuses every write and no read until it is disarmed", async () => {
  const bench = await open();
  bench.manual.isAutomatic = true;
  await bench.service.put(put("a", "1"));
  const alarm = { memberId: 9n, kind: ALARM_CORRUPT };
  await bench.alarms.activate(alarm);
  const refused = (run: () => Promise<unknown>) => assertRejects(run, KvError, "etcdserver: corrupt cluster");
  await refused(() => bench.service.put(put("a", "2")));
  await refused(() => bench.service.delete(del("a")));
  await refused(() => bench.service.txn({ compares: [], success: [del("a")], failure: [] }));
  await refused(() => bench.service.compact(2, false));
  assertEquals(get(bench, "a"), "1");
  await bench.alarms.deactivate(alarm);
  await bench.service.delete(del("a"));
  for (let i = 0; i < ALARMS_MAX; i++) await bench.alarms.activate({ memberId: BigInt(i), kind: 0 });
  await assertRejects(() => bench.alarms.activate(alarm), KvError, "too many alarms");
  await bench.close();
});

Deno.test("KvService bounds history by kv.retainRevisions", async () => {
  const bench = await open({ retainRevisions: 32 });
  for (let i = 0; i < 200; i++) {
    await done(bench, bench.service.put(put("a", String(i))));
    bench.manual.flush();
  }
  const { revision, compactRevision, bytes: size } = bench.service.figures();
  assertEquals(revision, 201);
  assert(compactRevision >= 201 - 32 - 3 && compactRevision <= 201 - 32, `compacted at ${compactRevision}`);
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
  assert(bench.service.figures().bytes <= size && size < 40 * 80, `${size} bytes`);
  assertThrows(() => get(bench, "a", compactRevision - 1), KvError, "has been compacted");
  assertEquals(get(bench, "a", compactRevision), String(compactRevision - 2));
  await bench.close();
});

for (const autoCompaction of [{ mode: "off" }, { mode: "periodic", retention: "1h" }]) {
  Deno.test(`KvService leaves history alone with kv.autoCompaction.mode ${autoCompaction.mode}`, async () => {
    const bench = await open({ retainRevisions: 8, retainHistoryBytes: 65_536, autoCompaction });
    bench.manual.isAutomatic = true;
    for (let i = 0; i < 200; i++) await bench.service.put(put("a", "x".repeat(1_000)));
    assertEquals(bench.service.figures().compactRevision, 0);
    assertEquals(get(bench, "a", 2)?.length, 1_000);
    await bench.close();
  });
}

Deno.test("KvService bounds history by kv.retainHistoryBytes", async () => {
  const bench = await open({ retainHistoryBytes: 65_536 });
  for (let i = 0; i < 500; i++) {
    await done(bench, bench.service.put(put("a", "x".repeat(1_000))));
    bench.manual.flush();
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    assert(bench.service.figures().historyBytes < 65_536 + 5_000, `${bench.service.figures().historyBytes}`);
  }
  assert(bench.service.compactRevision > 400);
  await bench.close();
});

Deno.test("KvService.compact() is not in force before it is durable, then survives a restart", async () => {
  const disk = newDisk();
  const bench = await open({}, disk);
  for (const value of ["1", "2", "3"]) await done(bench, bench.service.put(put("a", value)));
  const compacting = bench.service.compact(3, false);
  assertEquals(get(bench, "a", 2), "1");
  const second = bench.service.compact(3, false);
  const refused = assertRejects(() => second, KvError, "has been compacted");
  assertEquals(await isSettled(second), false);
  assertEquals(await done(bench, compacting), 4);
  await refused;
  assertThrows(() => get(bench, "a", 2), KvError, "has been compacted");
  await bench.close();
  const again = await open({}, disk);
  assertThrows(() => get(again, "a", 2), KvError, "has been compacted");
  assertEquals([get(again, "a", 3), get(again, "a")], ["2", "3"]);
  await again.close();
});

Deno.test("KvService keeps who it is over restarts", async () => {
  const disk = newDisk();
  const first = await open({}, disk);
  await first.close();
  const second = await open({}, disk);
  assertEquals(second.service.identity, first.service.identity);
  await second.close();
});

Deno.test("KvService snapshots while writes go on, and a restart has both", async () => {
  const disk = newDisk();
  const bench = await open({ snapshotLogBytes: 65_536 }, disk);
  const value = "x".repeat(1_000);
  let during = 0;
  bench.manual.onSnapshotRecord = () => {
    if (during++ > 0) return;
    bench.service.put(put("k/000", "during"));
    bench.service.put(put("new", "during"));
    bench.manual.flush();
  };
  for (let i = 0; i < 80; i++) {
    await done(bench, bench.service.put(put(`k/${String(i).padStart(3, "0")}`, value)));
  }
  for (let turn = 0; turn < 100; turn++) await Promise.resolve();
  assertEquals([bench.manual.snapshots, during > 0], [1, true]);
  const all = { key: bytes("\0"), range: { start: bytes("\0"), end: undefined } };
  const before = bench.service.range(all);
  await bench.close();
  const again = await open({}, disk);
  assertEquals(again.service.range(all), before);
  assertEquals(revisions(drain(watchAll(again, 2))), Array.from({ length: 82 }, (_, i) => i + 2));
  await again.close();
});

Deno.test("KvService.list() reads all pages at the first page's revision", async () => {
  const bench = await open();
  for (const key of ["p/a", "p/b", "p/c", "q"]) await done(bench, bench.service.put(put(key, "1")));
  const query = { prefix: bytes("p/"), pageSize: 2, pageToken: "", keysOnly: false };
  const first = bench.service.list(query);
  await done(bench, bench.service.put(put("p/bb", "late")));
  await done(bench, bench.service.put(put("p/c", "late")));
  const second = bench.service.list({ ...query, pageToken: first.nextPageToken });
  assertEquals(first.entries.map(({ key }) => text(key)), ["p/a", "p/b"]);
  assertEquals(second.entries.map(({ key, value }) => [text(key), text(value)]), [["p/c", "1"]]);
  assertEquals([first.count, second.count, first.revision, second.revision], [3, 3, 5, 5]);
  assertEquals(second.nextPageToken, "");
  assertThrows(() => bench.service.list({ ...query, pageToken: "?" }), KvError, "page_token");
  assertThrows(
    () => bench.service.list({ ...query, prefix: bytes("q"), pageToken: first.nextPageToken }),
    KvError,
    "page_token",
  );
  assertThrows(
    () => bench.service.list({ ...query, pageSize: 1_001 }),
    KvError,
    "it is 1001, expected 1 to 1000",
  );
  await done(bench, bench.service.compact(6, false));
  assertThrows(
    () => bench.service.list({ ...query, pageToken: first.nextPageToken }),
    KvError,
    "has been compacted",
  );
  await bench.close();
});

Deno.test("KvService.list() ends a page early when its entries are large", async () => {
  const bench = await open();
  for (const key of ["a", "b", "c"]) await done(bench, bench.service.put(put(key, "x".repeat(700_000))));
  const query = { prefix: bytes(""), pageSize: 10, pageToken: "", keysOnly: false };
  const pages: (string | undefined)[][] = [];
  for (let token = "", more = true; more; more = token !== "") {
    const page = bench.service.list({ ...query, pageToken: token });
    pages.push(page.entries.map(({ key }) => text(key)));
    token = page.nextPageToken;
  }
  assertEquals(pages, [["a"], ["b"], ["c"]]);
  await bench.close();
});

Deno.test("KvService refuses keys, values and requests above their limits", async () => {
  const bench = await open({ maxKeyBytes: 4, maxValueBytes: 1_500, maxRequestBytes: 2_000 });
  const tooLarge = "etcdserver: request is too large";
  assertThrows(() => bench.service.put(put("12345", "")), KvError, tooLarge);
  assertThrows(() => bench.service.put(put("1", "x".repeat(1_501))), KvError, tooLarge);
  const two: Txn = {
    compares: [],
    success: [put("1", "x".repeat(1_200)), put("2", "x".repeat(1_200))],
    failure: [],
  };
  assertThrows(() => bench.service.txn(two), KvError, tooLarge);
  const nested: Txn = { compares: [], success: [put("12345", "")], failure: [] };
  await assertRejects(() => bench.service.txn(nested), KvError, tooLarge);
  await done(bench, bench.service.put(put("1234", "x".repeat(1_500))));
  await bench.close();
});

Deno.test("KvService.close() answers the writes under way and refuses later ones", async () => {
  const bench = await open();
  const under = bench.service.put(put("a", "1"));
  const closing = bench.close();
  bench.manual.flush();
  assertEquals((await under).revision, 2);
  await closing;
  await bench.close();
  assertThrows(() => bench.service.put(put("b", "1")), KvError, "etcdserver: server stopped");
});

Deno.test("KvService loses no acknowledged write and reuses no revision when it crashes anywhere", async () => {
  type Step =
    | { kind: "put"; key: number; size: number }
    | { kind: "delete"; key: number }
    | { kind: "flush"; count: number }
    | { kind: "turns" }
    | { kind: "crash"; survivors: number };
  const aStep = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ kind: fc.constant("put" as const), key: fc.nat(5), size: fc.nat(3_000) }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("delete" as const), key: fc.nat(5) }) },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant("flush" as const), count: fc.integer({ min: 1, max: 4 }) }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("turns" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("crash" as const), survivors: fc.nat(3) }) },
  ) as fc.Arbitrary<Step>;
  await fc.assert(
    fc.asyncProperty(fc.array(aStep, { maxLength: 120, size: "max" }), async (steps) => {
      const disk = newDisk();
      const config = { snapshotLogBytes: 65_536, retainRevisions: 5 };
      let bench = await open(config, disk);
      /** Value of each key at each revision that was answered or read. */
      const told = new Map<number, string>();
      let toldRevision = 1;
      let serial = 0;
      const tell = (revision: number, what: string) => {
        const before = told.get(revision);
        assert(before === undefined || before === what, `revision ${revision} was ${before}, now ${what}`);
        told.set(revision, what);
        toldRevision = Math.max(toldRevision, revision);
      };
      for (const step of steps) {
        const key = `k${"key" in step ? step.key : 0}`;
        if (step.kind === "put") {
          const value = `${serial++}:`.padEnd(step.size, "x");
          bench.service.put(put(key, value)).then(({ revision }) => tell(revision, value), () => {});
        } else if (step.kind === "delete") {
          const what = `${serial++}: deleted`;
          bench.service.delete(del(key)).then(({ revision, deleted }) => {
            if (deleted > 0) tell(revision, what);
          }, () => {});
        } else if (step.kind === "flush") bench.manual.flush(step.count);
        else if (step.kind === "turns") { for (let turn = 0; turn < 30; turn++) await Promise.resolve(); }
        else {
          const shown = bench.service.revision;
          bench.manual.fail("crash", step.survivors);
          for (let turn = 0; turn < 30; turn++) await Promise.resolve();
          assertEquals(bench.service.revision, shown);
          bench = await open(config, disk);
          assert(bench.service.revision >= Math.max(shown, toldRevision), "a shown revision is gone");
        }
        for (let id = 0; id <= 5; id++) {
          const kv = bench.service.range({ key: bytes(`k${id}`), range: "single" }).kvs[0];
          if (kv === undefined) continue;
          assert(kv.modRevision <= bench.service.revision);
          const before = told.get(kv.modRevision);
          if (before !== undefined) assertEquals(text(kv.value), before);
        }
      }
      bench.manual.flush();
      for (let turn = 0; turn < 30; turn++) await Promise.resolve();
      // The newest told change of a key is what a fresh reader finds, or something newer.
      const last = await open(config, disk);
      assertEquals(last.service.revision, bench.service.revision);
      assertEquals(
        last.service.range({ key: bytes("k"), range: prefixRange(bytes("k")) }),
        bench.service.range({ key: bytes("k"), range: prefixRange(bytes("k")) }),
      );
    }),
    { numRuns: 100 },
  );
});

Deno.test("KvService tells what an alarm refuses, and that it stands, when the alarm is durable", async () => {
  const bench = await open();
  const { service, alarms } = bench;
  await done(bench, service.put(put("a", "1")));
  const corrupt = { memberId: 1n, kind: ALARM_CORRUPT };
  const answers = [
    alarms.activate(corrupt),
    alarms.activate(corrupt),
    alarms.deactivate({ memberId: 2n, kind: ALARM_CORRUPT }),
    service.put(put("a", "2")),
    service.compact(2, false),
  ];
  const outcomes = Promise.allSettled(answers);
  assertEquals(await isSettled(Promise.race(answers)), false);
  bench.manual.flush();
  assertEquals(
    (await outcomes).map((outcome) => outcome.status === "fulfilled" ? outcome.value : outcome.reason.kind),
    [undefined, undefined, false, "corrupt", "corrupt"],
  );
  await bench.close();
});
