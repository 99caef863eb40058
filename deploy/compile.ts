/** Makes one executable file of the product: `deno task compile [--target TRIPLE] [--output FILE]`.
 *
 *  With `deno compile` where its base runtime can be downloaded; otherwise a self-extracting file made of the Deno that
 *  runs this, for the same kind of machine only. It says which of the two it made and why. */
import { dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { writeSelfExtracting } from "./self_extracting.ts";
import { MAIN, ROOT, type Stage, stage } from "./stage.ts";

/** How long the download of the base runtime (about 40 MB) may take before it counts as out of reach, in ms. */
const DOWNLOAD_DEADLINE_MS = 300_000;

/** What to make. */
export interface ExecutableOptions {
  /** The file to write; its folder is made. */
  readonly output: string;
  /** A target of `deno compile`, such as `aarch64-unknown-linux-gnu`; this machine's when left out. */
  readonly target?: string;
  /** The project to make it of; this one when left out. */
  readonly source?: string;
}

/** What was made. */
export interface Executable {
  readonly path: string;
  readonly kind: "deno compile" | "self-extracting";
  /** Why this kind, as part of a sentence. */
  readonly reason: string;
  readonly bytes: number;
}

/** Makes the executable.
 *  @throws {Error} if the program does not bundle or compile, or only a self-extracting file is possible and `target` is
 *  another kind of machine. */
export async function buildExecutable(options: ExecutableOptions): Promise<Executable> {
  const path = resolve(options.output);
  const source = options.source ?? ROOT;
  await Deno.mkdir(dirname(path), { recursive: true });
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-compile-" });
  try {
    const staged = await stage(source, directory, await commitOf(source));
    const compiled = `${directory}/executable`;
    const obstacle = await denoCompile(staged, compiled, options.target);
    if (obstacle === undefined) {
      // The temporary folder may be on another disk: copy first, then rename, so that no half file bears the name.
      await Deno.copyFile(compiled, `${path}.tmp`);
      await Deno.rename(`${path}.tmp`, path);
      return {
        path,
        kind: "deno compile",
        reason: "its base runtime could be had",
        bytes: (await Deno.stat(path)).size,
      };
    }
    const here = Deno.build.target;
    if (options.target !== undefined && options.target !== here) {
      throw new Error(`cannot make an executable for ${options.target} on ${here}: ${obstacle}`);
    }
    if (Deno.build.os === "windows") throw new Error(`cannot make an executable: ${obstacle}`);
    await writeSelfExtracting(staged, Deno.execPath(), path);
    return { path, kind: "self-extracting", reason: obstacle, bytes: (await Deno.stat(path)).size };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Compiles the staged program. Returns undefined, or why the base runtime could not be had.
 *  @throws {Error} if it fails for another reason. */
async function denoCompile(
  staged: Stage,
  output: string,
  target: string | undefined,
): Promise<string | undefined> {
  const overdue = new AbortController();
  const timer = setTimeout(() => overdue.abort(), DOWNLOAD_DEADLINE_MS);
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "compile",
        "--no-check",
        "--no-lock",
        "--no-prompt",
        "-P=start",
        "--config",
        "deno.json",
        ...staged.workers.flatMap((worker) => ["--include", worker]),
        ...(target === undefined ? [] : ["--target", target]),
        "--output",
        output,
        MAIN,
      ],
      cwd: staged.directory,
      env: { NO_COLOR: "1", DENO_NO_PACKAGE_JSON: "1" },
      stdin: "null",
      signal: overdue.signal,
    }).output();
    if (success) return undefined;
    const said = new TextDecoder().decode(stderr).replace(/^Stack backtrace:[^]*/m, "");
    if (overdue.signal.aborted) {
      return `the base runtime of deno compile did not arrive in ${DOWNLOAD_DEADLINE_MS} ms`;
    }
    if (!said.includes("Setting up base binary")) throw new Error(`deno compile failed\n${said}`);
    const url = /https?:[^)\s]+/.exec(said)?.[0] ?? "its source";
    const cause = [...said.matchAll(/^\s+\d+: (.*)$/gm)].at(-1)?.[1] ?? "no connection";
    return `the base runtime of deno compile cannot be had from ${url}: ${cause}`;
  } finally {
    clearTimeout(timer);
  }
}

/** The commit a checkout stands at, with `-dirty` where files differ from it; undefined for a tree without git. */
async function commitOf(source: string): Promise<string | undefined> {
  try {
    const { success, stdout } = await new Deno.Command("git", {
      args: ["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
      cwd: source,
      stderr: "null",
      stdin: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined; // no git on this machine
    throw error;
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args,
    options: { target: { type: "string" }, output: { type: "string" } },
  });
  const made = await buildExecutable({
    output: values.output ?? `${ROOT}/dist/aetherflow`,
    ...(values.target === undefined ? {} : { target: values.target }),
  });
  const size = `${(made.bytes / 1e6).toFixed(0)} MB`;
  // deno-lint-ignore no-console -- what a command line says
  console.log(`made ${made.path} (${size}) with ${made.kind}: ${made.reason}`);
}
