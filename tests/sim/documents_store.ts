/** The store of a simulated world: what is committed is on a disk that outlives services, commits take time and fail, and the
 *  service that asked may be gone before it hears how they ended. Several services may share it. */
import { StateSyncError } from "../../services/statesync/errors.ts";
import type { Change, CommitResult, DocumentStore } from "../../services/statesync/store.ts";
import type { Schedule } from "./documents_schedule.ts";
import type { SimRandom } from "./random.ts";

/** How the disk behaves. */
export interface DiskProfile {
  /** Longest time from commit to disk, and from disk to answer, in ms. */
  readonly commitMs: number;
  /** Part of commits that fail, with nothing written. */
  readonly failures: number;
  /** Part of reads that take time, as over a network, and part of those that fail. */
  readonly slowReads: number;
  readonly readFailures: number;
  /** Part of notices to other services that get lost, which these are told of later. */
  readonly lostNotices: number;
}

/** What is on the disk, for all services. */
export class DocumentsDisk {
  readonly #stores = new Set<SimStore>();
  /** Whether commits and reads still fail. */
  isFaulty = true;

  constructor(
    readonly kept: DocumentStore,
    readonly profile: DiskProfile,
    readonly schedule: Schedule,
    readonly random: SimRandom,
  ) {}

  /** A service's view. */
  open(): SimStore {
    const store = new SimStore(this, (changes, by) => this.#tell(changes, by));
    this.#stores.add(store);
    return store;
  }

  /** The service of this view has died: it asks nothing and hears nothing any more. */
  kill(store: SimStore): void {
    store.isDead = true;
    this.#stores.delete(store);
  }

  #tell(notices: readonly Notice[], by: SimStore): void {
    for (const store of this.#stores) if (store !== by) store.notice(notices);
  }
}

interface Notice {
  readonly docId: string;
  readonly offset: number;
  readonly sequence: number;
}

/** Reads that may take time. */
const READS = [
  "load",
  "record",
  "list",
  "entries",
  "entriesBySequence",
  "sequences",
  "operations",
  "operationByKey",
  "conflicts",
  "conflict",
  "versions",
  "names",
  "contentAt",
  "versionAt",
  "locks",
  "counts",
] as const;
const READ_MS = 8;
const NOTICE_MS = 40;

/** One service's view of the disk. */
export interface SimStore extends Pick<DocumentStore, typeof READS[number]> {}

export class SimStore implements DocumentStore {
  isDead = false;
  onForeign: DocumentStore["onForeign"] = () => {};
  onForeignGap: DocumentStore["onForeignGap"] = () => {};
  readonly failure = undefined;
  readonly #disk: DocumentsDisk;
  readonly #tell: (notices: readonly Notice[], by: SimStore) => void;
  #noticesUntilMs = 0;

  constructor(disk: DocumentsDisk, tell: (notices: readonly Notice[], by: SimStore) => void) {
    this.#disk = disk;
    this.#tell = tell;
    for (const name of READS) {
      const read = disk.kept[name].bind(disk.kept) as (...args: unknown[]) => unknown;
      Object.assign(this, { [name]: (...args: unknown[]) => this.#read(() => read(...args)) });
    }
  }

  get epoch(): string {
    return this.#disk.kept.epoch;
  }

  async commit(changes: readonly Change[]): Promise<CommitResult[]> {
    const { random, profile, kept } = this.#disk;
    await this.#pass(random.below(profile.commitMs + 1));
    if (this.#disk.isFaulty && random.chance(profile.failures)) {
      throw new StateSyncError("unavailable", "the disk is busy");
    }
    const results = await kept.commit(changes);
    const notices = changes.flatMap(({ docId, record }, i): Notice[] => {
      const result = results[i]!;
      return result.kind === "done"
        ? [{ docId, offset: record?.offset ?? 0, sequence: result.sequence }]
        : [];
    });
    this.#tell(notices, this);
    await this.#pass(random.below(profile.commitMs + 1));
    return results;
  }

  async putSnapshot(...args: Parameters<DocumentStore["putSnapshot"]>): Promise<void> {
    await this.#pass(this.#disk.random.below(this.#disk.profile.commitMs + 1));
    await this.#disk.kept.putSnapshot(...args);
  }

  async compact(...args: Parameters<DocumentStore["compact"]>): Promise<void> {
    await this.#pass(this.#disk.random.below(this.#disk.profile.commitMs + 1));
    await this.#disk.kept.compact(...args);
  }

  stats(): ReturnType<DocumentStore["stats"]> {
    return this.#disk.kept.stats();
  }

  close(): Promise<void> {
    return Promise.resolve(); // the disk stays
  }

  /** Others have written: told in order and late, or told later that something was missed. */
  notice(notices: readonly Notice[]): void {
    const { random, schedule, profile } = this.#disk;
    this.#noticesUntilMs = Math.max(this.#noticesUntilMs, schedule.nowMs + random.below(NOTICE_MS));
    const isLost = random.chance(profile.lostNotices);
    schedule.after(this.#noticesUntilMs - schedule.nowMs + (isLost ? NOTICE_MS : 0), () => {
      if (this.isDead) return;
      if (isLost) this.onForeignGap();
      else for (const { docId, offset, sequence } of notices) this.onForeign(docId, offset, sequence);
    });
  }

  #read<T>(read: () => T): T | Promise<T> {
    const { random, profile } = this.#disk;
    if (!random.chance(profile.slowReads)) return read();
    const isStale = random.chance(0.5);
    const early = isStale ? read() : undefined;
    return this.#pass(random.below(READ_MS)).then(() => {
      if (this.#disk.isFaulty && random.chance(profile.readFailures)) {
        throw new StateSyncError("unavailable", "the disk cannot be reached");
      }
      return isStale ? early! : read();
    });
  }

  /** Time passes; what a dead service waits for never comes. */
  async #pass(ms: number): Promise<void> {
    if (ms > 0) await this.#disk.schedule.pause(ms);
    if (this.isDead) await new Promise<never>(() => {});
  }
}
