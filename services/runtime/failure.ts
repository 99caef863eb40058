import type { FailureCode } from "./worker_context.ts";

/** The configuration asks for what a worker refuses, for a reason that only it can know. The message names the key. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** What a failure means for the host, and the line that a person reads. */
export interface Failure {
  readonly code: FailureCode;
  readonly message: string;
}

/** Codes of errors that storage throws. */
const STORAGE_CODES: Readonly<Record<string, FailureCode>> = {
  in_use: "data_locked",
  damaged: "data_damaged",
  version: "data_damaged",
  failed: "storage",
  io: "storage",
  full: "storage",
};

/** Sorts an error by the innermost cause that is known. The message is the outermost one: whoever wrapped the cause knew
 *  what was being done. */
export function describeFailure(error: unknown): Failure {
  const message = error instanceof Error ? error.message || error.name : String(error);
  // Bounded: a chain of causes that is longer than this is a cycle.
  let at: unknown = error;
  for (let depth = 0; depth < 10 && at instanceof Error; depth++) {
    const code = codeOf(at);
    if (code !== undefined) return { code, message };
    at = at.cause;
  }
  return { code: "internal", message };
}

function codeOf(error: Error): FailureCode | undefined {
  if (error instanceof ConfigError) return "config";
  if (error instanceof Deno.errors.AddrInUse) return "address_in_use";
  if (error instanceof Deno.errors.AddrNotAvailable) return "config";
  if ("code" in error && typeof error.code === "string") {
    if (error.code === "EADDRINUSE") return "address_in_use";
    if (error.code === "ENOSPC" || error.code === "EIO" || error.code === "EROFS") return "storage";
    if (error.name === "LogError") return STORAGE_CODES[error.code];
  }
  if (error instanceof Deno.errors.PermissionDenied) return "storage";
  return undefined;
}
