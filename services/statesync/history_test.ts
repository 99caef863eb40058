/** Versions: seen, named, compared, gone back to; edits taken back. */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { assertEquals } from "@std/assert";
import { editOf } from "./testing/edits.ts";
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

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

const edit = (
  world: World,
  docId: string,
  edits: { index?: number; insert?: string; delete?: number }[],
  who = ANN,
) =>
  world.client.applyOperation({
    operation: { docId, type: "text", payload: { case: "text", value: { edits } } },
  }, who);

Deno.test("a version is seen as it was, by its number or a time", async () => {
  await using world = openWorld();
  const { client, clock } = world;
  const docId = await makeDocument(world, { type: "text" });
  const start = clock.wallMs();
  for (const insert of ["a", "b", "c"]) {
    clock.advance(1_000);
    await edit(world, docId, [{ insert }], insert === "b" ? BOB : ANN);
  }
  const at = async (which: { version?: bigint; at?: ReturnType<typeof timestampFromMs> }) => {
    const { version, content } = await client.getVersion({ docId, ...which }, ANN);
    return [Number(version!.version), text(content), version!.authors[0], version!.change];
  };
  assertEquals(await at({ version: 1n }), [1, "", "ann", "created"]);
  assertEquals(await at({ version: 3n }), [3, "ba", "bob", "operation"]);
  assertEquals(await at({ at: timestampFromMs(start + 1_500) }), [2, "a", "ann", "operation"]);
  assertEquals((await refusal(client.getVersion({ docId, version: 9n }, ANN)))[0], Code.NotFound);
  assertEquals(
    (await refusal(client.getVersion({ docId, at: timestampFromMs(start - 1) }, ANN)))[0],
    Code.OutOfRange,
  );
  const { versions, nextPageToken } = await client.listVersions({ docId, pageSize: 3 }, ANN);
  assertEquals(versions.map(({ version }) => Number(version)), [4, 3, 2]);
  const rest = await client.listVersions({ docId, pageSize: 3, pageToken: nextPageToken }, ANN);
  assertEquals(rest.versions.map(({ version }) => Number(version)), [1]);
});

Deno.test("versions have names, which are changed and taken away, and make no version", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  await edit(world, docId, [{ insert: "a" }]);
  assertEquals((await client.nameVersion({ docId, name: "one" }, BOB)).version?.version, 2n);
  await edit(world, docId, [{ insert: "b" }]);
  await client.nameVersion({ docId, version: 1n, name: "empty" }, ANN);
  await client.nameVersion({ docId, version: 2n, name: "two" }, ANN);
  const named = async () =>
    (await client.listVersions({ docId, named: true }, ANN)).versions.map((
      { version, name },
    ) => [Number(version), name]);
  assertEquals(await named(), [[2, "two"], [1, "empty"]]);
  assertEquals((await client.deleteVersionName({ docId, version: 2n }, ANN)).deleted, true);
  assertEquals((await client.deleteVersionName({ docId, version: 2n }, ANN)).deleted, false);
  assertEquals(await named(), [[1, "empty"]]);
  assertEquals((await client.getDocument({ docId }, ANN)).document?.version, 3n);
  assertEquals((await refusal(client.nameVersion({ docId, version: 8n, name: "x" }, ANN)))[0], Code.NotFound);
});

Deno.test("a difference says what changed and by whom", async () => {
  await using world = openWorld();
  const { client } = world;
  const docId = await makeDocument(world, { type: "text" });
  await edit(world, docId, [{ insert: "hello world" }]);
  await edit(world, docId, [{ index: 5, insert: "," }], BOB);
  await edit(world, docId, [{ index: 7, delete: 5 }], ANN);
  const diff = await client.diffVersions({ docId, from: 2n }, ANN);
  assertEquals([diff.from, diff.to], [2n, 4n]);
  assertEquals(diff.text.map(({ kind, text, userId }) => [kind, text, userId]), [
    ["same", "hello", ""],
    ["inserted", ",", "bob"],
    ["same", " ", ""],
    ["deleted", "world", "ann"],
  ]);
  const board = await makeDocument(world);
  const object = (type: string, value: Record<string, unknown>, who = ANN) =>
    client.applyOperation({
      operation: { docId: board, type, payload: { case: "object", value: { objectId: "o", ...value } } },
    }, who);
  await object("create", { kind: "note", x: 1 });
  await object("move", { x: 2 }, BOB);
  const { changes } = await client.diffVersions({ docId: board, from: 2n, to: 3n }, ANN);
  assertEquals(
    changes.map((
      { target, before, after, userId },
    ) => [target, before?.kind.value, after?.kind.value, userId]),
    [
      ["o/x", 1, 2, "bob"],
    ],
  );
  assertEquals(
    (await refusal(client.diffVersions({ docId, from: 3n, to: 2n }, ANN)))[0],
    Code.InvalidArgument,
  );
});

Deno.test("going back makes the old content a new version", async () => {
  await using world = openWorld();
  const docId = await makeDocument(world, { type: "text" });
  await edit(world, docId, [{ insert: "good" }]);
  await edit(world, docId, [{ index: 0, delete: 4, insert: "bad" }], BOB);
  const { document } = await world.client.restoreVersion({ docId, version: 2n }, ANN);
  assertEquals([document?.version, await contentOf(world, docId)], [4n, "good"]);
  const [last] = (await world.client.listVersions({ docId, pageSize: 1 }, ANN)).versions;
  assertEquals([last?.change, last?.authors], ["restored", ["ann"]]);
});

Deno.test("undo takes back one person's last edits and leaves those of others, by operation or by synchronising", async () => {
  await using world = openWorld();
  const { client, clock, module: { live } } = world;
  const docId = await makeDocument(world, { type: "text" });
  await edit(world, docId, [{ insert: "one " }]);
  clock.advance(1_000);
  const bob = toldClient(user("bob"));
  const { document } = await live.join(docId, bob, undefined);
  const own = await editOf(document, "text");
  await document.update(bob, own((doc) => doc.getText("content").insert(4, "two ")));
  clock.advance(1_000);
  await edit(world, docId, [{ index: 8, insert: "three" }]);
  assertEquals(await contentOf(world, docId), "one two three");
  assertEquals((await client.undoEdits({ docId }, ANN)).undone, 1);
  assertEquals(await contentOf(world, docId), "one two ");
  assertEquals((await client.undoEdits({ docId }, ANN)).undone, 1);
  assertEquals(await contentOf(world, docId), "two ");
  assertEquals((await client.undoEdits({ docId }, ANN)).undone, 0);
  assertEquals((await refusal(client.undoEdits({ docId, userId: "ann" }, BOB)))[0], Code.PermissionDenied);
  assertEquals((await client.undoEdits({ docId, userId: "bob", count: 5 }, ANN)).undone, 1);
  assertEquals(await contentOf(world, docId), "");
});
