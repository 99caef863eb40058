/** How the commands about users, keys and sessions talk to a server, and in whose name. */
import { complain } from "../output.ts";
import { ApiError, request, usageError } from "../kv/client.ts";
import { type Passwords, readPasswords } from "./passwords.ts";

export { attempt } from "../kv/client.ts";
export { ApiError, usageError };

/** Options that all of these commands have. */
export interface AuthOptions {
  readonly endpoint?: string;
  readonly json?: boolean;
  /** Access token or API key. */
  readonly token?: string;
  /** Name to sign in with, for this command. */
  readonly user?: string;
}

/** A server, asked in somebody's name. */
export interface Api {
  /** Passwords that the command needs. */
  readonly passwords: Passwords;
  /** One request; its JSON. @throws {ApiError} */
  call<T>(method: string, path: string, body?: unknown): Promise<T>;
  /** One request; its answer, which is a success. @throws {ApiError} */
  request(path: string, init?: RequestInit): Promise<Response>;
  /** Access token or API key; undefined where the server asks for none. */
  readonly token: string | undefined;
}

/** What a login answers. */
export interface LoginAnswer {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly expiresIn: number;
  readonly sessionId: string;
}

/** Runs `action` in the caller's name: that of a token, or of a session that is opened for it and ended after it. */
export async function withApi(options: AuthOptions, action: (api: Api) => Promise<void>): Promise<void> {
  using passwords = readPasswords();
  const login = options.user === undefined ? undefined : await signIn(options, options.user, passwords);
  const token = login?.accessToken ?? options.token;
  const api: Api = {
    passwords,
    token,
    call: (method, path, body) => call(options, token, method, path, body),
    request: (path, init) => send(options, token, path, init),
  };
  try {
    await action(api);
  } finally {
    if (login !== undefined) {
      await call(options, token, "POST", "/api/v1/auth/logout", {}).catch((error) => {
        // What was asked is done; the session runs out by itself.
        if (!(error instanceof ApiError)) throw error;
        if (error.retryable) complain(`the session of this command was not ended: ${error.message}`);
      });
    }
  }
}

/** Opens a session. */
export async function signIn(
  options: AuthOptions,
  username: string,
  passwords: Passwords,
): Promise<LoginAnswer> {
  if (username.includes(":")) {
    throw usageError("--user takes a name alone: a password does not belong on a command line");
  }
  const password = Deno.env.get("AETHERFLOW_PASSWORD") ?? await passwords.ask(`Password of ${username}: `);
  return await call(options, undefined, "POST", "/api/v1/auth/login", { username, password });
}

async function call<T>(
  options: AuthOptions,
  token: string | undefined,
  method: string,
  path: string,
  body?: unknown,
): Promise<T> {
  const headers = { "content-type": "application/json" };
  const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
  const answer = await send(options, token, path, init);
  return await answer.json() as T;
}

function send(
  { endpoint }: AuthOptions,
  token: string | undefined,
  path: string,
  init: RequestInit = {},
): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
  return request(endpoint === undefined ? {} : { endpoint }, path, { ...init, headers });
}

/** All pages of a list, an item at a time. */
export async function* pages<T>(api: Api, path: string, field: string): AsyncGenerator<T, void, void> {
  for (let token = "";;) {
    const separator = path.includes("?") ? "&" : "?";
    const query = token === "" ? "" : `${separator}pageToken=${encodeURIComponent(token)}`;
    const page = await api.call<Record<string, unknown>>("GET", path + query);
    yield* (page[field] ?? []) as T[];
    token = page.nextPageToken as string | undefined ?? "";
    if (token === "") return;
  }
}
