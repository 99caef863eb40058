/** The gateway's part of the configuration, under the key `gateway`. */
import { z } from "zod";
import {
  corsConfigSchema,
  httpTlsSchema,
  idempotencyConfigSchema,
  trustedProxiesSchema,
} from "./inbound/config.ts";
import { rateLimitConfigSchema } from "./limits/config.ts";
import { gatewayAuthConfigSchema } from "./auth/config.ts";
import { hubConfigSchema } from "./hub/config.ts";
import { syncConfigSchema } from "./sync/config.ts";
import { fallbacksConfigSchema, upstreamsConfigSchema } from "./resilience/config.ts";

const http = z.strictObject({
  host: z.string().min(1).default("127.0.0.1").describe(
    "Address that HTTP listens on. Only loopback unless session.auth.mode is required.",
  ),
  port: z.int().min(0).max(65_535).default(8080).describe(
    "TCP port of HTTP; 0 takes any free one, which the ready line names.",
  ),
  tls: httpTlsSchema,
}).prefault({});

const tls = z.strictObject({
  certFile: z.string().default("").describe(
    "PEM file of the server's certificate and the chain behind it. Empty: gRPC is not encrypted.",
  ),
  keyFile: z.string().default("").describe("PEM file of the certificate's private key."),
  clientCaFile: z.string().default("").describe(
    "PEM file of the authorities whose certificates clients must present (mTLS). Empty: none are asked for.",
  ),
}).prefault({}).refine((value) => (value.certFile === "") === (value.keyFile === ""), {
  path: ["keyFile"],
  error: "expected both gateway.grpc.tls.certFile and keyFile, or neither",
}).refine((value) => value.clientCaFile === "" || value.certFile !== "", {
  path: ["clientCaFile"],
  error: "expected gateway.grpc.tls.certFile and keyFile beside it",
});

const grpc = z.strictObject({
  host: z.string().min(1).default("127.0.0.1").describe(
    "Address that gRPC listens on. Only loopback unless session.auth.mode is required or gateway.grpc.tls.clientCaFile " +
      "is set.",
  ),
  port: z.int().min(0).max(65_535).default(2379).describe(
    "TCP port of gRPC, which answers plain HTTP/1.1 too; 0 takes any free one, which the ready line names.",
  ),
  tls,
  maxConnections: z.int().min(1).max(1_000_000).default(10_000).describe(
    "Connections open at once in one gateway worker. More are closed as they come.",
  ),
  maxConcurrentStreams: z.int().min(1).max(1_000_000).default(4096).describe(
    "Calls under way at once on one connection, told to the client, which waits with further ones.",
  ),
  // Each holds one of the 4,096 streams of the channel to the worker that answers it.
  maxStreamCalls: z.int().min(1).max(3_500).default(2_048).describe(
    "Streaming calls (watches, keep-alives, snapshots) open at once in one gateway worker; one watch stream carries any " +
      "number of watches. More are RESOURCE_EXHAUSTED.",
  ),
  // etcd's: its largest request (1.5 MiB) and 512 KiB for what surrounds it.
  maxMessageBytes: z.int().min(1024).max(4_000_000).default(2 * 1024 * 1024).describe(
    "Largest request message, in bytes. More is RESOURCE_EXHAUSTED.",
  ),
  minPingIntervalMs: z.int().min(0).max(3_600_000).default(5_000).describe(
    "How often a client may send HTTP/2 pings, in milliseconds. One that keeps sending more is closed with ENHANCE_YOUR_CALM.",
  ),
}).prefault({});

const resp = z.strictObject({
  host: z.string().min(1).default("127.0.0.1").describe(
    "Address that the Redis protocol (RESP) listens on. Only loopback unless session.auth.mode is required.",
  ),
  port: z.int().min(0).max(65_535).default(6380).describe(
    "TCP port of the Redis protocol; 0 takes any free one, which the ready line names.",
  ),
  maxConnections: z.int().min(1).max(1_000_000).default(10_000).describe(
    "Connections open at once in one gateway worker. More are told so and closed, as Redis does.",
  ),
}).prefault({});

const limits = z.strictObject({
  // A message between workers carries at most 4 MiB, and a raw body travels with its key in one.
  bodyBytes: z.int().min(1).max(4_000_000).default(3 * 1024 * 1024).describe(
    "Largest request body, in bytes, and largest single JSON request of a stream. More is 413.",
  ),
  headerBytes: z.int().min(256).max(256 * 1024).default(32 * 1024).describe(
    "Largest sum of header names and values, in bytes. More is 431.",
  ),
  urlBytes: z.int().min(64).max(60_000).default(16 * 1024).describe(
    "Longest request target, in bytes. More is 414. A key in a path may take three bytes for each of its own.",
  ),
  concurrentRequests: z.int().min(1).max(100_000).default(4096).describe(
    "Requests under way at once in one gateway worker. More are refused with 503 and Retry-After.",
  ),
  concurrentStreams: z.int().min(1).max(100_000).default(1024).describe(
    "Server-sent event and JSON streams open at once in one gateway worker. More are refused with 503.",
  ),
}).prefault({});

const drain = z.strictObject({
  readyGraceMs: z.int().min(0).max(60_000).default(0).describe(
    "How long /readyz answers 503 before the gateway stops accepting, in milliseconds: time for a load balancer to notice.",
  ),
}).prefault({});

/** Schema of `gateway`: every key has a default, a range and a description. */
export const gatewayConfigSchema = z.strictObject({
  http,
  grpc,
  resp,
  workers: z.int().min(1).max(64).default(1).describe(
    "Gateway workers that share the ports of HTTP, gRPC and RESP; more than 1 on Linux only.",
  ),
  limits,
  requestTimeoutMs: z.int().min(10).max(600_000).default(30_000).describe(
    "Deadline of one request, body included, in milliseconds; past it the answer is 504 (408 while the body is awaited). " +
      "Streams must have begun by then.",
  ),
  upstreams: upstreamsConfigSchema,
  fallbacks: fallbacksConfigSchema,
  readRetryMs: z.int().min(0).max(60_000).default(2_000).describe(
    "How long a call that may be repeated (a read) waits for a service that is unavailable before it is 503, in " +
      "milliseconds; 0 fails at once.",
  ),
  heartbeatMs: z.int().min(100).max(300_000).default(15_000).describe(
    "Interval of the comment line that keeps an idle event stream open, in milliseconds.",
  ),
  statsTimeoutMs: z.int().min(10).max(10_000).default(500).describe(
    "How long /metrics and /readyz wait for the answer of another worker, in milliseconds.",
  ),
  allowedHosts: z.array(z.string().min(1).max(253)).max(64).default([]).describe(
    "Names, besides loopback ones, that protected mode accepts in Host and Origin (without port).",
  ),
  trustedProxies: trustedProxiesSchema,
  cors: corsConfigSchema,
  rateLimit: rateLimitConfigSchema,
  idempotency: idempotencyConfigSchema,
  auth: gatewayAuthConfigSchema,
  hub: hubConfigSchema,
  sync: syncConfigSchema,
  drain,
}).prefault({});

export { limitAddresses } from "./limits/config.ts";

/** Which edges must not be open while `session.auth.mode` is not `required`, and why. */
export { NEEDS_AUTHENTICATION, openEdges } from "./auth/exposure.ts";

/** Where the keys of configured issuers are fetched from. */
export { issuerAddresses } from "./auth/config.ts";

/** Validated configuration of one gateway worker. */
export type GatewayConfig = z.output<typeof gatewayConfigSchema>;

/** Texts of the files that `gateway.grpc.tls` names. The host reads them, because the worker may read no file. */
export interface TlsTexts {
  readonly cert: string;
  readonly key: string;
  /** Authorities of client certificates; clients must present one if it is there. */
  readonly clientCa: string | undefined;
}

/** What a gateway worker is started with: its configuration and what the host read for it. */
export type GatewayWorkerConfig = GatewayConfig & {
  readonly tlsTexts?: TlsTexts;
  /** Of `gateway.http.tls`. */
  readonly httpTlsTexts?: TlsTexts;
};
