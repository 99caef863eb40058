import { damaged, LogError } from "./errors.ts";
import { parseName, segmentName, SNAPSHOT_TEMP_NAME, snapshotName } from "./format.ts";
import type { LogFs } from "./fs.ts";
import { attempt, writeAll } from "./io.ts";
import {
  findProofOfDamage,
  isUnusedSegment,
  readSegment,
  readSnapshot,
  type SegmentContent,
} from "./reader.ts";

/** What opening a log found and did. */
export interface RecoveryReport {
  /** Last number that the snapshot used covers; 0 without one. */
  readonly snapshotSeq: number;
  /** When that snapshot was made, Unix milliseconds; undefined without one. */
  readonly snapshotCreatedMs: number | undefined;
  readonly snapshotRecords: number;
  /** Payload bytes in the snapshot. */
  readonly snapshotBytes: number;
  /** Records replayed after the snapshot. */
  readonly records: number;
  /** Payload bytes of those records. */
  readonly recordBytes: number;
  /** Bytes cut from the torn tail of the last segment; 0 when it was whole. */
  readonly cutBytes: number;
  /** What was found at the place of the cut, with file and offset; undefined without a cut. */
  readonly cutReason: string | undefined;
  /** Newer snapshots that were damaged and not needed, because an older base and all segments were there. */
  readonly skippedSnapshots: readonly string[];
  /** How long it took, in milliseconds, callbacks included. */
  readonly durationMs: number;
}

/** Who receives what is recovered. */
export interface RecoveryCallbacks {
  onSnapshot(record: Uint8Array): void;
  onRecord(payload: Uint8Array, seq: number): void;
}

/** The files of a log, as recovery leaves them. */
export interface RecoveredFiles {
  /** Segments in order; the last is the one to append to. Empty for a new log. */
  readonly segments: SegmentFile[];
  /** Covered numbers of the snapshots there, ascending. */
  readonly snapshots: number[];
  /** Number that the next record gets. */
  readonly nextSeq: number;
  /** Salt of the last segment; undefined for a new log. */
  readonly salt: number | undefined;
  readonly report: Omit<RecoveryReport, "durationMs">;
}

/** A segment's place and length. */
export interface SegmentFile {
  readonly firstSeq: number;
  readonly path: string;
  bytes: number;
}

/** Reads the newest whole snapshot and the segments after it, checks everything on the way, and repairs a torn tail.
 *  Nothing on disk changes before all of it is found good. FORMAT.md has the rules.
 *  @throws {LogError} `damaged`, `version` or `io`. */
export async function recover(
  fs: LogFs,
  directory: string,
  callbacks: RecoveryCallbacks,
): Promise<RecoveredFiles> {
  const names = await attempt("list", directory, () => fs.list(directory));
  const found = sortNames(names);
  const base = await readBase(fs, directory, found, callbacks.onSnapshot);
  const log = await readSegments(fs, directory, found, base.seq, callbacks.onRecord);
  if (names.includes(SNAPSHOT_TEMP_NAME)) await removeFile(fs, `${directory}/${SNAPSHOT_TEMP_NAME}`);
  const segments = await repairTail(fs, log);
  // A rename or a new segment may have been seen that was never made durable.
  await attempt("sync the directory", directory, () => fs.syncDirectory(directory));
  // A crash may have come between a snapshot's rename and the removal of what it covers.
  await dropCovered(fs, directory, { segments, snapshots: found.snapshots }, base.seq);
  return {
    segments,
    snapshots: found.snapshots,
    nextSeq: log.nextSeq,
    salt: log.last?.header.salt,
    report: {
      snapshotSeq: base.seq,
      snapshotCreatedMs: base.createdMs,
      snapshotRecords: base.records,
      snapshotBytes: base.bytes,
      records: log.records,
      recordBytes: log.recordBytes,
      cutBytes: log.cutBytes,
      cutReason: log.cutReason,
      skippedSnapshots: base.skipped,
    },
  };
}

/** Removes the snapshots older than `coversSeq` and the segments that it covers whole; never the last segment.
 *  Both lists shrink by what is gone, so a failure can be made good by the next call. Returns how many went. */
export async function dropCovered(
  fs: LogFs,
  directory: string,
  files: { segments: SegmentFile[]; snapshots: number[] },
  coversSeq: number,
): Promise<number> {
  let dropped = 0;
  while (files.snapshots.length > 0 && files.snapshots[0]! < coversSeq) {
    await removeFile(fs, `${directory}/${snapshotName(files.snapshots[0]!)}`);
    files.snapshots.shift();
    dropped++;
  }
  while (files.segments.length > 1 && files.segments[1]!.firstSeq <= coversSeq + 1) {
    await removeFile(fs, files.segments[0]!.path);
    files.segments.shift();
    dropped++;
  }
  return dropped;
}

interface FoundNames {
  /** First numbers of the segments, ascending. */
  segments: number[];
  /** Covered numbers of the snapshots, ascending. */
  snapshots: number[];
}

function sortNames(names: string[]): FoundNames {
  const parsed = names.map(parseName).filter((name) => name !== undefined);
  const seqsOf = (kind: string) => parsed.filter((name) => name.kind === kind).map((name) => name.seq);
  return {
    segments: seqsOf("segment").sort((a, b) => a - b),
    snapshots: seqsOf("snapshot").sort((a, b) => a - b),
  };
}

interface Base {
  seq: number;
  createdMs: number | undefined;
  records: number;
  bytes: number;
  skipped: string[];
}

/** Hands out the newest whole snapshot. A damaged one is passed over only while another base is there; each is then
 *  read twice, because no record of a damaged snapshot may be handed out. */
async function readBase(
  fs: LogFs,
  directory: string,
  found: FoundNames,
  onSnapshot: (record: Uint8Array) => void,
): Promise<Base> {
  const skipped: string[] = [];
  for (let i = found.snapshots.length - 1; i >= 0; i--) {
    const seq = found.snapshots[i]!;
    const path = `${directory}/${snapshotName(seq)}`;
    const hasOtherBase = i > 0 || found.segments[0] === 1;
    try {
      if (hasOtherBase) await readSnapshot(fs, path, seq, () => {});
    } catch (error) {
      if (!(error instanceof LogError && error.code === "damaged")) throw error;
      skipped.push(error.message);
      continue;
    }
    const content = await readSnapshot(fs, path, seq, onSnapshot);
    return {
      seq,
      createdMs: content.header.createdMs,
      records: content.records,
      bytes: content.bytes,
      skipped,
    };
  }
  return { seq: 0, createdMs: undefined, records: 0, bytes: 0, skipped };
}

interface ReplayedLog {
  segments: SegmentFile[];
  /** The last segment's content; undefined when there is none or it was never used. */
  last: SegmentContent | undefined;
  nextSeq: number;
  records: number;
  recordBytes: number;
  cutBytes: number;
  cutReason: string | undefined;
}

async function readSegments(
  fs: LogFs,
  directory: string,
  found: FoundNames,
  baseSeq: number,
  onRecord: (payload: Uint8Array, seq: number) => void,
): Promise<ReplayedLog> {
  const pathOf = (seq: number) => `${directory}/${segmentName(seq)}`;
  const seqs = found.segments;
  const log: ReplayedLog = {
    segments: seqs.map((firstSeq) => ({ firstSeq, path: pathOf(firstSeq), bytes: 0 })),
    last: undefined,
    nextSeq: baseSeq + 1,
    records: 0,
    recordBytes: 0,
    cutBytes: 0,
    cutReason: undefined,
  };
  if (seqs.length === 0 && baseSeq === 0 && found.snapshots.length === 0) return log;
  const first = seqs.findLastIndex((firstSeq) => firstSeq <= baseSeq + 1);
  if (first < 0) {
    throw damaged(pathOf(baseSeq + 1), 0, `the segment that holds record ${baseSeq + 1} is missing`);
  }
  const count = (payload: Uint8Array, seq: number) => {
    log.records++;
    log.recordBytes += payload.length;
    onRecord(payload, seq);
  };
  let nextSeq = seqs[first]!;
  for (let i = first; i < seqs.length; i++) {
    const segment = log.segments[i]!;
    const isLast = i === seqs.length - 1;
    if (segment.firstSeq !== nextSeq) {
      throw damaged(
        segment.path,
        0,
        `it begins with record ${segment.firstSeq}, and records ${nextSeq}..${
          segment.firstSeq - 1
        } are in no file`,
      );
    }
    if (isLast && await isUnusedSegment(fs, segment.path)) {
      log.segments.pop();
      break;
    }
    const content = await readSegment(fs, segment.path, segment.firstSeq, baseSeq, count);
    segment.bytes = content.endOffset;
    nextSeq = content.nextSeq;
    if (isLast) log.last = content;
    if (content.bad === undefined) continue;
    if (!isLast) throw damaged(segment.path, content.endOffset, `${content.bad}, and later segments follow`);
    await requireTornTail(fs, segment.path, content);
    log.cutBytes = content.fileBytes - content.endOffset;
    log.cutReason = `${segment.path} at byte ${content.endOffset}: ${content.bad}`;
  }
  if (nextSeq <= baseSeq) {
    const { path, bytes } = log.segments.at(-1) ?? { path: pathOf(nextSeq), bytes: 0 };
    throw damaged(
      path,
      bytes,
      `it ends before record ${nextSeq}, which the snapshot of ${baseSeq} says was on disk`,
    );
  }
  log.nextSeq = nextSeq;
  return log;
}

async function requireTornTail(fs: LogFs, path: string, content: SegmentContent): Promise<void> {
  const { endOffset, header, nextSeq } = content;
  const proof = await findProofOfDamage(fs, path, endOffset + 1, header.salt, nextSeq);
  if (proof === undefined) return;
  throw damaged(
    path,
    endOffset,
    `${content.bad}; the mark at byte ${proof} shows that record ${nextSeq} had been on disk, so this is no torn tail`,
  );
}

/** Cuts the torn tail, and writes what follows the last proven sync once more before syncing. The page cache may hold
 *  bytes whose sync failed: such pages count as clean, and only a new write makes the kernel try them again. */
async function repairTail(fs: LogFs, log: ReplayedLog): Promise<SegmentFile[]> {
  const segment = log.segments.at(-1);
  const { last } = log;
  if (segment === undefined || last === undefined) return log.segments;
  await attempt("repair the tail of", segment.path, async () => {
    const file = await fs.open(segment.path, "update");
    try {
      if (log.cutBytes > 0) await file.truncate(last.endOffset);
      const tail = new Uint8Array(last.endOffset - last.unprovenOffset);
      await file.seek(last.unprovenOffset);
      for (let at = 0; at < tail.length;) {
        const read = await file.read(tail.subarray(at));
        if (read === 0) {
          throw damaged(segment.path, last.unprovenOffset + at, "it became shorter while it was read");
        }
        at += read;
      }
      await file.seek(last.unprovenOffset);
      await writeAll(file, tail);
      await file.syncData();
    } finally {
      file.close();
    }
  });
  return log.segments;
}

async function removeFile(fs: LogFs, path: string): Promise<void> {
  await attempt("remove", path, () => fs.remove(path));
}
