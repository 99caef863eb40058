import type { LogError } from "./errors.ts";
import {
  encodeFooter,
  encodeHeader,
  encodeRecord,
  type FileHeader,
  FOOTER_BYTES,
  MAX_RECORD_BYTES,
  RECORD_HEADER_BYTES,
  SNAPSHOT_TEMP_NAME,
  snapshotName,
} from "./format.ts";
import type { LogFile, LogFs } from "./fs.ts";
import { attempt, writeAll } from "./io.ts";

/** Bytes gathered before they are written: about a millisecond of the event loop at 100-byte records. */
const CHUNK_BYTES = 256 * 1024;
/** Bytes between syncs while a snapshot is written. One sync of all of it at the end would hold up the log's own
 *  syncs, which share the disk's queue, for as long as it takes. */
const SYNC_EVERY_BYTES = 8 * 1024 * 1024;

/** Where a snapshot goes. */
export interface SnapshotPlan {
  readonly fs: LogFs;
  readonly directory: string;
  readonly header: FileHeader;
  /** Asked between chunks; an error ends the writing with it. */
  readonly abandoned: () => LogError | undefined;
}

/** The records of a snapshot. A synchronous source is advanced for about a millisecond at a time. */
export type SnapshotRecords = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** Writes a snapshot under its temporary name, syncs it, gives it its name and syncs the directory. When it resolves,
 *  the snapshot is durable. When it rejects, the files that recovery uses are as they were, or have one whole snapshot
 *  more. An error thrown by `records` comes through as it is.
 *  @throws {RangeError} for a record outside 1..MAX_RECORD_BYTES.
 *  @throws {LogError} `io` when the file system refuses; what `plan.abandoned` gives. */
export async function writeSnapshot(plan: SnapshotPlan, records: SnapshotRecords): Promise<void> {
  const { fs, directory } = plan;
  const temporary = `${directory}/${SNAPSHOT_TEMP_NAME}`;
  const path = `${directory}/${snapshotName(plan.header.seq)}`;
  // A new file each time, so that pages whose sync failed are never trusted.
  const file = await attempt("create", temporary, () => fs.open(temporary, "create"));
  try {
    try {
      await new SnapshotWriter(plan, temporary, file).write(records);
    } finally {
      file.close();
    }
    await attempt("rename", temporary, () => fs.rename(temporary, path));
  } catch (error) {
    // Gives the space back. Should this fail too, the next snapshot or the next opening does it.
    await fs.remove(temporary).catch(() => {});
    throw error;
  }
  await attempt("sync the directory", directory, () => fs.syncDirectory(directory));
}

class SnapshotWriter {
  #chunk = new Uint8Array(CHUNK_BYTES);
  #used = 0;
  #unsyncedBytes = 0;
  #records = 0;
  #payloadBytes = 0;

  constructor(readonly plan: SnapshotPlan, readonly path: string, readonly file: LogFile) {}

  async write(records: SnapshotRecords): Promise<void> {
    this.#put(encodeHeader(this.plan.header));
    if (Symbol.asyncIterator in records) {
      for await (const record of records) if (!this.#add(record)) await this.#flushFor(record);
    } else {
      // Its own loop: `for await` over a synchronous source would cost a promise a record.
      for (const record of records) if (!this.#add(record)) await this.#flushFor(record);
    }
    await this.#flush();
    encodeFooter(this.#chunk, 0, this.plan.header.salt, this.#records, this.#payloadBytes);
    this.#used = FOOTER_BYTES;
    await this.#flush();
    await attempt("sync", this.path, () => this.file.syncData());
  }

  #put(bytes: Uint8Array): void {
    this.#chunk.set(bytes, this.#used);
    this.#used += bytes.length;
  }

  /** False when there is no room. */
  #add(record: Uint8Array): boolean {
    if (record.length < 1 || record.length > MAX_RECORD_BYTES) {
      throw new RangeError(
        `Cannot snapshot: record length must be 1..${MAX_RECORD_BYTES}, got ${record.length}`,
      );
    }
    if (this.#used + RECORD_HEADER_BYTES + record.length > this.#chunk.length) return false;
    this.#used = encodeRecord(this.#chunk, this.#used, record, this.plan.header.salt, this.#records++);
    this.#payloadBytes += record.length;
    return true;
  }

  async #flushFor(record: Uint8Array): Promise<void> {
    await this.#flush();
    const need = RECORD_HEADER_BYTES + record.length;
    if (need > this.#chunk.length) this.#chunk = new Uint8Array(need);
    this.#add(record);
  }

  async #flush(): Promise<void> {
    await attempt("write to", this.path, () => writeAll(this.file, this.#chunk.subarray(0, this.#used)));
    this.#unsyncedBytes += this.#used;
    this.#used = 0;
    if (this.#unsyncedBytes >= SYNC_EVERY_BYTES) {
      await attempt("sync", this.path, () => this.file.syncData());
      this.#unsyncedBytes = 0;
    }
    const reason = this.plan.abandoned();
    if (reason !== undefined) throw reason;
  }
}
