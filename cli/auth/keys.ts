/** `aetherflow key …`: API keys of programs. */
import { complain, printLine } from "../output.ts";
import { attempt, type AuthOptions, usageError, withApi } from "./client.ts";
import { describeGrant, type Grant, grantOf } from "./grants.ts";

/** A key, as the server tells of one. */
interface ApiKey {
  readonly keyId: string;
  readonly username: string;
  readonly name: string;
  readonly scopes?: readonly Grant[];
  readonly createdAt?: string;
  readonly expiresAt?: string;
  readonly lastUsedAt?: string;
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** Makes a key of the caller's and prints it, once. */
export function create(
  name: string,
  options: AuthOptions & { readonly scope: readonly string[]; readonly expires?: string },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const expiresInSeconds = options.expires === undefined ? 0 : secondsOf(options.expires);
      const scopes = options.scope.map(grantOf);
      const { key, secret } = await api.call<{ key: ApiKey; secret: string }>("POST", "/api/v1/auth/keys", {
        name,
        scopes,
        expiresInSeconds,
      });
      if (options.json) return printLine(JSON.stringify({ ...key, secret }));
      // The key alone on stdout, so that a script can take it.
      complain(`key ${key.keyId} was made; it is shown this once`);
      printLine(secret);
    })
  );
}

/** Prints keys. */
export function list(options: AuthOptions & { readonly of?: string }): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const query = options.of === undefined ? "" : `?username=${encodeURIComponent(options.of)}`;
      const { keys = [] } = await api.call<{ keys?: ApiKey[] }>("GET", `/api/v1/auth/keys${query}`);
      for (const key of keys) {
        if (options.json) printLine(JSON.stringify(key));
        else {
          const scopes = (key.scopes ?? []).map(describeGrant).join(",") || "everything";
          const until = key.expiresAt === undefined ? "for ever" : `until ${key.expiresAt}`;
          printLine(`${key.keyId}\t${key.username}\t${key.name}\t${scopes}\t${until}`);
        }
      }
    })
  );
}

/** Ends a key. One that is not there is no error. */
export function remove(keyId: string, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const path = `/api/v1/auth/keys/${encodeURIComponent(keyId)}`;
      const { deleted = false } = await api.call<{ deleted?: boolean }>("DELETE", path);
      if (options.json) printLine(JSON.stringify({ deleted }));
      else if (!deleted) complain(`there was no key ${keyId}`);
    })
  );
}

function secondsOf(text: string): number {
  const match = /^([1-9][0-9]{0,8})([smhd]?)$/.exec(text);
  if (match === null) throw usageError(`--expires is ${text}, expected a time like 90d, 12h or 3600`);
  return Number(match[1]) * SECONDS[match[2] || "s"]!;
}
