import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parse } from "yaml";
import config from "../deno.json" with { type: "json" };
import { projectFile } from "../tests/support/paths.ts";
import { accept, BASELINE, generate, runBuf } from "./generate.ts";

Deno.test("the contract passes buf lint", async () => {
  assertEquals(await runBuf(["lint"]), { code: 0, output: "" });
});

Deno.test("the contract breaks nothing of the accepted baseline", async () => {
  assertEquals(await runBuf(["breaking", "--against", BASELINE]), { code: 0, output: "" });
});

Deno.test("buf breaking reports a field whose number changed", async () => {
  const copy = await Deno.makeTempDir({ prefix: "aetherflow-proto-" });
  try {
    await copyContract(copy);
    await edit(`${copy}/proto/mvccpb/kv.proto`, /bytes value = 5;/, "bytes value = 60;");
    const { code, output } = await runBuf(["breaking", copy, "--against", BASELINE]);
    assertEquals(code, 100, output);
    assertStringIncludes(output, 'field "5"');
  } finally {
    await Deno.remove(copy, { recursive: true });
  }
});

Deno.test("buf lint reports a name that breaks the convention", async () => {
  const copy = await Deno.makeTempDir({ prefix: "aetherflow-proto-" });
  try {
    await copyContract(copy);
    await edit(
      `${copy}/proto/aetherflow/host/v1/host.proto`,
      /service (\w+)Service /,
      "service $1_service ",
    );
    const { code, output } = await runBuf(["lint", copy]);
    assertEquals(code, 100, output);
    assertStringIncludes(output, "PascalCase");
  } finally {
    await Deno.remove(copy, { recursive: true });
  }
});

Deno.test("generate() makes exactly what proto/gen holds", async () => {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-proto-" });
  try {
    await generate(directory);
    const made = await tree(`${directory}/proto/gen`);
    assert(made.size > 0, "something was generated");
    assertEquals(made, await tree(projectFile("proto/gen")), "run `deno task gen` and commit what it makes");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("accept() writes an image that the contract itself does not break", async () => {
  const directory = await Deno.makeTempDir({ prefix: "aetherflow-proto-" });
  try {
    await accept(`${directory}/image.binpb`);
    assertEquals((await runBuf(["breaking", "--against", `${directory}/image.binpb`])).code, 0);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("buf.gen.yaml names the generator at the version of deno.json", async () => {
  const { plugins } = parse(await Deno.readTextFile(projectFile("buf.gen.yaml"))) as {
    plugins: { local: string[] }[];
  };
  assertEquals(plugins.map((plugin) => plugin.local.at(-1)), [config.imports["@bufbuild/protoc-gen-es"]]);
});

/** Copies buf.yaml and every .proto file into `directory`. */
async function copyContract(directory: string): Promise<void> {
  await Deno.copyFile(projectFile("buf.yaml"), `${directory}/buf.yaml`);
  for (const [path, text] of await tree(projectFile("proto"))) {
    if (!path.endsWith(".proto")) continue;
    const target = `${directory}/proto/${path}`;
    await Deno.mkdir(target.slice(0, target.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(target, text);
  }
}

async function edit(path: string, pattern: RegExp, replacement: string): Promise<void> {
  const before = await Deno.readTextFile(path);
  const after = before.replace(pattern, replacement);
  assert(before !== after, `${path} has nothing that matches ${pattern}`);
  await Deno.writeTextFile(path, after);
}

/** Every text file under a folder, by its path in it. */
async function tree(directory: string, prefix = ""): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const entries = await Array.fromAsync(Deno.readDir(`${directory}/${prefix}`));
  for (const entry of entries.sort((a, b) => a.name < b.name ? -1 : 1)) {
    const path = `${prefix}${entry.name}`;
    if (entry.isDirectory) {
      for (const [name, text] of await tree(directory, `${path}/`)) files.set(name, text);
    } else if (/\.(ts|proto)$/.test(path)) {
      files.set(path, await Deno.readTextFile(`${directory}/${path}`));
    }
  }
  return files;
}
