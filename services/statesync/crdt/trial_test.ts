import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import * as encoding from "lib0/encoding";
import { createSeededRandom } from "../../runtime/random.ts";
import { StateSyncError } from "../errors.ts";
import { Content } from "./content.ts";
import { inspectUpdate } from "./inspect.ts";
import { checkUpdate } from "./limits.ts";
import { Places } from "./trial.ts";
import * as Y from "./yjs.ts";

const LIMITS = { maxBytes: 4_000_000, maxStructs: 200_000 };

/** An update of one client whose structs all say that they were put at the start, before others of them: Yjs compares each with
 *  all that stand between. */
function quadratic(structs: number): Uint8Array {
  const out = encoding.createEncoder();
  for (const number of [1, structs, 7, 0]) encoding.writeVarUint(out, number);
  for (let i = 0; i < structs; i++) {
    encoding.writeUint8(out, i === 0 ? 4 : 4 | 0x40);
    if (i === 0) {
      encoding.writeVarUint(out, 1);
      encoding.writeVarString(out, "content");
    } else {
      encoding.writeVarUint(out, 7);
      encoding.writeVarUint(out, i >> 1);
    }
    encoding.writeVarString(out, "a");
  }
  encoding.writeVarUint(out, 0);
  return encoding.toUint8Array(out);
}

Deno.test("Content.inspect() refuses an update whose structs would take the square of their number", () => {
  const content = Content.create("text", createSeededRandom(1));
  const update = quadratic(50_000);
  checkUpdate(update, LIMITS);
  const start = performance.now();
  const error = assertThrows(() => content.inspect(update), StateSyncError, "comparisons");
  assertEquals(error.kind, "hostile");
  // Without the bound it takes a minute and more.
  assert(performance.now() - start < 20_000);
  assertEquals(content.encodeState().length, 2);
  content.applyRemote(quadratic(20));
});

Deno.test("Content.inspect() takes a large document at once, with places where many wrote together", () => {
  const docs = Array.from(
    { length: 20 },
    (_, i) => Object.assign(new Y.Doc({ guid: "" }), { clientID: i + 1 }),
  );
  docs.forEach((doc, client) => {
    const text = doc.getText("content"), map = doc.getMap("comments");
    for (let i = 0; i < 400; i++) {
      text.insert((i * 7_919) % (text.length + 1), `word ${client} `);
      map.set(`k${i % 50}/body`, i);
    }
  });
  const update = Y.mergeUpdates(docs.map((doc) => Y.encodeStateAsUpdate(doc)));
  const summary = checkUpdate(update, LIMITS);
  assert(summary.structs > 8_000, `${summary.structs}`);
  const content = Content.create("text", createSeededRandom(1));
  assertEquals(content.inspect(update).isMissing, false);
  content.applyRemote(update);
  assertEquals(
    content.textLength("content"),
    docs.reduce((sum, doc) => sum + doc.getText("content").length, 0),
  );
});

/** How many structs Yjs compares a new one with when it integrates it (the loop of Item.integrate, counted). */
function comparisons(item: Y.Item, store: Y.Doc["store"]): number {
  const parent = item.parent as Y.AbstractType<unknown> | null;
  if (!parent) return 0;
  const { left, right } = item;
  const isBetween = left === null ? right !== null && right.left === null : left.right === right;
  if (isBetween) return 0;
  let other = left !== null ? left.right : parent._start;
  if (left === null && item.parentSub !== null) {
    other = parent._map.get(item.parentSub) ?? null;
    while (other !== null && other.left !== null) other = other.left;
  }
  const passed = new Set<Y.Item | Y.GC>();
  for (; other !== null && other !== right; other = other.right) {
    passed.add(other);
    if (Y.compareIDs(item.origin, other.origin)) {
      if (other.id.client >= item.id.client && Y.compareIDs(item.rightOrigin, other.rightOrigin)) break;
    } else if (other.origin === null || !passed.has(Y.getItem(store, other.origin))) {
      break;
    }
  }
  return passed.size;
}

function edit(docs: readonly Y.Doc[], pick: number): void {
  const doc = docs[pick % docs.length]!;
  const text = doc.getText("content"), map = doc.getMap("comments");
  const at = Math.floor(pick / 30) % (text.length + 1);
  switch (Math.floor(pick / 3) % 8) {
    case 0:
    case 1:
      return text.insert(at, "abc".slice(pick % 3));
    case 2:
      return text.insertEmbed(at, { a: 1 });
    case 3:
      return text.delete(at, Math.min(1, text.length - at));
    case 4:
      return void map.set(`k${pick % 3}`, pick);
    case 5:
      return map.delete(`k${pick % 3}`);
    default:
      return Y.applyUpdate(doc, Y.encodeStateAsUpdate(docs[(pick + 1) % docs.length]!));
  }
}

Deno.test("Places.put() calls a struct proven only where Yjs compares it with one other at most", () => {
  const picks = fc.array(fc.nat(100_000), { minLength: 10, maxLength: 70 });
  let structs = 0, proven = 0;
  fc.assert(
    fc.property(picks, fc.nat(60), (script, shared) => {
      const docs = [30, 20, 10].map((id) => Object.assign(new Y.Doc({ guid: "" }), { clientID: id }));
      const base = new Y.Doc({ guid: "" });
      const copy = new Y.Doc({ guid: "" });
      script.forEach((pick, i) => {
        edit(docs, pick);
        if (i === shared) Y.applyUpdate(base, Y.encodeStateAsUpdate(docs[0]!));
      });
      base.getText("content");
      base.getMap("comments");
      Y.applyUpdate(copy, Y.encodeStateAsUpdate(base));
      copy.getText("content");
      copy.getMap("comments");
      const update = Y.mergeUpdates(docs.map((doc) => Y.encodeStateAsUpdate(doc)));
      const order = inspectUpdate(base, "text", update).structs;
      const places = new Places(base);
      const areProven = order.map((struct) => struct instanceof Y.Item && places.put(struct));
      copy.transact((transaction) => {
        order.forEach((struct, i) => {
          const offset = Y.getState(copy.store, struct.id.client) - struct.id.clock;
          if (struct instanceof Y.Item) {
            if (typeof struct.parent === "string") {
              struct.parent = copy.get(struct.parent) as Y.AbstractType<unknown>;
            }
            struct.getMissing(transaction, copy.store);
            const compared = comparisons(struct, copy.store);
            if (areProven[i]) assert(compared <= 1, `${compared} comparisons of struct ${i}`);
            structs++;
            if (areProven[i]) proven++;
          }
          struct.integrate(transaction, offset);
        });
      });
    }),
    { numRuns: 300 },
  );
  assert(proven > structs * 0.7, `only ${proven} of ${structs} are proven`);
});
