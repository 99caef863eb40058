/** What every store of records does. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { CHANGES_MAX, LIST_MAX, type RecordStore } from "../auth/records.ts";

/** Opens an empty store; the suite closes it. */
export type OpenRecords = () => Promise<RecordStore> | RecordStore;

const CASES: Record<string, (records: RecordStore) => Promise<void>> = {
  "get() finds what was committed, any text": async (records) => {
    assertEquals(await records.get("a"), undefined);
    for (const value of ["", "plain", "line\nline", "ü\u0000✓😀", '{"a":[1]}']) {
      const before = await records.get("a");
      assert(await records.commit([{ key: "a", version: before?.version ?? 0, value }]));
      assertEquals((await records.get("a"))!.value, value);
    }
  },
  "commit() does all or nothing": async (records) => {
    assert(
      await records.commit([{ key: "a", version: 0, value: "1" }, { key: "b", version: 0, value: "1" }]),
    );
    const a = (await records.get("a"))!;
    const wrong = [
      [{ key: "c", version: 0, value: "1" }, { key: "a", version: 0, value: "2" }],
      [{ key: "c", version: 0, value: "1" }, { key: "a", version: a.version + 100, value: "2" }],
      [{ key: "c", version: 0, value: "1" }, { key: "d", version: 1 }],
      [{ key: "a", version: a.version, value: null }, { key: "b", version: a.version, value: null }],
    ];
    for (const changes of wrong) assertEquals(await records.commit(changes), false);
    assertEquals(await records.get("c"), undefined);
    assertEquals(await records.get("a"), a);
    // A condition alone changes nothing.
    assert(await records.commit([{ key: "c", version: 0, value: "1" }, { key: "a", version: a.version }]));
    assertEquals(await records.get("a"), a);
  },
  "a version never comes back, even when the record was removed in between": async (records) => {
    const versions: number[] = [];
    for (let i = 0; i < 3; i++) {
      assert(await records.commit([{ key: "a", version: 0, value: "same" }]));
      const { version } = (await records.get("a"))!;
      versions.push(version);
      assertEquals(await records.commit([{ key: "a", version: 0, value: "same" }]), false);
      assert(await records.commit([{ key: "a", version, value: null }]));
      assertEquals(await records.get("a"), undefined);
    }
    assertEquals([...new Set(versions)].sort((a, b) => a - b), versions);
  },
  "list() goes through a prefix in the order of keys, a page at a time": async (records) => {
    for (const key of ["x/b", "x/a", "x", "x0", "y/a", "x/c", "x/a/b"]) {
      assert(await records.commit([{ key, version: 0, value: `of ${key}` }]));
    }
    const all = await records.list("x/", "", LIST_MAX);
    assertEquals(all.map(({ key, value }) => [key, value]), [
      ["x/a", "of x/a"],
      ["x/a/b", "of x/a/b"],
      ["x/b", "of x/b"],
      ["x/c", "of x/c"],
    ]);
    assertEquals((await records.list("x/", "", 2)).map(({ key }) => key), ["x/a", "x/a/b"]);
    assertEquals((await records.list("x/", "x/a/b", 2)).map(({ key }) => key), ["x/b", "x/c"]);
    assertEquals(await records.list("x/", "x/c", 2), []);
    assertEquals(await records.list("nothing/", "", 2), []);
    await records.commit([{ key: "x/b", version: all[2]!.version, value: null }]);
    assertEquals((await records.list("x/", "", 9)).map(({ key }) => key), ["x/a", "x/a/b", "x/c"]);
  },
  "of many who change the same record at once, one wins": async (records) => {
    assert(await records.commit([{ key: "n", version: 0, value: "0" }]));
    const add = async () => {
      for (;;) {
        const { value, version } = (await records.get("n"))!;
        if (await records.commit([{ key: "n", version, value: String(Number(value) + 1) }])) return;
      }
    };
    await Promise.all(Array.from({ length: 20 }, add));
    assertEquals((await records.get("n"))!.value, "20");
  },
  "what is too much is refused": async (records) => {
    const changes = Array.from(
      { length: CHANGES_MAX + 1 },
      (_, i) => ({ key: `k${i}`, version: 0, value: "" }),
    );
    await refused(() => records.commit(changes));
    await refused(() => records.list("k", "", 0));
    await refused(() => records.list("k", "", LIST_MAX + 1));
    assertEquals(await records.list("k", "", 1), []);
  },
};

/** Runs the suite. */
export async function recordSuite(t: Deno.TestContext, open: OpenRecords): Promise<void> {
  for (const [name, run] of Object.entries(CASES)) {
    await t.step(name, async () => {
      const records = await open();
      try {
        await run(records);
      } finally {
        await records.close();
      }
    });
  }
}

async function refused(run: () => unknown): Promise<void> {
  let outcome: () => unknown;
  try {
    const result = await run();
    outcome = () => result;
  } catch (error) {
    outcome = () => {
      throw error;
    };
  }
  assertThrows(outcome, RangeError);
}
