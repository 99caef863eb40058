/** Clients that synchronise: what they are given, what they may send, what they are told. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import * as Y from "./crdt/yjs.ts";
import { StateSyncError } from "./errors.ts";
import { createMemoryStore } from "./stores/memory.ts";
import { copyOf, editOf } from "./testing/edits.ts";
import { ANN, contentOf, makeDocument, openWorld, toldClient, user, type World } from "./testing/world.ts";

const insert = (world: World, docId: string, value: string) =>
  world.client.applyOperation({
    operation: { docId, type: "text", payload: { case: "text", value: { edits: [{ insert: value }] } } },
  }, ANN);

const NOTHING = new Uint8Array([0]);

async function kindOf(action: Promise<unknown>): Promise<string> {
  const error = await assertRejects(() => action, StateSyncError);
  return error.kind;
}

Deno.test("a client gets what there is, sends an edit, and sees it when it is kept", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  await insert(world, docId, "hello");
  const bob = toldClient(user("bob"));
  const { document, access } = await world.module.live.join(docId, bob, undefined);
  assertEquals(access, "edit");
  await world.settled();
  const doc = await copyOf(document, "text");
  assertEquals(doc.getText("content").toString(), "hello");
  assertEquals(Y.encodeStateVector(doc), document.stateVector());
  const seen: Uint8Array[] = [];
  const stop = document.listen({ onUpdate: (update) => void seen.push(update) });
  const edit = await editOf(document, "text");
  await document.update(bob, edit((doc) => doc.getText("content").insert(5, "!")));
  assertEquals([seen.length, await contentOf(world, docId)], [1, "hello!"]);
  Y.applyUpdate(doc, seen[0]!);
  assertEquals(doc.getText("content").toString(), "hello!");
  stop();
  await insert(world, docId, "x");
  assertEquals(seen.length, 1);
  const events = await world.store.entries(docId, 1, 100);
  assertEquals(events.map(({ type, userId, data }) => [type, userId, data.change]), [
    ["document_updated", "ann", "created"],
    ["operation_applied", "ann", undefined],
    ["user_joined", "bob", undefined],
    ["document_updated", "bob", "content"],
    ["operation_applied", "ann", undefined],
  ]);
});

Deno.test("an update that brings nothing new is done at once, but not before what it repeats is kept", async () => {
  const held = holdingStore();
  await using world = openWorld({}, held.store);
  const docId = await makeDocument(world, { type: "text" });
  const bob = toldClient(user("bob"));
  const { document } = await world.module.live.join(docId, bob, undefined);
  await world.settled();
  const edit = await editOf(document, "text");
  const update = edit((doc) => doc.getText("content").insert(0, "x"));
  held.hold();
  let first = false, second = false;
  const one = document.update(bob, update).then(() => first = true);
  const two = document.update(bob, update).then(() => second = true);
  await world.settled();
  assertEquals([first, second], [false, false]);
  held.release();
  await Promise.all([one, two]);
  const { version } = (await world.store.record(docId))!;
  await document.update(bob, update);
  assertEquals((await world.store.record(docId))!.version, version);
});

Deno.test("edits of one group of commits are told as one update", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const bob = toldClient(user("bob"));
  const { document } = await world.module.live.join(docId, bob, undefined);
  const seen: Uint8Array[] = [];
  document.listen({ onUpdate: (update) => void seen.push(update) });
  const doc = await copyOf(document, "text");
  await Promise.all(Array.from({ length: 10 }, (_, i) => insert(world, docId, String(i))));
  assert(seen.length <= 2, `told ${seen.length} times`);
  for (const update of seen) Y.applyUpdate(doc, update);
  assertEquals(doc.getText("content").toString(), await contentOf(world, docId));
});

Deno.test("what a client sends in one turn is one entry, and each of its updates stands for itself", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const [bob, ann] = [toldClient(user("bob")), toldClient(user("ann"))];
  const { document } = await world.module.live.join(docId, bob!, undefined);
  await world.module.live.join(docId, ann!, undefined);
  await world.settled();
  const edit = await editOf(document, "text");
  const other = await editOf(document, "text");
  const type = (letter: string) => edit((doc) => doc.getText("content").insert(0, letter));
  const outcomes = await Promise.allSettled([
    document.update(bob!, type("a")),
    document.update(bob!, type("b")),
    document.update(bob!, new Uint8Array([9, 9, 9])),
    document.update(bob!, type("c")),
    document.update(ann!, other((doc) => doc.getText("content").insert(0, "x"))),
    document.update(bob!, type("d")),
    insert(world, docId, "y"),
    document.update(bob!, type("e")),
  ]);
  assertEquals(outcomes.map(({ status }) => status === "fulfilled"), [
    true,
    true,
    false,
    true,
    true,
    true,
    true,
    true,
  ]);
  const entries = (await world.store.entries(docId, 1, 100)).filter(({ update }) => update !== undefined);
  assertEquals(entries.map(({ userId, version, type }) => [userId, version, type]), [
    ["bob", 2, "document_updated"],
    ["ann", 3, "document_updated"],
    ["bob", 4, "document_updated"],
    ["ann", 5, "operation_applied"],
  ]);
  const replayed = new Y.Doc();
  for (const { update } of entries) Y.applyUpdate(replayed, update!);
  const content = await contentOf(world, docId);
  assertEquals([replayed.getText("content").toString(), content.length], [content, 7]);
});

Deno.test("clients do what they may: readers send nothing, commenters comments of their own, editors all", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, {
    type: "text",
    metadata: { permissions: { viewers: ["vic"], commenters: ["cat"], editors: ["bob"] } },
  });
  const [vic, cat, bob] = ["vic", "cat", "bob"].map((name) => toldClient(user(name)));
  const { document } = await world.module.live.join(docId, vic!, undefined);
  await world.module.live.join(docId, cat!, undefined);
  await world.module.live.join(docId, bob!, undefined);
  const eve = world.module.live.join(docId, toldClient(user("eve")), undefined);
  assertEquals(await kindOf(eve), "notFound");
  const text = await editOf(document, "text");
  const write = text((doc) => doc.getText("content").insert(0, "x"));
  const comments = await editOf(document, "text");
  const comment = comments((doc) => {
    doc.getMap("comments").set("c1/author", "cat");
    doc.getMap("comments").set("c1/body", "why?");
  });
  assertEquals(await kindOf(document.update(vic!, write)), "denied");
  assertEquals(await kindOf(document.update(cat!, write)), "denied");
  await document.update(cat!, comment);
  const other = await editOf(document, "text");
  const change = other((doc) => doc.getMap("comments").set("c1/body", "because"));
  assertEquals(await kindOf(document.update(bob!, change)), "denied");
  await document.update(bob!, write);
  assertEquals(await contentOf(world, docId), "x");
});

Deno.test("a client is told when what it may do changes, and let go when it may nothing", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  const bob = toldClient(user("bob"));
  const { document } = await world.module.live.join(docId, bob, undefined);
  const share = (permissions: { editors?: string[]; viewers?: string[] }) =>
    client.updateDocument({
      document: { id: docId, metadata: { permissions } },
      updateMask: { paths: ["metadata.permissions"] },
    }, ANN);
  const edit = await editOf(document, "text");
  const update = edit((doc) => doc.getText("content").insert(0, "x"));
  await share({ viewers: ["bob"] });
  assertEquals(await kindOf(document.update(bob, update)), "denied");
  await share({ editors: ["bob"] });
  await document.update(bob, update);
  await share({});
  assertEquals(bob.told, [
    "access read",
    "access edit",
    "access none",
    "closed: documents: there is no such document",
  ]);
  assertEquals(await kindOf(document.update(bob, update)), "unavailable");
});

Deno.test("a purged document is closed for all, an archived one takes no edits", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  const bob = toldClient(user("bob"));
  const { document } = await world.module.live.join(docId, bob, undefined);
  const edit = await editOf(document, "text");
  const update = edit((doc) => doc.getText("content").insert(0, "x"));
  await client.updateDocument({ document: { id: docId, state: "archived" } }, ANN);
  assertEquals(await kindOf(document.update(bob, update)), "notActive");
  await client.updateDocument({ document: { id: docId, state: "active" } }, ANN);
  assertEquals(bob.told.splice(0), ["ask again"]);
  await document.update(bob, update);
  await client.deleteDocument({ docId, purge: true }, ANN);
  assertEquals(bob.told, ["closed: documents: there is no such document"]);
});

Deno.test("hostile updates and updates on edits that are not here leave no trace", async () => {
  await using world = openWorld({ maxUpdateBytes: 1_024 });
  const docId = await makeDocument(world, { type: "text" });
  const bob = toldClient(user("bob"));
  const { document } = await world.module.live.join(docId, bob, undefined);
  await world.settled();
  const before = document.stateVector();
  assertEquals(await kindOf(document.update(bob, new Uint8Array([1, 255, 255, 255, 255, 15, 1]))), "hostile");
  assertEquals(await kindOf(document.update(bob, new Uint8Array(2_000))), "hostile");
  const edit = await editOf(document, "text");
  edit((doc) => doc.getText("content").insert(0, "a"));
  const later = edit((doc) => doc.getText("content").insert(1, "b"));
  assertEquals(await kindOf(document.update(bob, later)), "missing");
  assertEquals(document.stateVector(), before);
  assertEquals((await world.store.record(docId))!.version, 1);
  assertEquals(await kindOf(document.answer(new Uint8Array([3, 1]))), "invalid");
});

Deno.test("joiners share one encoded state, and equal questions one answer", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  for (let i = 0; i < 20; i++) await insert(world, docId, "some text ");
  const { document } = await world.module.live.join(docId, toldClient(user("bob")), undefined);
  const [one, two] = await Promise.all([document.answer(NOTHING), document.answer(NOTHING)]);
  assert(one === two);
  // Who made its own edits elsewhere lacks everything, and gets the same arrays.
  const own = new Y.Doc();
  own.getText("content").insert(0, "offline");
  assert((await document.answer(Y.encodeStateVector(own)))[0] === one![0]);
  await insert(world, docId, "more");
  const three = await document.answer(NOTHING);
  assert(three[0] === one![0] && three.length === 2, "the state was encoded anew for one edit");
  const partly = await copyOf(document, "text");
  await insert(world, docId, "y");
  const vector = Y.encodeStateVector(partly);
  const answer = await document.answer(vector);
  assert(answer === await document.answer(vector.slice()));
  // What a client made of its own on top of it makes no difference.
  const old = new Y.Doc();
  Y.applyUpdate(old, Y.encodeStateAsUpdate(partly));
  old.getText("content").insert(0, "pending");
  assert(answer === await document.answer(Y.encodeStateVector(old)));
  for (const update of answer) Y.applyUpdate(partly, update);
  assertEquals(partly.getText("content").toString(), await contentOf(world, docId));
});

Deno.test("a burst of joins is one change, and a user leaves with the last connection", async () => {
  await using world = openWorld();
  const { client, module: { live, service } } = world;
  const docId = await makeDocument(world, { type: "text", metadata: { permissions: { public: true } } });
  const before = service.figures().commits;
  const clients = Array.from({ length: 150 }, (_, i) => toldClient(user(`u${i % 75}`)));
  const joined = await Promise.all(clients.map((client) => live.join(docId, client, undefined)));
  await world.settled();
  assert(service.figures().commits - before <= 2, "a join is a commit");
  assertEquals((await client.getDocument({ docId }, ANN)).document?.activeUsers.length, 75);
  for (let i = 0; i < 75; i++) joined[i]!.document.leave(clients[i]!);
  await world.settled();
  const types = async () => {
    const counts: Record<string, number> = {};
    for (const { type } of await world.store.entries(docId, 1, 1_000)) counts[type] = (counts[type] ?? 0) + 1;
    return counts;
  };
  assertEquals(await types(), { document_updated: 1, user_joined: 75 });
  for (let i = 75; i < 150; i++) joined[i]!.document.leave(clients[i]!);
  joined[0]!.document.leave(clients[0]!);
  await world.settled();
  assertEquals(await types(), { document_updated: 1, user_joined: 75, user_left: 75 });
  assertEquals((await client.getDocument({ docId }, ANN)).document?.activeUsers, []);
});

Deno.test("a document that is not there is made for who joins with a type, once", async () => {
  await using world = openWorld();
  const clients = [toldClient(user("bob")), toldClient(user("bob"))];
  assertEquals(await kindOf(world.module.live.join("new", clients[0]!, undefined)), "notFound");
  const joined = await Promise.all(clients.map((client) => world.module.live.join("new", client, "text")));
  assert(joined[0]!.document === joined[1]!.document);
  assertEquals(joined.map(({ access }) => access), ["manage", "manage"]);
  const { permissions, version } = (await world.store.record("new"))!;
  assertEquals([permissions.owner, version], ["bob", 1]);
});

Deno.test("documents unused for longest are closed for room, those with clients never", async () => {
  await using world = openWorld({ openBytesMax: 1_048_576 });
  const { client, module: { live, service } } = world;
  const content = new TextEncoder().encode("x".repeat(200_000));
  const ids: string[] = [];
  for (let i = 0; i < 10; i++) ids.push(await makeDocument(world, { type: "text", content }));
  const bob = toldClient(user("bob"));
  const { document } = await live.join(ids[0]!, bob, undefined);
  for (const docId of ids) await insert(world, docId, "y");
  const { open, openBytes, evictions } = service.figures();
  assert(
    open < 6 && openBytes <= 1_048_576 && evictions > 4,
    `${open} open, ${openBytes} bytes, ${evictions}`,
  );
  const edit = await editOf(document, "text");
  await document.update(bob, edit((doc) => doc.getText("content").insert(0, "z")));
  for (const docId of ids) assertMatch(await contentOf(world, docId), /^z?yx/);
  assertEquals((await client.getDocument({ docId: ids[0]! }, ANN)).document?.version, 3n);
});

Deno.test("the service says goodbye to clients, and writes down that they have gone", async () => {
  const world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const bob = toldClient(user("bob"));
  await world.module.live.join(docId, bob, undefined);
  await world.settled();
  const closed: string[] = [];
  const { store } = world;
  const close = store.close.bind(store);
  store.close = async () => {
    for (const { type } of await store.entries(docId, 1, 10)) closed.push(type);
    await close();
  };
  await world[Symbol.asyncDispose]();
  assertEquals(bob.told, ["closed: documents: the service is stopping"]);
  assertEquals(closed, ["document_updated", "user_joined", "user_left"]);
});

/** A store whose commits can be held back. */
function holdingStore() {
  const store = createMemoryStore({ epoch: "e1" });
  let held: (() => void)[] | undefined;
  const commit = store.commit.bind(store);
  store.commit = async (changes) => {
    if (held !== undefined) await new Promise<void>((resolve) => held!.push(resolve));
    return await commit(changes);
  };
  return {
    store,
    hold: () => void (held = []),
    release: () => {
      const waiting = held ?? [];
      held = undefined;
      for (const go of waiting) go();
    },
  };
}
