/** What users and keys may do: checking it, and cutting it down to what two of them have in common. */
import { AuthError } from "./errors.ts";

/** A right to one service's things under a prefix. */
export interface Grant {
  /** One of GRANT_SERVICES. */
  readonly service: string;
  /** Of keys or document ids; empty is all of them. */
  readonly prefix: string;
  readonly write: boolean;
}

/** Services that rights are given for. */
export const GRANT_SERVICES = ["kv", "documents", "queue", "sessions", "*"] as const;
/** Roles that there are. */
export const ROLES = ["admin", "member"] as const;

/** Rights of one user or key: they travel with every request. */
export const GRANTS_MAX = 32;
/** Bytes of one prefix. */
export const PREFIX_BYTES_MAX = 1_024;
/** Bytes of all prefixes of one user or key. A principal is one metadata value, of at most 64 KiB in base64. */
export const PREFIXES_BYTES_MAX = 8_192;
/** Rights that a key and its user may have in common; what lies beyond is not given. */
const COMMON_MAX = 64;

const encoder = new TextEncoder();

/** Checked rights, without those that another one includes.
 *  @throws {AuthError} `invalid` that names the first that is wrong. */
export function checkGrants(
  grants: readonly { service: string; prefix: string; write: boolean }[],
  what: string,
): Grant[] {
  if (grants.length > GRANTS_MAX) {
    throw new AuthError("invalid", `${what} has ${grants.length} entries, expected at most ${GRANTS_MAX}`);
  }
  let bytes = 0;
  for (const { service, prefix } of grants) {
    if (!(GRANT_SERVICES as readonly string[]).includes(service)) {
      throw new AuthError(
        "invalid",
        `${what}.service is "${service.slice(0, 64)}", expected one of ${GRANT_SERVICES.join(", ")}`,
      );
    }
    const length = encoder.encode(prefix).length;
    if (length > PREFIX_BYTES_MAX) {
      throw new AuthError(
        "invalid",
        `${what}.prefix has ${length} bytes, expected at most ${PREFIX_BYTES_MAX}`,
      );
    }
    bytes += length;
  }
  if (bytes > PREFIXES_BYTES_MAX) {
    throw new AuthError(
      "invalid",
      `all prefixes of ${what} have ${bytes} bytes, expected at most ${PREFIXES_BYTES_MAX}`,
    );
  }
  return withoutIncluded(grants.map(({ service, prefix, write }) => ({ service, prefix, write })));
}

/** Checked roles, each once; `fallback` when there are none. @throws {AuthError} `invalid` */
export function checkRoles(roles: readonly string[], fallback: string): string[] {
  for (const role of roles) {
    if (!(ROLES as readonly string[]).includes(role)) {
      throw new AuthError("invalid", `role is "${role.slice(0, 64)}", expected one of ${ROLES.join(", ")}`);
    }
  }
  return roles.length === 0 ? [fallback] : ROLES.filter((role) => roles.includes(role));
}

/** What both allow. */
export function commonGrants(a: readonly Grant[], b: readonly Grant[]): Grant[] {
  const common: Grant[] = [];
  for (const one of a) {
    for (const other of b) {
      const service = narrower(one.service, other.service);
      const prefix = longer(one.prefix, other.prefix);
      if (service === undefined || prefix === undefined) continue;
      common.push({ service, prefix, write: one.write && other.write });
    }
  }
  return withoutIncluded(common).slice(0, COMMON_MAX);
}

function narrower(a: string, b: string): string | undefined {
  if (a === b || b === "*") return a;
  return a === "*" ? b : undefined;
}

function longer(a: string, b: string): string | undefined {
  if (a.startsWith(b)) return a;
  return b.startsWith(a) ? b : undefined;
}

function withoutIncluded(grants: readonly Grant[]): Grant[] {
  return grants.filter((grant, i) =>
    !grants.some((other, j) => i !== j && includes(other, grant) && (j < i || !includes(grant, other)))
  );
}

function includes(wide: Grant, narrow: Grant): boolean {
  return (wide.service === "*" || wide.service === narrow.service) && narrow.prefix.startsWith(wide.prefix) &&
    (wide.write || !narrow.write);
}
