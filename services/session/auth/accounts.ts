/** Users and API keys as records.
 *
 *  | key                    | value                                                             |
 *  | ---------------------- | ----------------------------------------------------------------- |
 *  | `counts`               | how many users, and enabled administrators, there are             |
 *  | `user/<user id>`       | the user                                                          |
 *  | `name/<username>`      | the user's id; it makes names unique                              |
 *  | `key/<key id>`         | an API key, with the hash of its secret                           |
 *  | `owned/<user>/<key>`   | empty; lists a user's keys                                        |
 *
 *  Every change is one commit under conditions: what was read must still be so, or it is all done again. */
import { formatGuuid, type GuuidSource } from "../../runtime/guuid.ts";
import { ADMIN } from "../../runtime/principal.ts";
import { AuthError } from "./errors.ts";
import type { Grant } from "./grants.ts";
import { LIST_MAX, type RecordChange, type RecordStore, type StoredRecord } from "./records.ts";

/** A user. Times are in milliseconds since the Unix epoch. */
export interface User {
  readonly id: string;
  readonly username: string;
  readonly roles: readonly string[];
  readonly grants: readonly Grant[];
  readonly isDisabled: boolean;
  /** PHC string. */
  readonly passwordHash: string;
  readonly createdAtMs: number;
  readonly passwordChangedAtMs: number;
  /** 0: never. */
  readonly lastLoginAtMs: number;
  /** Raised to end all keys of before. */
  readonly keyEpoch: number;
  /** Keys of this epoch. */
  readonly keys: number;
}

/** An API key. */
export interface ApiKey {
  readonly id: string;
  readonly userId: string;
  readonly name: string;
  /** SHA-256 of the secret. */
  readonly secretHash: string;
  /** Empty: all that the user may do. */
  readonly scopes: readonly Grant[];
  readonly createdAtMs: number;
  /** 0: never. */
  readonly expiresAtMs: number;
  /** 0: never. */
  readonly lastUsedAtMs: number;
  /** The user's when the key was made. */
  readonly keyEpoch: number;
}

/** How many users there are. */
export interface Counts {
  readonly users: number;
  /** Administrators who are not disabled. */
  readonly admins: number;
}

/** What accounts are made of. */
export interface AccountsDeps {
  readonly records: RecordStore;
  readonly guuids: GuuidSource;
  readonly limits: { readonly usersMax: number; readonly keysPerUserMax: number };
  readonly clock: { wallMs(): number };
}

/** A name that users may have. */
export const USERNAME = /^[a-z0-9._@-]{1,64}$/;

/** The one spelling of a name that somebody signs in with; empty for what is no name. */
export function canonicalName(text: string): string {
  const name = text.length > 64 ? "" : text.toLowerCase();
  return USERNAME.test(name) ? name : "";
}

/** Attempts at a commit that others were faster than. Each lost one is somebody else's success, so more than a few mean
 *  that very many change the same users at once. */
const ATTEMPTS_MAX = 64;

const NO_COUNTS: Counts = { users: 0, admins: 0 };

/** Users and API keys. */
export class Accounts {
  readonly #deps: AccountsDeps;
  /** Values of records that were read, for as long as the records are there. */
  readonly #parsed = new WeakMap<StoredRecord, unknown>();

  constructor(deps: AccountsDeps) {
    this.#deps = deps;
  }

  /** How many there are now. */
  async counts(): Promise<Counts> {
    return this.#read<Counts>(await this.#deps.records.get("counts")) ?? NO_COUNTS;
  }

  /** The user of an id. */
  async user(id: string): Promise<User | undefined> {
    return this.#read<User>(await this.#deps.records.get(`user/${id}`));
  }

  /** The user of a name. */
  async userByName(username: string): Promise<User | undefined> {
    const id = await this.idByName(username);
    return id === undefined ? undefined : await this.user(id);
  }

  /** The id of a name's user. */
  async idByName(username: string): Promise<string | undefined> {
    if (!USERNAME.test(username)) return undefined;
    return (await this.#deps.records.get(`name/${username}`))?.value;
  }

  /** Up to `limit` users after a name, in the order of their names. */
  async users(after: string, limit: number): Promise<User[]> {
    const names = await this.#deps.records.list("name/", `name/${after}`, limit);
    const users = await Promise.all(names.map(({ value }) => this.user(value)));
    // One may have been removed since its name was read.
    return users.filter((user) => user !== undefined);
  }

  /** Adds a user. The first one is an administrator whatever its roles are.
   *  @throws {AuthError} `userExists`, `tooManyUsers`; `noCaller` when it had to be the first and is not. */
  async createUser(
    user: Pick<User, "username" | "roles" | "grants" | "passwordHash">,
    options: { readonly mustBeFirst: boolean },
  ): Promise<User> {
    const id = formatGuuid(this.#deps.guuids.next());
    const now = this.#deps.clock.wallMs();
    return await this.#attempt(async () => {
      const [counts, countsVersion] = await this.#counts();
      if (options.mustBeFirst && counts.users > 0) throw new AuthError("noCaller", "there are users now");
      if (await this.#deps.records.get(`name/${user.username}`) !== undefined) {
        throw new AuthError("userExists");
      }
      if (counts.users >= this.#deps.limits.usersMax) throw new AuthError("tooManyUsers");
      const created: User = {
        id,
        username: user.username,
        roles: counts.users === 0 ? [ADMIN, ...user.roles.filter((role) => role !== ADMIN)] : user.roles,
        grants: user.grants,
        isDisabled: false,
        passwordHash: user.passwordHash,
        createdAtMs: now,
        passwordChangedAtMs: now,
        lastLoginAtMs: 0,
        keyEpoch: 0,
        keys: 0,
      };
      return {
        changes: [
          countsChange(countsVersion, counts, undefined, created),
          { key: `name/${user.username}`, version: 0, value: id },
          { key: `user/${id}`, version: 0, value: JSON.stringify(created) },
        ],
        result: created,
      };
    });
  }

  /** Replaces a user by what `change` makes of it; `change` may be called again. Undefined leaves it. Resolves to the user
   *  as it is then, undefined when there is none.
   *  @throws {AuthError} `lastAdmin`; what `change` throws. */
  async updateUser(id: string, change: (user: User) => User | undefined): Promise<User | undefined> {
    return await this.#attempt<User | undefined>(async () => {
      const record = await this.#deps.records.get(`user/${id}`);
      const user = this.#read<User>(record);
      if (record === undefined || user === undefined) return { changes: [], result: undefined };
      const changed = change(user);
      if (changed === undefined) return { changes: [], result: user };
      const changes: RecordChange[] = [
        { key: record.key, version: record.version, value: JSON.stringify(changed) },
      ];
      if (isEnabledAdmin(user) !== isEnabledAdmin(changed)) {
        const [counts, version] = await this.#counts();
        changes.push(countsChange(version, counts, user, changed));
      }
      return { changes, result: changed };
    });
  }

  /** Removes a user; the one that was there. Its keys are good for nothing from then on.
   *  @throws {AuthError} `lastAdmin` */
  async removeUser(id: string): Promise<User | undefined> {
    return await this.#attempt<User | undefined>(async () => {
      const [record, [counts, version]] = [await this.#deps.records.get(`user/${id}`), await this.#counts()];
      const user = this.#read<User>(record);
      if (record === undefined || user === undefined) return { changes: [], result: undefined };
      const name = await this.#deps.records.get(`name/${user.username}`);
      return {
        changes: [
          { key: record.key, version: record.version, value: null },
          ...(name === undefined ? [] : [{ key: name.key, version: name.version, value: null }]),
          countsChange(version, counts, user, undefined),
        ],
        result: user,
      };
    });
  }

  /** The key of an id. Whether it is good is `isLive`'s to say. */
  async key(id: string): Promise<ApiKey | undefined> {
    return this.#read<ApiKey>(await this.#deps.records.get(`key/${id}`));
  }

  /** The keys of a user that were not revoked, oldest first, those that have run out included. */
  async keysOf(user: User): Promise<ApiKey[]> {
    const found: ApiKey[] = [];
    for (const id of await this.#ownedIds(user.id)) {
      const key = await this.key(id);
      if (key !== undefined && key.keyEpoch === user.keyEpoch) found.push(key);
    }
    return found;
  }

  /** Adds a key. `isAllowed` is asked after the user was read, and the user must be the same when the key is kept: so
   *  nobody makes a key after having been cut off.
   *  @throws {AuthError} `tooManyKeys`; `badCredential` when the user is gone or disabled; what `isAllowed` throws. */
  async createKey(
    userId: string,
    key: Pick<ApiKey, "id" | "name" | "secretHash" | "scopes" | "expiresAtMs">,
    isAllowed: () => Promise<void>,
  ): Promise<ApiKey> {
    return await this.#attempt(async () => {
      const record = await this.#deps.records.get(`user/${userId}`);
      const user = this.#read<User>(record);
      if (record === undefined || user === undefined || user.isDisabled) throw new AuthError("badCredential");
      await isAllowed();
      if (user.keys >= this.#deps.limits.keysPerUserMax) throw new AuthError("tooManyKeys");
      const created: ApiKey = {
        ...key,
        userId,
        createdAtMs: this.#deps.clock.wallMs(),
        lastUsedAtMs: 0,
        keyEpoch: user.keyEpoch,
      };
      return {
        changes: [
          {
            key: record.key,
            version: record.version,
            value: JSON.stringify({ ...user, keys: user.keys + 1 }),
          },
          { key: `key/${key.id}`, version: 0, value: JSON.stringify(created) },
          { key: `owned/${userId}/${key.id}`, version: 0, value: "" },
        ],
        result: created,
      };
    });
  }

  /** Notes that a key was used. Loses against any other change of the key: it is for people. */
  async touchKey(id: string, nowMs: number): Promise<void> {
    const record = await this.#deps.records.get(`key/${id}`);
    const key = this.#read<ApiKey>(record);
    if (record === undefined || key === undefined) return;
    const value = JSON.stringify({ ...key, lastUsedAtMs: nowMs });
    await this.#deps.records.commit([{ key: record.key, version: record.version, value }]);
  }

  /** Removes a key; whether there was one. */
  async removeKey(id: string): Promise<boolean> {
    return await this.#attempt(async () => {
      const record = await this.#deps.records.get(`key/${id}`);
      const key = this.#read<ApiKey>(record);
      if (record === undefined || key === undefined) return { changes: [], result: false };
      const changes: RecordChange[] = [{ key: record.key, version: record.version, value: null }];
      const owned = await this.#deps.records.get(`owned/${key.userId}/${id}`);
      if (owned !== undefined) changes.push({ key: owned.key, version: owned.version, value: null });
      const userRecord = await this.#deps.records.get(`user/${key.userId}`);
      const user = this.#read<User>(userRecord);
      if (userRecord !== undefined && user !== undefined && user.keyEpoch === key.keyEpoch) {
        const value = JSON.stringify({ ...user, keys: user.keys - 1 });
        changes.push({ key: userRecord.key, version: userRecord.version, value });
      }
      return { changes, result: true };
    });
  }

  /** Ends all keys of a user, in one step; how many there were. */
  async revokeKeys(userId: string): Promise<number> {
    let ended = 0;
    await this.updateUser(userId, (user) => {
      ended = user.keys;
      return { ...user, keyEpoch: user.keyEpoch + 1, keys: 0 };
    });
    await this.forgetKeys(userId);
    return ended;
  }

  /** Removes the keys of a user that are good for nothing any more. */
  async forgetKeys(userId: string): Promise<void> {
    const user = await this.user(userId);
    for (const id of await this.#ownedIds(userId)) {
      const key = await this.key(id);
      if (key === undefined || key.keyEpoch !== user?.keyEpoch) await this.removeKey(id);
    }
  }

  async #ownedIds(userId: string): Promise<string[]> {
    const prefix = `owned/${userId}/`;
    const ids: string[] = [];
    for (let after = prefix;;) {
      const page = await this.#deps.records.list(prefix, after, LIST_MAX);
      for (const { key } of page) ids.push(key.slice(prefix.length));
      if (page.length < LIST_MAX) return ids;
      after = page.at(-1)!.key;
    }
  }

  async #counts(): Promise<[Counts, version: number]> {
    const record = await this.#deps.records.get("counts");
    return [this.#read<Counts>(record) ?? NO_COUNTS, record?.version ?? 0];
  }

  async #attempt<T>(plan: () => Promise<{ changes: readonly RecordChange[]; result: T }>): Promise<T> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const { changes, result } = await plan();
      if (changes.length === 0 || await this.#deps.records.commit(changes)) return result;
    }
    throw new AuthError("conflict", undefined, { retryAfterS: 1 });
  }

  #read<T>(record: StoredRecord | undefined): T | undefined {
    if (record === undefined) return undefined;
    let value = this.#parsed.get(record);
    if (value === undefined) this.#parsed.set(record, value = JSON.parse(record.value));
    return value as T;
  }
}

/** Whether a key is good at `nowMs` for its user as that is now. */
export function isLive(key: ApiKey, user: User | undefined, nowMs: number): boolean {
  return user !== undefined && !user.isDisabled && key.keyEpoch === user.keyEpoch &&
    (key.expiresAtMs === 0 || nowMs < key.expiresAtMs);
}

function isEnabledAdmin(user: User | undefined): boolean {
  return user !== undefined && !user.isDisabled && user.roles.includes(ADMIN);
}

/** @throws {AuthError} `lastAdmin` when there were users and no administrator among them. */
function countsChange(
  version: number,
  counts: Counts,
  before: User | undefined,
  after: User | undefined,
): RecordChange {
  const changed: Counts = {
    users: counts.users + Number(after !== undefined) - Number(before !== undefined),
    admins: counts.admins + Number(isEnabledAdmin(after)) - Number(isEnabledAdmin(before)),
  };
  if (isEnabledAdmin(before) && changed.admins === 0) throw new AuthError("lastAdmin");
  return { key: "counts", version, value: JSON.stringify(changed) };
}
