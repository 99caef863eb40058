/** What is done to sessions in Redis atomically, as Lua.
 *
 *  All keys share one hash tag, so that scripts and transactions may take several in a cluster too. `B` stands for
 *  `<prefix>{s}`:
 *
 *  | key         | what                                                                                        |
 *  | ----------- | ------------------------------------------------------------------------------------------- |
 *  | B:s:<id>    | hash: d all that needs no script, as JSON · s state · a last use · r revision of d and s · h hidden part · v its |
 *  |             | version; for scripts also: i idle timeout · n absolute end · u user · c connection · t token hash |
 *  | B:t:<hash>  | id of the token's session                                                                   |
 *  | B:x         | sorted set: ids by the time they run out at                                                 |
 *  | B:l         | sorted set: ids alone, in their order                                                       |
 *  | B:f:<state> | sorted set: ids in a state by the time they run out at                                      |
 *  | B:u:<user>  | sorted set: ids of a user by last use                                                       |
 *  | B:c:<conn>  | set: ids of a connection                                                                    |
 *  | B:e:<user>  | the user's epoch                                                                            |
 *
 *  Redis removes nothing by itself while a worker runs: keys outlive their sessions by GRACE_MS, so that who sweeps can tell
 *  what they were, and counts come from the sorted sets, which know the time. */
import type { RedisScript } from "../../../storage/redis/mod.ts";

/** How long a session's keys stay after it ran out, if nobody sweeps. */
export const GRACE_MS = 3_600_000;

const COMMON = `
local B = ARGV[1]
local now = tonumber(ARGV[2])
local STATES = {'connecting', 'active', 'idle', 'disconnecting'}

local function load(id)
  local f = redis.call('HMGET', B..':s:'..id, 'd', 's', 'a', 'i', 'n', 'u', 'c', 't', 'r')
  if not f[1] then return nil end
  return f
end

local function expiry(f)
  return math.min(tonumber(f[3]) + tonumber(f[4]), tonumber(f[5]))
end

-- Removes all of a session; f is what it was, if that is known.
local function drop(id, f)
  redis.call('DEL', B..':s:'..id)
  redis.call('ZREM', B..':x', id)
  redis.call('ZREM', B..':l', id)
  if f then
    redis.call('ZREM', B..':f:'..f[2], id)
    redis.call('ZREM', B..':u:'..f[6], id)
    redis.call('SREM', B..':c:'..f[7], id)
    redis.call('DEL', B..':t:'..f[8])
  else
    for _, state in ipairs(STATES) do redis.call('ZREM', B..':f:'..state, id) end
  end
end

local function told(kind, id, f)
  return {kind, id, f[1], f[2], f[3]}
end

-- The session if its time is not up; else what ran out is put into changes.
local function live(id, changes)
  local f = load(id)
  if not f then return nil end
  if expiry(f) > now then return f end
  drop(id, f)
  changes[#changes + 1] = told('expired', id, f)
  return nil
end

local function keep(key, ttl)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end

-- Writes when a session runs out to all that know of it.
local function schedule(id, f)
  local x = expiry(f)
  local ttl = x - now + ${GRACE_MS}
  redis.call('ZADD', B..':x', x, id)
  redis.call('ZADD', B..':f:'..f[2], x, id)
  redis.call('ZADD', B..':u:'..f[6], f[3], id)
  redis.call('PEXPIRE', B..':s:'..id, ttl)
  keep(B..':u:'..f[6], ttl)
  keep(B..':c:'..f[7], ttl)
end

local function epoch(user)
  return tonumber(redis.call('GET', B..':e:'..user) or '0')
end
`;

/** KEYS: the session's. ARGV: B, now, id, d, state, a, i, n, user, connection, token hash, hidden, version, epoch or "",
 *  sessionsMax, perUserMax. Answers the outcome and the changes. */
const CREATE = `${COMMON}
local id, user, connection, hash = ARGV[3], ARGV[9], ARGV[10], ARGV[11]
local changes = {}
if ARGV[14] ~= '' and tonumber(ARGV[14]) < epoch(user) then return {'revoked', changes} end
if redis.call('EXISTS', KEYS[1]) == 1 and live(id, changes) then return {'exists', changes} end
local others = B..':u:'..user
if redis.call('ZCARD', others) >= tonumber(ARGV[16]) then
  local oldest = redis.call('ZRANGE', others, 0, 0)[1]
  local f = live(oldest, changes)
  if f then
    drop(oldest, f)
    changes[#changes + 1] = told('ended', oldest, f)
  end
  redis.call('ZREM', others, oldest)
end
if redis.call('ZCOUNT', B..':x', '('..now, '+inf') >= tonumber(ARGV[15]) then return {'full', changes} end
local f = {ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], user, connection, hash}
redis.call('HSET', KEYS[1], 'd', f[1], 's', f[2], 'a', f[3], 'i', f[4], 'n', f[5], 'u', user, 'c', connection,
  't', hash, 'h', ARGV[12], 'v', ARGV[13], 'r', '0')
redis.call('ZADD', B..':l', 0, id)
redis.call('SADD', B..':c:'..connection, id)
redis.call('SET', B..':t:'..hash, id, 'PX', tonumber(f[5]) - now + ${GRACE_MS})
schedule(id, f)
return {'created', changes}
`;

/** KEYS: the session's. ARGV: B, now, id. Uses the session, which the caller found in need of it. Answers the session, if any,
 *  whether its state changed, and the changes. */
const USE = `${COMMON}
local id, changes = ARGV[3], {}
local f = live(id, changes)
if not f then return {0, false, changes} end
local state = f[2]
if state == 'disconnecting' or tonumber(f[3]) > now then return {0, told('used', id, f), changes} end
f[3] = ARGV[2]
redis.call('HSET', KEYS[1], 'a', f[3])
if state ~= 'active' then
  f[2] = 'active'
  redis.call('HINCRBY', KEYS[1], 'r', 1)
  redis.call('HSET', KEYS[1], 's', 'active')
  redis.call('ZREM', B..':f:'..state, id)
end
schedule(id, f)
return {state ~= 'active' and 1 or 0, told('used', id, f), changes}
`;

/** KEYS: the session's. ARGV: B, now, id. Answers the changes: that it ran out, if it did. */
const EXPIRE_ONE = `${COMMON}
local changes = {}
live(ARGV[3], changes)
return changes
`;

/** KEYS: the session's. ARGV: B, now, id, revision, d, state. Answers 1; 0 when the revision has moved; -1 when it is gone. */
const UPDATE = `${COMMON}
local id, changes = ARGV[3], {}
local f = live(id, changes)
if not f then return {-1, changes} end
if f[9] ~= ARGV[4] then return {0, changes} end
redis.call('HINCRBY', KEYS[1], 'r', 1)
redis.call('HSET', KEYS[1], 'd', ARGV[5], 's', ARGV[6])
if f[2] ~= ARGV[6] then
  redis.call('ZREM', B..':f:'..f[2], id)
  redis.call('ZADD', B..':f:'..ARGV[6], expiry(f), id)
end
return {1, changes}
`;

/** KEYS: the session's. ARGV: B, now, id. Answers the changes: that it ended, or ran out. */
const END = `${COMMON}
local id, changes = ARGV[3], {}
local f = live(id, changes)
if f then
  drop(id, f)
  changes[1] = told('ended', id, f)
end
return changes
`;

/** KEYS: the user's epoch. ARGV: B, now, user, the id that stays or "", how long the epoch is kept. Answers the changes. */
const REVOKE = `${COMMON}
local user, changes = ARGV[3], {}
local moved = math.max(epoch(user) + 1, now)
redis.call('SET', KEYS[1], string.format('%.0f', moved), 'PX', ARGV[5])
for _, id in ipairs(redis.call('ZRANGE', B..':u:'..user, 0, -1)) do
  if id ~= ARGV[4] then
    local f = live(id, changes)
    if f then
      drop(id, f)
      changes[#changes + 1] = told('ended', id, f)
    end
  end
end
return changes
`;

/** KEYS: the times. ARGV: B, now, limit. Answers how many there were, and the changes. */
const EXPIRE = `${COMMON}
local changes = {}
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  if not load(id) then drop(id, nil) else live(id, changes) end
end
return {#ids, changes}
`;

/** KEYS: a group of ids, sorted set or set. ARGV: B, now. Answers its live sessions. Bounded by session.perUserMax, or by the
 *  sessions of one connection. */
const GROUP = `${COMMON}
local kind = redis.call('TYPE', KEYS[1]).ok
local ids = {}
if kind == 'zset' then ids = redis.call('ZRANGE', KEYS[1], 0, -1)
elseif kind == 'set' then ids = redis.call('SMEMBERS', KEYS[1]) end
local found = {}
for _, id in ipairs(ids) do
  local f = load(id)
  if f and expiry(f) > now then found[#found + 1] = told('found', id, f) end
end
return found
`;

/** KEYS: all ids. ARGV: B, now, after, limit, state or "". Answers live sessions behind `after`, and the last id looked at:
 *  \`false\` at the end. Looks at 1,000 ids at most. */
const WALK = `${COMMON}
local from = ARGV[3] == '' and '-' or '('..ARGV[3]
local ids = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, 1000)
local found, last = {}, false
for at, id in ipairs(ids) do
  last = id
  local f = load(id)
  if f and expiry(f) > now and (ARGV[5] == '' or f[2] == ARGV[5]) then found[#found + 1] = told('found', id, f) end
  if #found == tonumber(ARGV[4]) then return {found, last} end
end
return {found, #ids == 1000 and last or false}
`;

/** KEYS: the session's. ARGV: B, now, id. Answers the hidden part and its version, and the changes. */
const READ_HIDDEN = `${COMMON}
local changes = {}
if not live(ARGV[3], changes) then return {false, false, changes} end
local f = redis.call('HMGET', KEYS[1], 'h', 'v')
return {f[1], f[2], changes}
`;

/** KEYS: the session's. ARGV: B, now, id, version, hidden. Answers whether it was set, and the changes. */
const SET_HIDDEN = `${COMMON}
local changes = {}
if not live(ARGV[3], changes) or redis.call('HGET', KEYS[1], 'v') ~= ARGV[4] then return {0, changes} end
redis.call('HSET', KEYS[1], 'h', ARGV[5], 'v', string.format('%.0f', tonumber(ARGV[4]) + 1))
return {1, changes}
`;

/** The scripts, by the names under which the client knows them. */
export const SESSION_SCRIPTS = {
  sessionCreate: { lua: CREATE, keys: 1 },
  sessionUse: { lua: USE, keys: 1 },
  sessionExpireOne: { lua: EXPIRE_ONE, keys: 1 },
  sessionUpdate: { lua: UPDATE, keys: 1 },
  sessionEnd: { lua: END, keys: 1 },
  sessionRevoke: { lua: REVOKE, keys: 1 },
  sessionExpire: { lua: EXPIRE, keys: 1 },
  sessionGroup: { lua: GROUP, keys: 1 },
  sessionWalk: { lua: WALK, keys: 1 },
  sessionReadHidden: { lua: READ_HIDDEN, keys: 1 },
  sessionSetHidden: { lua: SET_HIDDEN, keys: 1 },
} as const satisfies Readonly<Record<string, RedisScript>>;
