/** `deno task bench [name…]`: runs the benchmarks one after the other, prints their table and updates RESULTS.md.
 *
 *  Every module exports `bench(): Promise<BenchRow[]>` and, where figures need words, `NOTES`. A name selects the modules whose path contains it; only their
 *  rows are replaced in RESULTS.md. `--json` prints the rows as JSON, `--dry` leaves RESULTS.md alone. */
import type { BenchRow } from "./row.ts";
import { readResults, renderResults, type Section } from "./results.ts";

const MODULES = [
  "transport/transport_bench.ts",
  "rpc/rpc_bench.ts",
  "storage/log_bench.ts",
  "kv/kv_bench.ts",
  "kv/redis_bench.ts",
  "kv/engines_bench.ts",
  "kv/etcd_bench.ts",
  "kv/grpc_bench.ts",
  "kv/watch_bench.ts",
  "session/session_bench.ts",
  "statesync/statesync_bench.ts",
  "sockets/fanout_bench.ts",
  "sockets/documents_bench.ts",
  "sockets/idle_bench.ts",
  "gateway/gateway_bench.ts",
  "gateway/retry_bench.ts",
  "product/http_bench.ts",
  "product/start_bench.ts",
] as const;

/** What a module exports. */
interface BenchModule {
  bench(): Promise<BenchRow[]>;
  /** Paragraphs under its table. */
  readonly NOTES?: readonly string[];
}

const RESULTS = new URL("./RESULTS.md", import.meta.url);

if (import.meta.main) {
  const names = Deno.args.filter((arg) => !arg.startsWith("--"));
  const chosen = MODULES.filter((path) => names.length === 0 || names.some((name) => path.includes(name)));
  if (chosen.length === 0) {
    print(`No benchmark matches ${names.join(" ")}. There are:\n  ${MODULES.join("\n  ")}`);
    Deno.exit(2);
  }
  const measured: Section[] = [];
  for (const path of chosen) {
    print(`# ${path}`);
    const { bench, NOTES = [] } = await import(`./${path}`) as BenchModule;
    const rows = await bench();
    for (const row of rows) print(line(row));
    measured.push({
      path,
      machine: machine(),
      date: new Date().toISOString().slice(0, 10),
      rows,
      notes: NOTES,
    });
  }
  if (Deno.args.includes("--json")) print(JSON.stringify(measured, null, 2));
  if (!Deno.args.includes("--dry")) {
    const before = readResults(await Deno.readTextFile(RESULTS).catch(() => ""));
    await Deno.writeTextFile(RESULTS, renderResults([...MODULES], before, measured));
  }
}

function line(row: BenchRow): string {
  const against = row.against === undefined ? "" : `  vs ${row.against.name} ${round(row.against.value)}`;
  const ratio = row.ratio === undefined ? "" : `  ratio ${row.ratio.toFixed(2)}`;
  const bar = row.bar === undefined ? "" : `  [${row.pass === true ? "met" : "NOT MET"}: ${row.bar}]`;
  return `${row.name}: ${round(row.value)} ${row.unit}${against}${ratio}${bar}`;
}

function round(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
}

function machine(): string {
  const cpu = Deno.readTextFileSync("/proc/cpuinfo").match(/model name\s*:\s*(.*)/)?.[1] ?? "unknown CPU";
  return `${navigator.hardwareConcurrency} cores ${cpu}, Linux ${Deno.osRelease()}, Deno ${Deno.version.deno}`;
}

function print(text: string): void {
  // deno-lint-ignore no-console -- a command's output
  console.log(text);
}
