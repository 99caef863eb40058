/** Looking after the store: backups, hashes, alarms, what it says of itself, and the cluster of one member that it is. */
import { createHash } from "node:crypto";
import type { Alarm, Alarms } from "./alarms.ts";
import type { Space } from "../engine.ts";
import { KvError } from "../errors.ts";
import type { PinnedStore } from "./pinned.ts";
import type { EntryOwner, KvService } from "../service.ts";

/** Version of etcd whose API and behaviour clients may count on: what Status reports. */
export const ETCD_VERSION = "3.5.21";
/** What a downgrade goes from, and to. */
const CLUSTER_VERSION = "3.5.0";
const DOWNGRADE_TARGET = { major: 3, minor: 4 };
/** Bytes of a piece of a backup. etcd sends 32 KiB; clients take up to 4 MiB. */
const PIECE_BYTES = 256 * 1_024;
/** Backups and hashes under way at a time: each holds old rows in memory, and a backup its file on disk. */
export const READERS_MAX = 4;
const DOWNGRADE_ENTRY = "downgrade";

/** A file of its own on disk while a backup is made. */
export interface BackupFile {
  write(at: number, bytes: Uint8Array): Promise<void>;
  /** Fills `into` with what was written at `at`. */
  read(at: number, into: Uint8Array): Promise<void>;
  /** Closes and removes it. */
  remove(): Promise<void>;
}

/** One in memory, for stores that are small and have no disk. */
export class MemoryBackupFile implements BackupFile {
  #bytes = new Uint8Array(0);

  write(at: number, bytes: Uint8Array): Promise<void> {
    if (at + bytes.length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(at + bytes.length, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, at);
    return Promise.resolve();
  }

  read(at: number, into: Uint8Array): Promise<void> {
    into.set(this.#bytes.subarray(at, at + into.length));
    return Promise.resolve();
  }

  remove(): Promise<void> {
    this.#bytes = new Uint8Array(0);
    return Promise.resolve();
  }
}

/** How backups are written and hashed: stores/etcd_file.ts. */
export interface BackupFormat {
  /** Writes what is pinned and prepared; returns its length in bytes. */
  write(file: BackupFile, pinned: PinnedStore): Promise<number>;
  /** Hash of the keys' history up to a revision, as etcd has it. */
  hashKeys(pinned: PinnedStore, revision: number, pause: () => Promise<void>): Promise<number>;
  /** Hash of all content. */
  hashAll(pinned: PinnedStore, pause: () => Promise<void>): Promise<number>;
}

/** The member, as clients are told of it. */
export interface MemberInfo {
  readonly id: bigint;
  readonly name: string;
  /** Where clients reach it. */
  readonly clientUrls: readonly string[];
}

/** What maintenance is made of. */
export interface MaintenanceDeps {
  readonly service: KvService;
  readonly alarms: Alarms;
  readonly format: BackupFormat;
  readonly space: Space;
  /** Number of the last durable record: what stands for etcd's raft index. */
  readonly index: () => number;
  /** Makes a file for a backup. */
  readonly openFile: () => Promise<BackupFile>;
  readonly member: { readonly name: string; readonly clientUrls: readonly string[] };
}

/** What the store says of itself. */
export interface StatusReport {
  readonly version: string;
  readonly revision: number;
  /** Space set aside, in bytes. */
  readonly size: number;
  /** Space in use: what the quota counts. */
  readonly sizeInUse: number;
  readonly quota: number;
  readonly index: number;
  readonly alarms: readonly Alarm[];
  /** Why writes are refused besides alarms. */
  readonly failure: string | undefined;
  readonly downgradeTarget: string | undefined;
}

/** The hash of the keys at a revision. */
export interface KeysHash {
  readonly hash: number;
  readonly revision: number;
  readonly hashRevision: number;
  /** -1 where nothing was compacted. */
  readonly compactRevision: number;
}

/** A piece of a backup; the last one is the SHA-256 of all others. */
export interface BackupPiece {
  readonly bytes: Uint8Array;
  /** Bytes that follow, without the hash. */
  readonly remaining: number;
}

/** The service behind Maintenance and Cluster. */
export class Maintenance implements EntryOwner {
  readonly #deps: MaintenanceDeps;
  #readers = 0;
  #defragmenting: Promise<void> | undefined;
  #downgradeTarget: string | undefined;

  constructor(deps: MaintenanceDeps) {
    this.#deps = deps;
    deps.service.ownEntries(DOWNGRADE_ENTRY, this);
  }

  load(_name: string, value: Uint8Array | undefined): void {
    this.#downgradeTarget = value === undefined ? undefined : new TextDecoder().decode(value);
  }

  status(): StatusReport {
    const { service, alarms, space, index } = this.#deps;
    const { bytes, revision } = service.figures();
    return {
      version: ETCD_VERSION,
      revision,
      size: Math.max(space.reservedBytes, bytes),
      sizeInUse: bytes,
      quota: service.config.quotaBytes,
      index: index(),
      alarms: alarms.list(0),
      failure: service.failure?.message,
      downgradeTarget: this.#downgradeTarget,
    };
  }

  /** The store as it is now, as a file that `kv restore` and etcd's tools take, piece by piece. It is written to disk whole
   *  before the first piece goes out, so that a slow client holds no memory.
   *  @throws {KvError} `tooManyRequests` when READERS_MAX are under way. */
  async *backup(signal: AbortSignal): AsyncGenerator<BackupPiece, void, void> {
    const release = this.#take();
    try {
      const file = await this.#deps.openFile();
      try {
        const length = await this.#withPinned((pinned) =>
          this.#deps.format.write(checked(file, signal), pinned)
        );
        const hash = createHash("sha256");
        for (let at = 0; at < length;) {
          const bytes = new Uint8Array(Math.min(PIECE_BYTES, length - at));
          await file.read(at, bytes);
          hash.update(bytes);
          at += bytes.length;
          yield { bytes, remaining: length - at };
        }
        yield { bytes: new Uint8Array(hash.digest()), remaining: 0 };
      } finally {
        await file.remove();
      }
    } finally {
      release();
    }
  }

  /** Hash of everything a backup holds.
   *  @throws {KvError} `tooManyRequests`. */
  async hash(): Promise<{ readonly hash: number; readonly revision: number }> {
    const release = this.#take();
    try {
      const { format, service } = this.#deps;
      return await this.#withPinned(async (pinned) => ({
        hash: await format.hashAll(pinned, service.pause),
        revision: pinned.revision,
      }));
    } finally {
      release();
    }
  }

  /** Hash of the keys' history up to `revision` (0: the newest): the same as that of an etcd with the same history.
   *  @throws {KvError} `compacted`, `futureRevision`, `tooManyRequests`. */
  async hashKeys(revision: number): Promise<KeysHash> {
    const release = this.#take();
    try {
      const { format, service } = this.#deps;
      return await this.#withPinned(async (pinned) => {
        if (revision > 0 && revision <= pinned.compactRevision) throw new KvError("compacted");
        if (revision > pinned.revision) throw new KvError("futureRevision");
        const hashRevision = revision === 0 ? pinned.revision : revision;
        return {
          hash: await format.hashKeys(pinned, hashRevision, service.pause),
          revision: pinned.revision,
          hashRevision,
          compactRevision: pinned.compactRevision === 0 ? -1 : pinned.compactRevision,
        };
      });
    } finally {
      release();
    }
  }

  /** Gives back memory that is free between values, and the log that a new snapshot makes needless. One at a time: who
   *  comes meanwhile waits for the one under way. */
  defragment(): Promise<void> {
    return this.#defragmenting ??= this.#defragment().finally(() => this.#defragmenting = undefined);
  }

  async #defragment(): Promise<void> {
    const { service, space } = this.#deps;
    await space.defragment(service.pause);
    await service.checkpoint();
  }

  /** Hands the lead to a member: there is one.
   *  @throws {KvError} `badTransferee`. */
  moveLeader(target: bigint): void {
    if (target !== this.member.id) throw new KvError("badTransferee");
  }

  // ---- the cluster ----

  /** The only member. */
  get member(): MemberInfo {
    const { service, member } = this.#deps;
    return { id: service.identity.memberId, name: member.name, clientUrls: member.clientUrls };
  }

  /** Nobody can join: there is no consensus to take part in.
   *  @throws {KvError} always: `badMemberUrls`, or `notEnoughMembers`. */
  addMember(peerUrls: readonly string[]): never {
    checkUrls(peerUrls);
    throw new KvError("notEnoughMembers");
  }

  /** The only member cannot go.
   *  @throws {KvError} always: `memberNotFound`, or `notEnoughMembers`. */
  removeMember(id: bigint): never {
    this.#checkMember(id);
    throw new KvError("notEnoughMembers");
  }

  /** The member has no URLs for peers, and gets none.
   *  @throws {KvError} `memberNotFound`; `notEnoughMembers` for URLs. */
  updateMember(id: bigint, peerUrls: readonly string[]): void {
    this.#checkMember(id);
    if (peerUrls.length > 0) throw new KvError("notEnoughMembers");
  }

  /** The only member has its vote.
   *  @throws {KvError} always: `memberNotFound`, or `notLearner`. */
  promoteMember(id: bigint): never {
    this.#checkMember(id);
    throw new KvError("notLearner");
  }

  #checkMember(id: bigint): void {
    if (id !== this.member.id) throw new KvError("memberNotFound");
  }

  // ---- downgrades ----

  /** Whether a downgrade to `version` would be taken; returns the version of the cluster.
   *  @throws {KvError} `downgradeFormat`, `downgradeTarget`, `downgradeRunning`. */
  validateDowngrade(version: string): string {
    const parts = /^(\d{1,9})\.(\d{1,9})(?:\.\d{1,9}(?:[-+][0-9A-Za-z.+-]+)?)?$/.exec(version);
    if (parts === null) throw new KvError("downgradeFormat");
    const { major, minor } = DOWNGRADE_TARGET;
    if (Number(parts[1]) !== major || Number(parts[2]) !== minor) throw new KvError("downgradeTarget");
    if (this.#downgradeTarget !== undefined) throw new KvError("downgradeRunning");
    return CLUSTER_VERSION;
  }

  /** Notes that the operator will go on with a program of the version before: the data needs no change for it, as a backup
   *  can be restored by one.
   *  @throws {KvError} as validateDowngrade. */
  async enableDowngrade(version: string): Promise<string> {
    await this.#deps.service.mutate((log) => {
      this.validateDowngrade(version);
      const { major, minor } = DOWNGRADE_TARGET;
      log.meta(DOWNGRADE_ENTRY, new TextEncoder().encode(`${major}.${minor}.0`));
    });
    return CLUSTER_VERSION;
  }

  /** Forgets it again.
   *  @throws {KvError} `noDowngrade`. */
  async cancelDowngrade(): Promise<string> {
    await this.#deps.service.mutate((log) => {
      if (this.#downgradeTarget === undefined) throw new KvError("noDowngrade");
      log.meta(DOWNGRADE_ENTRY, undefined);
    });
    return CLUSTER_VERSION;
  }

  // ---- helpers ----

  #take(): () => void {
    if (this.#readers >= READERS_MAX) throw new KvError("tooManyRequests");
    this.#readers++;
    return () => this.#readers--;
  }

  async #withPinned<T>(run: (pinned: PinnedStore) => Promise<T>): Promise<T> {
    const { service } = this.#deps;
    const pinned = service.pin();
    try {
      await pinned.prepare(service.pause);
      return await run(pinned);
    } finally {
      pinned.release();
    }
  }
}

/** The file, until whoever wants it is gone. */
function checked(file: BackupFile, signal: AbortSignal): BackupFile {
  return {
    write(at, bytes) {
      signal.throwIfAborted();
      return file.write(at, bytes);
    },
    read: (at, into) => file.read(at, into),
    remove: () => file.remove(),
  };
}

/** What etcd takes as the URLs of a member: some, each with a scheme, a host, a port and no path.
 *  @throws {KvError} `badMemberUrls`. */
function checkUrls(urls: readonly string[]): void {
  const isUrl = (url: string) => /^(https?|unixs?):\/\/[^/?#]+:\d{1,5}$/.test(url.trim());
  if (urls.length === 0 || !urls.every(isUrl)) throw new KvError("badMemberUrls");
}
