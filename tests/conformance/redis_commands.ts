/** Seeded random Redis commands that a real Redis and ours must answer alike.
 *
 *  Left out, because the answers differ on purpose (services/kv/resp/README.md says why): what depends on the moment to
 *  the millisecond, INFO, COMMAND, CLIENT LIST and ids, SCAN's cursors, DBSIZE
 *  (Redis counts keys that have expired and were not yet removed), and numbers that need more than the 64 bits of
 *  Redis's floating point. */

/** A source of numbers in [0, 1). */
export type Random = () => number;

/** mulberry32. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Commands whose items come in any order: they are compared sorted. */
export const UNORDERED: ReadonlySet<string> = new Set(["KEYS"]);
/** Commands that tell a time: they may differ by a little. */
export const TIMES: ReadonlySet<string> = new Set(["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]);

const KEYS = ["a", "b", "c", "key:1", "key:2", "", "ключ", "sp ace", "\x01\xff"];
const VALUES = [
  "",
  "x",
  "hello",
  "1",
  "0",
  "-1",
  "10",
  "9223372036854775807",
  "-9223372036854775808",
  "9223372036854775808",
  "1.5",
  "-0.25",
  "3.0e2",
  "01",
  "+1",
  " 1",
  "-0",
  "abc def",
  "\r\n",
  "nan",
  "inf",
];
const INTEGERS = [...VALUES, "2", "3", "5", "-3", "100", "1000"];
const SECONDS = [
  "100",
  "1000",
  "0",
  "-1",
  "x",
  "9223372036854775807",
  "-9223372036854775808",
];
/** As milliseconds too they are longer than a test. */
const NUMBERS = ["100000", "200000", "0", "-1", "x"];
const PATTERNS = ["*", "key:*", "k?y:1", "[a-b]", "[^a]*", "a", "", "\\a", "[", "key:[1-", "**", "*1"];
const WORDS = ["NX", "xx", "GET", "KEEPTTL", "EX", "PX", "EXAT", "PXAT", "PERSIST", "GT", "lt", "foo"];

type Make = (pick: <T>(from: readonly T[]) => T, random: Random) => string[];

const key: Make = (pick) => [pick(KEYS)];
const keys: Make = (pick, random) => Array.from({ length: 1 + Math.floor(random() * 4) }, () => pick(KEYS));
const options: Make = (pick, random) =>
  Array.from({ length: Math.floor(random() * 4) }, () => pick(random() < 0.6 ? WORDS : NUMBERS));
const goodSet: Make = (pick) =>
  pick([
    [],
    ["EX", "100"],
    ["PX", "100000"],
    ["NX"],
    ["XX"],
    ["GET"],
    ["KEEPTTL"],
    ["XX", "GET", "KEEPTTL"],
    ["NX", "GET"],
    ["EXAT", "9999999999"],
    ["PXAT", "9999999999000"],
    ["EXAT", "1"],
  ]);

const MAKERS: Readonly<Record<string, Make>> = {
  GET: key,
  SET: (
    pick,
    random,
  ) => [pick(KEYS), pick(VALUES), ...random() < 0.7 ? goodSet(pick, random) : options(pick, random)],
  SETNX: (pick) => [pick(KEYS), pick(VALUES)],
  SETEX: (pick) => [pick(KEYS), pick(SECONDS), pick(VALUES)],
  PSETEX: (pick) => [pick(KEYS), pick(["100000", "200000", "0", "-1", "x"]), pick(VALUES)],
  GETDEL: key,
  GETEX: (pick, random) => [pick(KEYS), ...options(pick, random)],
  GETSET: (pick) => [pick(KEYS), pick(VALUES)],
  MGET: keys,
  MSET: (pick, random) => keys(pick, random).flatMap((name) => [name, pick(VALUES)]),
  MSETNX: (pick, random) => keys(pick, random).flatMap((name) => [name, pick(VALUES)]),
  DEL: keys,
  UNLINK: keys,
  EXISTS: keys,
  TOUCH: keys,
  TYPE: key,
  EXPIRE: (pick, random) => [pick(KEYS), pick(SECONDS), ...options(pick, random)],
  PEXPIRE: (pick, random) => [pick(KEYS), pick(["100000", "200000", "x", "-1"]), ...options(pick, random)],
  EXPIREAT: (pick, random) => [pick(KEYS), pick(["9999999999", "1", "x"]), ...options(pick, random)],
  PEXPIREAT: (pick, random) => [pick(KEYS), pick(["9999999999000", "1", "x"]), ...options(pick, random)],
  TTL: key,
  PTTL: key,
  EXPIRETIME: key,
  PEXPIRETIME: key,
  PERSIST: key,
  INCR: key,
  DECR: key,
  INCRBY: (pick) => [pick(KEYS), pick(INTEGERS)],
  DECRBY: (pick) => [pick(KEYS), pick(INTEGERS)],
  INCRBYFLOAT: (pick) => [pick(KEYS), pick(["0.1", "1.5", "-2", "1e3", "x", "inf", "-0.0", "", "5.0e-2"])],
  APPEND: (pick) => [pick(KEYS), pick(VALUES)],
  STRLEN: key,
  GETRANGE: (pick) => [pick(KEYS), pick(INTEGERS), pick(INTEGERS)],
  SUBSTR: (pick) => [pick(KEYS), pick(INTEGERS), pick(INTEGERS)],
  SETRANGE: (pick) => [pick(KEYS), pick(["0", "1", "5", "20", "-1", "x"]), pick(VALUES)],
  KEYS: (pick) => [pick(PATTERNS)],
  FLUSHDB: (pick) => pick([[], ["ASYNC"], ["SYNC"], ["x"]]),
  FLUSHALL: (pick) => pick([["x"], ["a", "b"]]),
  PING: (pick, random) => pick([[], ["x"], keys(pick, random)]),
  ECHO: (pick) => [pick(VALUES)],
  SELECT: (pick) => [pick(["0", "x", "-1", "9999", "99999999999999"])],
  AUTH: (pick) => pick([["x"], ["default", "x"], ["nobody", "x"], ["a", "b", "c"]]),
  HELLO: (pick) => pick([["4"], ["x"], ["3", "foo"], ["2", "AUTH", "x"], ["3", "SETNAME", "a b"]]),
  MULTI: () => [],
  EXEC: () => [],
  DISCARD: () => [],
  WATCH: keys,
  UNWATCH: () => [],
  "CLIENT SETNAME": (pick) => [pick(["x", "", "a b", "\n"])],
  "CLIENT GETNAME": () => [],
  "CLIENT NO-EVICT": (pick) => [pick(["on", "off", "x"])],
  "CLIENT nope": (pick) => [pick(VALUES)],
  CLIENT: () => [],
  "CLIENT KILL": (pick) =>
    pick([["1.2.3.4:5"], ["ID", "0"], ["ID", "x"], ["TYPE", "x"], ["SKIPME", "maybe"]]),
  "CLIENT LIST": (pick) => pick([["TYPE", "x"], ["foo"], ["ID", "x"]]),
  "CONFIG nope": () => [],
  CONFIG: () => [],
  "CONFIG GET": (pick) => pick([["nope"], []]),
  "SCAN": (pick) =>
    pick([["x"], ["0", "COUNT", "0"], ["0", "COUNT", "x"], ["0", "foo", "1"], ["0", "MATCH"]]),
  PUBLISH: (pick) => [pick(KEYS), pick(VALUES)],
  "PUBSUB NUMSUB": keys,
  "PUBSUB NUMPAT": () => [],
  "PUBSUB CHANNELS": () => [],
  NOPE: keys,
  "lpush2": keys,
};

const NAMES = Object.keys(MAKERS);
/** Drawn more often: what changes keys, and what makes transactions. */
const COMMON = [
  "SET",
  "SET",
  "GET",
  "INCRBY",
  "APPEND",
  "DEL",
  "EXPIRE",
  "TTL",
  "MULTI",
  "EXEC",
  "EXEC",
  "MGET",
];

/** Refused between MULTI and EXEC by ours. */
const NOT_QUEUED: ReadonlySet<string> = new Set(["KEYS", "FLUSHDB", "FLUSHALL", "SCAN"]);

/** Commands whose answers differ when they lack their last argument: of the connection, or in another order. */
const TELLING: ReadonlySet<string> = new Set(["CLIENT LIST", "HELLO", "SCAN"]);

/** Makes commands; knows whether a transaction is open. */
export class CommandSource {
  #isQueueing = false;

  constructor(readonly random: Random) {}

  /** The next command, as words. One in twenty has too few or too many. */
  next(): string[] {
    const { random } = this;
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
    const name = random() < 0.4 ? pick(COMMON) : pick(NAMES);
    if (this.#isQueueing && NOT_QUEUED.has(name)) return this.next();
    const words = [...name.split(" "), ...MAKERS[name]!(pick, random)];
    if (random() < 0.05) {
      if (random() < 0.5) words.push(pick(VALUES));
      else if (words.length > 1 && !TELLING.has(name)) words.pop();
    }
    if (words.length === 1) {
      if (name === "MULTI") this.#isQueueing = true;
      if (name === "EXEC" || name === "DISCARD") this.#isQueueing = false;
    }
    if (random() < 0.2) words[0] = words[0]!.toLowerCase();
    return words;
  }
}
