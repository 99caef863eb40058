/** A store in memory for tests and the simulator: what is appended becomes durable when the test says so. */
import { type KvStore, StoreError, type StoreReplay, type StoreStats } from "../store.ts";

interface Waiter {
  readonly seq: number;
  readonly resolve: () => void;
  readonly reject: (error: StoreError) => void;
}

/** What outlives a crash: the durable part of a ManualStore. */
export interface Disk {
  snapshot: Uint8Array[];
  /** Records up to this number are in the snapshot. */
  snapshotSeq: number;
  /** Durable records; index 0 is number 1. */
  records: Uint8Array[];
}

export function newDisk(): Disk {
  return { snapshot: [], snapshotSeq: 0, records: [] };
}

export class ManualStore implements KvStore {
  readonly takesSnapshots = true;
  readonly stopped: Promise<StoreError>;
  readonly openedLogBytes: number;
  durableSeq: number;
  /** Makes the next appends throw `full`. */
  isFull = false;
  /** Makes everything durable at the end of the turn, as a real log with a fast disk does. */
  isAutomatic = false;
  snapshots = 0;
  /** Runs between any two records of a snapshot. */
  onSnapshotRecord: () => void = () => {};
  readonly #pending: Uint8Array[] = [];
  readonly #listeners: (() => void)[] = [];
  #waiters: Waiter[] = [];
  #failure: StoreError | undefined;
  #tellStopped: (error: StoreError) => void = () => {};

  constructor(readonly disk: Disk, replay: StoreReplay) {
    for (const record of disk.snapshot) replay.snapshotRecord(record);
    let bytes = 0;
    for (const record of disk.records.slice(disk.snapshotSeq)) {
      replay.logRecord(record);
      bytes += record.length;
    }
    this.openedLogBytes = bytes;
    this.durableSeq = disk.records.length;
    this.stopped = new Promise((resolve) => this.#tellStopped = resolve);
  }

  get pendingCount(): number {
    return this.#pending.length;
  }

  append(record: Uint8Array): number {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.isFull) throw new StoreError("full", "too much waits for the disk");
    this.#pending.push(record.slice());
    if (this.isAutomatic && this.#pending.length === 1) Promise.resolve().then(() => this.flush());
    return this.durableSeq + this.#pending.length;
  }

  durable(seq: number): Promise<void> {
    if (seq <= this.durableSeq) return Promise.resolve();
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => this.#waiters.push({ seq, resolve, reject }));
  }

  onDurable(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Makes the first `count` waiting records durable. */
  flush(count = this.#pending.length): void {
    if (this.#failure !== undefined) return;
    this.disk.records.push(...this.#pending.splice(0, count));
    this.durableSeq = this.disk.records.length;
    for (const listener of this.#listeners) listener();
    const done = this.#waiters.filter((waiter) => waiter.seq <= this.durableSeq);
    this.#waiters = this.#waiters.filter((waiter) => waiter.seq > this.durableSeq);
    for (const waiter of done) waiter.resolve();
  }

  /** Stops the store, as a failed sync does; `survivors` of the waiting records are on disk all the same. */
  fail(message: string, survivors = 0): void {
    this.#failure = new StoreError("failed", message);
    this.disk.records.push(...this.#pending.splice(0, survivors));
    for (const waiter of this.#waiters) waiter.reject(this.#failure);
    this.#waiters = [];
    this.#tellStopped(this.#failure);
  }

  async snapshot(records: Iterable<Uint8Array>, coversSeq: number): Promise<void> {
    const taken: Uint8Array[] = [];
    for (const record of records) {
      taken.push(record.slice());
      this.onSnapshotRecord();
      await Promise.resolve();
    }
    if (this.#failure !== undefined) throw this.#failure;
    this.disk.snapshot = taken;
    this.disk.snapshotSeq = coversSeq;
    this.snapshots++;
  }

  stats(): StoreStats {
    return {
      appendedRecords: this.disk.records.length + this.#pending.length,
      appendedBytes: 0,
      pendingBytes: 0,
      syncs: 0,
      syncMs: 0,
      groups: 0,
      segments: 1,
      segmentBytes: 0,
      snapshots: this.snapshots,
    };
  }

  close(): Promise<void> {
    this.flush();
    return Promise.resolve();
  }
}
