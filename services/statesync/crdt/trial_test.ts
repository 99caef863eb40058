import { assert, assertEquals, assertThrows } from "@std/assert";
import * as encoding from "lib0/encoding";
import { createSeededRandom } from "../../runtime/random.ts";
import { StateSyncError } from "../errors.ts";
import { Content } from "./content.ts";
import { checkUpdate } from "./limits.ts";
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
