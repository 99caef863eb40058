/** The keeper: a small process that starts the host as its child and starts it again when it is gone unasked. What no
 *  process can do for itself: a stuck worker's thread ends with its process only, and a worker may kill that process.
 *
 *  The child's stdin is the life line: each byte on it is a wish to stop, as a signal is, and its end says that the keeper
 *  is gone. So a stop reaches a host that is still starting, a signal that both of them get counts once, and no host
 *  outlives its keeper. This file loads little, as the keeper runs beside the host all the time. */
import { EXIT } from "../services/host/exit_code.ts";
import { complain } from "./output.ts";

/** The flag, unknown to users, that tells a host that its stdin is the life line. */
export const LIFE_LINE_FLAG = "--life-line";

/** The flag, unknown to users, that tells a host that the export of its traces is switched on. */
export const TELEMETRY_FLAG = "--telemetry-on";

/** The line that a host writes on stdout instead of starting, when it wants to be started with these variables. */
export function telemetryLine(env: Readonly<Record<string, string>>): string {
  return TELEMETRY_PREFIX + JSON.stringify(env);
}

const TELEMETRY_PREFIX = "telemetry ";

/** Restarts within the window before the keeper gives up, and the window's length in milliseconds; as in `host.restart`. */
const MAX_RESTARTS = 10;
const WINDOW_MS = 60_000;
/** Least time from the first restart within the window to the second, in milliseconds. It doubles with each: a host that
 *  ran for longer comes back at once, one that dies again and again does not keep the machine busy with starts. */
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 10_000;
/** How long a host that was told to end at once may take, in milliseconds; it takes a few unless its own thread is stuck. */
const CUT_SHORT_MS = 2_000;

/** How the child ended. */
export interface HostEnd {
  readonly code: number;
  readonly signal: string | null;
}

/** The child. */
export interface KeptHost {
  readonly stdout: ReadableStream<Uint8Array>;
  readonly ended: Promise<HostEnd>;
  /** Wishes once more that it stops: the first time drains it, the second ends it at once. */
  stop(): void;
  kill(): void;
  /** Has it read its configuration again. */
  reload(): void;
}

/** The world around the keeper. */
export interface KeeperDeps {
  /** Starts the host with these arguments, and variables besides those of this process. */
  spawn(args: readonly string[], env: Readonly<Record<string, string>>): KeptHost;
  /** Calls `then` at each signal to stop. */
  onStop(then: () => void): void;
  /** Calls `then` at each signal to read the configuration again. */
  onReload(then: () => void): void;
  /** Milliseconds of a clock that never jumps. */
  now(): number;
  /** Resolves after `ms`, or when `signal` is aborted. */
  wait(ms: number, signal?: AbortSignal): Promise<void>;
  /** Writes to stdout. */
  print(bytes: Uint8Array): void;
  /** Says one line on stderr. */
  complain(line: string): void;
}

/** Whether this process is to be the keeper: it was asked for `start` and may run processes, as the permission set `keep`
 *  allows and `start` does not. */
export function isKeeper(args: readonly string[]): boolean {
  return args[0] === "start" && !args.some((arg) => NOT_KEPT.includes(arg)) &&
    Deno.permissions.querySync({ name: "run" }).state === "granted";
}

/** A host that has a keeper needs no second one, and a help text none at all. */
const NOT_KEPT: readonly string[] = [LIFE_LINE_FLAG, "--help", "-h"];

/** Keeps the host that `args` (`start` and what follows) describe running until it ends on purpose. Resolves to the exit
 *  code: the host's own, or 14 if it died too often. */
export async function keep(args: readonly string[], deps: KeeperDeps = systemDeps()): Promise<number> {
  const restarts: number[] = [];
  const stopping = new AbortController();
  let host: KeptHost | undefined;
  let wishes = 0;
  let ready: ReadyLine | undefined;
  let env: Record<string, string> | undefined;
  deps.onStop(() => {
    wishes++;
    stopping.abort();
    host?.stop();
    if (wishes === 2) deps.wait(CUT_SHORT_MS).then(() => host?.kill());
  });

  deps.onReload(() => host?.reload());

  while (true) {
    host = deps.spawn(childArgs(args, ready, env !== undefined), env ?? {});
    let wanted: Record<string, string> | undefined;
    await relay(host.stdout, deps, (line) => {
      wanted ??= env === undefined ? parseTelemetryLine(line) : undefined;
      if (wanted !== undefined) return false;
      const found = parseReadyLine(line);
      if (found === undefined) return true;
      const isFirst = ready === undefined;
      ready ??= found;
      return isFirst;
    });
    const end = await host.ended;
    host = undefined;
    if (wanted !== undefined && wishes === 0) {
      env = wanted;
      continue;
    }
    if (wishes > 1 && end.signal !== null) return EXIT.cutShort;
    if (wishes > 0 || (end.signal === null && end.code !== EXIT.restart)) return end.code;

    const reason = end.signal === null ? "a worker is stuck" : `it was ended by ${end.signal}`;
    const waitMs = backoff(restarts, deps.now());
    if (waitMs === undefined) {
      deps.complain(`given up after ${MAX_RESTARTS} restarts within ${WINDOW_MS} ms: ${reason}`);
      return EXIT.gaveUp;
    }
    deps.complain(`restarting the product${waitMs > 0 ? ` in ${waitMs} ms` : ""}: ${reason}`);
    if (waitMs > 0) await deps.wait(waitMs, stopping.signal);
    if (wishes > 0) return EXIT.ok;
  }
}

/** Notes a restart at `now` in `restarts` and returns how long it waits; undefined when there were too many. */
function backoff(restarts: number[], now: number): number | undefined {
  while (restarts.length > 0 && restarts[0]! <= now - WINDOW_MS) restarts.shift();
  if (restarts.length >= MAX_RESTARTS) return undefined;
  const last = restarts.at(-1);
  const least = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** (restarts.length - 1));
  const waitMs = last === undefined ? 0 : Math.ceil(Math.max(0, last + least - now));
  restarts.push(now + waitMs);
  return waitMs;
}

/** What the ready line tells the keeper. */
interface ReadyLine {
  /** Port of each edge that the line names, by its key under `gateway`. */
  readonly ports: readonly (readonly [edge: string, port: string])[];
}

/** The line that `readyLine` in start.ts makes, as text or JSON. */
function parseReadyLine(line: string): ReadyLine | undefined {
  if (!line.startsWith("ready ") && !line.startsWith('{"ready":true,')) return undefined;
  // A host without a gateway names none.
  const named = line.matchAll(/[\s"](http|grpc|resp)(?:=|":")[^\s"]*:(\d+)/g);
  return { ports: [...named].map(([, edge, port]) => [edge!, port!] as const) };
}

function parseTelemetryLine(line: string): Record<string, string> | undefined {
  return line.startsWith(TELEMETRY_PREFIX) ? JSON.parse(line.slice(TELEMETRY_PREFIX.length)) : undefined;
}

/** A new host serves where the first one did, whatever free ports that found. */
function childArgs(args: readonly string[], ready: ReadyLine | undefined, hasTelemetry: boolean): string[] {
  const [command, ...rest] = args;
  const ports = (ready?.ports ?? []).flatMap(([edge, port]) => ["--set", `gateway.${edge}.port=${port}`]);
  return [command!, LIFE_LINE_FLAG, ...(hasTelemetry ? [TELEMETRY_FLAG] : []), ...rest, ...ports];
}

/** Passes the child's output on, line by line, those for which `isToPass` says so. */
async function relay(
  stdout: ReadableStream<Uint8Array>,
  deps: Pick<KeeperDeps, "print">,
  isToPass: (line: string) => boolean,
): Promise<void> {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  let text = "";
  const pass = (line: string) => {
    if (isToPass(line)) deps.print(encoder.encode(line));
  };
  for await (const chunk of stdout) {
    const lines = (text + decoder.decode(chunk, { stream: true })).split(/(?<=\n)/);
    text = lines.at(-1)?.endsWith("\n") ? "" : lines.pop() ?? "";
    lines.forEach(pass);
  }
  if (text !== "") pass(text);
}

function systemDeps(): KeeperDeps {
  return {
    spawn: spawnHost,
    onStop(then) {
      Deno.addSignalListener("SIGINT", then);
      if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", then);
    },
    onReload(then) {
      if (Deno.build.os !== "windows") Deno.addSignalListener("SIGHUP", then);
    },
    now: () => performance.now(),
    wait: (ms, signal) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        signal?.addEventListener("abort", () => {
          clearTimeout(timer);
          resolve();
        });
      }),
    print(bytes) {
      for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
    },
    complain,
  };
}

/** Runs the main module again, with the permissions of the host. Deno finds the deno.json that holds both sets where it
 *  found it for this process: from the module's folder upwards. */
function spawnHost(args: readonly string[], env: Readonly<Record<string, string>>): KeptHost {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "--no-prompt", "-P=start", Deno.mainModule, ...args],
    env: { ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const lifeLine = child.stdin.getWriter();
  let hasEnded = false;
  child.status.finally(() => hasEnded = true);
  return {
    stdout: child.stdout,
    ended: child.status,
    stop() {
      lifeLine.write(new Uint8Array(1)).catch((error) => {
        // It has ended, as wished.
        if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      });
    },
    kill() {
      if (!hasEnded) child.kill("SIGKILL");
    },
    reload() {
      if (!hasEnded) child.kill("SIGHUP");
    },
  };
}
