/** The domain's errors on the wire. */
import { Code, ConnectError } from "@connectrpc/connect";
import { type SessionCode, SessionError } from "./errors.ts";

const CODES: Readonly<Record<SessionCode, Code>> = {
  invalid_argument: Code.InvalidArgument,
  not_found: Code.NotFound,
  out_of_range: Code.OutOfRange,
  resource_exhausted: Code.ResourceExhausted,
  failed_precondition: Code.FailedPrecondition,
  aborted: Code.Aborted,
  unavailable: Code.Unavailable,
  permission_denied: Code.PermissionDenied,
  unauthenticated: Code.Unauthenticated,
};

/** A domain error as the wire has it; other errors stay what they are, for the server to report as internal. */
export function toConnectError(error: unknown): unknown {
  if (!(error instanceof SessionError)) return error;
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
