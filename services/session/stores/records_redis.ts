/** Records in Redis, which several machines share. All of them are one hash, so that a commit is one script:
 *
 *  | key            | holds                                            |
 *  | -------------- | ------------------------------------------------ |
 *  | `<prefix>{u}:r` | hash: a record's key to its version, a line's end, its value |
 *  | `<prefix>{u}:i` | sorted set: the keys, in their order             |
 *  | `<prefix>{u}:v` | the last version that was given                  | */
import type { RedisClient, RedisClientOptions, RedisScript } from "../../../storage/redis/mod.ts";
import { AuthError } from "../auth/errors.ts";
import {
  CHANGES_MAX,
  LIST_MAX,
  type RecordChange,
  type RecordStore,
  type StoredRecord,
} from "../auth/records.ts";

/** Scripts of these records: the client must know them. */
export const RECORD_SCRIPTS: Readonly<Record<string, RedisScript>> = {
  recordsGet: { keys: 1, lua: "return redis.call('HGET', KEYS[1], ARGV[1])" },
  // ARGV: where keys begin and end, how many. Answers key, text, key, text …
  recordsList: {
    keys: 2,
    lua: `
local found = {}
for _, key in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('HGET', KEYS[1], key)
end
return found`,
  },
  // ARGV: four for each change: key, expected version, what to do (keep, set, remove), value.
  recordsCommit: {
    keys: 3,
    lua: `
for i = 1, #ARGV, 4 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  local version = '0'
  if stored then version = string.match(stored, '^%d+') end
  if version ~= ARGV[i + 1] then return 0 end
end
for i = 1, #ARGV, 4 do
  if ARGV[i + 2] == 'set' then
    local version = redis.call('INCR', KEYS[3])
    redis.call('HSET', KEYS[1], ARGV[i], version .. '\\n' .. ARGV[i + 3])
    redis.call('ZADD', KEYS[2], 0, ARGV[i])
  elseif ARGV[i + 2] == 'remove' then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
  end
end
return 1`,
  },
};

/** Connects and opens the records. Each commit is as durable as Redis makes it. */
export async function openRedisRecords(
  options: RedisClientOptions & { readonly keyPrefix: string },
): Promise<RecordStore> {
  // Only here is the client loaded: other engines need none of it.
  const { openRedisClient } = await import("../../../storage/redis/mod.ts");
  return new RedisRecords(await openRedisClient(options, RECORD_SCRIPTS), options.keyPrefix);
}

class RedisRecords implements RecordStore {
  readonly isShared = true;
  readonly #client: RedisClient;
  readonly #records: string;
  readonly #index: string;
  readonly #counter: string;

  constructor(client: RedisClient, keyPrefix: string) {
    this.#client = client;
    this.#records = `${keyPrefix}{u}:r`;
    this.#index = `${keyPrefix}{u}:i`;
    this.#counter = `${keyPrefix}{u}:v`;
  }

  async get(key: string): Promise<StoredRecord | undefined> {
    const text = await answered(this.#client.run("recordsGet", [this.#records], [key])) as string | null;
    return text === null ? undefined : parse(key, text);
  }

  async list(prefix: string, after: string, limit: number): Promise<StoredRecord[]> {
    if (!(limit >= 1 && limit <= LIST_MAX)) {
      throw new RangeError(`Cannot list: limit must be 1..${LIST_MAX}, got ${limit}`);
    }
    const from = after >= prefix ? `(${after}` : `[${prefix}`;
    const answer = this.#client.run("recordsList", [this.#records, this.#index], [
      from,
      `(${endOf(prefix)}`,
      limit,
    ]);
    const found = await answered(answer) as string[];
    return Array.from({ length: found.length / 2 }, (_, i) => parse(found[2 * i]!, found[2 * i + 1]!));
  }

  async commit(changes: readonly RecordChange[]): Promise<boolean> {
    if (changes.length > CHANGES_MAX) {
      throw new RangeError(`Cannot commit: at most ${CHANGES_MAX} changes, got ${changes.length}`);
    }
    const args = changes.flatMap(({ key, version, value }) => [
      key,
      version,
      value === undefined ? "keep" : value === null ? "remove" : "set",
      value ?? "",
    ]);
    const keys = [this.#records, this.#index, this.#counter];
    return await answered(this.#client.run("recordsCommit", keys, args)) === 1;
  }

  close(): Promise<void> {
    return this.#client.close();
  }
}

async function answered<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw new AuthError("unavailable", "Redis cannot be reached", { retryAfterS: 1, cause: error });
  }
}

function parse(key: string, text: string): StoredRecord {
  const at = text.indexOf("\n");
  return { key, value: text.slice(at + 1), version: Number(text.slice(0, at)) };
}

/** The first key that does not begin with `prefix`, which ends with an ASCII character. */
function endOf(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}
