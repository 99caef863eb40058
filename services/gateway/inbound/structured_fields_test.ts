import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  type BareItem,
  Decimal,
  type InnerList,
  type Item,
  type Member,
  parseDictionary,
  parseItem,
  parseList,
  serializeDictionary,
  serializeItem,
  serializeList,
  Token,
} from "./structured_fields.ts";

const item = (value: BareItem, parameters: Record<string, BareItem> = {}): Item => ({
  value,
  parameters: new Map(Object.entries(parameters)),
});

Deno.test("parseItem() reads what RFC 9651 allows and nothing else", () => {
  const cases: [text: string, expected: Item | undefined, written?: string][] = [
    ["42", item(42)],
    [" 42 ", item(42), "42"],
    ["-0", item(0), "0"],
    ["00042", item(42), "42"],
    ["999999999999999", item(999_999_999_999_999)],
    ["1000000000000000", undefined],
    ["1.5", item(new Decimal(1.5))],
    ["-0.125", item(new Decimal(-0.125))],
    ["2.0", item(new Decimal(2))],
    ["1.", undefined],
    [".1", undefined],
    ["1.2345", undefined],
    ["1234567890123.1", undefined],
    ["1.2.3", undefined],
    ["-", undefined],
    ["--1", undefined],
    ['"a b"', item("a b")],
    ['""', item("")],
    [String.raw`"a\"b\\c"`, item(String.raw`a"b\c`)],
    [String.raw`"a\n"`, undefined],
    ['"a', undefined],
    ['"ä"', undefined],
    ['"a\tb"', undefined],
    ["token/x:y*", item(new Token("token/x:y*"))],
    ["*", item(new Token("*"))],
    ["a b", undefined],
    [":aGk=:", item(Uint8Array.of(104, 105))],
    [":aGk:", item(Uint8Array.of(104, 105)), ":aGk=:"],
    [":a", undefined],
    [":=a:", undefined],
    ["?1", item(true)],
    ["?0", item(false)],
    ["?2", undefined],
    ["@1", undefined],
    ['%"x"', undefined],
    ["", undefined],
    ["1, 2", undefined],
    ['"k";a;b=2;c="x"', item("k", { a: true, b: 2, c: "x" })],
    ["1; a=1;a=2", item(1, { a: 2 }), "1;a=2"],
    ["1;A=1", undefined],
    ["1;a=", undefined],
    ["1 ;a", undefined],
    ["1".padEnd(9_000), undefined],
  ];
  for (const [text, expected, written = text] of cases) {
    const found = parseItem(text);
    assertEquals(found, expected, text);
    if (found !== undefined) assertEquals(serializeItem(found), written);
  }
});

Deno.test("parseList() and parseDictionary() read members, parameters and inner lists", () => {
  const inner = (items: Item[], parameters: Record<string, BareItem> = {}): InnerList => ({
    items,
    parameters: new Map(Object.entries(parameters)),
  });
  assertEquals(parseList('"burst";q=100;w=60, "daily";q=1000;w=86400'), [
    item("burst", { q: 100, w: 60 }),
    item("daily", { q: 1000, w: 86_400 }),
  ]);
  assertEquals(parseList(""), []);
  assertEquals(parseList("(a b);x, ( 1 ) ,()"), [
    inner([item(new Token("a")), item(new Token("b"))], { x: true }),
    inner([item(1)]),
    inner([]),
  ]);
  for (const text of ["1,", ",1", "1,,2", "(1", "(1(2))", "(1,2)", '("a""b")', "1\t", "1 2"]) {
    assertEquals(parseList(text), undefined, text);
  }
  const dictionary = parseDictionary("a=1, b;x=2 ,\tc=(1 2), a=?0");
  assertEquals([...dictionary!], [
    ["b", item(true, { x: 2 })],
    ["c", inner([item(1), item(2)])],
    ["a", item(false)],
  ]);
  assertEquals(serializeDictionary(dictionary!), "b;x=2, c=(1 2), a=?0");
  for (const text of ["a=1,", "1=a", "a=1 b=2", "a==1"]) assertEquals(parseDictionary(text), undefined, text);
});

Deno.test("serializeItem() refuses what no field can hold", () => {
  for (
    const value of [
      1.5,
      1e15,
      "ä",
      "a\n",
      new Token("1a"),
      new Token(""),
      new Decimal(1e12),
      new Decimal(NaN),
    ]
  ) {
    assertThrows(() => serializeItem(item(value)), RangeError);
  }
  assertThrows(() => serializeItem(item(1, { "": 1 })), RangeError);
  assertEquals(serializeItem(item(new Decimal(-0.0001))), "0.0");
});

Deno.test("parseList() reads every list that serializeList() writes", () => {
  const bare: fc.Arbitrary<BareItem> = fc.oneof(
    fc.integer({ min: -999_999_999_999_999, max: 999_999_999_999_999 }).map((n) => n === 0 ? 0 : n),
    fc.integer({ min: -1e9, max: 1e9 }).map((n) => new Decimal(n === 0 ? 0 : n / 1000)),
    fc.string({ unit: fc.integer({ min: 32, max: 126 }).map((code) => String.fromCharCode(code)) }),
    fc.stringMatching(/^[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,9}$/).map((name) => new Token(name)),
    fc.boolean(),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Uint8Array.from(bytes)),
  );
  const parameters = fc.array(fc.tuple(fc.stringMatching(/^[a-z*][a-z0-9_.*-]{0,5}$/), bare), {
    maxLength: 3,
  })
    .map((pairs) => new Map(pairs));
  const items = fc.record({ value: bare, parameters }, { noNullPrototype: true });
  const lists = fc.record({ items: fc.array(items, { maxLength: 3 }), parameters }, {
    noNullPrototype: true,
  });
  const members: fc.Arbitrary<Member> = fc.oneof(items, lists);
  fc.assert(fc.property(fc.array(members, { maxLength: 4 }), (list) => {
    assertEquals(parseList(serializeList(list)), list);
  }));
});

Deno.test("parseItem() ends for any text", () => {
  fc.assert(fc.property(fc.string({ unit: fc.constantFrom(...'";=,()?:*a1.\\- \t') }), (text) => {
    parseItem(text);
    parseList(text);
    parseDictionary(text);
  }));
});
