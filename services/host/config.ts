/** The whole configuration: one schema, composed of the host's own keys and each service's part. */
import { z } from "zod";
import { gatewayConfigSchema, NEEDS_AUTHENTICATION, openEdges } from "../gateway/config.ts";
import { kvConfigSchema } from "../kv/config.ts";
import { passwordConfigSchema } from "../password/config.ts";
import { sessionConfigSchema } from "../session/config.ts";
import { statesyncConfigSchema } from "../statesync/config.ts";
import { LOG_FORMATS, LOG_LEVELS } from "../runtime/log.ts";
import { clusterConfigSchema } from "./cluster_config.ts";
import { loadFromSources, type Sources } from "./config_sources.ts";
import { SERVICES } from "./plan.ts";
import { telemetryConfigSchema } from "./telemetry_config.ts";

const quantum = z.strictObject({
  basePort: z.int().min(0).max(65_000).default(7400).describe(
    "First UDP port of the Quantum nodes: the host's; the workers' follow, in start order. 0 takes any free ports.",
  ),
}).prefault({});

const log = z.strictObject({
  level: z.enum(LOG_LEVELS).default("info").describe("Least level that is logged; off logs nothing."),
  format: z.enum(["auto", ...LOG_FORMATS]).default("auto").describe(
    "Form of the log on stderr: json lines, text, or text in color. auto is color on a terminal and json elsewhere.",
  ),
}).prefault({});

const restart = z.strictObject({
  maxInWindow: z.int().min(0).max(1000).default(10).describe(
    "Restarts of one worker within the window before the host gives up and exits; 0 gives up at the first death.",
  ),
  windowMs: z.int().min(100).max(86_400_000).default(60_000).describe(
    "Length of that window, in milliseconds.",
  ),
  backoffMinMs: z.int().min(1).max(60_000).default(100).describe(
    "Wait before the second restart within the window, in milliseconds; it doubles with each further one. " +
      "The first restart does not wait.",
  ),
  backoffMaxMs: z.int().min(1).max(600_000).default(10_000).describe("Longest such wait, in milliseconds."),
}).prefault({}).refine((value) => value.backoffMinMs <= value.backoffMaxMs, {
  path: ["backoffMinMs"],
  error: "expected at most host.restart.backoffMaxMs",
});

const heartbeat = z.strictObject({
  intervalMs: z.int().min(10).max(60_000).default(250).describe(
    "How often the host asks each worker for its health, in milliseconds.",
  ),
  timeoutMs: z.int().min(50).max(600_000).default(1000).describe(
    "Silence after which a worker counts as stuck and is replaced, in milliseconds.",
  ),
}).prefault({}).refine((value) => value.intervalMs < value.timeoutMs, {
  path: ["intervalMs"],
  error: "expected less than host.heartbeat.timeoutMs",
});

const host = z.strictObject({
  restart,
  heartbeat,
  startTimeoutMs: z.int().min(100).max(3_600_000).default(60_000).describe(
    "How long a worker may take to start, recovery of its data included, in milliseconds.",
  ),
  drain: z.strictObject({
    stageDeadlineMs: z.int().min(0).max(3_600_000).default(10_000).describe(
      "How long the workers of one stage may take to finish what is under way at a stop, in milliseconds.",
    ),
  }).prefault({}),
  reload: z.strictObject({
    watch: z.boolean().default(true).describe(
      "Whether a change of the configuration file or of a certificate takes effect by itself; SIGHUP works either way.",
    ),
    intervalMs: z.int().min(50).max(3_600_000).default(1_000).describe(
      "How often these files are looked at, in milliseconds. A changed file is read once it has stayed the same for as long.",
    ),
  }).prefault({}),
}).prefault({});

const services = z.array(z.enum(SERVICES)).min(1).max(SERVICES.length).default([...SERVICES]).refine(
  (list) => !list.includes("session") || list.includes("password"),
  { error: "expected password beside session, whose passwords it checks" },
).describe("What runs in this process; the others are looked for on other hosts (see cluster).");

/** Schema of the configuration. Every key has a default, a range and a description. */
export const configSchema = z.strictObject({
  data: z.string().min(1).default("./data").describe(
    "Folder of everything that is stored; made when missing.",
  ),
  services,
  quantum,
  cluster: clusterConfigSchema,
  log,
  telemetry: telemetryConfigSchema,
  host,
  kv: kvConfigSchema,
  session: sessionConfigSchema,
  password: passwordConfigSchema,
  statesync: statesyncConfigSchema,
  gateway: gatewayConfigSchema,
}).superRefine(({ gateway, session }, context) => {
  if (session.auth.mode === "required") return;
  for (const edge of openEdges(gateway)) {
    context.addIssue({
      code: "custom",
      path: ["gateway", edge, "host"],
      input: gateway[edge].host,
      message: NEEDS_AUTHENTICATION +
        (edge === "grpc" ? ", or gateway.grpc.tls.clientCaFile to let clients in by certificate" : ""),
    });
  }
});

/** The validated configuration. */
export type Config = z.output<typeof configSchema>;

/** Puts the configuration together: flags win over the environment, over the file, over defaults.
 *  @throws {ConfigError} with one line for each thing that is wrong. */
export function loadConfig(sources: Sources): Config {
  return loadFromSources(configSchema, sources);
}
