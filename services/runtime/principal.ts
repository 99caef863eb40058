/** Who calls, as it travels from a gateway to a service: metadata that only workers of this product can send, since
 *  gateways pass on none of that name from their clients. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { base64Decode, base64Encode } from "@bufbuild/protobuf/wire";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";

/** Name of the metadata. */
export const PRINCIPAL_METADATA = "x-aetherflow-principal";

/** Role that may do everything. */
export const ADMIN = "admin";

/** The principal as metadata. */
export function encodePrincipal(principal: Principal): string {
  return base64Encode(toBinary(PrincipalSchema, principal), "url");
}

/** The principal of a call. One without is a worker's own, which may do everything: undefined.
 *  @throws {Error} for metadata that no gateway sends. */
export function principalOf(metadata: { get(name: string): string | null }): Principal | undefined {
  const encoded = metadata.get(PRINCIPAL_METADATA);
  return encoded === null ? undefined : fromBinary(PrincipalSchema, base64Decode(encoded));
}

/** Anybody on this machine, while there are no users. */
export const DEVELOPER: Principal = create(PrincipalSchema, {
  kind: Principal_Kind.DEVELOPER,
  username: "dev",
  roles: [ADMIN],
});

/** What the names of keys begin with that workers keep in the key-value store for themselves. */
export const SYSTEM_KEYS = "\0aetherflow/";

/** A worker on its own behalf, which may use `SYSTEM_KEYS` and nothing else. */
export const SYSTEM: Principal = create(PrincipalSchema, { kind: Principal_Kind.SYSTEM, username: "system" });

/** Nobody. */
export const ANONYMOUS: Principal = create(PrincipalSchema, { kind: Principal_Kind.ANONYMOUS });

/** Whether a caller may do everything. */
export function isAdmin(principal: Principal | undefined): boolean {
  return principal === undefined || principal.roles.includes(ADMIN);
}

/** Whether a caller may read, or write, what is called `name` among a service's things. */
export function mayUse(
  principal: Principal | undefined,
  service: string,
  name: string,
  isWrite: boolean,
): boolean {
  return isAdmin(principal) ||
    principal!.grants.some((grant) =>
      (grant.service === service || grant.service === "*") && (grant.write || !isWrite) &&
      name.startsWith(grant.prefix)
    );
}
