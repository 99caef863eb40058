import { Code } from "@connectrpc/connect";
import { assert, assertEquals } from "@std/assert";
import { STATESYNC_ERRORS, StateSyncError, type StateSyncErrorKind } from "./errors.ts";
import { toConnectError } from "./rpc_errors.ts";
import {
  ANN,
  as,
  BOB,
  contentOf,
  EVE,
  makeDocument,
  openWorld,
  refusal,
  ROOT,
  user,
} from "./testing/world.ts";

const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const bytes = (value: string) => new TextEncoder().encode(value);

Deno.test("StateSyncService makes a document with everything that it is told, and shows it", async () => {
  await using world = openWorld();
  const { client } = world;
  const { document } = await client.createDocument({
    name: "Plan",
    type: "text",
    content: bytes("hello"),
    metadata: {
      tags: ["a", "b"],
      description: "what for",
      properties: { colour: "red" },
      permissions: { editors: ["bob"], viewers: ["vic"], commenters: ["cat"], public: false },
    },
  }, ANN);
  assertEquals([document?.version, document?.offset, document?.state, document?.conflictPolicy], [
    1n,
    1n,
    "active",
    "merge",
  ]);
  const shown = (await client.getDocument({ docId: document!.id }, BOB)).document!;
  assertEquals(text(shown.content), "hello");
  assertEquals([shown.createdBy, shown.updatedBy, shown.epoch], ["ann", "ann", "e1"]);
  assertEquals([shown.metadata?.tags, shown.metadata?.description, shown.metadata?.properties], [
    ["a", "b"],
    "what for",
    { colour: "red" },
  ]);
  const { owner, editors, viewers, commenters } = shown.metadata!.permissions!;
  assertEquals([owner, editors, viewers, commenters], ["ann", ["bob"], ["vic"], ["cat"]]);
  assertEquals(
    (await client.getDocument({ docId: shown.id, withoutContent: true }, BOB)).document?.content.length,
    0,
  );
});

Deno.test("permissions are enforced on every path", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, {
    metadata: { permissions: { editors: ["bob"], commenters: ["cat"], viewers: ["vic-name"] } },
  });
  const operation = {
    docId,
    type: "create",
    payload: { case: "object", value: { objectId: "o", kind: "note" } },
  } as const;
  let made = 0;
  const comment = { docId, type: "create", payload: { case: "comment", value: { body: "hm" } } } as const;
  const paths = {
    read: (who: typeof ANN) => client.getDocument({ docId }, who),
    access: (who: typeof ANN) => client.getAccess({ docId }, who),
    history: (who: typeof ANN) => client.getOperationHistory({ docId }, who),
    conflicts: (who: typeof ANN) => client.listConflicts({ docId }, who),
    versions: (who: typeof ANN) => client.listVersions({ docId }, who),
    version: (who: typeof ANN) => client.getVersion({ docId, version: 1n }, who),
    diff: (who: typeof ANN) => client.diffVersions({ docId, from: 1n }, who),
    locks: (who: typeof ANN) => client.isLocked({ docId }, who),
    events: async (who: typeof ANN) => {
      const stream = client.subscribeDocument({ docId }, who)[Symbol.asyncIterator]();
      await stream.next();
      await stream.return?.();
    },
    comment: (who: typeof ANN) => client.applyOperation({ operation: comment }, who),
    operation: (who: typeof ANN) =>
      client.applyOperation({
        operation: {
          ...operation,
          payload: {
            case: "object",
            value: { objectId: `o${made++}`, kind: "note" },
          },
        },
      }, who),
    lock: async (who: typeof ANN) => {
      const { lock } = await client.acquireLock({ docId, objectId: "l" }, who);
      await client.releaseLock({ docId, lockId: lock!.id }, who);
    },
    rename: (who: typeof ANN) => client.updateDocument({ document: { id: docId, name: "n" } }, who),
    name: (who: typeof ANN) => client.nameVersion({ docId, name: "v" }, who),
    undo: (who: typeof ANN) => client.undoEdits({ docId }, who),
    goBack: (who: typeof ANN) => client.restoreVersion({ docId, version: 1n }, who),
    permissions: (who: typeof ANN) =>
      client.updateDocument({
        document: {
          id: docId,
          metadata: {
            permissions: { public: false, editors: ["bob"], commenters: ["cat"], viewers: ["vic-name", "x"] },
          },
        },
        updateMask: { paths: ["metadata.permissions"] },
      }, who),
    archive: async (who: typeof ANN) => {
      await client.updateDocument({ document: { id: docId, state: "archived" } }, who);
      await client.updateDocument({ document: { id: docId, state: "active" } }, who);
    },
    undoOthers: (who: typeof ANN) => client.undoEdits({ docId, userId: "zoe" }, who),
    delete: async (who: typeof ANN) => {
      await client.deleteDocument({ docId }, who);
      await client.restoreDocument({ docId }, who);
    },
  };
  const needed: Record<keyof typeof paths, number> = {
    read: 1,
    access: 1,
    history: 1,
    conflicts: 1,
    versions: 1,
    version: 1,
    diff: 1,
    locks: 1,
    events: 1,
    comment: 2,
    operation: 3,
    lock: 3,
    rename: 3,
    name: 3,
    undo: 3,
    goBack: 3,
    permissions: 4,
    archive: 4,
    undoOthers: 4,
    delete: 4,
  };
  const people = { 0: EVE, 1: as(user("vic")), 2: as(user("cat")), 3: BOB, 4: ANN };
  const outcomes: string[] = [];
  for (const [path, level] of Object.entries(needed)) {
    for (const [rank, who] of Object.entries(people)) {
      const go = paths[path as keyof typeof paths];
      if (Number(rank) >= level) await go(who);
      else if (path !== "delete" || rank !== "0") {
        const [code] = await refusal(go(who));
        if (code !== (rank === "0" ? Code.NotFound : Code.PermissionDenied)) {
          outcomes.push(`${path} ${rank} ${code}`);
        }
      }
    }
  }
  assertEquals(outcomes, []);
  assertEquals((await client.deleteDocument({ docId }, EVE)).deleted, false);
});

Deno.test("a scoped key has what its grants say and nothing else, even of its owner's documents", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { docId: "team/one" });
  const key = (prefix: string, write: boolean) =>
    as(user("ann", { isScoped: true, grants: [{ service: "documents", prefix, write }] }));
  assertEquals((await client.getAccess({ docId }, key("team/", false))).access, "read");
  assertEquals((await client.getAccess({ docId }, key("team/", true))).access, "edit");
  assertEquals((await refusal(client.getAccess({ docId }, key("other/", true))))[0], Code.NotFound);
  assertEquals(
    (await refusal(client.createDocument({ type: "text" }, key("team/", true))))[0],
    Code.PermissionDenied,
  );
  await client.createDocument({
    type: "text",
    docId: "team/two",
    metadata: { permissions: { public: true } },
  }, ANN);
  await client.createDocument({ type: "text", docId: "x", metadata: { permissions: { public: true } } }, ANN);
  const ids = async (who: typeof ANN) => (await client.listDocuments({}, who)).documents.map(({ id }) => id);
  assertEquals(await ids(key("team/t", false)), ["team/two"]);
  assertEquals(await ids(EVE), ["team/two", "x"]);
  assertEquals(await ids(ANN), ["team/one", "team/two", "x"]);
});

Deno.test("lists go through everything once, a page at a time", async () => {
  await using world = openWorld();
  const { client } = world;
  const made = ["a:*", "b/../c", "d%2Fe", "ü", "😀"];
  for (const docId of made) await client.createDocument({ type: "text", docId, name: docId }, ANN);
  const seen: string[] = [];
  let pageToken = "";
  do {
    const page = await client.listDocuments({ pageSize: 2, pageToken }, ANN);
    seen.push(...page.documents.map(({ id }) => id));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  assertEquals(seen, made);
  assertEquals((await refusal(client.listDocuments({ pageToken: "?" }, ANN)))[0], Code.InvalidArgument);
  assertEquals(
    (await refusal(client.listDocuments({ pageSize: 1_001 }, ANN)))[1],
    "documents: the request is not valid: page_size is 1001, expected 1 to 1000",
  );
  assertEquals((await client.listDocuments({ name: "Ü" }, ANN)).documents.length, 1);
});

Deno.test("UpdateDocument changes what it is told, each kind as a version and an event", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text", content: bytes("abc") });
  const { document } = await client.updateDocument({
    document: {
      id: docId,
      name: "new",
      content: bytes("abXc"),
      metadata: { properties: { a: "1" } },
    },
    updateMask: { paths: ["name", "content", "metadata.properties.a"] },
    ifVersion: 1n,
  }, BOB);
  assertEquals([document?.version, document?.name, document?.updatedBy, document?.metadata?.properties], [
    3n,
    "new",
    "bob",
    { a: "1" },
  ]);
  assertEquals(await contentOf(world, docId), "abXc");
  const stale = client.updateDocument({ document: { id: docId, name: "x" }, ifVersion: 1n }, BOB);
  assertEquals((await refusal(stale))[0], Code.Aborted);
  const taken = client.updateDocument({
    document: { id: docId, metadata: { properties: {} } },
    updateMask: { paths: ["metadata.properties.a"] },
  }, BOB);
  assertEquals((await taken).document?.metadata?.properties, {});
  const unknown = client.updateDocument({ document: { id: docId }, updateMask: { paths: ["id"] } }, BOB);
  assertEquals((await refusal(unknown))[0], Code.InvalidArgument);
});

Deno.test("archived and deleted documents refuse edits, and a deleted one is there for who manages it alone", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  const edit = () =>
    client.applyOperation({
      operation: { docId, type: "text", payload: { case: "text", value: { edits: [{ insert: "x" }] } } },
    }, BOB);
  await client.updateDocument({ document: { id: docId, state: "archived" } }, ANN);
  assertEquals((await refusal(edit()))[0], Code.FailedPrecondition);
  await client.updateDocument({ document: { id: docId, state: "active" } }, ANN);
  await edit();
  assertEquals((await client.deleteDocument({ docId }, ANN)).deleted, true);
  assertEquals((await client.deleteDocument({ docId }, ANN)).deleted, false);
  assertEquals((await refusal(edit()))[0], Code.NotFound);
  assertEquals((await client.listDocuments({}, ANN)).documents.length, 0);
  assertEquals((await client.listDocuments({ state: "deleted" }, ANN)).documents.length, 1);
  assertEquals((await refusal(client.createDocument({ type: "text", docId }, ANN)))[0], Code.AlreadyExists);
  assertEquals((await client.restoreDocument({ docId }, ANN)).document?.state, "active");
  assertEquals(await contentOf(world, docId), "x");
  assertEquals((await client.deleteDocument({ docId, purge: true }, ANN)).deleted, true);
  assertEquals((await refusal(client.getDocument({ docId }, ANN)))[0], Code.NotFound);
  await client.createDocument({ type: "text", docId }, ANN);
  assertEquals(await contentOf(world, docId), "");
});

Deno.test("what requests may not hold is named with its limit, and changes nothing", async () => {
  await using world = openWorld();
  const { client } = world;
  const cases: [Promise<unknown>, string][] = [
    [
      client.createDocument({ type: "poem" }, ANN),
      'type is "poem", expected whiteboard, text, canvas, sheet',
    ],
    [client.createDocument({ type: "text", docId: "a\nb" }, ANN), "doc_id has control characters"],
    [
      client.createDocument({ type: "text", name: "n".repeat(257) }, ANN),
      "name has 257 bytes or more, expected at most 256",
    ],
    [
      client.createDocument({ type: "text", metadata: { tags: [""] } }, ANN),
      "metadata.tags has an empty tag",
    ],
    [
      client.createDocument({ type: "text", metadata: { tags: Array(65).fill("t") } }, ANN),
      "metadata.tags has 65 entries, expected at most 64",
    ],
    [client.getDocument({}, ANN), "doc_id is empty, expected 1 to 256 bytes"],
    [client.applyOperation({}, ANN), "operation is not set"],
    [client.acquireLock({ docId: "d", ttlMs: 5 }, ANN), "ttl_ms is 5, expected 1000 to 3600000"],
    [client.getVersion({ docId: "d" }, ANN), "expected exactly one of version and at"],
    [
      client.resolveConflict({ docId: "d", conflictId: "x" }, ANN),
      "conflict_id is no GUUID: expected 26 characters, or a UUID",
    ],
  ];
  for (const [action, expected] of cases) {
    assertEquals(await refusal(action), [
      Code.InvalidArgument,
      `${STATESYNC_ERRORS.invalid.text}: ${expected}`,
    ]);
  }
  assertEquals((await client.listDocuments({}, ROOT)).documents, []);
});

Deno.test("every outcome of the table has its code on the wire", () => {
  for (const [kind, { code }] of Object.entries(STATESYNC_ERRORS)) {
    const error = toConnectError(new StateSyncError(kind as StateSyncErrorKind, "why")) as { code: Code };
    assertEquals(Code[error.code].replaceAll(/[A-Z]/g, (c) => `_${c.toLowerCase()}`).slice(1), code);
  }
  assert(toConnectError(new TypeError("x")) instanceof TypeError);
});

Deno.test("GetStats counts, for administrators", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  await client.applyOperation({
    operation: { docId, type: "text", payload: { case: "text", value: { edits: [{ insert: "x" }] } } },
  }, BOB);
  await client.acquireLock({ docId }, BOB);
  const { stats } = await client.getStats({}, ROOT);
  assertEquals([stats?.totalDocuments, stats?.totalOperations, stats?.activeLocks], [1n, 1n, 1n]);
  assertEquals((await refusal(client.getStats({}, BOB)))[0], Code.PermissionDenied);
});
