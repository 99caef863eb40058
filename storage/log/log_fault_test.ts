import { assert } from "@std/assert";
import { runTrial } from "../testing/log_suite.ts";
import type { Fault } from "../testing/fault_fs.ts";
import type { Durability } from "./mod.ts";

const DURABILITIES: Durability[] = ["always", "interval", "none"];
/** More than the scenario's usual number of operations, so that every one gets its turn. */
const OPERATIONS = 110;

for (const fault of ["eio", "enospc", "short", "crash", "kill"] satisfies Fault[]) {
  Deno.test(`Log keeps every acknowledged record when the n-th operation ends in ${fault}`, async () => {
    let faulted = 0;
    for (let operation = 1; operation <= OPERATIONS; operation++) {
      for (let round = 0; round < 4; round++) {
        const durability = DURABILITIES[round % 3]!;
        const result = await runTrial({ seed: operation * 1_000 + round, durability, fault, operation });
        if (result.faulted) faulted++;
      }
    }
    assert(faulted > OPERATIONS * 2, `only ${faulted} trials met their fault`);
  });
}
