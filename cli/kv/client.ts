/** How the `kv` commands talk to a server: HTTP and JSON, its own routes and etcd's. */
import { complain, USAGE_EXIT_CODE } from "../output.ts";

/** Where the server is when nobody says. */
export const DEFAULT_ENDPOINT = "http://127.0.0.1:8080";

/** Exit codes of these commands, besides USAGE_EXIT_CODE. */
export const EXIT_OK = 0;
export const EXIT_ERROR = 1;
export const EXIT_NOT_FOUND = 3;

/** Options that all of these commands have. */
export interface KvOptions {
  readonly endpoint?: string;
  readonly json?: boolean;
  /** `name` or `name:password`, when the store asks for users; a password may also be in AETHERFLOW_PASSWORD. */
  readonly user?: string;
}

/** The server said no, or what was asked cannot be. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** `status` is that of the HTTP answer, where there was one. */
  constructor(
    message: string,
    readonly exitCode: number,
    readonly retryable: boolean,
    readonly status?: number,
  ) {
    super(message);
  }
}

/** A command line that cannot be. */
export function usageError(message: string): ApiError {
  return new ApiError(message, USAGE_EXIT_CODE, false);
}

/** Runs a command; its exit code. */
export async function attempt(action: () => Promise<void>): Promise<number> {
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

/** One request; its answer is a success. @throws {ApiError} */
export async function request(options: KvOptions, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  // A user of the store goes before the caller that the environment names, which the server's gateway checks.
  const bearer = Deno.env.get("AETHERFLOW_TOKEN");
  if (options.user !== undefined) headers.set("authorization", await tokenOf(options));
  else if (bearer !== undefined && !headers.has("authorization")) {
    headers.set("authorization", `Bearer ${bearer}`);
  }
  const answer = await send(options, path, { ...init, headers });
  if (answer.ok) return answer;
  throw await refusalOf(answer);
}

/** JSON of etcd's API: bytes in base64, 64-bit numbers as text, zero values left out. */
// deno-lint-ignore no-explicit-any -- the shape is etcd's and each caller names the fields it reads
export type Json = any;

/** Calls one of etcd's RPCs by its path. @throws {ApiError} */
export async function call(options: KvOptions, path: string, body: unknown = {}): Promise<Json> {
  const answer = await request(options, path, { method: "POST", body: JSON.stringify(body) });
  return await answer.json();
}

/** Calls a streaming RPC by its path; the results as they come. @throws {ApiError} */
export async function* results(
  options: KvOptions,
  path: string,
  body: unknown = {},
  signal?: AbortSignal,
): AsyncGenerator<Json, void, void> {
  const init = { method: "POST", body: JSON.stringify(body), ...(signal === undefined ? {} : { signal }) };
  const answer = await request(options, path, init);
  let rest = "";
  for await (const text of answer.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (line === "") continue;
      const { result, error } = JSON.parse(line);
      if (error !== undefined) throw new ApiError(error.message, EXIT_ERROR, error.code === UNAVAILABLE);
      yield result;
    }
  }
}

/** Text in etcd's JSON. */
export function toBase64(text: string): string {
  return new TextEncoder().encode(text).toBase64();
}

/** Bytes of etcd's JSON for people: as text where they are text. */
export function readableText(base64: string | undefined): string {
  if (base64 === undefined) return "";
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.fromBase64(base64));
  } catch {
    // Not text.
    return `base64:${base64}`;
  }
}

/** The end of the range of all keys that start with `prefix`, in etcd's JSON; an empty prefix is every key. */
export function prefixEnd(prefix: string): string {
  const end = new TextEncoder().encode(prefix);
  for (let i = end.length - 1; i >= 0; i--) {
    if (end[i]! < 0xff) {
      end[i]!++;
      return end.slice(0, i + 1).toBase64();
    }
  }
  return "AA==";
}

/** gRPC's number for "try again". */
const UNAVAILABLE = 14;

async function send(options: KvOptions, path: string, init: RequestInit): Promise<Response> {
  const endpoint = options.endpoint ?? DEFAULT_ENDPOINT;
  let url: URL;
  try {
    url = new URL(path, endpoint);
  } catch {
    throw usageError(`--endpoint is ${endpoint}, expected a URL like ${DEFAULT_ENDPOINT}`);
  }
  try {
    return await fetch(url, init);
  } catch (error) {
    // fetch hides what happened behind one general sentence.
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ApiError(`cannot reach ${endpoint}: ${reason}; is the server running?`, EXIT_ERROR, true);
  }
}

async function tokenOf(options: KvOptions): Promise<string> {
  const { user = "" } = options;
  const colon = user.indexOf(":");
  const name = colon < 0 ? user : user.slice(0, colon);
  const password = colon < 0 ? Deno.env.get("AETHERFLOW_PASSWORD") : user.slice(colon + 1);
  if (password === undefined) {
    throw usageError(`--user ${name} needs a password: --user ${name}:PASSWORD, or in AETHERFLOW_PASSWORD`);
  }
  const answer = await send(options, "/v3/auth/authenticate", {
    method: "POST",
    body: JSON.stringify({ name, password }),
  });
  if (!answer.ok) throw await refusalOf(answer);
  return (await answer.json()).token;
}

async function refusalOf(answer: Response): Promise<ApiError> {
  const text = await answer.text();
  let detail = text.slice(0, 200);
  let requestId: string | undefined;
  if (answer.headers.get("content-type")?.includes("json")) {
    const problem = JSON.parse(text) as {
      detail?: string;
      title?: string;
      message?: string;
      requestId?: string;
    };
    detail = problem.detail ?? problem.message ?? problem.title ?? detail;
    requestId = problem.requestId;
  }
  const exitCode = answer.status === 404 ? EXIT_NOT_FOUND : EXIT_ERROR;
  const reference = requestId === undefined || exitCode === EXIT_NOT_FOUND ? "" : ` (request ${requestId})`;
  return new ApiError(
    `${detail || `HTTP ${answer.status}`}${reference}`,
    exitCode,
    answer.status >= 500,
    answer.status,
  );
}
