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

/** Generates the TypeScript of every proto file into `directory`/proto/gen, in place of what is there, and the comments of
 *  the contract beside it, which generated code keeps for people only.
 *  @throws {Error} with buf's words if the contract does not compile. */
export async function generate(directory: string): Promise<void> {
  const { code, output } = await runBuf(["generate", "--template", await template(), "--output", directory]);
  if (code !== 0) throw new Error(`buf generate failed (${code})\n${output}`);
  await Deno.writeTextFile(`${directory}/proto/gen/comments.ts`, commentsFile(await contract()));
}

/** What is read of a compiled contract (google.protobuf.FileDescriptorSet as JSON). */
interface ProtoFile {
  readonly package?: string;
  readonly messageType?: readonly ProtoMessage[];
  readonly enumType?: readonly ProtoEnum[];
  readonly service?: readonly { readonly name: string; readonly method?: readonly Named[] }[];
  readonly sourceCodeInfo?: {
    readonly location: readonly { readonly path?: readonly number[]; readonly leadingComments?: string }[];
  };
}
interface Named {
  readonly name: string;
}
interface ProtoMessage extends Named {
  readonly field?: readonly Named[];
  readonly nestedType?: readonly ProtoMessage[];
  readonly enumType?: readonly ProtoEnum[];
}
interface ProtoEnum extends Named {
  readonly value?: readonly Named[];
}

async function contract(): Promise<readonly ProtoFile[]> {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-proto-" });
  try {
    const image = `${directory}/image.json`;
    const { code, output } = await runBuf(["build", "--exclude-imports", "--output", image]);
    if (code !== 0) throw new Error(`buf build failed (${code})\n${output}`);
    return (JSON.parse(await Deno.readTextFile(image)) as { file: ProtoFile[] }).file;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** A module with the comments by full name: `package.Message.field`, `package.Service.Method`. */
function commentsFile(files: readonly ProtoFile[]): string {
  const comments = files.flatMap((file) => {
    const names = namesOf(file);
    return file.sourceCodeInfo?.location.flatMap(({ path, leadingComments }) => {
      const name = leadingComments === undefined ? undefined : names.get((path ?? []).join("."));
      return name === undefined ? [] : [[name, textOf(leadingComments!)]];
    }) ?? [];
  }).sort(([a], [b]) => a! < b! ? -1 : 1);
  return `/** The comments of the contract, by full name: \`package.Message.field\`, \`package.Service.Method\`. Generated. */\n` +
    `export const COMMENTS: Readonly<Record<string, string>> = ${
      JSON.stringify(Object.fromEntries(comments), undefined, 2)
    };\n`;
}

function textOf(comment: string): string {
  return comment.split("\n").map((line) => line.trim()).join(" ").trim();
}

/** Full names by the path that source locations have: field numbers of descriptors and indexes, joined by dots. */
function namesOf(file: ProtoFile): Map<string, string> {
  const names = new Map<string, string>();
  const scope = file.package === undefined ? "" : `${file.package}.`;
  function addEnum(each: ProtoEnum, path: string, scope: string): void {
    names.set(path, scope + each.name);
    each.value?.forEach((value, i) => names.set(`${path}.2.${i}`, `${scope}${each.name}.${value.name}`));
  }
  function addMessage(each: ProtoMessage, path: string, scope: string): void {
    const name = scope + each.name;
    names.set(path, name);
    each.field?.forEach((field, i) => names.set(`${path}.2.${i}`, `${name}.${field.name}`));
    each.nestedType?.forEach((inner, i) => addMessage(inner, `${path}.3.${i}`, `${name}.`));
    each.enumType?.forEach((inner, i) => addEnum(inner, `${path}.4.${i}`, `${name}.`));
  }
  file.messageType?.forEach((each, i) => addMessage(each, `4.${i}`, scope));
  file.enumType?.forEach((each, i) => addEnum(each, `5.${i}`, scope));
  file.service?.forEach((each, i) => {
    names.set(`6.${i}`, scope + each.name);
    each.method?.forEach((method, j) => names.set(`6.${i}.2.${j}`, `${scope}${each.name}.${method.name}`));
  });
  return names;
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
