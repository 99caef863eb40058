import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Database, type DatabaseOptions, openDatabase, SqliteError } from "./mod.ts";

function options(directory: string, more: Partial<DatabaseOptions> = {}): DatabaseOptions {
  return {
    path: `${directory}/data.sqlite`,
    applicationId: 0x7465_7374,
    formatVersion: 1,
    pageBytes: 4_096,
    cacheBytes: 65_536,
    isSynced: true,
    create: (database) => database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)"),
    ...more,
  };
}

async function inDirectory(test: (directory: string) => void | Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-sqlite-" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function refusal(run: () => unknown): SqliteError {
  return assertThrows(run, SqliteError) as SqliteError;
}

Deno.test("openDatabase() keeps what was committed and refuses a second owner", () =>
  inDirectory((directory) => {
    const first = openDatabase(options(directory));
    first.begin();
    const insert = first.prepare("INSERT INTO t VALUES (?, ?)");
    insert.run(2 ** 40, new Uint8Array(0));
    first.commit();
    first.begin();
    insert.run(2, null);
    assertEquals(refusal(() => openDatabase(options(directory))).code, "in_use");
    first.close();
    first.close();

    const second = openDatabase(options(directory));
    assertEquals(second.prepare("SELECT id, v FROM t").all().map((row) => [...row]), [[
      2 ** 40,
      new Uint8Array(0),
    ]]);
    assertEquals(second.pragma("synchronous"), 2);
    second.close();
  }));

Deno.test("openDatabase() refuses other programs' files, other versions and damage, and changes nothing", () =>
  inDirectory(async (directory) => {
    openDatabase(options(directory)).close();
    const path = `${directory}/data.sqlite`;
    const before = await Deno.readFile(path);
    assertEquals(refusal(() => openDatabase(options(directory, { applicationId: 5 }))).code, "version");
    assertEquals(refusal(() => openDatabase(options(directory, { formatVersion: 2 }))).code, "version");
    assertEquals(await Deno.readFile(path), before);
    await Deno.writeFile(path, new Uint8Array(8_192).fill(7));
    const error = refusal(() => openDatabase(options(directory)));
    assertEquals(error.code, "damaged");
    assert(error.message.includes(path), error.message);
  }));

Deno.test("Database reports a full file, keeps what was committed and gives pages back", () =>
  inDirectory((directory) => {
    const database = openDatabase(options(directory, { maxPages: 64 }));
    const insert = database.prepare("INSERT INTO t VALUES (?, ?)");
    const count = () => database.prepare("SELECT count(*) FROM t").get()![0] as number;
    let committed = 0;
    const error = refusal(() => {
      for (;; committed += 4) {
        database.begin();
        for (let i = 0; i < 4; i++) insert.run(committed + i, new Uint8Array(2_000));
        database.commit();
      }
    });
    assertEquals(error.code, "full");
    database.rollback();
    assertEquals(count(), committed);
    database.execute("DELETE FROM t");
    const before = database.fileBytes;
    assert(database.unusedPages > 0);
    assertEquals(database.releasePages(1_000_000), 0);
    assert(database.fileBytes < before / 2, `${database.fileBytes} of ${before} bytes are left`);
    database.checkpoint("TRUNCATE");
    database.close();
  }));

Deno.test("Database without sync keeps its commits when the process goes on", () =>
  inDirectory((directory) => {
    const write = (database: Database, id: number) => {
      database.begin();
      database.prepare("INSERT INTO t VALUES (?, NULL)").run(id);
      database.commit();
    };
    const database = openDatabase(options(directory, { isSynced: false }));
    assertEquals(database.pragma("synchronous"), 1);
    write(database, 1);
    database.isSynced = true;
    write(database, 2);
    database.isSynced = false;
    database.close();
    const again = openDatabase(options(directory));
    assertEquals(again.prepare("SELECT count(*) FROM t").get()?.[0], 2);
    again.close();
  }));
