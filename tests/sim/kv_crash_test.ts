/** The key-value store against the death of its machine: whatever the disk loses, tears, reorders or refuses, the store is
 *  some prefix of what it was asked for, and everything that anybody was told of is in it. */
import { assert } from "@std/assert";
import type { Fault } from "../../storage/testing/fault_fs.ts";
import { newKvTally, runKvTrial, runKvWorld } from "./kv_world.ts";
import { simTest } from "./seeds.ts";

simTest("KvService on the log is a prefix of its model after every crash, with all that it told", {
  seeds: 2_500,
  soakSeeds: 60_000,
}, async (seed) => {
  await runKvWorld(seed, 1 + seed % 2);
});

Deno.test("KvService's simulated worlds come to everything that they are about", async () => {
  const tally = newKvTally();
  for (let seed = 1; seed <= 60; seed++) await runKvWorld(seed, 2, tally);
  for (const [what, count] of Object.entries(tally)) assert(count > 0, `no ${what} in 60 worlds`);
});

Deno.test("KvService's simulated worlds are the same for the same seed", async () => {
  const [first, again] = [newKvTally(), newKvTally()];
  for (const tally of [first, again]) {
    for (let seed = 1; seed <= 3; seed++) await runKvWorld(seed, 3, tally);
  }
  assert(JSON.stringify(first) === JSON.stringify(again), JSON.stringify([first, again]));
});

/** Seeds of the lives that are led again and again, with the fault at another operation each time. */
const SCRIPTS = Array.from({ length: Deno.env.get("AETHERFLOW_SOAK") === "1" ? 40 : 2 }, (_, i) => i + 1);
/** Operations that these lives have together at least, so that the loop below means something. */
const OPERATIONS_MIN = 60;
const FAULTS: readonly Fault[] = ["eio", "enospc", "short", "crash", "kill"];

Deno.test("KvService on the log is right after a fault at any file operation of a life", async () => {
  for (const fault of FAULTS) {
    let operations = 0;
    for (const script of SCRIPTS) {
      let operation = 1;
      try {
        for (; await runKvTrial(script, { fault, operation }); operation++) operations++;
      } catch (cause) {
        throw new Error(`life ${script}, ${fault} at operation ${operation}: ${cause}`, { cause });
      }
    }
    assert(operations >= OPERATIONS_MIN, `${fault}: only ${operations} operations`);
  }
});
