/** Takes a new configuration while the product runs: read, check, compare, apply, tell. */
import { createHash } from "node:crypto";
import type { Logger } from "../runtime/log.ts";
import type { Config } from "./config.ts";
import { ConfigError, withoutSecrets } from "./config_sources.ts";
import { HostError } from "./exit_code.ts";
import type { ConfigSource } from "./host.ts";
import type { Plan } from "./plan.ts";
import { planChange } from "./reload.ts";
import { certificateFiles } from "./tls_texts.ts";

/** Letters of a configuration's version: enough to tell a handful apart. */
const VERSION_LENGTH = 12;

/** What the reloader is made of. */
export interface ReloaderDeps {
  /** In effect now, and the plan made of it. */
  readonly config: Config;
  readonly plan: Plan;
  /** Plans the same run with another configuration, certificates read again. @throws {HostError} */
  planOf(config: Config): Plan;
  readonly source: ConfigSource | undefined;
  readonly log: Logger;
  /** Gives the workers their parts. Resolves to what is wrong; then everything is as it was. */
  apply(plan: Plan, config: Config): Promise<readonly { worker: string; problem: string }[]>;
  /** A new configuration is in effect. */
  onApplied(config: Config): void;
}

/** Reloads, one after the other. */
export class Reloader {
  readonly #deps: ReloaderDeps;
  #config: Config;
  #plan: Plan;
  #isGood = true;
  #version: string;
  #underWay: Promise<void> | undefined;
  #again = false;

  constructor(deps: ReloaderDeps) {
    this.#deps = deps;
    this.#config = deps.config;
    this.#plan = deps.plan;
    this.#version = versionOf(deps.config);
  }

  /** Names the configuration in effect: the same for the same values, secrets left out. */
  get version(): string {
    return this.#version;
  }

  /** False when the last configuration that was read could not be applied. */
  get isGood(): boolean {
    return this.#isGood;
  }

  /** Files whose change may change the configuration. */
  files(): readonly string[] {
    const { source } = this.#deps;
    return [...(source === undefined ? [] : [source.file]), ...certificateFiles(this.#config)];
  }

  /** Reads and applies. A wish that comes meanwhile is served once more, since it may be about a newer file. */
  reload(): Promise<void> {
    if (this.#underWay !== undefined) {
      this.#again = true;
      return this.#underWay;
    }
    return this.#underWay = this.#reloadAll().finally(() => this.#underWay = undefined);
  }

  async #reloadAll(): Promise<void> {
    do {
      this.#again = false;
      await this.#reload();
    } while (this.#again);
  }

  async #reload(): Promise<void> {
    const { source, log } = this.#deps;
    if (source === undefined) return;
    try {
      const { config, applied, needsRestart } = planChange(
        this.#config,
        source.read(),
        (candidate) => samePermissions(this.#deps.planOf(candidate), this.#plan),
      );
      const plan = this.#deps.planOf(config);
      const certificates = certificatesOf(plan) !== certificatesOf(this.#plan);
      const problems = await this.#deps.apply(plan, config);
      if (problems.length > 0) {
        throw new ConfigError(problems.map(({ worker, problem }) => `${worker}: ${problem}`));
      }
      this.#config = config;
      this.#plan = plan;
      this.#version = versionOf(config);
      this.#isGood = true;
      this.#deps.onApplied(config);
      log.info("configuration reloaded", { applied, certificates, version: this.#version });
      if (needsRestart.length > 0) log.warn("configuration needs a restart", { keys: needsRestart });
    } catch (error) {
      if (!(error instanceof ConfigError) && !(error instanceof HostError)) throw error;
      this.#isGood = false;
      log.error("configuration not reloaded; nothing has changed", { problem: error.message });
    }
  }
}

function versionOf(config: Config): string {
  return createHash("sha256").update(JSON.stringify(withoutSecrets(config))).digest("hex").slice(
    0,
    VERSION_LENGTH,
  );
}

/** A thread's permissions are its own for as long as it lives. */
function samePermissions(a: Plan, b: Plan): boolean {
  const of = ({ workers }: Plan) => JSON.stringify(workers.map(({ permissions }) => permissions));
  return of(a) === of(b);
}

/** Everything that was read from the gateway's certificate files. */
function certificatesOf({ workers }: Plan): string {
  return JSON.stringify(workers.map(({ config }) => {
    const { tlsTexts, httpTlsTexts } = config as { tlsTexts?: unknown; httpTlsTexts?: unknown };
    return [tlsTexts, httpTlsTexts];
  }));
}
