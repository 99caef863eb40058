import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { createSeededRandom } from "../../runtime/random.ts";
import { StateSyncError } from "../errors.ts";
import { Content } from "./content.ts";
import {
  meetText,
  oldLength,
  type Segment,
  type TextDelta,
  transformDelta,
  transformIndex,
} from "./delta.ts";
import { composeEdits, type TextEdit } from "./text_edits.ts";
import type { TextTouch } from "./touch.ts";
import * as Y from "./yjs.ts";

function edit(fields: Partial<TextEdit>): TextEdit {
  return {
    index: 0,
    remove: 0,
    insert: "",
    attributes: undefined,
    length: 0,
    to: undefined,
    isWhole: false,
    ...fields,
  };
}

function plain(delta: TextDelta): unknown[] {
  return delta.map((step) =>
    Object.fromEntries(Object.entries(step).filter(([, value]) => value !== undefined))
  );
}

const COMPOSED: [string, number, Partial<TextEdit>[], unknown[]][] = [
  ["an insertion", 5, [{ index: 2, insert: "ab" }], [{ keep: 2 }, { insert: "ab" }]],
  ["an insertion at the end", 2, [{ index: 2, insert: "ab" }], [{ keep: 2 }, { insert: "ab" }]],
  ["a removal", 5, [{ index: 1, remove: 2 }], [{ keep: 1 }, { remove: 2 }]],
  ["a replacement", 5, [{ index: 1, remove: 2, insert: "x" }], [{ keep: 1 }, { insert: "x" }, { remove: 2 }]],
  ["an insertion that is taken back", 5, [{ index: 1, insert: "abc" }, { index: 1, remove: 3 }], []],
  [
    "a removal within what was inserted",
    2,
    [{ index: 1, insert: "abc" }, { index: 2, remove: 2 }],
    [
      { keep: 1 },
      { insert: "a" },
    ],
  ],
  [
    "a style over old and new",
    3,
    [{ index: 1, insert: "x" }, { index: 0, length: 2, attributes: { b: 1 } }],
    [
      { keep: 1, attributes: { b: 1 } },
      { insert: "x", attributes: { b: 1 } },
    ],
  ],
  ["a move forth", 6, [{ index: 0, length: 2, to: 4 }], [{ remove: 2 }, { keep: 2 }, { copy: 0, length: 2 }]],
  ["a move back", 6, [{ index: 4, length: 2, to: 1 }], [
    { keep: 1 },
    { copy: 4, length: 2 },
    { keep: 3 },
    { remove: 2 },
  ]],
  ["a move within itself", 6, [{ index: 1, length: 3, to: 2 }], []],
];

for (const [name, length, edits, delta] of COMPOSED) {
  Deno.test(`composeEdits() makes a change of ${name}`, () => {
    assertEquals(plain(composeEdits(length, edits.map(edit))), delta);
  });
}

Deno.test("composeEdits() refuses what is not within the text as it is by then", () => {
  const cases: [Partial<TextEdit>[], string][] = [
    [[{ index: 4, insert: "x" }], "edits[0] reaches 4, the text has 3"],
    [[{ index: 2, remove: 2 }], "edits[0] reaches 4"],
    [[{ index: 0, remove: 3 }, { index: 1, insert: "x" }], "edits[1] reaches 1, the text has 0"],
    [[{ index: 0, length: 1, to: 4 }], "edits[0].to reaches 4"],
  ];
  for (const [edits, message] of cases) {
    assertThrows(() => composeEdits(3, edits.map(edit)), StateSyncError, message);
  }
});

Deno.test("composeEdits() of 1,000 edits ends soon", () => {
  const edits = Array.from(
    { length: 1_000 },
    (_, i) => edit({ index: (i * 7) % 900, remove: 1, insert: "ab" }),
  );
  const start = performance.now();
  composeEdits(1_000, edits);
  if (performance.now() - start > 1_000) throw new Error(`took ${performance.now() - start} ms`);
});

/** Segments of a drawing: `.` is kept, `-` removed and `+` inserted, each with the digit of its edit behind it. */
function drawn(drawing: string): Segment[] {
  const segments: Segment[] = [];
  for (const [part] of drawing.matchAll(/\.+|(?:[-+]\d)+/g)) {
    if (part[0] === ".") {
      segments.push({ kind: "kept", length: part.length, styled: [] });
      continue;
    }
    for (const [one] of part.matchAll(/[-+]\d/g)) {
      const kind = one[0] === "-" ? "removed" : "inserted";
      const by = Number(one[1]);
      const last = segments.at(-1);
      if (last?.kind === kind && last.by === by) {
        segments[segments.length - 1] = { ...last, length: last.length + 1 };
      } else segments.push({ kind, length: 1, by });
    }
  }
  return segments;
}

const MOVED: [string, string, TextDelta, unknown[]][] = [
  ["an insertion behind theirs at the same place", "..+0+0..", [{ keep: 2 }, { insert: "x" }], [
    { keep: 2 },
    { keep: 2 },
    { insert: "x" },
  ]],
  ["an insertion within what they removed", ".-0-0-0.", [{ keep: 2 }, { insert: "x" }], [{ keep: 1 }, {
    insert: "x",
  }]],
  ["a removal around their insertion", "..+0..", [{ keep: 1 }, { remove: 2 }], [
    { keep: 1 },
    { remove: 1 },
    { keep: 1 },
    { remove: 1 },
  ]],
  ["a removal of what they removed in part", "..-0-0.", [{ keep: 1 }, { remove: 2 }], [{ keep: 1 }, {
    remove: 1,
  }]],
  ["a copy of what they removed in part", "..-0.", [{ remove: 3 }, { keep: 1 }, { copy: 0, length: 3 }], [
    { remove: 2 },
    { keep: 1 },
    { copy: 0, length: 2 },
  ]],
  ["a copy of what they inserted into", ".+0..", [{ remove: 2 }, { keep: 1 }, { copy: 0, length: 2 }], [
    { remove: 1 },
    { keep: 1 },
    { remove: 1 },
    { keep: 1 },
    { copy: 0, length: 1 },
    { copy: 2, length: 1 },
  ]],
];

for (const [name, drawing, delta, moved] of MOVED) {
  Deno.test(`transformDelta() moves ${name}`, () => {
    assertEquals(plain(transformDelta(delta, drawn(drawing))), moved);
  });
}

const MET: [string, string, TextDelta, [number, number, number[]][]][] = [
  ["two insertions at one place", "..+0..", [{ keep: 2 }, { insert: "x" }], []],
  ["an insertion strictly within a removal", ".-0-0.", [{ keep: 2 }, { insert: "x" }], [[2, 0, [0]]]],
  ["an insertion at the edge of a removal", ".-0-0.", [{ keep: 1 }, { insert: "x" }], []],
  ["a removal with an insertion strictly within", "..+3..", [{ keep: 1 }, { remove: 2 }], [[1, 2, [3]]]],
  ["a removal with an insertion at its edge", ".+3..", [{ keep: 1 }, { remove: 2 }], []],
  ["removals that overlap", ".-0-0.", [{ remove: 2 }], [[0, 2, [0]]]],
  ["the same removal", ".-0-0.", [{ keep: 1 }, { remove: 2 }], []],
  ["removals side by side", "-0-0..", [{ keep: 2 }, { remove: 2 }], []],
  ["a removal over those of two", ".-2.-1.", [{ remove: 5 }], [[0, 5, [1, 2]]]],
  ["a style of what was removed", ".-0.", [{ keep: 2, attributes: { b: true } }], [[0, 2, [0]]]],
];

for (const [name, drawing, delta, met] of MET) {
  Deno.test(`meetText() finds ${met.length === 0 ? "nothing" : "a meeting"} in ${name}`, () => {
    const found = meetText(delta, drawn(drawing)).map(({ index, length, edits }) => [index, length, edits]);
    assertEquals(found, met);
  });
}

Deno.test("meetText() meets styles of the same attribute with another value, and no others", () => {
  const segments: Segment[] = [{ kind: "kept", length: 4, styled: [{ key: "bold", value: true, by: 2 }] }];
  const met = (attributes: Record<string, unknown>) => meetText([{ keep: 2, attributes }], segments).length;
  assertEquals([met({ bold: null }), met({ bold: true }), met({ italic: true })], [1, 0, 0]);
});

// ---- beside Yjs ----

const CLIENTS = 3;

/** Lets clients edit a text at once; returns the content, the touches of their edits, and the text in view before. */
function edited(
  picks: readonly number[],
): { content: Content; touches: TextTouch[]; before: Y.Doc; after: Y.Doc } {
  const content = Content.create("text", createSeededRandom(7));
  content.setCanonical(new TextEncoder().encode("0123456789abcdefghij"));
  const before = new Y.Doc({ guid: "", gc: false });
  Y.applyUpdate(before, content.encodeState());
  before.getText("content").format(3, 4, { bold: true });
  content.applyRemote(Y.encodeStateAsUpdate(before));
  const clients = Array.from({ length: CLIENTS }, (_, i) => {
    const doc = new Y.Doc({ guid: "" });
    Y.applyUpdate(doc, content.encodeState());
    doc.clientID = 100 + i;
    return doc;
  });
  const updates: Uint8Array[] = [];
  for (const pick of picks) {
    const doc = clients[pick % CLIENTS]!;
    const text = doc.getText("content");
    const vector = Y.encodeStateVector(doc);
    const at = Math.floor(pick / 10) % (text.length + 1);
    const length = Math.min(1 + pick % 4, text.length - at);
    if (pick % 11 < 4) text.insert(at, "XYZ".slice(pick % 3));
    else if (pick % 11 < 8) text.delete(at, length);
    else if (pick % 11 < 10) text.format(at, length, { bold: pick % 2 === 0 ? true : null });
    else Y.applyUpdate(doc, content.encodeState());
    updates.push(Y.encodeStateAsUpdate(doc, vector));
    const made = content.applyRemote(updates.at(-1)!);
    if (made !== undefined) updates[updates.length - 1] = made;
    else updates.pop();
  }
  const touches = updates.map((update) =>
    content.touchOf(update).texts.get("content") ?? { inserted: [], removed: [] }
  );
  const after = new Y.Doc({ guid: "", gc: false });
  Y.applyUpdate(after, Y.encodeStateAsUpdate(before));
  for (const update of updates) Y.applyUpdate(after, update);
  return { content, touches, before, after };
}

const picks = fc.array(fc.nat(100_000), { maxLength: 25 });

Deno.test("transformIndex() says of every place what relative positions of Yjs say", () => {
  fc.assert(
    fc.property(picks, (script) => {
      const { content, touches, before, after } = edited(script);
      const segments = content.segments("content", touches);
      const text = before.getText("content");
      assertEquals(oldLength(segments), text.length);
      for (let index = 0; index <= text.length; index++) {
        const relative = Y.createRelativePositionFromTypeIndex(text, index);
        const absolute = Y.createAbsolutePositionFromRelativePosition(relative, after);
        assertEquals(transformIndex(index, segments), absolute!.index, `index ${index}`);
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("transformDelta() removes exactly what Yjs removes when it merges the removal", () => {
  fc.assert(
    fc.property(picks, fc.nat(19), fc.nat(19), (script, index, wanted) => {
      const { content, touches, before, after } = edited(script);
      const text = before.getText("content");
      const length = Math.min(wanted, text.length - index);
      const vector = Y.encodeStateVector(before);
      const removal = composeEdits(text.length, length === 0 ? [] : [edit({ index, remove: length })]);
      const delta = transformDelta(removal, content.segments("content", touches));
      content.apply({ properties: new Map(), texts: new Map([["content", delta]]), emptied: [] });
      text.delete(index, length);
      Y.applyUpdate(after, Y.encodeStateAsUpdate(before, vector));
      assertEquals(content.text("content"), after.getText("content").toString());
    }),
    { numRuns: 500 },
  );
});

Deno.test("Content.segments() says which attributes are others since", () => {
  fc.assert(
    fc.property(picks, (script) => {
      const { content, touches, before, after } = edited(script);
      const styles = (doc: Y.Doc) =>
        (doc.getText("content").toDelta() as { insert: string; attributes?: { bold?: boolean } }[]).flatMap((
          run,
        ) => [...run.insert].map(() => run.attributes?.bold ?? null));
      const old = styles(before), now = styles(after);
      let was = 0, is = 0;
      for (const segment of content.segments("content", touches)) {
        for (let i = 0; i < segment.length; i++) {
          if (segment.kind === "kept") {
            const change = segment.styled.find(({ key }) => key === "bold");
            assertEquals(change === undefined ? old[was] : change.value, now[is]);
            assertEquals(change !== undefined, old[was] !== now[is]);
          }
          if (segment.kind !== "inserted") was++;
          if (segment.kind !== "removed") is++;
        }
      }
      assertEquals([was, is], [old.length, now.length]);
    }),
    { numRuns: 500 },
  );
});
