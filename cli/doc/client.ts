/** Documents as the API's JSON has them, and what the commands about them share. */
import { type AuthOptions, usageError } from "../auth/client.ts";
import { printLine } from "../output.ts";

/** Who may do what; each list has user ids or user names. */
export interface Permissions {
  readonly owner: string;
  readonly editors: readonly string[];
  readonly commenters: readonly string[];
  readonly viewers: readonly string[];
  readonly public: boolean;
}

/** What is said of a document besides its content. */
export interface Metadata {
  readonly tags: readonly string[];
  readonly description: string;
  readonly properties: Readonly<Record<string, string>>;
  readonly permissions?: Permissions;
}

/** A document. Numbers of 64 bits are texts; `content` is base64. */
export interface Document {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly state: string;
  readonly version: string;
  readonly content: string;
  readonly createdBy: string;
  readonly createdAt?: string;
  readonly updatedBy: string;
  readonly updatedAt?: string;
  readonly activeUsers: readonly string[];
  readonly metadata?: Metadata;
  readonly conflictPolicy: string;
  readonly openConflicts: number;
}

/** One edit, as far as commands print it. */
export interface Operation {
  readonly id: string;
  readonly userId: string;
  readonly type: string;
  readonly status: string;
  readonly version: string;
  readonly timestamp?: string;
  readonly conflictId: string;
  readonly [payload: string]: unknown;
}

/** Path of a document. @throws {ApiError} for an id that no URL can carry. */
export function documentPath(id: string): string {
  // URL parsers resolve these two as folders, however they are escaped.
  if (id === "" || id === "." || id === "..") throw usageError(`a document's id cannot be "${id}" in a URL`);
  return `/api/v1/documents/${encodeURIComponent(id)}`;
}

/** A query string of what is given: "" where nothing is. */
export function queryOf(parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((pair): pair is [string, string] => pair[1] !== undefined);
  return given.length === 0 ? "" : `?${new URLSearchParams(given)}`;
}

/** The bytes of a file, or of standard input for "-". @throws {ApiError} if it cannot be read. */
export async function readSource(name: string): Promise<Uint8Array> {
  try {
    if (name !== "-") return await Deno.readFile(name);
    return new Uint8Array(await new Response(Deno.stdin.readable).arrayBuffer());
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw usageError(`cannot read ${name}: ${reason}`);
  }
}

/** A number of an option. @throws {ApiError} naming the option. */
export function numberOf(option: string, text: string, least = 0): string {
  if (!/^\d{1,18}$/.test(text) || BigInt(text) < BigInt(least)) {
    throw usageError(`${option} is ${text}, expected a number of ${least} or more`);
  }
  return text;
}

/** JSON that somebody wrote, or "-" for standard input. @throws {ApiError} if it is no object. */
export async function readJsonObject(what: string, text: string): Promise<Record<string, unknown>> {
  const source = text === "-" ? new TextDecoder().decode(await readSource("-")) : text;
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    throw usageError(`${what} is no JSON: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw usageError(`${what} is no JSON object`);
  }
  return value as Record<string, unknown>;
}

/** Prints a document's id and version, or all that was answered of it. */
export function printDocument(document: Document, options: AuthOptions): void {
  if (options.json) printLine(JSON.stringify(readable(document)));
  else printLine(`${document.id}\tversion ${document.version}`);
}

/** A document for JSON: its content as text, which it always is. */
export function readable({ content, ...rest }: Document): Record<string, unknown> {
  return content === "" ? rest : { ...rest, content: decodeContent(content) };
}

/** The text of a content. */
export function decodeContent(content: string): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.fromBase64(content));
}

/** Text for one line of a terminal: control characters, which a document may have, are escaped. */
export function oneLine(text: string): string {
  return text.replaceAll(/[\p{Cc}\u2028\u2029]/gu, (char) => ESCAPES[char] ?? escapeOf(char));
}

const ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escapeOf(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A value of a property for people: texts as they are, all else as JSON. */
export function valueText(value: unknown): string {
  if (value === undefined || value === null) return "–";
  return oneLine(typeof value === "string" ? value : JSON.stringify(value));
}
