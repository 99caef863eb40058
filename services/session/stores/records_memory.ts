/** Records in memory: the engine `memory`, and the view that the embedded database is read through. */
import {
  CHANGES_MAX,
  LIST_MAX,
  type RecordChange,
  type RecordStore,
  type StoredRecord,
} from "../auth/records.ts";

/** What a commit did, for whoever keeps it elsewhere too. */
export interface CommittedRecords {
  readonly written: readonly StoredRecord[];
  readonly removed: readonly string[];
  /** Version of the last record that was written. */
  readonly version: number;
}

/** Records in memory. */
export class MemoryRecords implements RecordStore {
  readonly isShared = false;
  readonly #records = new Map<string, StoredRecord>();
  readonly #keep: (committed: CommittedRecords) => void;
  /** All keys in order, made when a list is asked for and the keys have changed. */
  #keys: string[] | undefined;
  #version: number;

  /** `records` is what there is at first and `version` the greatest that was ever given. `keep` is told of a commit
   *  before anybody can see it; when it throws, nothing has happened. */
  constructor(
    records: Iterable<StoredRecord> = [],
    version = 0,
    keep: (committed: CommittedRecords) => void = () => {},
  ) {
    for (const record of records) this.#records.set(record.key, record);
    this.#version = version;
    this.#keep = keep;
  }

  /** @inheritdoc */
  get(key: string): StoredRecord | undefined {
    return this.#records.get(key);
  }

  /** @inheritdoc */
  list(prefix: string, after: string, limit: number): StoredRecord[] {
    if (!(limit >= 1 && limit <= LIST_MAX)) {
      throw new RangeError(`Cannot list: limit must be 1..${LIST_MAX}, got ${limit}`);
    }
    const keys = this.#keys ??= [...this.#records.keys()].sort();
    const found: StoredRecord[] = [];
    let at = firstAtLeast(keys, prefix);
    if (after > prefix) at = firstAtLeast(keys, after);
    for (; at < keys.length && found.length < limit && keys[at]!.startsWith(prefix); at++) {
      if (keys[at]! > after) found.push(this.#records.get(keys[at]!)!);
    }
    return found;
  }

  /** @inheritdoc */
  commit(changes: readonly RecordChange[]): boolean {
    if (changes.length > CHANGES_MAX) {
      throw new RangeError(`Cannot commit: at most ${CHANGES_MAX} changes, got ${changes.length}`);
    }
    if (changes.some(({ key, version }) => (this.#records.get(key)?.version ?? 0) !== version)) return false;
    let version = this.#version;
    const written: StoredRecord[] = [];
    const removed: string[] = [];
    for (const { key, value } of changes) {
      if (value === null) removed.push(key);
      else if (value !== undefined) written.push({ key, value, version: ++version });
    }
    if (written.length + removed.length === 0) return true;
    this.#keep({ written, removed, version });
    this.#version = version;
    if (removed.length > 0 || written.some(({ key }) => !this.#records.has(key))) this.#keys = undefined;
    for (const record of written) this.#records.set(record.key, record);
    for (const key of removed) this.#records.delete(key);
    return true;
  }

  /** @inheritdoc */
  close(): void {}
}

/** Index of the first key that is not below `key`. */
function firstAtLeast(keys: readonly string[], key: string): number {
  let low = 0, high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
