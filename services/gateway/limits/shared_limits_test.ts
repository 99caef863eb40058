import { assert, assertEquals } from "@std/assert";
import { openRedisClient } from "../../../storage/redis/mod.ts";
import { startRedis } from "../../../tests/support/server.ts";
import { createManualTimer, type ManualTimer } from "../testing/harness.ts";
import { createLimitSync, LIMIT_SCRIPTS, type LimitRedis, type LimitSync } from "./shared_limits.ts";
import { BucketTable, Policy } from "./token_bucket.ts";

const INTERVAL_MS = 100;

/** One gateway's share of a limit. */
interface Gateway {
  readonly timer: ManualTimer;
  readonly sync: LimitSync;
  readonly logged: string[];
  /** Asks `count` times and returns how often it was granted. */
  ask(count: number): number;
}

function gatewayOf(policy: Policy, redis: LimitRedis, clock: { now(): number }): Gateway {
  const table = new BucketTable(policy, 64, 1, true);
  const timer = createManualTimer();
  const logged: string[] = [];
  const log = { info: (message: string) => void logged.push(message) };
  const sync = createLimitSync({
    tables: () => new Map([["address", table]]),
    redis,
    keyPrefix: "test:",
    intervalMs: INTERVAL_MS,
    timer,
    clock,
    log,
  });
  const ask = (count: number) => {
    let granted = 0;
    for (let i = 0; i < count; i++) {
      const nowUs = Math.floor(clock.now() * 1000);
      const slot = table.find("203.0.113.1", nowUs);
      if (table.tokens(slot, nowUs) < 1) continue;
      table.take(slot);
      granted++;
    }
    return granted;
  };
  return { timer, sync, logged, ask };
}

/** A time that is moved by hand, and a store that counts by it as the script does. */
function createWorld() {
  const time = { nowMs: 0, isAway: false };
  const kept = new Map<string, { level: number; atUs: number }>();
  const redis: LimitRedis = {
    // deno-lint-ignore require-await -- rejects where the real one does
    async run(_script, [key], [gain, capacity, taken]) {
      if (time.isAway) throw new Error("away");
      const nowUs = time.nowMs * 1000;
      const { level, atUs } = kept.get(key!) ?? { level: Number(capacity), atUs: nowUs };
      const left = Math.min(Number(capacity), level + (nowUs - atUs) * Number(gain)) - Number(taken);
      kept.set(key!, { level: left, atUs: nowUs });
      return String(left);
    },
    close: () => Promise.resolve(),
  };
  return { time, redis, clock: { now: () => time.nowMs } };
}

/** Lets everybody tell, and waits until they have heard. */
async function syncAll(gateways: readonly Gateway[]): Promise<void> {
  for (const { timer } of gateways) {
    timer.fire(INTERVAL_MS);
    while (timer.waiting.length === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

Deno.test("gateways grant together the limit and at most one interval's grants of the others", async () => {
  const [rate, burst, gateways] = [1_000, 500, 3];
  const { time, redis, clock } = createWorld();
  const all = Array.from(
    { length: gateways },
    () => gatewayOf(new Policy("p", { rate, burst }), redis, clock),
  );
  let granted = 0;
  let largest = 0;
  for (let step = 0; step < 200; step++) {
    // Each is asked for more than the limit allows, at different times of the interval.
    for (const { ask } of all) {
      const each = ask(1_000);
      granted += each;
      largest = Math.max(largest, each);
      time.nowMs += INTERVAL_MS / gateways;
    }
    await syncAll(all);
    const limit = burst + rate * time.nowMs / 1000;
    assert(granted <= limit + (gateways - 1) * largest, `${granted} of ${limit} at ${time.nowMs} ms`);
  }
  const limit = burst + rate * time.nowMs / 1000;
  assert(granted >= limit * 0.9, `only ${granted} of ${limit}`);
  for (const { sync } of all) await sync.close();
});

Deno.test("while Redis is away each gateway goes on by itself, and what it granted counts afterwards", async () => {
  const { time, redis, clock } = createWorld();
  const [one, two] = [1, 2].map(() => gatewayOf(new Policy("p", { rate: 1, burst: 10 }), redis, clock)) as [
    Gateway,
    Gateway,
  ];
  time.isAway = true;
  assertEquals([one.ask(20), two.ask(4)], [10, 4]);
  await syncAll([one, two]);
  await syncAll([one, two]);
  assertEquals(one.logged, ["rate limits are each gateway's own: Redis is away"]);
  time.isAway = false;
  await syncAll([one, two]);
  assertEquals(one.logged.length, 2);
  // 14 of 10 are spent: four seconds until the debt is paid, a fifth for one more.
  time.nowMs += 4_999;
  assertEquals(two.ask(1), 0);
  time.nowMs += 1;
  assertEquals(two.ask(2), 1);
  for (const { sync } of [one, two]) await sync.close();
});

Deno.test("what was granted last is told before a gateway goes", async () => {
  const { redis, clock } = createWorld();
  const policy = new Policy("p", { rate: 0.001, burst: 10 });
  const one = gatewayOf(policy, redis, clock);
  one.ask(8);
  await one.sync.close();
  const two = gatewayOf(policy, redis, clock);
  two.ask(1);
  await syncAll([two]);
  assertEquals(two.ask(10), 1);
  await two.sync.close();
});

// ioredis leaves the timer of its last pause behind.
const LEAVES_A_TIMER = { sanitizeOps: false, sanitizeResources: false };

Deno.test(
  "two gateways share a bucket in a real Redis, and go on when it is killed",
  LEAVES_A_TIMER,
  async (t) => {
    await using server = await startRedis(t);
    if (server === undefined) return;
    const policy = new Policy("p", { rate: 0.5, burst: 100 });
    const clock = { now: () => performance.now() };
    const open = () =>
      openRedisClient({
        nodes: [{ hostname: "127.0.0.1", port: server.port }],
        cluster: false,
        username: "",
        password: "",
        database: 0,
      }, LIMIT_SCRIPTS);
    const clients = await Promise.all([open(), open()]);
    const [one, two] = clients.map((client) => gatewayOf(policy, client, clock)) as [Gateway, Gateway];
    assertEquals(one.ask(60), 60);
    await syncAll([one]);
    two.ask(1);
    await syncAll([two]);
    // 39 are left, and one more for each two seconds that have passed since.
    const granted = two.ask(100);
    assert(granted >= 39 && granted <= 45, `${granted}`);
    await syncAll([two, one]);
    one.ask(1);
    await syncAll([one]);
    const rest = one.ask(100);
    assert(rest <= 6, `${rest} of a bucket that the other has emptied`);

    const key = await clients[0]!.send("keys", ["test:*"]) as string[];
    assertEquals(key, ["test:address:203.0.113.1"]);
    const ttl = Number(await clients[0]!.send("pttl", [key[0]!]));
    assert(ttl > 0 && ttl < 300_000, `${ttl}`);

    await server.kill();
    while (clients.some((client) => client.isReady)) await new Promise((resolve) => setTimeout(resolve, 1));
    const other = gatewayOf(policy, clients[0]!, clock);
    assertEquals(other.ask(150), 100);
    await syncAll([other]);
    assertEquals(other.logged.length, 1);
    for (const { sync } of [one, two, other]) await sync.close();
  },
);
