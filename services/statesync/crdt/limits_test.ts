import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import * as encoding from "lib0/encoding";
import { StateSyncError } from "../errors.ts";
import { checkStateVector, checkUpdate, MAX_CLOCK, MAX_VALUE_DEPTH } from "./limits.ts";
import * as Y from "./yjs.ts";

const LIMITS = { maxBytes: 4_000_000, maxStructs: 200_000 };

/** Writes numbers as bytes, and texts and bytes as they stand on the wire. */
function bytes(...parts: (number | string | Uint8Array)[]): Uint8Array {
  const out = encoding.createEncoder();
  for (const part of parts) {
    if (typeof part === "number") encoding.writeVarUint(out, part);
    else if (typeof part === "string") encoding.writeVarString(out, part);
    else encoding.writeUint8Array(out, part);
  }
  return encoding.toUint8Array(out);
}

/** One struct of client 7, from clock 0, in the text `t`. */
function item(kind: number, ...content: (number | string | Uint8Array)[]): Uint8Array {
  return bytes(1, 1, 7, 0, Uint8Array.of(kind), 1, "t", ...content, 0);
}

function nested(depth: number): unknown {
  return depth === 0 ? 1 : [nested(depth - 1)];
}

function any(value: unknown): Uint8Array {
  const out = encoding.createEncoder();
  encoding.writeAny(out, value as never);
  return encoding.toUint8Array(out);
}

const HOSTILE: [string, Uint8Array, RegExp][] = [
  ["nothing at all", bytes(), /ends within a number/],
  ["billions of clients", bytes(3_000_000_000), /3000000000 clients in 0 bytes/],
  ["billions of structs", bytes(1, 4_000_000_000, 7, 0, 0, 1), /4000000000 structs in/],
  ["billions of removals", bytes(0, 1, 7, 4_000_000_000, 1, 1), /4000000000 removals in/],
  ["billions of values", item(8, 4_000_000_000), /4000000000 values in/],
  ["billions of members", item(8, 1, Uint8Array.of(117), 4_000_000_000), /4000000000 members in/],
  ["a text longer than the update", item(4, 1_000_000), /ends too early/],
  ["clocks beyond all that can be", bytes(1, 1, 7, 0, 0, MAX_CLOCK + 1, 0), /clocks beyond/],
  ["clocks that add up", bytes(1, 2, 7, MAX_CLOCK - 1, 0, 1, 0, 1, 0), /clocks beyond/],
  ["a removal beyond all clocks", bytes(0, 1, 7, 1, 5, MAX_CLOCK), /clocks beyond/],
  ["a number without end", new Uint8Array(20).fill(0x80), /more than 53 bits/],
  ["a struct without length", bytes(1, 1, 7, 0, 0, 0, 0), /without length/],
  ["an empty text", item(4, ""), /without length/],
  ["a removal without length", bytes(0, 1, 7, 1, 0, 0), /without length/],
  ["removals that overlap", bytes(0, 1, 7, 2, 0, 5, 4, 5), /not in order/],
  ["a client twice", bytes(2, 1, 7, 0, 0, 1, 1, 7, 1, 0, 1, 0), /client 7 twice/],
  ["a client's removals twice", bytes(0, 2, 7, 1, 0, 1, 7, 1, 2, 1), /client 7 twice/],
  ["bytes behind its end", bytes(0, 0, 0), /bytes behind/],
  ["an unknown content", item(11, 1), /content of kind 11/],
  ["a document within a document", item(9, "guid", any({})), /content of kind 9/],
  ["an unknown shared type", item(7, 9), /unknown shared type 9/],
  ["an unknown value", item(8, 1, Uint8Array.of(3)), /unknown value 3/],
  ["no UTF-8", item(4, 2, Uint8Array.of(0xc3, 0x28)), /no UTF-8/],
  ["half of a character", item(4, 3, Uint8Array.of(0xed, 0xa0, 0x80)), /no UTF-8/],
  ["no JSON", item(5, "{"), /no JSON/],
  ["deep JSON", item(5, "[".repeat(100_000)), /deeper than/],
  ["a deep value", item(8, 1, any(nested(MAX_VALUE_DEPTH + 1))), /deeper than/],
  ["a skip with flags", bytes(1, 1, 7, 0, Uint8Array.of(10 | 0x80), 1, 0), /unknown struct/],
];

for (const [name, update, message] of HOSTILE) {
  Deno.test(`checkUpdate() refuses ${name}`, () => {
    const error = assertThrows(() => checkUpdate(update, LIMITS), StateSyncError);
    assertEquals(error.kind, "hostile");
    assert(message.test(error.message), error.message);
  });
}

Deno.test("checkUpdate() refuses billions of structs in well under 10 ms", () => {
  const update = bytes(1, 4_000_000_000, 7, 0, 0, 1);
  assertThrows(() => checkUpdate(update, LIMITS), StateSyncError);
  const start = performance.now();
  for (let i = 0; i < 100; i++) assertThrows(() => checkUpdate(update, LIMITS), StateSyncError);
  assert((performance.now() - start) / 100 < 5);
});

Deno.test("checkUpdate() counts structs and removals against one limit, and bytes against another", () => {
  const update = bytes(1, 3, 7, 0, 0, 1, 0, 1, 0, 1, 1, 7, 2, 0, 1, 2, 1);
  assertEquals(checkUpdate(update, { maxBytes: 100, maxStructs: 7 }).structs, 3);
  assertThrows(() => checkUpdate(update, { maxBytes: 100, maxStructs: 6 }), StateSyncError, "more than 6");
  assertThrows(() => checkUpdate(update, { maxBytes: 5, maxStructs: 7 }), StateSyncError, "the limit is 5");
});

Deno.test("checkUpdate() takes values of the deepest level that is allowed", () => {
  checkUpdate(item(8, 1, any(nested(MAX_VALUE_DEPTH))), LIMITS);
});

Deno.test("checkStateVector() takes what Yjs makes and refuses what is none", () => {
  const doc = new Y.Doc();
  checkStateVector(Y.encodeStateVector(doc), 10);
  doc.getText("t").insert(0, "a");
  checkStateVector(Y.encodeStateVector(doc), 10);
  assertThrows(() => checkStateVector(bytes(1_000_000_000), 2_000), StateSyncError);
  assertThrows(() => checkStateVector(bytes(0, 1), 2_000), StateSyncError, "behind");
  assertThrows(() => checkStateVector(bytes(3, 1, 1, 2, 1, 3, 1), 2), StateSyncError, "more than 2");
});

/** Makes a document with all kinds of content by a random script. */
function madeBy(script: readonly number[]): Y.Doc[] {
  const docs = [1, 2, 3].map((id) => Object.assign(new Y.Doc({ guid: "" }), { clientID: id * 1_000 }));
  script.forEach((pick, i) => {
    const doc = docs[pick % 3]!;
    const text = doc.getText("t"), map = doc.getMap<unknown>("m"), list = doc.getArray<unknown>("l");
    const at = text.length === 0 ? 0 : pick % text.length;
    switch (Math.floor(pick / 3) % 10) {
      case 0:
        return text.insert(at, "né😀\n".repeat(1 + pick % 3));
      case 1:
        return text.delete(at, Math.min(3, text.length - at));
      case 2:
        return text.format(at, Math.min(2, text.length - at), { bold: pick % 2 === 0 ? true : null });
      case 3:
        return map.set(`k${pick % 5}`, [
          i,
          { a: null, b: "x", c: [1.5, -3, true, 2 ** 40] },
          undefined,
          12345678901234n,
        ]);
      case 4:
        return map.delete(`k${pick % 5}`);
      case 5:
        return text.insertEmbed(at, { image: "x".repeat(pick % 200) });
      case 6:
        return map.set("b", Uint8Array.of(1, 2, pick % 256));
      case 7:
        return list.insert(0, [
          i,
          new Y.Map([["n", new Y.Text("deep")]]),
          new Y.XmlElement("p"),
        ]);
      case 8:
        return list.length > 0 ? list.delete(0, 1) : undefined;
      default:
        return Y.applyUpdate(doc, Y.encodeStateAsUpdate(docs[(pick + 1) % 3]!, Y.encodeStateVector(doc)));
    }
  });
  return docs;
}

Deno.test("checkUpdate() takes every update that Yjs makes, and says what it has", () => {
  fc.assert(fc.property(fc.array(fc.nat(10_000), { maxLength: 60 }), (script) => {
    const docs = madeBy(script);
    const [first, second, third] = docs as [Y.Doc, Y.Doc, Y.Doc];
    const updates = [
      ...docs.map((doc) => Y.encodeStateAsUpdate(doc)),
      Y.encodeStateAsUpdate(first, Y.encodeStateVector(second)),
      Y.mergeUpdates([
        Y.encodeStateAsUpdate(second),
        Y.encodeStateAsUpdate(third, Y.encodeStateVector(first)),
      ]),
    ];
    for (const update of updates) {
      const summary = checkUpdate(update, LIMITS);
      const { structs, ds } = Y.decodeUpdate(update);
      const { from, to } = Y.parseUpdateMeta(update);
      assertEquals(summary.structs, structs.length);
      assertEquals(
        summary.removals,
        [...ds.clients.values()].reduce((sum, ranges) => sum + ranges.length, 0),
      );
      assertEquals(
        summary.ranges,
        [...from].map(([client, clock]) => ({ client, from: clock, to: to.get(client)! })),
      );
    }
  }));
});

Deno.test("checkUpdate() refuses damaged updates or takes what Yjs can read, and never hangs", () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.nat(3)), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(fc.array(fc.nat(10_000), { maxLength: 40 }), damage, (script, changes) => {
      let update = Y.encodeStateAsUpdate(madeBy(script)[0]!);
      for (const [place, byte, how] of changes) {
        const at = place % (update.length + 1);
        if (how === 0) update = update.slice(0, at);
        else if (how === 1) update = Uint8Array.of(...update.slice(0, at), byte, ...update.slice(at));
        else if (at < update.length) update[at] = byte;
      }
      try {
        checkUpdate(update, LIMITS);
      } catch (error) {
        assert(error instanceof StateSyncError && error.kind === "hostile", String(error));
        return;
      }
      Y.decodeUpdate(update);
    }),
    { numRuns: 2_000 },
  );
});
