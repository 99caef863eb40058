/** Shares buckets between gateways, over Redis. Each spends from its own copy of a bucket and, at intervals, tells what it
 *  spent and takes over what all together have left.
 *
 *  So gateways grant together at most the limit and what the others granted since they last told. Two gateways, 1,000 a second
 *  with a burst of 2,000, every 100 ms: a client that sends to both as fast as it can is granted up to 4,000 in the first
 *  100 ms; the bucket is 2,000 in debt then, and he waits two seconds for the next. In the long run he gets 1,000 a second.
 *
 *  While Redis is away each gateway goes on with its own copies, and tells the rest later. */
import type { Timer } from "../timer.ts";
import type { BucketTable } from "./token_bucket.ts";

/** Runs scripts of LIMIT_SCRIPTS in Redis. */
export interface LimitRedis {
  /** @throws {Error} when there is no answer. */
  run(script: string, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>;
  close(): Promise<void>;
}

/** What is made of. */
export interface LimitSyncDeps {
  /** By names that are the same in all gateways; asked each time, since limits may be replaced. */
  tables(): ReadonlyMap<string, BucketTable>;
  readonly redis: LimitRedis;
  readonly keyPrefix: string;
  readonly intervalMs: number;
  readonly timer: Timer;
  readonly clock: { now(): number };
  readonly log: { info(message: string, fields?: Record<string, unknown>): void };
}

/** Keeps the buckets in step. */
export interface LimitSync {
  /** Tells the rest, once, and stops. */
  close(): Promise<void>;
}

/** Buckets of one table that are told at a time; more wait for the next. Their scripts are one write to Redis. */
const TOLD_AT_ONCE_MAX = 2_000;

/** The scripts, by name. `spendTokens`: a bucket's key; its gain (billionths of a token in a microsecond), capacity and what
 *  was taken (billionths). Answers the level, as text. The time is Redis's, so that gateways need not agree on one. */
export const LIMIT_SCRIPTS = {
  spendTokens: {
    keys: 1,
    lua: `
local gain, capacity, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local level, last = capacity, now
local kept = redis.call('GET', KEYS[1])
if kept then
  local at = string.find(kept, ':', 1, true)
  level, last = tonumber(string.sub(kept, 1, at - 1)), tonumber(string.sub(kept, at + 1))
end
if now > last then
  if now - last >= (capacity - level) / gain then level = capacity else level = level + (now - last) * gain end
else
  now = last
end
level = math.min(level, capacity) - taken
local text = string.format('%.0f', level)
redis.call('SET', KEYS[1], text .. ':' .. string.format('%.0f', now), 'PX', math.ceil((capacity - level) / gain / 1000) + 1000)
return text`,
  },
} as const;

/** Begins to share. */
export function createLimitSync(deps: LimitSyncDeps): LimitSync {
  const { redis, timer, clock, log } = deps;
  let isClosed = false;
  let isAway = false;
  let underWay: Promise<void> = Promise.resolve();
  let cancel = timer.after(deps.intervalMs, onInterval);

  function onInterval(): void {
    underWay = sync().finally(() => {
      if (!isClosed) cancel = timer.after(deps.intervalMs, onInterval);
    });
  }

  async function sync(): Promise<void> {
    const told: Promise<boolean>[] = [];
    for (const [name, table] of deps.tables()) {
      for (const { slot, key, taken } of table.untold(TOLD_AT_ONCE_MAX)) {
        told.push(tell(name, table, slot, key, taken));
      }
    }
    if (told.length === 0) return;
    const isNowAway = (await Promise.all(told)).includes(false);
    if (isNowAway !== isAway) {
      log.info(
        isNowAway ? "rate limits are each gateway's own: Redis is away" : "rate limits are shared again",
      );
    }
    isAway = isNowAway;
  }

  /** False when Redis did not hear of it. */
  async function tell(
    name: string,
    table: BucketTable,
    slot: number,
    key: string,
    taken: number,
  ): Promise<boolean> {
    const { gain, capacity } = table.policy;
    try {
      const level = await redis.run("spendTokens", [`${deps.keyPrefix}${name}:${key}`], [
        gain,
        capacity,
        taken,
      ]);
      table.adopt(slot, key, Number(level), Math.floor(clock.now() * 1000));
      return true;
    } catch {
      // Told as one change of state; what was spent is told when Redis is back.
      table.retell(slot, key, taken);
      return false;
    }
  }

  return {
    async close() {
      if (isClosed) return;
      isClosed = true;
      cancel();
      await underWay;
      await sync();
      await redis.close();
    },
  };
}
