/** Figures of the gRPC edge. Labels are bounded: methods are those of the descriptors, codes are gRPC's. */
import { Code } from "@connectrpc/connect";
import { Counter, Gauge, Histogram, type Registry } from "../../../runtime/metrics.ts";
import type { Counter as PromCounter } from "prom-client";

/** Seconds, doubling from 250 µs to 8.2 s. */
const DURATION_BUCKETS = Array.from({ length: 16 }, (_, i) => 0.00025 * 2 ** i);

/** Figures of one method. */
export interface GrpcMethodMetrics {
  begin(): void;
  /** `code` 0 is success. Unary calls have a duration; streams live as long as their clients want. */
  end(code: number, durationMs: number): void;
  messageIn(): void;
  messageOut(): void;
}

/** All figures of one gateway worker's gRPC edge. */
export interface GrpcMetrics {
  method(path: string): GrpcMethodMetrics;
  connectionOpened(): void;
  connectionClosed(): void;
  /** Counts a connection that was closed because of what its client did. */
  refused(reason: "connections" | "frames" | "pings" | "resets" | "silent" | "tls"): void;
}

/** Registers the figures. */
export function createGrpcMetrics(registry: Registry): GrpcMetrics {
  const registers = [registry];
  const calls = new Counter({
    name: "aetherflow_gateway_grpc_calls_total",
    help: "gRPC calls that ended, by method and status code.",
    labelNames: ["method", "code"],
    registers,
  });
  const durations = new Histogram({
    name: "aetherflow_gateway_grpc_call_duration_seconds",
    help: "Time from the request's headers to the last byte of the answer, of unary calls.",
    labelNames: ["method"],
    buckets: DURATION_BUCKETS,
    registers,
  });
  const active: { readonly method: string; count: number; in: number; out: number }[] = [];
  new Gauge({
    name: "aetherflow_gateway_grpc_active_calls",
    help: "gRPC calls under way.",
    labelNames: ["method"],
    registers,
    collect() {
      for (const { method, count } of active) this.set({ method }, count);
    },
  });
  new Counter({
    name: "aetherflow_gateway_grpc_messages_total",
    help: "Messages of gRPC calls, in (from clients) and out.",
    labelNames: ["method", "direction"],
    registers,
    collect() {
      this.reset();
      for (const entry of active) {
        this.inc({ method: entry.method, direction: "in" }, entry.in);
        this.inc({ method: entry.method, direction: "out" }, entry.out);
      }
    },
  });
  const connections = new Gauge({
    name: "aetherflow_gateway_grpc_connections",
    help: "Connections to the gRPC port that are open.",
    registers,
  });
  const refusals = new Counter({
    name: "aetherflow_gateway_grpc_connections_refused_total",
    help: "Connections to the gRPC port that were closed because of what the client did, by reason.",
    labelNames: ["reason"],
    registers,
  });
  return {
    method(method) {
      const entry = { method, count: 0, in: 0, out: 0 };
      active.push(entry);
      const duration = durations.labels({ method });
      const byCode = new Map<number, PromCounter.Internal>(); // at most gRPC's 17 codes
      return {
        begin: () => void entry.count++,
        end(code, durationMs) {
          entry.count--;
          let counter = byCode.get(code);
          if (counter === undefined) {
            byCode.set(code, counter = calls.labels({ method, code: codeName(code) }));
          }
          counter.inc();
          if (durationMs >= 0) duration.observe(durationMs / 1000);
        },
        messageIn: () => void entry.in++,
        messageOut: () => void entry.out++,
      };
    },
    connectionOpened: () => connections.inc(),
    connectionClosed: () => connections.dec(),
    refused: (reason) => refusals.inc({ reason }),
  };
}

/** `OK`, `NotFound`: as Go's clients and etcd's metrics write them. */
export function codeName(code: number): string {
  return code === 0 ? "OK" : Code[code] ?? "Unknown";
}
