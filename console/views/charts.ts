/** Requests, errors and latency as they are now, of the figures at /metrics. */
import { callText } from "../api.ts";
import { Chart } from "../chart.ts";
import { el, table } from "../dom.ts";
import { bytes, duration, figure } from "../format.ts";
import { bucketsOf, quantileOf, type Sample, samplesOf, sumOf } from "../metrics.ts";
import { every, type Scope } from "../view.ts";

/** How often the figures are read, in ms. */
const POLL_MS = 2_000;
/** Routes in the table. */
const ROUTES_MAX = 12;

const REQUESTS = "aetherflow_gateway_http_requests_total";
const DURATION = "aetherflow_gateway_http_request_duration_seconds";

/** One reading. */
interface Reading {
  readonly atMs: number;
  readonly samples: readonly Sample[];
  readonly buckets: ReadonlyMap<number, number>;
}

/** Makes the view. */
export function chartsView({ setTitle, signal }: Scope): HTMLElement {
  setTitle("Charts");
  const rate = new Chart("Requests", [{ name: "per second", color: "accent" }]);
  const errors = new Chart("Errors", [{ name: "5xx per second", color: "bad" }, {
    name: "4xx per second",
    color: "warn",
  }]);
  const latency = new Chart(
    "Latency",
    [{ name: "median", color: "ok" }, { name: "p99", color: "warn" }],
    duration,
  );
  const memory = new Chart("Memory", [{ name: "resident", color: "accent" }], bytes);
  const routes = el("div");
  let before: Reading | undefined;

  every(POLL_MS, signal, async () => {
    const page = await callText("/metrics", { signal });
    const samples = [
      ...samplesOf(page, "aetherflow_gateway_http_"),
      ...samplesOf(page, "process_resident_memory"),
    ];
    const now: Reading = { atMs: performance.now(), samples, buckets: bucketsOf(samples, DURATION) };
    const last = before;
    before = now;
    if (last === undefined) return;
    const perSecond = (wanted: (sample: Sample) => boolean) => rateOf(last, now, wanted);
    rate.add([perSecond(() => true)]);
    errors.add([
      perSecond(({ labels }) => statusOf(labels) >= 5),
      perSecond(({ labels }) => statusOf(labels) === 4),
    ]);
    latency.add([quantileOf(last.buckets, now.buckets, 0.5), quantileOf(last.buckets, now.buckets, 0.99)]);
    memory.add([sumOf(samples, "process_resident_memory_bytes")]);
    routes.replaceChildren(routeTable(last, now));
  });

  return el(
    "div",
    { class: "page" },
    el("h1", {}, "Charts"),
    el(
      "p",
      { class: "muted" },
      "The gateway's HTTP requests, every two seconds. This page's own are among them.",
    ),
    el("div", { class: "charts" }, rate.element, errors.element, latency.element, memory.element),
    el("h2", {}, "Busiest routes"),
    routes,
  );
}

function rateOf(before: Reading, now: Reading, wanted: (sample: Sample) => boolean): number {
  const count = ({ samples }: Reading) => sumOf(samples, REQUESTS, wanted);
  return Math.max(0, count(now) - count(before)) / ((now.atMs - before.atMs) / 1000);
}

/** First digit of the status: 2 of 204. */
function statusOf(labels: Sample["labels"]): number {
  return Number((labels.status ?? labels.code ?? "0")[0]);
}

function routeTable(before: Reading, now: Reading): HTMLElement {
  const routes = new Map<string, { method: string; route: string; total: number }>();
  for (const { name, labels, value } of now.samples) {
    if (name !== REQUESTS) continue;
    const { method = "", route = "" } = labels;
    const found = routes.get(`${method} ${route}`) ?? { method, route, total: 0 };
    found.total += value;
    routes.set(`${method} ${route}`, found);
  }
  const rows = [...routes.values()].map((each) => ({
    ...each,
    rate: rateOf(before, now, ({ labels }) => labels.method === each.method && labels.route === each.route),
  }));
  rows.sort((a, b) => b.rate - a.rate || b.total - a.total);
  return table(
    "Busiest routes",
    ["Route", "Per second", "Total"],
    rows.slice(0, ROUTES_MAX).map(({ method, route, rate, total }) =>
      el(
        "tr",
        {},
        el("td", {}, el("code", {}, `${method} ${route}`)),
        el("td", {}, figure(rate)),
        el("td", {}, String(total)),
      )
    ),
  );
}
