/** HTTP through the whole product: wrk → gateway → Quantum → kv → log, with a bare Deno.serve beside it. */
import { startProduct } from "../../support/product.ts";
import { type BenchRow, median, spread } from "../row.ts";
import { type WrkRun, wrkRuns } from "../wrk.ts";

const VALUE = "x".repeat(64);

/** Runs wrk against a GET and a durable PUT of 64 B, and against the floor. Needs wrk on PATH. */
export async function bench(): Promise<BenchRow[]> {
  const floor = await withBareServer((url) => wrkRuns(url));
  const product = await startProduct();
  try {
    const key = `${product.url}/api/v1/kv/bench`;
    const put = await fetch(key, { method: "PUT", body: VALUE });
    await put.body?.cancel();
    const gets = await wrkRuns(key);
    const puts = await wrkRuns(key, { method: "PUT", body: VALUE });
    return [
      ...rows("GET of a 64 B value, wrk -c64", gets, floor, 25_000),
      ...rows("durable PUT of a 64 B value, wrk -c64", puts, floor, 15_000),
    ];
  } finally {
    await product.stop();
  }
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
