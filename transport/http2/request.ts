/** The head of a request: RFC 9113 §8.3.1. */
import { checkFields, isPseudo, MALFORMED, valueOf } from "./fields.ts";

/** A request's head. One object may stand for many requests that say the same; its fields never change. */
export class RequestHead {
  /** Room for what its reader makes of it, once for all requests that share it. */
  memo: unknown = undefined;

  constructor(
    readonly method: string,
    /** "" for CONNECT. */
    readonly scheme: string,
    /** Path and query; "" for CONNECT. */
    readonly path: string,
    /** "" when the request names none. */
    readonly authority: string,
    /** Name, value, name, value … without pseudo-header fields. */
    readonly fields: readonly string[],
    /** Bytes that `content-length` announces; -1 without it. */
    readonly contentLength: number,
  ) {}

  /** The first value of a field, by its lower-case name. */
  get(name: string): string | undefined {
    return valueOf(this.fields, name);
  }
}

/** Makes the head of decoded fields; undefined when they are malformed (RFC 9113 §8.1.1). */
export function readHead(fields: readonly string[]): RequestHead | undefined {
  let method: string | undefined;
  let scheme: string | undefined;
  let path: string | undefined;
  let authority: string | undefined;
  let at = 0;
  for (; at < fields.length && isPseudo(fields[at]!); at += 2) {
    const value = fields[at + 1]!;
    switch (fields[at]) {
      case ":method":
        if (method !== undefined) return undefined;
        method = value;
        break;
      case ":scheme":
        if (scheme !== undefined) return undefined;
        scheme = value;
        break;
      case ":path":
        if (path !== undefined) return undefined;
        path = value;
        break;
      case ":authority":
        if (authority !== undefined) return undefined;
        authority = value;
        break;
      default:
        return undefined;
    }
  }
  if (method === undefined || method === "") return undefined;
  if (method === "CONNECT") {
    if (scheme !== undefined || path !== undefined || authority === undefined) return undefined;
  } else if (scheme === undefined || path === undefined || !isPath(path, method)) return undefined;
  const rest = fields.slice(at);
  const contentLength = checkFields(rest);
  if (contentLength === MALFORMED) return undefined;
  return new RequestHead(method, scheme ?? "", path ?? "", authority ?? "", rest, contentLength);
}

function isPath(path: string, method: string): boolean {
  return path.charCodeAt(0) === 0x2f || (path === "*" && method === "OPTIONS");
}
