/** One embedded engine in a process of its own, so that its memory is its own. `fill` writes KEYS keys through the service,
 *  `index` opens and closes them, `measure` opens them and measures. The last two print one line of JSON.
 *
 *      deno run engine_process.ts fill|index|measure DIRECTORY log|memory|disk CACHE_BYTES */
import { plainPut } from "../../../services/kv/txn.ts";
import { kvConfigSchema } from "../../../services/kv/config.ts";
import { memoryEngine, type OpenEngine } from "../../../services/kv/engine.ts";
import { createKvModule } from "../../../services/kv/mod.ts";
import { openLogStore } from "../../../services/kv/stores/log.ts";
import { openSqliteEngine } from "../../../services/kv/stores/sqlite/engine.ts";
import { flood } from "../rpc/unary.ts";
import { keyOf, KEYS, VALUE } from "./keys.ts";

/** What is measured of an engine. */
export interface EngineReport {
  readonly openSeconds: number;
  /** Memory of the process above what it had before the engine was opened, after all was measured. */
  readonly residentMb: number;
  readonly fileMb: number;
  /** One figure a run, here and below. */
  readonly puts64: readonly number[];
  readonly puts256: readonly number[];
  readonly getUs: readonly number[];
  readonly rangeUs: readonly number[];
  readonly countMs: readonly number[];
}

const RUNS = 3;
/** Of each run. */
const PUTS = 20_000;
const GETS = 20_000;
const RANGES = 1_000;
const encoder = new TextEncoder();

/** Where the files of an engine are. */
export type EngineName = "log" | "memory" | "disk";

if (import.meta.main) {
  const [task, directory, name, cacheBytes] = Deno.args as [string, string, EngineName, string];
  const before = Deno.memoryUsage().rss;
  const startMs = performance.now();
  const { service, store, close } = await createKvModule({
    openEngine: engine(name, directory, Number(cacheBytes), task === "fill" ? "none" : "always"),
    config: kvConfigSchema.parse({ quotaBytes: 8 * 2 ** 30 }),
    random: { fill: (target) => crypto.getRandomValues(target as Uint8Array<ArrayBuffer>) },
    log: { info: () => {}, error: (message, fields) => fail(`${message}: ${fields?.error}`) },
    clock: performance,
    pause: () => new Promise((resolve) => setTimeout(resolve, 0)),
  });
  const openSeconds = (performance.now() - startMs) / 1_000;
  if (task === "fill") {
    await flood(next((i) => service.put(plainPut(keyOf(i), VALUE))), 1_000, KEYS);
    await close();
    Deno.exit();
  }
  if (task === "index") {
    print({ openSeconds });
    await close();
    Deno.exit();
  }
  const random = shuffled();
  const getUs = runs(GETS, () => service.range({ key: keyOf(random()), range: "single" }).kvs.length === 1);
  const rangeUs = runs(RANGES, () => {
    const from = random() % (KEYS - 100);
    const range = { start: numbered(from), end: numbered(from + 100) };
    return service.range({ key: range.start, range }).kvs.length === 100;
  });
  const prefix = { start: encoder.encode("user/"), end: encoder.encode("user0") };
  const countUs = runs(1, () => {
    const query = { key: prefix.start, range: prefix, countOnly: true };
    return service.range(query).count === KEYS;
  });
  const put = () => service.put(plainPut(keyOf(random()), VALUE));
  await flood(put, 256, 5_000);
  const puts64: number[] = [];
  const puts256: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    puts64.push(await flood(put, 64, PUTS));
    puts256.push(await flood(put, 256, PUTS));
  }
  const report: EngineReport = {
    openSeconds,
    residentMb: (Deno.memoryUsage().rss - before) / 1e6,
    fileMb: store.stats().segmentBytes / 1e6,
    puts64,
    puts256,
    getUs,
    rangeUs,
    countMs: countUs.map((us) => us / 1_000),
  };
  print(report);
  await close();
}

function print(report: Partial<EngineReport>): void {
  // deno-lint-ignore no-console -- the process's one answer
  console.log(JSON.stringify(report));
}

function engine(
  name: EngineName,
  directory: string,
  cacheBytes: number,
  durability: "none" | "always",
): OpenEngine {
  if (name === "log") return memoryEngine((replay) => openLogStore({ directory, durability }, replay));
  return (seeds) => {
    const path = `${directory}/kv.sqlite`;
    const options = { path, index: name, pageBytes: 4_096, cacheBytes, durability, intervalMs: 100 };
    return Promise.resolve(openSqliteEngine(options, seeds));
  };
}

function next(call: (i: number) => Promise<unknown>): () => Promise<unknown> {
  let i = 0;
  return () => call(i++);
}

/** Numbers of keys without an order; the same ones in every process. */
function shuffled(): () => number {
  let state = 12_345;
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor(state / 2 ** 32 * KEYS);
  };
}

function numbered(i: number): Uint8Array {
  return encoder.encode("user/" + String(i).padStart(11, "0"));
}

/** Microseconds that `call` takes, in each of RUNS runs; it must say that it got what it wanted. */
function runs(count: number, call: () => boolean): number[] {
  return Array.from({ length: RUNS }, () => {
    const startMs = performance.now();
    for (let i = 0; i < count; i++) if (!call()) fail("an answer is not the right one");
    return (performance.now() - startMs) * 1_000 / count;
  });
}

function fail(message: string): never {
  throw new Error(message);
}
