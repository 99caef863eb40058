import { assertEquals, assertThrows } from "@std/assert";
import { SimRandom } from "../../sim/random.ts";
import { checkLinearizable, type Operation } from "./checker.ts";
import { type KvInput, kvModel, type KvOutput, type KvState, run } from "./kv_model.ts";

type Step = Operation<KvInput, KvOutput>;

const model = kvModel();
const put = (value: string): KvInput => ({ kind: "put", key: "a", value });
const get: KvInput = { kind: "get", key: "a" };
const entry = (value: string, mod: number, version = mod - 1, create = 2) => ({
  value,
  create,
  mod,
  version,
});

/** An operation between two instants. */
function op(start: number, end: number, input: KvInput, output: KvOutput | undefined): Step {
  return { start, end, input, output };
}

const cases: [what: string, right: boolean, history: Step[]][] = [
  ["nothing happened", true, []],
  ["a read after a write sees it", true, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 3, get, { revision: 2, entry: entry("1", 2) }),
  ]],
  ["a read beside a write may miss it", true, [
    op(0, 3, put("1"), { revision: 2 }),
    op(1, 2, get, { revision: 1, entry: null }),
  ]],
  ["a stale read", false, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 3, get, { revision: 1, entry: null }),
  ]],
  ["a stale read beside a later write", false, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 5, put("2"), { revision: 3 }),
    op(3, 4, get, { revision: 1, entry: null }),
  ]],
  ["a lost write", false, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 3, put("2"), { revision: 2 }),
  ]],
  ["a write that a later read does not know", false, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 3, put("2"), { revision: 3 }),
    op(4, 5, get, { revision: 2, entry: entry("1", 2) }),
  ]],
  ["two reads that saw two writes in different orders", false, [
    op(0, 9, put("1"), { revision: 2 }),
    op(0, 9, put("2"), { revision: 3 }),
    op(1, 2, get, { revision: 3, entry: entry("2", 3) }),
    op(3, 4, get, { revision: 2, entry: entry("1", 2) }),
  ]],
  ["a revision used twice", false, [
    op(0, 2, put("1"), { revision: 2 }),
    op(1, 3, { kind: "put", key: "b", value: "1" }, { revision: 2 }),
  ]],
  ["a revision left out", false, [op(0, 1, put("1"), { revision: 3 })]],
  ["writes answered out of order, which overlapped", true, [
    op(0, 4, put("1"), { revision: 3 }),
    op(1, 3, put("2"), { revision: 2 }),
    op(5, 6, get, { revision: 3, entry: entry("1", 3) }),
  ]],
  ["an unanswered write that happened", true, [
    op(0, 0, put("1"), undefined),
    op(5, 6, get, { revision: 2, entry: entry("1", 2) }),
  ]],
  ["an unanswered write that did not happen", true, [
    op(0, 0, put("1"), undefined),
    op(5, 6, get, { revision: 1, entry: null }),
  ]],
  ["an unanswered write that happened late", true, [
    op(0, 0, put("1"), undefined),
    op(1, 2, get, { revision: 1, entry: null }),
    op(3, 4, get, { revision: 2, entry: entry("1", 2) }),
  ]],
  ["an unanswered write that happened and was undone", false, [
    op(0, 0, put("1"), undefined),
    op(1, 2, get, { revision: 2, entry: entry("1", 2) }),
    op(3, 4, get, { revision: 1, entry: null }),
  ]],
  ["an unanswered write before it was asked for", false, [
    op(1, 2, get, { revision: 2, entry: entry("1", 2) }),
    op(3, 3, put("1"), undefined),
  ]],
  ["two swaps of one revision that both succeeded", false, [
    op(0, 3, { kind: "swap", key: "a", expected: 0, value: "1" }, { revision: 2, succeeded: true }),
    op(1, 4, { kind: "swap", key: "a", expected: 0, value: "2" }, { revision: 3, succeeded: true }),
  ]],
  ["two swaps of which one failed", true, [
    op(0, 3, { kind: "swap", key: "a", expected: 0, value: "1" }, { revision: 2, succeeded: true }),
    op(1, 4, { kind: "swap", key: "a", expected: 0, value: "2" }, {
      revision: 2,
      succeeded: false,
      entry: entry("1", 2),
    }),
  ]],
  ["a torn read of two keys", false, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 3, { kind: "put", key: "b", value: "1" }, { revision: 3 }),
    op(4, 5, { kind: "getAll" }, { revision: 3, entries: { a: entry("1", 2) } }),
  ]],
  ["a read between two keys of one transaction", false, [
    op(0, 9, { kind: "putBoth", keys: ["a", "b"], value: "1" }, { revision: 2 }),
    op(1, 2, { kind: "getAll" }, { revision: 2, entries: { a: entry("1", 2) } }),
  ]],
  ["a delete of what is there", true, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 3, { kind: "delete", key: "a" }, { revision: 3, deleted: 1 }),
    op(4, 5, { kind: "delete", key: "a" }, { revision: 3, deleted: 0 }),
  ]],
  ["a version that goes on after a delete", false, [
    op(0, 1, put("1"), { revision: 2 }),
    op(2, 3, { kind: "delete", key: "a" }, { revision: 3, deleted: 1 }),
    op(4, 5, put("2"), { revision: 4 }),
    op(6, 7, get, { revision: 4, entry: entry("2", 4, 2) }),
  ]],
];

for (const [what, right, history] of cases) {
  Deno.test(`checkLinearizable() ${right ? "accepts" : "rejects"}: ${what}`, () => {
    assertEquals(
      checkLinearizable(model, history).verdict,
      right ? "linearizable" : "not linearizable",
    );
  });
}

Deno.test("checkLinearizable() says which answer fits nowhere, and refuses nonsense", () => {
  const wrong = op(4, 5, get, { revision: 1, entry: null });
  const report = checkLinearizable(model, [op(0, 1, put("1"), { revision: 2 }), wrong]);
  assertEquals([report.ordered.length, report.leftBehind], [0, wrong]);
  assertThrows(() => checkLinearizable(model, [op(1, 0, get, { revision: 1, entry: null })]), RangeError);
});

Deno.test("checkLinearizable() accepts what a right store answers, and notices one answer changed in it", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new SimRandom(seed);
    const history = rightHistory(random, 60);
    assertEquals(checkLinearizable(model, history).verdict, "linearizable", `seed ${seed}`);
    const index = history.findIndex(({ output }) => output?.entry?.mod !== undefined);
    if (index < 0) continue;
    const { output, ...rest } = history[index]!;
    const changed = { ...rest, output: { ...output!, entry: { ...output!.entry!, value: "never written" } } };
    assertEquals(
      checkLinearizable(model, history.with(index, changed)).verdict,
      "not linearizable",
      `seed ${seed}`,
    );
  }
});

Deno.test("checkLinearizable() copes with a long history that lacks answers, and gives up where it said it would", () => {
  const random = new SimRandom(3);
  const history = rightHistory(random, 1_000, 0.02);
  assertEquals(checkLinearizable(model, history).verdict, "linearizable");
  assertEquals(checkLinearizable(model, history, 10).verdict, "unknown");
});

/** What a right store answers five clients; some answers are lost, with or without what was asked for. */
function rightHistory(random: SimRandom, length: number, lost = 0.1): Step[] {
  let state: KvState = model.initial;
  const history: Step[] = [];
  const busyUntil = new Array<number>(5).fill(0);
  for (let now = 1; history.length < length; now++) {
    const client = busyUntil.findIndex((until) => until < now);
    if (client < 0) continue;
    const input = inputOf(random, state, history.length);
    const end = now + random.below(4);
    busyUntil[client] = end;
    const isLost = random.chance(lost);
    if (isLost && random.chance(0.5)) {
      history.push(op(now, end, input, undefined));
      continue;
    }
    const [after, output] = run(state, input);
    state = after;
    history.push(op(now - random.below(2) * 0.5, end, input, isLost ? undefined : output));
  }
  return history;
}

function inputOf(random: SimRandom, state: KvState, unique: number): KvInput {
  const key = random.pick(["a", "b", "c"]);
  return random.pick<() => KvInput>([
    () => ({ kind: "get", key }),
    () => ({ kind: "getAll" }),
    () => ({ kind: "put", key, value: String(unique) }),
    () => ({ kind: "putBoth", keys: ["a", "c"], value: `b${unique}` }),
    () => ({ kind: "delete", key }),
    () => ({
      kind: "swap",
      key,
      expected: random.chance(0.6) ? state.entries[key]?.mod ?? 0 : 7,
      value: `s${unique}`,
    }),
  ])();
}
