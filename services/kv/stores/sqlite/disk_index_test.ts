import { assertEquals } from "@std/assert";
import { compactRecord } from "../../record.ts";
import { openSqliteEngine } from "./engine.ts";

const REVISIONS = 12_800;

Deno.test("DiskIndex.purge() keeps up with writers: the more rows wait, the more it looks at", async () => {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-kv-" });
  const { state, store } = openSqliteEngine({
    path: `${directory}/kv.sqlite`,
    index: "disk",
    pageBytes: 4_096,
    cacheBytes: 1 << 20,
    durability: "none",
    intervalMs: 100,
  }, { hash: 1, identity: { clusterId: 1n, memberId: 2n } });
  try {
    for (let i = 0; i < REVISIONS; i++) {
      state.put(Uint8Array.of(i % 8), Uint8Array.of(i & 0xff));
      state.commit();
    }
    await store.durable(store.append(compactRecord(state.revision), []));
    state.compact(state.revision, state.revision);
    // The newest row stays in history, but what it superseded goes.
    assertEquals(state.purgeBacklog, REVISIONS);
    state.purge(2_048);
    assertEquals(state.purgeBacklog, REVISIONS - REVISIONS / 64);
    state.purge(Infinity);
    assertEquals([state.purgeBacklog, state.keyCount, state.historyBytes], [0, 8, 0]);
    state.put(Uint8Array.of(0), Uint8Array.of(1));
    state.put(Uint8Array.of(1), Uint8Array.of(1));
    state.commit();
    await store.durable(store.append(compactRecord(state.revision), []));
    state.compact(state.revision, state.revision);
    // Few wait: they go at once.
    state.purge(2_048);
    assertEquals(state.purgeBacklog, 0);
  } finally {
    await store.close();
    await Deno.remove(directory, { recursive: true });
  }
});
