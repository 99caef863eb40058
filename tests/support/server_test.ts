import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { requireBinary, type Server, startEtcd, startPostgres, startRedis } from "./server.ts";

Deno.test("startEtcd() starts a private etcd that keeps its data over kill and restart", async (t) => {
  let folder = "";
  {
    await using etcd = await startEtcd(t, { unsafeNoFsync: true });
    if (etcd === undefined) return;
    folder = etcd.dataDirectory;
    const put = await post(etcd, "put", { key: btoa("a"), value: btoa("1") });
    assertEquals(put.header.revision, "2");
    const before = etcd.pid;
    await etcd.kill();
    await etcd.restart();
    assertNotEquals(etcd.pid, before);
    assertEquals((await post(etcd, "range", { key: btoa("a") })).kvs[0].value, btoa("1"));
    assert((await etcd.log()).includes(etcd.address));
  }
  await assertRejects(() => Deno.stat(folder), Deno.errors.NotFound);
});

Deno.test("startRedis() starts a private Redis that keeps what it synced over kill and restart", async (t) => {
  await using redis = await startRedis(t, { appendFsync: "always" });
  if (redis === undefined) return;
  assertEquals(await command(redis, "SET a 1"), "+OK\r\n");
  await redis.kill();
  await redis.restart();
  assertEquals(await command(redis, "GET a"), "$1\r\n1\r\n");
  await redis.stop();
});

Deno.test("startPostgres() starts a private PostgreSQL that keeps its data over kill and restart", async (t) => {
  let folder = "";
  {
    await using postgres = await startPostgres(t);
    if (postgres === undefined) return;
    folder = postgres.dataDirectory;
    assertEquals(await psql(postgres, "CREATE TABLE a (x int); INSERT INTO a VALUES (7); SHOW fsync"), "on");
    await postgres.kill();
    await postgres.restart();
    assertEquals(await psql(postgres, "SELECT x FROM a"), "7");
    // It does not wait for its clients to go.
    const idle = await idleClient(postgres);
    await postgres.stop();
    await idle.close();
    assert((await postgres.log()).includes("database system is shut down"));
  }
  await assertRejects(() => Deno.stat(folder), Deno.errors.NotFound);
});

/** A client that is logged in and asks nothing more. */
async function idleClient({ port, dataDirectory }: Server): Promise<{ close(): Promise<void> }> {
  const child = new Deno.Command("psql", {
    args: ["-h", dataDirectory, "-p", String(port), "-U", "aetherflow", "-d", "postgres", "-At"],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const asked = child.stdin.getWriter();
  await asked.write(new TextEncoder().encode("SELECT 1;\n"));
  const answered = child.stdout.getReader();
  await answered.read();
  return {
    async close() {
      await asked.close();
      await answered.cancel();
      await child.status;
    },
  };
}

/** The last line of what statements answer. */
async function psql({ port, dataDirectory }: Server, sql: string): Promise<string> {
  const { stdout, stderr, success } = await new Deno.Command("psql", {
    args: ["-h", dataDirectory, "-p", String(port), "-U", "aetherflow", "-d", "postgres", "-Atqc", sql],
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim().split("\n").at(-1)!;
}

Deno.test("a server that cannot start says what it wrote", async (t) => {
  if (!await requireBinary(t, "etcd", "etcd-server")) return;
  const error = await assertRejects(() => startEtcd(t, { args: ["--no-such-flag"] }), Error);
  assert(error.message.includes("no-such-flag"), error.message);
});

Deno.test("requireBinary() names the package of what is missing", async (t) => {
  const steps: string[] = [];
  const context = {
    step({ name, ignore }: Deno.TestStepDefinition) {
      assertEquals(ignore, true);
      steps.push(name);
      return Promise.resolve(false);
    },
  } as unknown as Deno.TestContext;
  const before = Deno.env.get("AETHERFLOW_REQUIRE_SERVERS");
  try {
    Deno.env.delete("AETHERFLOW_REQUIRE_SERVERS");
    assertEquals(await requireBinary(context, "no-such-server", "some-package"), false);
    assertEquals(steps, ["no-such-server is not installed: apt-get install some-package"]);
    Deno.env.set("AETHERFLOW_REQUIRE_SERVERS", "1");
    await assertRejects(
      () => requireBinary(t, "no-such-server", "some-package"),
      Error,
      "apt-get install some-package",
    );
  } finally {
    if (before === undefined) Deno.env.delete("AETHERFLOW_REQUIRE_SERVERS");
    else Deno.env.set("AETHERFLOW_REQUIRE_SERVERS", before);
  }
});

async function post(etcd: Server, path: string, body: unknown) {
  const answer = await fetch(`http://${etcd.address}/v3/kv/${path}`, {
    method: "POST",
    body: JSON.stringify(body),
  });
  return await answer.json();
}

async function command(redis: Server, line: string): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: redis.port });
  await connection.write(new TextEncoder().encode(`${line}\r\n`));
  const answer = new Uint8Array(256);
  const length = await connection.read(answer) ?? 0;
  return new TextDecoder().decode(answer.subarray(0, length));
}
