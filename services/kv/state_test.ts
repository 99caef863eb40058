import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { KvError } from "./errors.ts";
import { compareBytes } from "./key.ts";
import { Replay, snapshotRecords } from "./record.ts";
import type { RangeQuery } from "./mvcc.ts";
import { MvccState } from "./state.ts";
import { aQuery, aWrite, type Write } from "./testing/arbitraries.ts";
import { Model } from "./testing/model.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const ALL: RangeQuery = { key: bytes("\0"), range: { start: bytes("\0"), end: undefined } };

/** Writes to state and model; a key is written at most once in a revision, so later writes of a key are left out. */
function write(state: MvccState, model: Model, writes: readonly Write[], keep: boolean): void {
  const written: Uint8Array[] = [];
  const isWritten = (key: Uint8Array) => written.some((other) => compareBytes(key, other) === 0);
  let deletes = 0;
  for (const one of writes) {
    if (one.kind === "put") {
      if (deletes > 0 || isWritten(one.key)) continue;
      state.put(one.key, one.value, one.lease);
      model.put(one.key, one.value, one.lease);
      written.push(one.key);
    } else {
      if (written.length > 0) continue;
      deletes++;
      const { key, range } = one.keys;
      const deleted = range === "single" ? Number(state.delete(key)) : state.deleteRange(range);
      assertEquals(deleted, model.delete(key, range));
    }
  }
  if (keep) {
    state.commit();
    model.commit();
  } else {
    state.rollback();
    model.rollback();
  }
}

type Step =
  | { readonly kind: "write"; readonly writes: readonly Write[]; readonly keep: boolean }
  | { readonly kind: "compact"; readonly share: number }
  | { readonly kind: "purge"; readonly rows: number }
  | { readonly kind: "range"; readonly query: RangeQuery; readonly age: number };

const aStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      writes: fc.array(aWrite, { minLength: 1, maxLength: 3 }),
      keep: fc.constantFrom(true, true, true, true, true, false),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("compact" as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("purge" as const), rows: fc.integer({ min: 1, max: 20 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("range" as const), query: aQuery, age: fc.nat(30) }),
  },
);

function run(state: MvccState, model: Model, steps: readonly Step[]): void {
  for (const step of steps) {
    if (step.kind === "write") write(state, model, step.writes, step.keep);
    else if (step.kind === "purge") state.purge(step.rows);
    else if (step.kind === "compact") {
      const revision = Math.round(
        state.compactRevision + step.share * (state.revision - state.compactRevision),
      );
      if (revision <= state.compactRevision) continue;
      state.compact(revision, state.revision);
      model.compactRevision = revision;
    } else {
      const revision = Math.max(model.revision - step.age, model.compactRevision, 1);
      const query = { ...step.query, revision };
      assertEquals(state.range(query, state.revision), model.range(query));
    }
  }
}

/** Everything a reader can find out, at every readable revision. */
function assertSame(state: MvccState, model: Model): void {
  assertEquals(state.revision, model.revision);
  assertEquals(state.keyCount, model.range(ALL).count);
  for (let revision = Math.max(1, model.compactRevision); revision <= model.revision; revision++) {
    const query = { ...ALL, revision };
    assertEquals(state.range(query, state.revision), model.range(query));
    assertEquals(state.range({ ...query, countOnly: true }, state.revision).count, model.range(query).count);
  }
  const { history } = state;
  const events = [];
  for (let i = state.indexOfRevision(state.compactRevision); i < history.end; i++) {
    const row = history.at(i);
    events.push([state.modRevision(row), state.keyOf(row), state.isTombstone(row)]);
  }
  assertEquals(
    events,
    model.events.filter((event) => event.revision >= model.compactRevision)
      .map((event) => [event.revision, event.key, event.kind === "delete"]),
  );
}

Deno.test("MvccState agrees with the model over writes, rollbacks, reads in the past and compaction", () => {
  fc.assert(
    fc.property(fc.array(aStep, { maxLength: 60, size: "max" }), (steps) => {
      const state = new MvccState(1);
      const model = new Model();
      run(state, model, steps);
      assertSame(state, model);
      state.purge(Infinity);
      assertSame(state, model);
    }),
    { numRuns: 300 },
  );
});

Deno.test("MvccState loaded from a snapshot reads, watches and compacts as the one it was taken from", () => {
  const identity = { clusterId: 1n, memberId: 2n };
  fc.assert(
    fc.property(
      fc.array(aStep, { maxLength: 40, size: "max" }),
      fc.array(aStep, { maxLength: 20, size: "max" }),
      (before, after) => {
        const state = new MvccState(1);
        const model = new Model();
        run(state, model, before);
        const entries = new Map([["lease/1", bytes("x")]]);
        const scope = { revision: state.revision, compactRevision: state.compactRevision, identity, entries };
        const replay = new Replay(new MvccState(2));
        for (const record of snapshotRecords(state, scope)) replay.snapshotRecord(record);
        replay.end();
        const loaded = replay.state;
        assertSame(loaded, model);
        run(loaded, model, after);
        assertSame(loaded, model);
        loaded.purge(Infinity);
        assertSame(loaded, model);
      },
    ),
    { numRuns: 150 },
  );
});

Deno.test("MvccState gives back all memory when everything is deleted and compacted", () => {
  fc.assert(
    fc.property(fc.array(aStep, { maxLength: 60, size: "max" }), (steps) => {
      const state = new MvccState(1);
      run(state, new Model(), steps);
      state.deleteRange({ start: bytes("\0"), end: undefined });
      state.commit();
      state.put(bytes("last"), bytes(""));
      state.commit();
      state.delete(bytes("last"));
      state.commit();
      state.put(bytes("other"), bytes(""));
      state.commit();
      if (state.revision > state.compactRevision) state.compact(state.revision, state.revision);
      state.purge(Infinity);
      assertEquals(state.historyBytes, 0);
      assertEquals(state.keyCount, 1);
      // One key, one row.
      assert(state.bytes < 128, `${state.bytes} bytes are left`);
    }),
    { numRuns: 100 },
  );
});

Deno.test("MvccState.range() refuses compacted and future revisions with etcd's texts", () => {
  const state = new MvccState(1);
  for (const text of ["1", "2", "3", "4"]) {
    state.put(bytes("k"), bytes(text));
    state.commit();
  }
  state.compact(3, state.revision);
  const at = (revision: number) =>
    state.range({ key: bytes("k"), range: "single", revision }, 5).kvs[0]?.value;
  assertThrows(() => at(2), KvError, "etcdserver: mvcc: required revision has been compacted");
  assertThrows(() => at(6), KvError, "etcdserver: mvcc: required revision is a future revision");
  assertEquals(at(3), bytes("2"));
  assertThrows(() => state.compact(3, 5), KvError, "has been compacted");
  assertThrows(() => state.compact(6, 5), KvError, "is a future revision");
});

Deno.test("MvccState.deleteRange() that hits nothing keeps the revision", () => {
  const state = new MvccState(1);
  state.put(bytes("a"), bytes("1"));
  assertEquals(state.commit(), 2);
  assertEquals(state.deleteRange({ start: bytes("b"), end: bytes("c") }), 0);
  assertEquals(state.delete(bytes("b")), false);
  assertEquals(state.commit(), 2);
});

Deno.test("MvccState.deleteRange() of many keys can be rolled back", () => {
  const state = new MvccState(1);
  for (let i = 0; i < 3_000; i++) state.put(bytes(`k${String(i).padStart(5, "0")}`), bytes("v"));
  state.commit();
  const before = state.bytes;
  assertEquals(state.deleteRange({ start: bytes("k"), end: bytes("l") }), 3_000);
  assertEquals(state.keyCount, 0);
  state.rollback();
  assertEquals(state.keyCount, 3_000);
  assertEquals(state.bytes, before);
  assertEquals(state.historyBytes, 0);
});

Deno.test("MvccState.holdPurge() keeps rows until it is released", () => {
  const state = new MvccState(1);
  for (const text of ["1", "2", "3"]) {
    state.put(bytes("k"), bytes(text));
    state.commit();
  }
  state.compact(4, 4);
  const release = state.holdPurge();
  assertEquals(state.purgeBacklog, 0);
  state.purge(Infinity);
  assertEquals(state.history.length, 3);
  release();
  release();
  assertEquals(state.purgeBacklog, 3);
  state.purge(Infinity);
  assertEquals(state.history.length, 1);
});
