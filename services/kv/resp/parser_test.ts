import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { latin1 } from "./args.ts";
import { ARGUMENTS_MAX, type Command, RespParser, splitInline } from "./parser.ts";
import { Failure, textBytes } from "./reply.ts";
import { concat, encodeCommand } from "./testing/gateway.ts";

const LIMITS = { bulkBytesMax: 1_000, commandBytesMax: 100_000 };

function parse(text: string, isAuthenticated = true): (string[] | string)[] {
  const parser = new RespParser(LIMITS);
  parser.isAuthenticated = isAuthenticated;
  parser.push(textBytes(text));
  return drain(parser);
}

function drain(parser: RespParser): (string[] | string)[] {
  const found: (string[] | string)[] = [];
  for (;;) {
    const next: Command | Failure | undefined = parser.next();
    if (next === undefined) return found;
    if (next instanceof Failure) return [...found, next.text];
    found.push(next.map(latin1));
  }
}

Deno.test("RespParser.next() cuts commands, inline ones and empty ones too", () => {
  assertEquals(parse("*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n"), [["PING"], ["GET", ""]]);
  assertEquals(parse("*0\r\n*-5\r\n\r\n\nPING\nset a  'b c'\r\n"), [["PING"], ["set", "a", "b c"]]);
  assertEquals(parse("*1\r\n$4\r\nPI"), []);
});

Deno.test("RespParser.next() answers what is no command as Redis does", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["*x\r\n", "invalid multibulk length"],
    ["*99999999999\r\n", "invalid multibulk length"],
    [`*${ARGUMENTS_MAX + 1}\r\n`, "invalid multibulk length"],
    ["*1\r\n+PING\r\n", "expected '$', got '+'"],
    ["*1\r\n*1\r\n", "expected '$', got '*'"],
    ["*1\r\n$-1\r\n", "invalid bulk length"],
    ["*1\r\n$x\r\n", "invalid bulk length"],
    ["*1\r\n$1001\r\n", "invalid bulk length"],
    [`*${"1".repeat(70_000)}`, "too big mbulk count string"],
    [`*1\r\n$${"1".repeat(70_000)}`, "too big bulk count string"],
    ["a".repeat(70_000), "too big inline request"],
    ['set "a\r\n', "unbalanced quotes in request"],
    ['set "a"b\r\n', "unbalanced quotes in request"],
  ];
  for (const [text, message] of cases) assertEquals(parse(text), [`ERR Protocol error: ${message}`], message);
});

Deno.test("RespParser.next() takes little before a client has authenticated", () => {
  assertEquals(parse("*11\r\n", false), ["ERR Protocol error: unauthenticated multibulk length"]);
  const parser = new RespParser({ ...LIMITS, bulkBytesMax: 1_000_000 });
  parser.isAuthenticated = false;
  parser.push(textBytes("*1\r\n$16385\r\n"));
  assertEquals(drain(parser), ["ERR Protocol error: unauthenticated bulk length"]);
});

Deno.test("RespParser.next() bounds a whole command", () => {
  const parser = new RespParser({ bulkBytesMax: 1_000, commandBytesMax: 5_000 });
  parser.push(encodeCommand(Array.from({ length: 10 }, () => "x".repeat(1_000))));
  assertEquals(drain(parser), ["ERR Protocol error: too big request"]);
});

Deno.test("RespParser gives the same commands however the bytes are cut", () => {
  const words = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 5 });
  fc.assert(fc.property(
    fc.array(words, { maxLength: 8 }),
    fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
    (commands, cuts) => {
      const bytes = concat(commands.map((words) => encodeCommand(words)));
      const parser = new RespParser(LIMITS);
      const found: string[][] = [];
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const end = Math.min(bytes.length, at + cuts[i % cuts.length]!);
        // A copy: what was pushed is the caller's again once more is asked for.
        parser.push(bytes.slice(at, end));
        found.push(...drain(parser) as string[][]);
        at = end;
      }
      assertEquals(found, commands.map((words) => words.map(latin1)));
      assertEquals(parser.bufferedBytes, 0);
    },
  ));
});

Deno.test("RespParser holds no more than came, whatever was announced", () => {
  const parser = new RespParser({ bulkBytesMax: 2 ** 30, commandBytesMax: 2 ** 31 });
  parser.push(textBytes("*2\r\n$3\r\nSET\r\n$1000000000\r\nabc"));
  assertEquals(parser.next(), undefined);
  assert(parser.bufferedBytes < 100);
});

Deno.test("splitInline() reads quotes and escapes as Redis does", () => {
  const cases: readonly (readonly [string, string[] | undefined])[] = [
    ["", []],
    ["a b", ["a", "b"]],
    ['"a b" c', ["a b", "c"]],
    ["'a b' c", ["a b", "c"]],
    ['"\\x41\\n\\q"', ["A\nq"]],
    ["'it\\'s'", ["it's"]],
    ['a"b"', ["ab"]],
    ['""', [""]],
    ['"a', undefined],
    ["'a'b", undefined],
  ];
  for (const [line, words] of cases) {
    assertEquals(splitInline(textBytes(line))?.map(latin1), words, line);
  }
});
