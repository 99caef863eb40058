import { assertEquals } from "@std/assert";
import {
  createAutoCompaction,
  periodicCompaction,
  retentionProblem,
  revisionCompaction,
} from "./auto_compaction.ts";

const HOUR_MS = 3_600_000;

/** Runs a compaction for `ticks` ticks; the revision is that of the tick. Returns what was compacted, by tick. */
function run(
  hours: number,
  ticks: number,
  failing: readonly number[] = [],
): [tick: number, revision: number][] {
  const compaction = periodicCompaction(hours * HOUR_MS, 0, 0);
  const compacted: [number, number][] = [];
  for (let tick = 1; tick <= ticks; tick++) {
    const now = tick * compaction.tickMs;
    const revision = compaction.tick(now, tick);
    if (revision === undefined) continue;
    compacted.push([tick, revision]);
    if (!failing.includes(tick)) compaction.done(now, revision);
  }
  return compacted;
}

Deno.test("periodicCompaction() compacts once a period to the revision of a period ago, up to an hour", () => {
  assertEquals(run(0.5, 40), [[10, 0], [20, 9], [30, 19], [40, 29]]);
  assertEquals(run(1, 30), [[10, 0], [20, 9], [30, 19]]);
});

Deno.test("periodicCompaction() of several hours waits for the first, then compacts every hour", () => {
  assertEquals(run(3, 60), [[30, 0], [40, 9], [50, 19], [60, 29]]);
});

Deno.test("periodicCompaction() tries again at the next tick after a failure", () => {
  assertEquals(run(1, 22, [10, 11]), [[10, 0], [11, 0], [12, 1], [22, 11]]);
});

Deno.test("revisionCompaction() keeps the last revisions and does not ask for one twice", () => {
  const compaction = revisionCompaction(100);
  const tick = (revision: number) => {
    const wanted = compaction.tick(0, revision);
    if (wanted !== undefined) compaction.done(0, wanted);
    return wanted;
  };
  assertEquals([tick(50), tick(100), tick(101), tick(101), tick(180)], [
    undefined,
    undefined,
    1,
    undefined,
    80,
  ]);
});

Deno.test("createAutoCompaction() takes etcd's ways of writing a retention", () => {
  const tickOf = (mode: "retain" | "periodic" | "revision" | "off", retention: string | number) =>
    retentionProblem({ mode, retention }) ?? createAutoCompaction({ mode, retention }, 0, 1)?.tickMs;
  assertEquals(tickOf("periodic", 2), HOUR_MS / 10);
  assertEquals(tickOf("periodic", "30m"), HOUR_MS / 20);
  assertEquals(tickOf("periodic", "1m30s"), 9_000);
  assertEquals(tickOf("revision", "1000"), 300_000);
  assertEquals(tickOf("retain", 0), undefined);
  assertEquals(tickOf("off", 0), undefined);
  const time = "expected a time of at least 1s, such as 10h, 30m or 90s, or a number of hours";
  for (const retention of ["0", "", "h", "-1h", "1d", 1.5]) assertEquals(tickOf("periodic", retention), time);
  for (const retention of ["0", "1h", -5]) {
    assertEquals(tickOf("revision", retention), "expected a number of revisions, from 1");
  }
});
