import { damaged, ioFailure } from "./errors.ts";
import {
  decodeHeader,
  type FileHeader,
  FOOTER_BYTES,
  FOOTER_WORD,
  getUint32,
  HEADER_BYTES,
  isPairAt,
  MARK_BYTES,
  MARK_WORD,
  MAX_RECORD_BYTES,
  pairFirst,
  pairSecond,
  RECORD_HEADER_BYTES,
  recordSeed,
} from "./format.ts";
import { crc32c } from "./crc32c.ts";
import type { LogFile, LogFs } from "./fs.ts";
import { LogError } from "./errors.ts";

/** Bytes asked of the disk at once. Large enough that the calls do not count beside the checksums, small enough that
 *  the event loop gets a turn every few milliseconds. */
const CHUNK_BYTES = 4 * 1024 * 1024;
/** Marks remembered while a segment is read, to know from where its tail may be unsynced. With more unsynced groups
 *  than this, the answer is an earlier mark than needed, which is safe. */
const MAX_REMEMBERED_MARKS = 1_024;

/** What reading a segment to its end found. */
export interface SegmentContent {
  readonly header: FileHeader;
  /** Number that the record after the last good one has. */
  readonly nextSeq: number;
  /** Offset after the last good record. */
  readonly endOffset: number;
  /** Length of the file. */
  readonly fileBytes: number;
  /** From here on nothing in the file proves that it was ever synced. */
  readonly unprovenOffset: number;
  /** Why reading stopped before the end of the file; undefined when it did not. */
  readonly bad: string | undefined;
}

/** Reads a segment, handing every record with a number above `afterSeq` to `onRecord`, in order.
 *  @throws {LogError} `damaged` or `version` for a wrong header, `io` when the file cannot be read. */
export async function readSegment(
  fs: LogFs,
  path: string,
  expectedSeq: number,
  afterSeq: number,
  onRecord: (payload: Uint8Array, seq: number) => void,
): Promise<SegmentContent> {
  return await withReader(fs, path, async (reader) => {
    const header = await readHeader(reader, "segment", expectedSeq);
    const scan = new SegmentScan(header, afterSeq, onRecord);
    let needed = RECORD_HEADER_BYTES;
    while (await reader.fill(needed)) {
      needed = scan.run(reader);
      if (scan.bad !== undefined) break;
    }
    if (scan.bad === undefined && reader.available > 0) {
      scan.bad = `the file ends within a record, ${needed - reader.available} bytes short`;
    }
    return {
      header,
      nextSeq: scan.nextSeq,
      endOffset: reader.offset,
      fileBytes: reader.fileBytes,
      unprovenOffset: scan.unprovenOffset(),
      bad: scan.bad,
    };
  });
}

/** Looks behind a bad place for a mark that was written after `badSeq` had been synced. If there is one, what is bad
 *  had been whole on disk, so it is damage and no torn tail. Returns the mark's offset. */
export async function findProofOfDamage(
  fs: LogFs,
  path: string,
  from: number,
  salt: number,
  badSeq: number,
): Promise<number | undefined> {
  return await withReader(fs, path, async (reader) => {
    await reader.skipTo(from);
    while (await reader.fill(MARK_BYTES)) {
      const { buffer } = reader;
      const last = reader.end - MARK_BYTES;
      let at = reader.start;
      while (at <= last) {
        // The mark's length word is at 4..8 and ends with 0x80, its rarest byte.
        const top = buffer.indexOf(MARK_WORD >>> 24, at + 7);
        if (top < 0 || top - 7 > last) {
          at = last + 1;
          break;
        }
        at = top - 7;
        if (
          getUint32(buffer, at + 4) === MARK_WORD && isPairAt(buffer, at, salt) &&
          pairSecond(buffer, at) >= badSeq
        ) return reader.offset + at - reader.start;
        at++;
      }
      reader.start = at;
    }
    return undefined;
  });
}

/** What a whole snapshot holds. */
export interface SnapshotContent {
  readonly header: FileHeader;
  readonly records: number;
  /** Sum of the payloads, in bytes. */
  readonly bytes: number;
  readonly fileBytes: number;
}

/** Reads a snapshot, handing its records to `onRecord` in the order they were given.
 *  @throws {LogError} `damaged` when it is not whole, `version`, or `io`. A snapshot that was cut short is found before
 *  the first record is handed out. */
export async function readSnapshot(
  fs: LogFs,
  path: string,
  expectedSeq: number,
  onRecord: (payload: Uint8Array) => void,
): Promise<SnapshotContent> {
  return await withReader(fs, path, async (reader) => {
    const header = await readHeader(reader, "snapshot", expectedSeq);
    await requireFooter(reader, header.salt);
    const bodyEnd = reader.fileBytes - FOOTER_BYTES;
    let records = 0, bytes = 0, needed = RECORD_HEADER_BYTES;
    while (reader.offset < bodyEnd) {
      if (!await reader.fill(needed)) throw damaged(path, reader.offset, "the file ends within a record");
      needed = RECORD_HEADER_BYTES;
      while (reader.available >= RECORD_HEADER_BYTES && reader.offset < bodyEnd) {
        const { buffer, start } = reader;
        const length = getUint32(buffer, start + 4);
        const end = start + RECORD_HEADER_BYTES + length;
        const wrong = wrongLength(length) ??
          (reader.offset + end - start > bodyEnd ? "a record runs into the footer" : undefined);
        if (wrong !== undefined) throw damaged(path, reader.offset, wrong);
        if (end > reader.end) {
          needed = end - start;
          break;
        }
        if (getUint32(buffer, start) !== crc32c(buffer, start + 4, end, recordSeed(header.salt, records))) {
          throw damaged(path, reader.offset, `record ${records} of the snapshot does not match its CRC`);
        }
        reader.start = end;
        records++;
        bytes += length;
        onRecord(buffer.subarray(start + RECORD_HEADER_BYTES, end));
      }
    }
    await reader.fill(FOOTER_BYTES);
    if (
      pairFirst(reader.buffer, reader.start) !== records || pairSecond(reader.buffer, reader.start) !== bytes
    ) {
      throw damaged(path, reader.offset, "the footer's counts are not those of the records before it");
    }
    return { header, records, bytes, fileBytes: reader.fileBytes };
  });
}

/** Reads only the header and, with it, the file's length; undefined when the file is too short to have records and
 *  its header is not right, which is how a crash leaves a segment that was just being made. */
export async function isUnusedSegment(fs: LogFs, path: string): Promise<boolean> {
  return await withReader(fs, path, async (reader) => {
    if (reader.fileBytes > HEADER_BYTES) return false;
    await reader.fill(reader.fileBytes);
    const header = decodeHeader(reader.buffer.subarray(reader.start, reader.end), "segment");
    return "wrong" in header && header.wrong === "damaged";
  });
}

/** The parsing of one segment, chunk by chunk. */
class SegmentScan {
  nextSeq: number;
  bad: string | undefined;
  readonly #salt: number;
  readonly #afterSeq: number;
  readonly #onRecord: (payload: Uint8Array, seq: number) => void;
  /** Groups whose sync no later mark has reported yet, oldest first. */
  readonly #marks: { offset: number; nextSeq: number }[];

  constructor(header: FileHeader, afterSeq: number, onRecord: (payload: Uint8Array, seq: number) => void) {
    this.nextSeq = header.seq;
    this.#salt = header.salt;
    this.#afterSeq = afterSeq;
    this.#onRecord = onRecord;
    this.#marks = [{ offset: HEADER_BYTES, nextSeq: header.seq }];
  }

  /** Takes all whole records that the reader holds. Returns how many bytes the next one needs at least. */
  run(reader: ChunkReader): number {
    const { buffer, end } = reader;
    const salt = this.#salt;
    let at = reader.start;
    let needed = RECORD_HEADER_BYTES;
    while (end - at >= RECORD_HEADER_BYTES) {
      const word = getUint32(buffer, at + 4);
      if (word === MARK_WORD) {
        needed = MARK_BYTES;
        if (end - at < needed) break;
        if (!this.#takeMark(buffer, at, reader.offset + at - reader.start)) break;
        at += MARK_BYTES;
      } else {
        this.bad = wrongLength(word);
        if (this.bad !== undefined) break;
        needed = RECORD_HEADER_BYTES + word;
        if (end - at < needed) break;
        const seq = this.nextSeq;
        const recordEnd = at + needed;
        if (getUint32(buffer, at) !== crc32c(buffer, at + 4, recordEnd, recordSeed(salt, seq))) {
          this.bad = `record ${seq} does not match its CRC`;
          break;
        }
        this.nextSeq = seq + 1;
        if (seq > this.#afterSeq) this.#onRecord(buffer.subarray(at + RECORD_HEADER_BYTES, recordEnd), seq);
        at = recordEnd;
      }
      needed = RECORD_HEADER_BYTES;
    }
    reader.start = at;
    return needed;
  }

  unprovenOffset(): number {
    return this.#marks[0]!.offset;
  }

  #takeMark(buffer: Uint8Array, at: number, offset: number): boolean {
    if (!isPairAt(buffer, at, this.#salt)) {
      this.bad = `the mark before record ${this.nextSeq} does not match its CRC`;
      return false;
    }
    const nextSeq = pairFirst(buffer, at), syncedSeq = pairSecond(buffer, at);
    if (nextSeq !== this.nextSeq || syncedSeq >= nextSeq) {
      this.bad = `a mark for record ${nextSeq} stands where record ${this.nextSeq} belongs`;
      return false;
    }
    const marks = this.#marks;
    let synced = 0;
    while (synced + 1 < marks.length && marks[synced + 1]!.nextSeq <= syncedSeq + 1) synced++;
    if (synced > 0) marks.splice(0, synced);
    if (nextSeq <= syncedSeq + 1) marks.length = 0;
    if (marks.length < MAX_REMEMBERED_MARKS) marks.push({ offset, nextSeq });
    return true;
  }
}

/** A file read front to back. Buffers are never reused: callees may keep views of them. */
class ChunkReader {
  buffer: Uint8Array = new Uint8Array(0);
  /** The unread bytes are `buffer[start, end)`. */
  start = 0;
  end = 0;
  /** File offset of `buffer[0]`. */
  #base = 0;

  constructor(readonly path: string, readonly file: LogFile, readonly fileBytes: number) {}

  get available(): number {
    return this.end - this.start;
  }

  /** File offset of the next unread byte. */
  get offset(): number {
    return this.#base + this.start;
  }

  /** Makes at least `needed` bytes available; false when the file has fewer left, all of which are available then. */
  async fill(needed: number): Promise<boolean> {
    if (this.available >= needed) return true;
    const left = this.fileBytes - this.#base - this.end;
    const fresh = new Uint8Array(
      this.available + Math.min(left, Math.max(CHUNK_BYTES, needed - this.available)),
    );
    fresh.set(this.buffer.subarray(this.start, this.end));
    this.#base += this.start;
    this.end -= this.start;
    this.start = 0;
    this.buffer = fresh;
    while (this.end < fresh.length) {
      const read = await this.#io(() => this.file.read(fresh.subarray(this.end)));
      if (read === 0) break;
      this.end += read;
    }
    return this.available >= needed;
  }

  async skipTo(offset: number): Promise<void> {
    await this.#io(() => this.file.seek(offset));
    this.#base = offset;
    this.buffer = new Uint8Array(0);
    this.start = this.end = 0;
  }

  async #io<T>(operation: () => Promise<T>): Promise<T> {
    try {
      return await operation();
    } catch (error) {
      throw ioFailure("io", "read", this.path, error);
    }
  }
}

async function withReader<T>(fs: LogFs, path: string, use: (reader: ChunkReader) => Promise<T>): Promise<T> {
  let file: LogFile;
  try {
    file = await fs.open(path, "read");
  } catch (error) {
    throw ioFailure("io", "open", path, error);
  }
  try {
    let fileBytes: number;
    try {
      fileBytes = await file.size();
    } catch (error) {
      throw ioFailure("io", "read the length of", path, error);
    }
    return await use(new ChunkReader(path, file, fileBytes));
  } finally {
    file.close();
  }
}

async function readHeader(
  reader: ChunkReader,
  kind: FileHeader["kind"],
  expectedSeq: number,
): Promise<FileHeader> {
  await reader.fill(HEADER_BYTES);
  const bytes = reader.buffer.subarray(reader.start, Math.min(reader.end, reader.start + HEADER_BYTES));
  const header = decodeHeader(bytes, kind);
  if ("wrong" in header) {
    if (header.wrong === "damaged") throw damaged(reader.path, 0, header.what);
    const message =
      `cannot read log file ${reader.path}: ${header.what}. Use the program version that wrote it`;
    throw new LogError("version", message, { file: reader.path, offset: 4 });
  }
  if (header.seq !== expectedSeq) {
    throw damaged(reader.path, 8, `the header says ${header.seq} where the name says ${expectedSeq}`);
  }
  reader.start += HEADER_BYTES;
  return header;
}

async function requireFooter(reader: ChunkReader, salt: number): Promise<void> {
  const at = reader.fileBytes - FOOTER_BYTES;
  const back = reader.offset;
  if (at >= HEADER_BYTES) {
    await reader.skipTo(at);
    await reader.fill(FOOTER_BYTES);
    const whole = getUint32(reader.buffer, reader.start + 4) === FOOTER_WORD &&
      isPairAt(reader.buffer, reader.start, salt);
    await reader.skipTo(back);
    if (whole) return;
  }
  throw damaged(reader.path, Math.max(at, HEADER_BYTES), "the snapshot has no footer, so it is not whole");
}

function wrongLength(length: number): string | undefined {
  return length >= 1 && length <= MAX_RECORD_BYTES
    ? undefined
    : `a record's length is ${length}, expected 1..${MAX_RECORD_BYTES}`;
}
