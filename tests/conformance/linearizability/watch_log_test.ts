import { assertEquals } from "@std/assert";
import { type WatchedAnswer, type WatchedEvent, WatchLog } from "./watch_log.ts";

const put = (revision: number, key: string, version = 1, create = revision): WatchedEvent => ({
  revision,
  key,
  value: `${key}${revision}`,
  version,
  create,
  previous: null,
});
const answer = (...events: WatchedEvent[]): WatchedAnswer => ({
  revision: events.at(-1)?.revision ?? 0,
  events,
});

const cases: [what: string, answers: WatchedAnswer[], broken: RegExp | undefined][] = [
  ["one revision after the other", [answer(put(2, "a")), answer(put(3, "b"), put(4, "a", 2, 2))], undefined],
  ["two keys of one revision", [answer(put(2, "a"), put(2, "b"))], undefined],
  [
    "a revision that goes back",
    [answer(put(2, "a")), answer(put(3, "b")), answer(put(2, "c"))],
    /not ordered/,
  ],
  ["an event that comes twice", [answer(put(2, "a")), answer(put(2, "a", 2, 2))], /not unique/],
  ["a revision that is missing", [answer(put(2, "a")), answer(put(4, "b"))], /not reliable/],
  ["a revision in two answers", [answer(put(2, "a")), answer(put(2, "b"))], /not atomic/],
  ["an event above the header's revision", [{ revision: 1, events: [put(2, "a")] }], /not bookmarkable/],
  ["a header ahead of the events", [{ revision: 3, events: [put(2, "a")] }], /not bookmarkable/],
  ["a version that was left out", [answer(put(2, "a")), answer(put(3, "a", 3, 2))], /version 3/],
  [
    "a wrong previous value",
    [answer(put(2, "a")), answer({ ...put(3, "a", 2, 2), previous: "x" })],
    /prev_kv x/,
  ],
  ["a deletion of what is not there", [answer({ ...put(2, "a"), value: undefined })], /not there/],
];

for (const [what, answers, broken] of cases) {
  Deno.test(`WatchLog ${broken === undefined ? "accepts" : "reports"} ${what}`, () => {
    const log = new WatchLog(2);
    for (const one of answers) log.take(one);
    if (broken === undefined) assertEquals(log.broken, []);
    else assertEquals(log.broken.filter((line) => broken.test(line)).length, 1, log.broken.join("\n"));
  });
}

Deno.test("WatchLog.differences() names the revision that two watchers were told of differently", () => {
  const [one, other] = [new WatchLog(2), new WatchLog(2)];
  one.take(answer(put(2, "a"), put(3, "b")));
  other.take(answer(put(2, "a"), put(3, "c")));
  assertEquals(one.differences(other).length, 1);
  assertEquals(one.differences(one), []);
});
