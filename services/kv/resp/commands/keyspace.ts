/** Commands on all keys. They read at a durable revision, which is why they are refused inside MULTI. */
import { copyBytes, integerOf, NOT_AN_INTEGER, Refusal, SYNTAX_ERROR, upper } from "../args.ts";
import type { SessionCommand } from "../command.ts";
import { literalPrefix, matchesAll, matchesGlob } from "../glob.ts";
import { type KeyRange, prefixRange, successorOf } from "../../key.ts";
import type { RangeResult } from "../../mvcc.ts";
import type { Command } from "../parser.ts";
import { OK, type Reply } from "../reply.ts";
import type { Session } from "../session.ts";
import { command } from "./_define.ts";

/** Keys that KEYS reads in one piece. */
const PAGE_KEYS = 10_000;
/** Keys that SCAN looks at when not told, and at most. */
const SCAN_COUNT = 10n;
const SCAN_COUNT_MAX = 10_000n;
const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** The commands. */
export const KEYSPACE_COMMANDS: readonly SessionCommand[] = [
  command("generic", "scan", -2, "readonly no_multi", "2.8.0", "Walks over the keys.", scan, "after"),
  command("generic", "keys", 2, "readonly no_multi", "1.0.0", "Returns the keys that match.", keys, "after"),
  command("server", "dbsize", 1, "readonly fast no_multi", "1.0.0", "Counts the keys.", dbsize, "after"),
  command("server", "flushdb", -1, "write no_multi", "1.0.0", "Deletes all keys.", flush, "after"),
  command("server", "flushall", -1, "write no_multi", "1.0.0", "Deletes all keys.", flush, "after"),
];

interface ScanOptions {
  readonly pattern: Uint8Array | undefined;
  readonly count: number;
  readonly isOtherType: boolean;
}

function scan(session: Session, parts: Command): Reply | Promise<Reply> {
  const { server } = session;
  const cursor = cursorOf(parts[1]!);
  const { pattern, count, isOtherType } = scanOptions(parts);
  const whole = rangeOf(session, pattern);
  let { start } = whole;
  if (cursor !== 0n) {
    const after = server.cursors.get(cursor);
    if (after === undefined) throw new Refusal("ERR invalid cursor");
    start = successorOf(after);
  }
  return then(
    session.api.range({ key: start, range: { start, end: whole.end }, limit: count, keysOnly: true }),
    (
      { kvs, more },
    ) => {
      const last = kvs.at(-1);
      const next = more && last !== undefined ? server.cursors.add(last.key) : 0n;
      const found: Uint8Array[] = [];
      for (const { key } of kvs) {
        const name = server.clientKey(key);
        if (!isOtherType && (pattern === undefined || matchesGlob(pattern, name))) found.push(name);
      }
      return [decimal(next), found];
    },
  );
}

function cursorOf(bytes: Uint8Array): bigint {
  const text = new TextDecoder().decode(bytes);
  const cursor = /^[0-9]{1,20}$/.test(text) ? BigInt(text) : undefined;
  if (cursor === undefined || cursor > UINT64_MAX) throw new Refusal("ERR invalid cursor");
  return cursor;
}

function scanOptions(parts: Command): ScanOptions {
  let pattern: Uint8Array | undefined;
  let count = SCAN_COUNT;
  let isOtherType = false;
  for (let i = 2; i < parts.length; i += 2) {
    const value = parts[i + 1];
    if (value === undefined) throw new Refusal(SYNTAX_ERROR);
    const word = upper(parts[i]!);
    if (word === "COUNT") {
      const given = integerOf(value);
      if (given === undefined) throw new Refusal(NOT_AN_INTEGER);
      if (given < 1n) throw new Refusal(SYNTAX_ERROR);
      count = given;
    } else if (word === "MATCH") {
      pattern = matchesAll(value) ? undefined : value;
    } else if (word === "TYPE") {
      isOtherType = upper(value) !== "STRING";
    } else throw new Refusal(SYNTAX_ERROR);
  }
  return { pattern, count: Number(count > SCAN_COUNT_MAX ? SCAN_COUNT_MAX : count), isOtherType };
}

/** What a pattern can match. */
function rangeOf({ server }: Session, pattern: Uint8Array | undefined): KeyRange {
  return pattern === undefined ? server.keyRange : prefixRange(server.storeKey(literalPrefix(pattern)));
}

async function keysLater(session: Session, pattern: Uint8Array, first: RangeResult): Promise<Reply> {
  const found: Uint8Array[] = [];
  for (let page = first;;) {
    const last = collect(session, pattern, page, found);
    if (last === undefined) return found;
    page = await nextPage(session, pattern, last, first.revision);
  }
}

function keys(session: Session, [, pattern]: Command): Reply | Promise<Reply> {
  const first = nextPage(session, pattern!, undefined, 0);
  if (first instanceof Promise) {
    const kept = copyBytes(pattern!);
    return first.then((page) => keysLater(session, kept, page));
  }
  const found: Uint8Array[] = [];
  for (let page = first;;) {
    const last = collect(session, pattern!, page, found);
    if (last === undefined) return found;
    page = nextPage(session, pattern!, last, first.revision) as RangeResult;
  }
}

/** Takes the matches of a page and returns where the next one begins. */
function collect(
  { server }: Session,
  pattern: Uint8Array,
  { kvs, more }: RangeResult,
  found: Uint8Array[],
): Uint8Array | undefined {
  for (const { key } of kvs) {
    const name = server.clientKey(key);
    if (matchesAll(pattern) || matchesGlob(pattern, name)) found.push(name);
  }
  const last = kvs.at(-1);
  return more && last !== undefined ? successorOf(last.key) : undefined;
}

function nextPage(
  session: Session,
  pattern: Uint8Array,
  from: Uint8Array | undefined,
  revision: number,
): RangeResult | Promise<RangeResult> {
  const whole = rangeOf(session, pattern);
  const start = from ?? whole.start;
  return session.api.range({
    key: start,
    range: { start, end: whole.end },
    limit: PAGE_KEYS,
    keysOnly: true,
    revision,
  });
}

function dbsize(session: Session): Reply | Promise<Reply> {
  return then(countKeys(session), (count) => count);
}

/** Counts the keys of Redis clients. */
export function countKeys(session: Session): number | Promise<number> {
  const range = session.server.keyRange;
  return then(session.api.range({ key: range.start, range, countOnly: true }), ({ count }) => count);
}

function flush(session: Session, parts: Command): Promise<Reply> {
  const mode = parts[1] === undefined ? "SYNC" : upper(parts[1]);
  if (parts.length > 2 || (mode !== "SYNC" && mode !== "ASYNC")) throw new Refusal(SYNTAX_ERROR);
  const range = session.server.keyRange;
  return session.api.delete({ kind: "delete", key: range.start, range, prevKv: false }).then(() => OK);
}

function then<T, R>(value: T | Promise<T>, next: (value: T) => R): R | Promise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

function decimal(value: bigint): Uint8Array {
  return new TextEncoder().encode(value.toString());
}
