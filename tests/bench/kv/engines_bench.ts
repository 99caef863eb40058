/** The embedded engines beside one another, each in a process of its own with 1,000,000 keys of 100 bytes; every put is synced
 *  before its answer. */
import { openDatabase } from "../../../storage/sqlite/mod.ts";
import { type BenchRow, median, spread } from "../row.ts";
import type { EngineName, EngineReport } from "./engine_process.ts";
import { keyOf, VALUE } from "./keys.ts";

const MIB = 1_024 * 1_024;
/** Inserts of the floor, and how many share a transaction. */
const FLOOR_ROWS = 40_960;
const FLOOR_GROUP = 256;

interface Engine {
  readonly name: string;
  readonly kind: EngineName;
  readonly cacheBytes: number;
}

const ENGINES: readonly Engine[] = [
  { name: "memory + log", kind: "log", cacheBytes: 0 },
  { name: "sqlite, index memory", kind: "memory", cacheBytes: 64 * MIB },
  { name: "sqlite, index disk", kind: "disk", cacheBytes: 64 * MIB },
  { name: "sqlite, index disk, cache 8 MiB", kind: "disk", cacheBytes: 8 * MIB },
];

export async function bench(): Promise<BenchRow[]> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-bench-" });
  try {
    const floor = rawInserts(`${directory}/floor.sqlite`);
    const rows: BenchRow[] = [];
    const [log, memory, disk, ...others] = ENGINES;
    await run("fill", `${directory}/log`, log!);
    rows.push(...rowsOf(log!.name, JSON.parse(await run("measure", `${directory}/log`, log!)), floor));
    // One file for the rest: the index moves.
    const home = `${directory}/sqlite`;
    await run("fill", home, memory!);
    rows.push(...rowsOf(memory!.name, JSON.parse(await run("measure", home, memory!)), floor));
    const { openSeconds } = JSON.parse(await run("index", home, disk!)) as EngineReport;
    rows.push(row(disk!.name, "making the index at the first start with it", [openSeconds], "s"));
    for (const engine of [disk!, ...others]) {
      rows.push(...rowsOf(engine.name, JSON.parse(await run("measure", home, engine)), floor));
    }
    return rows;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function rowsOf(name: string, report: EngineReport, floor: number): BenchRow[] {
  const against = { name: `raw SQLite inserts, ${FLOOR_GROUP} a synced transaction`, value: floor };
  return [
    row(name, "durable put of an old key, 64 in flight, in process", report.puts64, "puts/s"),
    {
      ...row(name, "durable put of an old key, 256 in flight, in process", report.puts256, "puts/s"),
      against,
      ratio: median(report.puts256) / floor,
    },
    row(name, "get of a random key", report.getUs, "µs"),
    row(name, "range of 100 keys with values", report.rangeUs, "µs"),
    row(name, "count of a prefix of all keys", report.countMs, "ms"),
    row(name, "recovery", [report.openSeconds], "s"),
    row(name, "memory", [report.residentMb], "MB"),
    row(name, "files", [report.fileMb], "MB"),
  ];
}

function row(engine: string, what: string, values: readonly number[], unit: string): BenchRow {
  const name = `kv engine ${engine}, 1,000,000 keys of 100 B, ${what}`;
  return { name, value: median(values), unit, spread: spread(values) };
}

/** Rows a second that SQLite takes at best: key and value, in order, without an index. */
function rawInserts(path: string): number {
  const database = openDatabase({
    path,
    applicationId: 1,
    formatVersion: 1,
    pageBytes: 4_096,
    cacheBytes: 64 * MIB,
    isSynced: true,
    create: (made) => made.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, key BLOB, value BLOB)"),
  });
  const insert = database.prepare("INSERT INTO t VALUES (?, ?, ?)");
  const startMs = performance.now();
  for (let i = 0; i < FLOOR_ROWS; i++) {
    if (i % FLOOR_GROUP === 0) database.begin();
    insert.run(i + 1, keyOf(i), VALUE);
    if (i % FLOOR_GROUP === FLOOR_GROUP - 1) database.commit();
  }
  const perSecond = FLOOR_ROWS * 1_000 / (performance.now() - startMs);
  database.close();
  return perSecond;
}

async function run(task: string, directory: string, { kind, cacheBytes }: Engine): Promise<string> {
  await Deno.mkdir(directory, { recursive: true });
  const program = new URL("./engine_process.ts", import.meta.url).pathname;
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", program, task, directory, kind, String(cacheBytes)],
    stdin: "null",
  }).output();
  if (!success) throw new Error(`${task} of ${kind} failed: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}
