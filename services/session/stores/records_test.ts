import { assert, assertEquals, assertRejects } from "@std/assert";
import { startRedis } from "../../../tests/support/server.ts";
import { AuthError } from "../auth/errors.ts";
import { recordSuite } from "../testing/record_suite.ts";
import { MemoryRecords } from "./records_memory.ts";
import { openRedisRecords } from "./records_redis.ts";
import { openSqliteRecords } from "./records_sqlite.ts";

Deno.test("records in memory", (t) => recordSuite(t, () => new MemoryRecords()));

Deno.test("records in SQLite", (t) => recordSuite(t, () => openSqliteRecords({ path: ":memory:" })));

Deno.test("records in SQLite are there after a restart, and versions go on", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/users.sqlite`;
    const first = openSqliteRecords({ path });
    await first.commit([{ key: "a", version: 0, value: "1" }, { key: "b", version: 0, value: "2" }]);
    const b = (await first.get("b"))!;
    await first.commit([{ key: "b", version: b.version, value: null }]);
    const a = await first.get("a");
    await first.close();

    const second = openSqliteRecords({ path });
    assertEquals(await second.get("a"), a);
    assertEquals(await second.get("b"), undefined);
    await second.commit([{ key: "b", version: 0, value: "2" }]);
    assert((await second.get("b"))!.version > b.version);
    await second.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a commit that SQLite refuses is neither seen nor kept", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/users.sqlite`;
    const records = openSqliteRecords({ path, maxPages: 8 });
    const value = "x".repeat(8_000);
    let kept = 0;
    const error = await assertRejects(async () => {
      for (;; kept++) await records.commit([{ key: `k${kept}`, version: 0, value }]);
    }, AuthError);
    assertEquals(error.kind, "unavailable");
    assertEquals(await records.get(`k${kept}`), undefined);
    assertEquals((await records.list("k", "", 100)).length, kept);
    await records.close();
    const again = openSqliteRecords({ path });
    assertEquals((await again.list("k", "", 100)).length, kept);
    await again.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

// Its client leaves a timer for a moment.
const LEAVES_A_TIMER = { sanitizeOps: false, sanitizeResources: false };

Deno.test("records in Redis, which two machines share", LEAVES_A_TIMER, async (t) => {
  await using server = await startRedis(t);
  if (server === undefined) return;
  let number = 0;
  const open = (keyPrefix: string) =>
    openRedisRecords({
      nodes: [{ hostname: "127.0.0.1", port: server.port }],
      cluster: false,
      username: "",
      password: "",
      database: 0,
      keyPrefix,
    });
  await recordSuite(t, () => open(`test${++number}:`));
  await t.step("one machine sees at once what the other committed", async () => {
    const [one, other] = [await open("shared:"), await open("shared:")];
    assert(await one.commit([{ key: "a", version: 0, value: "1" }]));
    const seen = (await other.get("a"))!;
    assertEquals(seen.value, "1");
    assert(await other.commit([{ key: "a", version: seen.version, value: null }]));
    assertEquals(await one.get("a"), undefined);
    await one.close();
    await other.close();
  });
  await t.step("without a server every call says so at once", async () => {
    const records = await open("gone:");
    await server.kill();
    const error = await assertRejects(async () => await records.get("a"), AuthError);
    assertEquals(error.kind, "unavailable");
    await records.close();
  });
});
