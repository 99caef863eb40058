import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { SqliteError } from "../../../storage/sqlite/mod.ts";
import { StateSyncError } from "../errors.ts";
import type { DocumentRecord } from "../records.ts";
import type { DocumentStore } from "../store.ts";
import {
  changeOf,
  conflictOf,
  creationOf,
  documentOf,
  entryOf,
  lockOf,
  removalOf,
} from "../testing/builders.ts";
import { storeSuite, textOf } from "../testing/store_suite.ts";
import { openSqliteStore, type SqliteStoreOptions } from "./sqlite.ts";

function open(path: string, more: Partial<SqliteStoreOptions> = {}): DocumentStore {
  return openSqliteStore({ path, durability: "always", intervalMs: 100, clock: performance, ...more });
}

async function inDirectory(test: (path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-documents-" });
  try {
    await test(`${directory}/documents.sqlite`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Copies of the file and its log as they are on disk now: what a crash would leave. */
async function crashed(path: string, to: string): Promise<void> {
  await Deno.copyFile(path, to);
  await Deno.copyFile(`${path}-wal`, `${to}-wal`);
}

for (const durability of ["always", "interval", "none"] as const) {
  Deno.test(`the SQLite store, durability ${durability}`, (t) =>
    storeSuite(t, async () => {
      const directory = await Deno.makeTempDir({ prefix: "aetherflow-documents-" });
      const store = open(`${directory}/documents.sqlite`, { durability, intervalMs: 1 });
      return {
        store,
        async [Symbol.asyncDispose]() {
          await store.close();
          await Deno.remove(directory, { recursive: true });
        },
      };
    }));
}

/** All that a store has of a document and of all. */
async function everything(store: DocumentStore, id: string): Promise<unknown> {
  return {
    epoch: store.epoch,
    loaded: await store.load(id),
    entries: await store.entries(id, 1, 1_000),
    log: await store.entriesBySequence(1, 1_000),
    sequences: await store.sequences(),
    conflicts: await store.conflicts(id, false, "", 100),
    names: await store.names(id),
    named: await store.contentAt(id, 2),
    list: await store.list({ tag: "t", member: ["bob"] }, "", 100),
    counts: await store.counts(),
  };
}

async function fill(store: DocumentStore): Promise<string> {
  const [record, other] = [documentOf(1, { tags: ["t"] }), documentOf(2)];
  const shared = { ...record, permissions: { ...record.permissions, editors: ["bob"] } };
  const name = { version: 2, name: "two", userId: "ann", atMs: 1, state: new Uint8Array([7]) };
  const first = changeOf(record, 4, {
    record: shared,
    putNames: [name],
    putConflicts: [conflictOf(record.id, 1)],
  });
  await store.commit([creationOf(record), creationOf(other), first]);
  await store.commit([removalOf(other), changeOf(first.record, 2, { putLocks: [lockOf(record.id, "")] })]);
  await store.putSnapshot(record.id, { offset: 3, version: 3, state: new Uint8Array([3]) });
  await store.compact(record.id, 4);
  return record.id;
}

Deno.test("the SQLite store has after a restart what it had before", () =>
  inDirectory(async (path) => {
    const first = open(path);
    const id = await fill(first);
    const before = await everything(first, id);
    await first.close();
    const second = open(path);
    assertEquals(await everything(second, id), before);
    // What is given anew lies behind what was given before.
    const { last } = await second.sequences();
    assertEquals(await second.commit([creationOf(documentOf(2))]), [{ kind: "done", sequence: last + 1 }]);
    assertEquals((await second.entries(documentOf(2).id, 1, 9)).length, 1);
    await second.close();
  }));

Deno.test("the SQLite store tells a document as it is, however far its row is behind", () =>
  inDirectory(async (path) => {
    let { record } = changeOf(documentOf(1));
    const first = open(path);
    await first.commit([creationOf(documentOf(1)), changeOf(documentOf(1))]);
    await first.close();
    for (let i = 0; i < 40; i++) {
      const store = open(path);
      assertEquals(await store.record(record.id), record);
      assertEquals(await store.list({}, "", 10), [record]);
      const change = changeOf(record, 1 + i % 3);
      await store.commit([change]);
      record = change.record;
      if (i % 7 === 0) {
        const { offset, version } = record;
        await store.putSnapshot(record.id, { offset, version, state: new Uint8Array([1]) });
        await store.compact(record.id, offset + 1);
      }
      assertEquals(await store.record(record.id), record);
      await store.close();
    }
  }));

Deno.test("the SQLite store loses nothing that it acknowledged when it is killed", () =>
  inDirectory(async (path) => {
    const store = open(path);
    const id = await fill(store);
    await crashed(path, `${path}.copy`);
    const copy = open(`${path}.copy`);
    assertEquals(await everything(copy, id), await everything(store, id));
    await copy.close();
    await store.close();
  }));

Deno.test("the SQLite store keeps a commit in the turn in which it is asked to", () =>
  inDirectory(async (path) => {
    const store = open(path);
    const promise = store.commit(Array.from({ length: 64 }, (_, n) => creationOf(documentOf(n))));
    assertEquals(store.stats(), { ...store.stats(), groups: 1, writes: 64 });
    assertEquals(await store.record(documentOf(63).id), documentOf(63));
    await promise;
    await store.close();
  }));

Deno.test("the SQLite store syncs within the interval", () =>
  inDirectory(async (path) => {
    const store = open(path, { durability: "interval", intervalMs: 1 });
    await store.commit([creationOf(documentOf(1))]);
    await store.commit([changeOf(documentOf(1))]);
    await store.close();
    const again = open(path);
    assertEquals((await again.record(documentOf(1).id))?.offset, 2);
    await again.close();
  }));

Deno.test("the SQLite store knows more documents than it keeps in memory, and its log stays small", () =>
  inDirectory(async (path) => {
    const store = open(path, { durability: "none" });
    for (let from = 0; from < 12_000; from += 1_000) {
      await store.commit(Array.from({ length: 1_000 }, (_, n) => creationOf(documentOf(from + n))));
      // Checkpoints come between two turns.
      await new Promise((resolve) => setImmediate(resolve));
    }
    assertEquals((await store.record(documentOf(0).id))?.name, "Document 0");
    const changes = [0, 6_000, 11_999].map((n) => changeOf(documentOf(n)));
    assertEquals((await store.commit(changes)).map(({ kind }) => kind), ["done", "done", "done"]);
    assertEquals((await store.counts()).documents, 12_000);
    const { size } = await Deno.stat(`${path}-wal`);
    assert(size < 64 * 1_024 * 1_024, `the log has ${size} bytes`);
    await store.close();
  }));

Deno.test("the SQLite store refuses a second owner, other programs' files and other versions", () =>
  inDirectory(async (path) => {
    const store = open(path);
    assertEquals((assertThrows(() => open(path), SqliteError) as SqliteError).code, "in_use");
    await store.close();
    await Deno.writeFile(`${path}.bad`, new Uint8Array(8_192).fill(7));
    assertEquals((assertThrows(() => open(`${path}.bad`), SqliteError) as SqliteError).code, "damaged");
    // At 60 lies the version, at 68 whose file it is.
    for (const at of [60, 68]) {
      const bytes = await Deno.readFile(path);
      bytes[at] = 0x77;
      await Deno.writeFile(`${path}.${at}`, bytes);
      assertEquals((assertThrows(() => open(`${path}.${at}`), SqliteError) as SqliteError).code, "version");
    }
  }));

Deno.test("the SQLite store that is full says so, leaves nothing half-written, and goes on reading", () =>
  inDirectory(async (path) => {
    const store = open(path, { maxPages: 120 });
    let record: DocumentRecord = documentOf(1);
    await store.commit([creationOf(record)]);
    const refused = await assertRejects(async () => {
      for (;;) {
        const update = new Uint8Array(3_000);
        const change = changeOf(
          record,
          [1, 2].map((n) => entryOf(record.id, record.offset + n, { version: record.version + n, update })),
        );
        // The second one fills what the first one left.
        await store.commit([creationOf(documentOf(record.offset + 1)), change]);
        record = change.record;
      }
    }, StateSyncError) as StateSyncError;
    assertEquals([refused.kind, refused.code], ["readOnly", "unavailable"]);
    assert(record.offset > 10, `${record.offset} fit`);
    assert(store.failure !== undefined);
    for (
      const write of [
        () => store.commit([changeOf(record)]),
        () => store.putSnapshot(record.id, { offset: 1, version: 1, state: new Uint8Array(1) }),
        () => store.compact(record.id, 2),
      ]
    ) {
      assertEquals((await assertRejects(write, StateSyncError) as StateSyncError).kind, "readOnly");
    }
    // What the failed transaction did is not in memory either.
    assertEquals(await store.record(record.id), record);
    assertEquals(await store.record(documentOf(record.offset + 1).id), undefined);
    assertEquals(store.stats().failures, 1);
    const counts = await store.counts();
    const sequences = await store.sequences();
    await store.close();
    const again = open(path);
    assertEquals(await again.record(record.id), record);
    assertEquals((await again.entries(record.id, 1, 10_000)).length, record.offset);
    assertEquals([await again.counts(), await again.sequences()], [counts, sequences]);
    await again.close();
  }));

Deno.test("the SQLite store keeps its word wherever its file stops growing", () =>
  inDirectory(async (path) => {
    let stopped = 0;
    for (let maxPages = 20; maxPages <= 76; maxPages += 4) {
      const file = `${path}.${maxPages}`;
      let records: DocumentRecord[] = [1, 2, 3].map((n) => documentOf(n, { tags: ["t"] }));
      let kept = new Map<string, number>();
      let store: DocumentStore;
      try {
        store = open(file, { maxPages });
      } catch (error) {
        assert(error instanceof SqliteError);
        continue;
      }
      try {
        await store.commit(records.map(creationOf));
        kept = new Map(records.map(({ id, offset }) => [id, offset]));
        for (let round = 0; round < 60; round++) {
          const state = new Uint8Array(500 + round).fill(round);
          const changes = records.map((record) =>
            changeOf(record, 2, {
              record: { ...record, tags: [`t${round}`] },
              putConflicts: [conflictOf(record.id, round)],
              putLocks: [lockOf(record.id, String(round))],
            })
          );
          await store.commit(changes);
          records = changes.map(({ record }) => record);
          kept = new Map(records.map(({ id, offset }) => [id, offset]));
          const { id, offset, version } = records[round % 3]!;
          await store.putSnapshot(id, { offset, version, state });
          if (round % 7 === 6) await store.compact(id, offset - 2);
        }
      } catch (error) {
        assert(error instanceof StateSyncError && error.kind === "readOnly", String(error));
        stopped++;
      }
      await store.close();
      const again = open(file);
      for (const [id, offset] of kept) {
        const { record, locks, oldestOffset } = (await again.load(id))!;
        assertEquals(record.offset, offset, `${maxPages} pages`);
        assertEquals(locks.length, (offset - 1) / 2, `${maxPages} pages`);
        const entries = await again.entries(id, 1, 10_000);
        assertEquals(entries.length, offset + 1 - oldestOffset, `${maxPages} pages`);
        assertEquals((await again.list({ tag: record.tags[0]! }, "", 10)).length, 3, `${maxPages} pages`);
        assert(textOf((await again.load(id))!).length > 0);
      }
      const { locks, operations } = await again.counts();
      const all = await Promise.all(
        [...kept.keys()].map(async (id) => await again.operations(id, {}, 1e9, 1e6)),
      );
      assertEquals(operations, all.flat().length, `${maxPages} pages`);
      assertEquals(locks, (await again.locks()).length, `${maxPages} pages`);
      await again.close();
    }
    assert(stopped > 3, `${stopped} runs met the bound`);
  }));
