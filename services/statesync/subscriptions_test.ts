/** Events: what subscribers are told, and how they come back. SPEC §5. */
import type { SubscribeDocumentResponse } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { Code } from "@connectrpc/connect";
import { assert, assertEquals } from "@std/assert";
import {
  ANN,
  as,
  BOB,
  EVE,
  makeDocument,
  openWorld,
  refusal,
  ROOT,
  user,
  type World,
} from "./testing/world.ts";

const insert = (world: World, docId: string, value: string) =>
  world.client.applyOperation({
    operation: { docId, type: "text", payload: { case: "text", value: { edits: [{ insert: value }] } } },
  }, ANN);

type Told = AsyncIterator<SubscribeDocumentResponse>;

/** Subscribes; the first message was taken. */
async function subscribe(world: World, docId: string, startOffset = 0n, who = ANN) {
  const abort = new AbortController();
  const events: Told = world.client.subscribeDocument({ docId, startOffset }, {
    ...who,
    signal: abort.signal,
  })
    [Symbol.asyncIterator]();
  const first = (await events.next()).value!;
  return { events, first, end: () => abort.abort() };
}

async function take(events: Told, count: number): Promise<[bigint, string][]> {
  const told: [bigint, string][] = [];
  while (told.length < count) {
    const { offset, event } = (await events.next()).value!;
    assertEquals(event!.offset, offset);
    told.push([offset, event!.type]);
  }
  return told;
}

Deno.test("a subscriber is told of every event from where it begins, in order, with its data", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  const { events, first, end } = await subscribe(world, docId);
  assertEquals([first.offset, first.event, first.epoch, first.subscriberId.length], [
    1n,
    undefined,
    "e1",
    26,
  ]);
  await insert(world, docId, "x");
  await client.updateDocument({ document: { id: docId, name: "new" } }, BOB);
  await client.acquireLock({ docId }, ANN);
  await client.releaseLock({ docId }, ANN);
  await client.deleteDocument({ docId }, ANN);
  const applied = (await events.next()).value!.event!;
  assertEquals([applied.type, applied.userId, applied.operation?.status, applied.version, applied.offset], [
    "operation_applied",
    "ann",
    "applied",
    2n,
    2n,
  ]);
  const renamed = (await events.next()).value!.event!;
  assertEquals([renamed.type, renamed.data, renamed.document?.name, renamed.document?.content.length], [
    "document_updated",
    { change: "metadata" },
    "new",
    0,
  ]);
  assertEquals((await events.next()).value!.event!.lock?.userId, "ann");
  assertEquals((await events.next()).value!.event!.data, { reason: "released" });
  const deleted = (await events.next()).value!.event!;
  assertEquals([deleted.data, deleted.document?.state], [{ change: "deleted" }, "deleted"]);
  end();
  await events.return?.();
});

Deno.test("who comes back names the next offset and misses nothing", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  for (let i = 0; i < 600; i++) await insert(world, docId, "x");
  const { events, end } = await subscribe(world, docId, 2n);
  const told = await take(events, 600);
  assertEquals(told.map(([offset]) => Number(offset)), Array.from({ length: 600 }, (_, i) => i + 2));
  end();
  const back = await subscribe(world, docId, 602n);
  await insert(world, docId, "y");
  assertEquals(await take(back.events, 1), [[602n, "operation_applied"]]);
  back.end();
});

Deno.test("offsets that are not kept, not there yet, or of another epoch are out of range", async () => {
  await using world = openWorld({ snapshotEveryEntries: 10, historyEntries: 100 });
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  for (let i = 0; i < 150; i++) await insert(world, docId, "x");
  await world.settled();
  const [oldest] = await world.store.entries(docId, 1, 1);
  assert(oldest!.offset > 1, "nothing was compacted");
  const ask = (more: { startOffset?: bigint; epoch?: string }) =>
    refusal(client.subscribeDocument({ docId, ...more }, ANN)[Symbol.asyncIterator]().next());
  assertEquals((await ask({ startOffset: 1n }))[0], Code.OutOfRange);
  assertEquals((await ask({ startOffset: 500n }))[0], Code.OutOfRange);
  assertEquals((await ask({ epoch: "e0" }))[0], Code.OutOfRange);
  const { events, end } = await subscribe(world, docId, BigInt(oldest!.offset));
  assertEquals((await take(events, 1))[0]![0], BigInt(oldest!.offset));
  end();
});

Deno.test("who follows all documents is told when one of them was compacted beyond its place", async () => {
  await using world = openWorld({ snapshotEveryEntries: 10, historyEntries: 100 });
  const quiet = await makeDocument(world, { type: "text" });
  const busy = await makeDocument(world, { type: "text" });
  for (let i = 0; i < 150; i++) await insert(world, busy, "x");
  await world.settled();
  const { oldest } = await world.store.sequences();
  assert(oldest > 2, "nothing was compacted");
  // The first entry of the quiet document is still there: only what lay behind it is not.
  assertEquals((await world.store.entries(quiet, 1, 1))[0]!.sequence, 1);
  const ask = (startSequence: bigint) =>
    world.client.subscribeEvents({ startSequence }, ANN)[Symbol.asyncIterator]();
  assertEquals((await refusal(ask(1n).next()))[0], Code.OutOfRange);
  const events = ask(BigInt(oldest));
  await events.next();
  assertEquals((await events.next()).value!.sequence, BigInt(oldest));
  await events.return?.();
});

Deno.test("a subscriber whose right to read ends is told what was until then, and no more", async () => {
  await using world = openWorld();
  const { client } = world;
  const vic = as(user("vic"));
  const docId = await makeDocument(world, { type: "text", metadata: { permissions: { viewers: ["vic"] } } });
  const { events } = await subscribe(world, docId, 0n, vic);
  await insert(world, docId, "x");
  await client.updateDocument({
    document: { id: docId, metadata: { permissions: { viewers: [] } } },
    updateMask: { paths: ["metadata.permissions"] },
  }, ANN);
  await insert(world, docId, "secret");
  assertEquals(await take(events, 1), [[2n, "operation_applied"]]);
  assertEquals((await refusal(events.next()))[0], Code.NotFound);
});

Deno.test("SubscribeEvents tells of all that the caller may read, and administrators of all", async () => {
  await using world = openWorld();
  const { client } = world;
  const abort = new AbortController();
  const open = async (scope: string, who: typeof ANN, startSequence = 0n) => {
    const events = client.subscribeEvents({ scope, startSequence }, { ...who, signal: abort.signal })
      [Symbol.asyncIterator]();
    await events.next();
    return async (count: number) => {
      const told: string[] = [];
      while (told.length < count) {
        const { event, sequence } = (await events.next()).value!;
        told.push(`${event!.docId} ${event!.data.change ?? event!.type} ${sequence}`);
      }
      return told;
    };
  };
  const bob = await open("user", BOB);
  const eve = await open("", EVE);
  const root = await open("global", ROOT);
  await makeDocument(world, { docId: "shared", type: "text" });
  await makeDocument(world, { docId: "own", type: "text", metadata: {} });
  await makeDocument(world, { docId: "public", type: "text", metadata: { permissions: { public: true } } });
  await insert(world, "shared", "x");
  await client.deleteDocument({ docId: "shared" }, ANN);
  await client.deleteDocument({ docId: "shared", purge: true }, ANN);
  await insert(world, "public", "x");
  assertEquals(await root(7), [
    "shared created 1",
    "own created 2",
    "public created 3",
    "shared operation_applied 4",
    "shared deleted 5",
    "shared purged 6",
    "public operation_applied 7",
  ]);
  assertEquals(await bob(6), [
    "shared created 1",
    "public created 3",
    "shared operation_applied 4",
    "shared deleted 5",
    "shared purged 6",
    "public operation_applied 7",
  ]);
  assertEquals(await eve(2), ["public created 3", "public operation_applied 7"]);
  const later = await open("user", EVE, 4n);
  assertEquals(await later(1), ["public operation_applied 7"]);
  const denied = client.subscribeEvents({ scope: "global" }, ANN)[Symbol.asyncIterator]().next();
  assertEquals((await refusal(denied))[0], Code.PermissionDenied);
  abort.abort();
});

Deno.test("a subscription is ended from elsewhere by whose it is, and by nobody else", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  const { events, first } = await subscribe(world, docId);
  const { subscriberId } = first;
  const end = async (who: typeof ANN, id = docId) =>
    (await client.unsubscribeDocument({ docId: id, subscriberId }, who)).unsubscribed;
  assertEquals([await end(BOB), await end(ANN, "other"), await end(ANN), await end(ANN)], [
    false,
    false,
    true,
    false,
  ]);
  assertEquals((await events.next()).done, true);
  assertEquals(world.module.service.figures().subscribers, 0);
});

Deno.test("there are at most as many subscribers as may be, and a place that is left is free", async () => {
  await using world = openWorld({ subscribersMax: 2 });
  const docId = await makeDocument(world, { type: "text" });
  const one = await subscribe(world, docId);
  const two = await subscribe(world, docId);
  const third = world.client.subscribeDocument({ docId }, ANN)[Symbol.asyncIterator]().next();
  assertEquals((await refusal(third))[0], Code.ResourceExhausted);
  one.end();
  await one.events.next().catch(() => {});
  while (world.module.service.figures().subscribers > 1) await world.settled();
  const again = await subscribe(world, docId);
  again.end();
  two.end();
});

Deno.test("subscribers are told when the service stops", async () => {
  const world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const { events } = await subscribe(world, docId);
  const next = refusal(events.next());
  await world.module.close();
  assertEquals((await next)[0], Code.Unavailable);
  await world[Symbol.asyncDispose]();
});
