/** A new configuration for a product that runs: what changed, what of it may change now, what waits for a restart. */
import { type Config, configSchema } from "./config.ts";
import { ConfigError } from "./config_sources.ts";

/** Keys, and groups of keys, that take effect while the product runs. Whoever reads one may not keep a copy of it: the
 *  modules of the workers take them by `reconfigure`. */
const RELOADABLE: readonly string[] = [
  "log.level",
  "session.auth.accessTokenMs",
  "session.auth.refreshGraceMs",
  "session.auth.refreshTokenMs",
  "session.idleTimeoutMs",
  "statesync.conflictPolicy",
  "statesync.lockTtlMs",
  "gateway.allowedHosts",
  "gateway.cors",
  "gateway.limits",
  "gateway.rateLimit.address",
  "gateway.rateLimit.bucketsMax",
  "gateway.rateLimit.enabled",
  "gateway.rateLimit.exemptLoopback",
  "gateway.rateLimit.global",
  "gateway.rateLimit.principal",
  "gateway.rateLimit.routes",
  "gateway.trustedProxies",
];

/** What a new configuration comes to. */
export interface Change {
  /** What is in effect from now on: the present configuration with the new values of `applied`. */
  readonly config: Config;
  /** Keys that take effect now. */
  readonly applied: readonly string[];
  /** Keys whose new values wait for a restart. */
  readonly needsRestart: readonly string[];
}

/** Compares. `isPossible` says whether the running workers could take a configuration, for what they may do was settled
 *  when they were started.
 *  @throws {ConfigError} if the new values make no valid configuration together with those that wait. */
export function planChange(present: Config, next: Config, isPossible: (config: Config) => boolean): Change {
  let config = present;
  const applied: string[] = [];
  const needsRestart: string[] = [];
  for (const path of changedKeys(present, next)) {
    const candidate = isReloadable(path) ? withValue(config, next, path.split(".")) : undefined;
    if (candidate === undefined || !isPossible(candidate)) needsRestart.push(path);
    else {
      config = candidate;
      applied.push(path);
    }
  }
  const checked = configSchema.safeParse(config);
  if (checked.success) return { config, applied, needsRestart };
  const reasons = checked.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  throw new ConfigError([
    `config: ${applied.join(", ")} cannot change before ${
      needsRestart.join(", ")
    }, which needs a restart (${reasons})`,
  ]);
}

/** Dotted paths of the values that differ, in the order of the schema. Lists are values. */
export function changedKeys(before: unknown, after: unknown, path: readonly string[] = []): string[] {
  if (!isGroup(before) || !isGroup(after)) {
    return JSON.stringify(before) === JSON.stringify(after) ? [] : [path.join(".")];
  }
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].flatMap((name) => changedKeys(before[name], after[name], [...path, name]));
}

function isReloadable(path: string): boolean {
  return RELOADABLE.some((key) => path === key || path.startsWith(`${key}.`));
}

function isGroup(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A copy of `to` with the value that `from` has at `path`. */
function withValue<T>(to: T, from: unknown, [name, ...rest]: string[]): T {
  if (name === undefined) return from as T;
  const source = isGroup(from) ? from[name] : undefined;
  const copy: Record<string, unknown> = { ...(to as Record<string, unknown>) };
  if (source === undefined) delete copy[name];
  else copy[name] = withValue(isGroup(copy[name]) || rest.length === 0 ? copy[name] : {}, source, rest);
  return copy as T;
}
