import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { createSeededRandom } from "../../runtime/random.ts";
import type { DocumentType } from "../records.ts";
import type { ContentParts, StoredUpdate } from "../store.ts";
import { Content } from "./content.ts";
import { diffVersions, restoreContent, undoEdits, type Undone } from "./history.ts";
import * as Y from "./yjs.ts";

/** A document whose edits are kept, each with who made it and when. */
class Kept {
  readonly content: Content;
  readonly updates: StoredUpdate[] = [];
  readonly undone: Undone[] = [];
  snapshot: ContentParts["snapshot"];
  private atMs = 0;

  constructor(readonly type: DocumentType, base: string) {
    this.content = Content.create(type, createSeededRandom(1));
    this.content.setCanonical(new TextEncoder().encode(base));
    this.snapshot = { offset: 1, version: 1, state: this.content.encodeState() };
  }

  get canonical(): string {
    return new TextDecoder().decode(this.content.canonical());
  }

  get parts(): ContentParts {
    return { snapshot: this.snapshot, updates: this.updates };
  }

  keep(userId: string, update: Uint8Array | undefined, afterMs = 1_000): number {
    assert(update !== undefined, "nothing was changed");
    this.atMs += afterMs;
    const offset = this.updates.length + 2;
    this.updates.push({ offset, version: offset, userId, atMs: this.atMs, update });
    return offset;
  }

  /** One user sets the content, with no more than the difference. */
  set(userId: string, canonical: string, afterMs = 1_000): void {
    this.keep(userId, this.content.setCanonical(new TextEncoder().encode(canonical)), afterMs);
  }

  /** One user's client edits on its own. */
  edit(userId: string, change: (doc: Y.Doc) => void, afterMs = 1_000): void {
    const doc = new Y.Doc({ guid: "" });
    Y.applyUpdate(doc, this.content.encodeState());
    doc.clientID = 1_000 + this.updates.length;
    const vector = Y.encodeStateVector(doc);
    doc.transact(() => change(doc));
    this.keep(userId, this.content.applyRemote(Y.encodeStateAsUpdate(doc, vector)), afterMs);
  }

  undo(userId: string, count = 1): number {
    const random = createSeededRandom(this.updates.length + 50);
    const request = { parts: this.parts, userId, count, undone: this.undone };
    const { update, undone } = undoEdits(this.content, request, random);
    if (update !== undefined) this.undone.push({ offset: this.keep("boss", update), userId, count: undone });
    return undone;
  }

  difference(from = 0): ReturnType<typeof diffVersions> {
    const parts = { snapshot: this.snapshot, updates: this.updates.slice(0, from) };
    return diffVersions(this.type, parts, this.updates.slice(from));
  }
}

Deno.test("diffVersions() gives every piece of a text to who inserted or deleted it", () => {
  const kept = new Kept("text", "the quick fox");
  kept.set("ann", "the slow quick fox");
  kept.set("bob", "the slow fox!");
  kept.set("ann", "he slow fox!");
  assertEquals(kept.difference().text, [
    { kind: "deleted", text: "t", userId: "ann" },
    { kind: "same", text: "he ", userId: "" },
    { kind: "inserted", text: "slow ", userId: "ann" },
    { kind: "deleted", text: "quick ", userId: "bob" },
    { kind: "same", text: "fox", userId: "" },
    { kind: "inserted", text: "!", userId: "bob" },
  ]);
  assertEquals(kept.difference(3), {
    text: [{ kind: "same", text: "he slow fox!", userId: "" }],
    changes: [],
  });
});

Deno.test("diffVersions() gives every property to who wrote it last", () => {
  const kept = new Kept(
    "canvas",
    `{"objects":{"a":{"kind":"r","x":1},"b":{"kind":"r"},"c":{"kind":"r","text":"hi"}}}`,
  );
  kept.set("ann", `{"objects":{"a":{"kind":"r","x":2},"b":{"kind":"r"},"c":{"kind":"r","text":"hi"}}}`);
  kept.set("bob", `{"objects":{"a":{"kind":"r","x":3},"c":{"kind":"r","text":"hi!"},"d":{"kind":"r"}}}`);
  kept.edit("cy", (doc) => doc.getMap("comments").set("k/body", "x"));
  assertEquals(kept.difference(), {
    text: [],
    changes: [
      { target: "a/x", before: 1, after: 3, userId: "bob" },
      { target: "b/kind", before: "r", after: undefined, userId: "bob" },
      { target: "c/text", before: "hi", after: "hi!", userId: "bob" },
      { target: "comments/k/body", before: undefined, after: "x", userId: "cy" },
      { target: "d/kind", before: undefined, after: "r", userId: "bob" },
    ],
  });
});

Deno.test("diffVersions() leads from the old text to the new one, whoever edited it", () => {
  const edits = fc.array(fc.tuple(fc.constantFrom("ann", "bob", "cy"), fc.nat(1_000)), { maxLength: 12 });
  fc.assert(fc.property(edits, fc.nat(12), (script, from) => {
    const kept = new Kept("text", "some text to begin with");
    const texts = [kept.canonical];
    for (const [user, pick] of script) {
      kept.edit(user, (doc) => {
        const text = doc.getText("content");
        const at = pick % (text.length + 1);
        if (pick % 3 > 0) text.insert(at, `<${pick % 10}>`);
        else if (at < text.length) text.delete(at, Math.min(4, text.length - at));
        else text.insert(0, "x");
      });
      texts.push(kept.canonical);
    }
    const start = Math.min(from, kept.updates.length);
    const { text } = kept.difference(start);
    const join = (without: string) =>
      text.filter(({ kind }) => kind !== without).map((piece) => piece.text).join("");
    assertEquals([join("inserted"), join("deleted")], [texts[start], kept.canonical]);
    for (const { kind, userId } of text) assertEquals(userId === "", kind === "same");
  }));
});

Deno.test("undoEdits() takes back one user's edits and leaves those of others", () => {
  const kept = new Kept("text", "one two");
  kept.set("ann", "one big two");
  kept.set("bob", "one big two three");
  kept.set("ann", "one big two, three");
  assertEquals(kept.undo("ann"), 1);
  assertEquals(kept.canonical, "one big two three");
  assertEquals(kept.undo("ann"), 1);
  assertEquals(kept.canonical, "one two three");
  assertEquals(kept.undo("ann"), 0);
  assertEquals(kept.undo("bob"), 1);
  assertEquals(kept.canonical, "one two");
});

Deno.test("undoEdits() brings back what the user deleted, beside what others wrote there", () => {
  const kept = new Kept("text", "one two three");
  kept.set("ann", "one three");
  kept.set("bob", "one and three");
  assertEquals(kept.undo("ann", 5), 1);
  const { canonical } = kept;
  assert(canonical === "one two and three" || canonical === "one and two three", canonical);
});

Deno.test("undoEdits() takes edits that follow one another within 500 ms as one, whatever others do between", () => {
  const kept = new Kept("text", "");
  kept.set("ann", "a");
  kept.set("ann", "ab", 500);
  kept.set("bob", "abX", 100);
  kept.set("ann", "abcX", 100);
  kept.set("ann", "abcdX", 501);
  kept.undo("ann");
  assertEquals(kept.canonical, "abcX");
  kept.undo("ann");
  assertEquals(kept.canonical, "X");
});

Deno.test("undoEdits() takes several back at once, and those made after an undo first", () => {
  const kept = new Kept("text", "");
  for (const text of ["a", "ab", "abc"]) kept.set("ann", text);
  kept.undo("ann");
  kept.set("ann", "abX");
  assertEquals(kept.undo("ann", 2), 2);
  assertEquals(kept.canonical, "a");
});

Deno.test("undoEdits() gives properties their old values, but not over what another wrote since", () => {
  const kept = new Kept("canvas", `{"objects":{"a":{"kind":"r","x":1,"y":1}}}`);
  kept.set("ann", `{"objects":{"a":{"kind":"r","x":2,"y":2}}}`);
  kept.set("bob", `{"objects":{"a":{"kind":"r","x":2,"y":3}}}`);
  kept.undo("ann");
  assertEquals(kept.canonical, `{"objects":{"a":{"kind":"r","x":1,"y":3}}}`);
});

Deno.test("undoEdits() brings back a removed object with its text, and goes on through earlier edits of it", () => {
  const kept = new Kept("canvas", `{"objects":{"a":{"kind":"r","text":"hi","x":1}}}`);
  kept.set("ann", `{"objects":{"a":{"kind":"r","text":"hi","x":2}}}`);
  kept.set("ann", `{"objects":{}}`);
  kept.undo("ann");
  assertEquals(kept.canonical, `{"objects":{"a":{"kind":"r","text":"hi","x":2}}}`);
  kept.undo("ann");
  assertEquals(kept.canonical, `{"objects":{"a":{"kind":"r","text":"hi","x":1}}}`);
});

Deno.test("undoEdits() of all edits one after the other leads back through every text there was", () => {
  const kept = new Kept("text", "start");
  const texts = ["start now", "start", "restart", "restarted: it works", "it works", "works", ""];
  for (const text of texts) kept.set("ann", text);
  for (const text of ["start", ...texts].slice(0, -1).toReversed()) {
    assertEquals(kept.undo("ann"), 1);
    assertEquals(kept.canonical, text);
  }
  assertEquals(kept.undo("ann"), 0);
});

Deno.test("undoEdits() of one user's edits, whatever others did, leaves what others wrote", () => {
  const edits = fc.array(fc.tuple(fc.boolean(), fc.nat(1_000)), { minLength: 1, maxLength: 12 });
  fc.assert(fc.property(edits, fc.integer({ min: 1, max: 12 }), (script, atOnce) => {
    const kept = new Kept("text", "0123456789");
    let theirs = "";
    for (const [isAnn, pick] of script) {
      kept.edit(isAnn ? "ann" : "bob", (doc) => {
        const text = doc.getText("content");
        const at = pick % (text.length + 1);
        if (!isAnn) text.insert(at, "b");
        else if (pick % 3 > 0 || at === text.length) text.insert(at, "aa");
        else text.delete(at, Math.min(2, text.length - at));
      });
      if (!isAnn) theirs += "b";
    }
    const deleted = script.some(([isAnn, pick]) => isAnn && pick % 3 === 0);
    let undone = 0;
    for (let count = kept.undo("ann", atOnce); count > 0; count = kept.undo("ann", atOnce)) undone += count;
    assertEquals(undone, script.filter(([isAnn]) => isAnn).length);
    const { canonical } = kept;
    assert(!canonical.includes("a"), canonical);
    assertEquals(canonical.replaceAll("b", ""), "0123456789");
    if (!deleted) assertEquals(canonical.replaceAll(/[0-9]/g, ""), theirs);
    assertEquals(
      Content.load("text", kept.parts, createSeededRandom(9)).canonical(),
      kept.content.canonical(),
    );
  }));
});

Deno.test("undoEdits() makes an update that others can apply", () => {
  const kept = new Kept("text", "one two three");
  kept.set("ann", "one three");
  kept.edit("bob", (doc) => doc.getText("content").format(0, 3, { bold: true }));
  kept.undo("ann");
  const again = Content.load("text", kept.parts, createSeededRandom(9));
  assertEquals(again.canonical(), kept.content.canonical());
  assertEquals(kept.canonical, "one two three");
});

Deno.test("restoreContent() makes the content what it was, with the style of its text", () => {
  const kept = new Kept("text", "");
  kept.edit("ann", (doc) => {
    doc.getText("content").insert(0, "plain bold");
    doc.getText("content").format(6, 4, { bold: true });
  });
  const old = { snapshot: kept.snapshot, updates: [...kept.updates] };
  const runs = kept.content.runs("content");
  kept.edit("bob", (doc) => {
    doc.getText("content").format(0, 8, { bold: null, italic: true });
    doc.getText("content").delete(5, 3);
  });
  kept.keep("ann", restoreContent(kept.content, old));
  assertEquals(kept.content.runs("content"), runs);
  assertEquals(Content.load("text", kept.parts, createSeededRandom(9)).runs("content"), runs);
  assertEquals(restoreContent(kept.content, old), undefined);
});

Deno.test("restoreContent() of objects leaves comments, and gives texts of objects back", () => {
  const kept = new Kept("canvas", `{"objects":{"a":{"kind":"r","text":"hi","x":1}}}`);
  const old = { snapshot: kept.snapshot, updates: [] };
  const before = kept.canonical;
  kept.set("bob", `{"objects":{"b":{"kind":"r"}}}`);
  kept.edit("bob", (doc) => doc.getMap("comments").set("k/author", "bob"));
  kept.keep("ann", restoreContent(kept.content, old));
  assertEquals(kept.canonical, before);
  assertEquals(kept.content.commentAuthor("k"), "bob");
});
