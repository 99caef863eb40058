/** One HTTP request under way: what the gateway needs of it, read once. */
import type { Policy } from "./limits/token_bucket.ts";
import type { RouteMatch } from "./routes.ts";
import type { Caller, Client, RequestTrace } from "./stages.ts";

/** Facts of a request and, as they become known, of its answer. */
export interface Exchange {
  readonly method: string;
  /** Path as it was sent: still encoded, nothing normalised. */
  readonly path: string;
  /** Query string without `?`; "" when there is none. */
  readonly query: string;
  /** Length of the request target, in characters. */
  readonly urlLength: number;
  /** Sum of the lengths of header names and values. */
  readonly headerBytes: number;
  /** Authority the request is for, and the one in the request line if it is another (`GET http://other/`). */
  readonly host: string;
  readonly targetHost: string;
  readonly origin: string | undefined;
  /** Undefined when the body is chunked or there is none. */
  readonly contentLength: number | undefined;
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly lastEventId: string | undefined;
  readonly ttl: string | undefined;
  readonly traceparent: string | undefined;
  /** What shows who the client is, for the service to judge: etcd's clients use either name. */
  readonly authorization: string | undefined;
  readonly token: string | undefined;
  /** `X-API-Key`. */
  readonly apiKey: string | undefined;
  readonly cookie: string | undefined;
  readonly idempotencyKey: string | undefined;
  /** All headers, for what few requests need. */
  readonly headers: Headers;
  readonly requestId: string;
  /** Monotonic milliseconds. */
  readonly startedAtMs: number;
  readonly deadlineAtMs: number;
  match: RouteMatch | undefined;
  client: Client;
  /** Undefined until it is known. */
  caller: Caller | undefined;
  trace: RequestTrace | undefined;
  /** The rate limit that is nearest to its end, and the requests it still lets pass. */
  limit: Policy | undefined;
  limitLeft: number;
  /** Fields that the answer gets besides its own, whatever it is. */
  answerHeaders: [name: string, value: string][] | undefined;
  requestBytes: number;
  responseBytes: number;
  /** Ends the calls of a request whose client goes; only where calls may wait long. */
  signal: AbortSignal | undefined;
  /** Status of an error that is told in an answer whose own status is 200, as streams and gRPC-Web have it. */
  errorStatus: number | undefined;
}

/** A request id that may go into logs and to other services. */
export const REQUEST_ID = /^[A-Za-z0-9._~-]{1,128}$/;
/** A `traceparent` header (W3C Trace Context). */
export const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
const CONTENT_LENGTH = /^\d{1,15}$/;

const NO_CLIENT: Client = { ip: "", port: 0, isSecure: false };

/** Reads a request. `newRequestId` is asked when the client names none, or one that is not well-formed: an id goes into
 *  logs and other services, where it must not be able to do harm. */
export function readExchange(
  request: Request,
  nowMs: number,
  timeoutMs: number,
  newRequestId: () => string,
): Exchange {
  let headerBytes = 0;
  let host: string | undefined, origin: string | undefined, contentLength: string | undefined;
  let ifMatch: string | undefined, ifNoneMatch: string | undefined, lastEventId: string | undefined;
  let traceparent: string | undefined, requestId: string | undefined;
  let authorization: string | undefined, token: string | undefined, ttl: string | undefined;
  let cookie: string | undefined, idempotencyKey: string | undefined, apiKey: string | undefined;
  for (const [name, value] of request.headers) {
    headerBytes += name.length + value.length;
    switch (name) {
      case "host":
        host = value;
        break;
      case "origin":
        origin = value;
        break;
      case "content-length":
        contentLength = value;
        break;
      case "if-match":
        ifMatch = value;
        break;
      case "if-none-match":
        ifNoneMatch = value;
        break;
      case "last-event-id":
        lastEventId = value;
        break;
      case "ttl":
        ttl = value;
        break;
      case "traceparent":
        traceparent = value;
        break;
      case "authorization":
        authorization = value;
        break;
      case "token":
        token = value;
        break;
      case "x-api-key":
        apiKey = value;
        break;
      case "cookie":
        cookie = value;
        break;
      case "idempotency-key":
        idempotencyKey = value;
        break;
      case "x-request-id":
        requestId = value;
        break;
    }
  }

  // Not `new URL`: it would resolve "..", and a key may hold any octets. The scheme is http or https; with a
  // malformed Host the split may be wrong, but such a request is refused for its Host.
  const { url } = request;
  const authorityAt = url.indexOf("://") + 3;
  const slash = url.indexOf("/", authorityAt);
  const pathAt = slash < 0 ? url.length : slash;
  const queryAt = url.indexOf("?", pathAt);
  const targetHost = url.slice(authorityAt, pathAt);
  return {
    method: request.method,
    path: (queryAt < 0 ? url.slice(pathAt) : url.slice(pathAt, queryAt)) || "/",
    query: queryAt < 0 ? "" : url.slice(queryAt + 1),
    urlLength: url.length - pathAt,
    headerBytes,
    host: host ?? targetHost,
    targetHost,
    origin,
    contentLength: contentLength !== undefined && CONTENT_LENGTH.test(contentLength)
      ? Number(contentLength)
      : undefined,
    ifMatch,
    ifNoneMatch,
    lastEventId,
    ttl,
    traceparent: traceparent !== undefined && TRACEPARENT.test(traceparent) ? traceparent : undefined,
    authorization,
    token,
    apiKey,
    cookie,
    idempotencyKey,
    headers: request.headers,
    requestId: requestId !== undefined && REQUEST_ID.test(requestId) ? requestId : newRequestId(),
    startedAtMs: nowMs,
    deadlineAtMs: nowMs + timeoutMs,
    match: undefined,
    client: NO_CLIENT,
    caller: undefined,
    trace: undefined,
    limit: undefined,
    limitLeft: 0,
    answerHeaders: undefined,
    requestBytes: 0,
    responseBytes: 0,
    signal: undefined,
    errorStatus: undefined,
  };
}
