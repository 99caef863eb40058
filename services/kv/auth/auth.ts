/** Users, roles and who may do what, as etcd has them: pure, kept as named entries of the log.
 *
 *  | name               | bytes                              |
 *  | ------------------ | ---------------------------------- |
 *  | `auth/enabled`     | 1 while requests are checked       |
 *  | `auth/revision`    | 8 bytes, big-endian; 1 without one |
 *  | `auth/user/<name>` | authpb.User                        |
 *  | `auth/role/<name>` | authpb.Role                        |
 *
 *  Changes write to the log and take effect when the service hands the entries back (`load`), which it does on restart as
 *  well, in the same turn as the change. */
import { type Permission, Permission_Type, RoleSchema, UserSchema } from "$proto/authpb/auth_pb.ts";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Caller } from "../api.ts";
import { KvError } from "../errors.ts";
import { compareBytes, type KeyRange, rangeOf } from "../key.ts";
import { KeySpans, type Span, spanOf } from "./permissions.ts";
import type { EntryOwner } from "../service.ts";
import type { WriteLog } from "../txn.ts";

/** Names of all entries begin with it. */
export const AUTH_PREFIX = "auth/";
/** Name of the user and of the role that may do everything. */
export const ROOT = "root";
/** Most users, and most roles. They are in memory whole; etcd sets no limit. */
export const AUTH_NAMES_MAX = 100_000;
/** Most permissions of one role: its record is written whole with each change. */
export const ROLE_PERMISSIONS_MAX = 10_000;

const ENABLED = "auth/enabled";
const REVISION = "auth/revision";
const USER = "auth/user/";
const ROLE = "auth/role/";
const NO_BYTES = new Uint8Array(0);

/** Who a caller proved to be. It ends when the user's password changes, the user is deleted or authentication is disabled;
 *  roles may change under it. */
export class Credential implements Caller {
  /** @internal Use AuthStore.credentialOf. */
  constructor(readonly user: string, readonly epoch: number) {}
}

/** Why a caller wants keys. */
export type Access = "read" | "write";

interface User {
  readonly name: string;
  /** Hash; empty for a user without one. */
  readonly password: Uint8Array;
  readonly hasNoPassword: boolean;
  /** In order. */
  readonly roles: readonly string[];
  /** Number of the change that made the user or its password: credentials of an earlier one are void. */
  readonly epoch: number;
}

interface Role {
  readonly name: string;
  /** By key. */
  readonly permissions: readonly Permission[];
}

/** A user's merged permissions. */
type Granted = Readonly<Record<Access, KeySpans>>;

/** The users and roles of one store, and the checks. */
export class AuthStore implements EntryOwner {
  readonly #users = new Map<string, User>();
  readonly #roles = new Map<string, Role>();
  /** Made when first asked for; at most one a user. Emptied by every change of a user or role. */
  readonly #granted = new Map<string, Granted>();
  #isEnabled = false;
  #revision = 1;
  #epoch = 0;
  /** Credentials of this epoch or before are void: authentication was disabled after it. */
  #voidEpoch = -1;

  /** Whether requests are checked. */
  get isEnabled(): boolean {
    return this.#isEnabled;
  }

  /** Counts changes of users, roles and permissions, from 1. */
  get revision(): number {
    return this.#revision;
  }

  /** Takes an entry: on restart, and right after each change. */
  load(name: string, value: Uint8Array | undefined): void {
    if (name.startsWith(USER)) this.#loadUser(name.slice(USER.length), value);
    else if (name.startsWith(ROLE)) this.#loadRole(name.slice(ROLE.length), value);
    else if (name === REVISION) this.#revision = value === undefined ? 1 : readUint64(value);
    else if (name === ENABLED) {
      this.#isEnabled = value?.[0] === 1;
      if (!this.#isEnabled) this.#voidEpoch = this.#epoch++;
    }
  }

  #loadUser(name: string, value: Uint8Array | undefined): void {
    this.#granted.clear();
    if (value === undefined) {
      this.#users.delete(name);
      return;
    }
    const { password, roles, options } = fromBinary(UserSchema, value);
    const before = this.#users.get(name);
    const isSame = before !== undefined && compareBytes(before.password, password) === 0;
    const epoch = isSame ? before.epoch : ++this.#epoch;
    this.#users.set(name, { name, password, hasNoPassword: options?.noPassword ?? false, roles, epoch });
  }

  #loadRole(name: string, value: Uint8Array | undefined): void {
    this.#granted.clear();
    if (value === undefined) this.#roles.delete(name);
    else this.#roles.set(name, { name, permissions: fromBinary(RoleSchema, value).keyPermission });
  }

  // ---- changes ----

  /** @throws {KvError} `rootUserMissing`, `rootRoleMissing`. */
  enable(log: WriteLog): void {
    if (this.#isEnabled) return;
    const root = this.#users.get(ROOT);
    if (root === undefined) throw new KvError("rootUserMissing");
    if (!root.roles.includes(ROOT)) throw new KvError("rootRoleMissing");
    log.meta(ENABLED, Uint8Array.of(1));
  }

  disable(log: WriteLog): void {
    if (!this.#isEnabled) return;
    log.meta(ENABLED, undefined);
    this.#bump(log);
  }

  /** Checks a name for a new user, before its password is hashed. @throws {KvError} `userEmpty`, `userExists`, `noSpace`. */
  checkNewUser(name: string): void {
    if (name === "") throw new KvError("userEmpty");
    if (this.#users.has(name)) throw new KvError("userExists");
    if (this.#users.size >= AUTH_NAMES_MAX) throw new KvError("noSpace");
  }

  /** Adds a user with the hash of its password, or with undefined as one who has none.
   *  @throws {KvError} as checkNewUser. */
  addUser(log: WriteLog, name: string, password: Uint8Array | undefined): void {
    this.checkNewUser(name);
    this.#putUser(log, {
      name,
      password: password ?? NO_BYTES,
      hasNoPassword: password === undefined,
      roles: [],
    });
    this.#bump(log);
  }

  /** @throws {KvError} `invalidAuthManagement` (root, while enabled), `userNotFound`. */
  deleteUser(log: WriteLog, name: string): void {
    if (this.#isEnabled && name === ROOT) throw new KvError("invalidAuthManagement");
    this.#userNamed(name);
    log.meta(USER + name, undefined);
    this.#bump(log);
  }

  /** A user who has no password keeps having none. @throws {KvError} `userNotFound`. */
  changePassword(log: WriteLog, name: string, password: Uint8Array): void {
    const user = this.#userNamed(name);
    this.#putUser(log, user.hasNoPassword ? user : { ...user, password });
    this.#bump(log);
  }

  /** Granting what is granted changes nothing. @throws {KvError} `userNotFound`, `roleNotFound`. */
  grantRole(log: WriteLog, userName: string, role: string): void {
    const user = this.#userNamed(userName);
    if (role !== ROOT) this.#roleNamed(role);
    if (user.roles.includes(role)) return;
    this.#putUser(log, { ...user, roles: [...user.roles, role].sort(compareText) });
    this.#bump(log);
  }

  /** @throws {KvError} `invalidAuthManagement` (root of root, while enabled), `userNotFound`, `roleNotGranted`. */
  revokeRole(log: WriteLog, userName: string, role: string): void {
    if (this.#isEnabled && userName === ROOT && role === ROOT) throw new KvError("invalidAuthManagement");
    const user = this.#userNamed(userName);
    if (!user.roles.includes(role)) throw new KvError("roleNotGranted");
    this.#putUser(log, { ...user, roles: user.roles.filter((other) => other !== role) });
    this.#bump(log);
  }

  /** @throws {KvError} `roleEmpty`, `roleExists`, `noSpace`. */
  addRole(log: WriteLog, name: string): void {
    if (name === "") throw new KvError("roleEmpty");
    if (this.#roles.has(name)) throw new KvError("roleExists");
    if (this.#roles.size >= AUTH_NAMES_MAX) throw new KvError("noSpace");
    this.#putRole(log, { name, permissions: [] });
    this.#bump(log);
  }

  /** Deletes a role and takes it from its users. @throws {KvError} `invalidAuthManagement` (root, while enabled),
   *  `roleNotFound`. */
  deleteRole(log: WriteLog, name: string): void {
    if (this.#isEnabled && name === ROOT) throw new KvError("invalidAuthManagement");
    this.#roleNamed(name);
    log.meta(ROLE + name, undefined);
    for (const user of this.#users.values()) {
      if (!user.roles.includes(name)) continue;
      this.#putUser(log, { ...user, roles: user.roles.filter((other) => other !== name) });
    }
    this.#bump(log);
  }

  /** Adds a permission, or changes the type of the one for the same key and range end.
   *  @throws {KvError} `permissionNotGiven`, `roleNotFound`, `invalidAuthManagement` (no key, or a range that holds none),
   *  `noSpace`. */
  grantPermission(log: WriteLog, roleName: string, permission: Permission | undefined): void {
    if (permission === undefined) throw new KvError("permissionNotGiven");
    if (!isSensible(permission)) throw new KvError("invalidAuthManagement");
    const { name, permissions } = this.#roleNamed(roleName);
    const others = permissions.filter((other) => !isSameRange(other, permission));
    if (others.length >= ROLE_PERMISSIONS_MAX) throw new KvError("noSpace");
    const isNew = others.length === permissions.length;
    const changed = isNew
      ? [...permissions, permission].sort((a, b) => compareBytes(a.key, b.key))
      : permissions.map((other) => isSameRange(other, permission) ? permission : other);
    this.#putRole(log, { name, permissions: changed });
    this.#bump(log);
  }

  /** @throws {KvError} `roleNotFound`, `permissionNotGranted`. */
  revokePermission(log: WriteLog, roleName: string, range: Pick<Permission, "key" | "rangeEnd">): void {
    const { name, permissions } = this.#roleNamed(roleName);
    const others = permissions.filter((other) => !isSameRange(other, range));
    if (others.length === permissions.length) throw new KvError("permissionNotGranted");
    this.#putRole(log, { name, permissions: others });
    this.#bump(log);
  }

  #bump(log: WriteLog): void {
    log.meta(REVISION, uint64Bytes(this.#revision + 1));
  }

  #putUser(log: WriteLog, user: Omit<User, "epoch">): void {
    log.meta(
      USER + user.name,
      toBinary(UserSchema, {
        $typeName: "authpb.User",
        name: encoder.encode(user.name),
        password: user.password,
        roles: [...user.roles],
        options: { $typeName: "authpb.UserAddOptions", noPassword: user.hasNoPassword },
      }),
    );
  }

  #putRole(log: WriteLog, role: Role): void {
    log.meta(
      ROLE + role.name,
      toBinary(RoleSchema, {
        $typeName: "authpb.Role",
        name: encoder.encode(role.name),
        keyPermission: [...role.permissions],
      }),
    );
  }

  #userNamed(name: string): User {
    const user = this.#users.get(name);
    if (user === undefined) throw new KvError("userNotFound");
    return user;
  }

  #roleNamed(name: string): Role {
    const role = this.#roles.get(name);
    if (role === undefined) throw new KvError("roleNotFound");
    return role;
  }

  // ---- reading ----

  /** Names of all users, in order. */
  userNames(): string[] {
    return [...this.#users.keys()].sort(compareText);
  }

  /** Names of all roles, in order. */
  roleNames(): string[] {
    return [...this.#roles.keys()].sort(compareText);
  }

  /** Roles of a user, in order. @throws {KvError} `userNotFound`. */
  rolesOf(user: string): readonly string[] {
    return this.#userNamed(user).roles;
  }

  /** Permissions of a role, by key. @throws {KvError} `roleNotFound`. */
  permissionsOf(role: string): readonly Permission[] {
    return this.#roleNamed(role).permissions;
  }

  /** What a login is checked against: the hash of the user's password, undefined when no password is right, and the
   *  credential it earns. @throws {KvError} `authNotEnabled`, `noPasswordUser`. */
  loginOf(name: string): { readonly password: Uint8Array; readonly credential: Credential } | undefined {
    if (!this.#isEnabled) throw new KvError("authNotEnabled");
    const user = this.#users.get(name);
    if (user === undefined) return undefined;
    if (user.hasNoPassword) throw new KvError("noPasswordUser");
    return { password: user.password, credential: this.credentialOf(user) };
  }

  /** What proves to be the user from now on. */
  credentialOf(user: { readonly name: string; readonly epoch: number }): Credential {
    // Not before the last disabling, whenever the password was set.
    return new Credential(user.name, Math.max(user.epoch, this.#voidEpoch + 1));
  }

  /** Whether a credential still holds. */
  isLive({ user: name, epoch }: Credential): boolean {
    const user = this.#users.get(name);
    return user !== undefined && epoch >= user.epoch && epoch > this.#voidEpoch;
  }

  // ---- checks; all pass while authentication is disabled ----

  /** Lets pass whoever proved to be a user. @throws {KvError} `userEmpty`, `invalidAuthToken`. */
  checkUser(caller: Caller): void {
    if (this.#isEnabled) this.#userOf(caller);
  }

  /** Lets pass users who have the role root. @throws {KvError} `userEmpty`, `invalidAuthToken`, `permissionDenied`. */
  checkRoot(caller: Caller): void {
    if (!this.#isEnabled) return;
    if (!this.#userOf(caller).roles.includes(ROOT)) throw new KvError("permissionDenied");
  }

  /** Lets pass users who have the role or root. @throws {KvError} as checkRoot. */
  checkRole(caller: Caller, role: string): void {
    if (!this.#isEnabled) return;
    const { roles } = this.#userOf(caller);
    if (!roles.includes(ROOT) && !roles.includes(role)) throw new KvError("permissionDenied");
  }

  /** Lets pass users whose roles grant the access to every key of the range. @throws {KvError} as checkRoot. */
  checkKeys(caller: Caller, access: Access, key: Uint8Array, range: KeyRange | "single"): void {
    if (!this.#isEnabled) return;
    const user = this.#userOf(caller);
    if (user.roles.includes(ROOT)) return;
    if (!this.#grantedTo(user)[access].covers(spanOf(key, range))) throw new KvError("permissionDenied");
  }

  /** Whether the caller has the role root, or need not. */
  isRoot(caller: Caller): boolean {
    return !this.#isEnabled || this.#userOf(caller).roles.includes(ROOT);
  }

  #userOf(caller: Caller): User {
    if (!(caller instanceof Credential)) throw new KvError("userEmpty");
    if (!this.isLive(caller)) throw new KvError("invalidAuthToken");
    return this.#users.get(caller.user)!;
  }

  #grantedTo(user: User): Granted {
    let granted = this.#granted.get(user.name);
    if (granted === undefined) {
      const spans: Record<Access, Span[]> = { read: [], write: [] };
      for (const role of user.roles) {
        for (const { permType, key, rangeEnd } of this.#roles.get(role)?.permissions ?? []) {
          const span = spanOf(key, rangeOf(key, rangeEnd));
          if (permType !== Permission_Type.WRITE && permType in Permission_Type) spans.read.push(span);
          if (permType !== Permission_Type.READ && permType in Permission_Type) spans.write.push(span);
        }
      }
      granted = { read: new KeySpans(spans.read), write: new KeySpans(spans.write) };
      this.#granted.set(user.name, granted);
    }
    return granted;
  }
}

const encoder = new TextEncoder();

/** Whether the permission names a key, or a range that holds one. */
function isSensible({ key, rangeEnd }: Permission): boolean {
  if (key.length === 0) return false;
  const range = rangeOf(key, rangeEnd);
  return range === "single" || range.end === undefined || compareBytes(key, range.end) < 0;
}

type PermissionRange = Pick<Permission, "key" | "rangeEnd">;

function isSameRange(a: PermissionRange, b: PermissionRange): boolean {
  return compareBytes(a.key, b.key) === 0 && compareBytes(a.rangeEnd, b.rangeEnd) === 0;
}

/** Byte order of the UTF-8 forms, which is the order of code points. */
function compareText(a: string, b: string): number {
  return compareBytes(encoder.encode(a), encoder.encode(b));
}

function uint64Bytes(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

function readUint64(bytes: Uint8Array): number {
  return Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0));
}
