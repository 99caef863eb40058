import { createManualClock } from "../../runtime/clock.ts";
import { assert, assertEquals } from "@std/assert";
import { createFaultFs, createPrng, type Fault, type FaultFs } from "../../../storage/testing/fault_fs.ts";
import { kvConfigSchema } from "../config.ts";
import { createKvModule, type KvModule } from "../mod.ts";
import { checkTold, newTold, writeGroups } from "../testing/acknowledged.ts";
import { openLogStore } from "./log.ts";

function open(fs: FaultFs): Promise<KvModule> {
  const config = kvConfigSchema.parse({
    segmentBytes: 65_536,
    snapshotLogBytes: 65_536,
    retainRevisions: 40,
  });
  let now = 0;
  return createKvModule({
    openStore: (replay) =>
      openLogStore({
        fs,
        directory: "/kv",
        durability: "always",
        segmentBytes: config.segmentBytes,
        clock: { now: () => now++, wallMs: () => now },
        salt: () => 7,
      }, replay),
    config,
    random: { fill: (target) => target.fill(3) },
    log: { info: () => {}, error: () => {} },
    clock: createManualClock(),
    pause: () => Promise.resolve(),
  });
}

/** One life, a fault at operation `operation`, a restart and a second life. */
async function trial(seed: number, fault: Fault, operation: number): Promise<boolean> {
  const fs = createFaultFs(seed);
  const random = createPrng(seed + 1);
  const told = newTold();
  let first: KvModule | undefined;
  fs.arm(operation, fault);
  try {
    first = await open(fs);
    await writeGroups(first, told, random, 25);
    checkTold(first, told);
  } catch (error) {
    // Only opening may be refused, by the fault.
    if (first !== undefined) throw error;
  }
  const { faulted } = fs;
  await first?.close().catch(() => {});
  fs.freeSpace();
  fs.restart(fault === "crash");
  const second = await open(fs);
  checkTold(second, told);
  await writeGroups(second, told, random, 3);
  assertEquals(second.service.failure, undefined);
  checkTold(second, told);
  await second.close();
  return faulted;
}

Deno.test("KvService on the log loses no acknowledged write when the n-th file operation fails", async () => {
  const faults: Fault[] = ["eio", "enospc", "short", "crash", "kill"];
  for (const fault of faults) {
    let operation = 1;
    try {
      for (; operation < 400; operation += operation < 40 ? 1 : 7) {
        if (!await trial(operation, fault, operation)) break;
      }
    } catch (error) {
      throw new Error(`fault ${fault} at operation ${operation} (seed ${operation})`, { cause: error });
    }
    assert(operation > 40, `${fault}: only ${operation} operations were tried`);
  }
});
