import { assert, assertEquals } from "@std/assert";
import { gatewayConfigSchema } from "./config.ts";
import { corsConfigSchema } from "./inbound/config.ts";
import { hubConfigSchema } from "./hub/config.ts";
import { rateLimitConfigSchema } from "./limits/config.ts";
import { syncConfigSchema } from "./sync/config.ts";

Deno.test("gatewayConfigSchema has these defaults", () => {
  assertEquals(gatewayConfigSchema.parse(undefined), {
    http: {
      host: "127.0.0.1",
      port: 8080,
      tls: { certFile: "", keyFile: "", hstsMaxAgeS: 31_536_000 },
    },
    grpc: {
      host: "127.0.0.1",
      port: 2379,
      tls: { certFile: "", keyFile: "", clientCaFile: "" },
      maxConnections: 10_000,
      maxConcurrentStreams: 4096,
      maxStreamCalls: 2048,
      maxMessageBytes: 2_097_152,
      minPingIntervalMs: 5_000,
    },
    resp: { host: "127.0.0.1", port: 6380, maxConnections: 10_000 },
    workers: 1,
    limits: {
      bodyBytes: 3_145_728,
      headerBytes: 32_768,
      urlBytes: 16_384,
      concurrentRequests: 4096,
      concurrentStreams: 1024,
    },
    requestTimeoutMs: 30_000,
    upstreams: {
      breaker: { preset: "default" },
      bulkhead: { maxConcurrent: 2_048, maxQueued: 1_024 },
      outlier: {
        consecutiveFailures: 5,
        baseEjectionMs: 30_000,
        maxEjectionMs: 300_000,
        maxEjectionPercent: 10,
      },
      retry: { budgetPercent: 20, minPerSecond: 3, firstPauseMs: 10, maxPauseMs: 160 },
      singleFlight: true,
      services: {},
    },
    fallbacks: [],
    readRetryMs: 2_000,
    heartbeatMs: 15_000,
    statsTimeoutMs: 500,
    allowedHosts: [],
    trustedProxies: [],
    cors: corsConfigSchema.parse(undefined),
    rateLimit: rateLimitConfigSchema.parse(undefined),
    idempotency: { ttlMs: 86_400_000, answerBytesMax: 262_144 },
    auth: { openPaths: ["/", "/openapi.json"], issuers: [] },
    hub: hubConfigSchema.parse(undefined),
    sync: syncConfigSchema.parse(undefined),
    drain: { readyGraceMs: 0 },
  });
});

Deno.test("gatewayConfigSchema names the key of what it refuses", () => {
  const cases: [input: unknown, path: string][] = [
    [{ http: { port: -1 } }, "http.port"],
    [{ http: { port: 65_536 } }, "http.port"],
    [{ http: { host: "" } }, "http.host"],
    [{ http: { tls: { certFile: "c" } } }, "http.tls.keyFile"],
    [{ grpc: { port: -1 } }, "grpc.port"],
    [{ grpc: { tls: { certFile: "c" } } }, "grpc.tls.keyFile"],
    [{ grpc: { tls: { keyFile: "k" } } }, "grpc.tls.keyFile"],
    [{ grpc: { tls: { clientCaFile: "a" } } }, "grpc.tls.clientCaFile"],
    [{ grpc: { maxConnections: 0 } }, "grpc.maxConnections"],
    [{ grpc: { maxConcurrentStreams: 0 } }, "grpc.maxConcurrentStreams"],
    [{ grpc: { maxStreamCalls: 4_000 } }, "grpc.maxStreamCalls"],
    [{ grpc: { maxMessageBytes: 5_000_000 } }, "grpc.maxMessageBytes"],
    [{ grpc: { minPingIntervalMs: -1 } }, "grpc.minPingIntervalMs"],
    [{ resp: { port: 65_536 } }, "resp.port"],
    [{ resp: { maxConnections: 0 } }, "resp.maxConnections"],
    [{ workers: 0 }, "workers"],
    [{ limits: { bodyBytes: 0 } }, "limits.bodyBytes"],
    [{ limits: { headerBytes: 1 } }, "limits.headerBytes"],
    [{ limits: { urlBytes: 100_000 } }, "limits.urlBytes"],
    [{ limits: { concurrentRequests: 0 } }, "limits.concurrentRequests"],
    [{ limits: { concurrentStreams: 1.5 } }, "limits.concurrentStreams"],
    [{ requestTimeoutMs: 0 }, "requestTimeoutMs"],
    [{ readRetryMs: -1 }, "readRetryMs"],
    [{ heartbeatMs: 0 }, "heartbeatMs"],
    [{ statsTimeoutMs: "soon" }, "statsTimeoutMs"],
    [{ allowedHosts: [""] }, "allowedHosts.0"],
    [{ drain: { readyGraceMs: -1 } }, "drain.readyGraceMs"],
    [{ trustedProxies: ["10.0.0.1/8"] }, "trustedProxies.0"],
    [{ cors: { origins: ["*"], credentials: true } }, "cors.credentials"],
    [{ unknown: 1 }, ""],
  ];
  for (const [input, path] of cases) {
    const result = gatewayConfigSchema.safeParse(input);
    assert(!result.success, JSON.stringify(input));
    assertEquals(result.error.issues[0]!.path.join("."), path);
  }
});

Deno.test("every key of the configuration is described", () => {
  const described = (schema: unknown, path: string): void => {
    const type = schema as { shape?: Record<string, unknown>; description?: string; unwrap?: () => unknown };
    if (type.shape !== undefined) {
      for (const [key, inner] of Object.entries(type.shape)) {
        described(inner, path === "" ? key : `${path}.${key}`);
      }
    } else if (type.description === undefined && type.unwrap !== undefined) described(type.unwrap(), path);
    else assert(type.description !== undefined, `${path} has no description`);
  };
  described(gatewayConfigSchema, "");
});
