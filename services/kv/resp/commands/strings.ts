/** Commands on strings. */
import {
  addExtended,
  type Extended,
  extendedOf,
  extendedText,
  INT64_MAX,
  INT64_MIN,
  integerOf,
  needInteger,
  NOT_AN_INTEGER,
  Refusal,
  SYNTAX_ERROR,
  upper,
} from "../args.ts";
import { arityText, type DataCommand, type DataContext } from "../command.ts";
import { EXPIRY_UNITS, expiryMs, type ExpiryUnit } from "../expiry.ts";
import type { Command } from "../parser.ts";
import { OK, type Reply, textBytes } from "../reply.ts";
import type { NewTtl, View } from "../view.ts";

type Run = DataCommand["run"];

function string(
  name: string,
  arity: number,
  flags: string,
  keys: readonly [number, number, number],
  since: string,
  summary: string,
  run: Run,
): DataCommand {
  return { kind: "data", name, arity, flags: flags.split(" "), keys, group: "string", since, summary, run };
}

const ONE = [1, 1, 1] as const;
const ALL = [1, -1, 1] as const;
const PAIRS = [1, -1, 2] as const;
const NO_BYTES = new Uint8Array(0);

/** The commands. */
export const STRING_COMMANDS: readonly DataCommand[] = [
  string("get", 2, "readonly fast", ONE, "1.0.0", "Returns the value of a key.", get),
  string("set", -3, "write denyoom", ONE, "1.0.0", "Sets the value of a key.", set),
  string("setnx", 3, "write denyoom fast", ONE, "1.0.0", "Sets a key that does not exist.", setnx),
  string("setex", 4, "write denyoom", ONE, "2.0.0", "Sets a key that expires in seconds.", setex("EX")),
  string("psetex", 4, "write denyoom", ONE, "2.6.0", "Sets a key that expires in milliseconds.", setex("PX")),
  string("getdel", 2, "write fast", ONE, "6.2.0", "Returns the value of a key and deletes it.", getdel),
  string("getex", -2, "write fast", ONE, "6.2.0", "Returns the value of a key and sets its expiry.", getex),
  string("getset", 3, "write denyoom fast", ONE, "1.0.0", "Sets a key and returns its old value.", getset),
  string("mget", -2, "readonly fast", ALL, "1.0.0", "Returns the values of several keys.", mget),
  string("mset", -3, "write denyoom", PAIRS, "1.0.1", "Sets several keys.", mset),
  string("msetnx", -3, "write denyoom", PAIRS, "1.0.1", "Sets several keys if none of them exists.", msetnx),
  string("incr", 2, "write denyoom fast", ONE, "1.0.0", "Adds one.", incr),
  string("decr", 2, "write denyoom fast", ONE, "1.0.0", "Subtracts one.", decr),
  string("incrby", 3, "write denyoom fast", ONE, "1.0.0", "Adds an integer.", incrby),
  string("decrby", 3, "write denyoom fast", ONE, "1.0.0", "Subtracts an integer.", decrby),
  string("incrbyfloat", 3, "write denyoom fast", ONE, "2.6.0", "Adds a decimal number.", incrbyfloat),
  string("append", 3, "write denyoom fast", ONE, "2.0.0", "Appends to the value of a key.", append),
  string("strlen", 2, "readonly fast", ONE, "2.2.0", "Returns the length of a value.", strlen),
  string("getrange", 4, "readonly", ONE, "2.4.0", "Returns a part of a value.", getrange),
  string("substr", 4, "readonly", ONE, "1.0.0", "Returns a part of a value.", getrange),
  string("setrange", 4, "write denyoom", ONE, "2.2.0", "Overwrites a part of a value.", setrange),
];

function get(view: View, [, key]: Command): Reply {
  return view.get(key!) ?? null;
}

/** Options of SET and GETEX. */
interface SetOptions {
  condition: "none" | "NX" | "XX";
  get: boolean;
  ttl: "drop" | "keep" | "persist";
  unit: ExpiryUnit | undefined;
  amount: Uint8Array;
}

const PLAIN_SET: SetOptions = {
  condition: "none",
  get: false,
  ttl: "drop",
  unit: undefined,
  amount: NO_BYTES,
};

function setOptions(parts: Command, from: number, forSet: boolean): SetOptions {
  if (parts.length === from) return PLAIN_SET;
  const options: SetOptions = { ...PLAIN_SET };
  for (let i = from; i < parts.length; i++) {
    const word = upper(parts[i]!);
    const next = parts[i + 1];
    const unit = EXPIRY_UNITS.find((name) => name === word);
    if (
      forSet && (word === "NX" || word === "XX") &&
      (options.condition === "none" || options.condition === word)
    ) {
      options.condition = word;
    } else if (forSet && word === "GET") {
      options.get = true;
    } else if (forSet && word === "KEEPTTL" && options.unit === undefined) {
      options.ttl = "keep";
    } else if (!forSet && word === "PERSIST" && options.unit === undefined) {
      options.ttl = "persist";
    } else if (
      unit !== undefined && next !== undefined && options.ttl === "drop" &&
      (options.unit === undefined || options.unit === unit)
    ) {
      // Of several of one kind the last one counts, and only its amount is looked at.
      options.unit = unit;
      options.amount = next;
      i++;
    } else {
      throw new Refusal(SYNTAX_ERROR);
    }
  }
  return options;
}

function set(view: View, parts: Command, context: DataContext): Reply {
  const [, key, value] = parts as [Uint8Array, Uint8Array, Uint8Array];
  const options = setOptions(parts, 3, true);
  const ttl: NewTtl | "past" = options.unit === undefined
    ? (options.ttl as "drop" | "keep")
    : lifeOf(options.unit, options.amount, view, context);
  const old = view.get(key);
  const isKept = options.condition === "NX"
    ? old !== undefined
    : options.condition === "XX" && old === undefined;
  if (!isKept) {
    // A key that is set and has expired is gone, but was changed for those who watch it.
    view.set(key, value, ttl === "past" ? "drop" : ttl);
    if (ttl === "past") view.delete(key);
  }
  if (options.get) return old ?? null;
  return isKept ? null : OK;
}

/** The time to live that SET, SETEX and GETEX were given; "past" when it is over already. */
function lifeOf(unit: ExpiryUnit, amount: Uint8Array, view: View, context: DataContext): number | "past" {
  const atMs = expiryMs(unit, needInteger(amount), view.nowMs, context.name, true);
  const ttlMs = Number(atMs - BigInt(view.nowMs));
  return ttlMs > 0 ? ttlMs : "past";
}

function setnx(view: View, [, key, value]: Command): Reply {
  if (view.has(key!)) return 0;
  view.set(key!, value!, "drop");
  return 1;
}

function setex(unit: ExpiryUnit): Run {
  return (view, [, key, amount, value], context) => {
    view.set(key!, value!, lifeOf(unit, amount!, view, context) as number);
    return OK;
  };
}

function getdel(view: View, [, key]: Command): Reply {
  const old = view.get(key!);
  if (old === undefined) return null;
  view.delete(key!);
  return old;
}

function getex(view: View, parts: Command, context: DataContext): Reply {
  const key = parts[1]!;
  const options = setOptions(parts, 2, false);
  const old = view.get(key);
  if (old === undefined) return null;
  if (options.unit !== undefined) {
    const ttl = lifeOf(options.unit, options.amount, view, context);
    if (ttl === "past") view.delete(key);
    else view.setTtl(key, ttl);
  } else if (options.ttl === "persist" && view.hasTtl(key)) {
    view.setTtl(key, "none");
  }
  return old;
}

function getset(view: View, [, key, value]: Command): Reply {
  const old = view.get(key!);
  view.set(key!, value!, "drop");
  return old ?? null;
}

function mget(view: View, parts: Command): Reply {
  return parts.slice(1).map((key) => view.get(key) ?? null);
}

function mset(view: View, parts: Command, { name }: DataContext): Reply {
  if (parts.length % 2 === 0) throw new Refusal(arityText(name));
  for (let i = 1; i < parts.length; i += 2) view.set(parts[i]!, parts[i + 1]!, "drop");
  return OK;
}

function msetnx(view: View, parts: Command, context: DataContext): Reply {
  if (parts.length % 2 === 0) throw new Refusal(arityText(context.name));
  for (let i = 1; i < parts.length; i += 2) if (view.has(parts[i]!)) return 0;
  mset(view, parts, context);
  return 1;
}

function incr(view: View, [, key]: Command): Reply {
  return add(view, key!, 1n);
}

function decr(view: View, [, key]: Command): Reply {
  return add(view, key!, -1n);
}

function incrby(view: View, [, key, amount]: Command): Reply {
  return add(view, key!, needInteger(amount!));
}

function decrby(view: View, [, key, amount]: Command): Reply {
  const value = needInteger(amount!);
  if (value === INT64_MIN) throw new Refusal("ERR decrement would overflow");
  return add(view, key!, -value);
}

function add(view: View, key: Uint8Array, amount: bigint): Reply {
  const old = view.get(key);
  const before = old === undefined ? 0n : integerOf(old);
  if (before === undefined) throw new Refusal(NOT_AN_INTEGER);
  const sum = before + amount;
  if (sum > INT64_MAX || sum < INT64_MIN) throw new Refusal("ERR increment or decrement would overflow");
  view.set(key, textBytes(sum.toString()), "keep");
  return sum;
}

function incrbyfloat(view: View, [, key, amount]: Command): Reply {
  const old = view.get(key!);
  const before = old === undefined ? ZERO : extendedOf(old);
  const added = extendedOf(amount!);
  if (before === undefined || added === undefined) throw new Refusal("ERR value is not a valid float");
  const sum = before === "infinite" || added === "infinite" ? "infinite" : addExtended(before, added);
  if (sum === "infinite") throw new Refusal("ERR increment would produce NaN or Infinity");
  const text = textBytes(extendedText(sum));
  view.set(key!, text, "keep");
  return text;
}

const ZERO: Extended = { mantissa: 0n, exponent: 0 };

function append(view: View, [, key, tail]: Command, context: DataContext): Reply {
  const old = view.get(key!);
  if (old === undefined) {
    view.set(key!, tail!, "keep");
    return tail!.length;
  }
  const length = old.length + tail!.length;
  checkLength(length, context);
  const value = new Uint8Array(length);
  value.set(old);
  value.set(tail!, old.length);
  view.set(key!, value, "keep");
  return length;
}

function checkLength(length: number, { valueBytesMax }: DataContext): void {
  if (length > valueBytesMax) {
    throw new Refusal("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
  }
}

function strlen(view: View, [, key]: Command): Reply {
  return view.get(key!)?.length ?? 0;
}

function getrange(view: View, [, key, first, last]: Command): Reply {
  const start = Number(needInteger(first!));
  const end = Number(needInteger(last!));
  const value = view.get(key!) ?? NO_BYTES;
  const { length } = value;
  if (start < 0 && end < 0 && start > end) return NO_BYTES;
  const from = start < 0 ? Math.max(0, length + start) : start;
  const to = Math.min(length - 1, end < 0 ? Math.max(0, length + end) : end);
  return from > to || length === 0 ? NO_BYTES : value.subarray(from, to + 1);
}

function setrange(view: View, [, key, at, part]: Command, context: DataContext): Reply {
  const offset = needInteger(at!);
  if (offset < 0n) throw new Refusal("ERR offset is out of range");
  const old = view.get(key!) ?? NO_BYTES;
  if (part!.length === 0) return old.length;
  const end = Number(offset) + part!.length;
  checkLength(end, context);
  const value = new Uint8Array(Math.max(old.length, end));
  value.set(old);
  value.set(part!, Number(offset));
  view.set(key!, value, "keep");
  return value.length;
}
