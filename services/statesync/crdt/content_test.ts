import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { createSeededRandom } from "../../runtime/random.ts";
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import type { StoredUpdate } from "../store.ts";
import { Content } from "./content.ts";
import { checkUpdate } from "./limits.ts";
import { scopeOf } from "./touch.ts";
import * as Y from "./yjs.ts";

const LIMITS = { maxBytes: 4_000_000, maxStructs: 200_000 };

function create(type: DocumentType, canonical = ""): Content {
  const content = Content.create(type, createSeededRandom(1));
  if (canonical !== "") content.setCanonical(utf8(canonical));
  return content;
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function canonical(content: Content): string {
  return new TextDecoder().decode(content.canonical());
}

/** A client with the content, and what it sends. */
function clientOf(
  content: Content,
  clientId = 5,
): { doc: Y.Doc; sent: (edit: (doc: Y.Doc) => void) => Uint8Array } {
  const doc = new Y.Doc({ guid: "" });
  Y.applyUpdate(doc, content.encodeState());
  doc.clientID = clientId;
  return {
    doc,
    sent(edit) {
      const before = Y.encodeStateVector(doc);
      const updates: Uint8Array[] = [];
      const note = (update: Uint8Array) => updates.push(update);
      doc.on("update", note);
      doc.transact(() => edit(doc));
      doc.off("update", note);
      return updates.length === 0 ? Y.encodeStateAsUpdate(doc, before) : Y.mergeUpdates(updates);
    },
  };
}

function stored(updates: (Uint8Array | undefined)[], userId = "ann"): StoredUpdate[] {
  return updates.map((update, i) => ({
    offset: i + 2,
    version: i + 2,
    userId,
    atMs: i * 1_000,
    update: update!,
  }));
}

// ---- the canonical form ----

const FORMS: [DocumentType, string][] = [
  ["text", "a text with 😀 and\nlines\u0000"],
  ["whiteboard", `{"objects":{}}`],
  [
    "canvas",
    `{"objects":{"a.b~":{"kind":"note","style.fill":"#fff","text":"hi\\n😀","width":1.5,"x":-2},"z":{"data":{"a":[1,null,"é"],"b":{}},"kind":"path"}}}`,
  ],
  ["sheet", `{}`],
  [
    "sheet",
    `{"cells":{"A1":{"style.bold":true,"value":1},"ZZZ1048576":{"value":"x"}},"columns":{"A":{"width":20}},"rows":{"1":{"height":0.5}}}`,
  ],
];

for (const [type, form] of FORMS) {
  Deno.test(`Content of a ${type} gives back the canonical form ${form.slice(0, 40)}`, () => {
    const content = create(type, form);
    assertEquals(canonical(content), form);
    assertEquals(content.setCanonical(utf8(form)), undefined);
    const again = Content.load(type, {
      snapshot: { offset: 1, version: 1, state: content.encodeState() },
      updates: [],
    }, createSeededRandom(2));
    assertEquals(canonical(again), form);
    again.setCanonical(utf8(""));
    assertEquals(canonical(again), canonical(create(type)));
  });
}

const BAD_FORMS: [DocumentType, string | Uint8Array, RegExp][] = [
  ["text", Uint8Array.of(0xff), /no UTF-8/],
  ["whiteboard", "{", /no JSON/],
  ["whiteboard", "[]", /content is no JSON object/],
  ["whiteboard", `{"cells":{}}`, /content\.cells is unknown/],
  ["whiteboard", `{"objects":{"a b":{"kind":"x"}}}`, /has "a b"/],
  ["whiteboard", `{"objects":{"a":{"x":1}}}`, /objects\.a\.kind is missing/],
  ["whiteboard", `{"objects":{"a":{"kind":"r","x":"1"}}}`, /objects\.a\.x cannot be "1"/],
  ["whiteboard", `{"objects":{"a":{"kind":"r","n":null}}}`, /objects\.a\.n cannot be null/],
  ["whiteboard", `{"objects":{"a":{"kind":"r","text":""}}}`, /objects\.a\.text is no text/],
  ["whiteboard", `{"objects":{"a":{"kind":"r","t":"\\ud800"}}}`, /half of a character/],
  ["whiteboard", `{"objects":{"a":{"kind":"r","t":{"__proto__":1}}}}`, /__proto__/],
  ["whiteboard", `{"objects":{"a":{"kind":"r","t":"${"x".repeat(262_144)}"}}}`, /the limit is 262144/],
  [
    "whiteboard",
    `{"objects":{"a":{"kind":"r","t":${"[".repeat(70)}${"]".repeat(70)}}}}`,
    /more than 64 levels/,
  ],
  ["sheet", `{"cells":{"a1":{"value":1}}}`, /has "a1"/],
  ["sheet", `{"cells":{"A1048577":{"value":1}}}`, /has "A1048577"/],
  ["sheet", `{"cells":{"A1":{"width":1}}}`, /A1\.width/],
  ["sheet", `{"columns":{"A":{"width":-1}}}`, /A\.width/],
];

for (const [type, form, message] of BAD_FORMS) {
  Deno.test(`Content.setCanonical() of a ${type} refuses ${String(form).slice(0, 50)} and changes nothing`, () => {
    const content = create(type);
    const before = content.encodeState();
    const bytes = typeof form === "string" ? utf8(form) : form;
    const error = assertThrows(() => content.setCanonical(bytes), StateSyncError);
    assertEquals(error.kind, "invalid");
    assert(message.test(error.message), error.message);
    assertEquals(content.encodeState(), before);
  });
}

Deno.test("Content.setCanonical() changes only what is another, so that an edit beside it stays", () => {
  const content = create("text", "the quick brown fox");
  const client = clientOf(content);
  const update = content.setCanonical(utf8("the slow brown fox"))!;
  const theirs = client.sent((doc) => doc.getText("content").insert(19, "!"));
  content.applyRemote(theirs);
  assertEquals(canonical(content), "the slow brown fox!");
  assert(update.length < 60, `${update.length} bytes`);
});

Deno.test("Content.canonical() leaves out what is no property of an object that is there", () => {
  const content = create("whiteboard");
  const client = clientOf(content);
  content.applyRemote(client.sent((doc) => {
    const map = doc.getMap<unknown>("objects");
    map.set("a/kind", "note");
    map.set("a/x", "no number");
    map.set("a/y", 1);
    map.set("a/none", null);
    map.set("a/text", "reserved");
    map.set("a/bytes", Uint8Array.of(1));
    map.set("a/nested", new Y.Map([["n", 1]]));
    map.set("a/deep", { n: [1n, undefined, Uint8Array.of(1)] });
    map.set("bare", 1);
    map.set("b/x", 1);
    map.set("c/kind", 7);
    doc.getText("text:a").insert(0, "hi");
    doc.getText("text:b").insert(0, "of nothing");
    doc.getMap("other").set("x", 1);
  }));
  assertEquals(
    canonical(content),
    `{"objects":{"a":{"deep":{"n":[null,null,null]},"kind":"note","text":"hi","y":1}}}`,
  );
  content.setCanonical(utf8(`{"objects":{"b":{"kind":"r"}}}`));
  assertEquals(canonical(content), `{"objects":{"b":{"kind":"r"}}}`);
});

// ---- foreign edits ----

Deno.test("Content.applyRemote() returns what is new, and nothing for what is known", () => {
  const content = create("text", "abc");
  const client = clientOf(content);
  const update = client.sent((doc) => doc.getText("content").insert(3, "d"));
  assertEquals(content.applyRemote(update), update);
  assertEquals(content.applyRemote(update), undefined);
  const more = client.sent((doc) => doc.getText("content").insert(4, "e"));
  const all = Y.encodeStateAsUpdate(client.doc);
  assertEquals(content.applyRemote(all), more);
  assertEquals(canonical(content), "abcde");
});

Deno.test("Content.applyRemote() takes another client id when somebody uses its own", () => {
  const content = create("text");
  const first = content.setCanonical(utf8("abc"))!;
  const own = checkUpdate(first, LIMITS).ranges[0]!.client;
  const client = clientOf(content, own);
  content.applyRemote(client.sent((doc) => doc.getText("content").insert(3, "d")));
  const second = content.setCanonical(utf8("abcde"))!;
  assert(checkUpdate(second, LIMITS).ranges[0]!.client !== own);
  assertEquals(canonical(content), "abcde");
});

Deno.test("Content.inspect() says that an update is missing something, whichever way it builds on it", () => {
  const content = create("text", "abc");
  const client = clientOf(content);
  const first = client.sent((doc) => doc.getText("content").insert(1, "x"));
  const gap = client.sent((doc) => doc.getText("content").insert(2, "y"));
  const removal = client.sent((doc) => doc.getText("content").delete(2, 1));
  const other = clientOf(content, 6);
  Y.applyUpdate(other.doc, first);
  const origin = other.sent((doc) => doc.getText("content").insert(2, "z"));
  const parent = other.sent((doc) => doc.getMap("m").set("n", new Y.Map()));
  const child = other.sent((doc) => (doc.getMap("m").get("n") as Y.Map<number>).set("k", 1));
  for (const update of [gap, removal, origin, child]) assert(content.inspect(update).isMissing);
  assert(!content.inspect(first).isMissing);
  const all = Y.mergeUpdates([gap, first, origin, removal, parent, child]);
  assert(!content.inspect(all).isMissing);
  content.applyRemote(all);
  assert(!content.inspect(gap).isMissing);
  assertEquals(canonical(content), "axzbc");
});

Deno.test("Content.inspect() says what an update touches, and touchOf() the same when it is applied", () => {
  const content = create("whiteboard", `{"objects":{"a":{"kind":"r","x":1},"b":{"kind":"r","text":"hi"}}}`);
  const client = clientOf(content);
  const update = client.sent((doc) => {
    const map = doc.getMap("objects");
    map.set("a/x", 2);
    map.set("a/x", 3);
    map.delete("b/kind");
    map.set("c/gone", 1);
    map.delete("c/gone");
    doc.getText("text:b").insert(1, "😀");
    doc.getText("text:b").delete(0, 1);
    doc.getMap("comments").set("k/author", "ann");
  });
  const { touch } = content.inspect(update);
  const properties = new Map<string, unknown>([
    ["objects/a/x", 3],
    ["objects/b/kind", undefined],
    ["objects/c/gone", undefined],
    ["comments/k/author", "ann"],
  ]);
  assertEquals(new Map([...touch.properties].sort()), new Map([...properties].sort()));
  const text = touch.texts.get("text:b")!;
  assertEquals(text.inserted.map(({ client, from, to }) => [client, to - from]), [[5, 2]]);
  assertEquals(text.removed.map(({ from, to }) => to - from), [1]);
  assertEquals(touch.hasOthers, false);
  assertEquals(scopeOf(touch), {
    objects: new Set(["a", "b", "c"]),
    hasContent: true,
    comments: new Set(["k"]),
  });
  const made = content.applyRemote(update)!;
  const after = content.touchOf(made);
  assertEquals(new Map([...after.properties].sort()), new Map([...properties].sort()));
  assertEquals(after.texts, touch.texts);
});

Deno.test("Content.inspect() tells comments from content, and whose they are", () => {
  const content = create("text", "abc");
  const client = clientOf(content);
  content.applyRemote(client.sent((doc) => doc.getMap("comments").set("k/author", "ann")));
  const touchOf = (edit: (doc: Y.Doc) => void) => content.inspect(clientOf(content, 9).sent(edit)).touch;
  const own = touchOf((doc) => doc.getMap("comments").set("k/body", "x"));
  assertEquals(scopeOf(own), { objects: new Set<string>(), hasContent: false, comments: new Set(["k"]) });
  assertEquals(content.foreignComments(own, "ann"), []);
  assertEquals(content.foreignComments(own, "bob"), ["k"]);
  const named = touchOf((doc) => doc.getMap("comments").set("n/author", "ann"));
  assertEquals(content.foreignComments(named, "bob"), ["n"]);
  const nameless = touchOf((doc) => doc.getMap("comments").set("n/body", "x"));
  assertEquals(content.foreignComments(nameless, "bob"), ["n"]);
  const stolen = touchOf((doc) => doc.getMap("comments").set("k/author", "bob"));
  assertEquals(content.foreignComments(stolen, "bob"), ["k"]);
  for (
    const edit of [
      (doc: Y.Doc) => doc.getText("content").insert(0, "x"),
      (doc: Y.Doc) => doc.getText("content").delete(0, 1),
      (doc: Y.Doc) => doc.getText("content").format(0, 1, { bold: true }),
      (doc: Y.Doc) => doc.getText("content").setAttribute("a", "b"),
      (doc: Y.Doc) => doc.getMap("other").set("x", 1),
      (doc: Y.Doc) => doc.getMap("comments").set("k/nested", new Y.Map([["x", 1]])),
      (doc: Y.Doc) => doc.getMap("objects").set("a/x", 1),
    ]
  ) {
    const touch = touchOf(edit);
    assert(scopeOf(touch).hasContent || touch.hasOthers, String(edit));
  }
});

Deno.test("Content.inspect() refuses types in one another without end, which Yjs could not remove", () => {
  const content = create("text");
  const client = clientOf(content);
  const update = client.sent((doc) => {
    let map = doc.getMap<unknown>("m");
    for (let i = 0; i < 70; i++) {
      const inner = new Y.Map<unknown>();
      map.set("n", inner);
      map = inner;
    }
  });
  const error = assertThrows(() => content.inspect(update), StateSyncError, "deeper than");
  assertEquals(error.kind, "hostile");
});

/** A document in which several clients edited, and further updates of theirs, damaged. */
const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.nat(2)), { minLength: 1, maxLength: 5 });
const script = fc.array(fc.nat(10_000), { minLength: 1, maxLength: 30 });

function edit(doc: Y.Doc, pick: number): void {
  const text = doc.getText("content"), map = doc.getMap<unknown>("objects");
  const at = text.length === 0 ? 0 : pick % text.length;
  switch (pick % 7) {
    case 0:
      return text.insert(at, "héé😀");
    case 1:
      return text.delete(at, Math.min(2, text.length - at));
    case 2:
      return text.format(at, Math.min(3, text.length - at), { bold: pick % 2 === 0 ? true : null });
    case 3:
      return void map.set(`o${pick % 3}/x`, pick);
    case 4:
      return map.delete(`o${pick % 3}/x`);
    case 5:
      return void map.set(`o${pick % 3}/n`, new Y.Map([["a", new Y.Text("b")]]));
    default:
      return void doc.getText("text:o1").insert(0, "t");
  }
}

Deno.test("Content refuses damaged updates or applies them whole: nothing waits, and nothing fails", () => {
  let applied = 0;
  fc.assert(
    fc.property(script, script, damage, (before, after, changes) => {
      const content = create("whiteboard");
      const client = clientOf(content);
      for (const pick of before) client.sent((doc) => edit(doc, pick));
      content.applyRemote(Y.encodeStateAsUpdate(client.doc));
      const vector = Y.encodeStateVector(client.doc);
      const other = clientOf(content, 9);
      for (const [i, pick] of after.entries()) (i % 3 === 0 ? other : client).sent((doc) => edit(doc, pick));
      Y.applyUpdate(client.doc, Y.encodeStateAsUpdate(other.doc));
      let update = Y.encodeStateAsUpdate(client.doc, vector);
      for (const [place, byte, how] of changes) {
        const at = place % (update.length + 1);
        if (how === 0) update = Uint8Array.of(...update.slice(0, at), byte, ...update.slice(at));
        else if (at < update.length) update[at] = how === 1 ? byte : (update[at]! + 1) & 0xff;
      }
      try {
        checkUpdate(update, LIMITS);
        if (content.inspect(update).isMissing) return;
      } catch (error) {
        assert(error instanceof StateSyncError && error.kind === "hostile", String(error));
        return;
      }
      content.applyRemote(update);
      applied++;
      // What waits is part of the state's encoding, and can be told by its clocks.
      const state = checkUpdate(content.encodeState(), LIMITS);
      const vectors = Y.decodeStateVector(content.stateVector());
      for (const { client, from, to } of state.ranges) assertEquals([from, to], [0, vectors.get(client)]);
      content.canonical();
      create("whiteboard").applyRemote(content.encodeState());
    }),
    { numRuns: 1_500 },
  );
  assert(applied > 50, `only ${applied} were applied`);
});

Deno.test("Content.inspect() of undamaged updates is never missing anything, and says the roots that change", () => {
  fc.assert(fc.property(script, script, (before, after) => {
    const content = create("whiteboard");
    const client = clientOf(content);
    for (const pick of before) client.sent((doc) => edit(doc, pick));
    content.applyRemote(Y.encodeStateAsUpdate(client.doc));
    const vector = Y.encodeStateVector(client.doc);
    for (const pick of after) client.sent((doc) => edit(doc, pick));
    const update = Y.encodeStateAsUpdate(client.doc, vector);
    checkUpdate(update, LIMITS);
    const { isMissing, touch } = content.inspect(update);
    assert(!isMissing);
    const old = new Map(["o0", "o1", "o2"].map((id) => [id, content.value(`objects/${id}/x`)]));
    content.applyRemote(update);
    for (const [id, value] of old) {
      const now = content.value(`objects/${id}/x`);
      if (now !== value) assertEquals(touch.properties.get(`objects/${id}/x`), now);
    }
  }));
});

Deno.test("Content loads a snapshot with the updates behind it, and goes on from there", () => {
  const first = create("text", "abc");
  const snapshot = { offset: 1, version: 1, state: first.encodeState() };
  const updates = stored([first.setCanonical(utf8("abcd")), first.setCanonical(utf8("xbcd"))]);
  const second = Content.load("text", { snapshot, updates }, createSeededRandom(3));
  assertEquals(canonical(second), "xbcd");
  assertEquals(second.stateVector(), first.stateVector());
  const made = second.setCanonical(utf8("xbcde"))!;
  first.applyRemote(made);
  assertEquals(canonical(first), "xbcde");
  const client = new Y.Doc();
  Y.applyUpdate(client, snapshot.state);
  Y.applyUpdate(client, first.diff(Y.encodeStateVector(client)));
  assertEquals(client.getText("content").toString(), "xbcde");
});
