/** The domain's errors on the wire. */
import { Code, ConnectError } from "@connectrpc/connect";
import { type KvCode, KvError } from "./errors.ts";

const CODES: Readonly<Record<KvCode, Code>> = {
  invalid_argument: Code.InvalidArgument,
  not_found: Code.NotFound,
  out_of_range: Code.OutOfRange,
  resource_exhausted: Code.ResourceExhausted,
  failed_precondition: Code.FailedPrecondition,
  unimplemented: Code.Unimplemented,
  deadline_exceeded: Code.DeadlineExceeded,
  unknown: Code.Unknown,
  data_loss: Code.DataLoss,
  unavailable: Code.Unavailable,
  permission_denied: Code.PermissionDenied,
  unauthenticated: Code.Unauthenticated,
};

/** A domain error as the wire has it; other errors stay what they are, for the server to report as internal. */
export function toConnectError(error: unknown): unknown {
  if (!(error instanceof KvError)) return error;
  return new ConnectError(error.message, CODES[error.code], undefined, undefined, error);
}

/** Runs `run`; what the domain throws becomes an error of the wire. */
export function mapped<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw toConnectError(error);
  }
}

/** As `mapped`, for what takes its time. */
export async function mappedAsync<T>(run: () => Promise<T> | T): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw toConnectError(error);
  }
}
