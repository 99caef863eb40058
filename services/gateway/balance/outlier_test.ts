import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { OutlierRecord, type OutlierSettings, recordFailure, recordSuccess } from "./outlier.ts";

const SETTINGS: OutlierSettings = {
  consecutiveFailures: 5,
  baseEjectionMs: 30_000,
  maxEjectionMs: 300_000,
  maxEjectionPercent: 10,
};

const records = (count: number) => Array.from({ length: count }, () => new OutlierRecord());

/** Fails `record` until it is ejected; false when that does not happen. */
function eject(record: OutlierRecord, all: readonly OutlierRecord[], nowMs: number): boolean {
  for (let i = 0; i < 5; i++) if (recordFailure(record, all, SETTINGS, nowMs)) return true;
  return false;
}

Deno.test("an instance is ejected at the fifth failure in a row, for 30 s", () => {
  const all = records(2);
  const [record] = all as [OutlierRecord, OutlierRecord];
  for (let i = 0; i < 4; i++) assertEquals(recordFailure(record, all, SETTINGS, 0), false);
  recordSuccess(record);
  for (let i = 0; i < 4; i++) assertEquals(recordFailure(record, all, SETTINGS, 0), false);
  assertEquals(recordFailure(record, all, SETTINGS, 0), true);
  assertEquals([record.isEjected(29_999), record.isEjected(30_000)], [true, false]);
});

Deno.test("each ejection is longer than the one before, up to the most, and good times shorten it again", () => {
  const all = records(2);
  const [record] = all as [OutlierRecord, OutlierRecord];
  let nowMs = 0;
  const lengths = Array.from({ length: 12 }, () => {
    assert(eject(record, all, nowMs));
    const length = record.ejectedUntilMs - nowMs;
    nowMs = record.ejectedUntilMs;
    return length / 1000;
  });
  assertEquals(lengths, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
  nowMs += 30_000 * 20;
  assert(eject(record, all, nowMs));
  assertEquals(record.ejectedUntilMs - nowMs, 30_000);
});

Deno.test("no more than a tenth of the instances are out at once, one in any case, and never the last", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.array(fc.nat(49), { maxLength: 300 }),
      (count, failing) => {
        const all = records(count);
        for (const [i, which] of failing.entries()) recordFailure(all[which % count]!, all, SETTINGS, i);
        const out = all.filter((record) => record.isEjected(failing.length)).length;
        assert(out <= Math.max(1, Math.floor(count / 10)));
        assert(out < count);
      },
    ),
  );
  const all = records(1);
  assertEquals(eject(all[0]!, all, 0), false);
});

Deno.test("an instance that was replaced starts with nothing against it", () => {
  const all = records(2);
  eject(all[0]!, all, 0);
  all[0]!.clear();
  assertEquals([all[0]!.isEjected(1), all[0]!.ejections, all[0]!.failuresInARow], [false, 0, 0]);
});
