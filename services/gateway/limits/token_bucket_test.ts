import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { BucketTable, Policy } from "./token_bucket.ts";

/** A bucket by its definition, in fractions that are exact: thousandths of a token a second, microseconds. */
class Oracle {
  #level: bigint;
  #atUs = 0n;
  readonly #capacity: bigint;
  readonly #gain: bigint;

  constructor(rate: number, burst: number) {
    this.#gain = BigInt(Math.round(rate * 1_000));
    this.#capacity = BigInt(burst) * 1_000_000_000n;
    this.#level = this.#capacity;
  }

  admit(nowUs: number): boolean {
    const now = BigInt(nowUs);
    const level = this.#level + (now - this.#atUs) * this.#gain;
    this.#level = level > this.#capacity ? this.#capacity : level;
    this.#atUs = now;
    if (this.#level < 1_000_000_000n) return false;
    this.#level -= 1_000_000_000n;
    return true;
  }
}

const SEED = 0x5eed;

function admit(table: BucketTable, key: string, nowUs: number): boolean {
  const slot = table.find(key, nowUs);
  if (table.tokens(slot, nowUs) < 1) return false;
  table.take(slot);
  return true;
}

Deno.test("BucketTable admits exactly what the definition of a token bucket does", () => {
  const rates = fc.oneof(
    fc.integer({ min: 1, max: 1_000_000 }),
    fc.integer({ min: 1, max: 10_000 }).map((thousandths) => thousandths / 1_000),
  );
  const bursts = fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constant(1_000_000));
  const steps = fc.array(
    fc.record({
      key: fc.constantFrom("a", "b", "c"),
      // Pauses around one token's time, and ones of months.
      waitUs: fc.oneof(
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 0, max: 2_000_000 }),
        fc.integer({ min: 0, max: 1e13 }),
      ),
      times: fc.integer({ min: 1, max: 5 }),
    }),
    { maxLength: 60 },
  );
  fc.assert(fc.property(rates, bursts, steps, (rate, burst, steps) => {
    const table = new BucketTable(new Policy("p", { rate, burst }), 16, SEED);
    const oracles = new Map(["a", "b", "c"].map((key) => [key, new Oracle(rate, burst)]));
    let nowUs = 0;
    for (const { key, waitUs, times } of steps) {
      nowUs += waitUs;
      for (let i = 0; i < times; i++) {
        assertEquals(admit(table, key, nowUs), oracles.get(key)!.admit(nowUs));
      }
    }
  }));
});

Deno.test("BucketTable.waitUs() is the first microsecond at which a request is admitted", () => {
  const rates = fc.integer({ min: 1, max: 1_000_000_000 }).map((thousandths) => thousandths / 1_000);
  fc.assert(fc.property(rates, fc.integer({ min: 1, max: 3 }), (rate, burst) => {
    const table = new BucketTable(new Policy("p", { rate, burst }), 16, SEED);
    while (admit(table, "a", 7));
    const waitUs = table.waitUs(table.find("a", 7));
    assertEquals([admit(table, "a", 7 + waitUs - 1), admit(table, "a", 7 + waitUs)], [false, true]);
  }));
});

Deno.test("BucketTable counts a time before the last one as that one", () => {
  const table = new BucketTable(new Policy("p", { rate: 1, burst: 1 }), 16, SEED);
  assertEquals([
    admit(table, "a", 5e6),
    admit(table, "a", 4e6),
    admit(table, "a", 5.5e6),
    admit(table, "a", 6e6),
  ], [
    true,
    false,
    false,
    true,
  ]);
});

Deno.test("BucketTable keeps debts when many others come, and gives nobody more than a new bucket", () => {
  const burst = 4;
  const table = new BucketTable(new Policy("p", { rate: 1, burst }), 1_024, SEED);
  for (let i = 0; i < burst; i++) assert(admit(table, "debtor", 0));
  assert(!admit(table, "debtor", 0));
  let admitted = 0;
  for (let i = 0; i < 100_000; i++) {
    const key = `203.0.${i >> 8}.${i & 255}`;
    for (let n = 0; n < burst; n++) admitted += Number(admit(table, key, 0));
    assert(!admit(table, key, 0), "more than a new bucket");
  }
  assert(!admit(table, "debtor", 0), "the debt was forgotten");
  // Nobody's bucket has filled up again: the table and the shared ones hold all that there is to give.
  assert(admitted <= (1_024 + 1_024) * burst, `${admitted} were admitted`);
  // A second later one token each is back; when all are full, their places are newcomers'.
  assert(admit(table, "debtor", 1e6));
  assert(!admit(table, "debtor", 1e6));
  const later = 1e6 * (burst + 1);
  for (let i = 0; i < 1_024 / 4; i++) {
    for (let n = 0; n < burst; n++) assert(admit(table, `198.51.100.${i}`, later), `newcomer ${i}`);
  }
});

Deno.test("BucketTable tells what was taken once, and takes over what is left", () => {
  const table = new BucketTable(new Policy("p", { rate: 1, burst: 10 }), 16, SEED, true);
  for (let i = 0; i < 3; i++) admit(table, "a", 0);
  admit(table, "b", 0);
  const [a, b] = table.untold(9);
  assertEquals([a!.key, a!.taken, b!.key, b!.taken], ["a", 3e9, "b", 1e9]);
  assertEquals(table.untold(9), []);
  admit(table, "a", 0);
  table.adopt(a!.slot, "a", 2e9, 0); // others took five
  assertEquals(table.tokens(table.find("a", 0), 0), 1);
  table.adopt(a!.slot, "other", 9e9, 0);
  assertEquals(table.tokens(table.find("a", 0), 0), 1);
  table.retell(a!.slot, "a", a!.taken);
  assertEquals(table.untold(9).map(({ key, taken }) => [key, taken]), [["a", 4e9]]);
  table.adopt(a!.slot, "a", -3e9, 0);
  assertEquals([admit(table, "a", 3.9e6), admit(table, "a", 4e6)], [false, true]);
});

Deno.test("Policy refuses rates whose levels would be no exact numbers", () => {
  for (const [rate, burst] of [[0, 1], [0.0001, 1], [2e6, 1], [1, 0], [1, 2e6], [NaN, 1]] as const) {
    assertThrows(() => new Policy("p", { rate, burst }), RangeError);
  }
});
