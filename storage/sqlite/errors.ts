/** Why a database refused: `in_use` another process (or connection) has the file; `damaged` it is not what was written;
 *  `version` it is another program's or another version's; `full` the disk, or the configured number of pages, is used up;
 *  `io` the file system refused. After `full` and `io` the open transaction may be gone. */
export type SqliteErrorCode = "in_use" | "damaged" | "version" | "full" | "io";

/** The one error class of the engine. The message is fit for a person: it names the file and what to do. */
export class SqliteError extends Error {
  override readonly name = "SqliteError";

  constructor(
    readonly code: SqliteErrorCode,
    readonly file: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What SQLite's own texts mean: node:sqlite gives no result code along with them. */
const MEANINGS: readonly (readonly [RegExp, SqliteErrorCode, string])[] = [
  [/database is locked|database table is locked/, "in_use", "another process has it: stop that one"],
  [
    /malformed|not a database|file is encrypted/,
    "damaged",
    "nothing was changed; restore a backup or move the file away",
  ],
  [/database or disk is full/, "full", "free some space, then restart"],
  [
    /disk I\/O error|readonly database|unable to open|out of memory|large file support is disabled/,
    "io",
    "check the disk, then restart",
  ],
];

/** A SqliteError for what node:sqlite threw while doing `what`; anything else, such as a programmer's mistake in a
 *  statement, as it is. */
export function sqliteFailure(what: string, file: string, cause: unknown): unknown {
  const text = cause instanceof Error ? cause.message : String(cause);
  const meaning = MEANINGS.find(([pattern]) => pattern.test(text));
  if (meaning === undefined) return cause;
  const [, code, advice] = meaning;
  return new SqliteError(code, file, `cannot ${what} ${file}: ${text}; ${advice}`, { cause });
}
