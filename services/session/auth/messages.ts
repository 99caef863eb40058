/** Users and keys as the wire has them. */
import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ApiKey as ApiKeyMessage,
  ApiKeySchema,
  type User as UserMessage,
  UserSchema,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { ApiKey, User } from "./accounts.ts";

/** A user; nothing of the password but when it was set. */
export function userMessage(user: User): UserMessage {
  return create(UserSchema, {
    userId: user.id,
    username: user.username,
    roles: [...user.roles],
    grants: [...user.grants],
    disabled: user.isDisabled,
    createdAt: timestampFromMs(user.createdAtMs),
    passwordChangedAt: timestampFromMs(user.passwordChangedAtMs),
    ...unlessZero("lastLoginAt", user.lastLoginAtMs),
  });
}

/** A key; nothing of its secret. */
export function keyMessage(key: ApiKey, username: string): ApiKeyMessage {
  return create(ApiKeySchema, {
    keyId: key.id,
    username,
    name: key.name,
    scopes: [...key.scopes],
    createdAt: timestampFromMs(key.createdAtMs),
    ...unlessZero("expiresAt", key.expiresAtMs),
    ...unlessZero("lastUsedAt", key.lastUsedAtMs),
  });
}

function unlessZero<K extends string>(field: K, ms: number): { [Field in K]?: Timestamp } {
  return (ms === 0 ? {} : { [field]: timestampFromMs(ms) }) as { [Field in K]?: Timestamp };
}
