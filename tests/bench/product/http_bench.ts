/** HTTP through the whole product: wrk → gateway → Quantum → kv → log, with a bare Deno.serve beside it. */
import { startProduct } from "../../support/product.ts";
import { type BenchRow, median, spread } from "../row.ts";

const CONNECTIONS = 64;
const SECONDS = 5;
const RUNS = 3;
const VALUE = "x".repeat(64);

/** Runs wrk against a GET and a durable PUT of 64 B, and against the floor. Needs wrk on PATH. */
export async function bench(): Promise<BenchRow[]> {
  const floor = await withBareServer((url) => runs(url, "GET"));
  const product = await startProduct();
  try {
    const key = `${product.url}/api/v1/kv/bench`;
    const put = await fetch(key, { method: "PUT", body: VALUE });
    await put.body?.cancel();
    const gets = await runs(key, "GET");
    const puts = await runs(key, "PUT");
    return [
      ...rows("GET of a 64 B value, wrk -c64", gets, floor, 25_000),
      ...rows("durable PUT of a 64 B value, wrk -c64", puts, floor, 15_000),
    ];
  } finally {
    await product.stop();
  }
}

interface WrkRun {
  readonly perSecond: number;
  readonly p99Ms: number;
}

function rows(
  name: string,
  measured: readonly WrkRun[],
  floor: readonly WrkRun[],
  target: number,
): BenchRow[] {
  const rates = measured.map((run) => run.perSecond);
  const p99s = measured.map((run) => run.p99Ms);
  const floorRate = median(floor.map((run) => run.perSecond));
  return [
    {
      name,
      value: median(rates),
      unit: "req/s",
      spread: spread(rates),
      against: { name: "bare Deno.serve GET", value: floorRate },
      ratio: median(rates) / floorRate,
      bar: `>= ${target.toLocaleString("en")} req/s`,
      pass: median(rates) >= target,
    },
    {
      name: `${name}, p99`,
      value: median(p99s),
      unit: "ms",
      spread: spread(p99s),
      against: { name: "bare Deno.serve GET", value: median(floor.map((run) => run.p99Ms)) },
      bar: "< 10 ms",
      pass: median(p99s) < 10,
    },
  ];
}

async function runs(url: string, method: "GET" | "PUT"): Promise<WrkRun[]> {
  await wrk(url, method, 1);
  const measured: WrkRun[] = [];
  for (let run = 0; run < RUNS; run++) measured.push(await wrk(url, method, SECONDS));
  return measured;
}

async function wrk(url: string, method: "GET" | "PUT", seconds: number): Promise<WrkRun> {
  const script = await Deno.makeTempFile({ suffix: ".lua" });
  try {
    await Deno.writeTextFile(
      script,
      `wrk.method = "${method}"\n${method === "PUT" ? `wrk.body = "${VALUE}"\n` : ""}`,
    );
    const args = ["-t1", `-c${CONNECTIONS}`, `-d${seconds}s`, "--latency", "-s", script, url];
    const { code, stdout, stderr } = await new Deno.Command("wrk", { args }).output().catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new Error("wrk is not installed; Debian's package is wrk", { cause: error });
    });
    const text = new TextDecoder().decode(stdout);
    if (code !== 0) throw new Error(`wrk failed: ${new TextDecoder().decode(stderr)}`);
    if (/Non-2xx/.test(text)) throw new Error(`wrk saw errors:\n${text}`);
    return { perSecond: number(text, /Requests\/sec:\s*([\d.]+)/), p99Ms: latencyMs(text) };
  } finally {
    await Deno.remove(script);
  }
}

function number(text: string, pattern: RegExp): number {
  const found = text.match(pattern)?.[1];
  if (found === undefined) throw new Error(`wrk printed no ${pattern}:\n${text}`);
  return Number(found);
}

function latencyMs(text: string): number {
  const unit = text.match(/99%\s+[\d.]+(us|ms|s)/)?.[1];
  const value = number(text, /99%\s+([\d.]+)/);
  return unit === "us" ? value / 1000 : unit === "s" ? value * 1000 : value;
}

async function withBareServer<T>(use: (url: string) => Promise<T>): Promise<T> {
  const worker = new Worker(new URL("./bare_server_worker.ts", import.meta.url), { type: "module" });
  try {
    const port = await new Promise<number>((resolve, reject) => {
      worker.onmessage = (event) => resolve(event.data as number);
      worker.onerror = (event) => reject(new Error(event.message));
    });
    return await use(`http://127.0.0.1:${port}/`);
  } finally {
    worker.terminate();
  }
}
