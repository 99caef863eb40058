/** The head of a request: RFC 9113 §8.3. */

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
    const { fields } = this;
    for (let i = 0; i < fields.length; i += 2) if (fields[i] === name) return fields[i + 1];
    return undefined;
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

/** True when fields may stand behind a body: no pseudo-header among them (RFC 9113 §8.1). */
export function areTrailers(fields: readonly string[]): boolean {
  for (let i = 0; i < fields.length; i += 2) if (isPseudo(fields[i]!)) return false;
  return true;
}

const NONE = -1;
const MALFORMED = -2;

/** Content length of the regular fields, NONE or MALFORMED. */
function checkFields(fields: readonly string[]): number {
  let contentLength = NONE;
  for (let i = 0; i < fields.length; i += 2) {
    const value = fields[i + 1]!;
    switch (fields[i]) {
      case "connection":
      case "proxy-connection":
      case "keep-alive":
      case "transfer-encoding":
      case "upgrade":
        return MALFORMED;
      case "te":
        if (value !== "trailers") return MALFORMED;
        break;
      case "content-length": {
        // At most a million gigabytes: what a number holds exactly.
        const length = /^\d{1,15}$/.test(value) ? Number(value) : MALFORMED;
        if (length === MALFORMED || (contentLength !== NONE && contentLength !== length)) return MALFORMED;
        contentLength = length;
        break;
      }
      default:
        if (isPseudo(fields[i]!)) return MALFORMED;
    }
  }
  return contentLength;
}

function isPseudo(name: string): boolean {
  return name.charCodeAt(0) === 0x3a;
}

function isPath(path: string, method: string): boolean {
  return path.charCodeAt(0) === 0x2f || (path === "*" && method === "OPTIONS");
}
