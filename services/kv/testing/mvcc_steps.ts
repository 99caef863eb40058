/** Random lives of a multi-version machine, beside the naive model that it has to agree with. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { compareBytes } from "../key.ts";
import type { Mvcc, RangeQuery } from "../mvcc.ts";
import type { WriteLog } from "../txn.ts";
import { aQuery, aWrite, type Write } from "./arbitraries.ts";
import type { Model } from "./model.ts";

export type Step =
  | { readonly kind: "write"; readonly writes: readonly Write[]; readonly keep: boolean }
  | { readonly kind: "compact"; readonly share: number }
  | { readonly kind: "purge"; readonly rows: number }
  | { readonly kind: "range"; readonly query: RangeQuery; readonly age: number };

export const aStep: fc.Arbitrary<Step> = fc.oneof(
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

/** What else is to be told of the steps: a store's side of them. */
export interface StepListener {
  /** Before the first write of a revision; the log hears of every write in it. */
  begin(revision: number): WriteLog;
  /** Before the writes are committed. */
  append(): void;
  /** Before history is given up. */
  compact(revision: number): void;
}

/** Does the steps to the machine and the model; reads are compared at once. */
export function runSteps(state: Mvcc, model: Model, steps: readonly Step[], listener?: StepListener): void {
  for (const step of steps) {
    if (step.kind === "write") write(state, model, step.writes, step.keep, listener);
    else if (step.kind === "purge") state.purge(step.rows);
    else if (step.kind === "compact") {
      const revision = Math.round(
        state.compactRevision + step.share * (state.revision - state.compactRevision),
      );
      if (revision <= state.compactRevision) continue;
      listener?.compact(revision);
      state.compact(revision, state.revision);
      model.compactRevision = revision;
    } else {
      const revision = Math.max(model.revision - step.age, model.compactRevision, 1);
      const query = { ...step.query, revision };
      assertEquals(state.range(query, state.revision), model.range(query));
    }
  }
}

/** Writes to both; a key is written at most once in a revision, so later writes of a key are left out. */
function write(
  state: Mvcc,
  model: Model,
  writes: readonly Write[],
  keep: boolean,
  listener: StepListener | undefined,
): void {
  const log = listener?.begin(state.revision + 1);
  const written: Uint8Array[] = [];
  const isWritten = (key: Uint8Array) => written.some((other) => compareBytes(key, other) === 0);
  let deletes = 0;
  for (const one of writes) {
    if (one.kind === "put") {
      if (deletes > 0 || isWritten(one.key)) continue;
      state.put(one.key, one.value, one.lease);
      log?.put(one.key, one.value, one.lease);
      model.put(one.key, one.value, one.lease);
      written.push(one.key);
    } else {
      if (written.length > 0) continue;
      deletes++;
      const { key, range } = one.keys;
      const deleted = range === "single" ? Number(state.delete(key)) : state.deleteRange(range);
      if (deleted > 0) range === "single" ? log?.delete(key) : log?.deleteRange(range);
      assertEquals(deleted, model.delete(key, range));
    }
  }
  if (keep) {
    if (state.hasChanges) listener?.append();
    state.commit();
    model.commit();
  } else {
    state.rollback();
    model.rollback();
  }
}

const FIRST_KEY = new Uint8Array(1);
/** Every key. */
export const ALL: RangeQuery = { key: FIRST_KEY, range: { start: FIRST_KEY, end: undefined } };

/** Everything a reader can find out, at every readable revision. */
export function assertSame(state: Mvcc, model: Model): void {
  assertEquals(state.revision, model.revision);
  assertEquals(state.compactRevision, model.compactRevision);
  assertEquals(state.keyCount, model.range(ALL).count);
  for (let revision = Math.max(1, model.compactRevision); revision <= model.revision; revision++) {
    const query = { ...ALL, revision };
    assertEquals(state.range(query, state.revision), model.range(query));
    assertEquals(state.range({ ...query, countOnly: true }, state.revision).count, model.range(query).count);
  }
  const events = [];
  for (let i = state.indexOfRevision(state.compactRevision); i < state.historyEnd; i++) {
    const row = state.historyAt(i);
    events.push([state.modRevision(row), state.keyOf(row), state.isTombstone(row)]);
  }
  assertEquals(
    events,
    model.events.filter((event) => event.revision >= model.compactRevision)
      .map((event) => [event.revision, event.key, event.kind === "delete"]),
  );
}
