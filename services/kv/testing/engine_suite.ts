/** What every embedded engine has to pass: the same answers as the naive model, over restarts and crashes, and the same rows
 *  as the machine in memory in every way of reading them. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { EngineSeeds, KvEngine } from "../engine.ts";
import { KvError } from "../errors.ts";
import { prefixRange } from "../key.ts";
import { type Mvcc, RANGE_BYTES_MAX } from "../mvcc.ts";
import { compactRecord, WriteRecord } from "../record.ts";
import { MvccState } from "../state.ts";
import { StoreError } from "../store.ts";
import { aKey, aQuery, someKeys } from "./arbitraries.ts";
import { Model } from "./model.ts";
import { ALL, assertSame, aStep, runSteps, type Step, type StepListener } from "./mvcc_steps.ts";

/** Files of one engine, over its lives. */
export interface EngineHome extends AsyncDisposable {
  /** Opens what is there. */
  open(seeds: EngineSeeds): Promise<KvEngine>;
  /** Ends a life as SIGKILL does: what was written stays, nothing more is written. */
  crash(engine: KvEngine): Promise<void>;
}

/** An engine. */
export interface EngineUnderTest {
  readonly name: string;
  /** A home without files. */
  create(): Promise<EngineHome>;
  /** Whether `bytes` means the same in every life: not when the index moves. */
  readonly countsAlike: boolean;
  /** Trials of a property; engines on real files are slower. */
  readonly trials: number;
}

/** One test of the suite. */
export interface EngineTest {
  readonly name: string;
  run(): Promise<void>;
}

const SEEDS: EngineSeeds = { hash: 1, identity: { clusterId: 0xfedc_ba98_7654_3210n, memberId: 2n } };
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) =>
  value === undefined ? undefined : new TextDecoder().decode(value);

/** The suite for one engine, for `Deno.test`. */
export function engineSuite(under: EngineUnderTest): EngineTest[] {
  const { name } = under;
  return [
    { name: `${name} engine agrees with the model over restarts and crashes`, run: () => agrees(under) },
    { name: `${name} engine reads rows as the machine in memory does`, run: () => readsAlike(under) },
    { name: `${name} engine gives back what is deleted and compacted`, run: () => givesBack(under) },
    { name: `${name} engine keeps named entries, leases and identity`, run: () => keepsEntries(under) },
    { name: `${name} engine undoes a change of many keys alone`, run: () => undoesAlone(under) },
    { name: `${name} engine refuses to gather more than an answer holds`, run: () => bounds(under) },
    { name: `${name} engine refuses compacted and future revisions`, run: () => refuses(under) },
    {
      name: `${name} engine resumes a purge after a crash, and gives space back`,
      run: () => resumesPurge(under),
    },
  ];
}

/** Tells an engine's store of the steps. */
class Appender implements StepListener {
  readonly #record = new WriteRecord();

  constructor(readonly engine: KvEngine) {}

  begin(revision: number): WriteRecord {
    this.#record.begin(revision);
    return this.#record;
  }

  append(): void {
    this.engine.store.append(this.#record.payload, this.#record.entries);
  }

  compact(revision: number): void {
    this.engine.store.append(compactRecord(revision), []);
  }

  /** Everything that was told is durable. */
  async settle(): Promise<void> {
    const record = new WriteRecord();
    record.begin(0);
    record.meta("settled", bytes("yes"));
    const { store } = this.engine;
    await store.durable(store.append(record.entriesPayload, record.entries));
  }
}

const aLife: fc.Arbitrary<{ steps: Step[]; end: "close" | "crash" }> = fc.record({
  steps: fc.array(aStep, { maxLength: 25, size: "max" }),
  end: fc.constantFrom("close", "crash"),
});

async function agrees(under: EngineUnderTest): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.array(aLife, { minLength: 1, maxLength: 3 }), async (lives) => {
      await using home = await under.create();
      const model = new Model();
      for (const { steps, end } of lives) {
        const engine = await home.open(SEEDS);
        assertSame(engine.state, model);
        const appender = new Appender(engine);
        await runSettled(engine, model, steps, appender);
        assertSame(engine.state, model);
        await appender.settle();
        assertSame(engine.state, model);
        if (end === "crash") await home.crash(engine);
        else await engine.store.close();
      }
      const engine = await home.open(SEEDS);
      assertSame(engine.state, model);
      engine.state.purge(Infinity);
      assertSame(engine.state, model);
      await engine.store.close();
    }),
    { numRuns: under.trials },
  );
}

/** Runs the steps; only what is durable is compacted, as the service does it. Later steps see rows that are in the file and
 *  rows of the open group. */
async function runSettled(
  { state }: KvEngine,
  model: Model,
  steps: readonly Step[],
  appender: Appender,
): Promise<void> {
  let from = 0;
  for (let to = 0; to < steps.length; to++) {
    if (steps[to]!.kind !== "compact") continue;
    runSteps(state, model, steps.slice(from, to), appender);
    await appender.settle();
    from = to;
  }
  runSteps(state, model, steps.slice(from), appender);
}

/** A row as every engine sees it: numbers of rows differ. */
function describe(state: Mvcc, row: number): unknown {
  if (row < 0) return undefined;
  return [
    text(state.keyOf(row)),
    state.modRevision(row),
    state.subOf(row),
    state.createRevision(row),
    state.version(row),
    state.leaseOf(row),
    state.isTombstone(row),
    state.payloadBytes(row),
    state.valueOf(row),
  ];
}

async function readsAlike(under: EngineUnderTest): Promise<void> {
  const probes = fc.array(fc.tuple(aKey, someKeys, aQuery, fc.nat(40), fc.nat(4)), {
    minLength: 1,
    maxLength: 8,
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(aStep, { maxLength: 40, size: "max" }),
      probes,
      fc.boolean(),
      async (steps, probes, reopens) => {
        await using home = await under.create();
        let engine = await home.open(SEEDS);
        const appender = new Appender(engine);
        await runSettled(engine, new Model(), steps, appender);
        const expected = new MvccState(1);
        runSteps(expected, new Model(), steps);
        if (reopens) {
          await appender.settle();
          await engine.store.close();
          engine = await home.open(SEEDS);
        }
        const states = [engine.state, expected] as const;
        // Equal garbage first: what an engine still has of it is its own affair.
        for (const state of states) state.purge(Infinity);
        const [actual, model] = states.map((state) => probes.map((probe) => probeAll(state, probe)));
        assertEquals(actual, model);
        await engine.store.close();
      },
    ),
    { numRuns: under.trials },
  );
}

type Probe = [
  Uint8Array,
  { key: Uint8Array; range: { start: Uint8Array; end: Uint8Array | undefined } | "single" },
  object,
  number,
  number,
];

/** Everything but what the model checks. */
function probeAll(state: Mvcc, [key, { range }, , age, limit]: Probe): unknown {
  const oldest = Math.max(state.compactRevision, 1);
  const revision = Math.max(state.revision - age, oldest);
  const keys = range === "single" ? prefixRange(key) : range;
  const rows: number[] = [];
  state.rowsOfKey(key, oldest, revision, rows);
  const history: unknown[] = [];
  for (let i = state.indexOfRevision(oldest); i < state.historyEnd; i++) {
    const row = state.historyAt(i);
    const previous = state.modRevision(row) > state.compactRevision ? state.previousLeaseOf(row) : undefined;
    history.push([
      describe(state, row),
      describe(state, state.previousOf(row)),
      previous,
      state.isRowWithin(row, keys),
    ]);
  }
  const leased: unknown[] = [];
  state.visitLeased((row) => leased.push(describe(state, row)));
  const visited: unknown[] = [];
  state.visitRows(key, oldest, revision, (key, rows) => {
    visited.push([text(key), rows.map((row) => describe(state, row))]);
    return visited.length < limit + 1;
  });
  const page = state.pageRows(keys, revision, limit + 1, 50);
  return {
    at: describe(state, state.rowAt(key, revision)),
    newest: describe(state, state.rowAt(key, Infinity)),
    inRange: state.rowsInRange(keys, revision).map((row) => describe(state, row)),
    page: [page.isCut, page.rows.map((row) => describe(state, row))],
    rows: rows.map((row) => describe(state, row)),
    history,
    historyIndex: state.historyEnd - state.indexOfRevision(revision),
    leased,
    visited,
  };
}

async function givesBack(under: EngineUnderTest): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.array(aStep, { maxLength: 40, size: "max" }), async (steps) => {
      await using home = await under.create();
      const engine = await home.open(SEEDS);
      const { state, store } = engine;
      await runSettled(engine, new Model(), steps, new Appender(engine));
      state.deleteRange({ start: bytes("\0"), end: undefined });
      state.commit();
      for (const value of ["1", "2"]) {
        state.put(bytes("other"), bytes(value));
        state.commit();
      }
      await new Appender(engine).settle();
      if (state.revision > state.compactRevision) state.compact(state.revision, state.revision);
      state.purge(Infinity);
      assertEquals([state.historyBytes, state.keyCount, state.purgeBacklog], [0, 1, 0]);
      assert(state.bytes < 160, `${state.bytes} bytes are left`);
      await store.close();
    }),
    { numRuns: Math.ceil(under.trials / 2) },
  );
}

async function keepsEntries(under: EngineUnderTest): Promise<void> {
  await using home = await under.create();
  const lease = 0x7fff_ffff_ffff_fff1n;
  for (let life = 0; life < 3; life++) {
    const engine = await home.open({ ...SEEDS, identity: { clusterId: BigInt(life), memberId: 9n } });
    const { state, store, entries, identity } = engine;
    assertEquals(identity, { clusterId: 0n, memberId: 9n });
    assertEquals(text(entries.get("lease/1")), life === 0 ? undefined : `life ${life - 1}`);
    assertEquals(entries.get("gone")?.length, life === 0 ? undefined : 0);
    if (life > 0) assertEquals(state.leaseOf(state.rowAt(bytes("k"), Infinity)), lease);
    const record = new WriteRecord();
    record.begin(state.revision + 1);
    state.put(bytes("k"), bytes("v"), lease);
    record.put(bytes("k"), bytes("v"), lease);
    record.meta("passing", bytes("x"));
    record.meta("passing", undefined);
    record.meta("lease/1", bytes(`life ${life}`));
    const seq = store.append(record.payload, record.entries);
    state.commit();
    record.begin(0);
    record.meta("gone", new Uint8Array(0));
    await store.durable(store.append(record.entriesPayload, record.entries));
    assert(store.durableSeq > seq);
    assertEquals(entries.has("passing"), false);
    if (life === 1) await home.crash(engine);
    else await store.close();
  }
}

async function undoesAlone(under: EngineUnderTest): Promise<void> {
  await using home = await under.create();
  let engine = await home.open(SEEDS);
  const { state, store } = engine;
  const record = new WriteRecord();
  record.begin(2);
  for (let i = 0; i < 1_500; i++) {
    const key = bytes(`k${String(i).padStart(5, "0")}`);
    state.put(key, bytes("v"));
    record.put(key, bytes("v"), 0n);
  }
  store.append(record.payload, record.entries);
  state.commit();
  const before = [state.bytes, state.historyBytes, state.keyCount];
  assertEquals(state.deleteRange({ start: bytes("k"), end: bytes("l") }), 1_500);
  assertEquals(state.keyCount, 0);
  state.put(bytes("other"), bytes("v"));
  state.rollback();
  assertEquals([state.bytes, state.historyBytes, state.keyCount], before);
  await new Appender(engine).settle();
  await store.close();
  engine = await home.open(SEEDS);
  if (under.countsAlike) assertEquals(engine.state.bytes, before[0]);
  assertEquals([engine.state.historyBytes, engine.state.keyCount], before.slice(1));
  const page = engine.state.range({ ...ALL, limit: 700 }, 2);
  assertEquals([page.kvs.length, page.count, page.more], [700, 1_500, true]);
  assertEquals(engine.state.range(ALL, 2).kvs.length, 1_500);
  await engine.store.close();
}

async function refuses(under: EngineUnderTest): Promise<void> {
  await using home = await under.create();
  const { state, store } = await home.open(SEEDS);
  for (const value of ["1", "2", "3", "4"]) {
    state.put(bytes("k"), bytes(value));
    state.commit();
  }
  state.compact(3, state.revision);
  const at = (revision: number) =>
    state.range({ key: bytes("k"), range: "single", revision }, 5).kvs[0]?.value;
  assertThrows(() => at(2), Error, "etcdserver: mvcc: required revision has been compacted");
  assertThrows(() => at(6), Error, "etcdserver: mvcc: required revision is a future revision");
  assertEquals(at(3), bytes("2"));
  assertThrows(() => state.compact(3, 5), Error, "has been compacted");
  assertThrows(() => state.put(bytes("absent"), undefined), RangeError, "Cannot keep the value");
  state.rollback();
  const release = state.holdPurge();
  state.purge(Infinity);
  assertEquals(state.purgeBacklog, 0);
  release();
  release();
  assert(state.purgeBacklog > 0);
  await store.close();
  // A purge in the background may come back after it.
  state.purge(10);
  const closed = assertThrows(() => store.append(compactRecord(4), []), StoreError) as StoreError;
  assertEquals(closed.code, "failed");
}

async function bounds(under: EngineUnderTest): Promise<void> {
  await using home = await under.create();
  const engine = await home.open(SEEDS);
  const { state, store } = engine;
  const value = new Uint8Array(1_500_000);
  const count = Math.ceil(RANGE_BYTES_MAX / value.length) + 1;
  const record = new WriteRecord();
  for (let i = 0; i < count; i++) {
    const key = bytes(`k${String(i).padStart(3, "0")}`);
    record.begin(state.revision + 1);
    state.put(key, value);
    record.put(key, value, 0n);
    const seq = store.append(record.payload, record.entries);
    state.commit();
    await store.durable(seq);
  }
  for (const query of [ALL, { ...ALL, sortOrder: "descend" } as const]) {
    const error = assertThrows(() => state.range(query, state.revision), KvError) as KvError;
    assertEquals(error.kind, "answerTooLarge");
    assertEquals(state.range({ ...query, keysOnly: true }, state.revision).kvs.length, count);
    assertEquals(state.range({ ...query, limit: 9 }, state.revision).kvs.length, 9);
  }
  await store.close();
}

async function resumesPurge(under: EngineUnderTest): Promise<void> {
  await using home = await under.create();
  const model = new Model();
  let engine = await home.open(SEEDS);
  const puts: Step[] = Array.from({ length: 60 }, (_, i) => ({
    kind: "write",
    keep: true,
    writes: i % 7 === 6
      ? [{ kind: "delete", keys: { key: bytes(`k${i % 5}`), range: "single" } }]
      : [{ kind: "put", key: bytes(`k${i % 5}`), value: bytes(String(i)), lease: 0n }],
  }));
  const steps: Step[] = [...puts, { kind: "compact", share: 0.9 }, { kind: "purge", rows: 9 }];
  await runSettled(engine, model, steps, new Appender(engine));
  for (let life = 0; life < 4; life++) {
    await new Appender(engine).settle();
    await home.crash(engine);
    engine = await home.open(SEEDS);
    assertSame(engine.state, model);
    engine.state.purge(11);
    assertSame(engine.state, model);
  }
  engine.state.purge(Infinity);
  assertSame(engine.state, model);
  assertEquals(engine.state.purgeBacklog, 0);
  await engine.space.defragment(() => Promise.resolve());
  assert(engine.space.reservedBytes > 0);
  assertSame(engine.state, model);
  await home.crash(engine);
  engine = await home.open(SEEDS);
  assertSame(engine.state, model);
  await engine.store.close();
}
