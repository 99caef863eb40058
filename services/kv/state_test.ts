import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { KvError } from "./errors.ts";
import { Replay, snapshotRecords } from "./record.ts";
import { MvccState } from "./state.ts";
import { Model } from "./testing/model.ts";
import { ALL, assertSame, aStep, runSteps } from "./testing/mvcc_steps.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("MvccState agrees with the model over writes, rollbacks, reads in the past and compaction", () => {
  fc.assert(
    fc.property(fc.array(aStep, { maxLength: 60, size: "max" }), (steps) => {
      const state = new MvccState(1);
      const model = new Model();
      runSteps(state, model, steps);
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
        runSteps(state, model, before);
        const entries = new Map([["lease/1", bytes("x")]]);
        const scope = { revision: state.revision, compactRevision: state.compactRevision, identity, entries };
        const replay = new Replay(new MvccState(2));
        for (const record of snapshotRecords(state, scope)) replay.snapshotRecord(record);
        replay.end();
        const loaded = replay.state;
        assertSame(loaded, model);
        runSteps(loaded, model, after);
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
      runSteps(state, new Model(), steps);
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

Deno.test("MvccState.reclaim() gives memory back and changes nothing that can be read", () => {
  const state = new MvccState(1);
  const value = new Uint8Array(900);
  const key = (i: number) => bytes(`a key that is long enough to take memory of its own/${i}`);
  for (let i = 0; i < 30_000; i++) {
    state.put(key(i), value.fill(i));
    if (i % 100 === 0) state.commit();
  }
  state.commit();
  for (let i = 0; i < 30_000; i++) if (i % 20 !== 0) state.delete(key(i));
  state.commit();
  state.compact(state.revision, state.revision);
  state.purge(Infinity);
  const before = state.range(ALL, state.revision);
  const { bytes: used, reservedBytes } = state;
  let slices = 0;
  for (const _slice of state.reclaim()) {
    // Writes come between the slices.
    state.put(key(20 * slices++), value.fill(7));
    state.commit();
  }
  for (let i = 0; i < slices; i++) assertEquals(state.valueOf(state.rowAt(key(20 * i), Infinity)), value);
  assertEquals(state.range({ ...ALL, revision: before.revision }, state.revision).kvs, before.kvs);
  assert(
    state.bytes > used && state.reservedBytes < reservedBytes * 0.3,
    `${state.reservedBytes} of ${reservedBytes}`,
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
