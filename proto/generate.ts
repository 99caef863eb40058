/** Turns proto/ into proto/gen: `deno task gen`. With `--accept` it also makes the contract as it stands the baseline
 *  that later changes are compared with. Needs no `deno` or `buf` on PATH: both come from the running Deno and its cache. */
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import config from "../deno.json" with { type: "json" };

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** The contract as last accepted: what a change must stay compatible with. Compiled descriptors, without comments. */
export const BASELINE = fileURLToPath(new URL("baseline.binpb", import.meta.url));

/** What buf said and how it ended: 0 for success, 100 where lint or breaking found something. */
export interface BufOutcome {
  readonly code: number;
  readonly output: string;
}

/** Runs buf, at the version deno.json names, in the project's root. */
export async function runBuf(args: readonly string[]): Promise<BufOutcome> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", config.imports["@bufbuild/buf"], ...args],
    cwd: ROOT,
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** Generates the TypeScript of every proto file into `directory`/proto/gen, in place of what is there.
 *  @throws {Error} with buf's words if the contract does not compile. */
export async function generate(directory: string): Promise<void> {
  const { code, output } = await runBuf(["generate", "--template", await template(), "--output", directory]);
  if (code !== 0) throw new Error(`buf generate failed (${code})\n${output}`);
}

/** Writes the compiled contract to `path`.
 *  @throws {Error} with buf's words if it does not compile. */
export async function accept(path: string): Promise<void> {
  const { code, output } = await runBuf(["build", "--exclude-source-info", "--output", path]);
  if (code !== 0) throw new Error(`buf build failed (${code})\n${output}`);
}

/** buf.gen.yaml as JSON, with `deno` replaced by the running one: on a machine that has it from npx it is not on PATH. */
async function template(): Promise<string> {
  const parsed = parse(await Deno.readTextFile(`${ROOT}buf.gen.yaml`)) as { plugins: { local: string[] }[] };
  for (const plugin of parsed.plugins) {
    plugin.local = plugin.local.map((word) => word === "deno" ? Deno.execPath() : word);
  }
  return JSON.stringify(parsed);
}

if (import.meta.main) {
  await generate(ROOT);
  if (Deno.args.includes("--accept")) await accept(BASELINE);
}
