/** The store's content as etcd lays it out in its database file, both ways. A backup made here can be restored into an
 *  etcd, and one made by an etcd here. README.md beside the service has the table of buckets. */
import { fromBinary } from "@bufbuild/protobuf";
import { KeyValueSchema } from "$proto/mvccpb/kv_pb.ts";
import {
  type BoltBucket,
  type BoltEntry,
  BoltError,
  type BoltSink,
  type BoltSource,
  openBolt,
  writeBolt,
} from "../../../storage/bolt/mod.ts";
import { crc32c } from "../../../storage/log/crc32c.ts";
import type { BackupFormat } from "../maintenance/maintenance.ts";
import type { Mvcc } from "../mvcc.ts";
import type { PinnedStore } from "../maintenance/pinned.ts";
import { bucketsOfEntries, ENTRY_BUCKETS, entryOf } from "./etcd_entries.ts";

/** Bytes of a revision as a key: number, '_', order within the revision. */
const REVISION_BYTES = 17;
const UNDERSCORE = 0x5f;
/** Follows the revision of a deletion. */
const TOMBSTONE_MARK = 0x74;
const encoder = new TextEncoder();

/** Backups of the service as etcd's files. */
export const etcdFiles: BackupFormat = { write: writeEtcdFile, hashKeys, hashAll };

/** Writes what is pinned, which must be prepared, as a database file; returns its length in bytes. */
export function writeEtcdFile(sink: BoltSink, pinned: PinnedStore): Promise<number> {
  return writeBolt(sink, bucketsOf(pinned));
}

/** The hash etcd gives of its key bucket at `revision`: of the rows up to it, without what a compaction at the pinned
 *  compact revision would have left of older ones. Equal histories have equal hashes, here and in etcd. */
export async function hashKeys(
  pinned: PinnedStore,
  revision: number,
  pause: () => Promise<void>,
): Promise<number> {
  const { state, compactRevision } = pinned;
  // etcd's own condition: where no key is left at the revision, it does not skip what was superseded. The store goes on, so
  // that compaction may have passed the revision: what is held can be read all the same, but `range` would refuse.
  const skipsSuperseded = state.pageRows({ start: ALL_KEYS, end: undefined }, revision, 1, 1).rows.length > 0;
  const row = new RowBytes(state);
  let hash = crc32c(KEY_BUCKET, 0, KEY_BUCKET.length, 0);
  let bytes = 0;
  for (const number of pinned.rows()) {
    const mod = state.modRevision(number);
    if (mod > revision) break;
    if (mod <= compactRevision && skipsSuperseded && state.rowAt(state.keyOf(number), revision) !== number) {
      continue;
    }
    const { key, value } = row.entry(number);
    hash = crc32c(value, 0, value.length, crc32c(key, 0, key.length, hash));
    bytes += key.length + value.length;
    if (bytes < HASH_SLICE_BYTES) continue;
    bytes = 0;
    await pause();
  }
  return hash;
}

/** A hash of everything that a backup of what is pinned holds, but its counter of requests: etcd's Hash. */
export async function hashAll(pinned: PinnedStore, pause: () => Promise<void>): Promise<number> {
  let hash = 0;
  let bytes = 0;
  const add = (part: Uint8Array) => {
    hash = crc32c(part, 0, part.length, hash);
    bytes += part.length;
  };
  for (const { name, entries } of bucketsOf(pinned)) {
    add(encoder.encode(name));
    for (const { key, value } of entries) {
      if (name === "meta" && isText(key, "consistent_index")) continue;
      add(key);
      add(value);
      if (bytes < HASH_SLICE_BYTES) continue;
      bytes = 0;
      await pause();
    }
  }
  return hash;
}

/** Bytes hashed in one turn: under a millisecond. */
const HASH_SLICE_BYTES = 256 * 1_024;
const KEY_BUCKET = encoder.encode("key");
const ALL_KEYS = new Uint8Array([0]);

/** A bucket whose entries are made as they are asked for. */
interface EtcdBucket extends BoltBucket {
  readonly entries: Iterable<BoltEntry>;
}

/** The buckets of a file, in order. */
function bucketsOf(pinned: PinnedStore): EtcdBucket[] {
  const named = bucketsOfEntries(pinned.entries);
  const bucket = (name: string, entries: Iterable<BoltEntry>): EtcdBucket => ({ name, entries });
  return [
    bucket("alarm", named.alarm),
    bucket("auth", named.auth),
    bucket("authRoles", named.authRoles),
    bucket("authUsers", named.authUsers),
    bucket("cluster", [text("clusterVersion", CLUSTER_VERSION)]),
    bucket("key", rowEntries(pinned)),
    bucket("lease", named.lease),
    bucket("members", []),
    bucket("members_removed", []),
    bucket("meta", metaEntries(pinned)),
  ];
}

/** What the file says the cluster's version is: the oldest whose servers can take all that is in it. */
const CLUSTER_VERSION = "3.4.0";

function* rowEntries(pinned: PinnedStore): Generator<BoltEntry, void, void> {
  const row = new RowBytes(pinned.state);
  for (const number of pinned.rows()) yield row.entry(number);
}

function metaEntries({ revision, compactRevision }: PinnedStore): BoltEntry[] {
  // Each revision took one request, so that the newest is one that the counter of requests may have reached.
  const entries = [{ key: encoder.encode("consistent_index"), value: number64(BigInt(revision)) }];
  if (compactRevision > 0) {
    const value = revisionKey(compactRevision, 0, false);
    entries.push({ key: encoder.encode("finishedCompactRev"), value });
    entries.push({ key: encoder.encode("scheduledCompactRev"), value });
  }
  entries.push({ key: encoder.encode("term"), value: number64(1n) });
  return entries;
}

/** Rows as entries of the key bucket. */
class RowBytes {
  constructor(readonly state: Mvcc) {}

  entry(row: number): BoltEntry {
    const { state } = this;
    const isTombstone = state.isTombstone(row);
    const key = state.keyOf(row);
    return {
      key: revisionKey(state.modRevision(row), state.subOf(row), isTombstone),
      value: isTombstone ? keyValueBytes(key, 0, 0, 0, NO_BYTES, 0n) : keyValueBytes(
        key,
        state.createRevision(row),
        state.modRevision(row),
        state.version(row),
        state.valueOf(row),
        state.leaseOf(row),
      ),
    };
  }
}

const NO_BYTES = new Uint8Array(0);
/** Most that the fields of an mvccpb.KeyValue take besides the bytes of key and value: six tags and six varints. */
const FIELDS_BYTES = 6 + 6 * 10;

/** The bytes of an mvccpb.KeyValue, as every encoder writes them: fields in order, zeros left out. */
function keyValueBytes(
  key: Uint8Array,
  create: number,
  mod: number,
  version: number,
  value: Uint8Array,
  lease: bigint,
): Uint8Array {
  const bytes = new Uint8Array(FIELDS_BYTES + key.length + value.length);
  let at = 0;
  const varint = (tag: number, from: number) => {
    bytes[at++] = tag;
    let rest = from;
    for (; rest > 127; rest = Math.floor(rest / 128)) bytes[at++] = (rest % 128) | 0x80;
    bytes[at++] = rest;
  };
  const put = (tag: number, from: Uint8Array) => {
    if (from.length === 0) return;
    varint(tag, from.length);
    bytes.set(from, at);
    at += from.length;
  };
  put(0x0a, key);
  if (create !== 0) varint(0x10, create);
  if (mod !== 0) varint(0x18, mod);
  if (version !== 0) varint(0x20, version);
  put(0x2a, value);
  if (lease !== 0n) {
    bytes[at++] = 0x30;
    let rest = BigInt.asUintN(64, lease);
    for (; rest > 127n; rest >>= 7n) bytes[at++] = Number(rest & 127n) | 0x80;
    bytes[at++] = Number(rest);
  }
  return bytes.subarray(0, at);
}

function revisionKey(revision: number, sub: number, isTombstone: boolean): Uint8Array {
  const key = new Uint8Array(isTombstone ? REVISION_BYTES + 1 : REVISION_BYTES);
  const view = new DataView(key.buffer);
  setUint64(view, 0, revision);
  key[8] = UNDERSCORE;
  setUint64(view, 9, sub);
  if (isTombstone) key[REVISION_BYTES] = TOMBSTONE_MARK;
  return key;
}

function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value >>> 0);
}

function number64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value);
  return bytes;
}

function text(key: string, value: string): BoltEntry {
  return { key: encoder.encode(key), value: encoder.encode(value) };
}

// ---- reading ----

/** Receives the content of a file: the compact revision, the rows in the order in which they were written, the named
 *  entries, and the newest revision. */
export interface EtcdFileReader {
  begin(compactRevision: number): void;
  /** `value` is undefined for a deletion; the arrays are views that change later. */
  row(row: FileRow): void;
  entry(name: string, value: Uint8Array): void;
  end(revision: number): void;
}

/** One row of a file. */
export interface FileRow {
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
  readonly modRevision: number;
  readonly sub: number;
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

/** Reads a database file of etcd's or ours, whatever compaction it was in the middle of.
 *  @throws {BoltError} if it is damaged, or holds what no etcd writes. */
export async function readEtcdFile(source: BoltSource, into: EtcdFileReader): Promise<void> {
  const file = await openBolt(source);
  if (!file.bucketNames.includes("key")) throw new BoltError("damaged", "it has no bucket of keys");
  let compactRevision = 0;
  await file.forEach("meta", (key, value) => {
    if (!isText(key, "scheduledCompactRev") && !isText(key, "finishedCompactRev")) return;
    compactRevision = Math.max(compactRevision, readRevision(value).main);
  });
  into.begin(compactRevision);
  let newest = Math.max(1, compactRevision);
  await file.forEach("key", (key, value) => {
    const row = readRow(key, value);
    into.row(row);
    newest = Math.max(newest, row.modRevision);
  });
  for (const bucket of ENTRY_BUCKETS) {
    await file.forEach(bucket, (key, value) => {
      const entry = entryOf(bucket, key.slice(), value.slice());
      if (entry !== undefined) into.entry(entry.name, entry.value);
    });
  }
  into.end(newest);
}

function readRow(key: Uint8Array, bytes: Uint8Array): FileRow {
  const { main, sub } = readRevision(key);
  const isTombstone = key.length === REVISION_BYTES + 1 && key[REVISION_BYTES] === TOMBSTONE_MARK;
  if (key.length !== REVISION_BYTES && !isTombstone) throw notARow(main);
  let message;
  try {
    message = fromBinary(KeyValueSchema, bytes);
  } catch (error) {
    throw new BoltError("damaged", `its row of revision ${main} cannot be read: ${(error as Error).message}`);
  }
  const modRevision = Number(message.modRevision);
  const createRevision = Number(message.createRevision);
  const version = Number(message.version);
  if (message.key.length === 0) throw notARow(main);
  if (isTombstone) {
    return {
      key: message.key,
      value: undefined,
      modRevision: main,
      sub,
      createRevision: 0,
      version: 0,
      lease: 0n,
    };
  }
  if (
    modRevision !== main || !(createRevision >= 1 && createRevision <= main) ||
    !(version >= 1 && version <= main)
  ) {
    throw notARow(main);
  }
  return {
    key: message.key,
    value: message.value,
    modRevision,
    sub,
    createRevision,
    version,
    lease: message.lease,
  };
}

function notARow(revision: number): BoltError {
  return new BoltError("damaged", `its row of revision ${revision} is none of etcd's`);
}

/** Largest order within a revision that the store keeps. */
const SUB_MAX = 2 ** 32 - 1;

function readRevision(bytes: Uint8Array): { readonly main: number; readonly sub: number } {
  if (bytes.length >= REVISION_BYTES && bytes[8] === UNDERSCORE) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const main = view.getUint32(0) * 2 ** 32 + view.getUint32(4);
    const sub = view.getUint32(9) * 2 ** 32 + view.getUint32(13);
    if (main >= 1 && Number.isSafeInteger(main) && sub <= SUB_MAX) return { main, sub };
  }
  throw new BoltError("damaged", "it has a key that is no revision among its rows");
}

function isText(bytes: Uint8Array, expected: string): boolean {
  return bytes.length === expected.length && encoder.encode(expected).every((byte, i) => byte === bytes[i]);
}
