/** The domain's errors on the wire. */
import { Code, ConnectError } from "@connectrpc/connect";
import { type StateSyncCode, StateSyncError } from "./errors.ts";

const CODES: Readonly<Record<StateSyncCode, Code>> = {
  invalid_argument: Code.InvalidArgument,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  aborted: Code.Aborted,
  out_of_range: Code.OutOfRange,
  resource_exhausted: Code.ResourceExhausted,
  failed_precondition: Code.FailedPrecondition,
  unavailable: Code.Unavailable,
  permission_denied: Code.PermissionDenied,
};

/** The gRPC code of a domain error. */
export function codeOf(error: StateSyncError): Code {
  return CODES[error.code];
}

/** A domain error as the wire has it; other errors stay what they are, for the server to report as internal. */
export function toConnectError(error: unknown): unknown {
  if (!(error instanceof StateSyncError)) return error;
  return new ConnectError(error.message, CODES[error.code], undefined, undefined, error);
}

/** Runs `run`; what the domain throws, now or later, becomes an error of the wire. */
export function mapped<T>(run: () => T | Promise<T>): T | Promise<T> {
  try {
    const result = run();
    return result instanceof Promise ? result.catch(rethrow) : result;
  } catch (error) {
    throw toConnectError(error);
  }
}

function rethrow(error: unknown): never {
  throw toConnectError(error);
}
