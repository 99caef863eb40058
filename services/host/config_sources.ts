/** From file, environment and flags to a value of a schema, with errors that name key, value, expectation and place. */
import { isMap, isScalar, LineCounter, type Node, parse, parseDocument } from "yaml";
import { z } from "zod";
import { isSecretKey, REDACTED } from "../runtime/log.ts";

/** Prefix of the variables that set configuration: `AETHERFLOW_GATEWAY__HTTP__PORT=8081`. */
export const ENV_PREFIX = "AETHERFLOW_";

/** Lines printed of one faulty configuration; a file that is no configuration at all would fill the screen. */
const MAX_PROBLEMS = 20;

/** Where settings come from, the weakest first. */
export interface Sources {
  /** The configuration file's name, for messages, and text. */
  file?: { name: string; text: string };
  /** The environment; other names than `AETHERFLOW_…` are ignored. */
  env?: Record<string, string>;
  /** Settings of the command line: key path, text of the value, and the flag as it was written, for messages. */
  flags?: readonly { path: string; value: string; flag: string }[];
}

/** The configuration is wrong. `problems` has one line for each fault, the message all of them. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  constructor(readonly problems: readonly string[], options?: ErrorOptions) {
    super(problems.join("\n"), options);
  }
}

/** What JSON Schema says of one key, as far as messages and look-ups need it. */
interface KeySchema {
  type?: string;
  properties?: Record<string, KeySchema>;
  additionalProperties?: boolean | KeySchema;
  items?: KeySchema;
  anyOf?: KeySchema[];
  enum?: unknown[];
  const?: unknown;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  pattern?: string;
  default?: unknown;
  description?: string;
}

/** Settings so far, and the place each came from by its dotted path. */
interface Draft {
  tree: Record<string, unknown>;
  places: Map<string, string>;
  problems: string[];
  schema: KeySchema;
}

/** Merges `sources` and checks the result against `schema`. @throws {ConfigError} */
export function loadFromSources<S extends z.ZodType>(schema: S, sources: Sources): z.output<S> {
  const draft: Draft = { tree: {}, places: new Map(), problems: [], schema: describeSchema(schema) };
  if (sources.file !== undefined) readFile(draft, sources.file);
  readEnvironment(draft, sources.env ?? {});
  for (const { path, value, flag } of sources.flags ?? []) {
    readSetting(draft, path.split("."), value, `flag ${flag}`);
  }
  const parsed = schema.safeParse(draft.tree);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) draft.problems.push(describeIssue(draft, issue));
  }
  if (draft.problems.length > 0) throw new ConfigError(shorten(draft.problems));
  return parsed.data as z.output<S>;
}

/** One key of the configuration, for help texts. */
export interface KeyDoc {
  readonly path: string;
  readonly expected: string;
  readonly default: unknown;
  readonly description: string;
}

/** Every key that has a value of its own, in the schema's order. */
export function documentKeys(schema: z.ZodType): KeyDoc[] {
  const docs: KeyDoc[] = [];
  const walk = (key: KeySchema, path: string[]) => {
    if (key.properties === undefined) {
      docs.push({
        path: path.join("."),
        expected: expectation(key),
        default: key.default,
        description: key.description ?? "",
      });
      return;
    }
    for (const [name, child] of Object.entries(key.properties)) walk(child, [...path, name]);
  };
  walk(describeSchema(schema), []);
  return docs;
}

/** A copy with the values of secret-looking keys replaced, for printing. */
export function withoutSecrets(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutSecrets);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      isSecretKey(key) && item !== undefined && item !== "" ? REDACTED : withoutSecrets(item),
    ]),
  );
}

function describeSchema(schema: z.ZodType): KeySchema {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any", reused: "inline" }) as KeySchema;
}

function readFile(draft: Draft, file: { name: string; text: string }): void {
  const lines = new LineCounter();
  const document = parseDocument(file.text, { lineCounter: lines, prettyErrors: false });
  for (const error of document.errors) {
    const { line, col } = lines.linePos(error.pos[0]);
    draft.problems.push(
      `config: cannot read ${file.name}: ${error.message} (file ${file.name}, line ${line}, column ${col})`,
    );
  }
  if (draft.problems.length > 0 || document.contents === null) return;
  if (!isMap(document.contents)) {
    draft.problems.push(
      `config: ${file.name} is ${show(document.toJS())}, expected keys and values (file ${file.name})`,
    );
    return;
  }
  const place = (node: unknown) => {
    const offset = (node as Node | null)?.range?.[0];
    const line = offset === undefined ? "" : `, line ${lines.linePos(offset).line}`;
    return `file ${file.name}${line}`;
  };
  const walk = (map: Node, path: string[], schema: KeySchema | undefined) => {
    if (!isMap(map)) return;
    for (const { key, value } of map.items) {
      const name = String(isScalar(key) ? key.value : key);
      const at = [...path, name];
      const child = childSchema(schema, name);
      if (child === undefined) {
        draft.problems.push(unknownKey(at, schema, place(key)));
        continue;
      }
      draft.places.set(at.join("."), place(key));
      if (isMap(value) && child.properties !== undefined) walk(value, at, child);
      else set(draft.tree, at, (value as Node | null)?.toJS(document) ?? undefined);
    }
  };
  walk(document.contents, [], draft.schema);
}

/** A name with a level (`__`), or the name of a key of the first level, is a setting. Others belong to somebody else: to
 *  commands (`AETHERFLOW_ENDPOINT`) or to tests. */
function readEnvironment(draft: Draft, env: Record<string, string>): void {
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(ENV_PREFIX)) continue;
    const levels = name.slice(ENV_PREFIX.length).split("__");
    const path = matchPath(draft.schema, levels);
    if (levels.length === 1 && childSchema(draft.schema, path[0]!)?.properties !== undefined) continue;
    if (levels.length === 1 && childSchema(draft.schema, path[0]!) === undefined) continue;
    readSetting(draft, path, value, `environment ${name}`);
  }
}

/** The key path that upper-case levels mean: `MAX_VALUE_BYTES` and `MAXVALUEBYTES` are both `maxValueBytes`. */
function matchPath(schema: KeySchema, levels: readonly string[]): string[] {
  const bare = (name: string) => name.replaceAll("_", "").toLowerCase();
  let at: KeySchema | undefined = schema;
  return levels.map((level) => {
    const name = Object.keys(at?.properties ?? {}).find((key) => bare(key) === bare(level)) ??
      level.toLowerCase();
    at = at === undefined ? undefined : childSchema(at, name);
    return name;
  });
}

function readSetting(draft: Draft, path: readonly string[], text: string, place: string): void {
  let schema: KeySchema | undefined = draft.schema;
  for (const [depth, name] of path.entries()) {
    const child: KeySchema | undefined = childSchema(schema, name);
    if (child === undefined) {
      draft.problems.push(unknownKey(path.slice(0, depth + 1), schema, place));
      return;
    }
    schema = child;
  }
  set(draft.tree, path, fromText(schema!, text));
  draft.places.set(path.join("."), place);
}

/** Text becomes what the key holds: text stays text, everything else is read as YAML (`8080`, `true`, `[a, b]`). */
function fromText(schema: KeySchema, text: string): unknown {
  if (schema.type === "string" || (schema.enum ?? []).some((item) => typeof item === "string")) return text;
  try {
    return parse(text);
  } catch {
    // Not YAML: the schema's own message says what was expected instead.
    return text;
  }
}

function childSchema(schema: KeySchema | undefined, name: string): KeySchema | undefined {
  if (schema?.properties !== undefined && Object.hasOwn(schema.properties, name)) {
    return schema.properties[name];
  }
  return typeof schema?.additionalProperties === "object" ? schema.additionalProperties : undefined;
}

function set(tree: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = tree;
  for (const name of path.slice(0, -1)) {
    const next = at[name];
    if (typeof next === "object" && next !== null) at = next as Record<string, unknown>;
    else at[name] = at = {};
  }
  const last = path.at(-1)!;
  if (value === undefined) delete at[last];
  else at[last] = value;
}

function describeIssue(draft: Draft, issue: z.core.$ZodIssue): string {
  const path = issue.path.map(String);
  const name = path.join(".");
  let schema: KeySchema | undefined = draft.schema;
  let value: unknown = draft.tree;
  for (const key of path) {
    schema = schema?.type === "array" ? schema.items : childSchema(schema, key);
    value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  }
  // A rule over several keys may blame one that was not set: then its default is at fault.
  if (value === undefined) value = schema?.default;
  const is = value === undefined
    ? "is not set"
    : `is ${isSecretKey(path.at(-1) ?? "") ? REDACTED : show(value)}`;
  const expected = issue.code === "custom" ? issue.message : `expected ${expectation(schema ?? {})}`;
  return `config: ${name} ${is}, ${expected} (${placeOf(draft, path)})`;
}

/** The place of the key or of the nearest level above it. */
function placeOf(draft: Draft, path: readonly string[]): string {
  for (let depth = path.length; depth > 0; depth--) {
    const place = draft.places.get(path.slice(0, depth).join("."));
    if (place !== undefined) return place;
  }
  return "default";
}

function unknownKey(path: readonly string[], schema: KeySchema | undefined, place: string): string {
  const known = Object.keys(schema?.properties ?? {});
  const near = nearest(path.at(-1)!, known);
  const above = path.slice(0, -1);
  const hint = known.length === 0
    ? `${above.join(".")} has no keys below it`
    : near !== undefined
    ? `did you mean ${[...above, near].join(".")}?`
    : `expected one of ${known.join(", ")}`;
  return `config: ${path.join(".")} is no key, ${hint} (${place})`;
}

/** What a key takes, in words. */
function expectation(schema: KeySchema): string {
  if (schema.const !== undefined) return show(schema.const);
  if (schema.enum !== undefined) return `one of ${schema.enum.map(String).join(", ")}`;
  if (schema.anyOf !== undefined) return schema.anyOf.map(expectation).join(" or ");
  switch (schema.type) {
    case "integer":
    case "number":
      return range(schema);
    case "boolean":
      return "true or false";
    case "array":
      return `a list of ${expectation(schema.items ?? {})}`;
    case "object":
      return schema.properties === undefined
        ? "keys and values"
        : `keys ${Object.keys(schema.properties).join(", ")}`;
    case "string":
      if (schema.pattern !== undefined) return `text that matches ${schema.pattern}`;
      return (schema.minLength ?? 0) > 0 ? "text that is not empty" : "text";
    default:
      return "another value";
  }
}

function range({ type, minimum, maximum }: KeySchema): string {
  const low = minimum !== undefined && minimum > Number.MIN_SAFE_INTEGER ? minimum : undefined;
  const high = maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER ? maximum : undefined;
  if (low !== undefined && high !== undefined) return `${low}..${high}`;
  const kind = type === "integer" ? "a whole number" : "a number";
  if (low !== undefined) return `${kind} >= ${low}`;
  return high !== undefined ? `${kind} <= ${high}` : kind;
}

/** The word of `known` that a slip of the fingers may have meant: at most a third of its letters differ. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Infinity;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance <= Math.max(1, Math.floor(candidate.length / 3)) && distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

/** Letters inserted, left out, replaced or swapped with a neighbour; words are cut at 64 letters. */
function editDistance(from: string, to: string): number {
  const a = from.slice(0, 64), b = to.slice(0, 64);
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let least = Math.min(replaced, row[j]! + 1, next[j - 1]! + 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) least = Math.min(least, before[j - 2]! + 1);
      next.push(least);
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}

function show(value: unknown): string {
  const text = typeof value === "string" && /^[\w./:-]+$/.test(value)
    ? value
    : JSON.stringify(value) ?? String(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function shorten(problems: readonly string[]): readonly string[] {
  if (problems.length <= MAX_PROBLEMS) return problems;
  return [...problems.slice(0, MAX_PROBLEMS), `config: and ${problems.length - MAX_PROBLEMS} more`];
}
