/** Edits in words. */
import type { OperationRecord } from "../records.ts";
import { asRecord } from "../unknown_value.ts";

/** Longest text of one edit that is shown, in characters. */
const WORDS_MAX = 600;

/** What an operation does, for people. Answers of the API have every field: what is empty says nothing. */
export function wordsOfOperation({ type = "edit", text, object, cells, comment }: OperationRecord): string {
  const words = partsOf(type, { text, object, cells, comment }).join("; ");
  return words.length > WORDS_MAX ? `${words.slice(0, WORDS_MAX)}…` : words;
}

function partsOf(
  type: string,
  { text, object, cells, comment }: Pick<OperationRecord, "text" | "object" | "cells" | "comment">,
): string[] {
  if (text !== undefined) return editsOf(text).map((edit) => textEdit(type, edit));
  if (object !== undefined) return objectEdit(type, asRecord(object));
  if (cells !== undefined) return editsOf(cells).map((edit) => cellEdit(type, edit));
  if (comment !== undefined) return [`comment: ${String(asRecord(comment).body ?? "")}`];
  return [type];
}

/** One edit of a payload. */
type Edit = Readonly<Record<string, unknown>>;

function editsOf(payload: unknown): Edit[] {
  const { edits } = asRecord(payload);
  return Array.isArray(edits) ? edits.map(asRecord) : [];
}

function textEdit(type: string, edit: Edit): string {
  const { index = 0, delete: deleted = 0, insert = "", replaceAll, length = 0, to = 0, attributes } = edit;
  if (type === "move") return `moves ${length} characters from ${index} to ${to}`;
  if (type === "style") return `styles ${length} characters at ${index}: ${JSON.stringify(attributes)}`;
  if (replaceAll === true) return `the whole text: “${insert}”`;
  const words: string[] = [];
  if (deleted !== 0) words.push(`removes ${deleted} characters`);
  if (insert !== "") words.push(`writes “${insert}”`);
  return `${words.join(" and ") || "nothing"} at ${index}`;
}

function objectEdit(type: string, object: Edit): string[] {
  const { objectId = "", kind, properties, x, y, width, height, text } = object;
  const values = { kind: kind === "" ? undefined : kind, x, y, width, height, ...asRecord(properties) };
  const changes = Object.entries(values).filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  return [`${type} ${objectId}`, ...changes, ...editsOf(text).map((edit) => textEdit("text", edit))];
}

function cellEdit(type: string, { cell, value, to, style, size }: Edit): string {
  switch (type) {
    case "move":
      return `${cell} to ${to}`;
    case "style":
      return `${cell} styled ${JSON.stringify(style)}`;
    case "resize":
      return `${cell} of size ${size}`;
    case "delete":
      return `empties ${cell}`;
    default:
      return `${cell} = ${JSON.stringify(value ?? null)}`;
  }
}
