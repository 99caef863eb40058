/** Errors at the HTTP edge: one table from code to HTTP status, and the two bodies they are sent as. */
import { Code, ConnectError } from "@connectrpc/connect";

/** One row: what a code is over HTTP. */
interface Row {
  readonly status: number;
  readonly title: string;
  /** The same over gRPC, for etcd's JSON paths. */
  readonly grpc: Code;
  /** Seconds for Retry-After; absent when repeating the same request does not help. */
  readonly retryAfterS?: number;
}

/** Every `code` of a problem body. The first part are gRPC's; the second are the gateway's own. */
const TABLE = {
  canceled: { status: 499, title: "The client closed the request", grpc: Code.Canceled },
  unknown: { status: 500, title: "Unknown error", grpc: Code.Unknown },
  invalid_argument: { status: 400, title: "Invalid argument", grpc: Code.InvalidArgument },
  deadline_exceeded: { status: 504, title: "Deadline exceeded", grpc: Code.DeadlineExceeded },
  not_found: { status: 404, title: "Not found", grpc: Code.NotFound },
  already_exists: { status: 409, title: "Already exists", grpc: Code.AlreadyExists },
  permission_denied: { status: 403, title: "Permission denied", grpc: Code.PermissionDenied },
  resource_exhausted: {
    status: 429,
    title: "Resource exhausted",
    grpc: Code.ResourceExhausted,
    retryAfterS: 1,
  },
  failed_precondition: { status: 409, title: "Failed precondition", grpc: Code.FailedPrecondition },
  aborted: { status: 409, title: "Aborted", grpc: Code.Aborted },
  // Not 416, which speaks of byte ranges of a representation.
  out_of_range: { status: 400, title: "Out of range", grpc: Code.OutOfRange },
  unimplemented: { status: 501, title: "Not implemented", grpc: Code.Unimplemented },
  internal: { status: 500, title: "Internal error", grpc: Code.Internal },
  unavailable: { status: 503, title: "Service unavailable", grpc: Code.Unavailable, retryAfterS: 1 },
  data_loss: { status: 500, title: "Data loss", grpc: Code.DataLoss },
  unauthenticated: { status: 401, title: "Unauthenticated", grpc: Code.Unauthenticated },

  malformed_host: { status: 400, title: "Malformed Host", grpc: Code.InvalidArgument },
  route_not_found: { status: 404, title: "No such path", grpc: Code.NotFound },
  method_not_allowed: { status: 405, title: "Method not allowed", grpc: Code.Unimplemented },
  foreign_host: { status: 403, title: "Refused in protected mode", grpc: Code.PermissionDenied },
  foreign_origin: { status: 403, title: "Refused in protected mode", grpc: Code.PermissionDenied },
  request_timeout: { status: 408, title: "Request timeout", grpc: Code.DeadlineExceeded },
  precondition_failed: { status: 412, title: "Precondition failed", grpc: Code.FailedPrecondition },
  unsupported_media_type: { status: 415, title: "Unsupported media type", grpc: Code.Unknown },
  unsupported_encoding: { status: 415, title: "Unsupported encoding", grpc: Code.Unimplemented },
  // A client's mistake that gRPC and the Connect protocol call `internal`.
  malformed_message: { status: 400, title: "Malformed message", grpc: Code.Internal },
  body_too_large: { status: 413, title: "Body too large", grpc: Code.ResourceExhausted },
  url_too_long: { status: 414, title: "URL too long", grpc: Code.InvalidArgument },
  headers_too_large: { status: 431, title: "Headers too large", grpc: Code.InvalidArgument },
  rate_limited: { status: 429, title: "Too many requests", grpc: Code.ResourceExhausted, retryAfterS: 1 },
  csrf_refused: { status: 403, title: "Refused cross-site request", grpc: Code.PermissionDenied },
  idempotency_mismatch: {
    status: 422,
    title: "Idempotency-Key was used for another request",
    grpc: Code.InvalidArgument,
  },
  idempotency_running: {
    status: 409,
    title: "The first request with this Idempotency-Key is still running",
    grpc: Code.Aborted,
    retryAfterS: 1,
  },
  breaker_open: {
    status: 503,
    title: "Service left alone after failures",
    grpc: Code.Unavailable,
    retryAfterS: 1,
  },
  too_many_requests: {
    status: 503,
    title: "Too many requests at once",
    grpc: Code.Unavailable,
    retryAfterS: 1,
  },
  too_many_streams: {
    status: 503,
    title: "Too many streams at once",
    grpc: Code.Unavailable,
    retryAfterS: 5,
  },
} as const satisfies Record<string, Row>;

/** Value of `code` in a problem body. */
export type ProblemCode = keyof typeof TABLE;

/** Every code, for the OpenAPI document. */
export const PROBLEM_CODES = Object.keys(TABLE) as ProblemCode[];

/** HTTP status of a code. */
export function statusOfProblem(code: ProblemCode): number {
  return TABLE[code].status;
}

/** The names of gRPC codes, by number. */
export const CODE_NAMES: Readonly<Record<Code, ProblemCode>> = {
  [Code.Canceled]: "canceled",
  [Code.Unknown]: "unknown",
  [Code.InvalidArgument]: "invalid_argument",
  [Code.DeadlineExceeded]: "deadline_exceeded",
  [Code.NotFound]: "not_found",
  [Code.AlreadyExists]: "already_exists",
  [Code.PermissionDenied]: "permission_denied",
  [Code.ResourceExhausted]: "resource_exhausted",
  [Code.FailedPrecondition]: "failed_precondition",
  [Code.Aborted]: "aborted",
  [Code.OutOfRange]: "out_of_range",
  [Code.Unimplemented]: "unimplemented",
  [Code.Internal]: "internal",
  [Code.Unavailable]: "unavailable",
  [Code.DataLoss]: "data_loss",
  [Code.Unauthenticated]: "unauthenticated",
};

/** Why the gateway does not do what was asked. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  /** `allow` is the value of the Allow header of a 405, `challenge` that of WWW-Authenticate,
   *  `retryAfterS` that of Retry-After where it is known better than by the table. */
  constructor(
    readonly code: ProblemCode,
    message: string,
    options?: ErrorOptions & { allow?: string; challenge?: string; retryAfterS?: number },
  ) {
    super(message, options);
    this.allow = options?.allow;
    this.challenge = options?.challenge;
    this.retryAfterS = options?.retryAfterS ?? (TABLE[code] as Row).retryAfterS;
  }
  readonly allow: string | undefined;
  readonly challenge: string | undefined;
  /** Seconds for Retry-After, or undefined. */
  readonly retryAfterS: number | undefined;

  /** HTTP status of the code. */
  get status(): number {
    return TABLE[this.code].status;
  }

  /** Number of the gRPC code. */
  get grpcCode(): Code {
    return TABLE[this.code].grpc;
  }

  /** True when it tells of trouble on our side, which is worth a line in the log. */
  get isFault(): boolean {
    return this.status === 500;
  }
}

/** What a service said, as the gateway says it. `failedCondition`: what it says when the If-Match or If-None-Match of the
 *  request did not hold. Text of faults stays in the log: it may tell of our insides. */
export function fromServiceError(error: unknown, failedCondition?: Code): GatewayError {
  if (error instanceof GatewayError) return error;
  if (!(error instanceof ConnectError)) {
    return new GatewayError("internal", "the gateway failed; its log has the cause under this request id", {
      cause: error,
    });
  }
  if (error.code === failedCondition) {
    return new GatewayError("precondition_failed", error.rawMessage, { cause: error });
  }
  const code = CODE_NAMES[error.code];
  // `unknown` is a service's own word, as of etcd's recipes; what a service did not mean to say is `internal`.
  if (error.code === Code.Internal) {
    return new GatewayError(code, "the service failed; the log has the cause under this request id", {
      cause: error,
    });
  }
  const retryAfterS = Number(error.metadata.get("retry-after") ?? NaN);
  return new GatewayError(code, error.rawMessage, {
    cause: error,
    // Where the service knows better than the table, as for a name that was guessed at too often.
    ...(Number.isSafeInteger(retryAfterS) && retryAfterS > 0 ? { retryAfterS } : {}),
  });
}

/** Body of an error, RFC 9457. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ProblemCode;
  readonly requestId: string;
}

/** The problem body of an error. */
export function problemOf(error: GatewayError, requestId: string): Problem {
  const row = TABLE[error.code];
  return {
    type: `urn:aetherflow:problem:${error.code}`,
    title: row.title,
    status: row.status,
    detail: error.message,
    code: error.code,
    requestId,
  };
}

/** google.rpc.Status as etcd's JSON gateway sends it. */
export interface RpcStatus {
  readonly code: number;
  readonly message: string;
  readonly details: readonly unknown[];
}

/** The status body of an error. */
export function rpcStatusOf(error: GatewayError): RpcStatus {
  return { code: error.grpcCode, message: error.message, details: [] };
}

// On etcd's paths clients look at the statuses that etcd's own gateway uses for the gRPC code.
const ETCD_STATUS: Partial<Record<ProblemCode, number>> = { failed_precondition: 400 };

/** The whole answer for an error. */
export function errorResponse(
  error: GatewayError,
  requestId: string,
  dialect: "aetherflow" | "etcd",
): Response {
  const headers: Record<string, string> = {
    "content-type": dialect === "etcd" ? "application/json" : "application/problem+json",
    "x-content-type-options": "nosniff",
    "x-request-id": requestId,
  };
  if (error.retryAfterS !== undefined) headers["retry-after"] = String(error.retryAfterS);
  // RFC 9110 §15.5.16: which codings there are.
  if (error.code === "unsupported_encoding") headers["accept-encoding"] = "identity";
  if (error.allow !== undefined) headers["allow"] = error.allow;
  // RFC 9110 §15.5.2: a 401 says how to authenticate.
  if (error.code === "unauthenticated") headers["www-authenticate"] = "Bearer";
  if (error.challenge !== undefined) headers["www-authenticate"] = error.challenge;
  const status = dialect === "etcd" ? ETCD_STATUS[error.code] ?? error.status : error.status;
  const body = dialect === "etcd" ? rpcStatusOf(error) : problemOf(error, requestId);
  return new Response(JSON.stringify(body), { status, headers });
}
