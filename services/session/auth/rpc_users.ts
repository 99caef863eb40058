/** UserService: what administrators do. */
import { type Principal, Principal_Kind, type UserService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { isAdmin, principalOf } from "../../runtime/principal.ts";
import { type Accounts, type User, USERNAME } from "./accounts.ts";
import type { Authenticator } from "./authenticator.ts";
import { AuthError } from "./errors.ts";
import { checkGrants, checkRoles } from "./grants.ts";
import type { Logins } from "./logins.ts";
import { userMessage } from "./messages.ts";
import type { PasswordChecks } from "./password_checks.ts";
import { checkPassword } from "./password_policy.ts";
import type { Policy } from "./policy.ts";
import { checkPageSize } from "./rpc_auth.ts";
import { mapped } from "./rpc_errors.ts";
import type { Sessions } from "./sessions.ts";
import type { SigningKeys } from "./signing_keys.ts";

/** What the handlers need. */
export interface UserHandlersDeps {
  readonly accounts: Accounts;
  readonly sessions: Sessions;
  readonly authenticator: Authenticator;
  readonly logins: Logins;
  readonly passwords: PasswordChecks;
  readonly keys: SigningKeys;
  readonly policy: Policy;
}

const UPDATABLE = ["roles", "grants", "disabled"];

/** The implementation of UserService. */
export function createUserHandlers(deps: UserHandlersDeps): ServiceImpl<typeof UserService> {
  const { accounts, sessions, authenticator, logins, passwords, keys, policy } = deps;

  /** @throws {AuthError} `noCaller`, `badCredential`, `notAdmin` */
  async function checkAdmin(context: HandlerContext): Promise<Principal | undefined> {
    const principal = await authenticator.current(principalOf(context.requestHeader));
    if (!isAdmin(principal)) throw new AuthError("notAdmin");
    return principal;
  }

  /** Runs what an administrator asks. */
  function asAdmin<T>(
    context: HandlerContext,
    run: (principal: Principal | undefined) => Promise<T>,
  ): Promise<T> {
    return mapped(async () => run(await checkAdmin(context)));
  }

  async function userOf(username: string): Promise<User> {
    const user = await accounts.userByName(username);
    if (user === undefined) throw new AuthError("userNotFound");
    return user;
  }

  return {
    createUser: ({ username, password, roles, grants }, context) =>
      asAdmin(context, async (principal) => {
        if (!USERNAME.test(username)) {
          throw new AuthError(
            "invalid",
            "username is expected to be 1 to 64 of a-z, 0-9, '.', '_', '-', '@'",
          );
        }
        const checked = { roles: checkRoles(roles, "member"), grants: checkGrants(grants, "grants") };
        checkPassword(password, username);
        if (await accounts.userByName(username) !== undefined) throw new AuthError("userExists");
        const passwordHash = await passwords.hash(password);
        const mustBeFirst = principal?.kind === Principal_Kind.DEVELOPER;
        const user = await accounts.createUser({ username, passwordHash, ...checked }, { mustBeFirst });
        policy.setHasUsers(true);
        return { $typeName: "aetherflow.auth.v1.CreateUserResponse" as const, user: userMessage(user) };
      }),

    getUser: ({ username }, context) =>
      asAdmin(context, async () => ({
        $typeName: "aetherflow.auth.v1.GetUserResponse" as const,
        user: userMessage(await userOf(username)),
      })),

    listUsers: ({ pageSize, pageToken }, context) =>
      asAdmin(context, async () => {
        const limit = checkPageSize(pageSize);
        // The token is the last name of the page before.
        if (pageToken !== "" && !USERNAME.test(pageToken)) {
          throw new AuthError("invalid", "page_token is not one of this list");
        }
        const users = await accounts.users(pageToken, limit);
        return {
          $typeName: "aetherflow.auth.v1.ListUsersResponse" as const,
          users: users.map(userMessage),
          nextPageToken: users.length < limit ? "" : users.at(-1)!.username,
        };
      }),

    updateUser: ({ user: wanted, updateMask }, context) =>
      asAdmin(context, async () => {
        const paths = updateMask?.paths ?? [];
        const unknown = paths.find((path) => !UPDATABLE.includes(path));
        if (unknown !== undefined || paths.length === 0) {
          const found = unknown === undefined ? "is empty" : `has ${unknown.slice(0, 64)}`;
          throw new AuthError("invalid", `update_mask ${found}, expected some of ${UPDATABLE.join(", ")}`);
        }
        const { id } = await userOf(wanted?.username ?? "");
        const change = {
          ...(paths.includes("roles") ? { roles: checkRoles(wanted!.roles, "member") } : {}),
          ...(paths.includes("grants") ? { grants: checkGrants(wanted!.grants, "grants") } : {}),
          ...(paths.includes("disabled") ? { isDisabled: wanted!.disabled } : {}),
        };
        const user = await accounts.updateUser(id, (current) => ({ ...current, ...change }));
        if (user === undefined) throw new AuthError("userNotFound");
        // Roles and grants are looked up with each request; a session would come back with the user.
        if (change.isDisabled === true) await sessions.revokeUser(id, "the user was disabled");
        return { $typeName: "aetherflow.auth.v1.UpdateUserResponse" as const, user: userMessage(user) };
      }),

    setPassword: ({ username, password }, context) =>
      asAdmin(context, async () => {
        await logins.setPassword(await userOf(username), password);
        return { $typeName: "aetherflow.auth.v1.SetPasswordResponse" as const };
      }),

    revokeUser: ({ username }, context) =>
      asAdmin(context, async () => {
        const { id } = await userOf(username);
        // Sessions first: a session makes keys, and none is made once it has ended.
        const ended = await sessions.revokeUser(id, "revoked by an administrator");
        const endedKeys = await accounts.revokeKeys(id);
        return {
          $typeName: "aetherflow.auth.v1.RevokeUserResponse" as const,
          sessions: BigInt(ended),
          keys: BigInt(endedKeys),
        };
      }),

    deleteUser: ({ username }, context) =>
      asAdmin(context, async () => {
        const user = await accounts.userByName(username);
        const deleted = user !== undefined && await accounts.removeUser(user.id) !== undefined;
        if (deleted) {
          await sessions.revokeUser(user.id, "the user was deleted");
          await accounts.forgetKeys(user.id);
        }
        return { $typeName: "aetherflow.auth.v1.DeleteUserResponse" as const, deleted };
      }),

    rotateSigningKey: (_request, context) =>
      asAdmin(context, async () => {
        const keyId = await keys.rotate();
        policy.notify();
        return { $typeName: "aetherflow.auth.v1.RotateSigningKeyResponse" as const, keyId };
      }),
  };
}
