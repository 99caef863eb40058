/** The project's module graph, as `deno info` resolves it. */
import { pathToFileURL } from "node:url";
import { projectFile, ROOT } from "../support/paths.ts";

/** One import. */
export interface Edge {
  /** Project path of the importing file. */
  readonly from: string;
  /** Project path, or a package's name. */
  readonly to: string;
  readonly kind: "file" | "package";
  /** Whether the import exists at run time; false for types. */
  readonly value: boolean;
}

/** Resolves every import of the given project files and of what they import.
 *  @throws {Error} if deno info fails or a module cannot be found. */
export async function importsOf(files: readonly string[]): Promise<Edge[]> {
  const roots = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    const lines = files.map((file) => `import ${JSON.stringify(pathToFileURL(projectFile(file)).href)};`);
    await Deno.writeTextFile(roots, lines.join("\n"));
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["info", "--json", "--config", projectFile("deno.json"), roots],
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    if (!success) throw new Error(`deno info failed\n${decoder.decode(stderr)}`);
    return edgesOf(JSON.parse(decoder.decode(stdout)));
  } finally {
    await Deno.remove(roots);
  }
}

/** Every TypeScript file of the project, by path. */
export async function sourceFiles(): Promise<string[]> {
  return (await projectFiles("")).filter((path) => path.endsWith(".ts"));
}

/** Every file under a folder of the project ("" or a path that ends with "/"), in order of their paths. Folders that
 *  start with a dot and what is built are left out. */
export async function projectFiles(directory: string): Promise<string[]> {
  const files: string[] = [];
  for await (const entry of Deno.readDir(`${ROOT}/${directory}`)) {
    const path = `${directory}${entry.name}`;
    if (entry.isFile) files.push(path);
    else if (entry.isDirectory && !/^(\.|dist$|data$|node_modules$)/.test(entry.name)) {
      files.push(...await projectFiles(`${path}/`));
    }
  }
  return files.sort();
}

/** Finds a way round in a graph of names, as the names met on it, or undefined if there is none. */
export function cycleIn(edges: Iterable<readonly [string, string]>): string[] | undefined {
  const next = new Map<string, Set<string>>();
  for (const [from, to] of edges) next.set(from, (next.get(from) ?? new Set()).add(to));
  const done = new Set<string>();
  const trail: string[] = [];

  function visit(name: string): string[] | undefined {
    if (done.has(name)) return undefined;
    const at = trail.indexOf(name);
    if (at >= 0) return [...trail.slice(at), name];
    trail.push(name);
    for (const to of next.get(name) ?? []) {
      const cycle = visit(to);
      if (cycle !== undefined) return cycle;
    }
    trail.pop();
    done.add(name);
    return undefined;
  }

  for (const name of next.keys()) {
    const cycle = visit(name);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

/** What this file reads of deno info's answer. */
interface Info {
  readonly modules: readonly {
    readonly specifier: string;
    readonly error?: string;
    readonly dependencies?: readonly {
      readonly code?: { readonly specifier?: string; readonly error?: string };
      readonly type?: { readonly specifier?: string };
    }[];
  }[];
}

function edgesOf(info: Info): Edge[] {
  const edges: Edge[] = [];
  for (const module of info.modules) {
    if (module.error !== undefined) throw new Error(`${module.specifier}: ${module.error}`);
    const from = pathOf(module.specifier);
    if (from === undefined) continue;
    for (const { code, type } of module.dependencies ?? []) {
      if (code?.error !== undefined) throw new Error(`${from}: ${code.error}`);
      for (const specifier of new Set([code?.specifier, type?.specifier])) {
        if (specifier === undefined) continue;
        const path = pathOf(specifier);
        const value = specifier === code?.specifier;
        edges.push(
          path === undefined
            ? { from, to: packageOf(specifier), kind: "package", value }
            : { from, to: path, kind: "file", value },
        );
      }
    }
  }
  return edges;
}

/** The project path of a file URL, or undefined for what is no file of the project. */
function pathOf(specifier: string): string | undefined {
  const root = `${pathToFileURL(ROOT).href}/`;
  return specifier.startsWith(root) ? decodeURIComponent(specifier.slice(root.length)) : undefined;
}

/** `npm:@scope/name@1.2.3/sub` is the package `@scope/name`; `node:fs` is itself. */
function packageOf(specifier: string): string {
  return /^npm:\/?(@[^/]+\/[^@/]+|[^@/]+)/.exec(specifier)?.[1] ?? specifier;
}
