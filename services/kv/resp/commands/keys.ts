/** Commands on keys whatever they hold. */
import { latin1, needInteger, Refusal, upper } from "../args.ts";
import type { DataCommand, DataContext } from "../command.ts";
import { expiryMs, type ExpiryUnit } from "../expiry.ts";
import type { Command } from "../parser.ts";
import { type Reply, Simple } from "../reply.ts";
import type { View } from "../view.ts";

type Run = DataCommand["run"];

function generic(
  name: string,
  arity: number,
  flags: string,
  keys: readonly [number, number, number],
  since: string,
  summary: string,
  run: Run,
): DataCommand {
  return { kind: "data", name, arity, flags: flags.split(" "), keys, group: "generic", since, summary, run };
}

const ONE = [1, 1, 1] as const;
const ALL = [1, -1, 1] as const;
const NO_KEY = -2;
const NO_TTL = -1;
/** Times left that differ by less are the same to GT and LT. The store keeps the time that is left, as a fraction; a time
 *  since 1970 is turned into that with a clock of whole milliseconds, so two of them are up to one more apart. */
const SAME_LEFT_MS = 0.5;
const SAME_AT_MS = 2;
const STRING = new Simple("string");
const NONE = new Simple("none");

/** The commands. */
export const KEY_COMMANDS: readonly DataCommand[] = [
  generic("del", -2, "write", ALL, "1.0.0", "Deletes keys.", del),
  generic("unlink", -2, "write fast", ALL, "4.0.0", "Deletes keys.", del),
  generic("exists", -2, "readonly fast", ALL, "1.0.0", "Counts the keys that exist.", exists),
  generic("touch", -2, "readonly fast", ALL, "3.2.1", "Counts the keys that exist.", exists),
  generic("type", 2, "readonly fast", ONE, "1.0.0", "Tells what a key holds.", type),
  generic("expire", -3, "write fast", ONE, "1.0.0", "Sets the seconds a key lives.", expire("EX")),
  generic("pexpire", -3, "write fast", ONE, "2.6.0", "Sets the milliseconds a key lives.", expire("PX")),
  generic("expireat", -3, "write fast", ONE, "1.2.0", "Sets the second a key expires at.", expire("EXAT")),
  generic(
    "pexpireat",
    -3,
    "write fast",
    ONE,
    "2.6.0",
    "Sets the millisecond a key expires at.",
    expire("PXAT"),
  ),
  generic("ttl", 2, "readonly fast", ONE, "1.0.0", "Returns the seconds a key has left.", time("EX")),
  generic("pttl", 2, "readonly fast", ONE, "2.6.0", "Returns the milliseconds a key has left.", time("PX")),
  generic(
    "expiretime",
    2,
    "readonly fast",
    ONE,
    "7.0.0",
    "Returns the second a key expires at.",
    time("EXAT"),
  ),
  generic(
    "pexpiretime",
    2,
    "readonly fast",
    ONE,
    "7.0.0",
    "Returns the millisecond a key expires at.",
    time("PXAT"),
  ),
  generic("persist", 2, "write fast", ONE, "2.2.0", "Lets a key live on.", persist),
];

function del(view: View, parts: Command): Reply {
  let deleted = 0;
  for (let i = 1; i < parts.length; i++) if (view.delete(parts[i]!)) deleted++;
  return deleted;
}

function exists(view: View, parts: Command): Reply {
  let count = 0;
  for (let i = 1; i < parts.length; i++) if (view.has(parts[i]!)) count++;
  return count;
}

function type(view: View, [, key]: Command): Reply {
  return view.has(key!) ? STRING : NONE;
}

function expire(unit: ExpiryUnit): Run {
  const sameMs = unit === "EX" || unit === "PX" ? SAME_LEFT_MS : SAME_AT_MS;
  return (view, parts, context: DataContext) => {
    const [, key, amount] = parts as [Uint8Array, Uint8Array, Uint8Array];
    const { nx, xx, gt, lt } = conditions(parts);
    const atMs = expiryMs(unit, needInteger(amount), view.nowMs, context.name, false);
    const ttlMs = Number(atMs - BigInt(view.nowMs));
    if (!view.has(key)) return 0;
    const hasTtl = view.hasTtl(key);
    if ((nx && hasTtl) || (xx && !hasTtl)) return 0;
    if (gt || lt) {
      // No time to live is an endless one.
      const moreMs = ttlMs - (view.ttlMs(key) ?? Infinity);
      if (Math.abs(moreMs) < sameMs || (gt ? moreMs < 0 : moreMs > 0)) return 0;
    }
    if (ttlMs > 0) view.setTtl(key, ttlMs);
    else view.delete(key);
    return 1;
  };
}

function conditions(parts: Command): { nx: boolean; xx: boolean; gt: boolean; lt: boolean } {
  const given = { nx: false, xx: false, gt: false, lt: false };
  for (let i = 3; i < parts.length; i++) {
    const word = upper(parts[i]!);
    if (word === "NX") given.nx = true;
    else if (word === "XX") given.xx = true;
    else if (word === "GT") given.gt = true;
    else if (word === "LT") given.lt = true;
    else throw new Refusal(`ERR Unsupported option ${latin1(parts[i]!)}`);
  }
  const { nx, xx, gt, lt } = given;
  if (nx && (xx || gt || lt)) {
    throw new Refusal("ERR NX and XX, GT or LT options at the same time are not compatible");
  }
  if (gt && lt) throw new Refusal("ERR GT and LT options at the same time are not compatible");
  return given;
}

function time(unit: ExpiryUnit): Run {
  return (view, [, key]) => {
    if (!view.has(key!)) return NO_KEY;
    const leftMs = view.ttlMs(key!);
    if (leftMs === undefined) return NO_TTL;
    const isAbsolute = unit === "EXAT" || unit === "PXAT";
    const ms = Math.max(0, Math.round(isAbsolute ? view.nowMs + leftMs : leftMs));
    return unit === "EX" || unit === "EXAT" ? Math.floor((ms + 500) / 1_000) : ms;
  };
}

function persist(view: View, [, key]: Command): Reply {
  if (!view.has(key!) || !view.hasTtl(key!)) return 0;
  view.setTtl(key!, "none");
  return 1;
}
