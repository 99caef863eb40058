import { assertEquals } from "@std/assert";
import { createManualClock } from "../../runtime/clock.ts";
import { startCompactionTimer } from "./compaction_timer.ts";
import { KvError } from "../errors.ts";

Deno.test("startCompactionTimer() goes on after a failure, and takes a compaction by others for its own", async () => {
  const clock = createManualClock();
  const asked: number[] = [];
  const outcomes = [new KvError("readOnly"), undefined, new KvError("compacted")];
  const errors: string[] = [];
  let revision = 1_000;
  let tick: (() => Promise<void>) | undefined;
  const service = {
    get revision() {
      return revision;
    },
    compact(to: number) {
      asked.push(to);
      const outcome = outcomes.shift();
      return outcome === undefined ? Promise.resolve(revision) : Promise.reject(outcome);
    },
  };
  const stop = startCompactionTimer(service, {
    every(ms, run) {
      assertEquals(ms, 300_000);
      tick = run;
      return () => tick = undefined;
    },
    clock,
    log: { info: () => {}, error: (message) => errors.push(message) },
    config: { mode: "revision", retention: 100 },
  });
  await tick!();
  assertEquals([asked, errors.length], [[900], 1]);
  await tick!();
  await tick!();
  assertEquals(asked, [900, 900]);
  revision = 1_500;
  await tick!();
  await tick!();
  assertEquals([asked, errors.length], [[900, 900, 1_400], 1]);
  stop();
  assertEquals(tick, undefined);
});

Deno.test("startCompactionTimer() starts nothing where the store or clients compact", () => {
  for (const mode of ["retain", "off"] as const) {
    const stop = startCompactionTimer({ revision: 1, compact: () => Promise.resolve(1) }, {
      every: () => {
        throw new Error("a timer was started");
      },
      clock: createManualClock(),
      log: { info: () => {}, error: () => {} },
      config: { mode, retention: 0 },
    });
    stop();
  }
});
