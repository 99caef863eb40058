import { assert, assertEquals } from "@std/assert";
import { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import { createSeededRandom, randomFraction } from "../../services/runtime/random.ts";
import { createBot, OBJECTS_MAX, TEXT_LENGTH_MAX } from "./bots.ts";
import { CONFLICT_EXAMPLE, CONFLICTING_EDITS, EXAMPLES, PEOPLE, SENTENCES } from "./examples.ts";

const HEADING = EXAMPLES[0]!.content;

/** Three bots of a type on one document each, joined after every step; what each document held at the end. */
function workTogether(type: "text" | "whiteboard" | "sheet", steps: number, seed: number) {
  const random = createSeededRandom(seed);
  const chance = () => randomFraction(random);
  const docs = [1, 2, 3].map((clientID) => Object.assign(new Y.Doc(), { clientID }));
  for (const doc of docs) {
    doc.on("update", (update, origin) => {
      if (origin !== "join") {
        for (const other of docs) if (other !== doc) Y.applyUpdate(other, update, "join");
      }
    });
  }
  if (type === "text") docs[0]!.getText("content").insert(0, HEADING);
  const crew = docs.map((doc) => {
    const awareness = new Awareness(doc);
    return { doc, awareness, bot: createBot(type, { doc, awareness, chance }) };
  });
  let longest = 0;
  for (let i = 0; i < steps; i++) {
    const { doc, bot } = crew[i % crew.length]!;
    const pauseMs = bot.step();
    assert(pauseMs >= 50 && pauseMs < 10_000, `a pause of ${pauseMs} ms`);
    longest = Math.max(longest, doc.getText("content").length);
  }
  for (const { awareness } of crew) awareness.destroy();
  return { doc: docs[0]!, docs, longest };
}

Deno.test("writers share a text that never grows beyond its bound, and leave the heading", () => {
  const { docs, longest } = workTogether("text", 6_000, 1);
  assert(longest > TEXT_LENGTH_MAX / 2, `the text only grew to ${longest}`);
  assert(longest < TEXT_LENGTH_MAX + 200, `the text grew to ${longest}`);
  const texts = docs.map((doc) => doc.getText("content").toString());
  assertEquals(new Set(texts).size, 1);
  assert(texts[0]!.startsWith(HEADING), texts[0]);
});

Deno.test("writers at one place do not mix their letters", () => {
  const text = workTogether("text", 600, 4).docs[0]!.getText("content").toString();
  const whole = SENTENCES.filter((sentence) => text.includes(sentence));
  assert(whole.length >= 3, text);
});

Deno.test("drawers make whole objects, and no more than there may be", () => {
  const { doc } = workTogether("whiteboard", 6_000, 2);
  const objects = doc.getMap<unknown>("objects").toJSON();
  const ids = Object.keys(objects).filter((key) => key.endsWith("/kind")).map((key) => key.slice(0, -5));
  assert(ids.length > 3 && ids.length <= OBJECTS_MAX + 3, `${ids.length} objects`);
  for (const id of ids) {
    assert(/^[A-Za-z0-9._~-]{1,128}$/.test(id), id);
    for (const name of ["x", "y", "width", "height"]) assertEquals(typeof objects[`${id}/${name}`], "number");
  }
});

Deno.test("clerks write numbers into cells", () => {
  const { doc } = workTogether("sheet", 300, 3);
  const cells = Object.entries(doc.getMap<unknown>("cells").toJSON());
  assert(cells.length > 5);
  for (const [name, value] of cells) {
    assert(/^[BC][2-6]\/value$/.test(name), name);
    assertEquals(typeof value, "number");
  }
});

Deno.test("the examples are of every type, and the conflicting edits are about the same words", () => {
  assertEquals(new Set(EXAMPLES.map(({ type }) => type)), new Set(["text", "whiteboard", "canvas", "sheet"]));
  const { content } = EXAMPLES.find(({ id }) => id === CONFLICT_EXAMPLE)!;
  for (const { index, delete: length } of CONFLICTING_EDITS) {
    assert(content.slice(index, index + length).startsWith("noon"));
  }
  assertEquals(new Set(PEOPLE.map(({ color }) => color)).size, PEOPLE.length);
});
