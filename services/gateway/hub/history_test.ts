import { assertEquals } from "@std/assert";
import { History, type Publication } from "./history.ts";

const entry = (offset: number, chars = 10): Publication => ({ offset, event: "e", text: "x".repeat(chars) });
const LIMITS = { messages: 4, bytes: 10_000 };

function filled(floor: number, offsets: number[], limits = LIMITS): History {
  const history = new History(floor, limits);
  for (const offset of offsets) history.push(entry(offset));
  return history;
}

const offsetsOf = (found: readonly Publication[] | undefined) => found?.map(({ offset }) => offset);

Deno.test("History.since() has all behind a place, or says that some of it is gone", () => {
  const history = filled(10, [12, 15, 20]);
  assertEquals(
    [10, 11, 12, 19, 20, 99].map((offset) => offsetsOf(history.since(offset))),
    [[12, 15, 20], [12, 15, 20], [15, 20], [20], [], []],
  );
  assertEquals(history.since(9), undefined);
});

Deno.test("History keeps within its messages and bytes, and knows from where on it is whole", () => {
  const history = filled(0, [1, 2, 3, 4, 5, 6]);
  assertEquals([history.floor, history.size, offsetsOf(history.since(2))], [2, 4, [3, 4, 5, 6]]);
  let bytes = 0;
  const small = new History(0, { messages: 100, bytes: 500 }, (change) => bytes += change);
  for (let offset = 1; offset <= 10; offset++) small.push(entry(offset, 72));
  assertEquals([small.size, small.bytes, bytes, small.floor], [2, 400, 400, 8]);
  small.push(entry(11, 1_000));
  assertEquals([small.size, small.floor, bytes], [0, 11, 0]);
  small.reset(20);
  assertEquals([small.since(20), small.since(19)], [[], undefined]);
});

Deno.test("History.prepend() takes what lies before its floor, as much as there is room for", () => {
  const history = filled(10, [11, 12]);
  history.prepend(filled(5, [6, 8, 10, 11]));
  assertEquals([history.floor, offsetsOf(history.newest(10))], [6, [8, 10, 11, 12]]);
  const roomy = filled(10, [11], { messages: 100, bytes: 10_000 });
  roomy.prepend(filled(5, [6, 8, 10, 11]));
  assertEquals([roomy.floor, offsetsOf(roomy.newest(10))], [5, [6, 8, 10, 11]]);
  roomy.prepend(filled(20, [21]));
  assertEquals(roomy.floor, 5);
});
