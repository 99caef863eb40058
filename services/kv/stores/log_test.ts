import { createManualClock } from "../../runtime/clock.ts";
import { assert, assertEquals } from "@std/assert";
import { createFaultFs, createPrng, type Fault, type FaultFs } from "../../../storage/testing/fault_fs.ts";
import { kvConfigSchema } from "../config.ts";
import { createKvModule, type KvModule } from "../mod.ts";
import type { PutOp } from "../txn.ts";
import { openLogStore } from "./log.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);
const KEYS = 8;

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

function put(key: string, value: string): PutOp {
  return {
    kind: "put",
    key: bytes(key),
    value: bytes(value),
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
  };
}

/** What was answered: of each key the revision and value of the last acknowledged put. */
interface Told {
  readonly keys: Map<string, { revision: number; value: string }>;
  readonly revisions: Map<number, string>;
}

/** Writes in groups until the log stops or all groups are done. Refused writes are not acknowledged: nothing is told. */
async function write(module: KvModule, told: Told, random: () => number, groups: number): Promise<void> {
  for (let group = 0; group < groups && module.service.failure === undefined; group++) {
    const waiting: Promise<void>[] = [];
    for (let i = 0; i < 4; i++) {
      const key = `k${Math.floor(random() * KEYS)}`;
      const value = `${group}.${i}:`.padEnd(Math.floor(random() * 3_000), "x");
      const note = ({ revision }: { revision: number }) => {
        assert(!told.revisions.has(revision), `revision ${revision} was given twice`);
        told.revisions.set(revision, value);
        const before = told.keys.get(key);
        if (before === undefined || before.revision < revision) told.keys.set(key, { revision, value });
      };
      try {
        waiting.push(module.service.put(put(key, value)).then(note, () => {}));
      } catch {
        // The log has stopped; the loop above ends.
      }
    }
    await Promise.all(waiting);
  }
}

function check(module: KvModule, told: Told): void {
  const { service } = module;
  assert(service.revision >= Math.max(1, ...told.revisions.keys()), "an acknowledged revision is gone");
  for (const [key, { revision, value }] of told.keys) {
    const kv = service.range({ key: bytes(key), range: "single" }).kvs[0];
    assert(kv !== undefined && kv.modRevision >= revision, `the put of ${key} at ${revision} is lost`);
    if (kv.modRevision === revision) assertEquals(text(kv.value), value);
  }
}

/** One life, a fault at operation `operation`, a restart and a second life. */
async function trial(seed: number, fault: Fault, operation: number): Promise<boolean> {
  const fs = createFaultFs(seed);
  const random = createPrng(seed + 1);
  const told: Told = { keys: new Map(), revisions: new Map() };
  let first: KvModule | undefined;
  fs.arm(operation, fault);
  try {
    first = await open(fs);
    await write(first, told, random, 25);
    check(first, told);
  } catch (error) {
    // Only opening may be refused, by the fault.
    if (first !== undefined) throw error;
  }
  const { faulted } = fs;
  await first?.close().catch(() => {});
  fs.freeSpace();
  fs.restart(fault === "crash");
  const second = await open(fs);
  check(second, told);
  await write(second, told, random, 3);
  assertEquals(second.service.failure, undefined);
  check(second, told);
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
