/** The store on a segmented log: storage/log under the service's own interface. */
import { type Log, LogError, type LogOptions, openLog } from "../../../storage/log/mod.ts";
import { type KvStore, StoreError, type StoreReplay, type StoreStats } from "../store.ts";

/** Opens (or makes) the log in a directory and replays it.
 *  @throws {LogError} `in_use`, `damaged`, `version`, `io`.
 *  @throws {Error} what `replay` throws: the log is whole, but is not this service's. */
export async function openLogStore(
  options: Omit<LogOptions, "onSnapshot" | "onRecord">,
  replay: StoreReplay,
): Promise<LogStore> {
  const log = await openLog({
    ...options,
    onSnapshot: (record) => replay.snapshotRecord(record),
    onRecord: (record) => replay.logRecord(record),
  });
  return new LogStore(log);
}

/** A KvStore that also hands out its log, for figures. */
export class LogStore implements KvStore {
  readonly takesSnapshots = true;
  readonly stopped: Promise<StoreError>;
  readonly openedLogBytes: number;

  constructor(readonly log: Log) {
    this.stopped = log.stopped.then(stopError);
    this.openedLogBytes = log.recovery.recordBytes;
  }

  get durableSeq(): number {
    return this.log.durableSeq;
  }

  append(record: Uint8Array): number {
    try {
      return this.log.append(record);
    } catch (error) {
      if (!(error instanceof LogError)) throw error;
      throw error.code === "full"
        ? new StoreError("full", error.message, { cause: error })
        : stopError(error);
    }
  }

  durable(seq: number): Promise<void> {
    return this.log.durable(seq);
  }

  onDurable(listener: () => void): void {
    this.log.onDurable(listener);
  }

  snapshot(records: Iterable<Uint8Array>, coversSeq: number): Promise<void> {
    return this.log.snapshot(records, coversSeq);
  }

  stats(): StoreStats {
    const stats = this.log.stats();
    return {
      appendedRecords: stats.appendedRecords,
      appendedBytes: stats.appendedBytes,
      pendingBytes: stats.pendingBytes,
      syncs: stats.syncs,
      syncMs: stats.syncMs.sum,
      groups: stats.groups,
      segments: stats.segments,
      segmentBytes: stats.segmentBytes,
      snapshots: stats.snapshots,
    };
  }

  close(): Promise<void> {
    return this.log.close();
  }
}

function stopError(error: LogError): StoreError {
  return new StoreError("failed", error.message, { cause: error });
}
