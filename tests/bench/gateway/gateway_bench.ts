/** A request that passes everything: JWT, rate limits, metrics, trace context; wrk → gateway → session worker. And what the gateway adds
 *  to the time of the service's RPC. */
import { startProduct } from "../../support/product.ts";
import { type BenchRow, median, spread } from "../row.ts";
import { Asked } from "../transport/ask.ts";
import type { Latencies, LatencyMessage } from "./latency_worker.ts";
import { wrk, type WrkRun, wrkRuns } from "../wrk.ts";

/** Words under the table. */
export const NOTES: readonly string[] = [
  "Half load is wrk over as many connections as it takes for half of the rate above; the RPC is called by a client of ours in a " +
  "thread of its own, at the same rate. Three busy threads (wrk, gateway, session worker) and the runtime's own share two cores " +
  "there: over one connection a request takes 0.38 ms in all, where nothing waits for a core. Of the gateway's time two fifths are " +
  "the runtime's HTTP server; the rest is spread thin.",
];

/** Limits that are checked on every request and refuse none. */
const LIMITS = [
  "gateway.rateLimit.global.rate=1000000",
  "gateway.rateLimit.global.burst=1000000",
  "gateway.rateLimit.address.rate=1000000",
  "gateway.rateLimit.address.burst=1000000",
  "gateway.rateLimit.principal.rate=1000000",
  "gateway.rateLimit.principal.burst=1000000",
  // Clients of this machine pass by no other limit than the global one, unless told otherwise.
  "gateway.rateLimit.exemptLoopback=false",
].flatMap((setting) => ["--set", setting]);

/** Runs and length of the latency rows. */
const LATENCY_RUNS = 3;
const LATENCY_SECONDS = 5;

/** Runs wrk against a session's Get with an access token. Needs wrk on PATH. */
export async function bench(): Promise<BenchRow[]> {
  // A shared secret lets a process beside the product call its workers as a gateway does.
  const secretFile = await Deno.makeTempFile({ prefix: "aetherflow-bench-" });
  await Deno.writeTextFile(secretFile, "ab".repeat(32));
  try {
    return await measure(secretFile);
  } finally {
    await Deno.remove(secretFile);
  }
}

async function measure(secretFile: string): Promise<BenchRow[]> {
  await using product = await startProduct({
    args: [...LIMITS, "--set", `cluster.secretFile=${secretFile}`],
  });
  const post = async (path: string, body: unknown, token?: string) => {
    const answer = await fetch(`${product.url}/api/v1/${path}`, {
      method: "POST",
      body: JSON.stringify(body),
      headers: {
        "content-type": "application/json",
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
    });
    if (!answer.ok) throw new Error(`POST ${path}: ${answer.status} ${await answer.text()}`);
    return await answer.json();
  };
  const who = { username: "bench", password: "correct horse battery" };
  await post("users", who);
  const { accessToken, sessionId } = await post("auth/login", who);
  const url = `${product.url}/api/v1/sessions/${sessionId}`;
  const headers = {
    authorization: `Bearer ${accessToken}`,
    traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  };
  const measured = await wrkRuns(url, { headers });
  const stats = await (await fetch(`${product.url}/api/v1/admin/stats`, { headers })).json();
  const { address } = stats.targets.find(({ service }: { service: string }) => service === "session");
  const http = await atHalfLoad(url, headers, median(measured.map((run) => run.perSecond)) / 2);
  const rpc = await measureRpc({
    secretFile,
    address,
    sessionId,
    perSecond: Math.round(median(http.map((run) => run.perSecond))),
    seconds: LATENCY_SECONDS,
  });
  await product.stop();
  return [
    ...rows("session Get with JWT, rate limits, metrics, trace context, wrk -c64", measured),
    ...latencyRows(http, rpc),
  ];
}

/** Over as many connections as it takes. */
async function atHalfLoad(
  url: string,
  headers: Record<string, string>,
  perSecond: number,
): Promise<WrkRun[]> {
  let connections = 1;
  while ((await wrk(url, { headers }, 2, connections)).perSecond < perSecond) connections++;
  return await wrkRuns(url, { headers }, connections);
}

async function measureRpc(message: LatencyMessage): Promise<Latencies[]> {
  const client = new Asked("../gateway/latency_worker.ts");
  try {
    const runs = [];
    for (let run = 0; run < LATENCY_RUNS; run++) runs.push(await client.ask<Latencies>(message));
    return runs;
  } finally {
    client.stop();
  }
}

function latencyRows(http: readonly WrkRun[], rpc: readonly Latencies[]): BenchRow[] {
  const row = (name: string, pick: (latencies: Latencies) => number, barMs: number): BenchRow => {
    const direct = median(rpc.map(pick));
    const added = http.map((run) => pick(run) - direct);
    return {
      name: `added to the RPC's time by the gateway at half load, ${name}`,
      value: median(added),
      unit: "ms",
      spread: spread(added),
      against: { name: "the RPC itself, at the same rate", value: direct },
      bar: `<= ${barMs} ms`,
      pass: median(added) <= barMs,
    };
  };
  return [row("p50", ({ p50Ms }) => p50Ms, 0.3), row("p99", ({ p99Ms }) => p99Ms, 2)];
}

function rows(name: string, measured: readonly WrkRun[]): BenchRow[] {
  const rates = measured.map((run) => run.perSecond);
  const p99s = measured.map((run) => run.p99Ms);
  return [
    {
      name,
      value: median(rates),
      unit: "req/s",
      spread: spread(rates),
      // Published by the vendor for 2 vCPU with authentication, limits and analytics.
      against: { name: "a commercial Go gateway on 2 vCPU, as published", value: 4_903 },
      ratio: median(rates) / 4_903,
      bar: ">= 10,000 req/s",
      pass: median(rates) >= 10_000,
    },
    {
      name: `${name}, p99`,
      value: median(p99s),
      unit: "ms",
      spread: spread(p99s),
      against: { name: "a commercial Go gateway on 2 vCPU, as published", value: 22.2 },
      bar: "< 10 ms",
      pass: median(p99s) < 10,
    },
  ];
}
