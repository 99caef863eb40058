import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { SqliteError } from "../../../storage/sqlite/mod.ts";
import { SessionError } from "../errors.ts";
import type { SessionStore } from "../store.ts";
import {
  newSession,
  type OpenedStore,
  sessionOf,
  storeSuite,
  SUITE_BOUNDS,
  SUITE_START_MS as T,
  tokenOf,
  watched,
} from "../testing/store_suite.ts";
import { openSqliteStore, type SqliteStoreOptions } from "./sqlite.ts";

function open(path: string, more: Partial<SqliteStoreOptions> = {}): SessionStore {
  return openSqliteStore({
    ...SUITE_BOUNDS,
    path,
    durability: "always",
    intervalMs: 100,
    nowMs: T,
    epochsKeptMs: 1_000_000,
    clock: performance,
    ...more,
  });
}

async function inDirectory(test: (path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-sessions-" });
  try {
    await test(`${directory}/sessions.sqlite`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Copies of the file and its log as they are on disk now: what a crash would leave. */
async function crashed(path: string, to: string): Promise<void> {
  await Deno.copyFile(path, to);
  await Deno.copyFile(`${path}-wal`, `${to}-wal`);
}

for (const durability of ["always", "interval", "none"] as const) {
  Deno.test(`the SQLite store, durability ${durability}`, (t) =>
    storeSuite(t, async (): Promise<OpenedStore> => {
      const directory = await Deno.makeTempDir({ prefix: "aetherflow-sessions-" });
      const store = open(`${directory}/sessions.sqlite`, { durability, intervalMs: 1 });
      return {
        store,
        async [Symbol.asyncDispose]() {
          await store.close();
          await Deno.remove(directory, { recursive: true });
        },
      };
    }));
}

Deno.test("the SQLite store has after a restart what it had before", () =>
  inDirectory(async (path) => {
    const first = open(path);
    const hidden = new Uint8Array([1, 0, 2]);
    for (let n = 1; n <= 4; n++) await first.create(newSession(n, {}, { hidden }), T);
    const stats = {
      packetsSent: 2n ** 63n,
      packetsReceived: 0n,
      bytesSent: 0n,
      bytesReceived: 0n,
      retransmissions: 0n,
      currentRttMs: 7,
    };
    await first.update(sessionOf(2).id, T, (session) => ({ ...session, state: "idle", stats }));
    await first.compareAndSetHidden(sessionOf(2).id, 1, new Uint8Array(3), T);
    await first.end(sessionOf(3).id, T, "");
    await first.create(newSession(9, { userId: "bob" }), T);
    await first.revokeUser("bob", T, "", undefined);
    const epoch = await first.userEpoch("bob");
    // A use within the lag is not written, but kept at a regular end.
    await first.use(sessionOf(1).id, T + 1);
    await first.use(sessionOf(1).id, T + 2);
    await first.close();
    await first.close();

    const second = open(path, { nowMs: T + 10 });
    const { sessions, total } = await second.list({}, "", 10, T + 10);
    assertEquals(total, 3);
    assertEquals(sessions, [
      sessionOf(1, { state: "active", lastActiveMs: T + 2 }),
      sessionOf(2, { state: "idle", stats }),
      sessionOf(4),
    ]);
    assertEquals(await second.readHidden(sessionOf(2).id, T + 10), { bytes: new Uint8Array(3), version: 2 });
    assertEquals(await second.readHidden(sessionOf(4).id, T + 10), { bytes: hidden, version: 1 });
    assertEquals((await second.getByToken(tokenOf(4), T + 10))?.id, sessionOf(4).id);
    assertEquals(await second.userEpoch("bob"), epoch);
    assertEquals(await second.create(newSession(9, { userId: "bob" }, { userEpoch: 0 }), T + 10), "revoked");
    await second.close();
  }));

Deno.test("the SQLite store loses nothing that it acknowledged when it is killed", () =>
  inDirectory(async (path) => {
    const store = open(path);
    await store.create(newSession(1), T);
    await store.create(newSession(2), T);
    await store.create(newSession(3, { userId: "bob" }), T);
    await store.end(sessionOf(1).id, T, "");
    await store.revokeUser("bob", T, "", undefined);
    await store.use(sessionOf(2).id, T + 1);
    await store.end(sessionOf(9).id, T, "");
    // Within the lag: may be lost.
    await store.use(sessionOf(2).id, T + 15_000);
    await crashed(path, `${path}.copy`);
    const copy = open(`${path}.copy`, { nowMs: T + 20_000 });
    assertEquals((await copy.list({}, "", 10, T + 20_000)).sessions, [
      sessionOf(2, { state: "active", lastActiveMs: T + 1 }),
    ]);
    assertEquals(await copy.create(newSession(5, { userId: "bob" }, { userEpoch: 0 }), T), "revoked");
    await copy.close();
    await store.use(sessionOf(2).id, T + 16_001);
    await store.end(sessionOf(9).id, T, "");
    await crashed(path, `${path}.late`);
    const late = open(`${path}.late`, { nowMs: T + 20_000 });
    assertEquals((await late.get(sessionOf(2).id, T + 20_000))?.lastActiveMs, T + 16_001);
    await late.close();
    await store.close();
  }));

Deno.test("the SQLite store answers when a change is kept, one commit for all that wait", () =>
  inDirectory(async (path) => {
    const store = open(path);
    const answers = Array.from({ length: 20 }, (_, n) => store.create(newSession(n, { userId: `u${n}` }), T));
    assertEquals(store.isKept, false);
    assertEquals(store.stats().groups, 0);
    assertEquals(new Set(await Promise.all(answers)), new Set(["created"]));
    assertEquals([store.isKept, store.stats().groups, store.stats().writes], [true, 1, 20]);
    // Uses within the lag write nothing.
    for (let i = 0; i < 10; i++) await store.useByToken(tokenOf(1), T + i);
    assertEquals(store.stats().writes, 21);
    await store.close();
  }));

Deno.test("the SQLite store brings times back that a wrong clock wrote", () =>
  inDirectory(async (path) => {
    const store = open(path);
    const ahead = T + 1_000_000_000;
    await store.create(
      newSession(1, { createdAtMs: ahead, lastActiveMs: ahead, endsAtMs: ahead + 600_000 }),
      ahead,
    );
    await store.close();
    const again = open(path);
    assertEquals(await again.get(sessionOf(1).id, T), sessionOf(1));
    assertEquals(await again.get(sessionOf(1).id, T + 60_000), undefined);
    await again.close();
  }));

Deno.test("the SQLite store tells after a restart of what ran out meanwhile", () =>
  inDirectory(async (path) => {
    const store = open(path);
    for (let n = 1; n <= 3; n++) await store.create(newSession(n), T);
    await store.close();
    const { store: again, changes } = watched(open(path, { nowMs: T + 60_000 }));
    assertEquals(await again.get(sessionOf(1).id, T + 60_000), undefined);
    assertEquals(await again.expire(T + 60_000, 100), false);
    assertEquals(changes().map(({ type }) => type), ["expired", "expired", "expired"]);
    await again.close();
    const { store: third, changes: later } = watched(open(path, { nowMs: T + 60_000 }));
    assertEquals(await third.expire(T + 60_000, 100), false);
    assertEquals(later(), []);
    await third.close();
  }));

Deno.test("the SQLite store forgets old epochs", () =>
  inDirectory(async (path) => {
    const store = open(path);
    await store.revokeUser("ann", T, "", undefined);
    await store.close();
    const again = open(path, { nowMs: T + 1_000_001 });
    assertEquals(await again.userEpoch("ann"), 0);
    await again.close();
  }));

Deno.test("the SQLite store that is full says so, acknowledges nothing that is lost, and goes on reading", () =>
  inDirectory(async (path) => {
    const store = open(path, { maxPages: 20, sessionsMax: 1_000, perUserMax: 1_000 });
    const { changes } = watched(store);
    const metadata = { filler: "x".repeat(1_000) };
    let kept = 0;
    const refused = await assertRejects(async () => {
      for (let n = 1; n <= 200; n++, kept++) await store.create(newSession(n, { metadata }), T);
    }, SessionError) as SessionError;
    assertEquals([refused.kind, refused.code], ["readOnly", "unavailable"]);
    assert(kept > 10, `${kept} fit`);
    assert(store.failure !== undefined);
    assertThrows(() => store.end(sessionOf(1).id, T, ""), SessionError);
    assertEquals(await store.get(sessionOf(1).id, T), sessionOf(1, { metadata }));
    changes();
    assertEquals(await store.get(sessionOf(1).id, T + 60_000), undefined);
    assertEquals(changes().length, 1);
    await store.close();
    const again = open(path);
    assertEquals((await again.list({}, "", 1, T)).total, kept);
    await again.close();
  }));

Deno.test("the SQLite store refuses a second owner", () =>
  inDirectory(async (path) => {
    const store = open(path);
    const error = assertThrows(() => open(path), SqliteError) as SqliteError;
    assertEquals(error.code, "in_use");
    await store.close();
  }));

Deno.test("the SQLite store keeps its word wherever its file stops growing", () =>
  inDirectory(async (path) => {
    const metadata = { filler: "x".repeat(500) };
    let stopped = 0;
    for (let maxPages = 6; maxPages <= 40; maxPages += 3) {
      const file = `${path}.${maxPages}`;
      // What was acknowledged.
      const there = new Set<number>(), gone = new Set<number>();
      let store: SessionStore;
      try {
        store = open(file, { maxPages, sessionsMax: 1_000, perUserMax: 1_000 });
      } catch (error) {
        assert(error instanceof SqliteError);
        continue;
      }
      try {
        for (let n = 1; n <= 120; n += 4) {
          const created = [n, n + 1, n + 2, n + 3].map(async (id) =>
            await store.create(newSession(id, { metadata, userId: `user ${n % 12}` }), T)
          );
          await Promise.all(created);
          for (let id = n; id < n + 4; id++) there.add(id);
          // Asked to end, it may be either way until that is acknowledged.
          there.delete(n);
          await store.end(sessionOf(n).id, T, "");
          gone.add(n);
        }
      } catch (error) {
        assert(error instanceof SessionError && error.kind === "readOnly", String(error));
        stopped++;
      }
      await store.close();
      const again = open(file, { sessionsMax: 1_000, perUserMax: 1_000 });
      for (const n of there) {
        assert(await again.get(sessionOf(n).id, T) !== undefined, `${maxPages} pages: ${n} is lost`);
      }
      for (const n of gone) {
        assertEquals(await again.get(sessionOf(n).id, T), undefined, `${maxPages} pages: ${n} is back`);
      }
      await again.close();
    }
    assert(stopped > 3, `${stopped} runs met the bound`);
  }));
