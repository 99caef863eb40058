/** redis-benchmark against the whole product and against a Redis that syncs every write, in turns. */
import { startProduct } from "../../support/product.ts";
import { BINARIES, openRedis } from "../../support/server.ts";
import { type BenchRow, median, spread } from "../row.ts";

const RUNS = 3;
const CLIENTS = 50;
const VALUE_BYTES = 64;
/** Requests of a run, by pipeline depth: each takes a few seconds. */
const DEPTHS = [{ pipeline: 1, requests: 60_000, bar: 0.4 }, { pipeline: 16, requests: 300_000, bar: 0.25 }];
const TESTS = ["SET", "GET"] as const;

export async function bench(): Promise<BenchRow[]> {
  await using product = await startProduct();
  await using redis = await openRedis({ appendFsync: "always" });
  const ours = Number(product.addresses.resp!.split(":").at(-1));
  const rows: BenchRow[] = [];
  await measure(ours, 1, 20_000);
  for (const { pipeline, requests, bar } of DEPTHS) {
    const mine: Record<string, number[]> = { SET: [], GET: [] };
    const theirs: Record<string, number[]> = { SET: [], GET: [] };
    for (let run = 0; run < RUNS; run++) {
      const [a, b] = [await measure(redis.port, pipeline, requests), await measure(ours, pipeline, requests)];
      for (const test of TESTS) {
        theirs[test]!.push(a[test]!);
        mine[test]!.push(b[test]!);
      }
    }
    for (const test of TESTS) {
      const value = median(mine[test]!);
      const rival = median(theirs[test]!);
      rows.push({
        name: `redis-benchmark -c ${CLIENTS} -P ${pipeline} ${test}, ${VALUE_BYTES} B, durable`,
        value,
        unit: "requests/s",
        spread: spread(mine[test]!),
        against: { name: "Redis 7.0, appendfsync always", value: rival },
        ratio: value / rival,
        bar: `>= ${bar}x Redis`,
        pass: value >= bar * rival,
      });
    }
  }
  return rows;
}

/** Requests a second, by test. */
async function measure(port: number, pipeline: number, requests: number): Promise<Record<string, number>> {
  const { success, stdout, stderr } = await new Deno.Command(BINARIES.redisBenchmark.name, {
    args: [
      ...["-p", String(port), "-c", String(CLIENTS), "-n", String(requests), "-P", String(pipeline)],
      ...["-d", String(VALUE_BYTES), "-r", "100000", "-t", TESTS.join(",").toLowerCase(), "--csv"],
    ],
  }).output();
  const text = new TextDecoder().decode(stdout);
  if (!success) throw new Error(`redis-benchmark failed: ${new TextDecoder().decode(stderr)}`);
  return Object.fromEntries(
    [...text.matchAll(/^"(SET|GET)","([0-9.]+)"/gm)].map(([, name, value]) => [name!, Number(value)]),
  );
}
