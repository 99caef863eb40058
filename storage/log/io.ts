import { ioFailure, LogError } from "./errors.ts";
import type { LogFile } from "./fs.ts";

/** Runs one file operation; its failure becomes a LogError `io` that names operation and file. */
export async function attempt<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw error instanceof LogError ? error : ioFailure("io", operation, path, error);
  }
}

/** Writes all of `bytes`, however short the single writes are, off the caller's thread. */
export async function writeAll(file: LogFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += checkProgress(await file.write(bytes.subarray(at)));
}

/** Same, on the caller's thread. */
export function writeAllSync(file: LogFile, bytes: Uint8Array): void {
  let at = checkProgress(file.writeSync(bytes));
  while (at < bytes.length) at += checkProgress(file.writeSync(bytes.subarray(at)));
}

function checkProgress(written: number): number {
  if (written <= 0) throw new Error("the file takes no more bytes");
  return written;
}
