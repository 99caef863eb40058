/** Calls of the server's API: JSON over HTTP, by the cookies that signing in has set. */

/** What the server refused, in its own words. */
export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 where no answer came. */
    readonly status: number,
    /** The problem's code: `not_found`, `failed_precondition`, …; `offline` where no answer came. */
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Fields of a query string; undefined and "" leave one out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** What is sent besides the path. */
export interface CallOptions {
  readonly query?: Query;
  readonly body?: unknown;
  readonly signal?: AbortSignal;
}

let onSignedOut: () => void = () => {};

/** Says what to do when a call shows that nobody is signed in. */
export function whenSignedOut(action: () => void): void {
  onSignedOut = action;
}

/** Calls, and reads the answer as JSON.
 *  @throws {ApiError} for every answer but a good one; {DOMException} when `signal` ended it. */
export async function call<Answer>(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
  const response = await request(method, path, options);
  return await response.json() as Answer;
}

/** Calls, and reads the answer as text. @throws as `call` */
export async function callText(path: string, options: CallOptions = {}): Promise<string> {
  return await (await request("GET", path, options)).text();
}

/** The path of a document, or of something of it. Ids may hold anything. */
export function documentPath(id: string, rest = ""): string {
  return `/api/v1/documents/${encodeURIComponent(id)}${rest}`;
}

/** A path with a query string. */
export function withQuery(path: string, query: Query = {}): string {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") fields.set(name, String(value));
  }
  const text = fields.toString();
  return text === "" ? path : `${path}?${text}`;
}

/** What to tell a person of something that went wrong. */
export function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether a call ended because its view was left. */
export function wasLeft(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

async function request(method: string, path: string, options: CallOptions): Promise<Response> {
  let response = await send(method, path, options);
  if (response.status === 401 && !path.startsWith("/api/v1/auth/login")) {
    // The access token lasts for minutes, the refresh token for days.
    if (await refresh()) response = await send(method, path, options);
    if (response.status === 401) onSignedOut();
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function send(method: string, path: string, { query, body, signal }: CallOptions): Promise<Response> {
  try {
    return await fetch(withQuery(path, query), {
      method,
      headers: {
        accept: "application/json, text/plain",
        ...body === undefined ? {} : { "content-type": "application/json" },
      },
      ...body === undefined ? {} : { body: JSON.stringify(body) },
      ...signal === undefined ? {} : { signal },
    });
  } catch (error) {
    if (wasLeft(error)) throw error;
    throw new ApiError(0, "offline", "The server cannot be reached.");
  }
}

let refreshing: Promise<boolean> | undefined;

/** Gets a new access token; calls of one moment share it. */
export function refresh(): Promise<boolean> {
  return refreshing ??= send("POST", "/api/v1/auth/refresh", { body: {} })
    .then(({ ok }) => ok, () => false)
    .finally(() => refreshing = undefined);
}

async function problemOf(response: Response): Promise<ApiError> {
  try {
    const { code, detail, title } = await response.json();
    return new ApiError(response.status, code ?? "unknown", detail ?? title ?? response.statusText);
  } catch {
    return new ApiError(response.status, "unknown", `The server answered ${response.status}.`);
  }
}

/** The bytes of a base64 text. */
export function bytesOf(base64: string | undefined): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64 ?? ""), (char) => char.charCodeAt(0));
}

/** The UTF-8 text of a base64 text. */
export function textOf(base64: string | undefined): string {
  return new TextDecoder().decode(bytesOf(base64));
}
