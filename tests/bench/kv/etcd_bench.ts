/** The product beside a real etcd, each with the same client and durable: etcd's own load check, the JSON gateways, and
 *  the memory of 1,000,000 keys. Needs etcd, etcdctl and wrk. */
import { KV } from "$proto/etcdserverpb/rpc_pb.ts";
import { createGrpcClient, type GrpcClient } from "../../conformance/client.ts";
import { startProduct } from "../../support/product.ts";
import { openEtcd } from "../../support/server.ts";
import { type BenchRow, median, spread } from "../row.ts";
import { keyOf, KEYS, VALUE } from "./keys.ts";

/** Under the table. */
export const NOTES = [
  "What limits the load check: its 500 clients have a connection and one call each, so nothing shares a read, a write or, " +
  "at this rate, a sync of more than two or three puts. Such a put costs the gateway about 90 µs of CPU and kv about 80 µs " +
  "(half of it the kernel's, for 0.4 syncs and 0.65 datagrams a put), against 6 µs each where calls share connections, and " +
  "the client, which paces itself, shares the 2 cores. Next step: plain TCP of the runtime in place of its node:net under " +
  "the gRPC port, as under the Redis one, where a lone request costs 15 µs.",
];

const RUNS = 3;
const WRK_CONNECTIONS = 64;
const WRK_SECONDS = 5;
/** Operations of a transaction: etcd's bound. */
const FILL_BATCH = 128;
const FILL_IN_FLIGHT = 8;

export async function bench(): Promise<BenchRow[]> {
  return [...await loadCheck(), ...await jsonGateway(), ...await memory()];
}

// ---- etcdctl check perf ----

interface Load {
  readonly writesPerSecond: number;
  readonly slowestMs: number;
  readonly stddevMs: number;
}

async function loadCheck(): Promise<BenchRow[]> {
  const theirs = await withEtcd(({ address }) => checkPerf(address));
  const ours = await withProduct(({ grpc }) => checkPerf(grpc));
  const row = (name: string, pick: (load: Load) => number, unit: string, factor: number): BenchRow => {
    const value = pick(ours);
    const rival = pick(theirs);
    const isRate = unit === "writes/s";
    return {
      name: `etcdctl check perf --load=l, ${name}`,
      value,
      unit,
      spread: [value, value],
      against: { name: "etcd", value: rival },
      ratio: value / rival,
      bar: isRate ? ">= etcd" : `<= ${factor}x etcd`,
      pass: isRate ? value >= rival : value <= factor * rival,
    };
  };
  return [
    row("writes", (load) => load.writesPerSecond, "writes/s", 1),
    row("slowest request", (load) => load.slowestMs, "ms", 2),
    row("standard deviation", (load) => load.stddevMs, "ms", 2),
  ];
}

async function checkPerf(address: string): Promise<Load> {
  const { stdout, stderr } = await new Deno.Command("etcdctl", {
    args: ["--endpoints", address, "check", "perf", "--load=l"],
    env: { ETCDCTL_API: "3" },
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  const figure = (pattern: RegExp) => {
    const found = pattern.exec(text);
    if (found === null) throw new Error(`etcdctl check perf said: ${text}`);
    return Number(found[1]);
  };
  return {
    writesPerSecond: figure(/[Tt]hroughput(?: too low:| is) (\d+) writes\/s/),
    slowestMs: figure(/Slowest request took(?: too long:)? ([\d.]+)s/) * 1_000,
    stddevMs: figure(/Stddev(?: too high:| is) ([\d.]+)s/) * 1_000,
  };
}

// ---- JSON gateways ----

async function jsonGateway(): Promise<BenchRow[]> {
  const measure = async (url: string) => ({
    puts: await wrkRuns(`${url}/v3/kv/put`, { key: btoa("bench"), value: btoa("x".repeat(64)) }),
    ranges: await wrkRuns(`${url}/v3/kv/range`, { key: btoa("bench") }),
  });
  const theirs = await withEtcd(({ address }) => measure(`http://${address}`));
  const ours = await withProduct(({ url }) => measure(url));
  const row = (name: string, mine: readonly number[], other: readonly number[]): BenchRow => ({
    name: `JSON gateway, ${name} of 64 B, wrk -c${WRK_CONNECTIONS}`,
    value: median(mine),
    unit: "req/s",
    spread: spread(mine),
    against: { name: "etcd's JSON gateway", value: median(other) },
    ratio: median(mine) / median(other),
    bar: ">= 1.5x etcd",
    pass: median(mine) >= 1.5 * median(other),
  });
  return [row("put", ours.puts, theirs.puts), row("range", ours.ranges, theirs.ranges)];
}

async function wrkRuns(url: string, body: unknown): Promise<number[]> {
  const script = await Deno.makeTempFile({ suffix: ".lua" });
  try {
    await Deno.writeTextFile(
      script,
      `wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = '${
        JSON.stringify(body)
      }'\n`,
    );
    const once = async (seconds: number) => {
      const args = ["-t1", `-c${WRK_CONNECTIONS}`, `-d${seconds}s`, "-s", script, url];
      const { stdout } = await new Deno.Command("wrk", { args }).output();
      const text = new TextDecoder().decode(stdout);
      const found = /Requests\/sec:\s*([\d.]+)/.exec(text);
      if (found === null || text.includes("Non-2xx")) throw new Error(`wrk said: ${text}`);
      return Number(found[1]);
    };
    await once(1);
    const rates: number[] = [];
    for (let run = 0; run < RUNS; run++) rates.push(await once(WRK_SECONDS));
    return rates;
  } finally {
    await Deno.remove(script);
  }
}

// ---- memory ----

async function memory(): Promise<BenchRow[]> {
  const theirs = await withEtcd(async (etcd) => {
    await fill(etcd.address);
    return residentMb(etcd.pid);
  });
  const ours = await withProduct(async (product) => {
    await fill(product.grpc);
    return residentMb(await product.hostPid());
  });
  return [{
    name: "memory of the whole product with 1,000,000 keys of 100 B, right after writing them",
    value: ours,
    unit: "MB",
    spread: [ours, ours],
    against: { name: "etcd", value: theirs },
    ratio: ours / theirs,
    bar: "<= 2.5x etcd",
    pass: ours <= 2.5 * theirs,
  }];
}

async function fill(address: string): Promise<void> {
  using client = createGrpcClient(address);
  let next = 0;
  await Promise.all(Array.from({ length: FILL_IN_FLIGHT }, async () => {
    while (next < KEYS) {
      const first = next;
      next += FILL_BATCH;
      await putBatch(client, first, Math.min(FILL_BATCH, KEYS - first));
    }
  }));
}

async function putBatch(client: GrpcClient, first: number, count: number): Promise<void> {
  const success = Array.from({ length: count }, (_, i) => ({
    request: { case: "requestPut" as const, value: { key: keyOf(first + i), value: VALUE } },
  }));
  const outcome = await client.unary(KV.method.txn, { success } as never);
  if (!outcome.ok) throw new Error(`the fill failed: ${outcome.text}`);
}

function residentMb(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/VmRSS:\s*(\d+) kB/.exec(status)![1]) / 1_000;
}

// ---- servers ----

async function withEtcd<T>(run: (etcd: Awaited<ReturnType<typeof openEtcd>>) => Promise<T>): Promise<T> {
  await using etcd = await openEtcd();
  return await run(etcd);
}

async function withProduct<T>(
  run: (product: Awaited<ReturnType<typeof startProduct>>) => Promise<T>,
): Promise<T> {
  await using product = await startProduct();
  const result = await run(product);
  await product.stop();
  return result;
}
