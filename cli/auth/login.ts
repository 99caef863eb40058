/** `aetherflow login`, `logout`, `whoami`. */
import { complain, printLine } from "../output.ts";
import { attempt, type AuthOptions, signIn, usageError, withApi } from "./client.ts";
import { describeGrant, type Grant } from "./grants.ts";
import { readPasswords } from "./passwords.ts";

/** Opens a session and prints its access token. */
export function login(username: string, options: AuthOptions): Promise<number> {
  return attempt(async () => {
    using passwords = readPasswords();
    const answer = await signIn(options, username, passwords);
    if (options.json) return printLine(JSON.stringify(answer));
    complain(`session ${answer.sessionId}; the token is good for ${answer.expiresIn} s`);
    printLine(answer.accessToken);
  });
}

/** Ends the session of a token. */
export function logout(options: AuthOptions): Promise<number> {
  return attempt(async () => {
    const { token = "" } = options;
    if (token === "") throw usageError("--token or AETHERFLOW_TOKEN is expected to say whose session ends");
    const isRefresh = token.startsWith("afr_");
    const caller: AuthOptions = {
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
      ...(isRefresh ? {} : { token }),
    };
    await withApi(caller, async (api) => {
      await api.call("POST", "/api/v1/auth/logout", isRefresh ? { refreshToken: token } : {});
    });
    if (options.json) printLine(JSON.stringify({ ok: true }));
  });
}

/** Prints who the caller is. */
export function whoami(options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { principal } = await api.call<{ principal: Principal }>("GET", "/api/v1/auth/me");
      if (options.json) return printLine(JSON.stringify(principal));
      printLine(`name\t${principal.username ?? ""}`);
      printLine(`kind\t${principal.kind.replace(/^KIND_/, "").toLowerCase()}`);
      printLine(`roles\t${(principal.roles ?? []).join(",")}`);
      for (const grant of principal.grants ?? []) printLine(`right\t${describeGrant(grant)}`);
    })
  );
}

/** Who calls, as the server tells it. */
interface Principal {
  readonly kind: string;
  readonly username?: string;
  readonly roles?: readonly string[];
  readonly grants?: readonly Grant[];
}
