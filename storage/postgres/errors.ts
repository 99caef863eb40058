/** Why a statement has no answer:
 *
 *  - `unavailable` the server cannot be reached, does not answer, or is not able to serve now;
 *  - `timeout` the statement took longer than it may, and the server ended it;
 *  - `conflict` it met another transaction (a deadlock, a lock that was not free in time): nothing of it was done, and it may
 *    be tried again;
 *  - `taken` a unique key is there already, `constraint` says which;
 *  - `readOnly` the server takes no writes: it is a replica, or its disk is full;
 *  - `version` the tables were made by a newer program;
 *  - `refused` it said no, which trying again will not change. */
export type PostgresErrorCode =
  | "unavailable"
  | "timeout"
  | "conflict"
  | "taken"
  | "readOnly"
  | "version"
  | "refused";

/** The one error class of the engine. */
export class PostgresError extends Error {
  override readonly name = "PostgresError";
  /** The server's five characters, when it was the server that said no. */
  readonly sqlState: string | undefined;
  /** The constraint that was violated, if it was one. */
  readonly constraint: string | undefined;
  /** Whether what was asked for may have been done: the connection was lost before the answer. */
  readonly isUncertain: boolean;

  constructor(
    readonly code: PostgresErrorCode,
    message: string,
    options: ErrorOptions & {
      readonly sqlState?: string | undefined;
      readonly constraint?: string | undefined;
      readonly isUncertain?: boolean;
    } = {},
  ) {
    super(message, options);
    this.sqlState = options.sqlState;
    this.constraint = options.constraint;
    this.isUncertain = options.isUncertain ?? false;
  }
}

/** What the server's codes mean, the first that fits: whole ones, or classes of two characters. */
const MEANINGS: readonly (readonly [RegExp, PostgresErrorCode])[] = [
  [/^57014$/, "timeout"],
  [/^(40001|40P01|55P03)$/, "conflict"],
  [/^23505$/, "taken"],
  [/^(25006|53100)$/, "readOnly"],
  // Connections lost, too few resources, an operator who stops the server, a disk that fails.
  [/^(08|53|57|58)/, "unavailable"],
];

/** Codes with which the server ends a session, maybe after it did what it was asked. */
const ENDED = /^57P0[1245]$/;

/** Codes of the client for attempts that never reached the server. */
const UNREACHED =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ENOENT|CONNECT_TIMEOUT|CONNECTION_ENDED)$/;

/** A PostgresError for what the client rejected with. */
export function postgresErrorOf(cause: unknown): PostgresError {
  if (cause instanceof PostgresError) return cause;
  const { code, message, constraint_name: constraint, severity } = cause as {
    code?: string;
    message?: string;
    constraint_name?: string;
    severity?: string;
  };
  if (severity !== undefined && code !== undefined) {
    const meaning = MEANINGS.find(([pattern]) => pattern.test(code))?.[1] ?? "refused";
    const isUncertain = ENDED.test(code);
    return new PostgresError(meaning, `${message} (${code})`, {
      cause,
      sqlState: code,
      constraint,
      isUncertain,
    });
  }
  const isUncertain = !UNREACHED.test(code ?? "");
  return new PostgresError("unavailable", message ?? String(cause), { cause, isUncertain });
}
