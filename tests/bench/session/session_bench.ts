/** Sessions: the real worker on durable SQLite asked over Quantum, the same in Redis against bare commands, and the making of
 *  identifiers. */
import { openRedisClient, type RedisClient } from "../../../storage/redis/mod.ts";
import { sessionConfigSchema } from "../../../services/session/config.ts";
import { createSessionModule, type SessionService } from "../../../services/session/mod.ts";
import { createRedisStore } from "../../../services/session/stores/redis.ts";
import { SESSION_SCRIPTS } from "../../../services/session/stores/redis_scripts.ts";
import { systemClock } from "../../../services/runtime/clock.ts";
import { createGuuidSource, GUUID_BYTES } from "../../../services/runtime/guuid.ts";
import { systemRandom } from "../../../services/runtime/random.ts";
import { openRedis } from "../../support/server.ts";
import { bootWorker, freeUdpPort } from "../boot_worker.ts";
import { type BenchRow, median, spread } from "../row.ts";
import { flood } from "../rpc/unary.ts";
import { Asked } from "../transport/ask.ts";
import type { SessionTimes } from "./session_client_worker.ts";

const RUNS = 3;
const IN_FLIGHT = 64;
const PAIR_SECONDS = 20;
const VERIFY_SECONDS = 5;
const WARM_UP_SECONDS = 2;
const SESSIONS = 10_000;
const GUUIDS = 10_000_000;
const REDIS_ROUNDS = 30_000;
/** Sessions that are read again and again; the first use of each, and one every half minute, is a write besides. */
const HOT_SESSIONS = 1_000;

/** Measures and returns the rows of sessions. */
export async function bench(): Promise<BenchRow[]> {
  return [...await overQuantum(), ...await inRedis(), guuids()];
}

/** Words under the table. */
export const NOTES: readonly string[] = [
  "The bare commands beside the Redis rows are those that keep the same data: for create SET of the token, HSET and PEXPIRE of " +
  "the session, ZADD to four indexes and SADD to one; for get HMGET; for verify GET of the token and then HMGET. Both sides are " +
  "ioredis in one process with automatic pipelining; AetherFlow's side includes token, hash, service and events.",
];

async function overQuantum(): Promise<BenchRow[]> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-bench-" });
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const port = freeUdpPort();
  const worker = new Worker(new URL("../../../services/session/worker.ts", import.meta.url), {
    type: "module",
  });
  const client = new Asked("../session/session_client_worker.ts");
  try {
    await bootWorker(worker, {
      name: "session",
      config: sessionConfigSchema.parse(undefined),
      directory,
      secret,
      port,
    });
    await client.ask({ do: "connect", port, secret });
    await client.ask({ do: "pairs", inFlight: IN_FLIGHT, seconds: WARM_UP_SECONDS });
    const pairs = await client.ask<SessionTimes>({
      do: "pairs",
      inFlight: IN_FLIGHT,
      seconds: PAIR_SECONDS,
    });
    await client.ask({ do: "open", sessions: SESSIONS });
    const verify = { do: "verify", inFlight: IN_FLIGHT, seconds: VERIFY_SECONDS };
    const verified: SessionTimes[] = [];
    for (let run = 0; run < RUNS; run++) verified.push(await client.ask<SessionTimes>(verify));
    const rates = verified.map(({ perSecond }) => perSecond);
    const p99s = verified.map(({ p99Ms }) => p99Ms);
    const name = `session worker over Quantum, durable SQLite, ${IN_FLIGHT} in flight`;
    return [
      {
        name: `${name}, create + delete pairs, ${PAIR_SECONDS} s`,
        value: pairs.perSecond,
        unit: "pairs/s",
        spread: [pairs.perSecond, pairs.perSecond],
        bar: ">= 10,000 pairs/s",
        pass: pairs.perSecond >= 10_000,
      },
      {
        name: `${name}, create or delete, p99`,
        value: pairs.p99Ms,
        unit: "ms",
        spread: [pairs.p99Ms, pairs.p99Ms],
        bar: "<= 5 ms",
        pass: pairs.p99Ms <= 5,
      },
      {
        name: `${name}, verify a token, ${SESSIONS.toLocaleString("en")} sessions`,
        value: median(rates),
        unit: "calls/s",
        spread: spread(rates),
        bar: ">= 40,000 calls/s",
        pass: median(rates) >= 40_000,
      },
      {
        name: `${name}, verify a token, p99`,
        value: median(p99s),
        unit: "ms",
        spread: spread(p99s),
        bar: "<= 5 ms",
        pass: median(p99s) <= 5,
      },
    ];
  } finally {
    client.stop();
    worker.terminate();
    await Deno.remove(directory, { recursive: true });
  }
}

// ---- Redis ----

/** Rates of the service and of bare commands, a run of each in turns. */
interface Rates {
  readonly ours: number[];
  readonly bare: number[];
}

async function inRedis(): Promise<BenchRow[]> {
  await using server = await openRedis();
  const client = await openRedisClient({
    nodes: [{ hostname: "127.0.0.1", port: server.port }],
    cluster: false,
    username: "",
    password: "",
    database: 0,
  }, SESSION_SCRIPTS);
  const config = sessionConfigSchema.parse(undefined);
  const store = createRedisStore(client, {
    ...config,
    keyPrefix: config.redis.keyPrefix,
    epochsKeptMs: config.absoluteTimeoutMs,
    clock: performance,
  });
  const { service, close } = createSessionModule({
    store,
    config,
    clock: systemClock,
    random: systemRandom,
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
  });
  try {
    const ids: string[] = [], tokens: string[] = [];
    const bare = bareCommands(client);
    const rates: Record<"create" | "get" | "verify", Rates> = {
      create: { ours: [], bare: [] },
      get: { ours: [], bare: [] },
      verify: { ours: [], bare: [] },
    };
    let n = 0;
    const rate = (call: () => Promise<unknown>) => flood(call, IN_FLIGHT, REDIS_ROUNDS);
    for (let run = 0; run <= RUNS; run++) {
      const of = {
        create: [
          await rate(() => bare.create(n++)),
          await rate(async () => {
            const { session, token } = await createOne(service, n++);
            if (ids.length === HOT_SESSIONS) return;
            ids.push(session.id);
            tokens.push(token);
          }),
        ],
        get: [
          await rate(() => bare.get(n++ % REDIS_ROUNDS)),
          await rate(() => Promise.resolve(service.get(ids[n++ % ids.length]!))),
        ],
        verify: [
          await rate(() => bare.verify(n++ % REDIS_ROUNDS)),
          await rate(() => Promise.resolve(service.verify(tokens[n++ % tokens.length]!))),
        ],
      } as const;
      if (run === 0) continue; // warms up
      for (const name of ["create", "get", "verify"] as const) {
        rates[name].bare.push(of[name][0]);
        rates[name].ours.push(of[name][1]);
      }
    }
    return (["create", "get", "verify"] as const).map((name) => redisRow(name, rates[name]));
  } finally {
    await close();
  }
}

function createOne(service: SessionService, n: number) {
  return service.create({
    userId: `user-${n % 10_000}`,
    clientIp: "192.0.2.7",
    clientPort: 40_000,
    serverAddr: "",
    metadata: { device: "phone", app: "aetherflow" },
  });
}

/** The commands that the same data needs, without atomicity. */
function bareCommands(client: RedisClient) {
  const fields = JSON.stringify([
    "192.0.2.7",
    40_000,
    "",
    Date.now(),
    { device: "phone", app: "aetherflow" },
    null,
    1_800_000,
    Date.now() + 604_800_000,
    "user-1234",
    "01ARYZ6S410000000000000000",
  ]);
  const read = (id: string) => client.send("hmget", [`{b}:s:${id}`, "d", "s", "a", "r"]);
  return {
    create(n: number) {
      const id = `bare-${n}`, x = Date.now();
      return Promise.all([
        client.send("set", [`{b}:t:${id}`, id, "PX", 600_000]),
        client.send("hset", [`{b}:s:${id}`, "d", fields, "s", "connecting", "a", x, "r", 0]),
        client.send("pexpire", [`{b}:s:${id}`, 600_000]),
        client.send("zadd", ["{b}:x", x, id]),
        client.send("zadd", ["{b}:l", 0, id]),
        client.send("zadd", ["{b}:f:connecting", x, id]),
        client.send("zadd", [`{b}:u:${n % 10_000}`, x, id]),
        client.send("sadd", [`{b}:c:${id}`, id]),
      ]);
    },
    get: (n: number) => read(`bare-${n}`),
    async verify(n: number) {
      return await read(await client.send("get", [`{b}:t:bare-${n}`]) as string);
    },
  };
}

function redisRow(name: string, { ours, bare }: Rates): BenchRow {
  const ratio = median(bare) / median(ours);
  return {
    name: `session service in Redis, ${name}, ${IN_FLIGHT} in flight`,
    value: median(ours),
    unit: "calls/s",
    spread: spread(ours),
    against: { name: "the bare ioredis commands", value: median(bare) },
    ratio: 1 / ratio,
    bar: "within 1.3x of the bare commands",
    pass: ratio <= 1.3,
  };
}

// ---- identifiers ----

function guuids(): BenchRow {
  const source = createGuuidSource({ clock: systemClock, random: systemRandom });
  const last = new Uint8Array(GUUID_BYTES);
  const batch: Uint8Array[] = [];
  const times: number[] = [];
  for (let made = 0; made < GUUIDS; made += 100_000) {
    batch.length = 0;
    const startMs = performance.now();
    for (let i = 0; i < 100_000; i++) batch.push(source.next());
    times.push((performance.now() - startMs) * 10);
    // Each is greater than the one before it: so they are ordered, and no two are the same.
    for (const id of batch) {
      if (compare(last, id) >= 0) throw new Error("identifiers are not in order");
      last.set(id);
    }
  }
  return {
    name: `GUUID, one of ${GUUIDS.toLocaleString("en")}, all in order and so all different`,
    value: median(times),
    unit: "ns",
    spread: spread(times),
    bar: "<= 200 ns",
    pass: median(times) <= 200,
  };
}

function compare(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < GUUID_BYTES; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!;
  }
  return 0;
}
