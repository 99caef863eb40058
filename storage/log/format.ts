import { crc32c } from "./crc32c.ts";

/** The file formats of FORMAT.md, as bytes. Pure: no file is touched here. */

/** Version of both file formats. Another version is refused, never guessed at. */
export const FORMAT_VERSION = 1;
/** Length of a segment's and of a snapshot's header, in bytes. Within one disk sector, so it is there or it is not. */
export const HEADER_BYTES = 32;
/** Bytes before a record's payload: CRC and length. */
export const RECORD_HEADER_BYTES = 8;
/** Largest payload of a record, in bytes. A length beyond it is damage, which keeps a flipped bit from asking for
 *  gigabytes; it is far above the services' own limits (etcd's largest request is 1.5 MiB). */
export const MAX_RECORD_BYTES = 16 * 1024 * 1024;
/** Whole length of a mark, in bytes: record header, next sequence number, synced sequence number. */
export const MARK_BYTES = RECORD_HEADER_BYTES + 16;
/** Whole length of a snapshot's footer, in bytes: record header, record count, payload bytes. */
export const FOOTER_BYTES = RECORD_HEADER_BYTES + 16;
/** The length word of a mark: its top bit, and the payload's 16 bytes. */
export const MARK_WORD = 0x80000010;
/** The length word of a snapshot's footer. */
export const FOOTER_WORD = 0xc0000010;

/** What a file says of itself. */
export interface FileHeader {
  /** `segment`: `seq` is that of its first record. `snapshot`: `seq` is the last one that it covers. */
  readonly kind: "segment" | "snapshot";
  readonly seq: number;
  /** Wall clock at its making, Unix milliseconds. For people only. */
  readonly createdMs: number;
  /** Random 32 bits that every CRC of the file starts from, so that bytes of another file never pass for this one's. */
  readonly salt: number;
}

const MAGIC = { segment: 0x474c4641, snapshot: 0x4e534641 } as const; // "AFLG", "AFSN" read as little-endian

/** The bytes of a file header, CRC included. */
export function encodeHeader(header: FileHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC[header.kind], true);
  view.setUint16(4, FORMAT_VERSION, true);
  view.setBigUint64(8, BigInt(header.seq), true);
  view.setBigUint64(16, BigInt(header.createdMs), true);
  view.setUint32(24, header.salt, true);
  view.setUint32(28, crc32c(bytes, 0, 28, 0), true);
  return bytes;
}

/** Reads a header, or says what is wrong with it. `version` is told apart, because there the file is not at fault. */
export function decodeHeader(
  bytes: Uint8Array,
  kind: FileHeader["kind"],
): FileHeader | { readonly wrong: "damaged" | "version"; readonly what: string } {
  if (bytes.length < HEADER_BYTES) {
    return { wrong: "damaged", what: `the file ends within its header, after ${bytes.length} bytes` };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (view.getUint32(0, true) !== MAGIC[kind]) {
    return { wrong: "damaged", what: `this is no ${kind} (wrong magic)` };
  }
  if (view.getUint32(28, true) !== crc32c(bytes, 0, 28, 0)) {
    return { wrong: "damaged", what: "the header's CRC does not match" };
  }
  const version = view.getUint16(4, true);
  if (version !== FORMAT_VERSION) {
    return { wrong: "version", what: `format version ${version}, this program reads ${FORMAT_VERSION}` };
  }
  const seq = Number(view.getBigUint64(8, true));
  if (!Number.isSafeInteger(seq)) return { wrong: "damaged", what: `sequence number ${seq} is out of range` };
  return { kind, seq, createdMs: Number(view.getBigUint64(16, true)), salt: view.getUint32(24, true) };
}

/** Writes a record at `at`; `place` is its sequence number in a segment, its index in a snapshot.
 *  Returns the offset after it. The caller made sure of room and of 1..MAX_RECORD_BYTES. */
export function encodeRecord(
  into: Uint8Array,
  at: number,
  payload: Uint8Array,
  salt: number,
  place: number,
): number {
  const end = at + RECORD_HEADER_BYTES + payload.length;
  putUint32(into, at + 4, payload.length);
  into.set(payload, at + RECORD_HEADER_BYTES);
  putUint32(into, at, crc32c(into, at + 4, end, recordSeed(salt, place)));
  return end;
}

/** What a record's CRC starts from: a record that moved to another place, or to another file, does not pass. */
export function recordSeed(salt: number, place: number): number {
  return (salt ^ place) >>> 0;
}

/** Writes the mark that opens a group: its first record's number and the last number that was synced before. */
export function encodeMark(
  into: Uint8Array,
  at: number,
  salt: number,
  nextSeq: number,
  syncedSeq: number,
): void {
  encodePair(into, at, MARK_WORD, salt, nextSeq, syncedSeq);
}

/** Writes the footer that ends a snapshot. */
export function encodeFooter(
  into: Uint8Array,
  at: number,
  salt: number,
  records: number,
  bytes: number,
): void {
  encodePair(into, at, FOOTER_WORD, salt, records, bytes);
}

/** True when a mark or footer with this length word stands whole and right at `at`; the caller checked the room. */
export function isPairAt(bytes: Uint8Array, at: number, salt: number): boolean {
  return getUint32(bytes, at) === crc32c(bytes, at + 4, at + MARK_BYTES, recordSeed(salt, 0));
}

/** The first number of the mark or footer at `at`. */
export function pairFirst(bytes: Uint8Array, at: number): number {
  return getUint64(bytes, at + 8);
}

/** The second number of the mark or footer at `at`. */
export function pairSecond(bytes: Uint8Array, at: number): number {
  return getUint64(bytes, at + 16);
}

function encodePair(
  into: Uint8Array,
  at: number,
  word: number,
  salt: number,
  first: number,
  second: number,
): void {
  putUint32(into, at + 4, word);
  putUint64(into, at + 8, first);
  putUint64(into, at + 16, second);
  putUint32(into, at, crc32c(into, at + 4, at + MARK_BYTES, recordSeed(salt, 0)));
}

/** The length word, or any 32-bit number, at `at`. */
export function getUint32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function putUint32(into: Uint8Array, at: number, value: number): void {
  into[at] = value;
  into[at + 1] = value >>> 8;
  into[at + 2] = value >>> 16;
  into[at + 3] = value >>> 24;
}

const TWO_32 = 2 ** 32;

function getUint64(bytes: Uint8Array, at: number): number {
  return getUint32(bytes, at) + getUint32(bytes, at + 4) * TWO_32;
}

function putUint64(into: Uint8Array, at: number, value: number): void {
  putUint32(into, at, value >>> 0);
  putUint32(into, at + 4, Math.floor(value / TWO_32));
}

/** File names: the number is padded, so that names sort as numbers do. */
export function segmentName(firstSeq: number): string {
  return `segment-${String(firstSeq).padStart(16, "0")}.log`;
}

/** Name of the snapshot that covers all records up to `coversSeq`. */
export function snapshotName(coversSeq: number): string {
  return `snapshot-${String(coversSeq).padStart(16, "0")}.snap`;
}

/** Name that a snapshot has while it is being written. */
export const SNAPSHOT_TEMP_NAME = "snapshot.tmp";
/** Name of the file that the directory's lock is on. It holds nothing and is never removed. */
export const LOCK_NAME = "lock";

/** The number in a segment's or snapshot's name, undefined for any other file. */
export function parseName(name: string): { kind: FileHeader["kind"]; seq: number } | undefined {
  const match = /^(?:(segment)-(\d{16})\.log|snapshot-(\d{16})\.snap)$/.exec(name);
  if (match === null) return undefined;
  return { kind: match[1] === undefined ? "snapshot" : "segment", seq: Number(match[2] ?? match[3]) };
}
