/** Where users, API keys and signing keys are kept: small texts under names, changed several at a time or not at all. */

/** A value or the promise of one: what is at hand needs no turn of the event loop. */
export type Awaitable<T> = T | Promise<T>;

/** One record. The object stays the same for as long as the record is not changed, where that costs nothing. */
export interface StoredRecord {
  readonly key: string;
  readonly value: string;
  /** Greater with each change, and never the same again for one key, even if it was removed in between. */
  readonly version: number;
}

/** One condition and what is to be done if all of a commit's conditions hold. */
export interface RecordChange {
  readonly key: string;
  /** The version that the record must have; 0: there must be none. */
  readonly version: number;
  /** The new value; null removes the record; undefined leaves it, so that only the condition counts. */
  readonly value?: string | null;
}

/** Keeps records. Reads see every commit that was acknowledged before they began, on whichever machine. */
export interface RecordStore {
  /** The record, or undefined. */
  get(key: string): Awaitable<StoredRecord | undefined>;
  /** Up to `limit` records whose keys begin with `prefix` and come after `after`, in the order of their keys. */
  list(prefix: string, after: string, limit: number): Awaitable<StoredRecord[]>;
  /** Makes all changes, durably, if all conditions hold; false if one does not, and nothing is changed. */
  commit(changes: readonly RecordChange[]): Awaitable<boolean>;
  /** Whether other machines may change records too. */
  readonly isShared: boolean;
  /** Releases what was opened. Idempotent. */
  close(): Awaitable<void>;
}

/** Largest number of changes of one commit: a user, its name, the counts, and some room. */
export const CHANGES_MAX = 16;
/** Largest number of records that `list` gives at a time. */
export const LIST_MAX = 1_000;
