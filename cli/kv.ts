/** `aetherflow kv …`: keys of a running server, over its HTTP API. */
import { EventReader, type ServerEvent } from "./event_reader.ts";
import { complain, printBytes, printLine, USAGE_EXIT_CODE } from "./output.ts";

/** Where the server is when nobody says. */
export const DEFAULT_ENDPOINT = "http://127.0.0.1:8080";

const EXIT_OK = 0;
const EXIT_ERROR = 1;
const EXIT_NOT_FOUND = 3;

/** Keys asked for at once by `list`; the server's own bound. */
const PAGE_SIZE = 1000;

/** Waits between attempts to take up a lost watch, in milliseconds: doubled each time up to the maximum. */
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 5_000;

/** Options that all of these commands have. */
export interface KvOptions {
  readonly endpoint?: string;
  readonly json?: boolean;
}

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

/** The server said no. */
class ApiError extends Error {
  override readonly name = "ApiError";
  constructor(message: string, readonly exitCode: number, readonly retryable: boolean) {
    super(message);
  }
}

/** Prints a value. */
export function get(key: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    const answer = await request(options, keyPath(key));
    const value = new Uint8Array(await answer.arrayBuffer());
    if (!options.json) printBytes(value);
    else printLine(JSON.stringify({ key, ...readable(value), modRevision: revisionOf(answer) }));
  });
}

/** Writes a value; "-" reads it from standard input. */
export function put(key: string, value: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    const body = value === "-" ? await readInput() : value;
    const answer = await request(options, keyPath(key), { method: "PUT", body });
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
      throw new ApiError(
        `--from is ${options.from}, expected a revision of 1 or more`,
        USAGE_EXIT_CODE,
        false,
      );
    }
    const query = new URLSearchParams({ watch: "true" });
    if (options.prefix) query.set("prefix", key);
    const path = `${options.prefix ? "/api/v1/kv" : keyPath(key)}?${query}`;
    // Last-Event-ID names the last revision that was seen.
    let lastEventId = options.from === undefined ? undefined : String(BigInt(options.from) - 1n);
    let retryMs = RETRY_MIN_MS;
    let wasConnected = false;
    while (true) {
      try {
        const headers: HeadersInit = lastEventId === undefined ? {} : { "Last-Event-ID": lastEventId };
        const answer = await request(options, path, { headers });
        wasConnected = true;
        retryMs = RETRY_MIN_MS;
        const reader = new EventReader();
        for await (const chunk of answer.body!) {
          for (const event of reader.push(chunk)) printChange(event, options.json ?? false);
          lastEventId = reader.lastEventId ?? lastEventId;
        }
      } catch (error) {
        // The first connection must succeed: an endpoint that was never there is a mistake, not an outage.
        if (!wasConnected || (error instanceof ApiError && !error.retryable)) throw error;
      }
      complain(`connection lost, trying again in ${retryMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, retryMs));
      retryMs = Math.min(2 * retryMs, RETRY_MAX_MS);
    }
  });
}

function printChange(event: ServerEvent, json: boolean): void {
  if (event.type === "error") {
    const problem = JSON.parse(event.data) as { detail?: string; title?: string };
    throw new ApiError(problem.detail ?? problem.title ?? "the watch has ended", EXIT_ERROR, false);
  }
  if (event.type !== "change") return;
  if (json) return printLine(event.data);
  const { changes } = JSON.parse(event.data) as { changes?: { kind: string; entry: EntryJson }[] };
  for (const { kind, entry } of changes ?? []) {
    if (kind === "KIND_DELETE") printLine(`DELETE\t${keyText(entry)}`);
    else printLine(`PUT\t${keyText(entry)}\t${valueText(entry)}`);
  }
}

async function attempt(action: () => Promise<void>): Promise<number> {
  try {
    await action();
    return EXIT_OK;
  } catch (error) {
    // Whoever read our output has seen enough: `aetherflow kv list | head`.
    if (error instanceof Deno.errors.BrokenPipe) return EXIT_OK;
    if (!(error instanceof ApiError)) throw error;
    complain(error.message);
    return error.exitCode;
  }
}

async function request(options: KvOptions, path: string, init: RequestInit = {}): Promise<Response> {
  const endpoint = options.endpoint ?? DEFAULT_ENDPOINT;
  let url: URL;
  try {
    url = new URL(path, endpoint);
  } catch {
    throw new ApiError(
      `--endpoint is ${endpoint}, expected a URL like ${DEFAULT_ENDPOINT}`,
      USAGE_EXIT_CODE,
      false,
    );
  }
  let answer: Response;
  try {
    answer = await fetch(url, init);
  } catch (error) {
    // fetch hides what happened behind one general sentence.
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ApiError(`cannot reach ${endpoint}: ${reason}; is the server running?`, EXIT_ERROR, true);
  }
  if (answer.ok) return answer;
  throw await problemOf(answer);
}

async function problemOf(answer: Response): Promise<ApiError> {
  const text = await answer.text();
  let detail = text.slice(0, 200);
  let requestId: string | undefined;
  if (answer.headers.get("content-type")?.includes("json")) {
    const problem = JSON.parse(text) as { detail?: string; title?: string; requestId?: string };
    detail = problem.detail ?? problem.title ?? detail;
    requestId = problem.requestId;
  }
  const exitCode = answer.status === 404 ? EXIT_NOT_FOUND : EXIT_ERROR;
  const reference = requestId === undefined || exitCode === EXIT_NOT_FOUND ? "" : ` (request ${requestId})`;
  return new ApiError(`${detail || `HTTP ${answer.status}`}${reference}`, exitCode, answer.status >= 500);
}

function keyPath(key: string): string {
  // URL parsers resolve these two as folders, however they are escaped.
  if (key === "" || key === "." || key === "..") {
    throw new ApiError(`a key cannot be "${key}" in a URL`, USAGE_EXIT_CODE, false);
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
