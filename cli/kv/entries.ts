/** `aetherflow kv get|put|del|list|watch|txn`: keys and values. */
import type { ServerEvent } from "../event_reader.ts";
import { followEvents, resumeHeaders } from "../event_stream.ts";
import { printBytes, printLine } from "../output.ts";
import {
  ApiError,
  attempt,
  EXIT_ERROR,
  EXIT_NOT_FOUND,
  type KvOptions,
  request,
  usageError,
} from "./client.ts";

/** Keys asked for at once by `list`; the server's own bound. */
const PAGE_SIZE = 1000;

/** A key as the API's JSON has it: bytes in base64, and as text where they are text. */
interface EntryJson {
  readonly key?: string;
  readonly value?: string;
  readonly keyText?: string;
  readonly valueText?: string;
  readonly createRevision?: string;
  readonly modRevision?: string;
  readonly version?: string;
}

/** Prints a value. */
export function get(key: string, options: KvOptions & { revision?: string }): Promise<number> {
  return attempt(async () => {
    const query = options.revision === undefined
      ? ""
      : `?${new URLSearchParams({ revision: options.revision })}`;
    const answer = await request(options, `${keyPath(key)}${query}`);
    const value = new Uint8Array(await answer.arrayBuffer());
    if (!options.json) printBytes(value);
    else printLine(JSON.stringify({ key, ...readable(value), modRevision: revisionOf(answer) }));
  });
}

/** Writes a value; "-" reads it from standard input. */
export function put(key: string, value: string, options: KvOptions & { ttl?: string }): Promise<number> {
  return attempt(async () => {
    const body = value === "-" ? await readInput() : value;
    const headers: HeadersInit = options.ttl === undefined ? {} : { TTL: options.ttl };
    const answer = await request(options, keyPath(key), { method: "PUT", body, headers });
    await answer.body?.cancel();
    if (options.json) printLine(JSON.stringify({ key, modRevision: revisionOf(answer) }));
  });
}

/** Deletes a key. */
export function del(key: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    const answer = await request(options, keyPath(key), { method: "DELETE" });
    const { deleted, revision } = await answer.json() as { deleted?: boolean; revision?: string };
    if (!deleted) throw new ApiError(`there is no key ${key}`, EXIT_NOT_FOUND, false);
    if (options.json) printLine(JSON.stringify({ key, deleted: true, revision }));
  });
}

/** Prints keys, page after page, all from one revision. */
export function list(prefix: string, options: KvOptions & { values?: boolean }): Promise<number> {
  return attempt(async () => {
    let pageToken = "";
    do {
      const query = new URLSearchParams({ prefix, pageSize: String(PAGE_SIZE) });
      if (pageToken !== "") query.set("pageToken", pageToken);
      if (!options.json && !options.values) query.set("keysOnly", "true");
      const answer = await request(options, `/api/v1/kv?${query}`);
      const page = await answer.json() as { entries?: EntryJson[]; nextPageToken?: string };
      for (const entry of page.entries ?? []) {
        if (options.json) printLine(JSON.stringify(entry));
        else printLine(options.values ? `${keyText(entry)}\t${valueText(entry)}` : keyText(entry));
      }
      pageToken = page.nextPageToken ?? "";
    } while (pageToken !== "");
  });
}

/** Prints changes until the process is interrupted. A lost connection is taken up after the last event seen, so that
 *  nothing is missed and nothing comes twice. */
export function watch(
  key: string,
  options: KvOptions & { prefix?: boolean; from?: string },
): Promise<number> {
  return attempt(async () => {
    if (options.from !== undefined && !/^[1-9]\d{0,18}$/.test(options.from)) {
      throw usageError(`--from is ${options.from}, expected a revision of 1 or more`);
    }
    const query = new URLSearchParams({ watch: "true" });
    if (options.prefix) query.set("prefix", key);
    const path = `${options.prefix ? "/api/v1/kv" : keyPath(key)}?${query}`;
    // Last-Event-ID names the last revision that was seen.
    const from = options.from === undefined ? undefined : String(BigInt(options.from) - 1n);
    await followEvents(
      (lastEventId) => request(options, path, { headers: resumeHeaders(lastEventId) }),
      (event) => printChange(event, options.json ?? false),
      from,
    );
  });
}

/** Runs a transaction from JSON and prints its answer; exits with 1 when the conditions did not hold. */
export function txn(text: string, options: KvOptions): Promise<number> {
  let succeeded = true;
  const ran = attempt(async () => {
    const json = text === "-" ? new TextDecoder().decode(await readInput()) : text;
    const answer = await request(options, "/api/v1/kv:txn", { method: "POST", body: json });
    const result = await answer.json() as { succeeded: boolean };
    succeeded = result.succeeded;
    printLine(JSON.stringify(result, null, options.json ? undefined : 2));
  });
  return ran.then((code) => code === 0 && !succeeded ? EXIT_ERROR : code);
}

/** Prints the changes of a key, newest first, as far back as history is kept. */
export function history(key: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    let before = "0";
    for (;;) {
      const query = new URLSearchParams({
        history: "true",
        beforeRevision: before,
        limit: String(PAGE_SIZE),
      });
      const answer = await request(options, `${keyPath(key)}?${query}`);
      const page = await answer.json() as { changes: { kind: string; entry: EntryJson }[]; more: boolean };
      for (const change of page.changes) {
        before = change.entry.modRevision ?? "0";
        if (options.json) printLine(JSON.stringify(change));
        else if (change.kind === "KIND_DELETE") printLine(`${before}\tDELETE`);
        else printLine(`${before}\tPUT\t${valueText(change.entry)}`);
      }
      if (!page.more) break;
    }
  });
}

function printChange(event: ServerEvent, json: boolean): void {
  if (json) return printLine(event.data);
  const { changes } = JSON.parse(event.data) as { changes?: { kind: string; entry: EntryJson }[] };
  for (const { kind, entry } of changes ?? []) {
    if (kind === "KIND_DELETE") printLine(`DELETE\t${keyText(entry)}`);
    else printLine(`PUT\t${keyText(entry)}\t${valueText(entry)}`);
  }
}

function keyPath(key: string): string {
  // URL parsers resolve these two as folders, however they are escaped.
  if (key === "" || key === "." || key === "..") {
    throw usageError(`a key cannot be "${key}" in a URL`);
  }
  return `/api/v1/kv/${encodeURIComponent(key)}`;
}

function revisionOf(answer: Response): string | undefined {
  return answer.headers.get("etag")?.replaceAll('"', "");
}

function keyText(entry: EntryJson): string {
  return entry.keyText ?? `base64:${entry.key ?? ""}`;
}

function valueText(entry: EntryJson): string {
  return entry.valueText ?? (entry.value === undefined ? "" : `base64:${entry.value}`);
}

/** A value for JSON: as text where it is text, in base64 otherwise. */
function readable(value: Uint8Array): { valueText: string } | { value: string } {
  try {
    return { valueText: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value) };
  } catch {
    // Not text: JSON can carry it in base64 only.
    return { value: value.toBase64() };
  }
}

async function readInput(): Promise<ArrayBuffer> {
  return await new Response(Deno.stdin.readable).arrayBuffer();
}
