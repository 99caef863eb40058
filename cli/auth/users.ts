/** `aetherflow user …`: people who may sign in, and what they may do. */
import { complain, printLine } from "../output.ts";
import { type Api, attempt, type AuthOptions, pages, usageError, withApi } from "./client.ts";
import { describeGrant, type Grant, grantOf } from "./grants.ts";

/** A user, as the server tells of one. */
interface User {
  readonly userId: string;
  readonly username: string;
  readonly roles?: readonly string[];
  readonly grants?: readonly Grant[];
  readonly disabled?: boolean;
  readonly createdAt?: string;
  readonly lastLoginAt?: string;
}

/** Adds a user, whose password is asked for. */
export function add(
  username: string,
  options: AuthOptions & { readonly admin?: boolean; readonly grant: readonly string[] },
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const grants = options.grant.map(grantOf);
      const roles = options.admin ? ["admin"] : [];
      const password = await api.passwords.askNew(`Password for ${username}: `);
      const { user } = await api.call<{ user: User }>("POST", "/api/v1/users", {
        username,
        password,
        roles,
        grants,
      });
      show(user, options);
    })
  );
}

/** Sets another user's password, or the caller's own, for which the present one is asked. */
export function passwd(username: string | undefined, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      if (username === undefined) {
        const currentPassword = await api.passwords.ask("Present password: ");
        const newPassword = await api.passwords.askNew("New password: ");
        await api.call("POST", "/api/v1/auth/password", { currentPassword, newPassword });
      } else {
        const password = await api.passwords.askNew(`New password for ${username}: `);
        await api.call("POST", `${pathOf(username)}:setPassword`, { password });
      }
      if (options.json) printLine(JSON.stringify({ ok: true }));
    })
  );
}

/** Prints all users. */
export function list(options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      for await (const user of pages<User>(api, "/api/v1/users?pageSize=1000", "users")) {
        if (options.json) printLine(JSON.stringify(user));
        else {printLine(
            `${user.username}\t${(user.roles ?? []).join(",")}${user.disabled ? "\tdisabled" : ""}`,
          );}
      }
    })
  );
}

/** Prints one user. */
export function get(username: string, options: AuthOptions): Promise<number> {
  return attempt(() => withApi(options, async (api) => show(await userOf(api, username), options)));
}

/** Lets a user sign in, or not; not ends everything of the user's at once. */
export function setDisabled(username: string, disabled: boolean, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => show(await update(api, username, { disabled }, "disabled"), options))
  );
}

/** Removes a user. One that is not there is no error. */
export function remove(username: string, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { deleted = false } = await api.call<{ deleted?: boolean }>("DELETE", pathOf(username));
      if (options.json) printLine(JSON.stringify({ deleted }));
      else if (!deleted) complain(`there was no user ${username}`);
    })
  );
}

/** Ends all sessions and keys of a user. */
export function signOut(username: string, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { sessions = "0", keys = "0" } = await api.call<{ sessions?: string; keys?: string }>(
        "POST",
        `${pathOf(username)}:revoke`,
        {},
      );
      if (options.json) printLine(JSON.stringify({ sessions: Number(sessions), keys: Number(keys) }));
      else printLine(`ended ${sessions} sessions and ${keys} keys`);
    })
  );
}

/** What is given or taken. */
export interface RightOptions extends AuthOptions {
  readonly write?: boolean;
  readonly admin?: boolean;
}

/** Gives a right, or the role admin. */
export function grant(username: string, right: string | undefined, options: RightOptions): Promise<number> {
  return change(username, right, options, (grants, wanted) => [
    ...grants.filter((grant) => !isSamePlace(grant, wanted)),
    { ...wanted, write: options.write ?? false },
  ]);
}

/** Takes a right, or the role admin. One that is not there is no error. */
export function revoke(username: string, right: string | undefined, options: RightOptions): Promise<number> {
  return change(
    username,
    right,
    options,
    (grants, wanted) => grants.filter((grant) => !isSamePlace(grant, wanted)),
    "member",
  );
}

function change(
  username: string,
  right: string | undefined,
  options: RightOptions,
  changed: (grants: readonly Grant[], wanted: Grant) => Grant[],
  role = "admin",
): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      if ((right === undefined) === (options.admin !== true)) {
        throw usageError("either a right, as in kv:orders/, or --admin is expected");
      }
      if (right === undefined) return show(await update(api, username, { roles: [role] }, "roles"), options);
      const wanted = grantOf(right);
      const { grants = [] } = await userOf(api, username);
      show(await update(api, username, { grants: changed(grants, wanted) }, "grants"), options);
    })
  );
}

function isSamePlace(a: Grant, b: Grant): boolean {
  return a.service === b.service && (a.prefix ?? "") === (b.prefix ?? "");
}

async function userOf(api: Api, username: string): Promise<User> {
  return (await api.call<{ user: User }>("GET", pathOf(username))).user;
}

async function update(api: Api, username: string, fields: object, mask: string): Promise<User> {
  return (await api.call<{ user: User }>("PATCH", `${pathOf(username)}?updateMask=${mask}`, fields)).user;
}

function pathOf(username: string): string {
  return `/api/v1/users/${encodeURIComponent(username)}`;
}

function show(user: User, options: AuthOptions): void {
  if (options.json) return printLine(JSON.stringify(user));
  printLine(`name\t${user.username}`);
  printLine(`id\t${user.userId}`);
  printLine(`roles\t${(user.roles ?? []).join(",")}`);
  for (const grant of user.grants ?? []) printLine(`right\t${describeGrant(grant)}`);
  printLine(`disabled\t${user.disabled ?? false}`);
  printLine(`created\t${user.createdAt ?? ""}`);
  printLine(`signed in\t${user.lastLoginAt ?? "never"}`);
}
