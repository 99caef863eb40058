import { assert, assertEquals } from "@std/assert";
import { Breaker, BREAKER_PRESETS, type BreakerSettings, type Outcome, REFUSED } from "./breaker.ts";

const { default: DEFAULT, aggressive: AGGRESSIVE, conservative: CONSERVATIVE } = BREAKER_PRESETS;

/** A breaker and its clock. */
function open(settings: BreakerSettings) {
  let nowMs = 0;
  const breaker = new Breaker(settings);
  /** One whole call; false when it may not pass. */
  function call(outcome: Outcome): boolean {
    const number = breaker.enter(nowMs);
    if (number !== REFUSED) breaker.leave(number, outcome, nowMs);
    return number !== REFUSED;
  }
  return {
    breaker,
    call,
    pass: (ms: number) => nowMs += ms,
    enter: () => breaker.enter(nowMs),
    leave: (number: number, outcome: Outcome) => breaker.leave(number, outcome, nowMs),
    /** Calls that fail (x) or succeed (.). */
    calls(outcomes: string): void {
      for (const letter of outcomes) call(letter === "x" ? "failure" : "success");
    },
    retryAfterMs: () => breaker.retryAfterMs(nowMs),
  };
}

Deno.test("Breaker trips by the rule of its preset, and not one call earlier", () => {
  const cases: [BreakerSettings, holds: string, trips: string][] = [
    // Fewer calls than the least.
    [DEFAULT, "xxxx", "x"],
    [AGGRESSIVE, "xx", "x"],
    [CONSERVATIVE, "xxxxxxxxx", "x"],
    // The share: at 0.5 of 6, at 0.3 of 10 (with no three in a row), at 0.7 of 10.
    [DEFAULT, "...xx", "x"],
    [AGGRESSIVE, ".......xx", "x"],
    [CONSERVATIVE, "xx.xx.xx.", "x"],
    // The row: 5 of 105.
    [DEFAULT, ".".repeat(100) + "xxxx", "x"],
    [AGGRESSIVE, ".".repeat(100) + "xx", "x"],
    [CONSERVATIVE, ".".repeat(100) + "xxxxxxxxx", "x"],
  ];
  for (const [settings, holds, trips] of cases) {
    const { breaker, calls } = open(settings);
    calls(holds);
    assertEquals(breaker.state, "closed", holds);
    calls(trips);
    assertEquals(breaker.state, "open", holds + trips);
  }
});

// To count a call when it begins and when it ends halves every rate: 0.7 could never be reached.
Deno.test("Breaker counts each call once: a conservative one trips at seven failures of ten", () => {
  const { breaker, calls } = open(CONSERVATIVE);
  calls("x.x.x.xxxx");
  assertEquals(breaker.state, "open");
  assertEquals(breaker.figures(), {
    requests: 10,
    successes: 3,
    failures: 7,
    successesInARow: 0,
    failuresInARow: 4,
    trips: 1,
  });
});

Deno.test("Breaker counts calls under way nowhere", () => {
  const { breaker, enter, calls } = open(DEFAULT);
  for (let i = 0; i < 100; i++) enter();
  assertEquals(breaker.figures().requests, 0);
  calls("xxxx");
  assertEquals(breaker.state, "closed");
  calls("x");
  assertEquals(breaker.state, "open");
});

Deno.test("Breaker begins to count anew after its interval", () => {
  const { breaker, calls, pass } = open(DEFAULT);
  calls("xxxx");
  pass(DEFAULT.intervalMs);
  calls("xxxx");
  assertEquals(breaker.state, "closed");
  calls("x");
  assertEquals(breaker.state, "open");
});

Deno.test("Breaker lets nothing pass while it is open, and says for how long", () => {
  const { call, calls, pass, retryAfterMs } = open(DEFAULT);
  calls("xxxxx");
  assertEquals([call("success"), retryAfterMs()], [false, 60_000]);
  pass(59_999);
  assertEquals([call("success"), retryAfterMs()], [false, 1]);
  pass(1);
  assertEquals([call("success"), retryAfterMs()], [true, 0]);
});

// With calls one after the other, a quota that counts a call twice is spent before enough of them have succeeded, and a
// half-open state without an end then refuses for ever.
for (const [name, settings] of Object.entries(BREAKER_PRESETS)) {
  Deno.test(`Breaker of preset ${name} closes after enough probes, one after the other`, () => {
    const { breaker, call, calls, pass } = open(settings);
    calls("x".repeat(settings.consecutiveFailures));
    pass(settings.openMs);
    for (let i = 1; i < settings.successesToClose; i++) {
      assert(call("success"), `probe ${i}`);
      assertEquals(breaker.state, "half_open");
    }
    assert(call("success"));
    assertEquals([breaker.state, breaker.figures().requests], ["closed", 0]);
  });

  Deno.test(`Breaker of preset ${name} closes after enough probes at once, and lets no more pass`, () => {
    const { breaker, enter, leave, calls, pass } = open(settings);
    calls("x".repeat(settings.consecutiveFailures));
    pass(settings.openMs);
    const probes = Array.from({ length: settings.maxProbes + 3 }, enter);
    assertEquals(probes.filter((number) => number !== REFUSED).length, settings.maxProbes);
    for (const number of probes) if (number !== REFUSED) leave(number, "success");
    assertEquals(breaker.state, "closed");
  });
}

Deno.test("Breaker opens again at the first probe that fails, for the whole time", () => {
  const { breaker, enter, leave, calls, pass, retryAfterMs, call } = open(DEFAULT);
  calls("xxxxx");
  pass(60_000);
  const [first, second] = [enter(), enter()];
  pass(10);
  leave(first, "failure");
  assertEquals([breaker.state, retryAfterMs(), breaker.figures().trips], ["open", 60_000, 2]);
  // The other probe is of an earlier time: its success says nothing now.
  leave(second, "success");
  assertEquals([breaker.state, call("success")], ["open", false]);
});

Deno.test("Breaker gives the place of a probe that told nothing to another", () => {
  const { breaker, enter, leave, calls, pass } = open({ ...DEFAULT, maxProbes: 1 });
  calls("xxxxx");
  pass(60_000);
  const probe = enter();
  assertEquals(enter(), REFUSED);
  leave(probe, "none");
  assertEquals(breaker.state, "half_open");
  leave(enter(), "success");
  assertEquals(breaker.figures().successesInARow, 1);
});

Deno.test("Breaker gives probes up that nobody answers", () => {
  const { breaker, enter, leave, calls, pass } = open({ ...DEFAULT, maxProbes: 1, successesToClose: 1 });
  calls("xxxxx");
  pass(60_000);
  const lost = enter();
  pass(59_999);
  assertEquals(enter(), REFUSED);
  pass(1);
  const second = enter();
  assert(second !== REFUSED);
  leave(lost, "failure"); // given up: it says nothing any more
  assertEquals(breaker.state, "half_open");
  leave(second, "success");
  assertEquals(breaker.state, "closed");
});

Deno.test("Breaker.wouldPass() says what enter() does", () => {
  const { breaker, enter, calls, pass } = open({ ...DEFAULT, maxProbes: 2 });
  const at = (ms: number) => breaker.wouldPass(ms);
  assertEquals(at(0), true);
  calls("xxxxx");
  assertEquals([at(59_999), at(60_000)], [false, true]);
  pass(60_000);
  enter();
  assertEquals(at(60_000), true);
  enter();
  assertEquals([at(60_000), at(120_000)], [false, true]);
});

Deno.test("Breaker.reset() closes it, forgets its counts and keeps its trips", () => {
  const { breaker, enter, leave, calls } = open(DEFAULT);
  const early = enter();
  calls("xxxxx");
  assertEquals([breaker.reset(), breaker.reset()], [true, false]);
  leave(early, "failure"); // of a time before
  assertEquals([breaker.state, breaker.figures().requests, breaker.figures().trips], ["closed", 0, 1]);
});
