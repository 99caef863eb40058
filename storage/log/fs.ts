/** What the log needs of a file system. Small, so that a test can stand in for all of it and fail any operation.
 *  Every method throws or rejects with the file system's own error; the log adds file and advice. */
export interface LogFs {
  /** Makes the directory, with its parents, unless it is there. */
  makeDirectory(path: string): Promise<void>;
  /** Names of the files in the directory, in any order. */
  list(directory: string): Promise<string[]>;
  /** Opens a file: `read` an existing one; `update` an existing one for reading and writing, at its start;
   *  `create` an empty one for writing (an older file of that name is emptied). */
  open(path: string, mode: "read" | "update" | "create"): Promise<LogFile>;
  /** Gives the file another name, replacing what had it. Durable only after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file. Durable only after `syncDirectory`. */
  remove(path: string): Promise<void>;
  /** Makes the names in the directory durable. */
  syncDirectory(directory: string): Promise<void>;
  /** Takes the lock that this file stands for, making the file if needed; undefined when someone else holds it.
   *  The lock ends with the process that holds it, however that ends. */
  lock(path: string): Promise<LogLock | undefined>;
}

/** One open file with one position, which reads and writes move. */
export interface LogFile {
  /** Length in bytes. */
  size(): Promise<number>;
  /** Moves the position to `offset` bytes from the start. */
  seek(offset: number): Promise<void>;
  /** Fills `into` from its start; returns how many bytes, fewer than asked for when it likes, 0 at the end. */
  read(into: Uint8Array): Promise<number>;
  /** Writes some of `bytes`, from their start; returns how many. Runs off the caller's thread. */
  write(bytes: Uint8Array): Promise<number>;
  /** Same, on the caller's thread: for small writes, which only reach the page cache. */
  writeSync(bytes: Uint8Array): number;
  /** Cuts the file to `length` bytes. */
  truncate(length: number): Promise<void>;
  /** Makes the content and the length durable. */
  syncData(): Promise<void>;
  /** Same, on the caller's thread. */
  syncDataSync(): void;
  close(): void;
}

/** A lock that is held. */
export interface LogLock {
  release(): void;
}
