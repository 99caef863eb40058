/** What a service that is down gets to do: calls that reach it for each request of clients, wrk → gateway → a service that
 *  refuses everything. Needs wrk. */
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { startTestGateway } from "../../../services/gateway/testing/harness.ts";
import { type BenchRow, median, spread } from "../row.ts";

const RUNS = 3;
const WELL_SECONDS = 3;
const DOWN_SECONDS = 5;

/** Under the table. */
export const NOTES = [
  "Single flight is off, so that every request is one. With breakers the first failures open one, and what reads wait for " +
  "is that it closes. Without them the retry budget is the bound, a fifth of the requests of the last ten seconds, which " +
  "is why the time before the failure counts in that row.",
];

/** Calls for each request while the service is down, with and without breakers. */
export async function bench(): Promise<BenchRow[]> {
  const withBreaker: number[] = [], withBudget: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const guarded = await measure("default");
    withBreaker.push(guarded.down.calls / guarded.down.requests);
    const { well, down } = await measure("off");
    withBudget.push((well.calls + down.calls) / (well.requests + down.requests));
  }
  return [
    row("calls at a service that is down, for each GET", withBreaker),
    row("the same without breakers, the seconds before it included", withBudget),
  ];
}

function row(name: string, ratios: readonly number[]): BenchRow {
  const value = median(ratios);
  return { name, value, unit: "x", spread: spread(ratios), bar: "<= 1.2 x", pass: value <= 1.2 };
}

interface Count {
  readonly calls: number;
  readonly requests: number;
}

async function measure(preset: "default" | "off"): Promise<{ well: Count; down: Count }> {
  let calls = 0;
  let isDown = false;
  const transport = createRouterTransport((router) =>
    router.service(KeyValueService, {
      get() {
        calls++;
        if (isDown) throw new ConnectError("down", Code.Unavailable);
        return { entry: { value: new Uint8Array(64) } };
      },
    })
  );
  await using gateway = startTestGateway({
    config: { upstreams: { breaker: { preset }, singleFlight: false } },
    realTimers: true,
    transport: () => transport,
  });
  const metrics = async () => await (await fetch(`${gateway.url}/metrics`)).text();
  const isBusy = (text: string) => /^aetherflow_gateway_http_active_requests{.*kv\/{key.*} [1-9]/m.test(text);
  const answered = async (): Promise<number> => {
    // wrk goes away with requests under way, which count too.
    let text = await metrics();
    while (isBusy(text)) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      text = await metrics();
    }
    const lines = text.matchAll(/^aetherflow_gateway_upstream_requests_total{.*} (\d+)$/gm);
    return [...lines].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  const count = async (seconds: number): Promise<Count> => {
    const before = { calls, requests: await answered() };
    await load(`${gateway.url}/api/v1/kv/k`, seconds);
    const requests = await answered();
    return { calls: calls - before.calls, requests: requests - before.requests };
  };
  const well = await count(WELL_SECONDS);
  isDown = true;
  return { well, down: await count(DOWN_SECONDS) };
}

async function load(url: string, seconds: number): Promise<void> {
  await new Deno.Command("wrk", { args: ["-t1", "-c64", `-d${seconds}s`, url], stdout: "null" }).output();
}
