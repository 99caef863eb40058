/** What becomes of operations: SPEC §2 and §3, with worked examples of each policy. */
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { assert, assertEquals } from "@std/assert";
import {
  ANN,
  as,
  BOB,
  contentOf,
  makeDocument,
  openWorld,
  type OperationInit,
  refusal,
  user,
  type World,
} from "./testing/world.ts";

type Fields = Exclude<OperationInit, { readonly $typeName: string }>;

const text = (...edits: { index?: number; delete?: number; insert?: string }[]): Fields => ({
  type: "text",
  payload: { case: "text", value: { edits } },
});

const object = (
  type: string,
  objectId: string,
  { properties = {}, ...rest }: { properties?: Record<string, JsonValue>; [field: string]: unknown },
): Fields => ({
  type,
  payload: {
    case: "object",
    value: {
      objectId,
      properties: Object.fromEntries(
        Object.entries(properties).map(([name, value]) => [name, fromJson(ValueSchema, value)]),
      ),
      ...rest,
    },
  },
});

async function apply(world: World, docId: string, fields: Fields, who = ANN) {
  const { operation, version, repeatedOperation } = await world.client.applyOperation({
    operation: { docId, ...fields } as Fields,
  }, who);
  return {
    status: operation!.status,
    version: Number(version),
    operation: operation!,
    isRepeated: repeatedOperation,
  };
}

const HLC = (ms: number) => BigInt(ms) * 65_536n;

/** A whiteboard with one red rectangle at 0, 0: version 2. */
async function board(world: World, conflictPolicy: string): Promise<string> {
  const docId = await makeDocument(world, { conflictPolicy });
  await apply(
    world,
    docId,
    object("create", "r", { kind: "rectangle", properties: { fill: "red" }, x: 0, y: 0 }),
  );
  return docId;
}

async function shape(world: World, docId: string): Promise<Record<string, unknown>> {
  return JSON.parse(await contentOf(world, docId)).objects.r;
}

Deno.test("an operation edits what it names, and nothing else", async () => {
  await using world = openWorld();
  const docId = await board(world, "merge");
  await apply(world, docId, object("create", "s", { kind: "note" }));
  const moved = await apply(world, docId, object("move", "r", { x: 5, y: 6 }), BOB);
  assertEquals([moved.status, moved.version, moved.operation.version, moved.operation.userId], [
    "applied",
    4,
    4n,
    "bob",
  ]);
  assertEquals(JSON.parse(await contentOf(world, docId)), {
    objects: { r: { kind: "rectangle", fill: "red", x: 5, y: 6 }, s: { kind: "note" } },
  });
  await apply(world, docId, object("delete", "r", {}));
  assertEquals(JSON.parse(await contentOf(world, docId)), { objects: { s: { kind: "note" } } });
});

Deno.test("an operation needs neither a session nor a previous version", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const { operation, status } = await apply(
    world,
    docId,
    text({ insert: "hi" }),
    as(user("ann", { sessionId: "s1" })),
  );
  assertEquals([status, operation.sessionId, operation.prevVersion], ["applied", "s1", 0n]);
  assertEquals(operation.id.length, 26);
});

Deno.test("the payload may come as JSON, and is answered as the typed one", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const data = new TextEncoder().encode(JSON.stringify({ edits: [{ insert: "hi" }] }));
  const { operation } = await apply(world, docId, { type: "text", data });
  assertEquals([operation.payload.case, operation.data.length], ["text", 0]);
  assertEquals(await contentOf(world, docId), "hi");
});

Deno.test("the same operation of the same client is answered again and done once, after the service was opened anew too", async () => {
  const first = openWorld();
  const docId = await makeDocument(first, { type: "text" });
  const same = { ...text({ insert: "x" }), id: "01ARYZ6S410000000000000001", clientId: "phone" };
  const [one, two] = await Promise.all([apply(first, docId, same), apply(first, docId, same)]);
  assertEquals([one!.isRepeated, two!.isRepeated, two!.version], [false, true, 2]);
  // The service that is opened next finds the same store.
  const second = openWorld({}, first.store, first.clock, 6);
  const three = await apply(second, docId, same);
  assertEquals([three.isRepeated, three.version, three.operation], [true, 2, two!.operation]);
  assertEquals((await apply(second, docId, { ...same, clientId: "laptop" })).isRepeated, false);
  assertEquals(await contentOf(second, docId), "xx");
  await second[Symbol.asyncDispose]();
});

Deno.test("a stale operation that touches other things is no conflict", async () => {
  await using world = openWorld();
  for (const policy of ["merge", "lww", "manual"]) {
    const docId = await board(world, policy);
    await apply(world, docId, object("style", "r", { properties: { "style.fill": "blue" } }), BOB);
    const late = await apply(world, docId, { ...object("move", "r", { x: 9, y: 9 }), prevVersion: 2n });
    assertEquals([policy, late.status, late.version], [policy, "applied", 4]);
    const { conflicts } = await world.client.listConflicts({ docId }, ANN);
    assertEquals(conflicts, []);
    assertEquals((await shape(world, docId)).x, 9);
  }
});

Deno.test("two insertions at one place are no conflict: both stay, the earlier version's first", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text", conflictPolicy: "manual" });
  await apply(world, docId, text({ insert: "ac" }));
  await apply(world, docId, text({ index: 1, insert: "1" }), BOB);
  const late = await apply(world, docId, { ...text({ index: 1, insert: "2" }), prevVersion: 2n });
  assertEquals(late.status, "applied");
  assertEquals(await contentOf(world, docId), "a12c");
});

Deno.test("merge keeps both intentions, and of one property the write with the higher clock", async () => {
  await using world = openWorld();
  const docId = await board(world, "merge");
  const now = world.clock.wallMs();
  await apply(
    world,
    docId,
    { ...object("update", "r", { properties: { fill: "blue" } }), hlc: HLC(now) },
    BOB,
  );
  const lower = await apply(world, docId, {
    ...object("update", "r", { properties: { fill: "green", label: "mine" } }),
    prevVersion: 2n,
    hlc: HLC(now - 5),
  });
  assertEquals([lower.status, lower.operation.conflictId], ["applied", ""]);
  assertEquals(await shape(world, docId), { kind: "rectangle", fill: "blue", label: "mine", x: 0, y: 0 });
  await apply(world, docId, {
    ...object("update", "r", { properties: { fill: "black" } }),
    prevVersion: 2n,
    hlc: HLC(now + 5),
  });
  assertEquals((await shape(world, docId)).fill, "black");
  assertEquals((await world.client.listConflicts({ docId }, ANN)).conflicts, []);
});

Deno.test("lww gives each target to the higher clock, and records the loser", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await board(world, "lww");
  const now = world.clock.wallMs();
  const first = await apply(world, docId, {
    ...object("update", "r", { properties: { fill: "blue" } }),
    hlc: HLC(now),
  }, BOB);
  const lost = await apply(world, docId, {
    ...object("update", "r", { properties: { fill: "green" } }),
    prevVersion: 2n,
    hlc: HLC(now - 5),
  });
  assertEquals([lost.status, lost.version, lost.operation.version], ["rejected", 3, 0n]);
  assertEquals((await shape(world, docId)).fill, "blue");
  const won = await apply(world, docId, {
    ...object("update", "r", { properties: { fill: "black" } }),
    prevVersion: 2n,
    hlc: HLC(now + 5),
  });
  assertEquals([won.status, won.version], ["applied", 4]);
  assertEquals((await shape(world, docId)).fill, "black");
  const { conflicts } = await client.listConflicts({ docId }, ANN);
  assertEquals(
    conflicts.map(({ id, resolution, targets, resolvedOp }) => [id, resolution, targets, resolvedOp?.id]),
    [
      [won.operation.conflictId, "lww", ["r/fill"], won.operation.id],
      [lost.operation.conflictId, "lww", ["r/fill"], first.operation.id],
    ],
  );
  assert(conflicts.every(({ resolvedAt }) => resolvedAt !== undefined));
  const again = client.resolveConflict({ docId, conflictId: conflicts[0]!.id, choice: "mine" }, ANN);
  assertEquals((await refusal(again))[0], Code.FailedPrecondition);
});

Deno.test("manual records the conflict, changes nothing, and a person decides", async () => {
  await using world = openWorld();
  const { client } = world;
  const decided: Record<string, unknown> = {};
  for (const choice of ["theirs", "mine", "merge", "operation"]) {
    const docId = await board(world, "manual");
    await apply(world, docId, object("update", "r", { properties: { fill: "blue" } }), BOB);
    const late = await apply(world, docId, {
      ...object("update", "r", { properties: { fill: "green" } }),
      prevVersion: 2n,
    });
    assertEquals([late.status, late.version, (await shape(world, docId)).fill], ["conflict", 3, "blue"]);
    const shown = (await client.getDocument({ docId }, ANN)).document!;
    assertEquals([shown.openConflicts, shown.version], [1, 3n]);
    const [waiting] = (await client.listConflicts({ docId, open: true }, ANN)).conflicts;
    assertEquals([waiting?.id, waiting?.resolution, waiting?.resolvedAt], [
      late.operation.conflictId,
      "",
      undefined,
    ]);
    assertEquals(waiting?.ops.map(({ userId, status }) => [userId, status]), [["ann", "conflict"], [
      "bob",
      "applied",
    ]]);
    const { conflict, version } = await client.resolveConflict({
      docId,
      conflictId: waiting!.id,
      choice,
      ...(choice === "operation"
        ? { operation: { docId, ...object("update", "r", { properties: { fill: "both" } }) } as Fields }
        : {}),
    }, BOB);
    decided[choice] = [
      (await shape(world, docId)).fill,
      Number(version),
      conflict?.resolution,
      conflict?.resolvedBy,
    ];
    assertEquals((await client.getDocument({ docId }, ANN)).document?.openConflicts, 0);
    const { operations } = await client.getOperationHistory({ docId, status: "resolved" }, ANN);
    assertEquals(operations.map(({ id }) => id), [late.operation.id]);
    const twice = client.resolveConflict({ docId, conflictId: waiting!.id, choice: "theirs" }, ANN);
    assertEquals((await refusal(twice))[0], Code.FailedPrecondition);
  }
  assertEquals(decided, {
    theirs: ["blue", 3, "manual", "bob"],
    mine: ["green", 4, "manual", "bob"],
    // The late operation has the higher clock.
    merge: ["green", 4, "merge", "bob"],
    operation: ["both", 4, "manual", "bob"],
  });
});

Deno.test("a conflict is decided once, even when two decide at once", async () => {
  await using world = openWorld();
  const docId = await board(world, "manual");
  await apply(world, docId, object("update", "r", { properties: { fill: "blue" } }), BOB);
  const { operation } = await apply(world, docId, {
    ...object("update", "r", { properties: { fill: "green" } }),
    prevVersion: 2n,
  });
  const decide = (choice: string) =>
    world.client.resolveConflict({ docId, conflictId: operation.conflictId, choice }, ANN);
  const outcomes = await Promise.allSettled([decide("mine"), decide("theirs")]);
  assertEquals(outcomes.map(({ status }) => status), ["fulfilled", "rejected"]);
  assertEquals((await shape(world, docId)).fill, "green");
});

Deno.test("an operation that is staler than what is remembered meets the edits that the store has", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text", conflictPolicy: "manual" });
  await apply(world, docId, text({ insert: "0123456789" }));
  for (let i = 0; i < 600; i++) await apply(world, docId, text({ insert: "." }), BOB);
  const late = await apply(world, docId, { ...text({ index: 5, insert: "X" }), prevVersion: 2n });
  assertEquals(late.status, "applied");
  assertEquals(await contentOf(world, docId), `${".".repeat(600)}01234X56789`);
  await apply(world, docId, text({ index: 601, delete: 3 }), BOB);
  const met = await apply(world, docId, { ...text({ index: 2, delete: 2 }), prevVersion: 2n });
  assertEquals(met.status, "conflict");
});

Deno.test("many who are late at once are all heard", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  await apply(world, docId, text({ insert: "<>" }));
  for (let i = 0; i < 100; i++) await apply(world, docId, text({ index: 1, insert: "." }), BOB);
  const late = await Promise.all(
    Array.from(
      { length: 200 },
      () => apply(world, docId, { ...text({ index: 1, insert: "x" }), prevVersion: 2n }),
    ),
  );
  assertEquals(new Set(late.map(({ status, version }) => `${status} ${version}`)).size, 200);
  assertEquals(await contentOf(world, docId), `<${".".repeat(100)}${"x".repeat(200)}>`);
});

Deno.test("an operation on a version that is not there yet is refused", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const early = apply(world, docId, { ...text({ insert: "x" }), prevVersion: 7n });
  assertEquals((await refusal(early))[0], Code.Aborted);
});

Deno.test("clocks rise, and one that lies ahead is cut to the server's time", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  const now = world.clock.wallMs();
  const one = await apply(world, docId, text({ insert: "a" }));
  const two = await apply(world, docId, text({ insert: "a" }));
  const ahead = await apply(world, docId, { ...text({ insert: "a" }), hlc: HLC(now + 999) });
  const far = await apply(world, docId, { ...text({ insert: "a" }), hlc: HLC(now + 5_000) });
  const last = await apply(world, docId, text({ insert: "a" }));
  assertEquals([one, two, ahead, far, last].map(({ operation }) => operation.hlc), [
    HLC(now),
    HLC(now) + 1n,
    HLC(now + 999),
    HLC(now),
    HLC(now + 999) + 1n,
  ]);
});

Deno.test("comments take the right to comment, and are their author's", async () => {
  await using world = openWorld();
  const cat = as(user("cat"));
  const docId = await makeDocument(world, {
    metadata: { permissions: { commenters: ["cat"], editors: ["bob"] } },
  });
  const comment = (type: string, value: Record<string, unknown>, who: typeof ANN) =>
    apply(world, docId, { type, payload: { case: "comment", value } } as Fields, who);
  const { operation } = await comment("create", { body: "why?" }, cat);
  const { commentId } = operation.payload.value as { commentId: string };
  assertEquals((await refusal(comment("update", { commentId, body: "x" }, BOB)))[0], Code.PermissionDenied);
  await comment("update", { commentId, body: "why not?" }, cat);
  await comment("delete", { commentId }, ANN);
});

Deno.test("history has filters and pages", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  for (let i = 0; i < 5; i++) {
    await apply(world, docId, text({ insert: String(i) }), i % 2 === 0 ? ANN : BOB);
    world.clock.advance(1_000);
  }
  const versions = async (filter: Parameters<typeof client.getOperationHistory>[0]) =>
    (await client.getOperationHistory({ ...filter as { docId: string }, docId }, ANN)).operations.map((
      { version },
    ) => Number(version));
  assertEquals(await versions({}), [6, 5, 4, 3, 2]);
  assertEquals(await versions({ userId: "bob" }), [5, 3]);
  assertEquals(await versions({ minVersion: 3n, maxVersion: 4n }), [4, 3]);
  assertEquals(await versions({ type: "move" }), []);
  const page = await client.getOperationHistory({ docId, pageSize: 2 }, ANN);
  const next = await client.getOperationHistory({ docId, pageSize: 2, pageToken: page.nextPageToken }, ANN);
  assertEquals(next.operations.map(({ version }) => Number(version)), [4, 3]);
});
