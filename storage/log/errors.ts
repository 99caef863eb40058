/** Why a log refused: `in_use` another process holds the directory; `damaged` the files are not what was written;
 *  `version` they are of another format version; `failed` a write or sync failed and the log has stopped; `full` the
 *  pending buffer is at its bound, try again when a group is durable; `closed`; `busy` a snapshot is being written;
 *  `io` the file system refused an operation that does not stop the log, or the log could not be opened. */
export type LogErrorCode = "in_use" | "damaged" | "version" | "failed" | "full" | "closed" | "busy" | "io";

/** The one error class of the log. The message is fit for a person: it names the file and what to do. */
export class LogError extends Error {
  override readonly name = "LogError";
  /** What kind of trouble it is. */
  readonly code: LogErrorCode;
  /** The file or directory concerned. */
  readonly file: string | undefined;
  /** Byte offset in `file`, when the trouble is at one place. */
  readonly offset: number | undefined;

  constructor(
    code: LogErrorCode,
    message: string,
    options: { file?: string; offset?: number; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.file = options.file;
    this.offset = options.offset;
  }
}

/** A file is not what the log wrote. */
export function damaged(file: string, offset: number, what: string): LogError {
  return new LogError(
    "damaged",
    `log file ${file} is damaged at byte ${offset}: ${what}. ` +
      `Nothing was changed; restore the directory from a backup or move it away`,
    { file, offset },
  );
}

/** The file system refused `operation` on `file`. */
export function ioFailure(code: "failed" | "io", operation: string, file: string, cause: unknown): LogError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new LogError(code, `cannot ${operation} ${file}: ${reason}${adviceFor(cause)}`, { file, cause });
}

function adviceFor(cause: unknown): string {
  const text = cause instanceof Error ? `${cause.message} ${(cause as { code?: string }).code ?? ""}` : "";
  if (/os error 28\b|ENOSPC|No space left/.test(text)) {
    return ". The disk is full: free some space, then restart";
  }
  if (/os error 122\b|EDQUOT/.test(text)) return ". The disk quota is used up: raise it, then restart";
  if (/os error 5\b|EIO\b/.test(text)) return ". The disk reports errors: check it (dmesg), then restart";
  if (/os error 30\b|EROFS/.test(text)) {
    return ". The file system is read-only: check the disk, then restart";
  }
  if (/os error 24\b|EMFILE/.test(text)) {
    return ". Too many open files: raise the limit (ulimit -n), then restart";
  }
  return "";
}
