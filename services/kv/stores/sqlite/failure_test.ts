/** What becomes of the store on SQLite when its file cannot grow, its process is killed, or its file system refuses. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { SqliteError } from "../../../../storage/sqlite/mod.ts";
import { createPrng } from "../../../../storage/testing/fault_fs.ts";
import { projectFile } from "../../../../tests/support/paths.ts";
import { KvError } from "../../errors.ts";
import { checkTold, newTold, note, plainPut, type Told, writeGroups } from "../../testing/acknowledged.ts";
import { openSqliteModule } from "../../testing/sqlite_module.ts";
import { valueOf } from "../../testing/sqlite_writer.ts";

const INDEXES = ["memory", "disk"] as const;
type Index = (typeof INDEXES)[number];

async function inDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-kv-" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** One life with a file of so many pages at most, and one without the bound. Whether the bound was met. */
async function fillUp(path: string, index: Index, maxPages: number): Promise<boolean> {
  const told = newTold();
  const random = createPrng(maxPages);
  let wasMet = false;
  try {
    const first = await openSqliteModule({ path, index, maxPages, retainRevisions: 70 });
    await writeGroups(first, told, random, 25);
    const { failure } = first.service;
    wasMet = failure !== undefined;
    if (wasMet) {
      assert(failure!.message.includes("database or disk is full"), failure!.message);
      const refused = assertThrows(() => first.service.put(plainPut("k", "v")), KvError) as KvError;
      assertEquals(refused.kind, "readOnly");
    }
    checkTold(first, told);
    await first.close();
  } catch (error) {
    // Only opening may be refused, and only for this.
    if (!(error instanceof SqliteError)) throw error;
    assertEquals(error.code, "full");
    wasMet = true;
  }
  const second = await openSqliteModule({ path, index });
  checkTold(second, told);
  await writeGroups(second, told, random, 3);
  assertEquals(second.service.failure, undefined);
  checkTold(second, told);
  await second.close();
  return wasMet;
}

for (const index of INDEXES) {
  Deno.test(`KvService on SQLite, index ${index}, loses no acknowledged write when the n-th page has no room`, () =>
    inDirectory(async (directory) => {
      let pages = 1;
      for (; pages < 400; pages += pages < 40 ? 1 : 9) {
        const wasMet = await fillUp(`${directory}/${pages}.sqlite`, index, pages)
          .catch((error) => {
            throw new Error(`with ${pages} pages`, { cause: error });
          });
        if (!wasMet) break;
      }
      assert(pages > 40 && pages < 400, `${pages} pages sufficed`);
    }));
}

/** A life of the writer in a process of its own, until it has said `lines` lines or ended by itself. */
async function live(
  told: Told,
  { path, index, life, lines, fileBlocks }: {
    path: string;
    index: Index;
    life: number;
    lines: number;
    /** Largest file it may write, in blocks of 1,024 bytes; what goes beyond is refused, not a signal. */
    fileBlocks?: number;
  },
): Promise<string | undefined> {
  const run = [Deno.execPath(), "run", "-q", "--config", projectFile("deno.json"), "-A"];
  const args = [...run, projectFile("services/kv/testing/sqlite_writer.ts"), path, index, String(life)];
  const limit = fileBlocks === undefined ? "" : `trap '' XFSZ; ulimit -f ${fileBlocks};`;
  const child = new Deno.Command("bash", {
    args: ["-c", `${limit} exec "$@"`, "bash", ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let said = 0;
  let failure: string | undefined;
  let rest = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    const whole = (rest + chunk).split("\n");
    rest = whole.pop()!;
    for (const line of whole) {
      const [what, revision, count] = line.split(" ") as [string, string, string];
      if (what === "failed") failure = line;
      else if (what !== "open") note(told, what, Number(revision), valueOf(life, Number(count)));
      // No sleep: it is in the middle of some group by then.
      if (++said === lines) child.kill("SIGKILL");
    }
  }
  await child.status;
  return failure;
}

for (const index of INDEXES) {
  Deno.test(`KvService on SQLite, index ${index}, loses no acknowledged write and reuses no revision over SIGKILL`, () =>
    inDirectory(async (directory) => {
      const path = `${directory}/kv.sqlite`;
      const told = newTold();
      for (let life = 0; life < 4; life++) {
        assertEquals(await live(told, { path, index, life, lines: 150 + 97 * life }), undefined);
        const found = await openSqliteModule({ path, index });
        checkTold(found, told);
        await found.close();
      }
      assert(told.revisions.size > 1_000, `${told.revisions.size} puts were acknowledged`);
    }));

  Deno.test({
    name: `KvService on SQLite, index ${index}, loses no acknowledged write when its files may not grow`,
    ignore: Deno.build.os !== "linux",
    fn: () =>
      inDirectory(async (directory) => {
        for (const [life, fileBlocks] of [3, 40, 150, 333].entries()) {
          const path = `${directory}/${fileBlocks}.sqlite`;
          const told = newTold();
          const failure = await live(told, { path, index, life, lines: Infinity, fileBlocks });
          assert(/disk I\/O error|database or disk is full/.test(failure ?? ""), failure);
          const found = await openSqliteModule({ path, index });
          checkTold(found, told);
          await writeGroups(found, told, createPrng(life), 3);
          assertEquals(found.service.failure, undefined);
          checkTold(found, told);
          await found.close();
        }
      }),
  });
}

for (const durability of ["interval", "none"] as const) {
  Deno.test(`KvService on SQLite with durability ${durability} keeps what it acknowledged over a restart`, () =>
    inDirectory(async (directory) => {
      const told = newTold();
      for (let life = 0; life < 2; life++) {
        for (const index of INDEXES) {
          const module = await openSqliteModule({ path: `${directory}/kv.sqlite`, index, durability });
          checkTold(module, told);
          await writeGroups(module, told, createPrng(life), 10);
          checkTold(module, told);
          await module.close();
        }
      }
    }));
}
