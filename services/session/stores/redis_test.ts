/** The Redis store on a real redis-server, alone and as a cluster, through its death and return. */
import { openRedisClient, type RedisClientOptions } from "../../../storage/redis/mod.ts";
import { type Server, startRedis } from "../../../tests/support/server.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { SessionError } from "../errors.ts";
import type { SessionStore } from "../store.ts";
import {
  newSession,
  sessionOf,
  storeSuite,
  SUITE_BOUNDS,
  SUITE_START_MS as T,
  tokenOf,
  watched,
} from "../testing/store_suite.ts";
import { createRedisStore } from "./redis.ts";
import { GRACE_MS, SESSION_SCRIPTS } from "./redis_scripts.ts";

let prefixes = 0;

interface Opened extends AsyncDisposable {
  readonly store: SessionStore;
  readonly prefix: string;
  /** Resolves when the client is as asked. */
  state(isReady: boolean): Promise<void>;
}

/** An empty store: its prefix is nobody else's. */
async function open(
  server: Server,
  more: Partial<RedisClientOptions> = {},
  prefix = `test${++prefixes}:`,
): Promise<Opened> {
  let isNowReady = false;
  let changed = () => {};
  const client = await openRedisClient({
    nodes: [{ hostname: "127.0.0.1", port: server.port }],
    cluster: false,
    username: "",
    password: "",
    database: 0,
    onState(isReady) {
      isNowReady = isReady;
      changed();
    },
    ...more,
  }, SESSION_SCRIPTS);
  const store = createRedisStore(client, {
    ...SUITE_BOUNDS,
    keyPrefix: prefix,
    epochsKeptMs: 1_000_000,
    clock: performance,
  });
  return {
    store,
    prefix,
    async state(isReady) {
      while (isNowReady !== isReady) await new Promise<void>((resolve) => changed = resolve);
    },
    [Symbol.asyncDispose]: () => store.close(),
  };
}

/** Asks the server by another way than the client under test. */
async function redisCli(server: Server, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command("redis-cli", {
    args: ["-p", String(server.port), ...args],
    stderr: "null",
  }).output();
  return new TextDecoder().decode(stdout).trim();
}

async function refusal(run: () => unknown): Promise<SessionError> {
  return await assertRejects(async () => await run(), SessionError) as SessionError;
}

Deno.test("the Redis store", async (t) => {
  await using server = await startRedis(t);
  if (server === undefined) return;
  await storeSuite(t, () => open(server));
  await t.step(
    "leaves nothing behind when sessions end, and lets everything go if nobody sweeps",
    async () => {
      await redisCli(server, "flushall");
      await using opened = await open(server);
      const { store } = opened;
      for (let n = 1; n <= 3; n++) await store.create(newSession(n, {}, { hidden: new Uint8Array(2) }), T);
      await store.use(sessionOf(1).id, T + 1);
      for (const key of (await redisCli(server, "keys", "*")).split("\n")) {
        const ttl = Number(await redisCli(server, "pttl", key));
        const isIndex = /:(x|l|f:\w+)$/.test(key);
        assert(isIndex || (ttl > 0 && ttl <= 600_000 + GRACE_MS), `${key} has ${ttl} ms`);
      }
      await store.end(sessionOf(1).id, T, "");
      await store.revokeUser("ann", T, "", undefined);
      assertEquals(await redisCli(server, "keys", "*"), `${opened.prefix}{s}:e:ann`);
    },
  );
  await t.step("forgets what Redis let go", async () => {
    await using opened = await open(server);
    const { store, changes } = watched(opened.store);
    await store.create(newSession(1), T);
    await redisCli(server, "del", `${opened.prefix}{s}:s:${sessionOf(1).id}`);
    changes();
    assertEquals(await store.get(sessionOf(1).id, T), undefined);
    assertEquals(await store.useByToken(tokenOf(1), T), undefined);
    assertEquals((await store.list({ userId: "ann" }, "", 10, T)).total, 0);
    assertEquals(await store.expire(T + 60_000, 10), false);
    assertEquals(await store.count(undefined, T), { connecting: 0, active: 0, idle: 0, disconnecting: 0 });
    assertEquals(changes(), []);
  });
  await t.step("is one for all workers: what one ended, no other finds", async () => {
    await using one = await open(server);
    await using two = await open(server, {}, one.prefix);
    const epoch = await two.store.userEpoch("ann");
    await one.store.create(newSession(1), T);
    assertEquals(await two.store.getByToken(tokenOf(1), T), sessionOf(1));
    await one.store.revokeUser("ann", T, "", undefined);
    assertEquals(await two.store.getByToken(tokenOf(1), T), undefined);
    assertEquals(await two.store.create(newSession(2, {}, { userEpoch: epoch }), T), "revoked");
    const { changes: first } = watched(one.store);
    const { changes: second } = watched(two.store);
    await one.store.create(newSession(3), T);
    await Promise.all([one, two].map(({ store }) => store.expire(T + 60_000, 10)));
    const expired = [...first(), ...second()].filter(({ type }) => type === "expired");
    assertEquals(expired.length, 1, "told once");
  });
  await t.step("writes uses of one session within a few seconds once", async () => {
    await using opened = await open(server);
    const { store } = opened;
    await store.create(newSession(1), T);
    const first = await store.use(sessionOf(1).id, T + 1);
    assertEquals(await store.use(sessionOf(1).id, T + 6_000), first);
    assertEquals((await store.use(sessionOf(1).id, T + 6_001))?.lastActiveMs, T + 6_001);
  });
});

Deno.test("the Redis store on a cluster takes keys of one slot at a time", async (t) => {
  await using server = await startRedis(t, {
    args: ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"],
  });
  if (server === undefined) return;
  await redisCli(server, "cluster", "addslotsrange", "0", "16383");
  while (!(await redisCli(server, "cluster", "info")).includes("cluster_state:ok"));
  await storeSuite(t, () => open(server, { cluster: true }));
});

/** ioredis leaves the timer of an answer that never came running for a moment. */
const LEAVES_A_TIMER = { sanitizeOps: false, sanitizeResources: false };

Deno.test(
  "the Redis store says so at once while Redis is away, and goes on when it is back",
  LEAVES_A_TIMER,
  async (t) => {
    await using server = await startRedis(t, { appendFsync: "always" });
    if (server === undefined) return;
    await using opened = await open(server);
    const { store } = opened;
    await store.create(newSession(1, {}, { hidden: new Uint8Array([7]) }), T);
    await store.create(newSession(2), T);
    await store.end(sessionOf(2).id, T, "");
    const running = Promise.allSettled(Array.from({ length: 50 }, (_, n) => {
      return store.create(newSession(10 + n, { userId: `u${n}` }), T);
    }));
    await server.kill();
    for (const result of await running) {
      if (result.status === "rejected") assertEquals((result.reason as SessionError).kind, "unavailable");
    }
    await opened.state(false);
    assert(store.failure !== undefined);
    const startedMs = performance.now();
    for (
      const run of [
        () => store.get(sessionOf(1).id, T),
        () => store.useByToken(tokenOf(1), T),
        () => store.create(newSession(3), T),
        () => store.end(sessionOf(1).id, T, ""),
        () => store.revokeUser("ann", T, "", undefined),
        () => store.list({}, "", 10, T),
        () => store.expire(T, 10),
      ]
    ) assertEquals((await refusal(run)).kind, "unavailable");
    assert(performance.now() - startedMs < 1_000, "it answers at once");
    await server.restart();
    await opened.state(true);
    assertEquals(store.failure, undefined);
    assertEquals(await store.getByToken(tokenOf(1), T), sessionOf(1));
    assertEquals(await store.readHidden(sessionOf(1).id, T), { bytes: new Uint8Array([7]), version: 1 });
    assertEquals(await store.getByToken(tokenOf(2), T), undefined);
    assertEquals(await store.create(newSession(4), T), "created");
  },
);

Deno.test("the Redis store gives up on a Redis that does not answer", LEAVES_A_TIMER, async (t) => {
  await using server = await startRedis(t);
  if (server === undefined) return;
  await using opened = await open(server);
  const { store } = opened;
  await store.create(newSession(1), T);
  Deno.kill(server.pid, "SIGSTOP");
  const startedMs = performance.now();
  assertEquals((await refusal(() => store.get(sessionOf(1).id, T))).kind, "unavailable");
  assert(performance.now() - startedMs < 10_000, "within the time");
  assertEquals((await refusal(() => store.get(sessionOf(1).id, T))).kind, "unavailable");
  Deno.kill(server.pid, "SIGCONT");
  await opened.state(true);
  assertEquals(await store.get(sessionOf(1).id, T), sessionOf(1));
});

Deno.test("the Redis store opens without Redis and finds it later", async (t) => {
  await using server = await startRedis(t);
  if (server === undefined) return;
  await server.kill();
  await using opened = await open(server);
  assertEquals((await refusal(() => opened.store.get(sessionOf(1).id, T))).kind, "unavailable");
  await server.restart();
  await opened.state(true);
  assertEquals(await opened.store.get(sessionOf(1).id, T), undefined);
});

Deno.test("the Redis store shows who it is", async (t) => {
  await using server = await startRedis(t);
  if (server === undefined) return;
  await redisCli(server, "config", "set", "requirepass", "sesame");
  {
    await using wrong = await open(server);
    assertEquals((await refusal(() => wrong.store.get(sessionOf(1).id, T))).code, "unavailable");
  }
  await using right = await open(server, { password: "sesame", database: 3 });
  assertEquals(await right.store.get(sessionOf(1).id, T), undefined);
});
