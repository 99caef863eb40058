/** `aetherflow kv auth|user|role …`: who may do what in the store. */
import { printLine } from "../output.ts";
import { attempt, call, type KvOptions, prefixEnd, readableText, toBase64, usageError } from "./client.ts";

/** Turns the check of users on or off. */
export function setEnabled(isEnabled: boolean, options: KvOptions): Promise<number> {
  return attempt(async () => {
    await call(options, isEnabled ? "/v3/auth/enable" : "/v3/auth/disable");
    if (options.json) printLine(JSON.stringify({ enabled: isEnabled }));
  });
}

/** Prints whether users are checked. */
export function authStatus(options: KvOptions): Promise<number> {
  return attempt(async () => {
    const answer = await call(options, "/v3/auth/status");
    const enabled = answer.enabled ?? false;
    if (options.json) printLine(JSON.stringify({ enabled, authRevision: answer.authRevision ?? "0" }));
    else printLine(enabled ? "enabled" : "disabled");
  });
}

/** Adds a user. The password is read from standard input when it is "-". */
export function addUser(name: string, password: string, options: KvOptions): Promise<number> {
  return change(options, "/v3/auth/user/add", async () => ({ name, password: await passwordOf(password) }));
}

/** Changes a user's password. */
export function setPassword(name: string, password: string, options: KvOptions): Promise<number> {
  return change(
    options,
    "/v3/auth/user/changepw",
    async () => ({ name, password: await passwordOf(password) }),
  );
}

/** Removes a user. */
export function removeUser(name: string, options: KvOptions): Promise<number> {
  return change(options, "/v3/auth/user/delete", () => ({ name }));
}

/** Gives a user a role, or takes it. */
export function setRole(user: string, role: string, isGranted: boolean, options: KvOptions): Promise<number> {
  return isGranted
    ? change(options, "/v3/auth/user/grant", () => ({ user, role }))
    : change(options, "/v3/auth/user/revoke", () => ({ name: user, role }));
}

/** Prints a user's roles. */
export function showUser(name: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    const { roles = [] } = await call(options, "/v3/auth/user/get", { name });
    if (options.json) return printLine(JSON.stringify({ name, roles }));
    for (const role of roles) printLine(role);
  });
}

/** Prints all users, or all roles. */
export function listNames(kind: "user" | "role", options: KvOptions): Promise<number> {
  return attempt(async () => {
    const answer = await call(options, `/v3/auth/${kind}/list`);
    for (const name of (kind === "user" ? answer.users : answer.roles) ?? []) {
      printLine(options.json ? JSON.stringify({ name }) : name);
    }
  });
}

/** Adds a role, or removes it. */
export function setRoleExists(name: string, exists: boolean, options: KvOptions): Promise<number> {
  return exists
    ? change(options, "/v3/auth/role/add", () => ({ name }))
    : change(options, "/v3/auth/role/delete", () => ({ role: name }));
}

/** Prints what a role may do. */
export function showRole(name: string, options: KvOptions): Promise<number> {
  return attempt(async () => {
    const { perm = [] } = await call(options, "/v3/auth/role/get", { role: name });
    for (const { permType = "READ", key, range_end } of perm) {
      const shown = { type: permType, key: readableText(key), rangeEnd: readableText(range_end) };
      if (options.json) printLine(JSON.stringify(shown));
      else printLine(`${shown.type}\t${shown.key}${shown.rangeEnd === "" ? "" : `\t${shown.rangeEnd}`}`);
    }
  });
}

/** Options that name the keys of a permission. */
export interface PermissionKeys {
  readonly prefix?: boolean;
}

/** Gives a role read, write or readwrite on a key, or on all keys that start with it. */
export function grantPermission(
  role: string,
  type: string,
  key: string,
  options: KvOptions & PermissionKeys,
): Promise<number> {
  return change(options, "/v3/auth/role/grant", () => {
    const permType = type.toUpperCase();
    if (!["READ", "WRITE", "READWRITE"].includes(permType)) {
      throw usageError(`a permission is read, write or readwrite, not ${type}`);
    }
    return { name: role, perm: { permType, ...keysOf(key, options) } };
  });
}

/** Takes a role's permission on exactly this key or prefix. */
export function revokePermission(
  role: string,
  key: string,
  options: KvOptions & PermissionKeys,
): Promise<number> {
  return change(options, "/v3/auth/role/revoke", () => ({ role, ...keysOf(key, options) }));
}

function change(
  options: KvOptions,
  path: string,
  body: () => Record<string, unknown> | Promise<Record<string, unknown>>,
): Promise<number> {
  return attempt(async () => {
    await call(options, path, await body());
    if (options.json) printLine(JSON.stringify({ ok: true }));
  });
}

function keysOf(key: string, { prefix = false }: PermissionKeys): { key: string; range_end?: string } {
  if (!prefix) return { key: toBase64(key) };
  // The range of every key begins at the smallest that there can be.
  return { key: key === "" ? "AA==" : toBase64(key), range_end: prefixEnd(key) };
}

async function passwordOf(text: string): Promise<string> {
  if (text !== "-") return text;
  return (await new Response(Deno.stdin.readable).text()).replace(/\r?\n$/, "");
}
