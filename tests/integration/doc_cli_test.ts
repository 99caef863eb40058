/** Every `aetherflow doc …` command against the product, as its users type them. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { projectFile, ROOT } from "../support/paths.ts";
import { type Product, runProduct, startProduct } from "../support/product.ts";

const PASSWORD = "correct horse battery";

/** Runs commands against one product. */
function commands(product: Product, env: Record<string, string> = {}) {
  const environment = { AETHERFLOW_ENDPOINT: product.url, ...env };
  const run = (...args: string[]) => runProduct(["doc", ...args], { env: environment });
  return {
    run,
    env: environment,
    /** Its output, when it succeeds without a word of complaint. */
    async ok(...args: string[]): Promise<string> {
      const outcome = await run(...args);
      assertEquals([outcome.code, outcome.stderr], [0, ""], args.join(" "));
      return outcome.stdout;
    },
    async json(...args: string[]) {
      return JSON.parse(await this.ok(...args, "--json"));
    },
    async lines(...args: string[]) {
      return (await this.ok(...args, "--json")).trim().split("\n").map((line) => JSON.parse(line));
    },
  };
}

/** A command that runs until it is told to stop; its lines as they come. */
function longRunning(args: readonly string[], env: Record<string, string>) {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "--config", projectFile("deno.json"), "-P=start", projectFile("main.ts"), ...args],
    cwd: ROOT,
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  return {
    async line(): Promise<string> {
      for (;;) {
        const end = rest.indexOf("\n");
        if (end >= 0) {
          const line = rest.slice(0, end);
          rest = rest.slice(end + 1);
          return line;
        }
        const { done, value } = await reader.read();
        if (done) throw new Error(`it ended before a line came: ${rest}`);
        rest += value;
      }
    },
    async stop(): Promise<number> {
      child.kill("SIGINT");
      await reader.cancel();
      return (await child.status).code;
    },
  };
}

/** A folder of files, removed at the end. */
async function files(contents: Record<string, string>) {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-doc-" });
  for (const [name, text] of Object.entries(contents)) await Deno.writeTextFile(`${folder}/${name}`, text);
  return {
    path: (name: string) => `${folder}/${name}`,
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}

Deno.test("doc: make, list, read, edit from a file, describe, archive, delete, purge", async () => {
  await using product = await startProduct();
  await using file = await files({ "one.txt": "Hello\nworld\n", "two.txt": "Hello\nthere, world\n" });
  const doc = commands(product);
  const id = "plans/ä:*";
  const create = [
    "create",
    "--id",
    id,
    "--name",
    "Minutes\nof May",
    "--tag",
    "draft",
    "--property",
    "room=2",
  ];
  assertEquals(await doc.ok(...create, "--type", "text", "--from", file.path("one.txt")), `${id}\n`);
  const taken = await doc.run("create", "--id", id);
  assertEquals(taken.code, 1);
  assertStringIncludes(taken.stderr, "the id is taken");
  assertMatch(await doc.ok("create", "--type", "sheet"), /^[0-9A-HJKMNP-TV-Z]{26}\n$/);

  assertEquals(await doc.ok("get", id), "Hello\nworld\n");
  assertEquals(
    await doc.ok("list", "--type", "text", "--tag", "draft"),
    `${id}\ttext\t1\tMinutes\\nof May\n`,
  );
  assertEquals((await doc.lines("list")).length, 2);
  assertEquals(await doc.ok("edit", id, "--from", file.path("two.txt")), `${id}\tversion 2\n`);
  assertEquals(await doc.ok("get", id), "Hello\nthere, world\n");
  assertEquals(await doc.ok("get", id, "--version", "1"), "Hello\nworld\n");
  assertEquals((await doc.json("get", id)).content, "Hello\nthere, world\n");
  const late = await doc.run("edit", id, "--from", file.path("one.txt"), "--if-version", "1");
  assertEquals([late.code, /another one by now/.test(late.stderr)], [1, true], late.stderr);

  await doc.ok("set", id, "--name", "Minutes", "--property", "room=3", "--tag", "", "--policy", "lww");
  const shown = await doc.json("show", id);
  assertEquals(
    [shown.name, shown.metadata.properties, shown.metadata.tags, shown.conflictPolicy, shown.access],
    ["Minutes", { room: "3" }, [], "lww", "manage"],
  );
  assertStringIncludes(await doc.ok("show", id), "property\troom=3\n");
  assertEquals((await doc.run("set", id)).code, 2);

  await doc.ok("archive", id);
  const archived = await doc.run("edit", id, "--from", file.path("one.txt"));
  assertEquals([archived.code, /archived/.test(archived.stderr)], [1, true]);
  await doc.ok("unarchive", id);
  await doc.ok("delete", id);
  assertEquals(await doc.ok("list", "--type", "text"), "");
  assertStringIncludes(await doc.ok("list", "--state", "deleted"), "(deleted)");
  await doc.ok("restore", id);
  await doc.ok("purge", id);
  assertEquals((await doc.run("get", id)).code, 3);
  assertStringIncludes((await doc.run("purge", id)).stderr, "there was no document");
  assertEquals((await doc.run("get", "..")).code, 2);
  assertEquals((await doc.json("stats")).totalDocuments, "1");
  assertEquals(await product.stop(), 0);
});

Deno.test("doc: operations of every type, history, undo, versions, diff and going back", async () => {
  await using product = await startProduct();
  const doc = commands(product);
  const op = (id: string, operation: unknown, ...more: string[]) =>
    doc.json("op", id, JSON.stringify(operation), ...more);
  await doc.ok("create", "--id", "t", "--type", "text");
  await doc.ok("create", "--id", "b", "--type", "whiteboard");
  await doc.ok("create", "--id", "s", "--type", "sheet");
  const first = await op("t", {
    id: "one",
    type: "text",
    text: { edits: [{ index: 0, insert: "Hello world" }] },
  });
  assertEquals([first.operation.status, first.version, first.repeatedOperation], ["applied", "2", false]);
  await op("t", { type: "text", text: { edits: [{ index: 5, insert: "," }] } });
  await op("b", {
    type: "create",
    object: { objectId: "a", kind: "note", x: 1, y: 2, properties: { "style.fill": "#ffffff" } },
  });
  assertEquals(JSON.parse(await doc.ok("get", "b")).objects.a.kind, "note");
  await op("s", { type: "update", cells: { edits: [{ cell: "A1", value: 42 }] } });
  assertEquals(await doc.ok("get", "s"), '{"cells":{"A1":{"value":42}}}');
  assertEquals((await doc.run("op", "s", "{")).code, 2);
  const wrong = await doc.run("op", "s", '{"type":"resize","object":{"objectId":"a"}}');
  assertEquals(wrong.code, 1);

  const history = await doc.ok("history", "t");
  assertMatch(history, /^3\ttext\tapplied\t.*"insert":","/);
  assertEquals((await doc.lines("history", "t", "--limit", "1")).length, 1);
  assertEquals((await doc.lines("versions", "t")).map(({ version }) => version), ["3", "2", "1"]);
  await doc.ok("name", "t", "as it was", "--version", "2");
  assertEquals((await doc.lines("versions", "t", "--named"))[0].name, "as it was");
  assertMatch(await doc.ok("diff", "t", "2", "3"), /^Hello\{\+,\+.*\} world\n$/);
  assertMatch(await doc.ok("diff", "s", "1"), /^A1\/value\t– → 42\t/);
  // Edits of one user in quick succession are one: how many depends on how fast the commands ran.
  await doc.ok("undo", "t");
  assertMatch(await doc.ok("get", "t"), /^(Hello world)?$/);
  await doc.ok("restore", "t", "1");
  assertEquals(await doc.ok("get", "t"), "");
  await doc.ok("restore", "t", "2");
  assertEquals(await doc.ok("get", "t"), "Hello world");
  await doc.ok("unname", "t", "2");
  assertEquals(await doc.ok("versions", "t", "--named"), "");
  assertEquals(await product.stop(), 0);
});

Deno.test("doc: a conflict of two operations waits, and is decided", async () => {
  await using product = await startProduct();
  await using file = await files({ "t.txt": "at noon" });
  const doc = commands(product);
  await doc.ok("create", "--id", "t", "--policy", "manual", "--from", file.path("t.txt"));
  const edit = (edits: unknown) => JSON.stringify({ type: "text", text: { edits: [edits] } });
  await doc.ok("op", "t", edit({ index: 3, delete: 4, insert: "ten" }), "--prev-version", "1");
  const late = await doc.run(
    "op",
    "t",
    edit({ index: 0, delete: 7, insert: "later" }),
    "--prev-version",
    "1",
  );
  assertEquals([late.code, late.stdout.split("\t")[1]], [1, "conflict"]);
  assertStringIncludes(late.stderr, "aetherflow doc conflicts t");
  assertEquals(await doc.ok("get", "t"), "at ten");
  const [conflict] = await doc.lines("conflicts", "t");
  assertEquals(conflict.ops.length, 2);
  assertStringIncludes(await doc.ok("conflicts", "t"), "\twaits\t");
  assertEquals((await doc.run("resolve", "t", conflict.id)).code, 2);
  await doc.ok("resolve", "t", conflict.id, "mine");
  assertStringIncludes(await doc.ok("get", "t"), "later");
  assertEquals(await doc.ok("conflicts", "t"), "");
  assertEquals((await doc.lines("conflicts", "t", "--all")).length, 1);
  const again = await doc.run("resolve", "t", conflict.id, "theirs");
  assertEquals([again.code, /is decided/.test(again.stderr)], [1, true]);
  assertEquals(await product.stop(), 0);
});

Deno.test("doc watch prints what happens, also what happened since an offset, and goes on after a restart of the server", async () => {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-doc-" });
  const port = String(freePort());
  const args = ["--set", `gateway.http.port=${port}`];
  try {
    {
      await using product = await startProduct({ data, args });
      const doc = commands(product);
      await doc.ok("create", "--id", "t");
      const watching = longRunning(["doc", "watch", "t", "--json"], doc.env);
      // The subscription is in place once it is counted.
      await until(async () => (await doc.json("stats")).activeSubscribers === "1");
      const insert = (text: string) =>
        doc.ok("op", "t", JSON.stringify({ type: "text", text: { edits: [{ index: 0, insert: text }] } }));
      await insert("b");
      const first = JSON.parse(await watching.line());
      assertEquals([first.event.type, first.event.operation.text.edits[0].insert], [
        "operation_applied",
        "b",
      ]);
      assertEquals(await product.stop(), 0);
      await using next = await startProduct({ data, args });
      assertEquals(next.url, product.url);
      await insert("a");
      const second = JSON.parse(await watching.line());
      assertEquals(second.event.operation.text.edits[0].insert, "a");
      assertEquals(BigInt(second.offset), BigInt(first.offset) + 1n);
      assertEquals(await watching.stop(), 0);
      const all = await doc.lines("watch", "t", "--from", "1", "--count", "3");
      assertEquals(all.map(({ offset }) => offset), ["1", "2", "3"]);
      assertMatch(await doc.ok("watch", "--from", "1", "--count", "1"), /^\d+\tdocument_updated\tt\t/);
      assertEquals((await doc.run("watch", "t", "--from", "soon")).code, 2);
      assertEquals((await doc.run("watch", "none")).code, 3);
      assertEquals(await next.stop(), 0);
    }
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("doc share and lock: who may do what, and one at a time", async () => {
  await using product = await startProduct();
  for (const name of ["root", "ann", "bob"]) await addUser(product, name);
  const as = async (username: string) => {
    const { stdout } = await runProduct(["login", username], {
      env: { AETHERFLOW_ENDPOINT: product.url, AETHERFLOW_PASSWORD: PASSWORD },
    });
    return commands(product, { AETHERFLOW_TOKEN: stdout.trim() });
  };
  const ann = await as("ann");
  const bob = await as("bob");
  await ann.ok("create", "--id", "t");
  assertEquals((await bob.run("get", "t")).code, 3);
  assertStringIncludes(await ann.ok("share", "t", "--viewer", "bob"), "viewer\tbob\n");
  assertEquals(await bob.ok("get", "t"), "");
  const insert = JSON.stringify({ type: "text", text: { edits: [{ index: 0, insert: "x" }] } });
  assertStringIncludes((await bob.run("op", "t", insert)).stderr, "may not do this");
  assertStringIncludes((await bob.run("share", "t", "--editor", "bob")).stderr, "may not do this");
  const shared = await ann.json("share", "t", "--editor", "bob", "--public");
  assertEquals([shared.editors, shared.viewers, shared.public], [["bob"], [], true]);
  await bob.ok("op", "t", insert);

  const lock = await ann.json("lock", "acquire", "t", "--ttl", "60");
  const refused = await bob.run("op", "t", insert);
  assertEquals(refused.code, 1);
  assertStringIncludes(refused.stderr, "locked by another");
  assertEquals((await bob.run("lock", "acquire", "t")).code, 1);
  assertStringIncludes(await bob.ok("lock", "show", "t"), lock.id);
  const longer = await ann.json("lock", "extend", "t", lock.id, "--ttl", "600");
  assert(longer.expiresAt > lock.expiresAt);
  await ann.ok("lock", "release", "t", lock.id);
  assertEquals(await bob.ok("lock", "show", "t"), "");
  await bob.ok("op", "t", insert);

  const holding = longRunning(["doc", "lock", "acquire", "t", "--hold", "--ttl", "5"], bob.env);
  assertMatch(await holding.line(), /\tdocument\t.*\ttoken 2$/);
  assertEquals((await ann.run("op", "t", insert)).code, 1);
  assertEquals(await holding.stop(), 0);
  await ann.ok("op", "t", insert);

  const withName = await runProduct(["doc", "lock", "acquire", "t", "--user", "ann"], {
    env: { AETHERFLOW_ENDPOINT: product.url, AETHERFLOW_PASSWORD: PASSWORD },
  });
  assertEquals(withName.code, 2);
  assertEquals((await ann.json("share", "t", "--no-public", "--remove", "bob")).editors, []);
  assertEquals((await bob.run("get", "t")).code, 3);
  assertEquals(await product.stop(), 0);
});

/** Adds a user: the first one as anybody may, the others in the name of `root`. */
async function addUser(product: Product, username: string): Promise<void> {
  const post = (path: string, body: unknown, token?: string) =>
    fetch(`${product.url}/api/v1/${path}`, {
      method: "POST",
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
  const login = username === "root"
    ? undefined
    : await (await post("auth/login", { username: "root", password: PASSWORD })).json();
  const answer = await post("users", { username, password: PASSWORD }, login?.accessToken);
  assertEquals(answer.status, 200, await answer.text());
}

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!await isTrue()) {
    if (performance.now() > deadline) throw new Error("it did not come");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}
