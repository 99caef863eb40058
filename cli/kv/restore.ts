/** `aetherflow kv restore`: a data folder from a backup, without a server. */
import { ConfigError } from "../../services/host/config_sources.ts";
import { openDataFolder } from "../../services/host/data_folder.ts";
import { HostError } from "../../services/host/exit_code.ts";
import { restoreBackup, RestoreError } from "../../services/kv/restore.ts";
import { systemRandom } from "../../services/runtime/random.ts";
import { type ConfigOptions, readConfig } from "../config_args.ts";
import { complain, printLine, USAGE_EXIT_CODE } from "../output.ts";
import { EXIT_ERROR, EXIT_OK } from "./client.ts";

/** Options of the command: those that `start` will be given, so that it finds what it needs. */
export interface RestoreCommandOptions extends ConfigOptions {
  readonly skipHashCheck?: boolean;
  readonly json?: boolean;
}

/** Restores `file` into the store of the data folder, which must be empty. Resolves to the exit code. */
export async function restore(file: string, options: RestoreCommandOptions): Promise<number> {
  try {
    const config = readConfig(options);
    const { engine, sqlite } = config.kv;
    if (engine === "etcd") {
      complain("kv.engine is etcd: its own tools restore it");
      return USAGE_EXIT_CODE;
    }
    using folder = openDataFolder(config.data);
    const report = await restoreBackup({
      backup: file,
      directory: `${folder.path}/kv`,
      engine,
      pageBytes: sqlite.pageBytes,
      skipHashCheck: options.skipHashCheck ?? false,
      random: systemRandom,
    });
    if (options.json) printLine(JSON.stringify({ data: config.data, ...report }));
    else printLine(`restored ${report.keys} keys at revision ${report.revision} to ${config.data}`);
    return EXIT_OK;
  } catch (error) {
    if (error instanceof ConfigError) {
      complain(error.message);
      return USAGE_EXIT_CODE;
    }
    const isKnown = error instanceof RestoreError || error instanceof HostError ||
      error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied;
    if (!isKnown) throw error;
    complain(error.message);
    return EXIT_ERROR;
  }
}
