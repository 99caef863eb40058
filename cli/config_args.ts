/** From the options that `start` and `doctor` share to the configuration. */
import { type Config, loadConfig } from "../services/host/config.ts";
import { ConfigError, type Sources } from "../services/host/config_sources.ts";

/** The file that is read when none is named. */
const DEFAULT_FILE = "aetherflow.yaml";

/** What the command line says about configuration. */
export interface ConfigOptions {
  readonly config?: string;
  readonly data?: string;
  readonly set?: readonly string[];
}

/** Reads file, environment and flags. @throws {ConfigError} */
export function readConfig(options: ConfigOptions): Config {
  const flags = (options.set ?? []).map(parseSet);
  if (options.data !== undefined) flags.push({ path: "data", value: options.data, flag: "--data" });
  const file = readFile(options.config);
  return loadConfig({ ...(file === undefined ? {} : { file }), env: Deno.env.toObject(), flags });
}

/** The file that is read, there or not. */
export function configFile(options: ConfigOptions): string {
  return options.config ?? DEFAULT_FILE;
}

function parseSet(text: string): { path: string; value: string; flag: string } {
  const at = text.indexOf("=");
  if (at < 1) throw new ConfigError([`config: --set ${text} is no setting, expected --set key.path=value`]);
  const path = text.slice(0, at);
  // The value may be a secret, so the message names the key only.
  return { path, value: text.slice(at + 1), flag: `--set ${path}` };
}

function readFile(named: string | undefined): Sources["file"] {
  const name = named ?? DEFAULT_FILE;
  try {
    return { name, text: Deno.readTextFileSync(name) };
  } catch (error) {
    if (named === undefined && error instanceof Deno.errors.NotFound) return undefined;
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new ConfigError([`config: cannot read ${name}: ${reason}`], { cause: error });
  }
}
