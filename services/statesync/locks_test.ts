/** Locks: SPEC §4. */
import { Code } from "@connectrpc/connect";
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  ANN,
  as,
  BOB,
  contentOf,
  makeDocument,
  openWorld,
  refusal,
  toldClient,
  user,
  type World,
} from "./testing/world.ts";
import { lockedBy } from "./locks.ts";
import { editOf } from "./testing/edits.ts";

const insert = (world: World, docId: string, value: string, who = ANN, fencingToken = 0n) =>
  world.client.applyOperation({
    operation: {
      docId,
      type: "text",
      fencingToken,
      payload: { case: "text", value: { edits: [{ insert: value }] } },
    },
  }, who);

const move = (world: World, docId: string, objectId: string, who = ANN, fencingToken = 0n) =>
  world.client.applyOperation({
    operation: {
      docId,
      type: "move",
      fencingToken,
      payload: { case: "object", value: { objectId, x: 1, y: 1 } },
    },
  }, who);

async function make(world: World, docId: string, objectId: string): Promise<void> {
  await world.client.applyOperation({
    operation: { docId, type: "create", payload: { case: "object", value: { objectId, kind: "note" } } },
  }, ANN);
}

Deno.test("a locked document is edited by nobody else, and the refusal names the holder and the end", async () => {
  await using world = openWorld();
  const { client, clock } = world;
  const docId = await makeDocument(world, { type: "text" });
  const { lock } = await client.acquireLock({ docId, ttlMs: 5_000 }, BOB);
  assertEquals([lock?.userId, lock?.active, lock?.fencingToken, lock?.objectId], ["bob", true, 1n, ""]);
  const [code, text] = await refusal(insert(world, docId, "x"));
  assertEquals(code, Code.FailedPrecondition);
  assertMatch(text, /the document by bob until 2027-01-15T08:00:05\.000Z$/);
  assertEquals((await refusal(client.acquireLock({ docId }, ANN)))[0], Code.FailedPrecondition);
  assertEquals(
    (await refusal(client.restoreVersion({ docId, version: 1n }, ANN)))[0],
    Code.FailedPrecondition,
  );
  assertEquals((await refusal(client.undoEdits({ docId }, ANN)))[0], Code.FailedPrecondition);
  const content = new TextEncoder().encode("y");
  assertEquals(
    (await refusal(client.updateDocument({ document: { id: docId, content } }, ANN)))[0],
    Code.FailedPrecondition,
  );
  await insert(world, docId, "mine", BOB);
  clock.advance(5_000);
  await insert(world, docId, "x");
  assertEquals(await contentOf(world, docId), "xmine");
});

Deno.test("the end of a lock is told as a time of ISO 8601", () => {
  for (
    const ms of [0, 951_782_400_000, 951_868_799_999, 1_709_164_800_123, 4_102_444_799_999, 1_735_689_600_000]
  ) {
    const lock = {
      id: "i",
      docId: "d",
      objectId: "",
      userId: "u",
      sessionId: "",
      acquiredAtMs: 0,
      expiresAtMs: ms,
      fencingToken: 1,
    };
    assertEquals(lockedBy(lock).message.split("until ")[1], new Date(ms).toISOString());
  }
});

Deno.test("locks of objects cover these alone, and document and objects exclude each other between users", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world);
  for (const id of ["a", "b"]) await make(world, docId, id);
  await client.acquireLock({ docId, objectId: "a" }, BOB);
  assertEquals((await refusal(move(world, docId, "a")))[0], Code.FailedPrecondition);
  await move(world, docId, "b");
  await client.acquireLock({ docId, objectId: "b" }, ANN);
  assertEquals((await refusal(client.acquireLock({ docId }, ANN)))[0], Code.FailedPrecondition);
  const { locks, locked } = await client.isLocked({ docId }, ANN);
  assertEquals([locked, locks.map(({ objectId }) => objectId)], [true, ["a", "b"]]);
  assertEquals((await client.isLocked({ docId, objectId: "c" }, ANN)).locked, false);
  await client.releaseLock({ docId, objectId: "a" }, BOB);
  await client.acquireLock({ docId }, ANN);
  assertEquals(
    (await refusal(client.acquireLock({ docId, objectId: "a" }, BOB)))[0],
    Code.FailedPrecondition,
  );
  await client.applyOperation({
    operation: { docId, type: "create", payload: { case: "comment", value: { body: "not covered" } } },
  }, BOB);
});

Deno.test("a lock is renewed by its owner, with the same token, and released as often as it is acquired", async () => {
  await using world = openWorld();
  const { client, clock } = world;
  const docId = await makeDocument(world, { type: "text" });
  for (let round = 1n; round <= 3n; round++) {
    const first = (await client.acquireLock({ docId, ttlMs: 2_000 }, ANN)).lock!;
    clock.advance(1_000);
    const again = (await client.acquireLock({ docId, ttlMs: 2_000 }, ANN)).lock!;
    assertEquals([again.id, again.fencingToken], [first.id, round]);
    const extended = (await client.extendLock({ docId, lockId: first.id, ttlMs: 60_000 }, ANN)).lock!;
    assertEquals(Number(extended.expiresAt!.seconds) * 1_000, clock.wallMs() + 60_000);
    assertEquals((await refusal(client.extendLock({ docId, lockId: first.id }, BOB)))[0], Code.NotFound);
    assertEquals(
      (await refusal(client.releaseLock({ docId, lockId: first.id }, BOB)))[0],
      Code.PermissionDenied,
    );
    assertEquals((await client.releaseLock({ docId }, BOB)).released, false);
    assertEquals((await client.releaseLock({ docId, lockId: first.id }, ANN)).released, true);
    assertEquals((await client.releaseLock({ docId, lockId: first.id }, ANN)).released, false);
  }
});

Deno.test("who comes with an old fencing token is refused", async () => {
  await using world = openWorld();
  const { client, clock } = world;
  const docId = await makeDocument(world, { type: "text" });
  const { lock } = await client.acquireLock({ docId, ttlMs: 1_000 }, ANN);
  await insert(world, docId, "a", ANN, lock!.fencingToken);
  clock.advance(1_000);
  const { lock: next } = await client.acquireLock({ docId, ttlMs: 1_000 }, BOB);
  assert(next!.fencingToken > lock!.fencingToken);
  clock.advance(1_000);
  // Nobody holds it any more, yet Ann's token is not the newest.
  assertEquals(
    (await refusal(insert(world, docId, "b", ANN, lock!.fencingToken)))[0],
    Code.FailedPrecondition,
  );
  await insert(world, docId, "c");
  assertEquals(await contentOf(world, docId), "ca");
});

Deno.test("locks end with their time and with their session, and events tell why", async () => {
  await using world = openWorld();
  const { client, clock, module: { service } } = world;
  const docId = await makeDocument(world);
  const inSession = as(user("ann", { sessionId: "s1" }));
  await client.acquireLock({ docId, objectId: "a", ttlMs: 1_000 }, ANN);
  await client.acquireLock({ docId, objectId: "b", ttlMs: 60_000 }, inSession);
  await client.acquireLock({ docId, objectId: "c", ttlMs: 60_000 }, BOB);
  assertEquals(service.sessionsWithLocks(), ["s1"]);
  await service.sweepLocks();
  clock.advance(1_000);
  await service.sweepLocks();
  await service.endSession("s1");
  const c = (await client.isLocked({ docId, objectId: "c" }, ANN)).locks[0]!;
  assertEquals((await client.releaseLock({ docId, lockId: c.id }, ANN)).released, true);
  const events = await world.store.entries(docId, 1, 100);
  assertEquals(
    events.filter(({ type }) => type.startsWith("lock_")).map((
      { type, lock, data },
    ) => [type, lock?.objectId, data.reason]),
    [
      ["lock_acquired", "a", undefined],
      ["lock_acquired", "b", undefined],
      ["lock_acquired", "c", undefined],
      ["lock_released", "a", "expired"],
      ["lock_released", "b", "session_ended"],
      ["lock_released", "c", "taken"],
    ],
  );
  assertEquals(service.figures().locks, 0);
});

Deno.test("locks are held over a restart", async () => {
  const first = openWorld();
  const docId = await makeDocument(first, { type: "text" });
  await first.client.acquireLock({ docId, ttlMs: 5_000 }, BOB);
  await using second = openWorld({}, first.store, first.clock, 6);
  await second.module.service.readLocks();
  assertEquals((await refusal(insert(second, docId, "x")))[0], Code.FailedPrecondition);
  second.clock.advance(5_000);
  await second.module.service.sweepLocks();
  assertEquals(await second.store.locks(), []);
});

Deno.test("a synchronising client's update is refused while another holds what it edits, and asked for afterwards", async () => {
  await using world = openWorld();
  const { client, module: { live } } = world;
  const docId = await makeDocument(world);
  await make(world, docId, "a");
  await make(world, docId, "b");
  const bob = toldClient(user("bob"));
  const { document } = await live.join(docId, bob, undefined);
  const edit = await editOf(document, "whiteboard");
  await client.acquireLock({ docId, objectId: "a" }, ANN);
  const update = edit((doc) => doc.getMap("objects").set("a/fill", "blue"));
  const refused = await document.update(bob, update).catch((error) => String(error));
  assertMatch(String(refused), /locked by another: a by ann until/);
  const other = await editOf(document, "whiteboard");
  await document.update(bob, other((doc) => doc.getMap("objects").set("b/fill", "green")));
  assertEquals(bob.told, []);
  await client.releaseLock({ docId, objectId: "a" }, ANN);
  assertEquals(bob.told, ["ask again"]);
  await document.update(bob, update);
  assertEquals(JSON.parse(await contentOf(world, docId)).objects, {
    a: { fill: "blue", kind: "note" },
    b: { fill: "green", kind: "note" },
  });
});
