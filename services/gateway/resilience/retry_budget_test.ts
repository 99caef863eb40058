import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { BUDGET_WINDOW_S, RetryBudget } from "./retry_budget.ts";

Deno.test("RetryBudget allows a fifth of the requests of the last ten seconds", () => {
  const budget = new RetryBudget(20, 0);
  for (let i = 0; i < 100; i++) budget.request(i * 50); // five seconds
  const taken = (nowMs: number) => {
    let count = 0;
    while (budget.take(nowMs)) count++;
    return count;
  };
  assertEquals(taken(5_000), 20);
  assertEquals(taken(9_999), 0);
  // The first second's twenty requests are too old now, and nothing else is new.
  assertEquals(taken(10_000), 0);
  assertEquals(taken(60_000), 0);
  for (let i = 0; i < 10; i++) budget.request(60_000);
  assertEquals(taken(60_000), 2);
});

Deno.test("RetryBudget allows a few retries without many requests", () => {
  const budget = new RetryBudget(20, 3);
  let count = 0;
  while (budget.take(0)) count++;
  assertEquals(count, 3 * BUDGET_WINDOW_S);
});

Deno.test("RetryBudget is never overdrawn in any ten seconds, against a model that keeps all", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ waitMs: fc.nat(3_000), retry: fc.boolean() }), { maxLength: 400 }),
      (steps) => {
        const budget = new RetryBudget(20, 0.2);
        const requests: number[] = [], retries: number[] = [];
        let nowMs = 1_000_000;
        for (const { waitMs, retry } of steps) {
          nowMs += waitMs;
          const second = Math.floor(nowMs / 1000);
          const recent = (all: number[]) => all.filter((at) => at > second - BUDGET_WINDOW_S).length;
          if (!retry) {
            budget.request(nowMs);
            requests.push(second);
            continue;
          }
          const isAllowed = recent(retries) + 1 <= Math.max(recent(requests) / 5, 2);
          assertEquals(budget.take(nowMs), isAllowed);
          if (isAllowed) retries.push(second);
          assert(recent(retries) <= Math.max(requests.length / 5, 2));
        }
      },
    ),
  );
});
