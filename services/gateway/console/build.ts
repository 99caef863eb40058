/** Bundles the console's page into `gen/assets.ts`, which the gateway imports: it may read no file. The same sources give
 *  the same bytes, wherever the project lies. */
import { gzipSync } from "node:zlib";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";

/** Where the page's sources are. */
const PAGE = fileURLToPath(new URL("../../../console/", import.meta.url));
/** The generated module. */
const OUTPUT = fileURLToPath(new URL("gen/assets.ts", import.meta.url));
/** Characters of a content hash in a name: 48 bits, for some ten files. */
const HASH_CHARS = 12;

/** One part of the page, before it is written down. */
interface Part {
  readonly name: string;
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** Bundles the page and returns the text of the generated module.
 *  @throws {Error} with the bundler's words. */
export async function buildConsole(): Promise<string> {
  const scripts = await bundle();
  const style = part("style", "css", "text/css; charset=utf-8", await minifiedStyle());
  const icon = part("icon", "svg", "image/svg+xml", await Deno.readTextFile(`${PAGE}icon.svg`));
  const html = (await Deno.readTextFile(`${PAGE}index.html`))
    .replace("@script@", scripts.entry).replace("@style@", style.name).replace("@icon@", icon.name);
  return moduleText(html, [...scripts.parts, style, icon]);
}

/** Bundles the scripts. The bundler names its chunks by hashes that depend on where the project lies, so they get
 *  names by their content here. */
async function bundle(): Promise<{ readonly entry: string; readonly parts: readonly Part[] }> {
  const folder = await Deno.makeTempDir({ prefix: "aetherflow-console-" });
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["bundle", "-q", "--platform", "browser", "--minify", "--code-splitting", "--outdir", folder]
        .concat(`${PAGE}main.ts`),
      cwd: PAGE,
      stdin: "null",
    }).output();
    if (!success) throw new Error(`cannot bundle the console\n${new TextDecoder().decode(stderr)}`);
    const texts = new Map<string, string>();
    for await (const { name } of Deno.readDir(folder)) {
      texts.set(name, await Deno.readTextFile(`${folder}/${name}`));
    }
    return named(texts);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Names each file by its content, those that it imports first. */
function named(texts: ReadonlyMap<string, string>) {
  const parts = new Map<string, Part>();
  const nameOf = (file: string): string => {
    const known = parts.get(file);
    if (known !== undefined) return known.name;
    const text = texts.get(file)!.replaceAll(
      /(["'])\.\/([\w-]+\.js)\1/g,
      (whole, quote, other) => texts.has(other) ? `${quote}./${nameOf(other)}${quote}` : whole,
    );
    const stem = file.replace(/(-[A-Z0-9]{8})?\.js$/, "");
    const made = part(stem, "js", "text/javascript; charset=utf-8", text);
    parts.set(file, made);
    return made.name;
  };
  const entry = nameOf("main.js");
  for (const file of texts.keys()) nameOf(file);
  return { entry, parts: [...parts.values()] };
}

/** The style sheet without comments and indentation. */
async function minifiedStyle(): Promise<string> {
  const text = await Deno.readTextFile(`${PAGE}style.css`);
  return text.replaceAll(/\/\*[^]*?\*\//g, "").replaceAll(/\s*\n\s*/g, "\n").trim();
}

function part(stem: string, extension: string, type: string, text: string): Part {
  const bytes = new TextEncoder().encode(text);
  return { name: `${stem}-${hashOf(bytes).slice(0, HASH_CHARS)}.${extension}`, type, bytes };
}

function moduleText(html: string, parts: readonly Part[]): string {
  const sorted = [...parts].sort((a, b) => a.name < b.name ? -1 : 1);
  const lines = sorted.map(({ name, type, bytes }) =>
    `  { name: ${JSON.stringify(name)}, type: ${JSON.stringify(type)}, gzip: ${
      JSON.stringify(packed(bytes))
    } },\n`
  );
  return `// Made by \`deno task console\` from console/. Do not edit.

/** The document, with \`@nonce@\` where each answer has its own. */
export const HTML: string = ${JSON.stringify(html)};

/** What the document loads: names have the hash of the content, contents are gzip as base64. */
export const ASSETS: readonly { readonly name: string; readonly type: string; readonly gzip: string }[] = [
${lines.join("")}];
`;
}

/** Compresses; the header's field of the operating system is always the same. */
function packed(bytes: Uint8Array): string {
  const gzip = gzipSync(bytes, { level: 9 });
  gzip[9] = 255;
  return gzip.toString("base64");
}

function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

if (import.meta.main) await Deno.writeTextFile(OUTPUT, await buildConsole());
