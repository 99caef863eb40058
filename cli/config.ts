/** `aetherflow config`: looks at the configuration without starting anything. */
import { stringify } from "yaml";
import { readClusterSecret } from "../services/host/cluster_secret.ts";
import type { Config } from "../services/host/config.ts";
import { ConfigError, withoutSecrets } from "../services/host/config_sources.ts";
import { EXIT, HostError } from "../services/host/exit_code.ts";
import {
  readEtcdTlsTexts,
  readHttpTlsTexts,
  readRegistryTlsTexts,
  readTlsTexts,
} from "../services/host/tls_texts.ts";
import { type ConfigOptions, readConfig } from "./config_args.ts";
import { complain, printLine } from "./output.ts";

/** `aetherflow config check`: whether `start` would take the configuration and the files that it names. */
export function checkConfig(options: ConfigOptions): number {
  return guarded(() => {
    const config = readConfig(options);
    readTlsTexts(config);
    readHttpTlsTexts(config);
    readEtcdTlsTexts(config);
    readRegistryTlsTexts(config);
    if (config.cluster.secretFile !== "") readClusterSecret(config.cluster.secretFile);
    printLine("the configuration is good");
  });
}

/** `aetherflow config show`: the configuration that `start` would use, without secrets. */
export function showConfig(options: ConfigOptions & { readonly json?: boolean }): number {
  return guarded(() => printConfig(readConfig(options), options.json ?? false));
}

/** Prints a configuration without its secrets. */
export function printConfig(config: Config, json: boolean): void {
  const shown = withoutSecrets(config);
  printLine(json ? JSON.stringify(shown) : stringify(shown).trimEnd());
}

function guarded(act: () => void): number {
  try {
    act();
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof ConfigError) && !(error instanceof HostError)) throw error;
    complain(error.message);
    return EXIT.config;
  }
}
