/** Why a command has no answer: `unavailable` the server cannot be reached, does not answer, or is not able to serve now, and
 *  whether the command was done is unknown; `refused` it said no, which trying again will not change. */
export type RedisErrorCode = "unavailable" | "refused";

/** The one error class of the client. */
export class RedisError extends Error {
  override readonly name = "RedisError";

  constructor(readonly code: RedisErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** What servers say that cannot serve now: while they load, have no memory, are replicas or parts of a broken cluster, or were
 *  told another password than we were. */
const FOR_NOW =
  /^(LOADING|OOM|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS|MISCONF|NOSCRIPT|NOAUTH|WRONGPASS|NOPERM)\b/;

/** A RedisError for what a client rejected with. Not made for every answer, since that would cost each one a promise. */
export function redisErrorOf(cause: unknown): RedisError {
  if (cause instanceof RedisError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  const isAnswer = cause instanceof Error && cause.name === "ReplyError";
  const code = isAnswer && !FOR_NOW.test(message) ? "refused" : "unavailable";
  return new RedisError(code, message, { cause });
}
