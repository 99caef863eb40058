/** What Redis clients are told when the store says no: the one table, by the kind of KvError. */
import { KvError } from "../errors.ts";
import { Refusal } from "./args.ts";
import { Failure } from "./reply.ts";

/** Texts with a code that clients know. What is not here is `ERR` and the store's own text. */
const TEXTS: Readonly<Record<string, string>> = {
  noSpace: "OOM command not allowed when used memory > 'maxmemory'.",
  tooManyRequests: "TRYAGAIN too many writes wait for the disk, try again",
  readOnly:
    "MISCONF Errors writing to the log: AetherFlow is read-only and refuses commands that may modify the data set",
  notDurable:
    "MISCONF The log failed before this write was durable; whether it survives a restart is unknown",
  stopped: "LOADING AetherFlow is stopping or starting, try again",
  clusterUnavailable: "CLUSTERDOWN The store behind AetherFlow is not available",
  permissionDenied: "NOPERM this user has no permissions to run this command or to access its keys",
  noCredentials: "NOAUTH Authentication required.",
  invalidAuthToken: "NOAUTH Authentication required.",
  authNotEnabled: "WRONGPASS invalid username-password pair or user is disabled.",
  authFailed: "WRONGPASS invalid username-password pair or user is disabled.",
  valueTooLarge: "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
  requestTooLarge: "ERR the request is larger than kv.maxRequestBytes",
};

/** Kinds of errors that TEXTS translates. */
export const TRANSLATED_KINDS: readonly string[] = Object.keys(TEXTS);

/** The reply to an error of the store; undefined for one that is a fault of the code. */
export function failureOf(error: unknown): Failure | undefined {
  if (error instanceof Refusal) return error.failure;
  if (!(error instanceof KvError)) return undefined;
  return new Failure(TEXTS[error.kind] ?? `ERR ${oneLine(error.message)}`);
}

/** A text that fits into an error reply. */
export function oneLine(text: string): string {
  return text.replace(/[\r\n]/g, " ");
}
