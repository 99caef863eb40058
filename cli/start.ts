/** `aetherflow start`: the product, from the command line to its exit code. */
import { type Config, configSchema } from "../services/host/config.ts";
import { ConfigError, documentKeys } from "../services/host/config_sources.ts";
import { EXIT, HostError } from "../services/host/exit_code.ts";
import { type Host, type HostOptions, openHost } from "../services/host/host.ts";
import { telemetryEnv } from "../services/host/telemetry_config.ts";
import { printConfig } from "./config.ts";
import { configFile, type ConfigOptions, readConfig } from "./config_args.ts";
import { telemetryLine } from "./keeper.ts";
import { complain, printLine } from "./output.ts";

/** Options of the command. */
export interface StartOptions extends ConfigOptions {
  readonly printConfig?: boolean;
  readonly json?: boolean;
  /** Whether stdin is the life line of a keeper. */
  readonly lifeLine?: boolean;
  /** Whether the process was started with the export of traces switched on. */
  readonly telemetryOn?: boolean;
}

/** Runs until a signal or a failure. Resolves to the exit code. Tests put workers of their own into the host. */
export async function start(options: StartOptions, hostOptions: HostOptions = {}): Promise<number> {
  try {
    const config = readConfig(options);
    const env = telemetryEnv(config.telemetry);
    if (options.printConfig) {
      printConfig(config, options.json ?? false);
      return EXIT.ok;
    }
    if (env !== undefined && !options.telemetryOn) {
      if (options.lifeLine) {
        // Export is switched on where a process starts, and the keeper starts this one.
        printLine(telemetryLine(env));
        return EXIT.restart;
      }
      complain(
        "telemetry.otlp.endpoint has no effect without the keeper: set OTEL_DENO=true and the like yourself",
      );
    }
    const source = { read: () => readConfig(options), file: configFile(options) };
    return await runHost(config, options, { source, ...hostOptions });
  } catch (error) {
    if (error instanceof ConfigError) {
      complain(error.message);
      return EXIT.config;
    }
    if (error instanceof HostError) {
      complain(error.message);
      return error.exitCode;
    }
    throw error;
  }
}

/** Lets Deno's WebSockets write a frame from where it lies. Otherwise each socket copies it into a buffer of its own, which stays as
 *  large as its largest frame was: 150 clients of a document of 4 MB hold 600 MB. Deno reads it with the first WebSocket. */
const WRITE_IN_PLACE = "DENO_USE_WRITEV";

async function runHost(config: Config, options: StartOptions, hostOptions: HostOptions): Promise<number> {
  Deno.env.set(WRITE_IN_PLACE, "1");
  const host = openHost(config, hostOptions);
  const stopped = stopOnDemand(host, options.lifeLine ?? false);
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGHUP", () => void host.reload());
  if (await host.started === "ready") {
    printLine(readyLine(config, host.addresses(), performance.now(), options.json ?? false));
  }
  const failure = await Promise.race([host.failed, stopped.signalled]);
  if (failure !== undefined) {
    complain(failure.message);
    await host.stop();
    return failure.exitCode;
  }
  return await stopped.clean ? EXIT.ok : EXIT.cutShort;
}

/** The first signal drains, the second ends at once. The keeper's wishes count beside the signals, not on top of them:
 *  a terminal or a service manager sends its signal to both processes. */
function stopOnDemand(
  host: Host,
  hasLifeLine: boolean,
): { signalled: Promise<undefined>; clean: Promise<boolean> } {
  const signalled = Promise.withResolvers<undefined>();
  const clean = Promise.withResolvers<boolean>();
  const onDemand = (times: number) => {
    if (times > 1) host.cutShort();
    signalled.resolve(undefined);
    host.stop().then(clean.resolve, clean.reject);
  };
  let signals = 0;
  const onSignal = () => onDemand(++signals);
  Deno.addSignalListener("SIGINT", onSignal);
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", onSignal);
  if (hasLifeLine) readLifeLine(onDemand).catch(clean.reject);
  return { signalled: signalled.promise, clean: clean.promise };
}

/** Each byte on stdin is a wish of the keeper; the end means that it is gone and nobody would end this process. */
async function readLifeLine(onDemand: (times: number) => void): Promise<void> {
  let wishes = 0;
  for await (const bytes of Deno.stdin.readable) onDemand(wishes += bytes.length);
  if (wishes === 0) onDemand(1);
}

/** The one line on stdout. `elapsedMs` counts from the start of the process. */
export function readyLine(
  config: Config,
  addresses: Record<string, string>,
  elapsedMs: number,
  json: boolean,
): string {
  const durability = config.services.includes("kv") ? { durability: config.kv.durability } : {};
  const facts = { ...addresses, data: config.data, ...durability };
  const tookMs = Math.round(elapsedMs);
  if (json) return JSON.stringify({ ready: true, ...facts, tookMs });
  const pairs = Object.entries({ ...facts, in: `${tookMs}ms` });
  return `ready ${pairs.map(([key, value]) => `${key}=${value}`).join(" ")}`;
}

/** What `start --help` prints below the options. */
export function startHelp(): string {
  const keys = documentKeys(configSchema).map(({ path, expected, default: value, description }) =>
    `  ${path}\n      ${description}\n      ${expected}; default ${
      value === undefined ? "none" : JSON.stringify(value)
    }`
  );
  return `
Settings come from flags, then AETHERFLOW_… variables, then the file, then defaults; the first that has one wins:
  aetherflow start --set gateway.http.port=8081
  AETHERFLOW_GATEWAY__HTTP__PORT=8081 aetherflow start
  aetherflow.yaml:   gateway: { http: { port: 8081 } }

When everything serves, one line on stdout says so; all else goes to stderr:
  ready http=http://127.0.0.1:8080 quantum=127.0.0.1:7400 data=./data durability=always in=412ms

SIGTERM or SIGINT finishes what is under way and ends; a second one ends at once. SIGHUP, or a change of the file or of
a certificate, reads the configuration again and applies what may change while the product runs; the log names the rest.

Started with the permission set keep (deno run -P=keep main.ts start), a small keeper process runs the product as its
child and starts it again, on the same port, when it is killed or ends with ${EXIT.restart}; after too many restarts within a
minute it ends with ${EXIT.gaveUp}. With the permission set start the product runs alone, for a service manager that restarts
it itself.

Exit codes:
  ${EXIT.ok}   stopped by a signal, everything finished
  ${EXIT.error}   something else went wrong
  ${EXIT.config}   wrong usage or configuration
  ${EXIT.addressInUse}  a port is taken by another process
  ${EXIT.dataInUse}  the data folder is in use by another process
  ${EXIT.dataDamaged}  stored data is damaged
  ${EXIT.storage}  the disk is full, or the data folder cannot be used
  ${EXIT.gaveUp}  a worker kept dying
  ${EXIT.cutShort}  stopped by a signal, but a deadline or a second signal cut work short
  ${EXIT.restart}  a worker is stuck in an endless loop and only a new process can go on

Keys:
${keys.join("\n")}`;
}
