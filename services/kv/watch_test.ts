import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { compareBytes } from "./key.ts";
import { MvccState } from "./state.ts";
import { aWrite, type Keys, someKeys } from "./testing/arbitraries.ts";
import { Model, type ModelEvent } from "./testing/model.ts";
import {
  CONTROL_ANSWERS_MAX,
  type WatchAnswer,
  type WatchCreate,
  WatchHub,
  type WatchLimits,
  type WatchStream,
} from "./watch.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const LIMITS: WatchLimits = { watchersMax: 100, batchBytes: 1_000, batchRevisions: 5 };

const watchOf = (keys: Keys, options: Partial<WatchCreate> = {}): WatchCreate => ({
  ...keys,
  startRevision: 0,
  watchId: 0n,
  prevKv: false,
  progressNotify: false,
  fragmentBytes: 0,
  noPut: false,
  noDelete: false,
  ...options,
});

const one = (key: string): Keys => ({ key: bytes(key), range: "single" });
const ALL: Keys = { key: bytes("\0"), range: { start: bytes("\0"), end: undefined } };

function setUp(limits: Partial<WatchLimits> = {}) {
  const state = new MvccState(1);
  const hub = new WatchHub(state, { ...LIMITS, ...limits });
  const put = (...pairs: [string, string][]) => {
    for (const [key, value] of pairs) state.put(bytes(key), bytes(value));
    hub.publish(state.commit());
  };
  const remove = (key: string) => {
    state.delete(bytes(key));
    hub.publish(state.commit());
  };
  let signals = 0;
  const stream = hub.openStream(() => signals++);
  return { state, hub, stream, put, remove, signals: () => signals };
}

function drain(stream: WatchStream): WatchAnswer[] {
  const answers: WatchAnswer[] = [];
  for (let answer = stream.take(); answer !== undefined; answer = stream.take()) {
    if (answer !== "again") answers.push(answer);
  }
  return answers;
}

const shown = (answers: WatchAnswer[]) =>
  answers.flatMap(({ watchId, events }) =>
    events.map(({ kind, kv }) => [Number(watchId), kind, new TextDecoder().decode(kv.key), kv.modRevision])
  );

Deno.test("WatchHub delivers to every watcher what the model says, in order, once, over slow readers and compaction", () => {
  const aWatcher = fc.record({
    keys: someKeys,
    back: fc.integer({ min: -3, max: 12 }),
    prevKv: fc.boolean(),
    fragmentBytes: fc.constantFrom(0, 300),
    noPut: fc.constantFrom(false, false, false, true),
    noDelete: fc.constantFrom(false, false, false, true),
  });
  const aStep = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant("write" as const),
        write: fc.array(aWrite, { minLength: 1, maxLength: 4 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("publish" as const), share: fc.constantFrom(0.3, 1) }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("watch" as const), watcher: aWatcher }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("take" as const), count: fc.nat(4) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("compact" as const), back: fc.nat(15) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("progress" as const) }) },
  );
  fc.assert(
    fc.property(fc.array(aStep, { maxLength: 80, size: "max" }), (steps) => {
      const state = new MvccState(1);
      const model = new Model();
      const hub = new WatchHub(state, LIMITS);
      let signalled = false;
      const stream = hub.openStream(() => signalled = true);
      const watchers: { create: WatchCreate; from: number; got: WatchAnswer[]; canceled: number }[] = [];
      const on = (answer: WatchAnswer) => {
        if (answer.watchId === -1n) {
          // Progress: nothing up to it may be delivered later.
          assert(answer.canceled || answer.revision === hub.revision);
          for (const { create, from, got, canceled } of answer.canceled ? [] : watchers) {
            if (canceled === 0) assertEquals(flat(got), expected(model, create, from, hub.revision));
          }
          return;
        }
        const watcher = watchers[Number(answer.watchId)]!;
        if (answer.canceled) {
          assert(answer.compactRevision === state.compactRevision, "cancelled by compaction");
          watcher.canceled = answer.compactRevision;
        } else if (answer.events.length > 0) {
          assertEquals(watcher.canceled, 0);
          watcher.got.push(answer);
        }
      };
      const take = (count: number) => {
        for (let i = 0; i < count; i++) {
          const answer = stream.take();
          if (answer === undefined) {
            signalled = false;
            return;
          }
          if (answer !== "again") on(answer);
        }
      };
      for (const step of steps) {
        if (step.kind === "write") {
          const [first] = step.write;
          if (first!.kind === "delete") {
            const { key, range } = first!.keys;
            if (range === "single") state.delete(key);
            else state.deleteRange(range);
            model.delete(key, range);
          } else {
            const puts = step.write.filter((write) => write.kind === "put");
            puts.forEach(({ key, value }, i) => {
              if (puts.slice(0, i).some((other) => compareBytes(other.key, key) === 0)) return;
              state.put(key, value);
              model.put(key, value);
            });
          }
          state.commit();
          model.commit();
        } else if (step.kind === "publish") {
          hub.publish(hub.revision + Math.ceil(step.share * (state.revision - hub.revision)));
        } else if (step.kind === "watch") {
          const { keys, back, ...options } = step.watcher;
          const startRevision = back < -2 ? 0 : Math.max(1, hub.revision - back);
          const create = watchOf(keys, { ...options, startRevision });
          const { range } = create;
          const isEmpty = range !== "single" && range.end !== undefined &&
            compareBytes(range.end, create.key) <= 0;
          if (!isEmpty) {
            const from = startRevision === 0 ? hub.revision + 1 : startRevision;
            watchers.push({ create, from, got: [], canceled: 0 });
          }
          stream.create(create);
        } else if (step.kind === "take") take(step.count);
        else if (step.kind === "progress") stream.requestProgress();
        else {
          const revision = hub.revision - step.back;
          if (revision <= state.compactRevision) continue;
          state.compact(revision, hub.revision);
          model.compactRevision = revision;
          state.purge(Infinity);
        }
      }
      hub.publish(state.revision);
      take(Infinity);
      assertEquals(signalled, false);
      for (const { create, from, got, canceled } of watchers) {
        const all = expected(model, create, from, model.revision);
        const events = flat(got);
        // A cancelled watcher got a beginning; one that was not got everything.
        assertEquals(events, canceled === 0 ? all : all.slice(0, events.length));
        if (canceled > 0) assert(from < canceled, "was overtaken");
        assertWhole(got, canceled > 0);
      }
    }),
    { numRuns: 200 },
  );
});

/** Events a watcher should get; previous values count only where they are the same as what could be read. */
function expected(model: Model, create: WatchCreate, from: number, to: number): unknown[] {
  const isWithin = (key: Uint8Array) =>
    create.range === "single"
      ? compareBytes(key, create.key) === 0
      : compareBytes(key, create.range.start) >= 0 &&
        (create.range.end === undefined || compareBytes(key, create.range.end) < 0);
  const wanted = (event: ModelEvent) =>
    event.revision >= from && event.revision <= to && isWithin(event.key) &&
    !(event.kind === "put" ? create.noPut : create.noDelete);
  return model.events.filter(wanted).map(({ kind, revision, key, kv }) => [kind, revision, key, kv?.value]);
}

function flat(answers: WatchAnswer[]): unknown[] {
  return answers.flatMap(({ events }) =>
    events.map(({ kind, kv, prevKv }) => {
      if (prevKv !== undefined) assert(prevKv.modRevision < kv.modRevision);
      return [kind, kv.modRevision, kv.key, kind === "put" ? kv.value : undefined];
    })
  );
}

/** No revision is in two answers, unless the first says that it is a fragment. Only compaction may leave the last fragment
 *  without the rest. */
function assertWhole(answers: WatchAnswer[], wasCanceled: boolean): void {
  answers.forEach((answer, i) => {
    const next = answers[i + 1];
    const last = answer.events.at(-1)!.kv.modRevision;
    if (next === undefined) return assert(!answer.fragment || wasCanceled);
    assertEquals(last === next.events[0]!.kv.modRevision, answer.fragment ?? false);
    assert(answer.fragment || answer.revision >= last);
  });
}

Deno.test("WatchStream announces, delivers, cancels and answers with etcd's ids", () => {
  const { stream, put, remove } = setUp();
  stream.create(watchOf(one("a")));
  stream.create(watchOf(ALL, { watchId: 7n }));
  stream.create(watchOf(one("b")));
  assertEquals(drain(stream).map(({ watchId, created }) => [watchId, created]), [[0n, true], [7n, true], [
    1n,
    true,
  ]]);
  put(["a", "1"], ["c", "1"]);
  remove("a");
  assertEquals(shown(drain(stream)), [
    [0, "put", "a", 2],
    [0, "delete", "a", 3],
    [7, "put", "a", 2],
    [7, "put", "c", 2],
    [7, "delete", "a", 3],
  ]);
  stream.cancel(7n);
  stream.cancel(99n);
  put(["a", "2"]);
  assertEquals(drain(stream).map(({ watchId, canceled, events }) => [watchId, canceled, events.length]), [
    [7n, true, 0],
    [0n, undefined, 1],
  ]);
});

Deno.test("WatchStream.create() refuses with etcd's reasons", () => {
  const { stream } = setUp({ watchersMax: 1 });
  stream.create(watchOf(one("a"), { watchId: 5n }));
  stream.create(watchOf(one("a"), { watchId: 5n }));
  stream.create(watchOf({ key: bytes("b"), range: { start: bytes("b"), end: bytes("a") } }));
  stream.create(watchOf(one("a"), { startRevision: -1 }));
  stream.create(watchOf(one("b")));
  assertEquals(
    drain(stream).map((
      { watchId, created, canceled, cancelReason },
    ) => [watchId, created, canceled, cancelReason]),
    [
      [5n, true, undefined, undefined],
      [-1n, true, true, "mvcc: duplicate watch ID provided on the WatchStream"],
      [-1n, true, true, "mvcc: watcher range is empty"],
      [-1n, true, true, "etcdserver: mvcc: required revision has been compacted"],
      [-1n, true, true, "etcdserver: too many requests"],
    ],
  );
});

Deno.test("WatchStream starts at a revision of the past, of the compaction, and of the future", () => {
  const { state, stream, put } = setUp();
  for (const value of ["1", "2", "3", "4"]) put(["a", value]);
  state.compact(3, 5);
  stream.create(watchOf(one("a"), { startRevision: 2 }));
  stream.create(watchOf(one("a"), { startRevision: 3 }));
  stream.create(watchOf(ALL, { startRevision: 7 }));
  put(["a", "5"]);
  put(["a", "6"]);
  const answers = drain(stream);
  assertEquals(
    answers.filter(({ canceled }) => canceled).map((
      { watchId, compactRevision },
    ) => [watchId, compactRevision]),
    [[0n, 3]],
  );
  assertEquals(shown(answers), [
    ...[3, 4, 5, 6, 7].map((revision) => [1, "put", "a", revision]),
    [2, "put", "a", 7],
  ]);
});

Deno.test("WatchStream gives previous records that can still be read", () => {
  const { state, stream, put, remove } = setUp();
  put(["a", "1"]);
  put(["a", "2"]);
  remove("a");
  put(["a", "3"]);
  state.compact(3, 5);
  state.purge(Infinity);
  stream.create(watchOf(one("a"), { startRevision: 3, prevKv: true }));
  const events = drain(stream).flatMap((answer) => answer.events);
  assertEquals(
    events.map(({ kind, prevKv }) => [kind, prevKv && new TextDecoder().decode(prevKv.value)]),
    [["put", undefined], ["delete", "2"], ["put", undefined]],
  );
});

Deno.test("WatchStream splits a large revision for who asked for fragments only", () => {
  const { stream, put } = setUp();
  stream.create(watchOf(ALL, { fragmentBytes: 400 }));
  stream.create(watchOf(ALL));
  drain(stream);
  put(...["a", "b", "c", "d", "e"].map((key): [string, string] => [key, "x".repeat(120)]));
  put(["a", "small"]);
  const answers = drain(stream);
  const of = (id: bigint) =>
    answers.filter(({ watchId }) => watchId === id)
      .map(({ fragment, events }) => [
        fragment,
        events.map(({ kv }) => new TextDecoder().decode(kv.key)).join(""),
      ]);
  assertEquals(of(0n), [[true, "ab"], [true, "cd"], [false, "ea"]]);
  assertEquals(of(1n), [[false, "abcdea"]]);
});

Deno.test("WatchStream.requestProgress() is answered after everything before it", () => {
  const { stream, put } = setUp();
  stream.create(watchOf(ALL));
  drain(stream);
  put(["a", "1"]);
  stream.requestProgress();
  put(["a", "2"]);
  assertEquals(drain(stream).map(({ watchId, revision, events }) => [watchId, revision, events.length]), [
    [0n, 3, 2],
    [-1n, 3, 0],
  ]);
});

Deno.test("WatchHub.tickProgress() tells quiet watchers that asked for it", () => {
  const { hub, stream, put } = setUp();
  stream.create(watchOf(one("a"), { progressNotify: true }));
  stream.create(watchOf(one("b")));
  drain(stream);
  hub.tickProgress();
  put(["c", "1"]);
  hub.tickProgress();
  assertEquals(drain(stream).map(({ watchId, revision }) => [watchId, revision]), [[0n, 2]]);
  put(["a", "1"]);
  drain(stream);
  hub.tickProgress();
  assertEquals(drain(stream), []);
});

Deno.test("WatchHub keeps a slow reader's watcher at constant size and delivers everything later", () => {
  const { hub, stream, put, signals } = setUp();
  stream.create(watchOf(ALL));
  drain(stream);
  const before = signals();
  for (let i = 0; i < 5_000; i++) put([`k${i % 7}`, String(i)]);
  assertEquals(signals() - before, 1);
  assertEquals([hub.laggingCount(1_000), hub.laggingCount(5_000)], [1, 0]);
  const revisions = shown(drain(stream)).map(([, , , revision]) => revision);
  assertEquals(revisions, Array.from({ length: 5_000 }, (_, i) => i + 2));
  assertEquals(hub.laggingCount(0), 0);
});

Deno.test("WatchStream.take() gives way while it looks for rare keys far back", () => {
  const { stream, put } = setUp({ watchersMax: 1_000 });
  put(["rare", "1"]);
  for (let i = 0; i < 80_000; i++) put(["common", ""]);
  stream.create(
    watchOf({ key: bytes("r"), range: { start: bytes("r"), end: bytes("s") } }, { startRevision: 3 }),
  );
  assertEquals((stream.take() as WatchAnswer).created, true);
  assertEquals(stream.take(), "again");
  assertEquals(drain(stream), []);
  put(["rare", "2"]);
  assertEquals(shown(drain(stream)), [[0, "put", "rare", 80_003]]);
});

Deno.test("WatchStream stops accepting requests when nobody takes the answers", () => {
  const { stream } = setUp();
  for (let i = 0; i < CONTROL_ANSWERS_MAX; i++) {
    assertEquals(stream.acceptsRequests, true);
    stream.create(watchOf(one("a"), { startRevision: -1 }));
  }
  assertEquals(stream.acceptsRequests, false);
  stream.take();
  assertEquals(stream.acceptsRequests, true);
});

Deno.test("WatchStream.close() forgets its watchers and wakes its reader", () => {
  const { hub, stream, put, signals } = setUp();
  stream.create(watchOf(one("a"), { progressNotify: true }));
  stream.create(watchOf(ALL));
  drain(stream);
  const before = signals();
  stream.close();
  stream.close();
  put(["a", "1"]);
  hub.tickProgress();
  assertEquals([hub.watcherCount, stream.take(), stream.isClosed, signals() - before], [
    0,
    undefined,
    true,
    1,
  ]);
});
