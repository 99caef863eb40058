/** Configuration of what a request meets before it is known who calls: addresses, other origins, repeated requests, TLS. */
import { z } from "zod";
import { parseBlock } from "./ip_address.ts";

/** An origin as browsers write it: scheme, host and port, in lower case, nothing after it. */
const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?$/;
const FIELD_NAME = /^[A-Za-z0-9-]{1,64}$/;
const fieldNames = z.array(z.string().regex(FIELD_NAME, "expected the name of a header")).max(64);

/** Schema of `gateway.trustedProxies`. */
export const trustedProxiesSchema = z.array(
  z.string().refine((text) => parseBlock(text) !== undefined, {
    error: "expected an IP address or a block such as 10.0.0.0/8",
  }),
).max(256).default([]).describe(
  "Addresses and blocks of proxies in front of us. From them Forwarded, X-Forwarded-For and X-Forwarded-Proto are believed; " +
    "where both kinds are there, only if they agree.",
);

/** Schema of `gateway.cors`. */
export const corsConfigSchema = z.strictObject({
  origins: z.array(z.union([z.literal("*"), z.string().regex(ORIGIN, "expected * or https://host")])).max(256)
    .default([]).describe(
      "Origins whose pages may read our answers, such as https://app.example.com; * is all of them, without cookies. Empty: none.",
    ),
  methods: z.array(z.string().regex(/^[A-Z]{1,16}$/, "expected a method in capitals")).max(16).default([
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
  ]).describe("Methods that those pages may use."),
  headers: fieldNames.default([
    "Authorization",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "Idempotency-Key",
    "Last-Event-ID",
    "TTL",
    "X-Request-ID",
    "Traceparent",
    "Connect-Protocol-Version",
    "Connect-Timeout-Ms",
    "X-Grpc-Web",
    "X-User-Agent",
    "Grpc-Timeout",
  ]).describe("Request headers that those pages may set."),
  exposeHeaders: fieldNames.default([
    "ETag",
    "TTL",
    "X-Request-ID",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "Idempotency-Replayed",
    "Grpc-Status",
    "Grpc-Message",
  ]).describe("Headers of answers that those pages may read."),
  credentials: z.boolean().default(false).describe("Whether those pages may send cookies."),
  maxAgeS: z.int().min(0).max(86_400).default(600).describe(
    "How long a browser may remember the answer to a preflight, in seconds.",
  ),
}).prefault({}).refine((value) => !(value.credentials && value.origins.includes("*")), {
  path: ["credentials"],
  error: "expected false beside the origin *: any page could act as the user",
});

/** Validated `gateway.cors`. */
export type CorsConfig = z.output<typeof corsConfigSchema>;

/** Schema of `gateway.idempotency`. */
export const idempotencyConfigSchema = z.strictObject({
  ttlMs: z.int().min(1_000).max(604_800_000).default(86_400_000).describe(
    "How long the answer to a request with an Idempotency-Key is repeated, in milliseconds.",
  ),
  answerBytesMax: z.int().min(0).max(1_000_000).default(256 * 1024).describe(
    "Largest body of an answer that is kept to be repeated, in bytes. A repeated request whose answer was larger is 409.",
  ),
}).prefault({});

/** Validated `gateway.idempotency`. */
export type IdempotencyConfig = z.output<typeof idempotencyConfigSchema>;

/** Schema of `gateway.http.tls`. */
export const httpTlsSchema = z.strictObject({
  certFile: z.string().default("").describe(
    "PEM file of the server's certificate and the chain behind it. Empty: HTTP is not encrypted.",
  ),
  keyFile: z.string().default("").describe("PEM file of the certificate's private key."),
  hstsMaxAgeS: z.int().min(0).max(63_072_000).default(31_536_000).describe(
    "How long browsers are told to come by TLS only (Strict-Transport-Security), in seconds; 0 tells them nothing.",
  ),
}).prefault({}).refine((value) => (value.certFile === "") === (value.keyFile === ""), {
  path: ["keyFile"],
  error: "expected both gateway.http.tls.certFile and keyFile, or neither",
});
