/** What a newcomer counts on: folders explain themselves, links lead somewhere, exported names say what they are. */
import { assert, assertEquals } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { projectFile, ROOT } from "../support/paths.ts";
import { projectFiles } from "./graph.ts";
import { matchesAny, TEST_FILES } from "./rules.ts";

/** Folders that one enters with a question; each answers it in its README. */
const EXPLAINED = [
  "",
  "proto/",
  "storage/",
  "services/host/",
  "services/kv/",
  "services/gateway/",
  "services/statesync/",
  "tests/",
  "deploy/",
];

const all = await projectFiles("");
const product = all.filter((path) =>
  path.endsWith(".ts") && !matchesAny([...TEST_FILES, "**/testing/**", "proto/gen/**"], path)
);

Deno.test("every folder that one enters has a README", () => {
  assertEquals(EXPLAINED.map((folder) => `${folder}README.md`).filter((path) => !all.includes(path)), []);
});

Deno.test("every relative link in a document leads to a file or heading that exists", async () => {
  const broken: string[] = [];
  for (const path of all.filter((path) => path.endsWith(".md"))) {
    for (const link of linksOf(await read(path))) {
      const problem = await linkProblem(path, link);
      if (problem !== undefined) broken.push(`${path}: ${problem}`);
    }
  }
  assertEquals(broken, []);
});

Deno.test("no source file puts something off", async () => {
  const marks = new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`);
  const found: string[] = [];
  for (const path of all.filter((path) => /\.(ts|md|proto|sh)$/.test(path))) {
    if (marks.test(await read(path))) found.push(path);
  }
  assertEquals(found, []);
});

Deno.test("every exported name of the product carries a docstring", async () => {
  assertEquals(await undocumented(product.map(projectFile)), []);
});

Deno.test("an exported name without a docstring is found", async () => {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(
      file,
      "/** Says so. */\nexport const a = 1;\nexport const c = 2;\n\nexport function b(): void {}\n",
    );
    assertEquals((await undocumented([file])).map((line) => line.replace(/^.*: /, "")), ["b"]);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("a link to a missing file or heading is found", async () => {
  assertEquals(linksOf("[a](b.md) ![c](d.png#e) `[no](code.md)` [web](https://deno.com)"), [
    "b.md",
    "d.png#e",
  ]);
  assertEquals(await linkProblem("tests/README.md", "arch/rules.ts"), undefined);
  assertEquals(await linkProblem("tests/README.md", "no_such.md"), "no_such.md leads nowhere");
  assertEquals(await linkProblem("README.md", "#no-such-heading"), "#no-such-heading names no heading");
});

Deno.test("every VERSION of the product is the one of deno.json", async () => {
  const versions: [string, string][] = [];
  for (const path of product) {
    const version = /export const VERSION(?:: string)? = "([^"]+)"/.exec(await read(path))?.[1];
    if (version !== undefined) versions.push([path, version]);
  }
  assert(versions.length > 0);
  assertEquals(versions.filter(([, version]) => version !== config.version), []);
});

function read(path: string): Promise<string> {
  return Deno.readTextFile(`${ROOT}/${path}`);
}

/** Targets of the Markdown links in a text, those in code and to the net left out. */
function linksOf(markdown: string): string[] {
  const prose = markdown.replace(/^```.*?^```/gms, "").replace(/`[^`\n]*`/g, "");
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!).filter((target) =>
    !/^[a-z]+:/.test(target)
  );
}

async function linkProblem(from: string, link: string): Promise<string | undefined> {
  const [target, heading] = link.split("#") as [string, string?];
  const path = target === "" ? from : new URL(target, `file:///${from}`).pathname.slice(1);
  if (path !== "" && !all.some((file) => file === path || file.startsWith(`${path.replace(/\/$/, "")}/`))) {
    return `${target} leads nowhere`;
  }
  if (heading === undefined) return undefined;
  const headings = [...(await read(path)).matchAll(/^#+ (.*)$/gm)].map(([, text]) => anchorOf(text!));
  return headings.includes(heading) ? undefined : `#${heading} names no heading`;
}

/** The anchor that code hosts give a heading. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").trim().replaceAll(" ", "-");
}

/** What this file reads of deno doc's answer. */
interface Docs {
  readonly nodes: Readonly<
    Record<string, {
      readonly symbols: readonly {
        readonly name: string;
        readonly declarations: readonly {
          readonly kind: string;
          readonly declarationKind: string;
          readonly location: { readonly filename: string; readonly line: number };
          readonly jsDoc?: { readonly doc?: string };
        }[];
      }[];
    }>
  >;
}

/** Exported declarations without a docstring, as `file: name`. One docstring may speak for a paragraph of declarations;
 *  what a file only passes on is documented at its source. */
async function undocumented(files: readonly string[]): Promise<string[]> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--json", ...files],
    cwd: ROOT,
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  assert(success, decoder.decode(stderr));
  const { nodes }: Docs = JSON.parse(decoder.decode(stdout));
  const found: string[] = [];
  for (const [file, { symbols }] of Object.entries(nodes)) {
    const lines = (await Deno.readTextFile(new URL(file))).split("\n");
    for (const { name, declarations } of symbols) {
      if (declarations.some(({ jsDoc }) => jsDoc?.doc)) continue;
      const bare = declarations.some(({ kind, declarationKind, location }) =>
        declarationKind === "export" && kind !== "reference" && location.filename === file &&
        !hasDocumentedParagraph(lines, location.line)
      );
      if (bare) found.push(`${file}: ${name}`);
    }
  }
  return found;
}

/** Whether a docstring stands above a line (counted from 0) without an empty line between. */
function hasDocumentedParagraph(lines: readonly string[], line: number): boolean {
  const above = lines.slice(0, line);
  const paragraph = above.slice(above.lastIndexOf("") + 1);
  return paragraph.some((text) => text.endsWith("*/"));
}
