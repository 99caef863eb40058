/** What the service needs of durable storage: a log of records with snapshots. stores/log.ts has it on disk. */

import type { EntryChange } from "./record.ts";

/** Why a record was not taken: `full` too much waits for the disk, try again; `failed` the store has stopped. */
export class StoreError extends Error {
  override readonly name = "StoreError";

  constructor(readonly code: "full" | "failed", message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** An open store. Its owner had all records replayed into it while opening. */
export interface KvStore {
  /** Takes a record (copied before it returns) and gives it the next number. Does no I/O. `entries` are the changes of
   *  named entries that the record holds, for stores that keep no records.
   *  @throws {StoreError} */
  append(record: Uint8Array, entries: readonly EntryChange[]): number;
  /** Resolves when record `seq` and all before it are durable. Rejects with the StoreError that stopped the store. */
  durable(seq: number): Promise<void>;
  /** Number of the last durable record, or of the last one found when opened. */
  readonly durableSeq: number;
  /** Calls `listener` whenever durableSeq grew, before the promises of `durable` resolve. */
  onDurable(listener: () => void): void;
  /** Resolves with the reason when the store stops taking records. */
  readonly stopped: Promise<StoreError>;
  /** Whether it keeps records, so that it needs a snapshot now and then. */
  readonly takesSnapshots: boolean;
  /** Writes a snapshot that stands for all records up to `coversSeq`. `records` is read over many turns.
   *  When it rejects, nothing was lost. */
  snapshot(records: Iterable<Uint8Array>, coversSeq: number): Promise<void>;
  /** Size of the records since the newest snapshot when the store was opened, in bytes. */
  readonly openedLogBytes: number;
  stats(): StoreStats;
  /** Makes everything durable and lets go of the files. Idempotent. */
  close(): Promise<void>;
}

/** Figures of a store, since it was opened unless said otherwise. */
export interface StoreStats {
  readonly appendedRecords: number;
  readonly appendedBytes: number;
  readonly pendingBytes: number;
  /** Group commits. */
  readonly groups: number;
  readonly syncs: number;
  /** Time spent in syncs, in milliseconds. */
  readonly syncMs: number;
  /** Files and bytes of the log, now. */
  readonly segments: number;
  readonly segmentBytes: number;
  readonly snapshots: number;
}

/** Receives what a store holds while it is opened, in the order in which it was written. */
export interface StoreReplay {
  snapshotRecord(record: Uint8Array): void;
  logRecord(record: Uint8Array): void;
}

/** Opens a store and replays it. */
export type OpenStore = (replay: StoreReplay) => Promise<KvStore>;
