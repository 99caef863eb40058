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
import { compareBytes, type KeyRange } from "./key.ts";
import type { Mvcc } from "./mvcc.ts";
import type { MvccState } from "./state.ts";
import type { WriteLog } from "./txn.ts";

/** Version of the snapshot's and the records' layout. */
export const FORMAT_VERSION = 2;
/** Oldest version that can be read: it had no leases and no named entries. */
const OLDEST_VERSION = 1;

const WRITE = 0x01;
const COMPACT = 0x02;
const IDENTITY = 0x03;
/** Operations without a revision: on named entries only. */
const META = 0x04;
const SNAPSHOT = 0x10;
const KEYS = 0x11;
const END = 0x12;
const ENTRIES = 0x13;

const OP_PUT = 1;
const OP_TOUCH = 2;
const OP_DELETE = 3;
const OP_DELETE_RANGE = 4;
const OP_DELETE_FROM = 5;
const OP_PUT_LEASED = 6;
const OP_TOUCH_LEASED = 7;
const OP_SET_ENTRY = 8;
const OP_REMOVE_ENTRY = 9;

const ROW_TOMBSTONE = 1;
const ROW_LEASED = 2;

/** Numbers of a row while it is read: revision, order, create revision, version, where its value is and how long, where
 *  its lease is. */
const ROW_NUMBERS = 7;
const ID_BYTES = 8;

/** Size at which a snapshot's record is full; a larger key goes alone. One record is one slice of work between writes. */
const SNAPSHOT_RECORD_BYTES = 64 * 1_024;

/** A change of what the store keeps under a name besides its keys: leases, users, alarms. */
export interface EntryChange {
  readonly name: string;
  /** Undefined when the entry was removed. */
  readonly value: Uint8Array | undefined;
}

const NO_ENTRIES: EntryChange[] = [];
const encoder = new TextEncoder();
const decoder = new TextDecoder();

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
  /** Changes of named entries in the record so far. */
  entries: EntryChange[] = NO_ENTRIES;
  readonly #out = new Writer(4_096);

  begin(revision: number): void {
    this.#out.reset();
    this.#out.byte(WRITE);
    this.#out.varint(revision);
    if (this.entries.length > 0) this.entries = NO_ENTRIES;
  }

  put(key: Uint8Array, value: Uint8Array, lease: bigint): void {
    this.#out.byte(lease === 0n ? OP_PUT : OP_PUT_LEASED);
    this.#out.bytes(key);
    if (lease !== 0n) this.#out.id(lease);
    this.#out.bytes(value);
  }

  touch(key: Uint8Array, lease: bigint): void {
    this.#out.byte(lease === 0n ? OP_TOUCH : OP_TOUCH_LEASED);
    this.#out.bytes(key);
    if (lease !== 0n) this.#out.id(lease);
  }

  meta(name: string, value: Uint8Array | undefined): void {
    if (this.entries.length === 0) this.entries = [];
    this.entries.push({ name, value });
    this.#out.byte(value === undefined ? OP_REMOVE_ENTRY : OP_SET_ENTRY);
    this.#out.bytes(encoder.encode(name));
    if (value !== undefined) this.#out.bytes(value);
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

  /** The payload of a record that changed named entries only. */
  get entriesPayload(): Uint8Array {
    const out = new Writer(256);
    out.byte(META);
    for (const { name, value } of this.entries) {
      out.byte(value === undefined ? OP_REMOVE_ENTRY : OP_SET_ENTRY);
      out.bytes(encoder.encode(name));
      if (value !== undefined) out.bytes(value);
    }
    return out.view();
  }
}

/** Record of a compaction up to `revision`. */
export function compactRecord(revision: number): Uint8Array {
  const out = new Writer(16);
  out.byte(COMPACT);
  out.varint(revision);
  return out.view();
}

/** The revision of a compaction's record; undefined for any other record. */
export function compactionOf(record: Uint8Array): number | undefined {
  const input = new Reader(record);
  return input.byte() === COMPACT ? input.varint() : undefined;
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
  /** Named entries as they were at that moment. */
  readonly entries: ReadonlyMap<string, Uint8Array>;
}

/** A snapshot of the state as of a revision, record by record, made as it is asked for: writes go on in between.
 *  Purging must be held from when the scope was taken until the last record was. */
export function* snapshotRecords(
  state: Mvcc,
  { revision, compactRevision, identity, entries }: SnapshotScope,
): Generator<Uint8Array, void, void> {
  const head = new Writer(64);
  head.byte(SNAPSHOT);
  head.varint(FORMAT_VERSION);
  head.varint(revision);
  head.varint(compactRevision);
  head.id(identity.clusterId);
  head.id(identity.memberId);
  yield head.view();
  for (const [name, value] of entries) {
    const out = new Writer(name.length + value.length + 16);
    out.byte(ENTRIES);
    out.bytes(encoder.encode(name));
    out.bytes(value);
    yield out.view();
  }
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
  readonly entries = new Map<string, Uint8Array>();
  #keys = 0;
  #loading = false;
  #lastKept: Uint8Array = new Uint8Array(0);
  /** Rows of one key as they were read, newest first: ROW_NUMBERS numbers each. */
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
    else if (kind === ENTRIES && this.#loading) {
      const name = decoder.decode(input.bytes());
      this.entries.set(name, this.#kept(input.bytes()));
    } else if (kind === END && this.#loading) this.#snapshotEnd(input);
    else throw new RecordError(`the snapshot has a record of unknown kind ${kind}`);
  }

  /** Takes the next record of the log. Writes that the state already has are skipped.
   *  @throws {RecordError} if it cannot follow what was replayed before. */
  logRecord(record: Uint8Array): void {
    if (this.#loading) throw new RecordError("the snapshot ends before its last record");
    const input = new Reader(record);
    const kind = input.byte();
    if (kind === WRITE) this.#write(input);
    else if (kind === META) this.#operations(input, false);
    else if (kind === COMPACT) {
      const revision = input.varint();
      if (revision > this.state.compactRevision) this.state.compact(revision, this.state.revision);
      this.state.purge(Infinity);
    } else if (kind === IDENTITY) this.identity = readIdentity(input);
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
    const isNew = revision > state.revision;
    if (isNew && revision !== state.revision + 1) {
      throw new RecordError(`the log goes from revision ${state.revision} to ${revision}`);
    }
    this.#operations(input, isNew);
    if (isNew) state.commit();
  }

  /** Runs a record's operations; those on keys only if `onKeys`. */
  #operations(input: Reader, onKeys: boolean): void {
    const state = this.state;
    while (!input.isAtEnd) {
      const kind = input.byte();
      const key = input.bytes();
      const lease = kind === OP_PUT_LEASED || kind === OP_TOUCH_LEASED ? input.id() : 0n;
      if (kind === OP_PUT || kind === OP_PUT_LEASED) {
        const value = input.bytes();
        if (onKeys) state.put(key, value, lease);
      } else if (kind === OP_TOUCH || kind === OP_TOUCH_LEASED) {
        if (onKeys) state.put(key, undefined, lease);
      } else if (kind === OP_DELETE) {
        if (onKeys) state.delete(key);
      } else if (kind === OP_DELETE_RANGE) {
        const end = input.bytes();
        if (onKeys) state.deleteRange({ start: key, end });
      } else if (kind === OP_DELETE_FROM) {
        if (onKeys) state.deleteRange({ start: key, end: undefined });
      } else if (kind === OP_SET_ENTRY) this.entries.set(decoder.decode(key), this.#kept(input.bytes()));
      else if (kind === OP_REMOVE_ENTRY) this.entries.delete(decoder.decode(key));
      else throw new RecordError(`the log has an operation of unknown kind ${kind}`);
    }
  }

  /** A copy of a value, or the one before if that is the same: a million leases of one duration share it. */
  #kept(value: Uint8Array): Uint8Array {
    if (compareBytes(value, this.#lastKept) !== 0) this.#lastKept = value.slice();
    return this.#lastKept;
  }

  #snapshotHead(input: Reader): void {
    const version = input.varint();
    if (version < OLDEST_VERSION || version > FORMAT_VERSION) {
      throw new RecordError(
        `the snapshot has format version ${version}, this program reads ${OLDEST_VERSION} to ${FORMAT_VERSION}`,
      );
    }
    const revision = input.varint();
    this.state.beginLoad(revision, input.varint());
    this.identity = readIdentity(input);
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
        const flags = input.byte();
        rows.push(input.varint(), input.varint());
        if ((flags & ROW_TOMBSTONE) !== 0) rows.push(0, 0, -1, 0, -1);
        else {
          rows.push(input.varint(), input.varint());
          const leaseAt = (flags & ROW_LEASED) !== 0 ? input.skip(ID_BYTES) : -1;
          const length = input.varint();
          rows.push(input.skip(length), length, leaseAt);
        }
      }
      const id = state.loadKey(key, rows[4]! >= 0);
      for (let at = rows.length - ROW_NUMBERS; at >= 0; at -= ROW_NUMBERS) {
        const start = rows[at + 4]!;
        const value = start < 0 ? undefined : input.slice(start, rows[at + 5]!);
        const leaseAt = rows[at + 6]!;
        const lease = leaseAt < 0 ? 0n : input.idAt(leaseAt);
        state.loadRow(id, rows[at]!, rows[at + 1]!, rows[at + 2]!, rows[at + 3]!, lease, value);
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

function writeKey(out: Writer, state: Mvcc, key: Uint8Array, rows: readonly number[]): void {
  out.bytes(key);
  out.varint(rows.length);
  for (const row of rows) {
    const isTombstone = state.isTombstone(row);
    const lease = state.leaseOf(row);
    out.byte(isTombstone ? ROW_TOMBSTONE : lease !== 0n ? ROW_LEASED : 0);
    out.varint(state.modRevision(row));
    out.varint(state.subOf(row));
    if (isTombstone) continue;
    out.varint(state.createRevision(row));
    out.varint(state.version(row));
    if (lease !== 0n) out.id(lease);
    out.bytes(state.valueOf(row));
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
    this.#room(ID_BYTES);
    new DataView(this.#buffer.buffer).setBigInt64(this.length, value);
    this.length += ID_BYTES;
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
    return this.idAt(this.skip(ID_BYTES));
  }

  idAt(start: number): bigint {
    return new DataView(this.record.buffer, this.record.byteOffset + start, ID_BYTES).getBigInt64(0);
  }
}

function readIdentity(input: Reader): Identity {
  return { clusterId: BigInt.asUintN(64, input.id()), memberId: BigInt.asUintN(64, input.id()) };
}

function truncated(): RecordError {
  return new RecordError("a record ends too early");
}
