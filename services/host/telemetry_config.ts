/** Where traces go, under the key `telemetry`. */
import { z } from "zod";

/** Schema of `telemetry`: every key has a default, a range and a description. */
export const telemetryConfigSchema = z.strictObject({
  otlp: z.strictObject({
    endpoint: z.union([z.literal(""), z.url({ protocol: /^https?$/ })]).default("").describe(
      "URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318. Empty: nothing is exported. " +
        "It takes effect under the keeper; a host that runs alone is given OTEL_… variables instead.",
    ),
    protocol: z.enum(["http/protobuf", "http/json"]).default("http/protobuf").describe(
      "Form of what is sent.",
    ),
    headers: z.record(z.string(), z.string()).default({}).describe(
      "HTTP headers that are sent with it, such as a key of the collector.",
    ),
  }).prefault({}),
  serviceName: z.string().min(1).max(256).default("aetherflow").describe(
    "`service.name` of what is exported.",
  ),
  sampleRatio: z.number().min(0).max(1).default(1).describe(
    "Part of the traces begun here that is exported; traces begun by callers follow their callers.",
  ),
}).prefault({});

/** The validated configuration of telemetry. */
export type TelemetryConfig = z.output<typeof telemetryConfigSchema>;

/** The variables that switch the runtime's export on, which it reads when a process starts; undefined when nothing is to be
 *  exported. */
export function telemetryEnv(
  { otlp, serviceName, sampleRatio }: TelemetryConfig,
): Record<string, string> | undefined {
  if (otlp.endpoint === "") return undefined;
  const headers = Object.entries(otlp.headers).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return {
    OTEL_DENO: "true",
    // Lines of the log stay on stderr, where they have their own form.
    OTEL_DENO_CONSOLE: "ignore",
    OTEL_EXPORTER_OTLP_ENDPOINT: otlp.endpoint,
    OTEL_EXPORTER_OTLP_PROTOCOL: otlp.protocol,
    ...(headers.length === 0 ? {} : { OTEL_EXPORTER_OTLP_HEADERS: headers.join(",") }),
    OTEL_SERVICE_NAME: serviceName,
    OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
    OTEL_TRACES_SAMPLER_ARG: String(sampleRatio),
  };
}
