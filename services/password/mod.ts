/** The password service, wired. */
import type { ServiceImpl } from "@connectrpc/connect";
import type { PasswordService } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { wasmArgon2id } from "./argon2id.ts";
import { type HasherDeps, PasswordHasher } from "./hasher.ts";
import { createPasswordHandlers } from "./rpc.ts";

/** The wired service. */
export interface PasswordModule {
  readonly hasher: PasswordHasher;
  readonly handlers: ServiceImpl<typeof PasswordService>;
}

/** Wires the service. `argon2id` is WebAssembly's when left out. */
export function createPasswordModule(
  deps: Omit<HasherDeps, "argon2id"> & Partial<Pick<HasherDeps, "argon2id">>,
): PasswordModule {
  const hasher = new PasswordHasher({ argon2id: wasmArgon2id, ...deps });
  return { hasher, handlers: createPasswordHandlers(hasher) };
}
