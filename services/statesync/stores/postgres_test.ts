/** The PostgreSQL store on a real server, alone and with others beside it, through its death and return. */
import { POSTGRES_LOGIN, type Server, startPostgres } from "../../../tests/support/server.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { PostgresClient, PostgresError } from "../../../storage/postgres/mod.ts";
import { StateSyncError } from "../errors.ts";
import type { Change, DocumentStore } from "../store.ts";
import { changeOf, creationOf, documentOf, idOf, lockOf, removalOf } from "../testing/builders.ts";
import { storeSuite } from "../testing/store_suite.ts";
import { openPostgresStore, type PostgresStoreOptions } from "./postgres.ts";

let schemas = 0;

interface Opened extends AsyncDisposable {
  readonly store: DocumentStore;
  readonly schema: string;
}

/** An empty store: its schema is nobody else's, unless one is given. */
async function open(
  server: Server,
  more: Partial<PostgresStoreOptions["postgres"]> = {},
): Promise<Opened> {
  const schema = more.schema ?? `test_${++schemas}`;
  const store = await openPostgresStore({
    postgres: {
      host: "127.0.0.1",
      port: server.port,
      ...POSTGRES_LOGIN,
      connections: 4,
      statementTimeoutMs: 10_000,
      ssl: "disable",
      ...more,
      schema,
    },
    clock: performance,
  });
  return { store, schema, [Symbol.asyncDispose]: () => store.close() };
}

Deno.test("the PostgreSQL store", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await storeSuite(t, () => open(server));
});

/** Asks the server by another way than the store under test, in the store's schema. */
function asked(server: Server, schema: string, statementTimeoutMs = 10_000): PostgresClient {
  return new PostgresClient({
    host: "127.0.0.1",
    port: server.port,
    ...POSTGRES_LOGIN,
    schema,
    connections: 2,
    statementTimeoutMs,
    ssl: "disable",
    applicationName: "test",
  });
}

type Notice = readonly [docId: string, offset: number, sequence: number];

/** What a store tells of others' commits, with a way to wait for so many. */
function heard(
  store: DocumentStore,
): { notices: Notice[]; gaps(): number; until(count: number): Promise<void> } {
  const notices: Notice[] = [];
  let gaps = 0;
  let changed = () => {};
  store.onForeign = (docId, offset, sequence) => {
    notices.push([docId, offset, sequence]);
    changed();
  };
  store.onForeignGap = () => {
    gaps++;
    changed();
  };
  return {
    notices,
    gaps: () => gaps,
    async until(count) {
      while (notices.length + gaps < count) await new Promise<void>((resolve) => changed = resolve);
    },
  };
}

async function kindsOf(store: DocumentStore, changes: readonly Change[]): Promise<string[]> {
  return (await store.commit(changes)).map(({ kind }) => kind);
}

Deno.test("two PostgreSQL stores on one database", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await t.step(
    "say that a document is behind when the other one was faster, which is no failure",
    async () => {
      await using one = await open(server);
      await using two = await open(server, { schema: one.schema });
      assertEquals(one.store.epoch, two.store.epoch);
      const record = documentOf(1);
      assertEquals(await kindsOf(one.store, [creationOf(record)]), ["done"]);
      assertEquals(await kindsOf(two.store, [creationOf(record)]), ["exists"]);
      const change = changeOf(record);
      assertEquals(await kindsOf(two.store, [change]), ["done"]);
      assertEquals(await kindsOf(one.store, [change, creationOf(documentOf(2))]), ["behind", "done"]);
      assertEquals(await one.store.record(record.id), change.record);
      assertEquals(one.store.stats().failures, 0);
      assertEquals(await kindsOf(one.store, [removalOf(change.record)]), ["done"]);
      assertEquals(await kindsOf(two.store, [changeOf(change.record)]), ["behind"]);
      assertEquals(await kindsOf(two.store, [creationOf(record)]), ["done"]);
    },
  );
  await t.step("tell one another of their commits, in the order of sequences", async () => {
    await using one = await open(server);
    await using two = await open(server, { schema: one.schema });
    const others = heard(two.store), own = heard(one.store);
    const [first, second] = [documentOf(1), documentOf(2, { id: 'é"\\\uffff' })];
    await one.store.commit([creationOf(first), creationOf(second), changeOf(second, 2)]);
    await two.store.commit([changeOf(first)]);
    await one.store.commit([removalOf(changeOf(first).record), changeOf(documentOf(9))]);
    await others.until(3);
    await own.until(1);
    assertEquals(others.notices, [[first.id, 1, 1], [second.id, 3, 4], [first.id, 0, 6]]);
    assertEquals(own.notices, [[first.id, 2, 5]]);
    assertEquals([others.gaps(), own.gaps()], [0, 0]);
  });
  await t.step("give sequences that no reader finds a hole in later", async () => {
    await using one = await open(server);
    await using two = await open(server, { schema: one.schema });
    const records = new Map([1, 2, 3, 4].map((n) => [n, documentOf(n)]));
    const others = heard(two.store);
    await one.store.commit([...records.values()].map(creationOf));
    await others.until(4);
    others.notices.length = 0;
    let isDone = false;
    // Both write documents of their own, and read what both wrote.
    const write = async (store: DocumentStore, mine: readonly number[]) => {
      for (let round = 0; round < 25; round++) {
        const changes = mine.map((n) => changeOf(records.get(n)!, 1 + round % 3));
        for (const [i, n] of mine.entries()) records.set(n, changes[i]!.record);
        assertEquals(new Set(await kindsOf(store, changes)), new Set(["done"]));
      }
    };
    const read: number[] = [];
    const reading = (async () => {
      for (let from = 1;;) {
        const wasDone = isDone;
        const entries = await one.store.entriesBySequence(from, 1_000);
        read.push(...entries.map(({ sequence }) => sequence));
        from = (read.at(-1) ?? 0) + 1;
        if (wasDone && entries.length === 0) return;
      }
    })();
    await Promise.all([write(one.store, [1, 2]), write(two.store, [3, 4])]);
    isDone = true;
    await reading;
    const { last } = await one.store.sequences();
    assertEquals(read, Array.from({ length: last }, (_, i) => i + 1));
    await others.until(50);
    const told = others.notices.map(([, , sequence]) => sequence);
    assertEquals(told, told.toSorted((a, b) => a - b));
    assertEquals(others.notices.every(([id]) => id === documentOf(1).id || id === documentOf(2).id), true);
  });
  await t.step("race for the same documents, and each change is of exactly one of them", async () => {
    await using one = await open(server);
    await using two = await open(server, { schema: one.schema });
    const ids = [1, 2, 3, 4, 5, 6];
    await one.store.commit(ids.map((n) => creationOf(documentOf(n))));
    const race = async (store: DocumentStore, userId: string, order: readonly number[]) => {
      let won = 0;
      for (let round = 0; round < 15; round++) {
        const records = await Promise.all(order.map(async (n) => (await store.record(documentOf(n).id))!));
        const changes = records.map((record) =>
          changeOf(record, 1, { record: { ...record, updatedBy: userId } })
        );
        won += (await kindsOf(store, changes)).filter((kind) => kind === "done").length;
      }
      return won;
    };
    const wins = await Promise.all([
      race(one.store, "one", ids),
      race(two.store, "two", ids.toReversed()),
      race(two.store, "three", [4, 1, 6]),
    ]);
    let entries = 0;
    for (const n of ids) {
      const { record, updates, oldestOffset } = (await one.store.load(documentOf(n).id))!;
      assertEquals(oldestOffset, 1);
      assertEquals(
        updates.map(({ offset }) => offset),
        Array.from({ length: record.offset }, (_, i) => i + 1),
      );
      entries += record.offset - 1;
      assert(
        ["one", "two", "three", "ann"].includes(record.updatedBy),
        "who changed it, and not a system user",
      );
    }
    assertEquals(entries, wins.reduce((sum, count) => sum + count, 0));
  });
  await t.step("make the same document, and one of them did", async () => {
    await using one = await open(server);
    await using two = await open(server, { schema: one.schema });
    for (let n = 0; n < 10; n++) {
      const record = documentOf(n);
      const kinds = await Promise.all(
        [one, two].map(({ store }, i) =>
          kindsOf(store, [
            creationOf({ ...record, name: String(i) }),
            creationOf(documentOf(100 + 2 * n + i)),
          ])
        ),
      );
      assertEquals(kinds.map(([kind]) => kind).sort(), ["done", "exists"], String(n));
      assertEquals(kinds.map(([, kind]) => kind), ["done", "done"]);
      assertEquals((await one.store.record(record.id))?.name, kinds[0]![0] === "done" ? "0" : "1");
    }
  });
});

Deno.test("the PostgreSQL store and its tables", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await t.step("are made once by two stores that open at the same time, and opened again later", async () => {
    const schema = "at_once";
    {
      await using one = await open(server, { schema });
      await one.store.commit([creationOf(documentOf(1))]);
    }
    const opened = await Promise.all([1, 2, 3].map(() => open(server, { schema: "fresh" })));
    assertEquals(new Set(opened.map(({ store }) => store.epoch)).size, 1);
    for (const { store } of opened) await store.close();
    await using again = await open(server, { schema });
    assertEquals((await again.store.record(documentOf(1).id))?.offset, 1);
    const client = asked(server, schema);
    assertEquals(
      (await client.query("SELECT version, name FROM schema_migrations")).map((row) => ({ ...row })),
      [
        { version: 1, name: "documents" },
      ],
    );
    await client.query("INSERT INTO schema_migrations (version, name) VALUES (99, 'of the future')");
    const error = await assertRejects(() => open(server, { schema }), PostgresError) as PostgresError;
    assertEquals(error.code, "version");
    await client.close();
  });
  await t.step("refuse what is no document, entry or lock of one", async () => {
    await using opened = await open(server);
    await opened.store.commit([creationOf(documentOf(1))]);
    const client = asked(server, opened.schema);
    const states = [];
    for (
      const statement of [
        "UPDATE documents SET state = 'lost'",
        "UPDATE documents SET version = 0",
        "INSERT INTO locks VALUES (-1, '', 'x', '{}')",
        "INSERT INTO entries (sequence, position, version, is_version, type, id, user_id, at_ms) VALUES (9, 1, 1, true, '', '', '', 1)",
        "INSERT INTO totals (is_only, epoch, sequence) VALUES (true, '', 0)",
      ]
    ) {
      const error = await assertRejects(() => client.query(statement), PostgresError) as PostgresError;
      states.push(error.sqlState);
    }
    assertEquals(states, ["23514", "23514", "23503", "23514", "23505"]);
    await client.close();
  });
  await t.step("let nobody be blocked by a lock whose time is up", async () => {
    await using opened = await open(server);
    const { store } = opened;
    const record = documentOf(1);
    await store.commit([creationOf(record)]);
    for (let n = 1; n <= 3; n++) {
      const lock = lockOf(record.id, "", { id: idOf(n, "46"), userId: `user ${n}`, expiresAtMs: 1 });
      assertEquals(await kindsOf(store, [changeOf(record, [], { putLocks: [lock] })]), ["done"]);
      assertEquals(await store.locks(), [lock]);
    }
  });
});

Deno.test("the PostgreSQL store gives up what takes too long, and goes on", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await using opened = await open(server, { statementTimeoutMs: 400 });
  const { store } = opened;
  const record = documentOf(1);
  await store.commit([creationOf(record)]);
  const client = asked(server, opened.schema, 60_000);
  // Somebody holds the row for as long as the statement runs.
  const holding = client.query(
    "WITH held AS MATERIALIZED (SELECT id FROM documents FOR UPDATE) SELECT pg_sleep(60) FROM held",
  );
  while ((await client.query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")).length === 0);
  const error = await assertRejects(() => store.commit([changeOf(record)]), StateSyncError) as StateSyncError;
  assertEquals([error.kind, error.code], ["unavailable", "unavailable"]);
  assertEquals(store.stats().failures, 1);
  assertEquals((await store.record(record.id))?.offset, 1, "reading goes on");
  await client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
  await assertRejects(() => holding, PostgresError);
  assertEquals(await kindsOf(store, [changeOf(record)]), ["done"]);
  await client.close();
});

Deno.test("the PostgreSQL store loses nothing that it acknowledged when the server is killed", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await using one = await open(server, { statementTimeoutMs: 5_000 });
  await using two = await open(server, { schema: one.schema, statementTimeoutMs: 5_000 });
  const others = heard(two.store);
  let record = documentOf(1);
  await one.store.commit([creationOf(record)]);
  for (const end of ["kill", "stop", "kill"] as const) {
    const gapsBefore = others.gaps();
    const ending = (async () => {
      // In the middle of the commits below.
      await others.until(others.notices.length + others.gaps() + 3);
      await server[end]();
      await server.restart();
    })();
    let isOver = false;
    ending.finally(() => isOver = true);
    let written = 0, refused = 0;
    while (!isOver || refused + written === 0) {
      const change = changeOf(record);
      try {
        const [result] = await one.store.commit([change]);
        assertEquals(result?.kind, "done", `${end}, after ${written}`);
        record = change.record;
        written++;
      } catch (error) {
        assert(error instanceof StateSyncError && error.code === "unavailable", String(error));
        // Whether the last one was written is open: what is there tells.
        const there = await whenThere(() => one.store.record(record.id));
        assert(
          there!.offset >= record.offset,
          `${end}: ${record.offset} was acknowledged, ${there!.offset} is there`,
        );
        record = there!;
        refused++;
      }
    }
    await ending;
    assert(written > 0, end);
    const loaded = (await whenThere(() => one.store.load(record.id)))!;
    assertEquals(loaded.record, record);
    assertEquals(loaded.updates.length, record.offset);
    // The other one hears again, and knows that it missed something.
    while (others.gaps() === gapsBefore) await others.until(others.notices.length + others.gaps() + 1);
    others.notices.length = 0;
    const change = changeOf(record);
    assertEquals(await kindsOf(one.store, [change]), ["done"]);
    record = change.record;
    while (others.notices.at(-1)?.[1] !== record.offset) {
      await others.until(others.notices.length + others.gaps() + 1);
    }
  }
});

/** A way to the server that can be cut: the request arrives, its answer does not. */
function cuttable(server: Server): Disposable & { readonly port: number; cutAtNextAnswer(): void } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connections = new Set<Deno.Conn>();
  let isCutting = false;
  const close = (connection: Deno.Conn) => {
    if (connections.delete(connection)) connection.close();
  };
  const copy = async (from: Deno.Conn, to: Deno.Conn, isAnswer: boolean) => {
    const chunk = new Uint8Array(65_536);
    try {
      for (;;) {
        const length = await from.read(chunk);
        if (length === null || (isAnswer && isCutting)) break;
        for (let at = 0; at < length;) at += await to.write(chunk.subarray(at, length));
      }
    } catch (error) {
      // The other direction has ended the connection.
      if (connections.has(from) && connections.has(to)) throw error;
    }
    isCutting &&= !isAnswer;
    close(from);
    close(to);
  };
  (async () => {
    for await (const client of listener) {
      const upstream = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
      connections.add(client).add(upstream);
      copy(client, upstream, false);
      copy(upstream, client, true);
    }
  })();
  return {
    port: listener.addr.port,
    cutAtNextAnswer: () => isCutting = true,
    [Symbol.dispose]() {
      listener.close();
      for (const connection of connections) close(connection);
    },
  };
}

Deno.test("the PostgreSQL store finds out whether a commit was written whose answer was lost", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  using way = cuttable(server);
  // Two connections: the listener's stays silent, and so the next answer is that of the commit.
  await using opened = await open(server, { port: way.port, connections: 2 });
  const { store } = opened;
  const record = documentOf(1), other = documentOf(2);
  await store.commit([creationOf(record), creationOf(other)]);
  const cases: readonly (readonly [Change[], string[]])[] = [
    [[changeOf(record, 2), changeOf({ ...other, offset: 7 })], ["done", "behind"]],
    [[creationOf(documentOf(3))], ["done"]],
    [[changeOf(other, [], { record: { ...other, openConflicts: 4 } })], ["done"]],
    [[removalOf(changeOf(record, 2).record)], ["done"]],
  ];
  for (const [changes, kinds] of cases) {
    // The statement is known to the connection, so that it has one answer.
    await store.commit([changeOf(documentOf(9))]);
    const { last } = await store.sequences();
    const entries = changes.reduce(
      (sum, change, i) => sum + (kinds[i] === "done" ? change.entries.length : 0),
      0,
    );
    way.cutAtNextAnswer();
    const results = await store.commit(changes);
    assertEquals(results.map(({ kind }) => kind), kinds);
    assertEquals(results[0], { kind: "done", sequence: last + Math.min(1, entries) });
    assertEquals((await store.sequences()).last, last + entries, "written once");
  }
  assertEquals((await store.record(other.id))?.openConflicts, 4);
  assertEquals(await store.record(record.id), undefined);
});

/** Asks until the server is there. */
async function whenThere<T>(ask: () => T | Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof StateSyncError) || error.kind !== "unavailable") throw error;
    }
  }
}

Deno.test("the PostgreSQL store says at once that nobody answers, and what the server does not like", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  // A commit under way when the server dies is in doubt, and tried for that long.
  await using opened = await open(server, { statementTimeoutMs: 500 });
  const wrong = await assertRejects(
    () => open(server, { password: "another" }),
    PostgresError,
  ) as PostgresError;
  assertEquals([wrong.code, wrong.sqlState], ["refused", "28P01"]);
  const absent = await assertRejects(
    () => open(server, { database: "absent" }),
    PostgresError,
  ) as PostgresError;
  assertEquals([absent.code, absent.sqlState], ["refused", "3D000"]);
  const plain = await assertRejects(() => open(server, { ssl: "require" }), PostgresError) as PostgresError;
  assertEquals(plain.code, "unavailable");
  await server.kill();
  for (
    const ask of [
      () => opened.store.commit([creationOf(documentOf(1))]),
      async () => await opened.store.load("x"),
      async () => await opened.store.counts(),
      () => opened.store.putSnapshot("x", { offset: 1, version: 1, state: new Uint8Array(1) }),
    ]
  ) {
    const error = await assertRejects(ask, StateSyncError) as StateSyncError;
    assertEquals(error.kind, "unavailable");
  }
});
