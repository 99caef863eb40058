/** Errors of this folder, and of sessions under it, on the wire. */
import { toConnectError as sessionErrorToConnectError } from "../rpc_errors.ts";
import { toConnectError } from "./errors.ts";

/** Runs `run`; what the domain throws becomes an error of the wire. */
export async function mapped<T>(run: () => T | Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw asWireError(error);
  }
}

/** A domain error as the wire has it; other errors as they are, for the server to report as internal. */
export function asWireError(error: unknown): unknown {
  return sessionErrorToConnectError(toConnectError(error));
}
