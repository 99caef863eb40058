/** Redis clients that nobody here wrote, against the whole product: ioredis, redis-cli and redis-benchmark. And clients that
 *  mean no good. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Redis } from "ioredis";
import { Buffer } from "node:buffer";
import { latin1 } from "../../services/kv/resp/args.ts";
import { BINARIES, requireBinary } from "../support/server.ts";
import { type Product, startProduct } from "../support/product.ts";

function portOf(product: Product): number {
  return Number(product.addresses.resp!.split(":").at(-1));
}

function connect(product: Product, options: Record<string, unknown> = {}): Redis {
  return new Redis({ host: "127.0.0.1", port: portOf(product), ...options });
}

/** Calls `run` with a client and closes it. */
async function withClient(
  product: Product,
  run: (client: Redis) => Promise<void>,
  options: Record<string, unknown> = {},
): Promise<void> {
  const client = connect(product, options);
  const ended = new Promise((resolve) => client.once("end", resolve));
  try {
    await run(client);
  } finally {
    client.disconnect();
    await ended;
  }
}

Deno.test("redis-cli works", async (t) => {
  const { name, debianPackage } = BINARIES.redisCli;
  if (!await requireBinary(t, name, debianPackage)) return;
  await using product = await startProduct();
  const cli = (...args: string[]) => run(name, ["-p", String(portOf(product)), ...args]);
  assertEquals(await cli("set", "a", "1", "ex", "100"), "OK\n");
  assertMatch(await cli("-3", "hello", "3"), /proto[^]*3/);
  assertEquals(await cli("incrby", "a", "41"), "42\n");
  assertMatch(await cli("--bigkeys"), /Sampled 1 keys in the keyspace/);
  assertEquals(await cli("--scan", "--pattern", "*"), "a\n");
  assertMatch(await cli("command", "docs", "get"), /summary/);
  assertMatch(await cli("info", "keyspace"), /db0:keys=1/);
  assertMatch(await cli("lpush", "l", "1"), /unknown command 'lpush'/);
});

Deno.test("redis-benchmark runs, and nothing it is told is an error", async (t) => {
  const { name, debianPackage } = BINARIES.redisBenchmark;
  if (!await requireBinary(t, name, debianPackage)) return;
  await using product = await startProduct();
  for (const pipeline of ["1", "16"]) {
    const args = [
      "-p",
      String(portOf(product)),
      "-n",
      "5000",
      "-c",
      "50",
      "-P",
      pipeline,
      "-r",
      "1000",
      "--csv",
    ];
    const output = await run(name, [...args, "-t", "ping,set,get,incr,mset"]);
    const names = output.trim().split("\n").map((line) => line.split(",")[0]!.replaceAll('"', ""));
    for (const test of ["SET", "GET", "INCR", "MSET (10 keys)"]) assert(names.includes(test), output);
    assert(!/error/i.test(output), output);
  }
});

Deno.test("clients that mean no good are answered and closed, and others are untouched", async (t) => {
  await using product = await startProduct({ args: ["--set", "gateway.resp.maxConnections=600"] });
  const bombs: readonly (readonly [name: string, bytes: string, answer: RegExp])[] = [
    ["a huge count", "*2147483647\r\n", /^-ERR Protocol error: invalid multibulk length\r\n$/],
    ["a huge part", "*2\r\n$3\r\nGET\r\n$2000000000\r\n", /^-ERR Protocol error: invalid bulk length\r\n$/],
    ["nesting", "*1\r\n".repeat(10_000), /^-ERR Protocol error: expected '\$', got '\*'\r\n$/],
    ["a line without an end", "a".repeat(200_000), /^-ERR Protocol error: too big inline request\r\n$/],
    ["HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", /^-ERR wrong number of arguments for 'get' command\r\n/],
  ];
  await withClient(product, async (redis) => {
    await redis.set("a", "1");
    for (const [name, bytes, answer] of bombs) {
      await t.step(name, async () => {
        using socket = await Deno.connect({ hostname: "127.0.0.1", port: portOf(product) });
        await write(socket, new TextEncoder().encode(bytes)).catch(() => {});
        assertMatch(await readSome(socket), answer);
        assertEquals(await redis.get("a"), "1");
      });
    }
    await t.step("connections that say nothing, up to the bound", async () => {
      const sockets: Deno.TcpConn[] = [];
      for (let i = 0; i < 599; i++) {
        sockets.push(await Deno.connect({ hostname: "127.0.0.1", port: portOf(product) }));
      }
      using one = await Deno.connect({ hostname: "127.0.0.1", port: portOf(product) });
      assertEquals(await readSome(one), "-ERR max number of clients reached\r\n");
      assertEquals(await redis.get("a"), "1");
      for (const socket of sockets) socket.close();
    });
    await t.step("a client that asks and never reads", async () => {
      await redis.set("big", "x".repeat(1_000_000));
      using socket = await Deno.connect({ hostname: "127.0.0.1", port: portOf(product) });
      await write(socket, new TextEncoder().encode("GET big\r\n".repeat(1_000)));
      for (let i = 0; i < 100; i++) assertEquals(await redis.get("a"), "1");
    });
  });
});

Deno.test("with users, clients log in and are held to their roles", async () => {
  await using product = await startProduct();
  const etcd = (path: string, body: unknown) =>
    fetch(`${product.url}/v3/auth/${path}`, { method: "POST", body: JSON.stringify(body) })
      .then((response) => response.text().then((text) => assertEquals(response.status, 200, text)));
  const bytes = (text: string) => btoa(text);
  await etcd("user/add", { name: "root", password: "rootpw" });
  await etcd("user/add", { name: "ann", password: "annpw" });
  await etcd("role/add", { name: "own" });
  await etcd("role/grant", {
    name: "own",
    perm: { permType: "READWRITE", key: bytes("redis/own:"), range_end: bytes("redis/own;") },
  });
  await etcd("user/grant", { user: "ann", role: "own" });
  await etcd("user/grant", { user: "root", role: "root" });
  await etcd("enable", {});
  await withClient(product, async (redis) => {
    await assertRejects(() => redis.get("own:a"), Error, "NOAUTH");
    await assertRejects(() => redis.call("AUTH", "ann", "wrong"), Error, "WRONGPASS");
    assertEquals(await redis.call("AUTH", "ann", "annpw"), "OK");
    assertEquals(await redis.set("own:a", "1"), "OK");
    await assertRejects(() => redis.get("other"), Error, "NOPERM");
    await assertRejects(() => redis.multi().set("own:a", "2").set("other", "2").exec(), Error, "NOPERM");
    assertEquals(await redis.get("own:a"), "1");
    // Its check is INFO, before anybody has logged in.
  }, { enableReadyCheck: false });
});

async function run(command: string, args: readonly string[]): Promise<string> {
  const { stdout, stderr } = await new Deno.Command(command, { args: [...args], stdin: "null" }).output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

async function write(socket: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await socket.write(bytes.subarray(at));
}

/** What comes first. */
async function readSome(socket: Deno.TcpConn): Promise<string> {
  const buffer = new Uint8Array(65_536);
  const count = await socket.read(buffer);
  return count === null ? "" : latin1(buffer.subarray(0, count));
}

Deno.test({
  name: "ioredis works: values, pipelines, transactions, scans, events, and all of it after a restart",
  // The client leaves a timer of its own running for a moment; hence the last test of the file.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: ioredisWorks,
});

async function ioredisWorks(t: Deno.TestContext): Promise<void> {
  const data = await Deno.makeTempDir({ prefix: "aetherflow-redis-" });
  try {
    await using product = await startProduct({ data });

    await t.step(
      "values of any bytes, and other ways to the same store",
      () =>
        withClient(product, async (redis) => {
          const bytes = Buffer.from(new Uint8Array(100_000).map((_, i) => i * 7));
          assertEquals(await redis.set("bytes", bytes), "OK");
          assert(bytes.equals((await redis.getBuffer("bytes"))!));
          await redis.set("ключ", "значение");
          const response = await fetch(`${product.url}/api/v1/kv/${encodeURIComponent("redis/ключ")}`);
          assertEquals(await response.text(), "значение");
          const put = await fetch(`${product.url}/api/v1/kv/redis/from-rest`, {
            method: "PUT",
            body: "hello",
          });
          await put.body?.cancel();
          assertEquals(await redis.get("from-rest"), "hello");
        }),
    );

    await t.step("pipelines and transactions", () =>
      withClient(product, async (redis) => {
        const pipeline = redis.pipeline();
        for (let i = 0; i < 1_000; i++) pipeline.set(`p:${i}`, i).incr(`p:${i}`).get(`p:${i}`);
        const results = (await pipeline.exec())!;
        assertEquals(results.slice(-3).map(([error, value]) => [error, value]), [
          [null, "OK"],
          [null, 1_000],
          [null, "1000"],
        ]);
        await redis.watch("p:0");
        assertEquals(await redis.multi().incr("p:0").ttl("p:0").exec(), [[null, 2], [null, -1]]);
      }));

    await t.step("scan streams see every key once", () =>
      withClient(product, async (redis) => {
        const seen: string[] = [];
        for await (const keys of redis.scanStream({ match: "p:*", count: 100 })) {
          seen.push(...keys as string[]);
        }
        assertEquals(seen.length, 1_000);
        assertEquals(new Set(seen).size, 1_000);
      }));

    await t.step(
      "a key expires, and those who listen hear of it",
      () =>
        withClient(product, async (redis) => {
          await withClient(product, async (listener) => {
            const expired = new Promise<string>((resolve) => {
              listener.on("message", (_, key) => resolve(key));
            });
            await listener.subscribe("__keyevent@0__:expired");
            await redis.set("brief", "1", "PX", 50);
            assertEquals(await redis.get("brief"), "1");
            assertEquals(await expired, "brief");
            assertEquals(await redis.get("brief"), null);
          });
        }),
    );

    await t.step("times to live and values outlive a restart", async () => {
      await withClient(product, async (redis) => {
        await redis.set("long", "1", "EX", 1_000);
      });
      assertEquals(await product.stop(), 0);
      await using again = await startProduct({ data });
      await withClient(again, async (redis) => {
        assertEquals(await redis.get("ключ"), "значение");
        const ttl = await redis.ttl("long");
        assert(ttl > 900 && ttl <= 1_000, `${ttl}`);
        assertEquals(await redis.exists("brief"), 0);
      });
      await again.stop();
    });
  } finally {
    await Deno.remove(data, { recursive: true });
  }
}
