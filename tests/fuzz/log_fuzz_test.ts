/** Random damage to a log's files: opening either refuses with a listed error or gives a prefix of what was written. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { LogError, openLog } from "../../storage/log/mod.ts";
import { createFaultFs, type FaultFs } from "../../storage/testing/fault_fs.ts";
import { sameBytes } from "../../storage/testing/log_suite.ts";

const DIRECTORY = "/log";
const RUNS = 1_500;
const SALT = 0xa5a5a5a5;

/** One change to one file; places are fractions of its length, so that they shrink well. */
const damage = fc.record({
  file: fc.nat(9),
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  how: fc.constantFrom("flip", "cut", "zero", "insert", "overwrite", "remove", "append"),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 80 }),
});

/** Records that look like the log's own bytes: a value may well hold a copy of a segment. */
async function writeLog(fs: FaultFs): Promise<Uint8Array[]> {
  const log = await openLog({
    fs,
    directory: DIRECTORY,
    durability: "always",
    segmentBytes: 4096,
    salt: () => SALT,
    clock: { now: () => 0, wallMs: () => 0 },
  });
  const history: Uint8Array[] = [];
  for (let seq = 1; seq <= 60; seq++) {
    const nested = seq % 10 === 0 ? fs.readFile(fs.paths().at(-1)!).subarray(0, 600) : undefined;
    const payload = nested ?? Uint8Array.from({ length: 20 + (seq * 37) % 200 }, (_, i) => seq * i);
    history.push(payload);
    log.append(payload);
    if (seq % 3 === 0) await log.durable(seq);
    if (seq === 30) await log.snapshot(history.slice(0, 20), 20);
  }
  await log.close();
  return history;
}

Deno.test("openLog() never invents a record, whatever happened to its files", async () => {
  const pristine = createFaultFs(1);
  const history = await writeLog(pristine);
  const paths = pristine.paths();
  assert(paths.length >= 4, paths.join());
  let refused = 0, opened = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 3 }), async (changes) => {
      const fs = createFaultFs(7);
      const files = new Map(paths.map((path) => [path, pristine.readFile(path)]));
      for (const change of changes) applyDamage(files, paths[change.file % paths.length]!, change);
      for (const [path, bytes] of files) fs.writeFile(path, bytes);
      const found: Uint8Array[] = [];
      try {
        const log = await openLog({
          fs,
          directory: DIRECTORY,
          durability: "always",
          onSnapshot: (record) => void found.push(record),
          onRecord: (payload, seq) => {
            found.push(payload);
            assertEquals(seq, found.length);
          },
        });
        await log.close();
        opened++;
      } catch (error) {
        assert(
          error instanceof LogError && (error.code === "damaged" || error.code === "version"),
          String(error),
        );
        assert(error.file !== undefined && error.offset !== undefined, error.message);
        refused++;
      }
      found.forEach((record, i) => assert(sameBytes(record, history[i]!), `record ${i + 1} was invented`));
    }),
    { numRuns: RUNS, seed: 20_260_101 },
  );
  assert(refused > RUNS / 4 && opened > 20, `${refused} refused, ${opened} opened`);
});

function applyDamage(
  files: Map<string, Uint8Array>,
  path: string,
  change: { at: number; how: string; bytes: Uint8Array },
): void {
  const whole = files.get(path);
  if (whole === undefined) return;
  const at = Math.floor(change.at * whole.length);
  const { bytes } = change;
  const before = whole.subarray(0, at);
  switch (change.how) {
    case "remove":
      files.delete(path);
      return;
    case "cut":
      files.set(path, before.slice());
      return;
    case "insert":
      files.set(path, new Uint8Array([...before, ...bytes, ...whole.subarray(at)]));
      return;
    case "append":
      files.set(path, new Uint8Array([...whole, ...bytes]));
      return;
    default: {
      const other = whole.slice();
      bytes.subarray(0, whole.length - at).forEach((byte, i) => {
        if (change.how === "flip") other[at + i]! ^= i === 0 ? byte | 1 : 0;
        else other[at + i] = change.how === "zero" ? 0 : byte;
      });
      files.set(path, other);
    }
  }
}
