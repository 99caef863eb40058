/** The gateway's own figures: rate, errors and duration for each route. Labels are bounded: routes are templates, and
 *  methods and statuses that we never answer on purpose do not exist. */
import { Counter, Gauge, Histogram, type Registry } from "../runtime/metrics.ts";
import type { Counter as PromCounter } from "prom-client";

/** Seconds, doubling from 250 µs to 8.2 s. */
const DURATION_BUCKETS = Array.from({ length: 16 }, (_, i) => 0.00025 * 2 ** i);
/** Bytes, from 100 to 100 MB. */
const SIZE_BUCKETS = Array.from({ length: 7 }, (_, i) => 100 * 10 ** i);

const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]);

/** Characters, from 64 to 1 M: what frames of events have, and the largest body. */
const FRAME_BUCKETS = Array.from({ length: 8 }, (_, i) => 64 * 4 ** i);

/** What the gateway keeps to save work. */
export type CacheName = "access_token" | "fallback";

/** Uses of a cache; `evicted` is for caches that let go of single entries. */
export interface CacheMetrics {
  hit(): void;
  miss(): void;
  evicted(): void;
}

/** Figures of one route and method. Children of the label sets are looked up once: per request that would cost more
 *  than the request's own bookkeeping. */
export interface RouteMetrics {
  begin(): void;
  end(status: number, durationMs: number, requestBytes: number, responseBytes: number): void;
  streamOpened(): void;
  streamClosed(): void;
  streamMessage(direction: "in" | "out"): void;
}

/** All figures of one gateway worker. */
export interface GatewayMetrics {
  /** Figures for a route template (or another bounded label) and a method. */
  route(template: string, method: string): RouteMetrics;
  /** Counts a request that was refused before it reached a service; `code` is a problem code. */
  refused(code: string): void;
  /** Counts a read that is tried again because its service was unavailable. */
  retried(peer: string): void;
  /** A WebSocket was opened, or its handshake refused. */
  socketOpened(): void;
  socketRefused(): void;
  socketClosed(): void;
  /** A text frame of `chars` characters. */
  socketFrame(direction: "in" | "out", chars: number): void;
  cache(name: CacheName): CacheMetrics;
  /** The request is part of a trace that is recorded here; `isSampled`: and exported. */
  traced(isSampled: boolean): void;
  /** Adds what the listener of the Redis protocol has. */
  watchResp(connections: () => number): void;
}

/** Registers the gateway's metrics. `residentMemoryBytes` is of the whole process, as every worker shares it. */
export function createGatewayMetrics(registry: Registry, residentMemoryBytes: () => number): GatewayMetrics {
  const registers = [registry];
  const requests = new Counter({
    name: "aetherflow_gateway_http_requests_total",
    help: "HTTP requests answered, by method, route template and status.",
    labelNames: ["method", "route", "status"],
    registers,
  });
  const durations = new Histogram({
    name: "aetherflow_gateway_http_request_duration_seconds",
    help: "Time from the request's headers to the answer's first byte.",
    labelNames: ["method", "route"],
    buckets: DURATION_BUCKETS,
    registers,
  });
  const requestSizes = new Histogram({
    name: "aetherflow_gateway_http_request_size_bytes",
    help: "Size of request bodies.",
    labelNames: ["method", "route"],
    buckets: SIZE_BUCKETS,
    registers,
  });
  const responseSizes = new Histogram({
    name: "aetherflow_gateway_http_response_size_bytes",
    help: "Size of response bodies; streams count 0.",
    labelNames: ["method", "route"],
    buckets: SIZE_BUCKETS,
    registers,
  });
  // Counted in plain numbers, since it changes twice a request and is read once a scrape.
  const underWay: { readonly labels: { method: string; route: string }; count: number }[] = [];
  new Gauge({
    name: "aetherflow_gateway_http_active_requests",
    help: "HTTP requests under way.",
    labelNames: ["method", "route"],
    registers,
    collect() {
      for (const { labels, count } of underWay) this.set(labels, count);
    },
  });
  const streams = new Gauge({
    name: "aetherflow_gateway_active_streams",
    help: "Event streams and JSON streams that are open.",
    labelNames: ["route"],
    registers,
  });
  const messages = new Counter({
    name: "aetherflow_gateway_stream_messages_total",
    help: "Messages on streams, in (from clients) and out.",
    labelNames: ["route", "direction"],
    registers,
  });
  const refusals = new Counter({
    name: "aetherflow_gateway_http_refused_total",
    help: "Requests that the gateway refused itself, by problem code.",
    labelNames: ["code"],
    registers,
  });
  const retries = new Counter({
    name: "aetherflow_gateway_read_retries_total",
    help: "Reads tried again because their service was unavailable.",
    labelNames: ["peer"],
    registers,
  });
  new Gauge({
    name: "process_resident_memory_bytes",
    help: "Resident memory of the whole process, all workers.",
    registers,
    collect() {
      this.set(residentMemoryBytes());
    },
  });

  const sockets = new Counter({
    name: "aetherflow_gateway_websocket_connections_total",
    help: "WebSocket handshakes, by result.",
    labelNames: ["result"],
    registers,
  });
  for (const result of ["opened", "refused"]) sockets.inc({ result }, 0);
  const socketResults = {
    opened: sockets.labels({ result: "opened" }),
    refused: sockets.labels({ result: "refused" }),
  };
  const openSockets = new Gauge({
    name: "aetherflow_gateway_websocket_active_connections",
    help: "WebSockets that are open.",
    registers,
  });
  const frames = new Histogram({
    name: "aetherflow_gateway_websocket_message_size_chars",
    help: "Characters of WebSocket messages, in (from clients) and out.",
    labelNames: ["direction"],
    buckets: FRAME_BUCKETS,
    registers,
  });
  for (const direction of ["in", "out"]) frames.zero({ direction });
  const framesOf = { in: frames.labels({ direction: "in" }), out: frames.labels({ direction: "out" }) };
  // Plain numbers, as with requests: a token is looked up with each of them.
  const caches = {
    access_token: { hits: 0, misses: 0, evictions: 0 },
    fallback: { hits: 0, misses: 0, evictions: 0 },
  } satisfies Record<CacheName, unknown>;
  for (
    const [field, help] of [
      ["hits", "Uses of a cache that found what they looked for."],
      ["misses", "Uses of a cache that did not."],
      ["evictions", "Entries that made room for others."],
    ] as const
  ) {
    new Counter({
      name: `aetherflow_gateway_cache_${field}_total`,
      help,
      labelNames: ["cache"],
      registers,
      collect() {
        this.reset();
        for (const [cache, counts] of Object.entries(caches)) this.inc({ cache }, counts[field]);
      },
    });
  }
  const traces = { sampled: 0, unsampled: 0 };
  new Counter({
    name: "aetherflow_gateway_traces_total",
    help: "Requests and calls that are part of a trace, while traces are recorded (telemetry.otlp.endpoint).",
    labelNames: ["sampled"],
    registers,
    collect() {
      this.reset();
      this.inc({ sampled: "true" }, traces.sampled);
      this.inc({ sampled: "false" }, traces.unsampled);
    },
  });

  function createRoute(route: string, method: string): RouteMetrics {
    const labels = { method, route };
    const duration = durations.labels(labels);
    const requestSize = requestSizes.labels(labels);
    const responseSize = responseSizes.labels(labels);
    const active = { labels, count: 0 };
    underWay.push(active);
    const open = streams.labels({ route });
    const directions = {
      in: messages.labels({ route, direction: "in" }),
      out: messages.labels({ route, direction: "out" }),
    };
    // One child for each status that this route has answered: at most the rows of the problem table and a few more.
    const byStatus = new Map<number, PromCounter.Internal>();
    return {
      begin: () => active.count++,
      end(status, durationMs, requestBytes, responseBytes) {
        active.count--;
        let counter = byStatus.get(status);
        if (counter === undefined) {
          byStatus.set(status, counter = requests.labels({ ...labels, status: String(status) }));
        }
        counter.inc();
        duration.observe(durationMs / 1000);
        requestSize.observe(requestBytes);
        responseSize.observe(responseBytes);
      },
      streamOpened: () => open.inc(),
      streamClosed: () => open.dec(),
      streamMessage: (direction) => directions[direction].inc(),
    };
  }

  const byTemplate = new Map<string, Map<string, RouteMetrics>>();
  return {
    route(template, method) {
      let byMethod = byTemplate.get(template);
      if (byMethod === undefined) byTemplate.set(template, byMethod = new Map());
      const bounded = METHODS.has(method) ? method : "OTHER";
      let metrics = byMethod.get(bounded);
      if (metrics === undefined) byMethod.set(bounded, metrics = createRoute(template, bounded));
      return metrics;
    },
    refused: (code) => refusals.labels({ code }).inc(),
    retried: (peer) => retries.labels({ peer }).inc(),
    socketOpened() {
      socketResults.opened.inc();
      openSockets.inc();
    },
    socketRefused: () => socketResults.refused.inc(),
    socketClosed: () => openSockets.dec(),
    socketFrame: (direction, chars) => framesOf[direction].observe(chars),
    cache(name) {
      const counts = caches[name];
      return {
        hit: () => void counts.hits++,
        miss: () => void counts.misses++,
        evicted: () => void counts.evictions++,
      };
    },
    traced: (isSampled) => void (isSampled ? traces.sampled++ : traces.unsampled++),
    watchResp(connections) {
      new Gauge({
        name: "aetherflow_gateway_resp_connections",
        help: "Connections to the Redis port that are open.",
        registers,
        collect() {
          this.set(connections());
        },
      });
    },
  };
}
