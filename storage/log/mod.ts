/** A segmented write-ahead log with group commit and snapshots. FORMAT.md describes the files. */
export {
  DEFAULT_INTERVAL_MS,
  DEFAULT_SEGMENT_BYTES,
  type Durability,
  type Log,
  type LogOptions,
  type LogStats,
  MAX_PENDING_BYTES,
  openLog,
} from "./log.ts";
export { LogError, type LogErrorCode } from "./errors.ts";
export { MAX_RECORD_BYTES } from "./format.ts";
export type { LogFile, LogFs, LogLock } from "./fs.ts";
export { denoFs } from "./deno_fs.ts";
export type { RecoveryReport } from "./recovery.ts";
export type { SnapshotRecords } from "./snapshot.ts";
export type { HistogramSnapshot } from "./histogram.ts";
