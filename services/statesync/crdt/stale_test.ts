import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { assertEquals, assertThrows } from "@std/assert";
import { OperationSchema } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import { Content } from "./content.ts";
import { type Edit, planEdit, readEdit } from "./operation.ts";
import { isEmptyPlan, type Plan } from "./plan.ts";
import { type LaterEdit, meetLater, type Stale } from "./stale.ts";

const CONTEXT = { userId: "ann", nowMs: 1_000, newId: () => "made" };

function editOf(type: DocumentType, json: JsonObject): Edit {
  return readEdit(fromJson(OperationSchema, json), type, CONTEXT).edit;
}

/** A document whose later edits have clocks 10, 20, 30, …, and a late operation beside them. */
interface Example {
  readonly type: DocumentType;
  readonly base: string;
  readonly later: readonly JsonObject[];
  readonly late: JsonObject;
}

function met({ type, base, later, late }: Example): { content: Content; stale: Stale } {
  const content = Content.create(type, createSeededRandom(1));
  content.setCanonical(new TextEncoder().encode(base));
  const updates = later.map((json) => content.apply(planEdit(content, editOf(type, json))));
  const edits = updates.map((update, i): LaterEdit => ({
    touch: update === undefined
      ? { properties: new Map(), texts: new Map(), hasOthers: false }
      : content.touchOf(update),
    hlc: BigInt(10 * (i + 1)),
  }));
  return { content, stale: meetLater(content, editOf(type, late), edits) };
}

function after(example: Example, choose: (stale: Stale) => Plan): string {
  const { content, stale } = met(example);
  content.apply(choose(stale));
  return new TextDecoder().decode(content.canonical());
}

const text = (...edits: JsonObject[]): JsonObject => ({ type: "text", text: { edits } });
const object = (type: string, fields: JsonObject = {}): JsonObject => ({
  type,
  object: { objectId: "a", ...fields },
});
const cells = (type: string, ...edits: JsonObject[]): JsonObject => ({ type, cells: { edits } });

const ONE = `{"objects":{"a":{"kind":"r","x":1,"y":1}}}`;

/** Name, example, what is met; then the content under `merge` and under `lww` for a late operation of clock 5 (older than all
 *  others) and of clock 99 (newer). */
const EXAMPLES: [
  string,
  Example,
  [string, number[]][],
  { merge: [string, string]; lww: [string, string] },
][] = [
  [
    "two properties of one object",
    { type: "canvas", base: ONE, later: [object("move", { x: 2 })], late: object("move", { y: 3 }) },
    [],
    {
      merge: [`{"objects":{"a":{"kind":"r","x":2,"y":3}}}`, `{"objects":{"a":{"kind":"r","x":2,"y":3}}}`],
      lww: [`{"objects":{"a":{"kind":"r","x":2,"y":3}}}`, `{"objects":{"a":{"kind":"r","x":2,"y":3}}}`],
    },
  ],
  [
    "one property with two values, and another beside it",
    { type: "canvas", base: ONE, later: [object("move", { x: 2 })], late: object("move", { x: 7, y: 3 }) },
    [["a/x", [0]]],
    {
      merge: [`{"objects":{"a":{"kind":"r","x":2,"y":3}}}`, `{"objects":{"a":{"kind":"r","x":7,"y":3}}}`],
      lww: [`{"objects":{"a":{"kind":"r","x":2,"y":3}}}`, `{"objects":{"a":{"kind":"r","x":7,"y":3}}}`],
    },
  ],
  [
    "one property with one value",
    { type: "canvas", base: ONE, later: [object("move", { x: 2 })], late: object("move", { x: 2 }) },
    [],
    {
      merge: [`{"objects":{"a":{"kind":"r","x":2,"y":1}}}`, `{"objects":{"a":{"kind":"r","x":2,"y":1}}}`],
      lww: [`{"objects":{"a":{"kind":"r","x":2,"y":1}}}`, `{"objects":{"a":{"kind":"r","x":2,"y":1}}}`],
    },
  ],
  [
    "a change of what was removed",
    { type: "canvas", base: ONE, later: [object("delete")], late: object("move", { x: 7 }) },
    [["a/kind", [0]], ["a/x", [0]]],
    { merge: [`{"objects":{}}`, `{"objects":{}}`], lww: [`{"objects":{}}`, `{"objects":{}}`] },
  ],
  [
    "a removal of what was changed",
    { type: "canvas", base: ONE, later: [object("move", { x: 2 })], late: object("delete") },
    [["a/kind", [0]]],
    {
      merge: [`{"objects":{}}`, `{"objects":{}}`],
      lww: [`{"objects":{"a":{"kind":"r","x":2,"y":1}}}`, `{"objects":{}}`],
    },
  ],
  [
    "two removals of one object",
    { type: "canvas", base: ONE, later: [object("delete")], late: object("delete") },
    [],
    { merge: [`{"objects":{}}`, `{"objects":{}}`], lww: [`{"objects":{}}`, `{"objects":{}}`] },
  ],
  [
    "two that make one object",
    {
      type: "canvas",
      base: "",
      later: [object("create", { kind: "note", x: 1, properties: { a: 1 } })],
      late: object("create", { kind: "oval", x: 2, properties: { b: 2 } }),
    },
    [["a/kind", [0]], ["a/x", [0]]],
    {
      merge: [
        `{"objects":{"a":{"a":1,"b":2,"kind":"note","x":1}}}`,
        `{"objects":{"a":{"a":1,"b":2,"kind":"oval","x":2}}}`,
      ],
      lww: [
        `{"objects":{"a":{"a":1,"b":2,"kind":"note","x":1}}}`,
        `{"objects":{"a":{"a":1,"b":2,"kind":"oval","x":2}}}`,
      ],
    },
  ],
  [
    "a removal of an object whose text was edited",
    {
      type: "canvas",
      base: `{"objects":{"a":{"kind":"r","text":"hi"}}}`,
      later: [object("text", { text: { edits: [{ index: 2, insert: "!" }] } })],
      late: object("delete"),
    },
    [["a/kind", [0]]],
    {
      merge: [`{"objects":{}}`, `{"objects":{}}`],
      lww: [`{"objects":{"a":{"kind":"r","text":"hi!"}}}`, `{"objects":{}}`],
    },
  ],
  [
    "one cell with two values",
    {
      type: "sheet",
      base: `{"cells":{"A1":{"value":1}}}`,
      later: [cells("update", { cell: "A1", value: 2 }), cells("update", { cell: "A1", value: 3 })],
      late: cells("update", { cell: "A1", value: 9 }, { cell: "B1", value: 8 }),
    },
    [["A1/value", [0, 1]]],
    {
      merge: [
        `{"cells":{"A1":{"value":3},"B1":{"value":8}}}`,
        `{"cells":{"A1":{"value":9},"B1":{"value":8}}}`,
      ],
      lww: [`{"cells":{"A1":{"value":3},"B1":{"value":8}}}`, `{"cells":{"A1":{"value":9},"B1":{"value":8}}}`],
    },
  ],
  [
    "a value and a style of one cell",
    {
      type: "sheet",
      base: `{"cells":{"A1":{"value":1}}}`,
      later: [cells("update", { cell: "A1", value: 2 })],
      late: cells("style", { cell: "A1", style: { bold: true } }),
    },
    [],
    {
      merge: [
        `{"cells":{"A1":{"style.bold":true,"value":2}}}`,
        `{"cells":{"A1":{"style.bold":true,"value":2}}}`,
      ],
      lww: [
        `{"cells":{"A1":{"style.bold":true,"value":2}}}`,
        `{"cells":{"A1":{"style.bold":true,"value":2}}}`,
      ],
    },
  ],
  [
    "a move of a cell to where somebody wrote: all of it or nothing",
    {
      type: "sheet",
      base: `{"cells":{"A1":{"value":1}}}`,
      later: [cells("update", { cell: "B1", value: 2 })],
      late: cells("move", { cell: "A1", to: "B1" }),
    },
    [["B1/value", [0]]],
    {
      merge: [`{"cells":{"A1":{"value":1},"B1":{"value":2}}}`, `{"cells":{"B1":{"value":1}}}`],
      lww: [`{"cells":{"A1":{"value":1},"B1":{"value":2}}}`, `{"cells":{"B1":{"value":1}}}`],
    },
  ],
  [
    "insertions at one place: both stay, the earlier version's first",
    {
      type: "text",
      base: "ac",
      later: [text({ index: 1, insert: "b" })],
      late: text({ index: 1, insert: "X" }),
    },
    [],
    { merge: ["abXc", "abXc"], lww: ["abXc", "abXc"] },
  ],
  [
    "an insertion into what was removed",
    {
      type: "text",
      base: "one two three",
      later: [text({ index: 4, delete: 4 })],
      late: text({ index: 6, insert: "X" }, { insert: "_" }),
    },
    [["6:0", [0]]],
    { merge: ["_one Xthree", "_one Xthree"], lww: ["_one three", "_one Xthree"] },
  ],
  [
    "removals that overlap: each keeps what the other did not remove",
    {
      type: "text",
      base: "0123456789",
      later: [text({ index: 2, delete: 4 })],
      late: text({ index: 4, delete: 4 }),
    },
    [["4:4", [0]]],
    { merge: ["0189", "0189"], lww: ["016789", "0189"] },
  ],
  [
    "the whole text where somebody typed: the least edit is meant",
    {
      type: "text",
      base: "the quick fox",
      later: [text({ index: 13, insert: "!" })],
      late: { type: "update", text: { edits: [{ replaceAll: true, insert: "the slow fox" }] } },
    },
    [],
    { merge: ["the slow fox!", "the slow fox!"], lww: ["the slow fox!", "the slow fox!"] },
  ],
  [
    "a move of text that was changed in part",
    {
      type: "text",
      base: "abcdef",
      later: [text({ index: 1, delete: 1 })],
      late: { type: "move", text: { edits: [{ index: 0, length: 3, to: 6 }] } },
    },
    [["0:3", [0]]],
    { merge: ["defac", "defac"], lww: ["acdef", "defac"] },
  ],
  [
    "a comment's field with two values",
    {
      type: "text",
      base: "",
      later: [
        { type: "create", comment: { commentId: "k", body: "one" } },
        { type: "update", comment: { commentId: "k", body: "two" } },
      ],
      late: { type: "create", comment: { commentId: "other", body: "x" } },
    },
    [],
    { merge: ["", ""], lww: ["", ""] },
  ],
];

for (const [name, example, meetings, { merge, lww }] of EXAMPLES) {
  Deno.test(`a stale operation: ${name}`, () => {
    const found = met(example).stale.meetings.map(({ target, edits }) => [target, [...edits]]);
    assertEquals(new Map(found as never), new Map(meetings as never));
    assertEquals([5n, 99n].map((hlc) => after(example, (stale) => stale.merge(hlc))), merge, "merge");
    assertEquals([5n, 99n].map((hlc) => after(example, (stale) => stale.lww(hlc).plan)), lww, "lww");
    if (meetings.length === 0) {
      assertEquals(after(example, (stale) => stale.force()), merge[1], "force");
    }
  });
}

Deno.test("under lww an operation that loses everything has nothing to do, and says what it lost", () => {
  const example: Example = {
    type: "canvas",
    base: ONE,
    later: [object("move", { x: 2, y: 2 })],
    late: object("move", { x: 7, y: 7 }),
  };
  const { plan, lost, won } = met(example).stale.lww(5n);
  assertEquals(isEmptyPlan(plan), true);
  assertEquals([lost.map(({ target }) => target), won], [["a/x", "a/y"], []]);
  const other = met(example).stale.lww(99n);
  assertEquals([other.lost, other.won.map(({ target }) => target)], [[], ["a/x", "a/y"]]);
});

Deno.test("equal clocks are ordered by the keys of the operations", () => {
  const example: Example = {
    type: "canvas",
    base: ONE,
    later: [object("move", { x: 2 })],
    late: object("move", { x: 7 }),
  };
  const result = (late: string, earlier: string | undefined) => {
    const { content } = met(example);
    const touch = { properties: new Map([["objects/a/x", 2]]), texts: new Map(), hasOthers: false };
    const stale = meetLater(content, editOf("canvas", example.late), [{ touch, hlc: 10n, key: earlier }]);
    return stale.lww(10n, late).lost.length;
  };
  assertEquals([result("b", "a"), result("a", "b"), result("b", undefined)], [0, 1, 0]);
});

Deno.test("force() does everything, over what is there", () => {
  const example: Example = {
    type: "canvas",
    base: ONE,
    later: [object("move", { x: 2 })],
    late: object("move", { x: 7 }),
  };
  assertEquals(after(example, (stale) => stale.force()), `{"objects":{"a":{"kind":"r","x":7,"y":1}}}`);
});

Deno.test("a stale operation that could not have been made in its own version is refused", () => {
  const cases: [Example, string][] = [
    [{ type: "canvas", base: "", later: [], late: object("move", { x: 1 }) }, "noObject"],
    [
      { type: "canvas", base: ONE, later: [object("move", { x: 2 })], late: object("create", { kind: "r" }) },
      "exists",
    ],
    [
      { type: "text", base: "abc", later: [text({ index: 3, insert: "def" })], late: text({ index: 4 }) },
      "invalid",
    ],
    [{
      type: "text",
      base: "abc",
      later: [text({ index: 0, delete: 3 })],
      late: { type: "create", text: { edits: [{ replaceAll: true, insert: "x" }] } },
    }, "exists"],
  ];
  for (const [example, kind] of cases) {
    assertEquals(assertThrows(() => met(example), StateSyncError).kind, kind as never);
  }
});
