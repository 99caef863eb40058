/** Bytes of the log and of snapshots. Integers are LEB128 varints; "bytes" is a length and that many bytes.
 *
 *      write      01 · revision · operations until the end of the record
 *                      01 key value (put) · 02 key (put that keeps the value) · 03 key (delete)
 *                      04 start end (delete range) · 05 start (delete range without end)
 *      compact    02 · revision
 *      identity   03 · cluster id (8 bytes) · member id (8 bytes)
 *      snapshot   10 · format version · revision · compact revision · cluster id · member id
 *      keys       11 · keys until the end of the record: key · rows · rows × (flags · revision · sub · [create · version · value])
 *      end        12 · keys
 *
 *  A record says what was done, not what came of it: create revisions and versions follow from the state it is done on,
 *  and the log replays records in order on exactly that state. */
import type { KeyRange } from "./key.ts";
import type { MvccState } from "./state.ts";
import type { WriteLog } from "./txn.ts";

/** Version of the snapshot's and the records' layout. */
export const FORMAT_VERSION = 1;

const WRITE = 0x01;
const COMPACT = 0x02;
const IDENTITY = 0x03;
const SNAPSHOT = 0x10;
const KEYS = 0x11;
const END = 0x12;

const OP_PUT = 1;
const OP_TOUCH = 2;
const OP_DELETE = 3;
const OP_DELETE_RANGE = 4;
const OP_DELETE_FROM = 5;

const ROW_TOMBSTONE = 1;

/** Size at which a snapshot's record is full; a larger key goes alone. One record is one slice of work between writes. */
const SNAPSHOT_RECORD_BYTES = 64 * 1_024;

/** Who this store is to clients; made once, kept in the log. */
export interface Identity {
  readonly clusterId: bigint;
  readonly memberId: bigint;
}

/** The bytes cannot be what this version wrote. */
export class RecordError extends Error {
  override readonly name = "RecordError";
}

/** Builds the record of one write while it runs. Its buffer is reused: the bytes are valid until the next `begin`. */
export class WriteRecord implements WriteLog {
  readonly #out = new Writer(4_096);

  begin(revision: number): void {
    this.#out.reset();
    this.#out.byte(WRITE);
    this.#out.varint(revision);
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.#out.byte(OP_PUT);
    this.#out.bytes(key);
    this.#out.bytes(value);
  }

  touch(key: Uint8Array): void {
    this.#out.byte(OP_TOUCH);
    this.#out.bytes(key);
  }

  delete(key: Uint8Array): void {
    this.#out.byte(OP_DELETE);
    this.#out.bytes(key);
  }

  deleteRange(range: KeyRange): void {
    this.#out.byte(range.end === undefined ? OP_DELETE_FROM : OP_DELETE_RANGE);
    this.#out.bytes(range.start);
    if (range.end !== undefined) this.#out.bytes(range.end);
  }

  get payload(): Uint8Array {
    return this.#out.view();
  }
}

/** Record of a compaction up to `revision`. */
export function compactRecord(revision: number): Uint8Array {
  const out = new Writer(16);
  out.byte(COMPACT);
  out.varint(revision);
  return out.view();
}

/** Record of the store's identity; the first one of its log. */
export function identityRecord(identity: Identity): Uint8Array {
  const out = new Writer(32);
  out.byte(IDENTITY);
  out.id(identity.clusterId);
  out.id(identity.memberId);
  return out.view();
}

/** What a snapshot stands for. */
export interface SnapshotScope {
  readonly revision: number;
  /** Oldest revision that can be read from it. */
  readonly compactRevision: number;
  readonly identity: Identity;
}

/** A snapshot of the state as of a revision, record by record, made as it is asked for: writes go on in between.
 *  Purging must be held from when the scope was taken until the last record was. */
export function* snapshotRecords(
  state: MvccState,
  { revision, compactRevision, identity }: SnapshotScope,
): Generator<Uint8Array, void, void> {
  const head = new Writer(64);
  head.byte(SNAPSHOT);
  head.varint(FORMAT_VERSION);
  head.varint(revision);
  head.varint(compactRevision);
  head.id(identity.clusterId);
  head.id(identity.memberId);
  yield head.view();
  let keys = 0;
  let after: Uint8Array | undefined;
  for (;;) {
    const out = new Writer(SNAPSHOT_RECORD_BYTES + 4_096);
    out.byte(KEYS);
    const before = keys;
    state.visitRows(after, compactRevision, revision, (key, rows) => {
      writeKey(out, state, key, rows);
      keys++;
      after = key;
      return out.length < SNAPSHOT_RECORD_BYTES;
    });
    if (keys === before) break;
    yield out.view();
  }
  const end = new Writer(16);
  end.byte(END);
  end.varint(keys);
  yield end.view();
}

/** Rebuilds a state from a snapshot's records and the log's records after it, in the order in which they were written. */
export class Replay {
  identity: Identity | undefined;
  #keys = 0;
  #loading = false;
  /** Rows of one key as they were read, newest first: six numbers each. */
  #rows: number[] = [];

  constructor(readonly state: MvccState) {
    state.deferOrder(true);
  }

  /** Takes the next record of the snapshot.
   *  @throws {RecordError} if it is not one this version can read. */
  snapshotRecord(record: Uint8Array): void {
    const input = new Reader(record);
    const kind = input.byte();
    if (kind === SNAPSHOT) this.#snapshotHead(input);
    else if (kind === KEYS && this.#loading) this.#snapshotKeys(input);
    else if (kind === END && this.#loading) this.#snapshotEnd(input);
    else throw new RecordError(`the snapshot has a record of unknown kind ${kind}`);
  }

  /** Takes the next record of the log. Writes that the state already has are skipped.
   *  @throws {RecordError} if it cannot follow what was replayed before. */
  logRecord(record: Uint8Array): void {
    if (this.#loading) throw new RecordError("the snapshot ends before its last record");
    const input = new Reader(record);
    const kind = input.byte();
    if (kind === WRITE) this.#write(input);
    else if (kind === COMPACT) {
      const revision = input.varint();
      if (revision > this.state.compactRevision) this.state.compact(revision, this.state.revision);
      this.state.purge(Infinity);
    } else if (kind === IDENTITY) this.identity = { clusterId: input.id(), memberId: input.id() };
    else throw new RecordError(`the log has a record of unknown kind ${kind}`);
  }

  /** Call when all records were taken. */
  end(): void {
    if (this.#loading) throw new RecordError("the snapshot ends before its last record");
    this.state.deferOrder(false);
  }

  #write(input: Reader): void {
    const state = this.state;
    const revision = input.varint();
    if (revision <= state.revision) return;
    if (revision !== state.revision + 1) {
      throw new RecordError(`the log goes from revision ${state.revision} to ${revision}`);
    }
    while (!input.isAtEnd) {
      const kind = input.byte();
      const key = input.bytes();
      if (kind === OP_PUT) state.put(key, input.bytes());
      else if (kind === OP_TOUCH) state.put(key, undefined);
      else if (kind === OP_DELETE) state.delete(key);
      else if (kind === OP_DELETE_RANGE) state.deleteRange({ start: key, end: input.bytes() });
      else if (kind === OP_DELETE_FROM) state.deleteRange({ start: key, end: undefined });
      else throw new RecordError(`the log has an operation of unknown kind ${kind}`);
    }
    state.commit();
  }

  #snapshotHead(input: Reader): void {
    const version = input.varint();
    if (version !== FORMAT_VERSION) {
      throw new RecordError(
        `the snapshot has format version ${version}, this program reads ${FORMAT_VERSION}`,
      );
    }
    const revision = input.varint();
    this.state.beginLoad(revision, input.varint());
    this.identity = { clusterId: input.id(), memberId: input.id() };
    this.#loading = true;
  }

  #snapshotKeys(input: Reader): void {
    const state = this.state;
    const rows = this.#rows;
    while (!input.isAtEnd) {
      const key = input.bytes();
      const count = input.varint();
      rows.length = 0;
      for (let i = 0; i < count; i++) {
        const isTombstone = input.byte() === ROW_TOMBSTONE;
        rows.push(input.varint(), input.varint());
        if (isTombstone) rows.push(0, 0, -1, 0);
        else {
          rows.push(input.varint(), input.varint());
          const length = input.varint();
          rows.push(input.skip(length), length);
        }
      }
      const id = state.loadKey(key, rows[4]! >= 0);
      for (let at = rows.length - 6; at >= 0; at -= 6) {
        const start = rows[at + 4]!;
        const value = start < 0 ? undefined : input.slice(start, rows[at + 5]!);
        state.loadRow(id, rows[at]!, rows[at + 1]!, rows[at + 2]!, rows[at + 3]!, value);
      }
      this.#keys++;
    }
  }

  #snapshotEnd(input: Reader): void {
    const keys = input.varint();
    if (keys !== this.#keys) {
      throw new RecordError(`the snapshot says it has ${keys} keys but ${this.#keys} were read`);
    }
    this.state.endLoad();
    this.#loading = false;
  }
}

function writeKey(out: Writer, state: MvccState, key: Uint8Array, rows: readonly number[]): void {
  out.bytes(key);
  out.varint(rows.length);
  for (const row of rows) {
    const image = state.image(row);
    out.byte(image.value === undefined ? ROW_TOMBSTONE : 0);
    out.varint(image.modRevision);
    out.varint(image.sub);
    if (image.value === undefined) continue;
    out.varint(image.createRevision);
    out.varint(image.version);
    out.bytes(image.value);
  }
}

class Writer {
  length = 0;
  #buffer: Uint8Array;

  constructor(capacity: number) {
    this.#buffer = new Uint8Array(capacity);
  }

  reset(): void {
    this.length = 0;
    // One huge write must not keep its buffer for good.
    if (this.#buffer.length > 1_048_576) this.#buffer = new Uint8Array(4_096);
  }

  byte(value: number): void {
    this.#room(1);
    this.#buffer[this.length++] = value;
  }

  /** A whole number of 0 to 2^53 - 1. */
  varint(value: number): void {
    this.#room(8);
    const buffer = this.#buffer;
    while (value > 0x7fff_ffff) {
      buffer[this.length++] = (value % 128) | 0x80;
      value = Math.floor(value / 128);
    }
    while (value > 127) {
      buffer[this.length++] = (value & 127) | 0x80;
      value >>>= 7;
    }
    buffer[this.length++] = value;
  }

  bytes(value: Uint8Array): void {
    this.varint(value.length);
    this.#room(value.length);
    this.#buffer.set(value, this.length);
    this.length += value.length;
  }

  id(value: bigint): void {
    this.#room(8);
    new DataView(this.#buffer.buffer).setBigUint64(this.length, value);
    this.length += 8;
  }

  view(): Uint8Array {
    return this.#buffer.subarray(0, this.length);
  }

  #room(bytes: number): void {
    if (this.length + bytes <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(this.#buffer.length * 2, this.length + bytes));
    larger.set(this.#buffer);
    this.#buffer = larger;
  }
}

class Reader {
  #at = 0;

  constructor(readonly record: Uint8Array) {}

  get isAtEnd(): boolean {
    return this.#at === this.record.length;
  }

  byte(): number {
    if (this.#at >= this.record.length) throw truncated();
    return this.record[this.#at++]!;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.byte();
      value += (byte & 127) * scale;
      if (byte < 128) break;
      scale *= 128;
    }
    if (!Number.isSafeInteger(value)) throw new RecordError("a number is out of range");
    return value;
  }

  bytes(): Uint8Array {
    const length = this.varint();
    return this.slice(this.skip(length), length);
  }

  /** Steps over bytes and returns where they begin. */
  skip(length: number): number {
    const start = this.#at;
    if (length > this.record.length - start) throw truncated();
    this.#at = start + length;
    return start;
  }

  slice(start: number, length: number): Uint8Array {
    return this.record.subarray(start, start + length);
  }

  id(): bigint {
    const start = this.skip(8);
    return new DataView(this.record.buffer, this.record.byteOffset + start, 8).getBigUint64(0);
  }
}

function truncated(): RecordError {
  return new RecordError("a record ends too early");
}
