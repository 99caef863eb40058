import { ioFailure, LogError } from "./errors.ts";
import {
  encodeHeader,
  encodeMark,
  encodeRecord,
  HEADER_BYTES,
  LOCK_NAME,
  MARK_BYTES,
  MAX_RECORD_BYTES,
  RECORD_HEADER_BYTES,
  segmentName,
} from "./format.ts";
import { denoFs } from "./deno_fs.ts";
import type { LogFile, LogFs, LogLock } from "./fs.ts";
import { createHistogram, type Histogram, type HistogramSnapshot } from "./histogram.ts";
import { attempt, writeAll, writeAllSync } from "./io.ts";
import {
  dropCovered,
  recover,
  type RecoveredFiles,
  type RecoveryReport,
  type SegmentFile,
} from "./recovery.ts";
import { type SnapshotRecords, writeSnapshot } from "./snapshot.ts";

/** Bound of the bytes appended and not yet written. A disk that stalls makes `append` throw `full` rather than take
 *  the machine's memory; it is two of the largest records, or a second of 300,000 records of 100 bytes. */
export const MAX_PENDING_BYTES = 2 * (MAX_RECORD_BYTES + RECORD_HEADER_BYTES) + MARK_BYTES;
/** Default length at which a segment ends, in bytes. Also what a snapshot may leave behind at most. */
export const DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024;
/** Default time between syncs with durability `interval`, in milliseconds. */
export const DEFAULT_INTERVAL_MS = 1_000;

/** Initial size of a group buffer, of which there are two. They grow by doubling, up to MAX_PENDING_BYTES. */
const GROUP_BUFFER_BYTES = 256 * 1024;
/** A group buffer that a burst made larger than this is let go after the burst. */
const KEPT_BUFFER_BYTES = 4 * 1024 * 1024;
/** Largest group written on the caller's thread: it reaches only the page cache, about 50 µs. */
const SYNC_WRITE_MAX_BYTES = 256 * 1024;
/** A snapshot starts a new segment when the current one holds more than this, so that the old one can go. */
const ROTATE_FOR_SNAPSHOT_BYTES = 1024 * 1024;
/** Largest group, in records, that is synced on the caller's thread. Waking the loop from another thread costs about
 *  70 µs, which counts when one caller waits and is overlapped by other work when many do. */
const BLOCKING_SYNC_MAX_RECORDS = 2;
/** A sync that took longer than this, in milliseconds, shows that the disk is not to be waited for on this thread. */
const BLOCKING_SYNC_MAX_MS = 1;
/** After such a sync none is done on this thread for this many times its duration: stalls take at most a twentieth of
 *  the thread's time, and a disk that stays slow is never waited for. */
const SLOW_SYNC_PAUSE_FACTOR = 20;

/** When an appended record counts as durable. `always`: after fdatasync. `interval`: once written, with a sync every
 *  `intervalMs`, so a crash of the machine (not of the process) may lose that much. `none`: once written. */
export type Durability = "always" | "interval" | "none";

/** How to open a log. */
export interface LogOptions {
  /** Default: Deno's file system. */
  readonly fs?: LogFs;
  /** The log's own directory; made when it is not there. */
  readonly directory: string;
  readonly durability: Durability;
  /** For `interval`, in milliseconds; default DEFAULT_INTERVAL_MS. */
  readonly intervalMs?: number;
  /** Length at which a segment ends, in bytes, at least 4096; default DEFAULT_SEGMENT_BYTES. A group is never split,
   *  so a segment may be longer by one group. */
  readonly segmentBytes?: number;
  /** Receives the newest snapshot's records, in order, before `openLog` resolves. May keep the view. */
  readonly onSnapshot?: (record: Uint8Array) => void;
  /** Receives the records after that snapshot, in order, before `openLog` resolves. May keep the view, which keeps
   *  the few MiB around it. */
  readonly onRecord?: (payload: Uint8Array, seq: number) => void;
  /** Monotonic and wall-clock milliseconds; default the platform's. */
  readonly clock?: { now(): number; wallMs(): number };
  /** A random 32-bit number; default the platform's cryptographic source. */
  readonly salt?: () => number;
}

/** A write-ahead log with group commit. One owner appends; many may wait. */
export interface Log {
  /** Takes a record of 1..MAX_RECORD_BYTES bytes (copied) and returns its sequence number: 1, 2, 3, … Never blocks and
   *  does no I/O: all records of one turn of the event loop, or of one running sync, share a write and a sync.
   *  @throws {RangeError} for a payload of another length.
   *  @throws {LogError} `full` while MAX_PENDING_BYTES wait, `failed` after the log stopped, `closed`. */
  append(payload: Uint8Array): number;
  /** Resolves when record `seq`, and so every one before it, is durable. All callers of one group get the same promise.
   *  Rejects with the LogError that stopped the log.
   *  @throws {RangeError} for a number not yet appended. */
  durable(seq: number): Promise<void>;
  /** Calls `listener(durableSeq)` each time `durableSeq` grew, before the promises of `durable` resolve. It must not
   *  throw. For owners that answer many waiters without a promise each. */
  onDurable(listener: (seq: number) => void): void;
  /** Last number that is durable in the sense of `durability`; 0 before the first. */
  readonly durableSeq: number;
  /** Last number given by `append` or found when opened. */
  readonly lastSeq: number;
  /** Why the log stopped taking records, undefined while it works. What is durable stays so. */
  readonly failed: LogError | undefined;
  /** Resolves with the reason when the log stops; never when it does not. */
  readonly stopped: Promise<LogError>;
  /** Writes a snapshot, beside running appends, and drops the segments and snapshots that it makes needless. The
   *  records, replayed into nothing, must give the state after record `coversSeq`; they are taken a few at a time over
   *  many turns, so they must not show later changes. When it rejects, nothing was lost and it may be tried again.
   *  Does nothing when the newest snapshot covers as much.
   *  @throws {RangeError} unless 1 <= coversSeq <= lastSeq, or for a record of a wrong length.
   *  @throws {LogError} `busy` while another is written, `io`, `failed`, `closed`. */
  snapshot(records: SnapshotRecords, coversSeq: number): Promise<void>;
  /** What opening found. */
  readonly recovery: RecoveryReport;
  stats(): LogStats;
  /** Writes and syncs what waits, then lets go of files and lock. Idempotent. Rejects when the last sync failed, after
   *  letting go all the same; a log that had already stopped closes without an error. */
  close(): Promise<void>;
}

/** Figures for metrics, since opening unless said otherwise. */
export interface LogStats {
  readonly appendedRecords: number;
  /** Payload bytes. */
  readonly appendedBytes: number;
  /** Bytes waiting to be written, now. */
  readonly pendingBytes: number;
  readonly durableSeq: number;
  readonly lastSeq: number;
  /** Groups written; `appendedRecords / groups` is the mean group. */
  readonly groups: number;
  /** Records in the groups written. */
  readonly groupRecords: HistogramSnapshot;
  /** Syncs of segments. */
  readonly syncs: number;
  /** How many of them ran on the caller's thread. */
  readonly blockingSyncs: number;
  /** Their duration, in milliseconds. */
  readonly syncMs: HistogramSnapshot;
  /** Segment files, now. */
  readonly segments: number;
  /** Bytes in them, now. */
  readonly segmentBytes: number;
  readonly snapshots: number;
  /** Last number that the newest snapshot covers; 0 without one. */
  readonly snapshotSeq: number;
  /** Age of the newest snapshot by the wall clock, in milliseconds; undefined without one. */
  readonly snapshotAgeMs: number | undefined;
  readonly recovery: RecoveryReport;
}

/** Opens the log in a directory: takes the lock, recovers, and hands what is found to `onSnapshot` and `onRecord`.
 *  @throws {LogError} `in_use`, `damaged`, `version` or `io`; nothing is held then. */
export async function openLog(options: LogOptions): Promise<Log> {
  const { fs = denoFs, directory, clock = PLATFORM_CLOCK } = options;
  const segmentBytes = options.segmentBytes ?? DEFAULT_SEGMENT_BYTES;
  const intervalMs = options.intervalMs ?? DEFAULT_INTERVAL_MS;
  if (!(segmentBytes >= 4096)) {
    throw new RangeError(`Cannot open log: segmentBytes must be >= 4096, got ${segmentBytes}`);
  }
  if (!(intervalMs >= 1)) throw new RangeError(`Cannot open log: intervalMs must be >= 1, got ${intervalMs}`);
  const startedMs = clock.now();
  await attempt("make the directory", directory, () => fs.makeDirectory(directory));
  const lockPath = `${directory}/${LOCK_NAME}`;
  const lock = await attempt("lock", lockPath, () => fs.lock(lockPath));
  if (lock === undefined) {
    const message =
      `the data directory ${directory} is in use by another process. Stop that one, or use another directory`;
    throw new LogError("in_use", message, { file: directory });
  }
  try {
    const files = await recover(fs, directory, {
      onSnapshot: options.onSnapshot ?? (() => {}),
      onRecord: options.onRecord ?? (() => {}),
    });
    const salt = files.salt ?? (options.salt ?? platformSalt)();
    const settings = {
      fs,
      directory,
      clock,
      durability: options.durability,
      intervalMs,
      segmentBytes,
      salt,
      lock,
    };
    const file = await openTail(settings, files);
    const recovery = { ...files.report, durationMs: clock.now() - startedMs };
    return new SegmentedLog(settings, files, file, recovery);
  } catch (error) {
    lock.release();
    throw error;
  }
}

interface Settings {
  readonly fs: LogFs;
  readonly directory: string;
  readonly clock: { now(): number; wallMs(): number };
  readonly durability: Durability;
  readonly intervalMs: number;
  readonly segmentBytes: number;
  readonly salt: number;
  readonly lock: LogLock;
}

const PLATFORM_CLOCK = { now: () => performance.now(), wallMs: () => Date.now() };
const platformSalt = () => crypto.getRandomValues(new Uint32Array(1))[0]!;

/** Opens the last segment at its end, or makes the first one, or the one whose making a crash cut short. */
async function openTail(settings: Settings, files: RecoveredFiles): Promise<LogFile> {
  const last = files.segments.at(-1);
  if (files.salt === undefined || last === undefined) {
    const { segment, file } = await createSegment(settings, files.nextSeq);
    files.segments.push(segment);
    return file;
  }
  return await attempt("open", last.path, async () => {
    const file = await settings.fs.open(last.path, "update");
    try {
      await file.seek(last.bytes);
      return file;
    } catch (error) {
      file.close();
      throw error;
    }
  });
}

/** Makes a segment durable, name and header, before any record goes into it. A file with a wrong header is therefore
 *  either one that never held a record, and no longer than the header, or a damaged one. */
async function createSegment(
  settings: Settings,
  firstSeq: number,
): Promise<{ segment: SegmentFile; file: LogFile }> {
  const { fs, directory, clock, salt } = settings;
  const path = `${directory}/${segmentName(firstSeq)}`;
  const file = await attempt("create", path, () => fs.open(path, "create"));
  try {
    const header = encodeHeader({
      kind: "segment",
      seq: firstSeq,
      createdMs: Math.floor(clock.wallMs()),
      salt,
    });
    await attempt("write to", path, () => writeAll(file, header));
    await attempt("sync", path, () => file.syncData());
    await attempt("sync the directory", directory, () => fs.syncDirectory(directory));
  } catch (error) {
    file.close();
    throw error;
  }
  return { segment: { firstSeq, path, bytes: HEADER_BYTES }, file };
}

/** Those who wait for one group. Made when the first asks. */
interface Waiters {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: LogError) => void;
}

/** Records that share a write and a sync. */
interface Group {
  readonly buffer: Uint8Array;
  readonly bytes: number;
  readonly firstSeq: number;
  readonly lastSeq: number;
  waiters: Waiters | undefined;
}

/** Someone who needs everything appended so far on disk, and perhaps a fresh segment. */
interface Barrier {
  readonly rotate: boolean;
  readonly waiters: Waiters;
}

/** The log's one machine. `append` fills the pending group and schedules `#run`, which alone touches the segment:
 *
 *      append ─► pending ──(end of turn, or end of the running sync)──► written ──fdatasync──► durable
 *                   │                                                     │
 *                   └────────────── first error: stopped, all of them rejected ──────────────┘
 */
class SegmentedLog implements Log {
  readonly recovery: RecoveryReport;
  readonly stopped: Promise<LogError>;
  readonly #settings: Settings;
  readonly #files: { segments: SegmentFile[]; snapshots: number[] };
  readonly #listeners: ((seq: number) => void)[] = [];
  readonly #syncMs: Histogram = createHistogram([
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    250,
    1_000,
  ]);
  readonly #groupRecords: Histogram = createHistogram([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096]);
  #file: LogFile;
  #failed: LogError | undefined;
  #tellStopped: (error: LogError) => void = () => {};
  #closing: Promise<void> | undefined;

  /** The pending group: its bytes, after room for the mark, and its waiters. */
  #buffer: Uint8Array = new Uint8Array(GROUP_BUFFER_BYTES);
  #used = MARK_BYTES;
  #waiters: Waiters | undefined;
  /** The other buffer, free while no group is being written. */
  #spare: Uint8Array | undefined = new Uint8Array(GROUP_BUFFER_BYTES);

  /** 0 <= durable, synced <= written <= last. With `always` durable is synced, else it is written. */
  #lastSeq: number;
  #writtenSeq: number;
  #syncedSeq: number;
  #durableSeq: number;

  #scheduled = false;
  /** Whether `#run` runs, and its newest run. */
  #busy = false;
  #running: Promise<void> | undefined;
  /** The group that is being written or synced. */
  #active: Group | undefined;
  #barriers: Barrier[] = [];
  /** A sync of durability `interval`, which runs beside the writes. Never rejects. */
  #backgroundSync: Promise<void> | undefined;
  #intervalTimer: ReturnType<typeof setTimeout> | undefined;
  /** Infinity until the first sync has shown how fast the disk is. */
  #noBlockingUntilMs = Infinity;

  #snapshotting: Promise<void> | undefined;
  #snapshotSeq: number;
  #snapshotCreatedMs: number | undefined;
  readonly #openedSeq: number;
  #appendedBytes = 0;
  #blockingSyncs = 0;
  #snapshots = 0;

  constructor(settings: Settings, files: RecoveredFiles, file: LogFile, recovery: RecoveryReport) {
    this.#settings = settings;
    this.#files = files;
    this.#file = file;
    this.recovery = recovery;
    this.#lastSeq =
      this.#writtenSeq =
      this.#syncedSeq =
      this.#durableSeq =
        files.nextSeq - 1;
    this.#openedSeq = this.#lastSeq;
    this.#snapshotSeq = recovery.snapshotSeq;
    this.#snapshotCreatedMs = recovery.snapshotCreatedMs;
    this.stopped = new Promise((resolve) => this.#tellStopped = resolve);
  }

  get durableSeq(): number {
    return this.#durableSeq;
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  get failed(): LogError | undefined {
    return this.#failed;
  }

  append(payload: Uint8Array): number {
    const length = payload.length;
    if (length < 1 || length > MAX_RECORD_BYTES) {
      throw new RangeError(`Cannot append: payload length must be 1..${MAX_RECORD_BYTES}, got ${length}`);
    }
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#closing !== undefined) throw this.#closedError();
    const need = this.#used + RECORD_HEADER_BYTES + length;
    if (need > this.#buffer.length) this.#grow(need);
    const seq = this.#lastSeq + 1;
    this.#used = encodeRecord(this.#buffer, this.#used, payload, this.#settings.salt, seq);
    this.#lastSeq = seq;
    this.#appendedBytes += length;
    if (!this.#scheduled && !this.#busy) this.#schedule();
    return seq;
  }

  durable(seq: number): Promise<void> {
    if (seq <= this.#durableSeq) return RESOLVED;
    if (seq > this.#lastSeq || !Number.isSafeInteger(seq)) {
      throw new RangeError(`Cannot wait for record ${seq}: the last one is ${this.#lastSeq}`);
    }
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    const active = this.#active;
    if (active !== undefined && seq <= active.lastSeq) return (active.waiters ??= createWaiters()).promise;
    return (this.#waiters ??= createWaiters()).promise;
  }

  onDurable(listener: (seq: number) => void): void {
    this.#listeners.push(listener);
  }

  async snapshot(records: SnapshotRecords, coversSeq: number): Promise<void> {
    if (!(coversSeq >= 1 && coversSeq <= this.#lastSeq)) {
      throw new RangeError(`Cannot snapshot: coversSeq must be 1..${this.#lastSeq}, got ${coversSeq}`);
    }
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#closing !== undefined) throw this.#closedError();
    if (this.#snapshotting !== undefined) {
      throw new LogError("busy", `a snapshot of ${this.#settings.directory} is already being written`);
    }
    if (coversSeq <= this.#snapshotSeq) return;
    this.#snapshotting = this.#writeSnapshot(records, coversSeq);
    try {
      await this.#snapshotting;
    } finally {
      this.#snapshotting = undefined;
    }
  }

  stats(): LogStats {
    const { segments } = this.#files;
    const createdMs = this.#snapshotCreatedMs;
    const syncMs = this.#syncMs.snapshot();
    const groupRecords = this.#groupRecords.snapshot();
    return {
      appendedRecords: this.#lastSeq - this.#openedSeq,
      appendedBytes: this.#appendedBytes,
      pendingBytes: this.#used - MARK_BYTES,
      durableSeq: this.#durableSeq,
      lastSeq: this.#lastSeq,
      groups: groupRecords.count,
      groupRecords,
      syncs: syncMs.count,
      blockingSyncs: this.#blockingSyncs,
      syncMs,
      segments: segments.length,
      segmentBytes: segments.reduce((sum, segment) => sum + segment.bytes, 0),
      snapshots: this.#snapshots,
      snapshotSeq: this.#snapshotSeq,
      snapshotAgeMs: createdMs === undefined ? undefined : this.#settings.clock.wallMs() - createdMs,
      recovery: this.recovery,
    };
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  // ---- appending

  #grow(need: number): void {
    if (need > MAX_PENDING_BYTES) {
      throw new LogError(
        "full",
        `the log in ${this.#settings.directory} has ${this.#used} bytes waiting for the disk, its bound; try again later`,
      );
    }
    const larger = new Uint8Array(Math.min(MAX_PENDING_BYTES, Math.max(need, 2 * this.#buffer.length)));
    larger.set(this.#buffer.subarray(0, this.#used));
    this.#buffer = larger;
  }

  /** The end of the turn, not of the microtask: handlers of one datagram's calls run over several microtasks, and a
   *  timer of 0 would cost 2 ms. */
  #schedule(): void {
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#start();
    });
  }

  #start(): void {
    if (!this.#busy) this.#running = this.#run();
  }

  // ---- the group commit

  /** Writes and syncs until nothing waits. Alone in touching the segment, but for the background sync. Never rejects. */
  async #run(): Promise<void> {
    this.#busy = true;
    const always = this.#settings.durability === "always";
    // Synced, and told so only when the next sync is on its way: the answers are then made while the disk works.
    let untold: Group | undefined;
    const tell = () => {
      if (untold !== undefined) this.#complete(untold);
      untold = undefined;
    };
    try {
      while (this.#failed === undefined) {
        const barriers = this.#barriers.length;
        const group = this.#takeGroup();
        if (group === undefined && barriers === 0) break;
        if (group !== undefined) {
          if (
            this.#segment.bytes > HEADER_BYTES &&
            this.#segment.bytes + group.bytes > this.#settings.segmentBytes
          ) {
            tell();
            await this.#rotate();
          }
          encodeMark(group.buffer, 0, this.#settings.salt, group.firstSeq, this.#syncedSeq);
          if (group.bytes <= SYNC_WRITE_MAX_BYTES) this.#writeHere(group);
          else {
            tell();
            await this.#writeAside(group);
          }
          this.#noteWritten(group);
          if (!always) this.#complete(group);
        }
        if ((always || barriers > 0) && this.#writtenSeq > this.#syncedSeq) {
          if (group !== undefined && barriers === 0 && this.#mayBlock(group)) {
            tell();
            this.#syncHere();
          } else {
            const syncing = this.#syncAside();
            tell();
            await syncing;
          }
          if (always) untold = group;
        }
        if (barriers > 0) {
          tell();
          await this.#passBarriers(barriers);
        }
      }
      tell();
    } catch (error) {
      tell();
      this.#fail(error as LogError);
    }
    this.#busy = false;
    // Listeners may have appended; those records wait for their turn's end like any others.
    if (this.#failed === undefined && (this.#used > MARK_BYTES || this.#barriers.length > 0)) {
      this.#schedule();
    }
  }

  get #segment(): SegmentFile {
    return this.#files.segments.at(-1)!;
  }

  #takeGroup(): Group | undefined {
    if (this.#used === MARK_BYTES) return undefined;
    const group: Group = {
      buffer: this.#buffer,
      bytes: this.#used,
      firstSeq: this.#writtenSeq + 1,
      lastSeq: this.#lastSeq,
      waiters: this.#waiters,
    };
    this.#active = group;
    this.#buffer = this.#spare ?? new Uint8Array(GROUP_BUFFER_BYTES);
    this.#spare = undefined;
    this.#used = MARK_BYTES;
    this.#waiters = undefined;
    return group;
  }

  #writeHere(group: Group): void {
    try {
      writeAllSync(this.#file, group.buffer.subarray(0, group.bytes));
    } catch (error) {
      throw ioFailure("failed", "write to", this.#segment.path, error);
    }
  }

  async #writeAside(group: Group): Promise<void> {
    try {
      await writeAll(this.#file, group.buffer.subarray(0, group.bytes));
    } catch (error) {
      throw ioFailure("failed", "write to", this.#segment.path, error);
    }
  }

  #noteWritten(group: Group): void {
    this.#segment.bytes += group.bytes;
    this.#writtenSeq = group.lastSeq;
    this.#groupRecords.observe(group.lastSeq - group.firstSeq + 1);
    if (group.buffer.length <= KEPT_BUFFER_BYTES) this.#spare = group.buffer;
    if (this.#settings.durability === "interval") this.#armIntervalSync();
  }

  #mayBlock(group: Group): boolean {
    return group.lastSeq - group.firstSeq < BLOCKING_SYNC_MAX_RECORDS &&
      this.#settings.clock.now() >= this.#noBlockingUntilMs;
  }

  #syncHere(): void {
    const startedMs = this.#settings.clock.now();
    try {
      this.#file.syncDataSync();
    } catch (error) {
      throw ioFailure("failed", "sync", this.#segment.path, error);
    }
    this.#blockingSyncs++;
    this.#noteSynced(this.#writtenSeq, startedMs);
  }

  /** Syncs what is written now. A failed sync is never tried again: the kernel may have dropped the pages and would
   *  report success. */
  async #syncAside(): Promise<void> {
    const { path } = this.#segment;
    const seq = this.#writtenSeq;
    const startedMs = this.#settings.clock.now();
    try {
      await this.#file.syncData();
    } catch (error) {
      throw ioFailure("failed", "sync", path, error);
    }
    this.#noteSynced(seq, startedMs);
  }

  #noteSynced(seq: number, startedMs: number): void {
    const endedMs = this.#settings.clock.now();
    this.#syncedSeq = Math.max(this.#syncedSeq, seq);
    this.#syncMs.observe(endedMs - startedMs);
    const tookMs = endedMs - startedMs;
    if (tookMs > BLOCKING_SYNC_MAX_MS) this.#noBlockingUntilMs = endedMs + SLOW_SYNC_PAUSE_FACTOR * tookMs;
    else if (this.#noBlockingUntilMs === Infinity) this.#noBlockingUntilMs = endedMs;
  }

  #complete(group: Group): void {
    this.#durableSeq = group.lastSeq;
    if (this.#active === group) this.#active = undefined;
    for (const listener of this.#listeners) {
      try {
        listener(group.lastSeq);
      } catch (error) {
        // The listener's fault, not the log's: the others must hear, and the owner's worker ends with it.
        reportError(error);
      }
    }
    group.waiters?.resolve();
  }

  async #passBarriers(count: number): Promise<void> {
    const rotate = this.#barriers.some((barrier, i) => i < count && barrier.rotate);
    if (rotate && this.#segment.bytes > ROTATE_FOR_SNAPSHOT_BYTES) await this.#rotate();
    for (const barrier of this.#barriers.splice(0, count)) barrier.waiters.resolve();
  }

  /** Resolves when all that was appended so far is synced; with `rotate`, in a segment that may be left behind. */
  #barrier(rotate: boolean): Promise<void> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    const waiters = createWaiters();
    this.#barriers.push({ rotate, waiters });
    if (!this.#scheduled && !this.#busy) this.#schedule();
    return waiters.promise;
  }

  /** Ends the segment and begins the next. The old one is synced first, whatever the durability: only the last segment
   *  of a log may have a torn tail. */
  async #rotate(): Promise<void> {
    // The next one would have the same name.
    if (this.#writtenSeq < this.#segment.firstSeq) return;
    await this.#backgroundSync;
    this.#disarmIntervalSync();
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#writtenSeq > this.#syncedSeq) await this.#syncAside();
    try {
      const { segment, file } = await createSegment(this.#settings, this.#writtenSeq + 1);
      this.#file.close();
      this.#file = file;
      this.#files.segments.push(segment);
    } catch (error) {
      throw error instanceof LogError
        ? new LogError("failed", error.message, { file: error.file!, cause: error.cause })
        : error;
    }
  }

  #armIntervalSync(): void {
    if (this.#intervalTimer !== undefined || this.#backgroundSync !== undefined) return;
    this.#intervalTimer = setTimeout(() => {
      this.#intervalTimer = undefined;
      this.#backgroundSync = this.#syncInBackground();
    }, this.#settings.intervalMs);
  }

  #disarmIntervalSync(): void {
    clearTimeout(this.#intervalTimer);
    this.#intervalTimer = undefined;
  }

  async #syncInBackground(): Promise<void> {
    try {
      await this.#syncAside();
    } catch (error) {
      this.#fail(error as LogError);
    }
    this.#backgroundSync = undefined;
    if (this.#failed === undefined && this.#writtenSeq > this.#syncedSeq) this.#armIntervalSync();
  }

  /** Stops the log for good. What was not durable may or may not be found by the next opening. */
  #fail(error: LogError): void {
    if (this.#failed !== undefined) return;
    this.#failed = error;
    this.#disarmIntervalSync();
    this.#active?.waiters?.reject(error);
    this.#waiters?.reject(error);
    for (const barrier of this.#barriers.splice(0)) barrier.waiters.reject(error);
    this.#active = this.#waiters = undefined;
    this.#used = MARK_BYTES;
    this.#tellStopped(error);
  }

  // ---- snapshot and close

  async #writeSnapshot(records: SnapshotRecords, coversSeq: number): Promise<void> {
    const { fs, directory, clock, salt } = this.#settings;
    // A snapshot that covers a record proves to recovery that the record had been on disk.
    await this.#barrier(true);
    const createdMs = Math.floor(clock.wallMs());
    const header = { kind: "snapshot", seq: coversSeq, createdMs, salt } as const;
    const abandoned = () => this.#failed ?? (this.#closing === undefined ? undefined : this.#closedError());
    await writeSnapshot({ fs, directory, header, abandoned }, records);
    this.#snapshots++;
    this.#snapshotSeq = coversSeq;
    this.#snapshotCreatedMs = createdMs;
    const { snapshots } = this.#files;
    if (!snapshots.includes(coversSeq)) snapshots.push(coversSeq);
    snapshots.sort((a, b) => a - b);
    await dropCovered(fs, directory, this.#files, coversSeq);
  }

  async #close(): Promise<void> {
    try {
      if (this.#failed === undefined) await this.#barrier(false);
    } finally {
      // Its caller hears how it ended; here it only must have ended.
      await this.#snapshotting?.catch(() => {});
      await this.#running;
      this.#disarmIntervalSync();
      await this.#backgroundSync;
      this.#file.close();
      this.#settings.lock.release();
    }
  }

  #closedError(): LogError {
    return new LogError("closed", `the log in ${this.#settings.directory} is closed`);
  }
}

const RESOLVED = Promise.resolve();

function createWaiters(): Waiters {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // Whoever waits hears of it; a group that nobody waits for any more must not end the process.
  promise.catch(() => {});
  return { promise, resolve, reject };
}
