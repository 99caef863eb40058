/** The engine on a real server, without any service. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { POSTGRES_LOGIN, type Server, startPostgres } from "../../tests/support/server.ts";
import {
  arrayText,
  bytesArrayText,
  migrate,
  openListener,
  originalText,
  PostgresClient,
  PostgresError,
  type PostgresOptions,
  storableText,
} from "./mod.ts";

function optionsOf(server: Server, more: Partial<PostgresOptions> = {}): PostgresOptions {
  return {
    host: "127.0.0.1",
    port: server.port,
    ...POSTGRES_LOGIN,
    schema: "public",
    connections: 3,
    statementTimeoutMs: 5_000,
    ssl: "disable",
    applicationName: "test",
    ...more,
  };
}

async function refusal(run: () => Promise<unknown>): Promise<PostgresError> {
  return await assertRejects(run, PostgresError) as PostgresError;
}

Deno.test("storableText() has no NUL, keeps order and equality, and is undone", () => {
  const texts = [
    "",
    "\0",
    "\x000",
    "\0a",
    "\x01",
    "a",
    "a\0",
    "a\0b",
    "\ufffe",
    "\uffff",
    "\uffff0",
    "\uffff1",
    "😀",
  ];
  for (const text of texts) {
    assert(!storableText(text).includes("\0"));
    assertEquals(originalText(storableText(text)), text);
  }
  assertEquals(new Set(texts.map(storableText)).size, texts.length);
});

Deno.test("PostgresClient on a server", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  await t.step("gives back what it was given", async () => {
    const client = new PostgresClient(optionsOf(server));
    const texts = ['"', "\\", "{}", ",", "null", "NULL", "", " ", "é😀\n"];
    const bytes = [new Uint8Array(0), undefined, new Uint8Array([0, 255, 92, 34])];
    const [row] = await client.query(
      `SELECT to_json($1::text[]) AS texts, ($2::bytea[])[1] AS a, ($2::bytea[])[2] AS b, ($2::bytea[])[3] AS c,
        9007199254740991::bigint AS large, 18446744073709551615::numeric AS larger, $3::bigint AS given`,
      [arrayText(texts), bytesArrayText(bytes), 2 ** 53 - 1],
    );
    const { a, b, c, ...rest } = row as Record<string, unknown>;
    assertEquals(JSON.parse(rest.texts as string), texts);
    assertEquals(
      [a, b, c].map((value) => value === null ? undefined : new Uint8Array(value as Uint8Array)),
      bytes,
    );
    assertEquals([rest.large, rest.larger, rest.given], [2 ** 53 - 1, "18446744073709551615", 2 ** 53 - 1]);
    await client.close();
    await client.close();
    assertEquals((await refusal(() => client.query("SELECT 1"))).code, "unavailable");
  });
  await t.step("has no more connections than it may", async () => {
    const client = new PostgresClient(optionsOf(server, { applicationName: "bounded" }));
    const answers = await Promise.all(Array.from({ length: 200 }, () =>
      client.query(
        "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name = 'bounded'",
      )));
    assertEquals(Math.max(...answers.map(([row]) => row!.count as number)), 3);
    await client.close();
  });
  await t.step("refuses statements beyond those that may wait", async () => {
    const client = new PostgresClient(optionsOf(server));
    const waiting = Array.from({ length: 10_000 }, () => client.query("SELECT 1"));
    const error = await refusal(() => client.query("SELECT 1"));
    assertEquals([error.code, error.message], ["unavailable", "10000 statements wait for the server"]);
    assertEquals((await Promise.all(waiting)).length, 10_000);
    await client.close();
  });
  await t.step("ends what takes too long, and goes on", async () => {
    const client = new PostgresClient(optionsOf(server, { statementTimeoutMs: 200 }));
    assertEquals((await refusal(() => client.query("SELECT pg_sleep(60)"))).code, "timeout");
    assertEquals((await client.query("SELECT 1 AS one"))[0]?.one, 1);
    await client.close();
  });
  await t.step("leaves a server that has become silent, and tells those who wait", async () => {
    // Takes connections, and never says a word.
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const taken: Deno.Conn[] = [];
    (async () => {
      for await (const connection of silent) taken.push(connection);
    })();
    const client = new PostgresClient(optionsOf(server, { port: silent.addr.port, statementTimeoutMs: 100 }));
    const error = await refusal(() => client.query("SELECT 1"));
    assertEquals([error.code, error.isUncertain], ["unavailable", true]);
    await client.close();
    for (const connection of taken) connection.close();
  });
  await t.step("works where no variable of the environment may be read", async () => {
    const worker = new Worker(new URL("../testing/postgres_worker.ts", import.meta.url), {
      type: "module",
      deno: {
        permissions: { net: [server.address], env: false, read: false, sys: false, run: false, write: false },
      },
    });
    const answer = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
      worker.postMessage(optionsOf(server));
    });
    worker.terminate();
    assertEquals(answer, "the schema is public");
  });
});

Deno.test("migrate() does each migration once, all of it or nothing", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  const options = optionsOf(server, { schema: "some_schema" });
  const first = { version: 1, name: "it's the first", sql: "CREATE TABLE a (x int)" };
  const second = { version: 2, name: "second", sql: "ALTER TABLE a ADD y int; CREATE TABLE b (x int)" };
  const broken = { version: 2, name: "broken", sql: "CREATE TABLE b (x int); SELECT 1 / 0" };
  const done = await Promise.all([1, 2, 3].map(() => migrate(options, [first])));
  assertEquals(done.sort(), [0, 0, 1]);
  assertEquals((await refusal(() => migrate(options, [first, broken]))).sqlState, "22012");
  assertEquals(await migrate(options, [first, second]), 1);
  assertEquals(await migrate(options, [first, second]), 0);
  const error = await refusal(() => migrate(options, [first]));
  assertEquals([error.code, error.message], [
    "version",
    "schema some_schema has version 2, this program knows 1: use the newer program",
  ]);
});

Deno.test("a listener hears what is said, and says when it may have missed something", async (t) => {
  await using server = await startPostgres(t);
  if (server === undefined) return;
  const options = optionsOf(server);
  let told: string[] = [];
  let changed = () => {};
  const tell = (text: string) => {
    told.push(text);
    changed();
  };
  const next = async (text: string) => {
    while (told.at(-1) !== text) await new Promise<void>((resolve) => changed = resolve);
    const all = told;
    told = [];
    return all;
  };
  const client = new PostgresClient(options);
  const say = (text: string) => client.query("SELECT pg_notify('room', $1::text)", [text]);
  const listener = await openListener(options, "room", { onNotice: tell, onGap: () => tell("(gap)") });
  await Promise.all(["a", "b"].map(say));
  await say("c");
  assertEquals((await next("c")).sort(), ["a", "b", "c"]);
  // One session ends; then the whole server.
  await client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'");
  assertEquals(await next("(gap)"), ["(gap)"]);
  await say("d");
  assertEquals(await next("d"), ["d"]);
  await server.kill();
  await server.restart();
  assertEquals(await next("(gap)"), ["(gap)"]);
  await say("e").catch(() => say("e"));
  assertEquals(await next("e"), ["e"]);
  await listener.close();
  await listener.close();
  await client.close();
  await server.stop();
  const error = await refusal(() => openListener(options, "room", { onNotice: tell, onGap: () => tell("") }));
  assertEquals([error.code, error.isUncertain], ["unavailable", false]);
});
