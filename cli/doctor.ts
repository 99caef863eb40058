/** `aetherflow doctor`: can this machine run the product? */
import type { Config } from "../services/host/config.ts";
import { ConfigError } from "../services/host/config_sources.ts";
import { openDataFolder } from "../services/host/data_folder.ts";
import { HostError } from "../services/host/exit_code.ts";
import { EDGES, hostAndPort } from "../services/host/plan.ts";
import { resolvePorts } from "../services/host/ports.ts";
import { type ConfiguredServer, configuredServers } from "../services/host/servers.ts";
import { type ConfigOptions, readConfig } from "./config_args.ts";
import { complain, printLine, USAGE_EXIT_CODE } from "./output.ts";

/** What one check found. */
export interface Finding {
  readonly check: string;
  readonly ok: boolean;
  /** What was seen. */
  readonly detail: string;
  /** What to do about a failure. */
  readonly hint?: string;
}

/** Oldest runtime that the product is tested with. */
const MIN_DENO = [2, 9, 0] as const;
/** Files and sockets that a busy gateway and its log hold at once: 4096 requests and some. */
const OPEN_FILES = 4_200;
/** Write and sync this many times; the middle one counts. */
const SYNCS = 15;
/** A sync slower than this makes each acknowledged write slower than people notice. */
const SLOW_SYNC_MS = 50;
/** The machine's clock before this year was never set. */
const EARLIEST_YEAR = 2025;
/** How long wall and monotonic clock are compared, and how far they may differ, in milliseconds. */
const CLOCK_WINDOW_MS = 50;
const CLOCK_SLACK_MS = 20;
/** How long a server may take to accept a connection, in milliseconds. */
const CONNECT_DEADLINE_MS = 2_000;

/** Runs all checks. Resolves to 0 when each passed, 1 otherwise. */
export async function doctor(options: ConfigOptions & { json?: boolean }): Promise<number> {
  let config: Config;
  try {
    config = readConfig(options);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    complain(error.message);
    return USAGE_EXIT_CODE;
  }
  const findings = await examine(config);
  const ok = findings.every((finding) => finding.ok);
  if (options.json) printLine(JSON.stringify({ ok, checks: findings }));
  else for (const finding of findings) printLine(describe(finding));
  return ok ? 0 : 1;
}

/** All checks of one configuration, in the order in which they are worth mending. */
export async function examine(config: Config): Promise<Finding[]> {
  return [
    checkRuntime(Deno.version.deno),
    checkPermissions(),
    checkPorts(config),
    ...checkDataFolder(config.data),
    await checkClock(),
    await checkServers(config),
  ];
}

function describe({ check, ok, detail, hint }: Finding): string {
  const line = `${ok ? "ok  " : "FAIL"} ${check}: ${detail}`;
  return hint === undefined ? line : `${line}\n     ${hint}`;
}

/** Whether `version` is new enough. */
export function checkRuntime(version: string): Finding {
  const parts = version.split(".").map((part) => Number.parseInt(part, 10));
  const least = MIN_DENO.join(".");
  const differs = MIN_DENO.findIndex((part, i) => parts[i] !== part);
  const ok = differs < 0 || (parts[differs] ?? 0) > MIN_DENO[differs]!;
  const base = { check: "runtime", ok, detail: `Deno ${version}` };
  return ok ? base : { ...base, hint: `Deno ${least} or newer is needed: npx -y deno@2.9.6 task start` };
}

function checkPermissions(): Finding {
  const missing = (["read", "write", "net"] as const)
    .filter((name) => Deno.permissions.querySync({ name }).state !== "granted");
  const unstable = "listenDatagram" in Deno ? [] : ["unstable net"];
  const lacks = [...missing, ...unstable];
  if (lacks.length === 0) return { check: "permissions", ok: true, detail: "read, write, net" };
  return {
    check: "permissions",
    ok: false,
    detail: `not granted: ${lacks.join(", ")}`,
    hint: "run it as deno.json says: deno run -P=start main.ts",
  };
}

function checkPorts(config: Config): Finding {
  try {
    const { quantum, tcp } = resolvePorts(config);
    const edges = EDGES.map((edge) => `${edge} ${config.gateway[edge].host}:${tcp[edge]}`);
    const detail = `${edges.join(", ")}, quantum ${quantum.join(" ")}`;
    return { check: "ports", ok: true, detail: `free: ${detail}` };
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    const [detail, hint] = error.message.split("; ");
    return { check: "ports", ok: false, detail: detail!, ...(hint === undefined ? {} : { hint }) };
  }
}

function checkDataFolder(name: string): Finding[] {
  try {
    using folder = openDataFolder(name);
    const writable: Finding = { check: "data folder", ok: true, detail: `${folder.path} can be written` };
    return [writable, checkOpenFiles(folder.path), checkSync(folder.path)];
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    return [{
      check: "data folder",
      ok: false,
      detail: error.message,
      hint: "choose a folder that you may write and nobody else uses: --data FOLDER",
    }];
  }
}

/** Opens as many files as a busy server holds: what the limit really allows, whatever set it. */
function checkOpenFiles(folder: string): Finding {
  const check = "open files";
  const path = `${folder}/doctor.tmp`;
  const files: Deno.FsFile[] = [];
  try {
    while (files.length < OPEN_FILES) files.push(Deno.openSync(path, { write: true, create: true }));
    return { check, ok: true, detail: `${OPEN_FILES} at once` };
  } catch (error) {
    const detail = `${files.length} at once, ${OPEN_FILES} are needed (${(error as Error).message})`;
    return { check, ok: false, detail, hint: "raise the limit: ulimit -n 65536, or LimitNOFILE= in systemd" };
  } finally {
    for (const file of files) file.close();
    if (files.length > 0) Deno.removeSync(path);
  }
}

function checkSync(folder: string): Finding {
  const path = `${folder}/doctor.tmp`;
  const times: number[] = [];
  const file = Deno.openSync(path, { write: true, create: true });
  try {
    const block = new Uint8Array(512);
    for (let i = 0; i < SYNCS; i++) {
      const began = performance.now();
      file.writeSync(block);
      file.syncDataSync();
      times.push(performance.now() - began);
    }
  } finally {
    file.close();
    Deno.removeSync(path);
  }
  times.sort((a, b) => a - b);
  const middle = times[SYNCS >> 1]!;
  const base = {
    check: "sync to disk",
    ok: middle <= SLOW_SYNC_MS,
    detail: `${middle.toFixed(2)} ms in the middle`,
  };
  return base.ok ? base : {
    ...base,
    hint: "each durable write waits this long: use a faster disk, or --set kv.durability=interval",
  };
}

async function checkClock(): Promise<Finding> {
  const year = new Date().getUTCFullYear();
  if (year < EARLIEST_YEAR) {
    return {
      check: "clock",
      ok: false,
      detail: `it is ${year}`,
      hint: "set the clock, for example with NTP",
    };
  }
  const wall = Date.now(), monotonic = performance.now();
  await new Promise((resolve) => setTimeout(resolve, CLOCK_WINDOW_MS));
  const drift = Math.abs((Date.now() - wall) - (performance.now() - monotonic));
  const base = {
    check: "clock",
    ok: drift <= CLOCK_SLACK_MS,
    detail: `wall and monotonic differ by ${drift.toFixed(0)} ms`,
  };
  return base.ok ? base : { ...base, hint: "the clock is being set while we look: let NTP settle" };
}

/** Whether every server that the configuration names accepts connections. */
async function checkServers(config: Config): Promise<Finding> {
  const check = "servers";
  const servers = configuredServers(config);
  if (servers.length === 0) {
    return { check, ok: true, detail: "none is configured: all storage is embedded" };
  }
  const problems = (await Promise.all(servers.map(problemOf))).filter((problem) => problem !== undefined);
  if (problems.length === 0) {
    return { check, ok: true, detail: `reached: ${servers.map(hostAndPort).join(", ")}` };
  }
  return {
    check,
    ok: false,
    detail: problems.join(", "),
    hint: "start them, or correct the addresses under the keys that are named",
  };
}

async function problemOf(server: ConfiguredServer): Promise<string | undefined> {
  const { hostname, port, key } = server;
  const deadline = AbortSignal.timeout(CONNECT_DEADLINE_MS);
  try {
    (await Deno.connect({ hostname, port, signal: deadline })).close();
    return undefined;
  } catch (error) {
    const reason = deadline.aborted ? `no answer in ${CONNECT_DEADLINE_MS} ms` : (error as Error).message;
    return `${hostAndPort(server)} of ${key}: ${reason}`;
  }
}
