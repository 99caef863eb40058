import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { createFaultFs, type FaultFs } from "../testing/fault_fs.ts";
import {
  type Log,
  LogError,
  type LogFs,
  type LogOptions,
  MAX_PENDING_BYTES,
  MAX_RECORD_BYTES,
  openLog,
} from "./mod.ts";

const ascii = (text: string) => new TextEncoder().encode(text);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const DIRECTORY = "/log";

/** Opens a log in memory; `found` is what it recovered, as texts. */
async function openFound(
  fs: LogFs,
  options: Partial<LogOptions> = {},
): Promise<{ log: Log; found: string[] }> {
  const found: string[] = [];
  const log = await openLog({
    fs,
    directory: DIRECTORY,
    durability: "always",
    onSnapshot: (record) => void found.push(`snapshot ${text(record)}`),
    onRecord: (payload, seq) => void found.push(`${seq} ${text(payload)}`),
    ...options,
  });
  return { log, found };
}

/** A log with segments of 4 KiB, `count` records of 300 bytes in groups of five, closed. */
async function fillLog(fs: FaultFs, count: number): Promise<void> {
  const { log } = await openFound(fs, { segmentBytes: 4096 });
  for (let i = 1; i <= count; i++) {
    log.append(ascii(`record ${i}`.padEnd(300, ".")));
    if (i % 5 === 0) await log.durable(i);
  }
  await log.close();
}

Deno.test("Log.append() gives all records of one turn one sync and one promise", async () => {
  const { log } = await openFound(createFaultFs(1));
  const heard: number[] = [];
  log.onDurable((seq) => heard.push(seq));
  assertEquals([log.append(ascii("a")), log.append(ascii("b"))], [1, 2]);
  // Handlers of the same turn that come a few microtasks later still belong to the group.
  for (let i = 0; i < 10; i++) await Promise.resolve();
  log.append(ascii("c"));
  assertEquals([log.durableSeq, log.lastSeq], [0, 3]);
  const promise = log.durable(1);
  assertStrictEquals(log.durable(3), promise);
  await promise;
  assertEquals([log.durableSeq, heard, log.stats().groups, log.stats().syncs], [3, [3], 1, 1]);
  await log.durable(2);
  await log.close();
});

Deno.test("Log.append() gathers the next group while a sync runs", async () => {
  const { log } = await openFound(createFaultFs(3));
  const heard: number[] = [];
  log.onDurable((seq) => {
    heard.push(seq);
    if (seq < 20) { for (let i = 0; i < 5; i++) log.append(ascii("more")); }
  });
  for (let i = 0; i < 5; i++) log.append(ascii("first"));
  await log.durable(5);
  while (log.durableSeq < 20) await log.durable(log.lastSeq);
  assertEquals(heard, [5, 10, 15, 20]);
  await log.close();
});

Deno.test("Log.append() refuses what it cannot take", async () => {
  const { log } = await openFound(createFaultFs(1));
  assertThrows(() => log.append(new Uint8Array(0)), RangeError, "must be 1..16777216, got 0");
  assertThrows(() => log.append(new Uint8Array(MAX_RECORD_BYTES + 1)), RangeError);
  assertThrows(() => log.durable(1), RangeError, "the last one is 0");
  const largest = new Uint8Array(MAX_RECORD_BYTES);
  log.append(largest);
  log.append(largest);
  assertEquals(log.stats().pendingBytes, MAX_PENDING_BYTES - 24);
  const full = assertThrows(() => log.append(ascii("x")), LogError, "waiting for the disk");
  assertEquals(full.code, "full");
  await log.durable(2);
  assertEquals(log.append(ascii("x")), 3);
  await log.close();
  assertEquals(assertThrows(() => log.append(ascii("y")), LogError).code, "closed");
});

Deno.test("openLog() hands out what was appended, across segments, and goes on numbering", async () => {
  const fs = createFaultFs(1);
  await fillLog(fs, 40);
  assert(fs.paths().length >= 3, fs.paths().join());
  const { log, found } = await openFound(fs);
  assertEquals(found.length, 40);
  assertEquals(found[39]!.slice(0, 13), "40 record 40.");
  assertEquals(log.append(ascii("next")), 41);
  const { recovery } = log;
  assertEquals([recovery.records, recovery.recordBytes, recovery.cutBytes], [40, 12_000, 0]);
  await log.close();
  await log.close();
});

Deno.test("openLog() cuts a torn tail and says how many bytes", async () => {
  const fs = createFaultFs(1);
  await fillLog(fs, 20);
  const path = fs.paths().at(-1)!;
  const whole = fs.readFile(path);
  fs.writeFile(path, whole.subarray(0, whole.length - 7));
  const { log, found } = await openFound(fs);
  assertEquals(found.length, 19);
  assertEquals(log.recovery.cutBytes, 301);
  assertEquals(
    log.recovery.cutReason,
    `${path} at byte ${whole.length - 308}: the file ends within a record, 7 bytes short`,
  );
  assertEquals(log.append(ascii("again")), 20);
  await log.close();
  const second = await openFound(fs);
  assertEquals(second.found.at(-1), "20 again");
  assertEquals(second.log.recovery.cutBytes, 0);
  await second.log.close();
});

Deno.test("openLog() takes a tail of zeros for torn", async () => {
  const fs = createFaultFs(1);
  await fillLog(fs, 5);
  const path = fs.paths().at(-1)!;
  fs.writeFile(path, new Uint8Array([...fs.readFile(path), ...new Uint8Array(5000)]));
  const { log, found } = await openFound(fs);
  assertEquals([found.length, log.recovery.cutBytes], [5, 5000]);
  await log.close();
});

Deno.test("openLog() refuses damage wherever it can be told, with file and offset, and changes nothing", async () => {
  const pristine = createFaultFs(1);
  await fillLog(pristine, 30);
  const paths = pristine.paths();
  assertEquals(paths.length, 3);
  let refused = 0, cut = 0;
  for (const path of paths) {
    const isLast = path === paths.at(-1);
    const whole = pristine.readFile(path);
    const lastGroupAt = isLast ? whole.length - 24 - 5 * 308 : Infinity;
    for (let at = 0; at < whole.length; at += at < 120 ? 1 : 37) {
      const fs = createFaultFs(2);
      for (const other of paths) fs.writeFile(other, pristine.readFile(other));
      const bytes = whole.slice();
      bytes[at]! ^= 1 << (at % 8);
      fs.writeFile(path, bytes);
      if (at >= lastGroupAt) {
        const { log, found } = await openFound(fs);
        assert(found.length >= 25 && found.length < 30 && log.recovery.cutBytes > 0, `byte ${at}`);
        await log.close();
        cut++;
        continue;
      }
      const error = await assertRejects(() => openFound(fs), LogError);
      // The two bytes after the version are not yet used, but the header's CRC holds them too.
      assertEquals([error.code, error.file], ["damaged", path], `byte ${at}`);
      assert(error.offset! <= at && at - error.offset! < 340, `byte ${at} was reported at ${error.offset}`);
      assertEquals(fs.readFile(path), bytes);
      refused++;
    }
  }
  assert(refused > 300 && cut > 30, `${refused} refused, ${cut} cut`);
});

Deno.test("openLog() refuses a missing segment, a cut one before the last, and a missing beginning", async () => {
  const pristine = createFaultFs(1);
  await fillLog(pristine, 40);
  const [first, second, third] = pristine.paths() as [string, string, string];
  const openWith = async (change: (fs: FaultFs) => void, leftOut: string) => {
    const fs = createFaultFs(2);
    for (const path of pristine.paths()) if (path !== leftOut) fs.writeFile(path, pristine.readFile(path));
    change(fs);
    return await assertRejects(() => openFound(fs), LogError);
  };
  const gap = await openWith(() => {}, second);
  assertEquals([gap.code, gap.file], ["damaged", third]);
  assert(gap.message.includes("are in no file"), gap.message);
  const beginning = await openWith(() => {}, first);
  assertEquals([beginning.code, beginning.file], ["damaged", first]);
  assert(beginning.message.includes("the segment that holds record 1 is missing"), beginning.message);
  const short = await openWith((fs) => fs.writeFile(second, pristine.readFile(second).subarray(0, 700)), "");
  assertEquals([short.code, short.file], ["damaged", second]);
  const renamed = await openWith((fs) => fs.writeFile(first, pristine.readFile(second)), "");
  assert(renamed.message.includes("the header says"), renamed.message);
});

Deno.test("openLog() gives the lock back when it refuses", async () => {
  const fs = createFaultFs(1);
  fs.writeFile(`${DIRECTORY}/segment-0000000000000002.log`, new Uint8Array(100));
  assertEquals((await assertRejects(() => openFound(fs), LogError)).code, "damaged");
  assertEquals((await assertRejects(() => openFound(fs), LogError)).code, "damaged");
});

Deno.test("openLog() refuses a directory that is in use", async () => {
  const fs = createFaultFs(1);
  const { log } = await openFound(fs);
  const error = await assertRejects(() => openFound(fs), LogError, "/log is in use by another process");
  assertEquals(error.code, "in_use");
  await log.close();
  await (await openFound(fs)).log.close();
});

Deno.test("Log.snapshot() replaces what it covers, beside running appends", async () => {
  const fs = createFaultFs(1);
  await fillLog(fs, 40);
  const { log } = await openFound(fs, { segmentBytes: 4096 });
  const writing = log.snapshot(["the", "state"].map(ascii), 38);
  assertEquals((await assertRejects(() => log.snapshot([], 39), LogError)).code, "busy");
  log.append(ascii("during"));
  await writing;
  await log.snapshot([ascii("nothing new")], 20);
  await assertRejects(() => log.snapshot([], 42), RangeError, "coversSeq must be 1..41, got 42");
  const stats = log.stats();
  assertEquals([stats.snapshotSeq, stats.snapshots, stats.segments], [38, 1, 1]);
  await log.close();
  assertEquals(fs.paths().map((path) => path.slice(5, 13)), ["segment-", "snapshot"]);
  const again = await openFound(fs);
  assertEquals(again.found.map((line) => line.slice(0, 14)), [
    "snapshot the",
    "snapshot state",
    "39 record 39..",
    "40 record 40..",
    "41 during",
  ]);
  await again.log.close();
});

Deno.test("Log.snapshot() leaves a working log when it fails", async () => {
  const fs = createFaultFs(1);
  const { log } = await openFound(fs);
  await log.durable(log.append(ascii("one")));
  await assertRejects(() => log.snapshot(throwing(), 1), Error, "the caller's own");
  await assertRejects(() => log.snapshot([new Uint8Array(0)], 1), RangeError);
  // Create, write, write, sync, …: the third is the body's write.
  fs.arm(3, "enospc");
  const error = await assertRejects(() => log.snapshot([ascii("state")], 1), LogError, "The disk is full");
  assertEquals([error.code, log.failed], ["io", undefined]);
  assertEquals(fs.paths(), ["/log/segment-0000000000000001.log"]);
  fs.freeSpace();
  await log.durable(log.append(ascii("two")));
  await log.snapshot([ascii("state")], 2);
  await log.close();
  const { log: reopened, found } = await openFound(fs);
  assertEquals(found, ["snapshot state"]);
  await reopened.close();
});

Deno.test("Log.close() gives up a snapshot that is being written", async () => {
  const fs = createFaultFs(1);
  const { log } = await openFound(fs);
  log.append(ascii("one"));
  let closing: Promise<void> | undefined;
  const endless = (function* () {
    for (let i = 0;; i++) {
      if (i === 100) closing = log.close();
      yield new Uint8Array(10_000);
    }
  })();
  const error = await assertRejects(() => log.snapshot(endless, 1), LogError);
  assertEquals(error.code, "closed");
  await closing;
  const { log: reopened, found } = await openFound(fs);
  assertEquals(found, ["1 one"]);
  assertEquals(fs.paths(), ["/log/segment-0000000000000001.log"]);
  await reopened.close();
});

Deno.test("openLog() passes over a damaged newest snapshot only while nothing is lost by it", async () => {
  const fs = createFaultFs(1);
  const { log } = await openFound(fs);
  for (const name of ["one", "two", "three"]) await log.durable(log.append(ascii(name)));
  const segment = fs.readFile("/log/segment-0000000000000001.log");
  await log.snapshot([ascii("state")], 2);
  await log.close();
  const path = "/log/snapshot-0000000000000002.snap";
  const bytes = fs.readFile(path);
  bytes[42]! ^= 1;
  fs.writeFile(path, bytes);
  const first = await openFound(fs);
  assertEquals(first.found, ["1 one", "2 two", "3 three"]);
  assertEquals(first.log.recovery.skippedSnapshots.length, 1);
  await first.log.close();

  const alone = createFaultFs(1);
  alone.writeFile(path, bytes);
  alone.writeFile("/log/segment-0000000000000003.log", segment);
  const error = await assertRejects(() => openFound(alone), LogError);
  assertEquals([error.code, error.file, error.offset], ["damaged", path, 32]);
  alone.writeFile(path, bytes.subarray(0, bytes.length - 1));
  assert(
    (await assertRejects(() => openFound(alone), LogError)).message.includes("the snapshot has no footer"),
  );
});

for (
  const [fault, advice] of [["eio", "The disk reports errors"], [
    "enospc",
    "The disk is full: free some space",
  ]] as const
) {
  Deno.test(`Log stops and says why when a write ends in ${fault}, and keeps what is durable`, async () => {
    const fs = createFaultFs(1);
    const { log } = await openFound(fs);
    await log.durable(log.append(ascii("kept")));
    fs.arm(1, fault);
    const seq = log.append(ascii("lost"));
    const error = await assertRejects(() => log.durable(seq), LogError, advice);
    assertEquals([error.code, error.file], ["failed", "/log/segment-0000000000000001.log"]);
    assert(error.message.startsWith("cannot write to /log/segment-"), error.message);
    assertStrictEquals(log.failed, error);
    assertStrictEquals(await log.stopped, error);
    assertStrictEquals(assertThrows(() => log.append(ascii("no")), LogError), error);
    await log.durable(1);
    assertStrictEquals(await assertRejects(() => log.durable(2)), error);
    assertStrictEquals(await assertRejects(() => log.snapshot([], 1)), error);
    await log.close();
    fs.freeSpace();
    const { log: reopened, found } = await openFound(fs);
    assertEquals(found, ["1 kept"]);
    await reopened.close();
  });
}

Deno.test("Log never syncs again after a sync failed", async () => {
  const fs = createFaultFs(1);
  const { log } = await openFound(fs);
  fs.arm(2, "eio");
  log.append(ascii("a"));
  const error = await assertRejects(() => log.durable(1), LogError, "cannot sync /log/segment-");
  assertEquals(error.code, "failed");
  const { operations } = fs;
  await log.close();
  assertEquals(fs.operations, operations);
});

Deno.test("Log with durability interval acknowledges what is written and syncs after the interval", async () => {
  const fs = createFaultFs(1);
  const { log } = await openFound(fs, { durability: "interval", intervalMs: 5 });
  await log.durable(log.append(ascii("a")));
  assertEquals([log.durableSeq, log.stats().syncs], [1, 0]);
  const deadline = performance.now() + 5_000;
  while (log.stats().syncs === 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assertEquals(log.stats().syncs, 1);
  fs.restart(true);
  await log.close();
  const { log: reopened, found } = await openFound(fs);
  assertEquals(found, ["1 a"]);
  await reopened.close();
});

Deno.test("Log with durability none syncs only when it closes", async () => {
  const fs = createFaultFs(1);
  const { log } = await openFound(fs, { durability: "none" });
  for (let i = 0; i < 10; i++) await log.durable(log.append(ascii("a")));
  assertEquals([log.stats().groups, log.stats().syncs], [10, 0]);
  await log.close();
  fs.restart(true);
  const { log: reopened, found } = await openFound(fs);
  assertEquals(found.length, 10);
  await reopened.close();
});

Deno.test("openLog() refuses options out of range", async () => {
  const fs = createFaultFs(1);
  await assertRejects(
    () => openFound(fs, { segmentBytes: 100 }),
    RangeError,
    "segmentBytes must be >= 4096, got 100",
  );
  await assertRejects(() => openFound(fs, { intervalMs: 0 }), RangeError, "intervalMs must be >= 1, got 0");
});

function* throwing(): Iterable<Uint8Array> {
  yield ascii("one");
  throw new Error("the caller's own");
}
