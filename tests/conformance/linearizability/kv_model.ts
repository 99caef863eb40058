/** What etcd's store answers when one request follows the other: a few keys, revisions included.
 *
 *  A revision orders all writes of the store, so histories are not cut by key: one state has all of them. That makes the
 *  search short: an answer names the revision at which its operation happened. */
import type { Model } from "./checker.ts";

/** A request. Values and keys are text. */
export type KvInput =
  | { readonly kind: "get"; readonly key: string }
  /** Several keys as of one revision. */
  | { readonly kind: "getAll" }
  | { readonly kind: "put"; readonly key: string; readonly value: string }
  /** Two keys at one revision. */
  | { readonly kind: "putBoth"; readonly keys: readonly [string, string]; readonly value: string }
  | { readonly kind: "delete"; readonly key: string }
  /** A transaction: if the key's mod revision is `expected` (0: absent), puts `value`; otherwise reads the key. */
  | { readonly kind: "swap"; readonly key: string; readonly expected: number; readonly value: string };

/** A key that is there. */
export interface KvEntry {
  readonly value: string;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
}

/** An answer. `revision` is its header's. */
export interface KvOutput {
  readonly revision: number;
  /** Of `get` and a `swap` that failed: the key, null if absent. */
  readonly entry?: KvEntry | null;
  /** Of `getAll`: every key that is there. */
  readonly entries?: Readonly<Record<string, KvEntry>>;
  /** Of `delete`: keys deleted. */
  readonly deleted?: number;
  /** Of `swap`: whether the comparison held. */
  readonly succeeded?: boolean;
}

/** The store between two requests. */
export interface KvState {
  readonly revision: number;
  readonly entries: Readonly<Record<string, KvEntry>>;
}

/** Makes the model of a store that begins with `initial`; an empty store is at revision 1. */
export function kvModel(initial: KvState = { revision: 1, entries: {} }): Model<KvState, KvInput, KvOutput> {
  return {
    initial,
    step(state, input, output) {
      const [after, answer] = run(state, input);
      return output === undefined || isEqual(answer, output) ? after : undefined;
    },
    rank: ({ revision }) => revision,
    rankOf: ({ revision }) => revision,
    key: ({ revision, entries }) =>
      `${revision} ${
        Object.keys(entries).sort().map((key) => `${key}=${entries[key]!.value}@${entries[key]!.mod}`).join()
      }`,
  };
}

/** Carries one request out. */
export function run(state: KvState, input: KvInput): [KvState, KvOutput] {
  const { revision, entries } = state;
  switch (input.kind) {
    case "get":
      return [state, { revision, entry: entries[input.key] ?? null }];
    case "getAll":
      return [state, { revision, entries }];
    case "put":
      return [put(state, input.key, input.value), { revision: revision + 1 }];
    case "putBoth": {
      const [one, other] = input.keys;
      const after = put(state, one, input.value);
      const { entries } = put({ ...state, entries: after.entries }, other, input.value);
      return [{ revision: after.revision, entries }, { revision: after.revision }];
    }
    case "delete": {
      if (entries[input.key] === undefined) return [state, { revision, deleted: 0 }];
      const { [input.key]: _gone, ...rest } = entries;
      return [{ revision: revision + 1, entries: rest }, { revision: revision + 1, deleted: 1 }];
    }
    case "swap": {
      const entry = entries[input.key] ?? null;
      if ((entry?.mod ?? 0) !== input.expected) return [state, { revision, succeeded: false, entry }];
      return [put(state, input.key, input.value), { revision: revision + 1, succeeded: true }];
    }
  }
}

function put({ revision, entries }: KvState, key: string, value: string): KvState {
  const before = entries[key];
  const mod = revision + 1;
  const entry = { value, create: before?.create ?? mod, mod, version: (before?.version ?? 0) + 1 };
  return { revision: mod, entries: { ...entries, [key]: entry } };
}

function isEqual(a: KvOutput, b: KvOutput): boolean {
  return a.revision === b.revision && a.deleted === b.deleted && a.succeeded === b.succeeded &&
    isSameEntry(a.entry, b.entry) && isSameEntries(a.entries, b.entries);
}

function isSameEntry(a: KvEntry | null | undefined, b: KvEntry | null | undefined): boolean {
  if (!a || !b) return a === b;
  return a.value === b.value && a.create === b.create && a.mod === b.mod && a.version === b.version;
}

function isSameEntries(a: KvOutput["entries"], b: KvOutput["entries"]): boolean {
  if (a === undefined || b === undefined) return a === b;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => isSameEntry(a[key], b[key] ?? null));
}
