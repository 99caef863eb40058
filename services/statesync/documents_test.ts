/** Commits that fail, documents that others change meanwhile, contents kept anew. */
import { Code } from "@connectrpc/connect";
import { assert, assertEquals } from "@std/assert";
import { createSeededRandom, randomFraction } from "../runtime/random.ts";
import * as Y from "./crdt/yjs.ts";
import { StateSyncError } from "./errors.ts";
import { createMemoryStore } from "./stores/memory.ts";
import { copyOf, editOf } from "./testing/edits.ts";
import { failingCommits, sharedViews } from "./testing/stores.ts";
import {
  ANN,
  BOB,
  contentOf,
  makeDocument,
  openWorld,
  refusal,
  toldClient,
  user,
  type World,
} from "./testing/world.ts";

const insert = (world: World, docId: string, value: string, index = 0, prevVersion = 0n) =>
  world.client.applyOperation({
    operation: {
      docId,
      type: "text",
      prevVersion,
      payload: { case: "text", value: { edits: [{ index, insert: value }] } },
    },
  }, ANN);

Deno.test("what the store would not keep is shown to nobody, and clients come back", async () => {
  let error: Error | undefined;
  await using world = openWorld({}, failingCommits(createMemoryStore({ epoch: "e1" }), () => error));
  const docId = await makeDocument(world, { type: "text" });
  await insert(world, docId, "kept");
  const bob = toldClient(user("bob"));
  const { document } = await world.module.live.join(docId, bob, undefined);
  await world.settled();
  const seen: Uint8Array[] = [];
  document.listen({ onUpdate: (update) => void seen.push(update) });
  const edit = await editOf(document, "text");
  error = new StateSyncError("unavailable");
  const lost = [
    insert(world, docId, "lost"),
    document.update(bob, edit((doc) => doc.getText("content").insert(0, "too"))),
    world.client.getDocument({ docId }, ANN),
    world.client.createDocument({ docId: "other", type: "text" }, ANN),
  ];
  assertEquals((await Promise.allSettled(lost)).map(({ status }) => status), Array(4).fill("rejected"));
  error = undefined;
  assertEquals(seen, []);
  assertEquals(bob.told, ["closed: documents: the store cannot be reached"]);
  assertEquals(await contentOf(world, docId), "kept");
  await insert(world, docId, "more ");
  assertEquals(await contentOf(world, docId), "more kept");
  const again = await world.module.live.join(docId, bob, undefined);
  assertEquals((await copyOf(again.document, "text")).getText("content").toString(), "more kept");
});

Deno.test("calls of one turn are one commit, and each is answered", async () => {
  await using world = openWorld();
  const ids = await Promise.all(Array.from({ length: 50 }, () => makeDocument(world, { type: "text" })));
  const { commits } = world.module.service.figures();
  await Promise.all(ids.flatMap((docId) => [insert(world, docId, "a"), insert(world, docId, "b", 1)]));
  const taken = world.module.service.figures().commits - commits;
  assert(taken <= 3, `${taken} commits`);
  for (const docId of ids) assertEquals(await contentOf(world, docId), "ab");
});

Deno.test("two services on one store decide anew where the other was faster, and nothing is lost", async () => {
  const [one, two] = sharedViews(createMemoryStore({ epoch: "e1" }), 2).map((store, i) =>
    openWorld({}, store, undefined, i)
  );
  const docId = await makeDocument(one!, { type: "text" });
  await Promise.all(Array.from({ length: 20 }, (_, i) => insert(i % 2 === 0 ? one! : two!, docId, "x")));
  assertEquals(await contentOf(one!, docId), "x".repeat(20));
  assertEquals(await contentOf(two!, docId), "x".repeat(20));
  assert(one!.module.service.figures().behind + two!.module.service.figures().behind > 0, "they never met");
  const record = await one!.store.record(docId);
  assertEquals([record?.version, record?.offset], [21, 21]);
  const locks = await Promise.allSettled([
    one!.client.acquireLock({ docId }, ANN),
    two!.client.acquireLock({ docId }, BOB),
  ]);
  assertEquals(locks.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  await one![Symbol.asyncDispose]();
  await two![Symbol.asyncDispose]();
});

Deno.test("a key is one operation, whichever of two services is asked", async () => {
  const [one, two] = sharedViews(createMemoryStore({ epoch: "e1" }), 2).map((store, i) =>
    openWorld({}, store, undefined, i)
  );
  const docId = await makeDocument(one!, { type: "text" });
  const operation = {
    docId,
    id: "01ARYZ6S410000000000000001",
    clientId: "c",
    type: "text",
    payload: { case: "text" as const, value: { edits: [{ insert: "x" }] } },
  };
  const answers = await Promise.all(
    [one!, two!, one!, two!].map(({ client }) => client.applyOperation({ operation }, ANN)),
  );
  assertEquals(
    answers.map(({ repeatedOperation }) => repeatedOperation).filter((isRepeated) => !isRepeated).length,
    1,
  );
  assertEquals(new Set(answers.map(({ version }) => version)).size, 1);
  assertEquals(await contentOf(two!, docId), "x");
  await one![Symbol.asyncDispose]();
  await two![Symbol.asyncDispose]();
});

Deno.test("clients of two services see one another's edits, and all copies are the same in the end", async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = createSeededRandom(seed);
    const chance = () => randomFraction(random);
    const [one, two] = sharedViews(
      createMemoryStore({ epoch: "e1" }),
      2,
      (tell) => chance() < 0.5 ? tell() : void setImmediate(tell),
    ).map((store, i) => openWorld({ snapshotEveryEntries: 10 }, store, undefined, 2 * seed + i));
    const docId = await makeDocument(one!, { type: "text", metadata: { permissions: { editors: ["bob"] } } });
    const copies = await Promise.all([one!, two!, one!, two!].map(async (world) => {
      const client = toldClient(user("bob"));
      const { document } = await world.module.live.join(docId, client, undefined);
      const doc = await copyOf(document, "text");
      document.listen({ onUpdate: (update) => Y.applyUpdate(doc, update) });
      return { world, client, document, doc };
    }));
    const sent: Promise<void>[] = [];
    for (let step = 0; step < 60; step++) {
      const { document, client, doc, world } = copies[Math.floor(chance() * copies.length)]!;
      if (chance() < 0.3) sent.push(insert(world, docId, String(step)).then(() => {}));
      else {
        const before = Y.encodeStateVector(doc);
        const text = doc.getText("content");
        const at = Math.floor(chance() * (text.length + 1));
        if (chance() < 0.3 && text.length > at) text.delete(at, 1);
        else text.insert(at, String.fromCharCode(97 + step % 26));
        sent.push(document.update(client, Y.encodeStateAsUpdate(doc, before)));
      }
      if (chance() < 0.3) await world.settled();
    }
    await Promise.all(sent);
    for (let i = 0; i < 10; i++) await one!.settled();
    const contents = [
      await contentOf(one!, docId),
      await contentOf(two!, docId),
      ...copies.map(({ doc }) => doc.getText("content").toString()),
    ];
    assertEquals(new Set(contents).size, 1, `seed ${seed}: ${JSON.stringify(contents)}`);
    assertEquals(copies.flatMap(({ client }) => client.told), [], `seed ${seed}`);
    await one![Symbol.asyncDispose]();
    await two![Symbol.asyncDispose]();
  }
});

Deno.test("a subscriber of one service is told of what another wrote, every offset once", async () => {
  const [one, two] = sharedViews(createMemoryStore({ epoch: "e1" }), 2).map((store, i) =>
    openWorld({}, store, undefined, i)
  );
  const docId = await makeDocument(one!, { type: "text" });
  const abort = new AbortController();
  const events = one!.client.subscribeDocument({ docId }, { ...ANN, signal: abort.signal })
    [Symbol.asyncIterator]();
  await events.next();
  await Promise.all(Array.from({ length: 10 }, (_, i) => insert(i % 2 === 0 ? one! : two!, docId, "x")));
  for (let offset = 2n; offset <= 11n; offset++) assertEquals((await events.next()).value!.offset, offset);
  abort.abort();
  await one![Symbol.asyncDispose]();
  await two![Symbol.asyncDispose]();
});

Deno.test("after notices were missed everything is looked at again", async () => {
  const [one, two] = sharedViews(createMemoryStore({ epoch: "e1" }), 2, () => {}).map((store, i) =>
    openWorld({}, store, undefined, i)
  );
  const docId = await makeDocument(one!, { type: "text" });
  const bob = toldClient(user("bob"));
  const { document } = await one!.module.live.join(docId, bob, undefined);
  await one!.settled();
  const doc = await copyOf(document, "text");
  document.listen({ onUpdate: (update) => Y.applyUpdate(doc, update) });
  await insert(two!, docId, "unseen");
  assertEquals(doc.getText("content").toString(), "");
  // A call looks whether there is more; who synchronises waits for the notice.
  assertEquals(await contentOf(one!, docId), "unseen");
  await insert(two!, docId, "still ");
  one!.store.onForeignGap();
  await one!.settled();
  assertEquals(doc.getText("content").toString(), "still unseen");
  await one![Symbol.asyncDispose]();
  await two![Symbol.asyncDispose]();
});

Deno.test("contents are kept anew, old entries go, and named versions stay", async () => {
  await using world = openWorld({ snapshotEveryEntries: 10, historyEntries: 100 });
  const { client, store, troubles } = world;
  const docId = await makeDocument(world, { type: "text" });
  await insert(world, docId, "first ");
  await client.nameVersion({ docId, name: "start" }, ANN);
  for (let i = 0; i < 200; i++) await insert(world, docId, ".");
  await world.settled();
  const [oldest] = await store.entries(docId, 1, 1);
  assert(oldest!.offset > 50, `the oldest entry has offset ${oldest!.offset}`);
  assert((await store.load(docId))!.updates.length <= 20, "opening it reads many updates");
  assertEquals(
    new TextDecoder().decode((await client.getVersion({ docId, version: 2n }, ANN)).content),
    "first ",
  );
  const [named] = (await client.listVersions({ docId, named: true }, ANN)).versions;
  assertEquals([named?.version, named?.name, named?.authors], [2n, "start", ["ann"]]);
  assertEquals((await refusal(client.getVersion({ docId, version: 3n }, ANN)))[0], Code.OutOfRange);
  const { oldestVersion } = await client.listVersions({ docId }, ANN);
  assertEquals(
    new TextDecoder().decode((await client.getVersion({ docId, version: oldestVersion }, ANN)).content)
      .length,
    Number(oldestVersion) - 2 + "first ".length,
  );
  assertEquals(troubles, []);
  const stale = insert(world, docId, "late", 0, 3n);
  assertEquals((await refusal(stale))[0], Code.OutOfRange);
});

Deno.test("a document that would be too large is refused, and may be made smaller", async () => {
  await using world = openWorld({ maxDocumentBytes: 65_536 });
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  await insert(world, docId, "x".repeat(40_000));
  await insert(world, docId, "y".repeat(40_000));
  assertEquals((await refusal(insert(world, docId, "z")))[0], Code.ResourceExhausted);
  await client.applyOperation({
    operation: {
      docId,
      type: "delete",
      payload: { case: "text", value: { edits: [{ index: 0, delete: 60_000 }] } },
    },
  }, ANN);
  await insert(world, docId, "z");
});
