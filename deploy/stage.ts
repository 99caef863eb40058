/** Lays the program out as both kinds of executable hold it: one bundle for the command line, one for each worker, at
 *  places that keep their relative URLs, and the permission sets they run with. */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

/** The bundle of main.ts. It lies where the supervisor's relative URLs of the workers start from. */
export const MAIN = "services/host/main.js";

/** A laid out program. */
export interface Stage {
  readonly directory: string;
  /** Paths in the directory, MAIN and deno.json included. */
  readonly files: readonly string[];
  /** The workers' entries among them. */
  readonly workers: readonly string[];
}

/** Bundles the program of `source` (a project root) into `directory`, with `commit` baked in if it is known.
 *  @throws {Error} with the bundler's words, or if the supervisor's URLs do not lead to the workers. */
export async function stage(source: string, directory: string, commit: string | undefined): Promise<Stage> {
  const entries = await workerEntries(source);
  await bundle(`${source}/main.ts`, `${directory}/${MAIN}`);
  await Promise.all(entries.map((entry) => bundle(`${source}/${entry}`, `${directory}/${bundled(entry)}`)));

  const main = await Deno.readTextFile(`${directory}/${MAIN}`);
  await Deno.writeTextFile(`${directory}/${MAIN}`, bake(main, entries, commit));

  const { unstable, permissions } = JSON.parse(await Deno.readTextFile(`${source}/deno.json`));
  await Deno.writeTextFile(`${directory}/deno.json`, JSON.stringify({ unstable, permissions }));
  const workers = entries.map(bundled);
  return { directory, files: ["deno.json", MAIN, ...workers], workers };
}

async function workerEntries(source: string): Promise<string[]> {
  const entries: string[] = [];
  for await (const service of Deno.readDir(`${source}/services`)) {
    const entry = `services/${service.name}/worker.ts`;
    if (service.isDirectory && await exists(`${source}/${entry}`)) entries.push(entry);
  }
  return entries.sort();
}

function bundled(entry: string): string {
  return entry.replace(/\.ts$/, ".js");
}

/** Makes one JavaScript file of an entry and all it imports, npm packages included. Names stay readable in stack traces. */
async function bundle(entry: string, output: string): Promise<void> {
  await Deno.mkdir(dirname(output), { recursive: true });
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "-q", "--platform", "deno", "--output", output, entry],
    cwd: dirname(entry),
    stdin: "null",
  }).output();
  if (!success) throw new Error(`cannot bundle ${entry}\n${new TextDecoder().decode(stderr)}`);
}

/** What stands for the commit in the source: cli/build_info.ts. */
const COMMIT_MARK = "@commit@";

/** Points the worker URLs at the bundles and puts the commit in place of its mark. */
function bake(main: string, entries: readonly string[], commit: string | undefined): string {
  let baked = main;
  for (const entry of entries) {
    const url = entry.replace(/^services\//, "../");
    if (!baked.includes(`"${url}"`)) throw new Error(`main.ts starts no worker at ${url}`);
    baked = baked.replaceAll(`"${url}"`, `"${bundled(url)}"`);
  }
  if (!baked.includes(COMMIT_MARK)) throw new Error(`main.ts has no ${COMMIT_MARK} to name its commit by`);
  return commit === undefined ? baked : baked.replace(COMMIT_MARK, commit);
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The project's root folder. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url)).replace(/[\\/]$/, "");
