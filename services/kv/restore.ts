/** Makes a store's data folder from a backup: a database file that `Snapshot` of this service or of an etcd gave.
 *
 *  The store is built beside its place and moved there when it is whole, so that a restore that was cut off
 *  leaves nothing that looks like a store. */
import { createHash } from "node:crypto";
import { BoltError, type BoltSource } from "../../storage/bolt/mod.ts";
import { type Identity, identityRecord, snapshotRecords } from "./record.ts";
import { MvccState } from "./state.ts";
import { readEtcdFile } from "./stores/etcd_file.ts";
import { openLogStore } from "./stores/log.ts";
import { SQLITE_FILE } from "./stores/sqlite/engine.ts";
import { openSqliteImport } from "./stores/sqlite/import.ts";

/** What to restore, and to where. */
export interface RestoreOptions {
  /** The backup's file. */
  readonly backup: string;
  /** The store's own folder (`<data>/kv`), which must be empty or not there. */
  readonly directory: string;
  /** Takes a file without its hash, as one copied from an etcd's data folder is. */
  readonly skipHashCheck?: boolean;
  /** The engine that will use the folder, kv.engine of the configuration; default `memory`. */
  readonly engine?: "memory" | "sqlite";
  /** Page size of the file of the engine `sqlite`, kv.sqlite.pageBytes of the configuration; default 4,096. */
  readonly pageBytes?: number;
  /** Source of the new store's identity. */
  readonly random: { fill(target: Uint8Array): Uint8Array };
}

/** What was restored. */
export interface RestoreReport {
  readonly revision: number;
  readonly compactRevision: number;
  readonly keys: number;
  /** Bytes of the backup. */
  readonly bytes: number;
}

/** A restore was refused; the message is fit for a person. The cause is a BoltError where the file is the trouble. */
export class RestoreError extends Error {
  override readonly name = "RestoreError";
}

const PAGE_BYTES = 4_096;
const HASH_BYTES = 32;
/** Pages are multiples of this, so a length that is `HASH_BYTES` more has a hash at its end. */
const SECTOR_BYTES = 512;
/** Bytes hashed at a time. */
const CHUNK_BYTES = 1_048_576;

/** Restores a backup. The store gets a new identity: it is another one, and clients that watched the old one should see it.
 *  @throws {RestoreError} if the folder is not empty, the hash is missing or wrong, or the file not a database of etcd's.
 *  @throws {LogError} or the platform's error, if a file cannot be read or written. */
export async function restoreBackup(options: RestoreOptions): Promise<RestoreReport> {
  const { directory } = options;
  await checkEmpty(directory);
  using file = await Deno.open(options.backup, { read: true });
  const source = new FileSource(file, await checkHash(file, options));
  const scratch = `${directory}.restoring`;
  await removeIfThere(scratch);
  await Deno.mkdir(scratch, { recursive: true });
  let report: RestoreReport;
  try {
    report = options.engine === "sqlite"
      ? await makeSqlite(scratch, source, options)
      : await makeLog(scratch, source, options);
    // Not what is in it: it was empty when this began.
    await removeIfThere(directory, false);
    await Deno.rename(scratch, directory);
  } catch (error) {
    await removeIfThere(scratch);
    throw error instanceof BoltError
      ? new RestoreError(`cannot restore ${options.backup}: ${error.message}`, { cause: error })
      : error;
  }
  await syncParent(directory);
  return report;
}

/** Makes the log of the engine `memory`: one snapshot of everything. */
async function makeLog(
  directory: string,
  source: BoltSource,
  { random }: RestoreOptions,
): Promise<RestoreReport> {
  const { hash, identity } = seeds(random);
  const state = new MvccState(hash);
  const entries = new Map<string, Uint8Array>();
  state.deferOrder(true);
  await readEtcdFile(source, {
    begin: (compactRevision) => state.beginLoad(1, compactRevision),
    row: (row) =>
      state.appendRow(
        row.key,
        row.modRevision,
        row.sub,
        row.createRevision,
        row.version,
        row.lease,
        row.value,
      ),
    entry: (name, value) => entries.set(name, value),
    end: (revision) => state.revision = revision,
  });
  state.deferOrder(false);
  const { revision, compactRevision, keyCount } = state;
  const nothing = { snapshotRecord: () => {}, logRecord: () => {} };
  const store = await openLogStore({ directory, durability: "always" }, nothing);
  try {
    const seq = store.append(identityRecord(identity));
    await store.durable(seq);
    await store.snapshot(snapshotRecords(state, { revision, compactRevision, identity, entries }), seq);
  } finally {
    await store.close();
  }
  return { revision, compactRevision, keys: keyCount, bytes: source.size };
}

/** Makes the file of the engine `sqlite`. */
async function makeSqlite(
  directory: string,
  source: BoltSource,
  { random, pageBytes = PAGE_BYTES }: RestoreOptions,
): Promise<RestoreReport> {
  const into = openSqliteImport(`${directory}/${SQLITE_FILE}`, pageBytes, seeds(random).identity);
  try {
    let revision = 1;
    let compactRevision = 0;
    await readEtcdFile(source, {
      entry: into.entry,
      row: into.row,
      begin(at) {
        compactRevision = at;
        into.begin(at);
      },
      end(at) {
        revision = at;
        into.end(at);
      },
    });
    return { revision, compactRevision, keys: into.keys, bytes: source.size };
  } finally {
    into.close();
  }
}

function seeds(random: RestoreOptions["random"]): { readonly hash: number; readonly identity: Identity } {
  const words = new DataView(random.fill(new Uint8Array(20)).slice().buffer);
  const identity = { clusterId: words.getBigUint64(4), memberId: words.getBigUint64(12) };
  return { hash: words.getUint32(0), identity };
}

async function syncParent(directory: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using parent = await Deno.open(`${directory}/..`, { read: true });
  await parent.sync();
}

async function checkEmpty(directory: string): Promise<void> {
  try {
    for await (const entry of Deno.readDir(directory)) {
      throw new RestoreError(
        `cannot restore into ${directory}: it is not empty (${entry.name}); move it away or name another data folder`,
      );
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Length of the database in the file, its hash checked unless that is not wanted. */
async function checkHash(file: Deno.FsFile, { backup, skipHashCheck }: RestoreOptions): Promise<number> {
  const { size } = await file.stat();
  const hasHash = size % SECTOR_BYTES === HASH_BYTES;
  const length = hasHash ? size - HASH_BYTES : size;
  if (skipHashCheck === true) return length;
  if (!hasHash) {
    throw new RestoreError(
      `cannot restore ${backup}: it has no hash at its end. A copy of a database file has none: restore it with --skip-hash-check`,
    );
  }
  const hash = createHash("sha256");
  const source = new FileSource(file, size);
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let at = 0; at < length;) {
    const part = chunk.subarray(0, Math.min(chunk.length, length - at));
    await source.read(at, part);
    hash.update(part);
    at += part.length;
  }
  const expected = new Uint8Array(HASH_BYTES);
  await source.read(length, expected);
  if (!hash.digest().equals(expected)) {
    throw new RestoreError(
      `cannot restore ${backup}: it is damaged, its content does not have the hash at its end`,
    );
  }
  return length;
}

/** A file as the format's reader wants it. */
class FileSource implements BoltSource {
  constructor(readonly file: Deno.FsFile, readonly size: number) {}

  async read(at: number, into: Uint8Array): Promise<void> {
    await this.file.seek(at, Deno.SeekMode.Start);
    for (let filled = 0; filled < into.length;) {
      const length = await this.file.read(into.subarray(filled));
      if (length === null) throw new RestoreError("the backup became shorter while it was read");
      filled += length;
    }
  }
}

async function removeIfThere(directory: string, recursive = true): Promise<void> {
  try {
    await Deno.remove(directory, { recursive });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
