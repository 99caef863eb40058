/** Figures of calls to services. Labels are bounded: services and RPCs are those of proto/, names those of the address
 *  book, codes gRPC's. */
import { Code } from "@connectrpc/connect";
import { Counter, Gauge, type Registry } from "../../runtime/metrics.ts";
import { registerDurations } from "./durations.ts";

/** Codes are 0 (success) to 16. */
const CODE_COUNT = 17;

/** What a breaker stands at, as a number. */
export const STATE_NUMBERS = { closed: 0, half_open: 1, open: 2 } as const;

/** Figures of one RPC. */
export interface UpstreamMethodMetrics {
  /** Counts a request to the service, all its tries as one. A negative duration is none: that of a stream. */
  end(code: number, durationMs: number): void;
}

/** All of them. */
export interface UpstreamMetrics {
  method(service: string, path: string): UpstreamMethodMetrics;
  /** A call was sent again. */
  retried(service: string): void;
  /** A request was answered with the answer of another. */
  shared(service: string): void;
  /** A request found no place. */
  rejected(service: string): void;
  fallback(route: string, strategy: string): void;
}

/** What is asked of targets when the registry is read. */
export interface TargetFigures {
  readonly name: string;
  readonly state: keyof typeof STATE_NUMBERS;
  readonly trips: number;
  readonly ejections: number;
  readonly isEjected: boolean;
  readonly outstanding: number;
}

/** Registers the metrics. `targets` are those that there are at the time. */
export function createUpstreamMetrics(
  registry: Registry,
  targets: () => readonly TargetFigures[],
): UpstreamMetrics {
  const registers = [registry];
  // Counted in plain numbers: a labelled counter costs more than what it counts.
  const counts: { readonly labels: { service: string; method: string }; readonly byCode: Float64Array }[] =
    [];
  new Counter({
    name: "aetherflow_gateway_upstream_requests_total",
    help: "Requests to services, all tries of one as one, by service, RPC and code.",
    labelNames: ["service", "method", "code"],
    registers,
    collect() {
      this.reset();
      for (const { labels, byCode } of counts) {
        for (let code = 0; code < CODE_COUNT; code++) {
          if (byCode[code]! > 0) this.inc({ ...labels, code: codeName(code) }, byCode[code]);
        }
      }
    },
  });
  const durations = registerDurations<"service" | "method">(
    registry,
    "aetherflow_gateway_upstream_request_duration_seconds",
    "Time until a service had answered, tries and pauses between them included; not of streams.",
  );
  const retries = new Counter({
    name: "aetherflow_gateway_upstream_retries_total",
    help: "Calls that were sent again.",
    labelNames: ["service"],
    registers,
  });
  const shared = new Counter({
    name: "aetherflow_gateway_upstream_shared_total",
    help: "GETs that were answered with the answer of an equal one.",
    labelNames: ["service"],
    registers,
  });
  const rejected = new Counter({
    name: "aetherflow_gateway_upstream_rejected_total",
    help: "Requests that found no place among those of their service.",
    labelNames: ["service"],
    registers,
  });
  const fallbacks = new Counter({
    name: "aetherflow_gateway_upstream_fallbacks_total",
    help: "Requests that were answered by a fallback, by route and strategy.",
    labelNames: ["route", "strategy"],
    registers,
  });
  const gauge = (name: string, help: string, value: (target: TargetFigures) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ["name"],
      registers,
      collect() {
        this.reset();
        for (const target of targets()) this.set({ name: target.name }, value(target));
      },
    });
  const counter = (name: string, help: string, value: (target: TargetFigures) => number) =>
    new Counter({
      name,
      help,
      labelNames: ["name"],
      registers,
      collect() {
        this.reset();
        for (const target of targets()) this.inc({ name: target.name }, value(target));
      },
    });
  gauge(
    "aetherflow_gateway_upstream_breaker_state",
    "Breaker of a target: 0 closed, 1 half-open, 2 open.",
    ({ state }) => STATE_NUMBERS[state],
  );
  counter("aetherflow_gateway_upstream_breaker_trips_total", "Times that it opened.", ({ trips }) => trips);
  gauge(
    "aetherflow_gateway_upstream_ejected",
    "1 while a target takes no calls for its failures.",
    ({ isEjected }) => Number(isEjected),
  );
  counter(
    "aetherflow_gateway_upstream_ejections_total",
    "Times that a target was put out.",
    ({ ejections }) => ejections,
  );
  gauge(
    "aetherflow_gateway_upstream_outstanding",
    "Calls under way at a target.",
    ({ outstanding }) => outstanding,
  );

  const methods = new Map<string, UpstreamMethodMetrics>(); // as many as RPCs in proto/
  return {
    method(service, method) {
      const key = `${service} ${method}`;
      let metrics = methods.get(key);
      if (metrics !== undefined) return metrics;
      const labels = { service, method };
      const byCode = new Float64Array(CODE_COUNT);
      counts.push({ labels, byCode });
      const duration = durations(labels);
      metrics = {
        end(code, durationMs) {
          byCode[code]!++;
          if (durationMs >= 0) duration.observe(durationMs);
        },
      };
      methods.set(key, metrics);
      return metrics;
    },
    retried: (service) => retries.labels({ service }).inc(),
    shared: (service) => shared.labels({ service }).inc(),
    rejected: (service) => rejected.labels({ service }).inc(),
    fallback: (route, strategy) => fallbacks.labels({ route, strategy }).inc(),
  };
}

function codeName(code: number): string {
  if (code === 0) return "ok";
  return Code[code]!.replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
}
