/** The canonical form of whiteboards, canvases and sheets (SPEC §1.2): from properties to JSON and back. Of texts it is the text
 *  itself. */
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import { checkSized, checkText, wrapMembers, writeJson } from "./json.ts";
import {
  isCell,
  isCellProperty,
  isColumn,
  isId,
  isKind,
  isObjectProperty,
  isRow,
  MAX_KIND_LENGTH,
} from "./names.ts";

/** What a canonical form says. */
export interface Canonical {
  /** Value by key of the map `objects` or `cells`. */
  readonly properties: ReadonlyMap<string, unknown>;
  /** Text by object id, where it is not empty. */
  readonly texts: ReadonlyMap<string, string>;
}

/** Writes the canonical form of objects. `textOf` gives an object's text. */
export function writeObjects(
  entries: Iterable<readonly [string, unknown]>,
  textOf: (id: string) => string,
): string {
  const objects: [string, string][] = [];
  for (const [id, properties] of grouped(entries, isObjectProperty)) {
    if (!isId(id) || !properties.has("kind")) continue;
    const members = [...properties].map(([name, value]): [string, string] => [name, writeJson(value)]);
    const text = textOf(id);
    if (text !== "") members.push(["text", writeJson(text.toWellFormed())]);
    objects.push([id, wrapMembers(members)]);
  }
  return wrapMembers([["objects", wrapMembers(objects)]]);
}

/** Writes the canonical form of a sheet. */
export function writeCells(entries: Iterable<readonly [string, unknown]>): string {
  const cells: [string, string][] = [], columns: [string, string][] = [], rows: [string, string][] = [];
  const known = (property: string, value: unknown, id: string) => isCellProperty(id, property, value);
  for (const [id, properties] of grouped(entries, known)) {
    const members = [...properties].map(([name, value]): [string, string] => [name, writeJson(value)]);
    const part = isCell(id) ? cells : isColumn(id) ? columns : rows;
    part.push([id, wrapMembers(members)]);
  }
  const parts: [string, string][] = [];
  if (cells.length > 0) parts.push(["cells", wrapMembers(cells)]);
  if (columns.length > 0) parts.push(["columns", wrapMembers(columns)]);
  if (rows.length > 0) parts.push(["rows", wrapMembers(rows)]);
  return wrapMembers(parts);
}

function grouped(
  entries: Iterable<readonly [string, unknown]>,
  isKnown: (property: string, value: unknown, id: string) => boolean,
): Map<string, Map<string, unknown>> {
  const groups = new Map<string, Map<string, unknown>>();
  for (const [key, value] of entries) {
    const slash = key.indexOf("/");
    const id = key.slice(0, slash), property = key.slice(slash + 1);
    if (slash < 0 || !isKnown(property, value, id)) continue;
    const group = groups.get(id);
    if (group === undefined) groups.set(id, new Map([[property, value]]));
    else group.set(property, value);
  }
  return groups;
}

/** Reads the canonical form of a document that is no text; empty is empty content.
 *  @throws {StateSyncError} `invalid`, naming what is wrong. */
export function readCanonical(type: DocumentType, text: string): Canonical {
  const properties = new Map<string, unknown>();
  const texts = new Map<string, string>();
  if (text === "") return { properties, texts };
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new StateSyncError("invalid", "content is no JSON", { cause });
  }
  const parts = type === "sheet" ? ["cells", "columns", "rows"] : ["objects"];
  for (const [part, ids] of membersOf(parsed, "content")) {
    if (!parts.includes(part)) throw invalid(`content.${part} is unknown, expected ${parts.join(", ")}`);
    for (const [id, values] of membersOf(ids, `content.${part}`)) {
      const members = membersOf(values, `content.${part}.${id}`);
      checkId(part, id, members);
      for (const [name, value] of members) {
        readMember({ part, id, name, value, properties, texts });
      }
    }
  }
  return { properties, texts };
}

function checkId(part: string, id: string, members: readonly (readonly [string, unknown])[]): void {
  const isKnown = { objects: isId, cells: isCell, columns: isColumn, rows: isRow }[part]!;
  if (!isKnown(id)) throw invalid(`content.${part} has ${JSON.stringify(id)}, which is no name of one`);
  if (members.length === 0) throw invalid(`content.${part}.${id} is empty`);
  if (part === "objects" && !members.some(([name, value]) => name === "kind" && isKind(value))) {
    throw invalid(`content.objects.${id}.kind is missing or no text of 1 to ${MAX_KIND_LENGTH}`);
  }
}

function readMember(
  { part, id, name, value, properties, texts }: {
    part: string;
    id: string;
    name: string;
    value: unknown;
    properties: Map<string, unknown>;
    texts: Map<string, string>;
  },
): void {
  const path = `content.${part}.${id}.${name}`;
  if (part === "objects" && name === "text") {
    if (typeof value !== "string" || value === "") throw invalid(`${path} is no text, or empty`);
    checkText(value, path);
    texts.set(id, value);
    return;
  }
  const isKnown = part === "objects" ? isObjectProperty(name, value) : isCellProperty(id, name, value);
  if (!isKnown) throw invalid(`${path} cannot be ${clipped(value)}, or is no name of a property`);
  checkSized(value, path);
  properties.set(`${id}/${name}`, value);
}

function membersOf(value: unknown, name: string): [string, unknown][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(`${name} is no JSON object`);
  }
  return Object.entries(value);
}

/** The beginning of a value, for people. */
function clipped(value: unknown): string {
  const json = JSON.stringify(value);
  return json.length > 40 ? `${json.slice(0, 40)}…` : json;
}

function invalid(detail: string): StateSyncError {
  return new StateSyncError("invalid", detail);
}
