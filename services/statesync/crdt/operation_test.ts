import { create, fromBinary, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { fromJson } from "@bufbuild/protobuf";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Operation, OperationSchema } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import { Content } from "./content.ts";
import { planEdit, readEdit } from "./operation.ts";

const CONTEXT = { userId: "ann", nowMs: 1_000, newId: () => "made" };

function operation(json: JsonObject): Operation {
  return fromJson(OperationSchema, json);
}

function contentOf(type: DocumentType, canonical = ""): Content {
  const content = Content.create(type, createSeededRandom(1));
  content.setCanonical(new TextEncoder().encode(canonical));
  return content;
}

function canonical(content: Content): string {
  return new TextDecoder().decode(content.canonical());
}

/** Applies an operation, checks that others see the same by its update, and returns the content. */
function applied(content: Content, json: JsonObject): string {
  const other = Content.load(content.type, {
    snapshot: { offset: 1, version: 1, state: content.encodeState() },
    updates: [],
  }, createSeededRandom(2));
  const { edit } = readEdit(operation(json), content.type, CONTEXT);
  const update = content.apply(planEdit(content, edit));
  if (update !== undefined) other.applyRemote(update);
  assertEquals(canonical(other), canonical(content));
  return canonical(content);
}

const APPLIED: [DocumentType, string, JsonObject, string][] = [
  ["text", "", { type: "create", text: { edits: [{ replaceAll: true, insert: "héllo" }] } }, "héllo"],
  ["text", "hello", { type: "update", text: { edits: [{ replaceAll: true, insert: "help" }] } }, "help"],
  ["text", "hello", { type: "update", text: { edits: [{ index: 1, delete: 3, insert: "u" }] } }, "huo"],
  [
    "text",
    "hello",
    { type: "text", text: { edits: [{ index: 5, insert: "!" }, { insert: "¡" }] } },
    "¡hello!",
  ],
  ["text", "hello", { type: "delete", text: { edits: [{ delete: 1 }, { index: 3, delete: 1 }] } }, "ell"],
  ["text", "a😀b", { type: "text", text: { edits: [{ index: 1, delete: 2, insert: "-" }] } }, "a-b"],
  ["text", "one two", { type: "move", text: { edits: [{ index: 3, length: 4, to: 0 }] } }, " twoone"],
  ["text", "abc", { type: "style", text: { edits: [{ length: 2, attributes: { bold: true } }] } }, "abc"],
  [
    "whiteboard",
    "",
    {
      type: "create",
      object: { objectId: "a", kind: "note", properties: { n: [1, null] }, x: 1, height: 2 },
    },
    `{"objects":{"a":{"height":2,"kind":"note","n":[1,null],"x":1}}}`,
  ],
  [
    "canvas",
    `{"objects":{"a":{"kind":"r","n":1,"x":1}}}`,
    { type: "update", object: { objectId: "a", properties: { n: null, m: "é" }, y: 3 } },
    `{"objects":{"a":{"kind":"r","m":"é","x":1,"y":3}}}`,
  ],
  [
    "whiteboard",
    `{"objects":{"a":{"kind":"r","text":"hi","x":1},"b":{"kind":"r"}}}`,
    { type: "delete", object: { objectId: "a" } },
    `{"objects":{"b":{"kind":"r"}}}`,
  ],
  [
    "whiteboard",
    `{"objects":{"a":{"kind":"r","x":1}}}`,
    { type: "move", object: { objectId: "a", x: -0.5, y: 2 } },
    `{"objects":{"a":{"kind":"r","x":-0.5,"y":2}}}`,
  ],
  [
    "whiteboard",
    `{"objects":{"a":{"kind":"r"}}}`,
    { type: "resize", object: { objectId: "a", width: 2, height: 3, x: 0 } },
    `{"objects":{"a":{"height":3,"kind":"r","width":2,"x":0}}}`,
  ],
  [
    "whiteboard",
    `{"objects":{"a":{"kind":"r","style.line":1}}}`,
    { type: "style", object: { objectId: "a", properties: { fill: "red", "style.line": null } } },
    `{"objects":{"a":{"kind":"r","style.fill":"red"}}}`,
  ],
  [
    "whiteboard",
    `{"objects":{"a":{"kind":"r","text":"hi"}}}`,
    { type: "text", object: { objectId: "a", text: { edits: [{ index: 1, delete: 1, insert: "o" }] } } },
    `{"objects":{"a":{"kind":"r","text":"ho"}}}`,
  ],
  [
    "sheet",
    "",
    { type: "create", cells: { edits: [{ cell: "A1", value: 1 }, { cell: "B2", value: "x" }] } },
    `{"cells":{"A1":{"value":1},"B2":{"value":"x"}}}`,
  ],
  [
    "sheet",
    `{"cells":{"A1":{"style.bold":true,"value":1}}}`,
    { type: "update", cells: { edits: [{ cell: "A1", value: null }] } },
    `{"cells":{"A1":{"style.bold":true}}}`,
  ],
  [
    "sheet",
    `{"cells":{"A1":{"style.bold":true,"value":1}}}`,
    { type: "delete", cells: { edits: [{ cell: "A1" }] } },
    `{}`,
  ],
  [
    "sheet",
    `{"cells":{"A1":{"style.bold":true,"value":1},"B1":{"style.x":1,"value":2}}}`,
    { type: "move", cells: { edits: [{ cell: "A1", to: "B1" }, { cell: "B1", to: "C1" }] } },
    `{"cells":{"C1":{"style.bold":true,"value":1}}}`,
  ],
  [
    "sheet",
    `{"cells":{"A1":{"value":1}}}`,
    { type: "style", cells: { edits: [{ cell: "A1", style: { bold: true } }] } },
    `{"cells":{"A1":{"style.bold":true,"value":1}}}`,
  ],
  [
    "sheet",
    "",
    { type: "resize", cells: { edits: [{ cell: "AB", size: 10 }, { cell: "7", size: 20 }] } },
    `{"columns":{"AB":{"width":10}},"rows":{"7":{"height":20}}}`,
  ],
];

for (const [type, before, json, after] of APPLIED) {
  Deno.test(`an operation ${json.type} makes ${after.slice(0, 40)} of a ${type} ${before.slice(0, 40)}`, () => {
    const content = contentOf(type, before);
    assertEquals(applied(content, json), after);
  });
}

Deno.test("an operation's payload may be JSON in data, bare or under its name, and comes back typed", () => {
  const bare = operation({ type: "text", text: { edits: [{ insert: "a" }] } });
  for (const json of [`{"edits":[{"insert":"a"}]}`, `{"text":{"edits":[{"insert":"a"}]}}`]) {
    const given = create(OperationSchema, { type: "text", data: new TextEncoder().encode(json) });
    const { operation: read, edit } = readEdit(given, "text", CONTEXT);
    assertEquals(edit, readEdit(bare, "text", CONTEXT).edit);
    assertEquals(read.payload, bare.payload);
    assertEquals(fromBinary(OperationSchema, toBinary(OperationSchema, read)).payload.case, "text");
  }
});

const comment = { commentId: "k", body: "looks good", anchor: "0:3" };

Deno.test("a comment is made, changed and removed; it gets an id, its author and a time", () => {
  const content = contentOf("text", "abc");
  const made = readEdit(operation({ type: "create", comment: { body: "x" } }), "text", CONTEXT);
  assert(made.operation.payload.case === "comment");
  assertEquals(made.operation.payload.value.commentId, "made");
  applied(content, { type: "create", comment });
  assertEquals(content.commentAuthor("k"), "ann");
  assertEquals(content.value("comments/k/createdAt"), 1_000);
  assertEquals(content.value("comments/k/anchor"), "0:3");
  applied(content, { type: "update", comment: { commentId: "k", resolved: true } });
  assertEquals(content.value("comments/k/body"), "looks good");
  assertEquals(content.value("comments/k/resolved"), true);
  applied(content, { type: "delete", comment: { commentId: "k" } });
  assertEquals(content.commentAuthor("k"), undefined);
  assertEquals(content.targetsOf("comments", "k"), []);
});

Deno.test("an object that is made anew has nothing of the one before it", () => {
  const content = contentOf("whiteboard", `{"objects":{"a":{"kind":"r","n":1}}}`);
  applied(content, { type: "delete", object: { objectId: "a" } });
  assertEquals(
    applied(content, { type: "create", object: { objectId: "a", kind: "r" } }),
    `{"objects":{"a":{"kind":"r"}}}`,
  );
});

Deno.test("moved text keeps its style, and inserted text has that of its place or its own", () => {
  const content = contentOf("text", "abcdef");
  applied(content, { type: "style", text: { edits: [{ index: 1, length: 2, attributes: { bold: true } }] } });
  applied(content, { type: "move", text: { edits: [{ index: 0, length: 2, to: 6 }] } });
  assertEquals(content.runs("content"), [
    { insert: "c", attributes: { bold: true } },
    { insert: "defa" },
    { insert: "b", attributes: { bold: true } },
  ]);
  applied(content, { type: "text", text: { edits: [{ index: 2, insert: "X", attributes: { i: 1 } }] } });
  assertEquals(content.runs("content").map(({ insert }) => insert), ["c", "d", "X", "efa", "b"]);
});

Deno.test("an operation that sets what is there makes no update", () => {
  const content = contentOf("whiteboard", `{"objects":{"a":{"d":{"x":[1]},"kind":"r"}}}`);
  const { edit } = readEdit(
    operation({ type: "update", object: { objectId: "a", properties: { d: { x: [1] }, no: null } } }),
    "whiteboard",
    CONTEXT,
  );
  assertEquals(content.apply(planEdit(content, edit)), undefined);
});

const text = (type: string, ...edits: JsonObject[]): JsonObject => ({ type, text: { edits } });
const object = (type: string, fields: JsonObject): JsonObject => ({
  type,
  object: { objectId: "a", ...fields },
});
const cells = (type: string, ...edits: JsonObject[]): JsonObject => ({ type, cells: { edits } });

const INVALID: [DocumentType, JsonObject, RegExp][] = [
  ["text", { type: "paint" }, /type is "paint"/],
  ["text", { type: "text" }, /payload is missing/],
  ["text", object("move", { x: 1 }), /payload object is none of a text/],
  ["sheet", text("text", { insert: "a" }), /payload text is none of a sheet/],
  ["canvas", cells("update", { cell: "A1", value: 1 }), /payload cells is none of a canvas/],
  ["text", text("resize", { length: 1 }), /type resize is none of a text/],
  ["text", text("text"), /text\.edits has 0, expected 1 to 1000/],
  ["text", text("text", { insert: "a", to: 3 }), /edits\[0\]\.to is none of type text/],
  ["text", text("text", { replaceAll: true, insert: "a" }), /edits\[0\]\.replace_all is none/],
  ["text", text("update", { replaceAll: true }, { insert: "a" }), /replace_all stands alone/],
  ["text", text("create", { insert: "a" }), /replace_all is missing/],
  ["text", text("delete", { index: 1 }), /edits\[0\]\.delete is 0/],
  ["text", text("move", { to: 1 }), /edits\[0\]\.length is 0/],
  ["text", text("style", { length: 1 }), /attributes is empty/],
  ["text", text("style", { length: 1, attributes: { "a b": 1 } }), /has "a b"/],
  ["canvas", { type: "move", object: { objectId: "a/b", x: 1 } }, /object\.object_id/],
  ["canvas", object("create", {}), /object\.kind/],
  ["canvas", object("update", { kind: "r", x: 1 }), /object\.kind is none of type update/],
  ["canvas", object("update", {}), /object\.properties is missing/],
  ["canvas", object("update", { properties: { kind: "x" } }), /object\.properties\.kind/],
  ["canvas", object("update", { properties: { text: "x" } }), /object\.properties\.text/],
  ["canvas", object("update", { properties: { x: "1" } }), /object\.properties\.x/],
  ["canvas", object("update", { properties: { big: "x".repeat(262_143) } }), /the limit is 262144/],
  ["canvas", object("update", { x: "NaN" }), /object\.x is NaN/],
  ["canvas", object("move", { width: 1, x: 1 }), /object\.width is none of type move/],
  ["canvas", object("resize", { x: 1 }), /object\.width is missing/],
  ["canvas", object("style", { x: 1 }), /object\.x is none of type style/],
  ["canvas", object("delete", { properties: { a: 1 } }), /object\.properties is none of type delete/],
  ["canvas", object("text", { text: { edits: [{ index: 1, to: 2 }] } }), /object\.text\.edits\[0\]\.to/],
  ["sheet", cells("update", { cell: "a1", value: 1 }), /cells\.edits\[0\]\.cell is "a1"/],
  ["sheet", cells("update", { cell: "A1" }), /cells\.edits\[0\]\.value is missing/],
  ["sheet", cells("create", { cell: "A1", value: null }), /cells\.edits\[0\]\.value is null/],
  ["sheet", cells("delete", { cell: "A1", value: 1 }), /cells\.edits\[0\]\.value is none/],
  ["sheet", cells("move", { cell: "A1", to: "B" }), /cells\.edits\[0\]\.to is "B"/],
  ["sheet", cells("resize", { cell: "A1", size: 1 }), /expected a column or row/],
  ["sheet", cells("resize", { cell: "A", size: -1 }), /cells\.edits\[0\]\.size is -1/],
  ["text", { type: "move", comment: { commentId: "k" } }, /type move is none of a comment/],
  ["text", { type: "create", comment: { commentId: "k" } }, /comment\.body is empty/],
  ["text", { type: "create", comment: { body: "é".repeat(8_193) } }, /comment\.body has 16386 bytes/],
  ["text", { type: "update", comment: { body: "x" } }, /comment\.comment_id/],
];

for (const [type, json, message] of INVALID) {
  Deno.test(`readEdit() of a ${type} refuses ${JSON.stringify(json).slice(0, 70)}`, () => {
    const error = assertThrows(() => readEdit(operation(json), type, CONTEXT), StateSyncError);
    assertEquals(error.kind, "invalid");
    assert(message.test(error.message), error.message);
  });
}

Deno.test("readEdit() refuses data that is no JSON, has unknown fields, or stands beside a payload", () => {
  const cases: [string, JsonObject, RegExp][] = [
    ["{", {}, /data is no JSON/],
    [`{"edits":[{"bogus":1}]}`, {}, /data: .*bogus/],
    [`{"object":{"objectId":"a","x":1}}`, {}, /payload object is none of a text/],
    [`{"edits":[]}`, { text: { edits: [{ insert: "a" }] } }, /exclude one another/],
    [`{"edits":[{"insert":"\\ud800"}]}`, {}, /half of a character|data:/],
  ];
  for (const [data, json, message] of cases) {
    const given = { ...operation({ type: "text", ...json }), data: new TextEncoder().encode(data) };
    const error = assertThrows(() => readEdit(given, "text", CONTEXT), StateSyncError);
    assert(message.test(error.message), error.message);
  }
});

Deno.test("planEdit() refuses what the content does not allow, and names it", () => {
  const board = `{"objects":{"a":{"kind":"r"}}}`;
  const cases: [DocumentType, string, JsonObject, string, RegExp][] = [
    ["text", "abc", text("create", { replaceAll: true, insert: "x" }), "exists", /the text/],
    ["text", "abc", text("text", { index: 4, insert: "x" }), "invalid", /edits\[0\] reaches 4/],
    ["canvas", board, object("create", { kind: "r" }), "exists", /object a/],
    ["canvas", board, { type: "move", object: { objectId: "b", x: 1 } }, "noObject", /object b/],
    ["canvas", board, { type: "delete", object: { objectId: "b" } }, "noObject", /object b/],
    ["sheet", `{"cells":{"A1":{"value":1}}}`, cells("create", { cell: "A1", value: 2 }), "exists", /cell A1/],
    ["text", "", { type: "update", comment: { commentId: "k", body: "x" } }, "noObject", /comment k/],
  ];
  for (const [type, before, json, kind, message] of cases) {
    const content = contentOf(type, before);
    const { edit } = readEdit(operation(json), type, CONTEXT);
    const error = assertThrows(() => planEdit(content, edit), StateSyncError);
    assertEquals(error.kind, kind as never);
    assert(message.test(error.message), error.message);
  }
});

Deno.test("Content.apply() refuses to cut a character in two", () => {
  for (const edit of [{ index: 2, insert: "x" }, { index: 1, delete: 1 }, { index: 0, delete: 2 }]) {
    const content = contentOf("text", "a😀b");
    const read = readEdit(operation(text("text", edit)), "text", CONTEXT);
    assertThrows(() => content.apply(planEdit(content, read.edit)), StateSyncError, "within a character");
    assertEquals(canonical(content), "a😀b");
  }
});
