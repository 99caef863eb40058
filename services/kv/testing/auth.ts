/** Users and roles for tests: without a log, and without the cost of hashing. */
import { Permission_Type, PermissionSchema } from "$proto/authpb/auth_pb.ts";
import { create } from "@bufbuild/protobuf";
import { AuthStore, ROOT } from "../auth/auth.ts";
import type { PasswordHasher } from "../auth/passwords.ts";
import type { WriteLog } from "../txn.ts";

const encoder = new TextEncoder();

/** A log that hands entries back at once. Nothing else may be written to it. */
export function directLog(auth: AuthStore): WriteLog {
  const unexpected = () => {
    throw new Error("users and roles are named entries");
  };
  return {
    put: unexpected,
    touch: unexpected,
    delete: unexpected,
    deleteRange: unexpected,
    meta: (name, value) => auth.load(name, value),
  };
}

/** A store of users with authentication enabled and one user, root. */
export function enabledAuth(): { readonly auth: AuthStore; readonly log: WriteLog } {
  const auth = new AuthStore();
  const log = directLog(auth);
  auth.addUser(log, ROOT, encoder.encode("hash of root"));
  auth.grantRole(log, ROOT, ROOT);
  auth.enable(log);
  return { auth, log };
}

/** A permission by words: `read a`, `write a c`, `readwrite a \0`. */
export function permission(words: string) {
  const [type, key = "", rangeEnd = ""] = words.split(" ");
  const permType = Permission_Type[type!.toUpperCase() as keyof typeof Permission_Type];
  return create(PermissionSchema, { permType, key: encoder.encode(key), rangeEnd: encoder.encode(rangeEnd) });
}

/** A hasher that costs nothing and keeps passwords readable. */
export function plainHasher(): PasswordHasher {
  let salt = 0;
  return {
    hash: (password) => Promise.resolve(encoder.encode(`${++salt}:${password}`)),
    verify: (password, hash) =>
      Promise.resolve(hash !== undefined && new TextDecoder().decode(hash).replace(/^\d+:/, "") === password),
  };
}
