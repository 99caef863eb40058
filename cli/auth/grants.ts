/** Rights on the command line: `service`, `service:prefix`, and `service:prefix:w` where there is no other place for it. */
import { usageError } from "./client.ts";

/** A right, as the server's JSON has it. */
export interface Grant {
  readonly service: string;
  readonly prefix?: string;
  readonly write?: boolean;
}

/** Reads `kv`, `kv:orders/` or, to write too, `kv:orders/:w`. @throws {ApiError} */
export function grantOf(text: string): Grant {
  const match = /^([a-z*]+)(?::(.*?))?(:w)?$/s.exec(text);
  if (match === null) {
    throw usageError(`a right is written service:prefix, or service:prefix:w to write too, not ${text}`);
  }
  return { service: match[1]!, prefix: match[2] ?? "", write: match[3] !== undefined };
}

/** A right for people. */
export function describeGrant({ service, prefix = "", write = false }: Grant): string {
  return `${service}:${prefix}${write ? ":w" : ""}`;
}
