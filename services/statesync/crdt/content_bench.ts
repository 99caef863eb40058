/** What one edit of a document costs in memory, without store and wire: run with
 *  `deno bench -A services/statesync/crdt/content_bench.ts`. */
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { OperationSchema } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import type { DocumentType } from "../records.ts";
import { Content } from "./content.ts";
import { checkUpdate } from "./limits.ts";
import { planEdit, readEdit } from "./operation.ts";
import { meetLater } from "./stale.ts";
import * as Y from "./yjs.ts";

const LIMITS = { maxBytes: 1_048_576, maxStructs: 200_000 };
const CONTEXT = { userId: "ann", nowMs: 1_000, newId: () => "made" };

function contentOf(type: DocumentType, canonical: string): Content {
  const content = Content.create(type, createSeededRandom(1));
  content.setCanonical(new TextEncoder().encode(canonical));
  return content;
}

function operationOf(json: JsonObject) {
  return fromJson(OperationSchema, json);
}

function boardOf(objects: number): Content {
  const parts = Array.from(
    { length: objects },
    (_, i) => `"o${i}":{"kind":"note","x":${i},"y":1,"style.fill":"#fff"}`,
  );
  return contentOf("whiteboard", `{"objects":{${parts.join(",")}}}`);
}

for (const objects of [10, 10_000]) {
  const content = boardOf(objects);
  let x = 0;
  Deno.bench(`move one of ${objects} objects: read, plan, apply`, () => {
    const operation = operationOf({ type: "move", object: { objectId: "o3", x: ++x, y: 2 } });
    const { edit } = readEdit(operation, "whiteboard", CONTEXT);
    content.apply(planEdit(content, edit));
  });
}

{
  const content = contentOf("text", "x".repeat(100_000));
  Deno.bench("insert one character into a text of 100 kB", () => {
    const operation = operationOf({ type: "text", text: { edits: [{ index: 50_000, insert: "y" }] } });
    const { edit } = readEdit(operation, "text", CONTEXT);
    content.apply(planEdit(content, edit));
  });
}

{
  const content = boardOf(100);
  const base = content.encodeState();
  const updates: Uint8Array[] = [];
  for (let i = 0; i < 20; i++) {
    const operation = operationOf({ type: "move", object: { objectId: `o${i}`, x: 7_000 + i } });
    updates.push(content.apply(planEdit(content, readEdit(operation, "whiteboard", CONTEXT).edit))!);
  }
  const { edit } = readEdit(
    operationOf({ type: "move", object: { objectId: "o3", x: 5 } }),
    "whiteboard",
    CONTEXT,
  );
  Deno.bench(`a stale move beside 20 later ones (state of ${base.length} bytes)`, () => {
    const later = updates.map((update, i) => ({ touch: content.touchOf(update), hlc: BigInt(i) }));
    meetLater(content, edit, later).merge(100n);
  });
}

{
  // A client types into a text that many have edited: 5,000 structs.
  const doc = new Y.Doc({ guid: "" });
  doc.clientID = 9;
  const text = doc.getText("content");
  for (let i = 0; i < 5_000; i++) text.insert((i * 7_919) % (text.length + 1), "word ");
  const content = Content.create("text", createSeededRandom(1));
  content.applyRemote(Y.encodeStateAsUpdate(doc));
  let made: Uint8Array = new Uint8Array();
  let at = 12_000;
  doc.on("update", (update: Uint8Array) => made = update);
  Deno.bench("a client's keystroke: the client's part, and check, inspect, apply", () => {
    text.insert(++at, "k");
    checkUpdate(made, LIMITS);
    content.inspect(made);
    content.applyRemote(made);
  });
  const state = Y.encodeStateAsUpdate(doc);
  Deno.bench(`check a state of ${state.length} bytes`, () => {
    checkUpdate(state, LIMITS);
  });
}
