/** Edits in words. */
import type { OperationRecord } from "../records.ts";
import { asRecord } from "./people.ts";

/** Longest text of one edit that is shown, in characters. */
const WORDS_MAX = 600;

/** What an operation does, for people. */
export function wordsOfOperation(operation: OperationRecord): string {
  const { type = "edit", text, object, cells, comment } = operation;
  const parts = text !== undefined
    ? editsOf(text).map(textEdit)
    : object !== undefined
    ? objectEdit(type, asRecord(object))
    : cells !== undefined
    ? editsOf(cells).map((edit) => cellEdit(type, edit))
    : comment !== undefined
    ? [`comment: ${String(asRecord(comment).body ?? "")}`]
    : [];
  const words = parts.length === 0 ? type : parts.join("; ");
  return words.length > WORDS_MAX ? `${words.slice(0, WORDS_MAX)}…` : words;
}

function editsOf(payload: unknown): Readonly<Record<string, unknown>>[] {
  const { edits } = asRecord(payload);
  return Array.isArray(edits) ? edits.map(asRecord) : [];
}

function textEdit(
  { index = 0, delete: deleted = 0, insert = "", replaceAll, length, to, attributes }: Readonly<
    Record<string, unknown>
  >,
): string {
  if (replaceAll === true) return `the whole text: “${insert}”`;
  if (to !== undefined) return `moves ${length ?? 0} characters from ${index} to ${to}`;
  if (insert === "" && attributes !== undefined) return `styles ${length ?? 0} characters at ${index}`;
  const words: string[] = [];
  if (deleted !== 0) words.push(`removes ${deleted} characters`);
  if (insert !== "") words.push(`writes “${insert}”`);
  return `${words.join(" and ") || "nothing"} at ${index}`;
}

function objectEdit(type: string, object: Readonly<Record<string, unknown>>): string[] {
  const { objectId = "", kind, properties, x, y, width, height, text } = object;
  const values = { kind, x, y, width, height, ...asRecord(properties) };
  const changes = Object.entries(values).filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  return [`${type} ${objectId}`, ...changes, ...editsOf(text).map(textEdit)];
}

function cellEdit(type: string, { cell, value, to, style, size }: Readonly<Record<string, unknown>>): string {
  if (to !== undefined) return `${cell} to ${to}`;
  if (style !== undefined) return `${cell} styled ${JSON.stringify(style)}`;
  if (size !== undefined) return `${cell} of size ${size}`;
  return type === "delete" ? `empties ${cell}` : `${cell} = ${JSON.stringify(value ?? null)}`;
}
