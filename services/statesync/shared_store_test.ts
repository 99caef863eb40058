/** What is not kept yet beside what others keep: the vectors that clients are told, and notices that come at a bad time. */
import { assertEquals } from "@std/assert";
import * as Y from "./crdt/yjs.ts";
import type { DocumentStore } from "./store.ts";
import { createMemoryStore } from "./stores/memory.ts";
import { copyOf, editOf } from "./testing/edits.ts";
import { sharedViews } from "./testing/stores.ts";
import { contentOf, makeDocument, openWorld, toldClient, user } from "./testing/world.ts";

/** Lets answers of commits wait, when what was asked is written. */
function holdAnswers(store: DocumentStore) {
  let held: PromiseWithResolvers<void> | undefined;
  const commit: DocumentStore["commit"] = async (changes) => {
    const results = await store.commit(changes);
    await held?.promise;
    return results;
  };
  return {
    store: new Proxy(store, {
      get(target, name) {
        if (name === "commit") return commit;
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
      set: (target, name, value) => Reflect.set(target, name, value),
    }),
    hold: () => void (held = Promise.withResolvers()),
    release() {
      held?.resolve();
      held = undefined;
    },
  };
}

Deno.test("a client is told the state vector of what is kept, so that it does not keep back what may be lost", async () => {
  const answers = holdAnswers(createMemoryStore({ epoch: "e1" }));
  await using world = openWorld({}, answers.store);
  const docId = await makeDocument(world, { type: "text" });
  const bob = toldClient(user("bob"));
  const { document } = await world.module.live.join(docId, bob, undefined);
  await world.settled();
  const edit = await editOf(document, "text");
  await document.update(bob, edit((doc) => doc.getText("content").insert(0, "kept")));
  const kept = document.stateVector();
  answers.hold();
  const later = document.update(bob, edit((doc) => doc.getText("content").insert(4, " later")));
  const other = document.update(bob, Y.encodeStateAsUpdate(textDoc(7, "other")));
  await world.settled();
  assertEquals(document.stateVector(), kept);
  answers.release();
  await Promise.all([later, other]);
  const vector = Y.decodeStateVector(document.stateVector());
  assertEquals([...vector.values()].sort(), [10, 5]);
});

Deno.test("what another service wrote is found, though its notice came while a write was under way", async () => {
  const [near, far] = sharedViews(createMemoryStore({ epoch: "e1" }), 2);
  const answers = holdAnswers(near!);
  await using one = openWorld({}, answers.store, undefined, 1);
  await using two = openWorld({}, far!, undefined, 2);
  const docId = await makeDocument(one, { type: "text" });
  const [bob, ann] = [toldClient(user("bob")), toldClient(user("ann"))];
  const { document } = await one.module.live.join(docId, bob, undefined);
  await one.settled();
  const doc = await copyOf(document, "text");
  document.listen({ onUpdate: (update) => Y.applyUpdate(doc, update) });
  answers.hold();
  const mine = document.update(bob, Y.encodeStateAsUpdate(textDoc(7, "mine")));
  await one.settled();
  const { document: theirs } = await two.module.live.join(docId, ann, undefined);
  await theirs.update(ann, Y.encodeStateAsUpdate(textDoc(8, "theirs")));
  await one.settled();
  assertEquals(doc.getText("content").toString(), "");
  answers.release();
  await mine;
  await one.settled();
  const text = await contentOf(two, docId);
  assertEquals([text.length, doc.getText("content").toString()], [10, text]);
});

function textDoc(clientId: number, text: string): Y.Doc {
  const doc = new Y.Doc();
  doc.clientID = clientId;
  doc.getText("content").insert(0, text);
  return doc;
}
