/** etcdserverpb.Auth. Who may call what is the guard's business. */
import type { Auth, ResponseHeader } from "$proto/etcdserverpb/rpc_pb.ts";
import type { ServiceImpl } from "@connectrpc/connect";
import { isBcrypt } from "./bcrypt.ts";
import { KvError } from "../errors.ts";
import type { Logins } from "./logins.ts";
import { mappedAsync, toConnectError } from "../rpc_errors.ts";
import type { KvService } from "../service.ts";
import type { WriteLog } from "../txn.ts";

/** What the handlers are made of. */
export interface AuthHandlersDeps {
  readonly service: KvService;
  readonly logins: Logins;
  readonly header: (revision: number) => ResponseHeader;
}

/** The implementation of etcdserverpb.Auth. */
export function createAuthHandlers({ service, logins, header }: AuthHandlersDeps): ServiceImpl<typeof Auth> {
  const { auth, hasher } = logins;

  /** The header of an answer: users and roles have no revisions in the store's history. */
  const head = () => header(service.revision);

  /** Writes a change; resolves when it is durable. Alarms refuse keys and leases, not users and roles, as in etcd. */
  async function change<T extends string>($typeName: T, write: (log: WriteLog) => void) {
    await mappedAsync(() => service.mutate(write, true));
    return { $typeName, header: head() };
  }

  /** What users and roles are, once that is durable: what is told must not be undone by a crash. */
  async function shown<T>(read: () => T): Promise<T> {
    try {
      const told = read();
      await service.settled();
      return told;
    } catch (error) {
      throw toConnectError(error);
    }
  }

  /** The hash to keep for a password: the one that came hashed, as between etcd's members, if none came in the clear. */
  function hashOf(password: string, hashedPassword: string): Promise<Uint8Array> {
    if (password !== "" || hashedPassword === "") return hasher.hash(password);
    const hash = decodeBase64(hashedPassword);
    if (hash === undefined || !isBcrypt(hash)) throw new KvError("noPasswordUser");
    return Promise.resolve(encoder.encode(hash));
  }

  return {
    authEnable: () => change("etcdserverpb.AuthEnableResponse", (log) => auth.enable(log)),
    authDisable: () => change("etcdserverpb.AuthDisableResponse", (log) => auth.disable(log)),
    authStatus: () =>
      shown(() => ({
        $typeName: "etcdserverpb.AuthStatusResponse" as const,
        header: head(),
        enabled: auth.isEnabled,
        authRevision: BigInt(auth.revision),
      })),
    authenticate: async ({ name, password }) => ({
      $typeName: "etcdserverpb.AuthenticateResponse" as const,
      token: await mappedAsync(() => logins.token(name, password)),
      header: head(),
    }),

    async userAdd({ name, password, hashedPassword, options }) {
      const hash = await mappedAsync(() => {
        auth.checkNewUser(name);
        return options?.noPassword === true ? undefined : hashOf(password, hashedPassword);
      });
      return await change("etcdserverpb.AuthUserAddResponse", (log) => auth.addUser(log, name, hash));
    },
    userGet: ({ name }) =>
      shown(() => ({
        $typeName: "etcdserverpb.AuthUserGetResponse" as const,
        header: head(),
        roles: [...auth.rolesOf(name)],
      })),
    userList: () =>
      shown(() => ({
        $typeName: "etcdserverpb.AuthUserListResponse" as const,
        header: head(),
        users: auth.userNames(),
      })),
    userDelete: ({ name }) =>
      change("etcdserverpb.AuthUserDeleteResponse", (log) => auth.deleteUser(log, name)),
    async userChangePassword({ name, password, hashedPassword }) {
      const hash = await mappedAsync(() => {
        auth.rolesOf(name);
        return hashOf(password, hashedPassword);
      });
      return await change(
        "etcdserverpb.AuthUserChangePasswordResponse",
        (log) => auth.changePassword(log, name, hash),
      );
    },
    userGrantRole: ({ user, role }) =>
      change("etcdserverpb.AuthUserGrantRoleResponse", (log) => auth.grantRole(log, user, role)),
    userRevokeRole: ({ name, role }) =>
      change("etcdserverpb.AuthUserRevokeRoleResponse", (log) => auth.revokeRole(log, name, role)),

    roleAdd: ({ name }) => change("etcdserverpb.AuthRoleAddResponse", (log) => auth.addRole(log, name)),
    roleGet: ({ role }) =>
      shown(() => ({
        $typeName: "etcdserverpb.AuthRoleGetResponse" as const,
        header: head(),
        perm: [...auth.permissionsOf(role)],
      })),
    roleList: () =>
      shown(() => ({
        $typeName: "etcdserverpb.AuthRoleListResponse" as const,
        header: head(),
        roles: auth.roleNames(),
      })),
    roleDelete: ({ role }) =>
      change("etcdserverpb.AuthRoleDeleteResponse", (log) => auth.deleteRole(log, role)),
    roleGrantPermission: ({ name, perm }) =>
      change("etcdserverpb.AuthRoleGrantPermissionResponse", (log) => auth.grantPermission(log, name, perm)),
    roleRevokePermission: ({ role, key, rangeEnd }) =>
      change(
        "etcdserverpb.AuthRoleRevokePermissionResponse",
        (log) => auth.revokePermission(log, role, { key, rangeEnd }),
      ),
  };
}

const encoder = new TextEncoder();

function decodeBase64(text: string): string | undefined {
  try {
    return atob(text);
  } catch {
    // Not base64, hence no hash; the caller refuses it.
    return undefined;
  }
}
