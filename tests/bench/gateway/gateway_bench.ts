/** A request that passes everything: JWT, rate limits, metrics, trace context; wrk → gateway → session worker. */
import { startProduct } from "../../support/product.ts";
import { type BenchRow, median, spread } from "../row.ts";
import { type WrkRun, wrkRuns } from "../wrk.ts";

/** Limits that are checked on every request and refuse none. */
const LIMITS = [
  "gateway.rateLimit.global.rate=1000000",
  "gateway.rateLimit.global.burst=1000000",
  "gateway.rateLimit.address.rate=1000000",
  "gateway.rateLimit.address.burst=1000000",
  "gateway.rateLimit.principal.rate=1000000",
  "gateway.rateLimit.principal.burst=1000000",
].flatMap((setting) => ["--set", setting]);

/** Runs wrk against a session's Get with an access token. Needs wrk on PATH. */
export async function bench(): Promise<BenchRow[]> {
  await using product = await startProduct({ args: LIMITS });
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
  const measured = await wrkRuns(url, {
    headers: {
      authorization: `Bearer ${accessToken}`,
      traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    },
  });
  await product.stop();
  return rows("session Get with JWT, rate limits, metrics, trace context, wrk -c64", measured);
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
