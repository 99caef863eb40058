/** What every store has to do. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { StateSyncError } from "../errors.ts";
import { createMemoryStore } from "../stores/memory.ts";
import type { DocumentRecord, Entry, LockRecord, OperationStatus, StoredEntry } from "../records.ts";
import type {
  Change,
  CommitResult,
  ContentParts,
  DocumentFilter,
  DocumentStore,
  OperationFilter,
} from "../store.ts";
import {
  BUILT_AT_MS as T,
  changeOf,
  conflictOf,
  creationOf,
  documentOf,
  entryOf,
  eventOf,
  idOf,
  lockOf,
  operationOf,
  permissionsOf,
  removalOf,
} from "./builders.ts";

/** An open, empty store; `await using` closes it. */
export interface OpenedStore extends AsyncDisposable {
  readonly store: DocumentStore;
}

type Trial = (store: DocumentStore) => Promise<void>;

/** Ids of documents that a careless store takes for one another, or for a pattern, a path, or a part of a statement. */
const ODD_IDS = [
  "a",
  "A",
  "a ",
  " a",
  "a:b",
  "a:b:c",
  "a*",
  "*",
  "%",
  "_",
  "a%2Fb",
  "a/b",
  "../a",
  "..",
  "a..",
  "{a}",
  "a'; DROP TABLE documents; --",
  'a"b',
  "a\\b",
  "a\nb",
  "a\tb",
  "\u00e9",
  "e\u0301",
  "\u200b",
  "a\u200b",
  "日本",
  "\ufffd",
  "\uffff",
  "\uffff0",
  "😀",
  "😁",
  "0",
  "00",
  "1e3",
  "1000",
  "null",
  "x".repeat(128),
  "x".repeat(127),
];

const TRIALS: Readonly<Record<string, Trial>> = {
  async "keeps a document as it was given"(store) {
    const record = documentOf(1, {
      name: "Ünicode 😀",
      tags: ["b", "a", "b c", '"', ","],
      description: "line\nline",
      properties: { "ключ": "значение", empty: "" },
      permissions: permissionsOf({ editors: ["bob"], commenters: ["cid"], viewers: ["{dan}"], public: true }),
      fencingToken: 7,
      openConflicts: 2,
      hlc: 2n ** 63n + 5n,
    });
    const change = creationOf(record);
    assertEquals(await store.commit([change]), [{ kind: "done", sequence: 1 }]);
    assertEquals(await store.record(record.id), record);
    assertEquals(await store.load(record.id), {
      record,
      locks: [],
      oldestOffset: 1,
      snapshot: undefined,
      updates: [{ offset: 1, version: 1, userId: "ann", atMs: T + 1_000, update: new Uint8Array([1]) }],
    });
    assertEquals(await store.entries(record.id, 1, 10), [{ ...change.entries[0]!, sequence: 1 }]);
  },
  async "keeps texts with characters that end a text elsewhere"(store) {
    const odd = ["a\0b", "\0", "\uffff", "\uffff0", "a\\0", "\\u0000", "'", '"}', "\u2028", "é\ufeff"];
    const record = documentOf(1, {
      name: "a\0b",
      tags: odd,
      description: odd.join(),
      properties: Object.fromEntries(odd.map((text, n) => [text, odd[odd.length - 1 - n]!])),
      permissions: permissionsOf({ owner: "o\0", editors: odd }),
    });
    const lock = lockOf(record.id, "o\0", { sessionId: "\uffff0" });
    const conflict = conflictOf(record.id, 1, { description: odd.join(), targets: odd, resolvedBy: "\0" });
    const entry = entryOf(record.id, 2, { data: { [odd[0]!]: odd[1]! }, lock, conflict, document: record });
    const name = { version: 2, name: odd.join(), userId: "u", atMs: T, state: new Uint8Array(1) };
    const change = changeOf(record, [entry], {
      putLocks: [lock],
      putConflicts: [conflict],
      putNames: [name],
    });
    await store.commit([creationOf(record), change]);
    assertEquals(await store.record(record.id), change.record);
    assertEquals(await store.entries(record.id, 2, 1), [{ ...entry, sequence: 2 }]);
    assertEquals((await store.load(record.id))?.locks, [lock]);
    assertEquals(await store.conflict(record.id, conflict.id), conflict);
    assertEquals((await store.names(record.id))[0]?.name, name.name);
    for (const tag of odd) {
      assertEquals(
        (await store.list({ tag, member: [tag, "nobody"] }, "", 9)).length,
        1,
        JSON.stringify(tag),
      );
    }
    assertEquals((await store.list({ tag: "a" }, "", 9)).length, 0);
    assertEquals((await store.list({ member: ["o"] }, "", 9)).length, 0);
    assertEquals((await store.list({ member: ["o\0"], name: "A\0B" }, "", 9)).length, 1);
  },
  async "answers for a document that is not there with nothing"(store) {
    await store.commit([creationOf(documentOf(1))]);
    const id = documentOf(2).id;
    assertEquals(await store.load(id), undefined);
    assertEquals(await store.record(id), undefined);
    assertEquals(await store.entries(id, 1, 10), []);
    assertEquals(await store.operations(id, {}, 100, 10), []);
    assertEquals(await store.operationByKey(id, "k"), undefined);
    assertEquals(await store.conflicts(id, false, "", 10), []);
    assertEquals(await store.conflict(id, idOf(1)), undefined);
    assertEquals(await store.versions(id, 100, 10), []);
    assertEquals(await store.names(id), []);
    assertEquals(await store.contentAt(id, 1), undefined);
    assertEquals(await store.versionAt(id, T * 2), undefined);
    await store.putSnapshot(id, { offset: 1, version: 1, state: new Uint8Array(1) });
    await store.compact(id, 1);
    assertEquals(await store.load(id), undefined);
  },
  async "writes a change if the document is where it says, and else says what is wrong"(store) {
    const record = documentOf(1);
    assertEquals(await kinds(store, [changeOf(record)]), ["behind"]);
    assertEquals(await kinds(store, [removalOf(record)]), ["behind"]);
    assertEquals(await kinds(store, [creationOf(record)]), ["done"]);
    assertEquals(await kinds(store, [creationOf({ ...record, name: "other" })]), ["exists"]);
    const change = changeOf(record);
    assertEquals(await kinds(store, [change]), ["done"]);
    assertEquals(await kinds(store, [change]), ["behind"]);
    assertEquals(await kinds(store, [changeOf({ ...change.record, offset: 9 })]), ["behind"]);
    assertEquals(await kinds(store, [removalOf(record)]), ["behind"]);
    assertEquals(await store.record(record.id), change.record);
    assertEquals((await store.entriesBySequence(1, 100)).length, 2);
  },
  async "leaves nothing of a change that is behind, nor of what builds on it, and does the others of its commit"(
    store,
  ) {
    const [one, two] = [documentOf(1), documentOf(2)];
    await store.commit([creationOf(one)]);
    const late = changeOf({ ...one, offset: 5, version: 5 }, 1, {
      record: { ...one, name: "late" },
      putLocks: [lockOf(one.id, "")],
      putConflicts: [conflictOf(one.id, 1)],
      putNames: [{ version: 1, name: "late", userId: "ann", atMs: T, state: new Uint8Array(1) }],
      operationStatuses: [{ offset: 1, status: "rejected" }],
    });
    assertEquals(await store.commit([late, creationOf(two), creationOf(one), changeOf(one)]), [
      { kind: "behind" },
      { kind: "done", sequence: 2 },
      { kind: "exists" },
      { kind: "behind" },
    ]);
    assertEquals((await store.record(one.id))?.name, one.name);
    assertEquals((await store.load(one.id))?.locks, []);
    assertEquals(await store.conflicts(one.id, false, "", 10), []);
    assertEquals(await store.names(one.id), []);
    assertEquals((await store.record(one.id))?.offset, 1);
  },
  async "writes several changes of one document in one commit, one after the other"(store) {
    const record = documentOf(1);
    const first = changeOf(record, 2), second = changeOf(first.record), third = changeOf(second.record, 3);
    const other = creationOf(documentOf(2));
    assertEquals(await store.commit([creationOf(record), first, other, second, third, first]), [
      { kind: "done", sequence: 1 },
      { kind: "done", sequence: 2 },
      { kind: "done", sequence: 4 },
      { kind: "done", sequence: 5 },
      { kind: "done", sequence: 6 },
      { kind: "behind" },
    ]);
    assertEquals(await store.record(record.id), third.record);
    assertEquals((await store.entries(record.id, 1, 100)).map(place), [
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 5],
      [5, 6],
      [6, 7],
      [7, 8],
    ]);
  },
  async "makes, removes and makes a document again in one commit"(store) {
    const record = documentOf(1);
    const change = changeOf(record, 2, { putLocks: [lockOf(record.id, "old")] });
    const again = { ...record, name: "again" };
    assertEquals(
      await kinds(store, [
        creationOf(record),
        change,
        removalOf(change.record),
        creationOf(again),
        creationOf(again),
      ]),
      ["done", "done", "done", "done", "exists"],
    );
    assertEquals(await store.record(record.id), again);
    const loaded = await store.load(record.id);
    assertEquals([loaded?.updates.length, loaded?.locks], [1, []]);
    assertEquals((await store.entries(record.id, 1, 10)).map(place), [[1, 5]]);
  },
  async "changes a document without an entry"(store) {
    const record = documentOf(1);
    await store.commit([creationOf(record)]);
    const change = changeOf(record, [], { record: { ...record, openConflicts: 3 } });
    assertEquals(await kinds(store, [change, changeOf(change.record)]), ["done", "done"]);
    assertEquals((await store.record(record.id))?.openConflicts, 3);
    assertEquals(await store.sequences(), { last: 2, oldest: 1 });
  },
  async "takes a commit of nothing, and refuses one that is too large or does not fit"(store) {
    assertEquals(await store.commit([]), []);
    const tooMany = Array.from({ length: 1_001 }, (_, n) => creationOf(documentOf(n)));
    const offBy = { ...creationOf(documentOf(1)), record: documentOf(1, { offset: 2 }) };
    const foreign = { ...creationOf(documentOf(1)), entries: creationOf(documentOf(2)).entries };
    const twoOfRemoval = { ...changeOf(documentOf(1), 2), record: undefined };
    for (const wrong of [tooMany, [offBy], [foreign], [twoOfRemoval]]) {
      await assertRejects(async () => await store.commit(wrong), RangeError);
    }
    assertEquals(await store.sequences(), { last: 0, oldest: 1 });
    assertEquals((await kinds(store, tooMany.slice(0, 1_000))).every((kind) => kind === "done"), true);
    assertEquals((await store.sequences()).last, 1_000);
  },
  async "gives sequences in the order of commits over all documents"(store) {
    const [one, two] = [documentOf(1), documentOf(2)];
    await store.commit([creationOf(one), creationOf(two)]);
    await store.commit([changeOf(two, 2)]);
    await store.commit([changeOf(one, 2)]);
    assertEquals(
      (await store.entriesBySequence(0, 100)).map(({ docId, offset, sequence }) => [
        docId === one.id ? 1 : 2,
        offset,
        sequence,
      ]),
      [[1, 1, 1], [2, 1, 2], [2, 2, 3], [2, 3, 4], [1, 2, 5], [1, 3, 6]],
    );
    assertEquals((await store.entriesBySequence(3, 2)).map(place), [[2, 3], [3, 4]]);
    assertEquals(await store.entriesBySequence(7, 2), []);
    assertEquals(await store.sequences(), { last: 6, oldest: 1 });
  },
  async "pages through the entries of a document"(store) {
    const record = documentOf(1);
    await store.commit([creationOf(record), changeOf(record, 9), creationOf(documentOf(2))]);
    assertEquals((await store.entries(record.id, 0, 3)).map(place), [[1, 1], [2, 2], [3, 3]]);
    assertEquals((await store.entries(record.id, 4, 3)).map(place), [[4, 4], [5, 5], [6, 6]]);
    assertEquals((await store.entries(record.id, 10, 3)).map(place), [[10, 10]]);
    assertEquals(await store.entries(record.id, 11, 3), []);
  },
  async "keeps every part of an entry"(store) {
    const record = documentOf(1);
    const { id } = record;
    const entries: Entry[] = [
      entryOf(id, 2, {
        operation: operationOf(2, {
          docId: id,
          type: "create",
          data: new Uint8Array([0, 255, 0]),
          payload: { case: "text", value: { edits: [{ insert: "a\0b😀", replaceAll: true }] } },
          metadata: { ip: "::1", extra: { a: "1", b: "" } },
          timestamp: { seconds: 5n, nanos: 7 },
          hlc: 2n ** 64n - 1n,
        }),
        data: { reason: "taken", "ключ": "" },
        update: new Uint8Array(0),
      }),
      eventOf(id, 3, 2, { lock: lockOf(id, "object"), userId: "" }),
      eventOf(id, 4, 2, {
        type: "conflict_detected",
        conflict: conflictOf(id, 1, { resolvedOperation: operationOf(9), resolvedAtMs: T, targets: [] }),
      }),
      eventOf(id, 5, 3, { type: "document_updated", document: { ...record, hlc: 2n ** 63n, tags: ["x"] } }),
      entryOf(id, 6, { version: 4, update: new Uint8Array(300_000).fill(7) }),
    ];
    await store.commit([creationOf(record), changeOf(record, entries)]);
    const stored = entries.map((entry, i) => ({ ...entry, sequence: i + 2 }));
    assertEquals(await store.entries(id, 2, 10), stored);
    assertEquals(await store.entriesBySequence(2, 10), stored);
    assertEquals(await store.operations(id, {}, 3, 10), [stored[0]!]);
    assertEquals(await store.operationByKey(id, entries[0]!.operationKey!), stored[0]);
    assertEquals(await store.versions(id, 3, 1), [stored[0]!]);
  },
  async "gives arrays that are the caller's"(store) {
    const record = documentOf(1);
    const name = { version: 1, name: "n", userId: "ann", atMs: T, state: new Uint8Array([9]) };
    await store.commit([{ ...creationOf(record), putNames: [name] }]);
    await store.putSnapshot(record.id, { offset: 1, version: 1, state: new Uint8Array([8]) });
    const spoilt = async () => {
      for (const entry of await store.entries(record.id, 1, 1)) entry.update!.fill(0);
      for (const entry of await store.entriesBySequence(1, 1)) entry.update!.fill(0);
      (await store.load(record.id))!.snapshot!.state.fill(0);
      (await store.contentAt(record.id, 1))!.snapshot!.state.fill(0);
    };
    await spoilt();
    assertEquals((await store.entries(record.id, 1, 1))[0]?.update, new Uint8Array([1]));
    assertEquals((await store.load(record.id))?.snapshot?.state, new Uint8Array([8]));
    assertEquals((await store.contentAt(record.id, 1))?.snapshot?.state, new Uint8Array([9]));
  },
  async "never takes one document for another, whatever their ids"(store) {
    const records = ODD_IDS.map((id, n) => documentOf(n, { id, name: `Document ${n}` }));
    for (const record of records) {
      assertEquals(await kinds(store, [creationOf(record)]), ["done"], JSON.stringify(record.id));
    }
    for (const [n, record] of records.entries()) {
      const { id } = record;
      const change = changeOf(record, [entryOf(id, 2, { update: new Uint8Array([100 + n]) })], {
        putLocks: [lockOf(id, "", { id: idOf(n, "46") })],
      });
      assertEquals(await kinds(store, [change]), ["done"], JSON.stringify(id));
    }
    for (const [n, record] of records.entries()) {
      const loaded = await store.load(record.id);
      assertEquals(loaded?.record.name, `Document ${n}`);
      assertEquals(loaded?.record.id, record.id);
      assertEquals(loaded?.updates.map(({ update }) => update[0]), [1, 100 + n]);
      assertEquals(loaded?.locks.map(({ id }) => id), [idOf(n, "46")]);
      assertEquals((await store.entries(record.id, 2, 10))[0]?.update, new Uint8Array([100 + n]));
    }
    const key = entryOf(ODD_IDS[0]!, 2).operationKey!;
    assertEquals((await store.operationByKey("a:b", key))?.docId, "a:b");
    assertEquals(await store.load("a\u0301"), undefined);
    assertEquals(await store.load("AA"), undefined);
    await store.commit([removalOf(changeOf(records[1]!).record)]);
    assertEquals(await store.record("A"), undefined);
    assertEquals((await store.record("a"))?.offset, 2);
  },
  async "lists in the order of ids by UTF-8 bytes, a page at a time"(store) {
    const ids = [...ODD_IDS, "\ue000", "\u{10ffff}", "zz"];
    await store.commit(ids.map((id, n) => creationOf(documentOf(n, { id }))));
    const sorted = ids.toSorted((a, b) => {
      const [x, y] = [new TextEncoder().encode(a), new TextEncoder().encode(b)];
      const at = x.findIndex((byte, i) => byte !== y[i]);
      return at < 0 ? x.length - y.length : x[at]! - (y[at] ?? -1);
    });
    assertEquals((await store.list({}, "", 1_000)).map(({ id }) => id), sorted);
    const paged: string[] = [];
    for (let after = "";;) {
      const page = await store.list({}, after, 7);
      paged.push(...page.map(({ id }) => id));
      if (page.length < 7) break;
      after = page.at(-1)!.id;
    }
    assertEquals(paged, sorted);
    assertEquals((await store.list({}, "a:", 1)).map(({ id }) => id), ["a:b"], "an id that is not there");
  },
  async "lists what a filter asks for"(store) {
    await store.commit(LISTED.map(creationOf));
    for (const [filter, expected] of FILTERS) {
      const found = (await store.list(filter, "", 100)).map(({ id }) => id.at(-1));
      assertEquals(found.join(""), expected, JSON.stringify(filter));
      if (expected.length < 2) continue;
      const second = await store.list(filter, LISTED[Number(expected[0]) - 1]!.id, 1);
      assertEquals(second[0]?.id.at(-1), expected[1], `${JSON.stringify(filter)}, second page`);
    }
  },
  async "lists documents as they are now"(store) {
    const record = documentOf(1, { tags: ["old"], permissions: permissionsOf({ editors: ["bob"] }) });
    await store.commit([creationOf(record)]);
    const after = {
      ...record,
      name: "New name",
      tags: ["new"],
      state: "archived" as const,
      permissions: permissionsOf({ owner: "eve" }),
    };
    await store.commit([changeOf(record, 1, { record: after })]);
    const count = async (filter: DocumentFilter) => (await store.list(filter, "", 10)).length;
    assertEquals(await count({ tag: "old" }), 0);
    assertEquals(await count({ tag: "new" }), 1);
    assertEquals(await count({ member: ["ann", "bob"] }), 0);
    assertEquals(await count({ member: ["eve"], state: "archived", name: "new" }), 1);
    assertEquals(await count({ name: "document" }), 0);
    await store.commit([removalOf(changeOf(record).record)]);
    assertEquals(await count({ tag: "new" }), 0);
    assertEquals(await count({ member: ["eve"] }), 0);
  },
  async "tells the history of operations, newest first, by every filter"(store) {
    const record = documentOf(1);
    const { id } = record;
    const with_ = (offset: number, userId: string, type: string, status: OperationStatus) =>
      entryOf(id, offset, {
        userId,
        operationStatus: status,
        operation: operationOf(offset, { docId: id, type, status }),
        version: Math.floor(offset / 2) + 1,
      });
    const entries = [
      with_(2, "ann", "text", "applied"),
      with_(3, "bob", "text", "applied"),
      eventOf(id, 4, 3),
      with_(5, "ann", "style", "rejected"),
      with_(6, "bob", "style", "conflict"),
      with_(7, "ann", "text", "applied"),
    ];
    await store.commit([creationOf(record), changeOf(record, entries), creationOf(documentOf(2))]);
    const history = async (filter: OperationFilter, before = 100, limit = 10) =>
      (await store.operations(id, filter, before, limit)).map(({ offset }) => offset);
    assertEquals(await history({}), [7, 6, 5, 3, 2]);
    assertEquals(await history({}, 6, 2), [5, 3]);
    assertEquals(await history({ userId: "bob" }), [6, 3]);
    assertEquals(await history({ userId: "bo" }), []);
    assertEquals(await history({ type: "style" }), [6, 5]);
    assertEquals(await history({ status: "applied" }), [7, 3, 2]);
    assertEquals(await history({ status: "applied", userId: "ann", type: "text" }, 7), [2]);
    assertEquals(await history({ fromMs: T + 3_000, toMs: T + 6_000 }), [6, 5, 3]);
    assertEquals(await history({ fromMs: T + 3_001, toMs: T + 5_999 }), [5]);
    assertEquals(await history({ minVersion: 3, maxVersion: 3 }), [5]);
    assertEquals(await history({ minVersion: 4 }), [7, 6]);
    assertEquals(await store.operations(documentOf(2).id, {}, 100, 10), []);
  },
  async "finds an operation by its key, in its document alone"(store) {
    const [one, two] = [documentOf(1), documentOf(2)];
    const keyed = (record: DocumentRecord, offset: number, operationKey: string) =>
      entryOf(record.id, offset, { operationKey });
    const keys = ["c\0o", "c\0o2", "c", "\0c\0o", "c\0", "C\0o", "ключ\0😀"];
    await store.commit([
      creationOf(one),
      changeOf(one, keys.map((key, i) => keyed(one, i + 2, key))),
      creationOf(two),
      changeOf(two, [keyed(two, 2, "c\0o"), keyed(two, 3, "c\0only")]),
    ]);
    for (const [i, key] of keys.entries()) {
      const found = await store.operationByKey(one.id, key);
      assertEquals([found?.offset, found?.operationKey], [i + 2, key]);
    }
    assertEquals((await store.operationByKey(two.id, "c\0o"))?.docId, two.id);
    assertEquals(await store.operationByKey(one.id, "c\0only"), undefined);
    assertEquals(await store.operationByKey(one.id, ""), undefined);
  },
  async "gives operations new statuses, everywhere"(store) {
    const record = documentOf(1);
    const first = changeOf(record, 3);
    const second = changeOf(first.record, 1, {
      operationStatuses: [{ offset: 2, status: "resolved" }, { offset: 4, status: "rejected" }],
    });
    await store.commit([creationOf(record), first, second]);
    await store.commit([changeOf(second.record, [], {
      operationStatuses: [{ offset: 2, status: "conflict" }],
    })]);
    const statuses = (entries: readonly StoredEntry[]) =>
      entries.map(({ operationStatus, operation }) => `${operationStatus} ${operation?.status}`);
    assertEquals(statuses(await store.entries(record.id, 2, 10)), [
      "conflict conflict",
      "applied applied",
      "rejected rejected",
      "applied applied",
    ]);
    assertEquals(statuses(await store.operations(record.id, { status: "conflict" }, 10, 10)), [
      "conflict conflict",
    ]);
    assertEquals(statuses(await store.entriesBySequence(4, 1)), ["rejected rejected"]);
    const key = first.entries[0]!.operationKey!;
    assertEquals((await store.operationByKey(record.id, key))?.operationStatus, "conflict");
  },
  async "keeps conflicts, newest first, and replaces them by id"(store) {
    const [one, two] = [documentOf(1), documentOf(2)];
    const conflicts = [1, 2, 3, 4].map((n) => conflictOf(one.id, n));
    await store.commit([
      creationOf(one),
      changeOf(one, 1, { putConflicts: conflicts }),
      creationOf(two),
      changeOf(two, 1, { putConflicts: [conflictOf(two.id, 9)] }),
    ]);
    const resolved = {
      ...conflicts[1]!,
      resolution: "manual",
      resolvedBy: "bob",
      resolvedAtMs: T + 5,
      resolvedOperation: operationOf(2, { status: "resolved" }),
    };
    await store.commit([changeOf(changeOf(one).record, 1, { putConflicts: [resolved] })]);
    const listed = async (isOpenOnly: boolean, before: string, limit: number) =>
      (await store.conflicts(one.id, isOpenOnly, before, limit)).map(({ id }) => Number(id.slice(-2)));
    assertEquals(await listed(false, "", 10), [4, 3, 2, 1]);
    assertEquals(await listed(true, "", 10), [4, 3, 1]);
    assertEquals(await listed(true, conflicts[2]!.id, 10), [1]);
    assertEquals(await listed(false, conflicts[3]!.id, 2), [3, 2]);
    assertEquals(await store.conflict(one.id, resolved.id), resolved);
    assertEquals(await store.conflict(one.id, conflicts[0]!.id), conflicts[0]);
    assertEquals(await store.conflict(two.id, conflicts[0]!.id), undefined, "of another document");
    const { conflicts: all, resolvedConflicts } = await store.counts();
    assertEquals([all, resolvedConflicts], [5, 1]);
  },
  async "takes conflicts that name operations which are in no entry"(store) {
    const record = documentOf(1);
    const conflict = conflictOf(record.id, 500);
    await store.commit([creationOf(record), changeOf(record, [], { putConflicts: [conflict] })]);
    assertEquals(await store.conflict(record.id, conflict.id), conflict);
  },
  async "keeps locks until they are removed, whether their time is up or not"(store) {
    const [one, two] = [documentOf(1), documentOf(2)];
    const locks = ["", "object", "other"].map((objectId, n) => {
      return lockOf(one.id, objectId, { id: idOf(n, "46"), expiresAtMs: n === 1 ? 0 : T, sessionId: "s" });
    });
    const foreign = lockOf(two.id, "object", { id: idOf(9, "46") });
    await store.commit([
      creationOf(one),
      changeOf(one, [], { putLocks: locks }),
      creationOf(two),
      changeOf(two, [], { putLocks: [foreign] }),
    ]);
    assertEquals(byObject((await store.load(one.id))!.locks), locks);
    assertEquals(byObject(await store.locks()), byObject([...locks, foreign]));
    assertEquals((await store.counts()).locks, 4);
    const extended = { ...locks[2]!, expiresAtMs: T + 9 };
    await store.commit([changeOf(one, [], { putLocks: [extended], removeLocks: [locks[0]!.id] })]);
    assertEquals(byObject((await store.load(one.id))!.locks), [locks[1]!, extended]);
    await store.commit([changeOf(one, [], { removeLocks: [foreign.id, idOf(77)] })]);
    assertEquals((await store.counts()).locks, 3, "a lock of another document stays");
  },
  async "lets a lock be released and acquired again and again"(store) {
    const record = documentOf(1);
    await store.commit([creationOf(record)]);
    for (let n = 1; n <= 5; n++) {
      const lock = lockOf(record.id, "", { id: idOf(n, "46"), fencingToken: n });
      assertEquals(await kinds(store, [changeOf(record, [], { putLocks: [lock] })]), ["done"]);
      assertEquals((await store.load(record.id))?.locks, [lock]);
      assertEquals(await kinds(store, [changeOf(record, [], { removeLocks: [lock.id] })]), ["done"]);
      assertEquals((await store.load(record.id))?.locks, []);
    }
  },
  async "puts a lock in the place of another one of the same object"(store) {
    const record = documentOf(1);
    const expired = lockOf(record.id, "object", { id: idOf(1, "46"), userId: "bob", expiresAtMs: 1 });
    const next = lockOf(record.id, "object", { id: idOf(2, "46"), fencingToken: 2 });
    const third = lockOf(record.id, "object", { id: idOf(3, "46"), fencingToken: 3 });
    await store.commit([creationOf(record), changeOf(record, [], { putLocks: [expired] })]);
    await store.commit([changeOf(record, [], { putLocks: [next] })]);
    assertEquals((await store.load(record.id))?.locks, [next]);
    await store.commit([changeOf(record, [], { removeLocks: [next.id], putLocks: [third] })]);
    assertEquals((await store.load(record.id))?.locks, [third]);
    // What it took the place of does not come back when it is released in the same commit.
    const put = changeOf(record, [], { putLocks: [next] }),
      release = changeOf(record, [], { removeLocks: [next.id] });
    assertEquals(await kinds(store, [put, release]), ["done", "done"]);
    assertEquals((await store.load(record.id))?.locks, []);
  },
  async "tells which entries made versions"(store) {
    const record = documentOf(1);
    const { id } = record;
    const entries = [
      eventOf(id, 2, 1),
      entryOf(id, 3, { version: 2 }),
      eventOf(id, 4, 2),
      eventOf(id, 5, 3, { type: "document_updated", data: { change: "metadata" } }),
    ];
    const first = changeOf(record, entries);
    const second = changeOf(first.record, [eventOf(id, 6, 3), entryOf(id, 7, { version: 4 })]);
    await store.commit([creationOf(record), first]);
    await store.commit([second]);
    const made = async (before: number, limit: number) =>
      (await store.versions(id, before, limit)).map(({ version, offset }) => [version, offset]);
    assertEquals(await made(100, 10), [[4, 7], [3, 5], [2, 3], [1, 1]]);
    assertEquals(await made(4, 2), [[3, 5], [2, 3]]);
    assertEquals(await made(1, 2), []);
  },
  async "keeps names of versions with their content"(store) {
    const record = documentOf(1);
    const nameOf = (version: number, name: string) => ({
      version,
      name,
      userId: "bob",
      atMs: T + version,
      state: new Uint8Array([version, 77]),
    });
    const told = (version: number, name: string) => ({ version, name, userId: "bob", atMs: T + version });
    const first = changeOf(record, 4, { putNames: [nameOf(3, "three"), nameOf(1, "one 😀")] });
    await store.commit([creationOf(record), first]);
    assertEquals(await store.names(record.id), [told(1, "one 😀"), told(3, "three")]);
    assertEquals(await contentOf(store, record.id, 3), "3:3.77");
    await store.commit([changeOf(first.record, [], { putNames: [nameOf(3, "drei")], removeNames: [1, 2] })]);
    assertEquals(await store.names(record.id), [told(3, "drei")]);
    await store.putSnapshot(record.id, { offset: 4, version: 4, state: new Uint8Array([44]) });
    await store.compact(record.id, 5);
    assertEquals(await contentOf(store, record.id, 3), "3:3.77", "kept as long as the name");
    assertEquals(await contentOf(store, record.id, 1), "gone");
    await store.commit([changeOf(first.record, [], { removeNames: [3] })]);
    assertEquals(await contentOf(store, record.id, 3), "gone");
    assertEquals(await store.names(record.id), []);
  },
  async "has the content of every version, from the nearest snapshot on"(store) {
    const record = documentOf(1);
    const { id } = record;
    const entries = [
      entryOf(id, 2),
      eventOf(id, 3, 2),
      entryOf(id, 4, { version: 3 }),
      eventOf(id, 5, 4, { type: "document_updated" }),
      entryOf(id, 6, { version: 5 }),
      entryOf(id, 7, { version: 6 }),
    ];
    const first = changeOf(record, entries);
    await store.commit([creationOf(record), first]);
    const contents = () => Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map((v) => contentOf(store, id, v)));
    assertEquals(await contents(), [
      "gone",
      "1",
      "1 2",
      "1 2 4",
      "1 2 4",
      "1 2 4 6",
      "1 2 4 6 7",
      "gone",
    ]);
    await store.putSnapshot(id, { offset: 4, version: 3, state: new Uint8Array([44]) });
    await store.putSnapshot(id, { offset: 6, version: 5, state: new Uint8Array([66]) });
    assertEquals(await contents(), [
      "gone",
      "1",
      "1 2",
      "3:44",
      "3:44",
      "5:66",
      "5:66 7",
      "gone",
    ]);
    const loaded = (await store.load(id))!;
    assertEquals(loaded.snapshot, { offset: 6, version: 5, state: new Uint8Array([66]) });
    assertEquals(textOf(loaded), "5:66 7");
    await store.putSnapshot(id, { offset: 6, version: 5, state: new Uint8Array([67]) });
    assertEquals(await contentOf(store, id, 5), "5:67", "the later one of an offset");
    await store.putSnapshot(id, { offset: 8, version: 7, state: new Uint8Array([88]) });
    assertEquals(textOf((await store.load(id))!), "5:67 7", "a snapshot ahead of the document is none");
  },
  async "compacts the entries that a snapshot covers, and keeps the rest"(store) {
    const record = documentOf(1);
    const { id } = record;
    const first = changeOf(record, 9, {
      putLocks: [lockOf(id, "")],
      putConflicts: [conflictOf(id, 1)],
    });
    await store.commit([creationOf(record), creationOf(documentOf(2)), first]);
    await store.compact(id, 5);
    assertEquals((await store.load(id))?.oldestOffset, 1, "there is no snapshot");
    for (const offset of [3, 6, 8]) {
      await store.putSnapshot(id, { offset, version: offset, state: new Uint8Array([offset * 11]) });
    }
    await store.compact(id, 3);
    assertEquals((await store.load(id))?.oldestOffset, 1, "no snapshot lies below");
    await store.compact(id, 8);
    const loaded = (await store.load(id))!;
    assertEquals([loaded.oldestOffset, loaded.locks.length, textOf(loaded)], [7, 1, "8:88 9 10"]);
    assertEquals((await store.entries(id, 1, 10)).map(place), [[7, 8], [8, 9], [9, 10], [10, 11]]);
    assertEquals(await contentOf(store, id, 5), "gone");
    assertEquals(await contentOf(store, id, 6), "6:66");
    assertEquals(await contentOf(store, id, 7), "6:66 7");
    assertEquals(await contentOf(store, id, 10), "8:88 9 10");
    assertEquals((await store.conflicts(id, false, "", 10)).length, 1);
    assertEquals(await store.versionAt(id, T + 6_999), undefined);
    assertEquals(await store.versionAt(id, T + 7_000), 7);
    assertEquals((await store.versions(id, 100, 100)).map(({ version }) => version), [10, 9, 8, 7]);
    assertEquals((await store.operations(id, {}, 9, 100)).map(({ offset }) => offset), [8, 7]);
    assertEquals(await store.operationByKey(id, first.entries[0]!.operationKey!), undefined);
    assertEquals((await store.entriesBySequence(1, 10)).map(place).slice(0, 2), [[1, 2], [7, 8]]);
    assertEquals(await store.sequences(), { last: 11, oldest: 8 }, "the newest that was compacted is 7");
    assertEquals((await store.counts()).operations, 4);
    await store.compact(id, 7);
    assertEquals((await store.load(id))?.oldestOffset, 7);
    const next = changeOf(first.record);
    assertEquals(await kinds(store, [next]), ["done"]);
    await store.putSnapshot(id, { offset: 11, version: 11, state: new Uint8Array([111]) });
    await store.compact(id, 12);
    assertEquals((await store.load(id))?.oldestOffset, 12, "nothing is left but the snapshot");
    assertEquals(await contentOf(store, id, 11), "11:111");
    assertEquals(await kinds(store, [changeOf(next.record)]), ["done"]);
    assertEquals(textOf((await store.load(id))!), "11:111 12");
  },
  async "finds the version of a time"(store) {
    const record = documentOf(1);
    const { id } = record;
    const entries = [entryOf(id, 2), eventOf(id, 3, 2), entryOf(id, 4, { version: 3 })];
    await store.commit([creationOf(record), changeOf(record, entries)]);
    const at = (ms: number) => store.versionAt(id, T + ms);
    assertEquals(await at(999), undefined);
    assertEquals(await at(1_000), 1);
    assertEquals(await at(1_999), 1);
    assertEquals(await at(3_999), 2);
    assertEquals(await at(4_000), 3);
    assertEquals(await at(1_000_000), 3);
  },
  async "removes a document with all it has, and keeps the entry that tells of it for the sequence"(store) {
    const [one, two] = [documentOf(1), documentOf(2)];
    const { id } = one;
    const name = { version: 1, name: "n", userId: "ann", atMs: T, state: new Uint8Array(1) };
    const change = changeOf(one, 2, {
      putLocks: [lockOf(id, "")],
      putConflicts: [conflictOf(id, 1)],
      putNames: [name],
    });
    await store.commit([creationOf(one), creationOf(two), change]);
    await store.putSnapshot(id, { offset: 2, version: 2, state: new Uint8Array(1) });
    const removal = removalOf(change.record);
    assertEquals(await store.commit([removal]), [{ kind: "done", sequence: 5 }]);
    await assertEmpty(store, id);
    assertEquals(await store.entriesBySequence(1, 10), [
      { ...creationOf(two).entries[0]!, sequence: 2 },
      { ...removal.entries[0]!, sequence: 5 },
    ]);
    assertEquals(await store.sequences(), { last: 5, oldest: 1 }, "the entry of the removal tells of it");
    assertEquals(await store.locks(), []);
    assertEquals(await store.counts(), {
      documents: 1,
      active: 1,
      archived: 0,
      operations: 0,
      conflicts: 0,
      resolvedConflicts: 0,
      locks: 0,
    });
    // Another one of that id has nothing of the first.
    assertEquals(await kinds(store, [creationOf(one)]), ["done"]);
    assertEquals((await store.entries(id, 1, 10)).map(place), [[1, 6]]);
    assertEquals(await store.names(id), []);
    assertEquals(textOf((await store.load(id))!), "1");
    assertEquals(await kinds(store, [{ ...removalOf(one), entries: [] }]), ["done"]);
    await assertEmpty(store, id);
    assertEquals((await store.sequences()).last, 6);
  },
  async "counts what there is"(store) {
    await store.commit([
      creationOf(documentOf(1)),
      creationOf(documentOf(2, { state: "archived" })),
      creationOf(documentOf(3, { state: "deleted" })),
      changeOf(documentOf(1), 3),
      changeOf(documentOf(3, { state: "deleted" }), 2),
    ]);
    const none = { conflicts: 0, resolvedConflicts: 0, locks: 0 };
    assertEquals(await store.counts(), { documents: 2, active: 1, archived: 1, operations: 5, ...none });
    const deleted = changeOf(changeOf(documentOf(1), 3).record, 1, {
      record: documentOf(1, { state: "deleted" }),
    });
    await store.commit([deleted]);
    assertEquals(await store.counts(), { documents: 1, active: 0, archived: 1, operations: 6, ...none });
    const { groups, writes, failures } = store.stats();
    assertEquals([groups, writes, failures], [2, 6, 0]);
  },
  async "does through many random steps what the store in memory does"(store) {
    const model = createMemoryStore();
    const seed = 20_261;
    const steps = randomSteps(seed);
    for (let step = 1; step <= 120; step++) {
      const where = `seed ${seed}, step ${step}`;
      const changes = steps.commit();
      assertEquals(await store.commit(changes), await model.commit(changes), where);
      const { docId, snapshot, compactBelow } = steps.upkeep();
      for (const each of [store, model]) {
        if (snapshot !== undefined) await each.putSnapshot(docId, snapshot);
        if (compactBelow !== undefined) await each.compact(docId, compactBelow);
      }
      if (step % 20 === 0) assertEquals(await whole(store), await whole(model), where);
    }
  },
  async "tells nobody of its own commits"(store) {
    const told: string[] = [];
    store.onForeign = (docId) => told.push(docId);
    store.onForeignGap = () => told.push("gap");
    await store.commit([creationOf(documentOf(1))]);
    await store.commit([changeOf(documentOf(1), 2)]);
    await store.commit([removalOf(changeOf(documentOf(1), 2).record)]);
    assertEquals(told, []);
  },
  async "names the life of its offsets, and closes more than once"(store) {
    assert(store.epoch.length > 0);
    assertEquals(store.failure, undefined);
    await store.close();
    await store.close();
    const error = await assertRejects(
      () => store.commit([creationOf(documentOf(1))]),
      StateSyncError,
    ) as StateSyncError;
    assertEquals(error.code, "unavailable");
  },
};

const LISTED: readonly DocumentRecord[] = [
  documentOf(1, { name: "Budget 2026", tags: ["money", "year"] }),
  documentOf(2, { name: "ÄRGER", createdBy: "bob", permissions: permissionsOf({ owner: "bob" }) }),
  documentOf(3, { type: "sheet", permissions: permissionsOf({ owner: "bob", viewers: ["cid", "ann"] }) }),
  documentOf(4, { state: "archived", permissions: permissionsOf({ owner: "bob", editors: ["cid"] }) }),
  documentOf(5, { state: "deleted", tags: ["money"], permissions: permissionsOf({ commenters: ["cid"] }) }),
  documentOf(6, {
    name: "100%_\\",
    tags: ["mon"],
    permissions: permissionsOf({ owner: "eve", public: true }),
  }),
];

/** Which documents' numbers a filter gives. */
const FILTERS: readonly (readonly [DocumentFilter, string])[] = [
  [{}, "12346"],
  [{ state: "active" }, "1236"],
  [{ state: "archived" }, "4"],
  [{ state: "deleted" }, "5"],
  [{ type: "sheet" }, "3"],
  [{ type: "canvas" }, ""],
  [{ createdBy: "bob" }, "2"],
  [{ createdBy: "bo" }, ""],
  [{ tag: "money" }, "1"],
  [{ tag: "money", state: "deleted" }, "5"],
  [{ tag: "mon" }, "6"],
  [{ name: "budget" }, "1"],
  [{ name: "ärg" }, "2"],
  [{ name: "document" }, "34"],
  [{ name: "%" }, "6"],
  [{ name: "_" }, "6"],
  [{ name: "\\" }, "6"],
  [{ name: "" }, "12346"],
  [{ member: ["ann"] }, "13"],
  [{ member: ["cid"] }, "34"],
  [{ member: ["cid"], type: "sheet" }, "3"],
  [{ member: ["cid", "eve", "cid"] }, "346"],
  [{ member: [] }, ""],
  [{ member: ["ci"] }, ""],
  [{ readableBy: { names: ["ann"], idPrefixes: [] } }, "136"],
  [{ readableBy: { names: [], idPrefixes: [] } }, "6"],
  [{ readableBy: { names: ["nobody"], idPrefixes: [idOf(2), idOf(4)] } }, "246"],
  [{ readableBy: { names: ["cid"], idPrefixes: ["zz", "%"] } }, "346"],
  [{ readableBy: { names: [], idPrefixes: [""] } }, "12346"],
  [{ readableBy: { names: ["cid"], idPrefixes: [] }, state: "deleted" }, "5"],
  [{ readableBy: { names: ["ann"], idPrefixes: [idOf(2)] }, member: ["bob"], name: "d" }, "3"],
];

/** Runs every trial on a store of its own. */
export async function storeSuite(t: Deno.TestContext, open: () => Promise<OpenedStore>): Promise<void> {
  for (const [name, trial] of Object.entries(TRIALS)) {
    await t.step(name, async () => {
      await using opened = await open();
      await trial(opened.store);
    });
  }
}

async function kinds(store: DocumentStore, changes: readonly Change[]): Promise<CommitResult["kind"][]> {
  return (await store.commit(changes)).map(({ kind }) => kind);
}

function place({ offset, sequence }: StoredEntry): [number, number] {
  return [offset, sequence];
}

function byObject(locks: readonly LockRecord[]): LockRecord[] {
  const key = ({ objectId, id }: LockRecord) => `${objectId} ${id}`;
  return locks.toSorted((a, b) => key(a) < key(b) ? -1 : 1);
}

/** Everything that a store answers of the documents of `randomSteps`. */
async function whole(store: DocumentStore): Promise<unknown> {
  const documents = [];
  for (let n = 1; n <= RANDOM_DOCUMENTS; n++) {
    const { id } = documentOf(n);
    const loaded = await store.load(id);
    const contents = [];
    for (let version = 1; version <= (loaded?.record.version ?? 0); version++) {
      contents.push(await contentOf(store, id, version));
    }
    documents.push({
      record: loaded?.record,
      content: loaded === undefined ? "none" : textOf(loaded),
      locks: byObject(loaded?.locks ?? []),
      contents,
      entries: await store.entries(id, 1, 10_000),
      resolved: (await store.operations(id, { status: "resolved" }, 10_000, 1_000)).map(place),
      versions: (await store.versions(id, 10_000, 1_000)).map(place),
      conflicts: await store.conflicts(id, false, "", 100),
      open: (await store.conflicts(id, true, "", 100)).length,
      names: await store.names(id),
    });
  }
  return {
    documents,
    log: (await store.entriesBySequence(1, 10_000)).map(({ docId, id, sequence }) => [docId, id, sequence]),
    sequences: await store.sequences(),
    counts: await store.counts(),
    tagged: (await store.list({ tag: "t1" }, "", 100)).map(({ id }) => id),
  };
}

const RANDOM_DOCUMENTS = 4;

/** Commits, snapshots and compactions drawn from a seed, which fit what the ones before have left. */
function randomSteps(seed: number) {
  let word = seed;
  const random = (below: number) => {
    word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0;
    return (word >>> 8) % below;
  };
  const maybe = <T>(of: number, make: () => T): T[] => random(of) === 0 ? [make()] : [];
  const records = new Map<number, DocumentRecord>();
  for (let n = 1; n <= RANDOM_DOCUMENTS; n++) records.set(n, documentOf(n, { offset: 0 }));

  function edit(record: DocumentRecord): Change & { readonly record: DocumentRecord } {
    let version = record.version;
    const entries = Array.from({ length: random(4) }, (_, i) => {
      const offset = record.offset + 1 + i;
      return random(3) === 0
        ? eventOf(record.id, offset, version)
        : entryOf(record.id, offset, { version: ++version, update: new Uint8Array([random(256)]) });
    });
    const pastVersion = () => 1 + random(record.version);
    const lockId = () => idOf(random(6), "46");
    return changeOf(record, entries, {
      record: { ...record, tags: [`t${random(3)}`], hlc: BigInt(random(1_000)), openConflicts: random(3) },
      removeLocks: maybe(3, lockId),
      putLocks: maybe(3, () => lockOf(record.id, `object ${random(3)}`, { id: lockId() })),
      putConflicts: maybe(3, () => {
        const conflict = conflictOf(record.id, random(5));
        return random(2) === 0 ? conflict : { ...conflict, resolvedAtMs: T, resolution: "lww" };
      }),
      operationStatuses: maybe(
        2,
        () => ({ offset: 1 + random(record.offset + 3), status: "resolved" as const }),
      ),
      removeNames: maybe(4, pastVersion),
      putNames: maybe(4, () => ({
        version: pastVersion(),
        name: `name ${random(100)}`,
        userId: "ann",
        atMs: T,
        state: new Uint8Array([random(256)]),
      })),
    });
  }

  /** `lost` are documents of which a change of the same commit is not written, and so none behind it. */
  function change(lost: Set<number>): Change {
    const n = 1 + random(RANDOM_DOCUMENTS);
    const record = records.get(n)!;
    const kept = (after: DocumentRecord) => lost.has(n) || records.set(n, after);
    if (random(12) === 0) {
      lost.add(n);
      return changeOf({ ...record, offset: record.offset + 1 + random(2) });
    }
    if (record.offset === 0 || random(16) === 0) {
      if (record.offset > 0) lost.add(n);
      const made = documentOf(n, { tags: [`t${random(3)}`] });
      kept(made);
      return creationOf(made);
    }
    if (random(12) === 0) {
      kept(documentOf(n, { offset: 0 }));
      return removalOf(record);
    }
    const edited = edit(record);
    kept(edited.record);
    return edited;
  }

  return {
    commit() {
      const lost = new Set<number>();
      return Array.from({ length: 1 + random(6) }, () => change(lost));
    },
    upkeep() {
      const { id, offset, version } = records.get(1 + random(RANDOM_DOCUMENTS))!;
      const isThere = offset > 0;
      return {
        docId: id,
        snapshot: isThere && random(2) === 0
          ? { offset, version, state: new Uint8Array([random(256)]) }
          : undefined,
        compactBelow: isThere && random(3) === 0 ? 1 + random(offset + 1) : undefined,
      };
    },
  };
}

/** Content as a text: the snapshot's version and bytes, then the updates' bytes. */
export function textOf({ snapshot, updates }: ContentParts): string {
  const begin = snapshot === undefined ? [] : [`${snapshot.version}:${snapshot.state.join(".")}`];
  return [...begin, ...updates.map(({ update }) => update.join("."))].join(" ");
}

async function contentOf(store: DocumentStore, docId: string, version: number): Promise<string> {
  const parts = await store.contentAt(docId, version);
  return parts === undefined ? "gone" : textOf(parts);
}

async function assertEmpty(store: DocumentStore, docId: string): Promise<void> {
  assertEquals(await store.load(docId), undefined);
  assertEquals(await store.record(docId), undefined);
  assertEquals(await store.entries(docId, 1, 10), []);
  assertEquals(await store.operations(docId, {}, 100, 10), []);
  assertEquals(await store.operationByKey(docId, entryOf(docId, 2).operationKey!), undefined);
  assertEquals(await store.conflicts(docId, false, "", 10), []);
  assertEquals(await store.names(docId), []);
  assertEquals(await store.contentAt(docId, 1), undefined);
  assertEquals(await store.versionAt(docId, T * 2), undefined);
}
