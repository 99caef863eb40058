/** The queue behind locks and elections: keys `<name>/<lease in hex>`, first come first served by create revision. The first
 *  key's owner holds the lock, or leads; the others wait for the ones before them to go. A key goes with its lease.
 *
 *      enrol ──► waiting ── those before are gone, own key is still there ──► holding
 *                   └────── own key is gone: the lease ended ──► refused */
import type { ApiWatch, KvApi } from "../api.ts";
import { KvError } from "../errors.ts";
import { prefixRange } from "../key.ts";
import type { KeyValue, RangeQuery, RangeResult } from "../mvcc.ts";
import { type Op, type OpResult, plainDelete, plainPut, type RangeOp } from "../txn.ts";
import type { WatchAnswer, WatchCreate } from "../watch.ts";

/** A place in the queue. */
export interface Place {
  readonly key: Uint8Array;
  /** Create revision of the key: the order of the queue, and the fencing token of its holder. */
  readonly rev: number;
  /** True when this call took the place; false when the lease had it. */
  readonly isNew: boolean;
  /** What the key held before; undefined for a new place. */
  readonly found: KeyValue | undefined;
  /** True when nobody is before it. */
  readonly isFirst: boolean;
  /** The store's revision when it was looked at. */
  readonly revision: number;
}

/** How to wait for a turn of the event loop. */
export interface Turns {
  /** Lets other work of the event loop run. */
  pause(): Promise<void>;
}

const encoder = new TextEncoder();
const NO_LEASE = 0n;

/** What the keys of a queue begin with. */
export function queuePrefix(name: Uint8Array): Uint8Array {
  const prefix = new Uint8Array(name.length + 1);
  prefix.set(name);
  prefix[name.length] = 0x2f;
  return prefix;
}

/** Takes a lease's place in a queue, or finds the one it has. */
export async function enrol(
  api: KvApi,
  name: Uint8Array,
  lease: bigint,
  value: Uint8Array,
): Promise<Place> {
  const prefix = queuePrefix(name);
  const id = encoder.encode(lease.toString(16));
  const key = new Uint8Array(prefix.length + id.length);
  key.set(prefix);
  key.set(id, prefix.length);
  const first = rangeOp(firstOf(prefix));
  const { revision, succeeded, results } = await api.txn({
    compares: [{ key, range: "single", target: "create", result: "equal", operand: 0 }],
    success: [plainPut(key, value, lease), first],
    failure: [rangeOp({ key, range: "single" }), first],
  });
  const found = succeeded ? undefined : rangeAt(results, 0).kvs[0];
  const rev = found?.createRevision ?? revision;
  const holder = rangeAt(results, 1).kvs[0];
  return {
    key,
    rev,
    isNew: succeeded,
    found,
    isFirst: holder === undefined || holder.createRevision === rev,
    revision,
  };
}

/** Waits until a place is the first of its queue; resolves with the store's revision then.
 *  @throws {KvError} `ended` once the place is gone; `stopped` when the store stops or `signal` aborts. */
export async function waitForTurn(
  turns: Turns,
  api: KvApi,
  name: Uint8Array,
  place: Pick<Place, "key" | "rev">,
  ended: "sessionExpired" | "sessionEnded",
  signal: AbortSignal,
): Promise<number> {
  const prefix = queuePrefix(name);
  for (;;) {
    // One transaction: who is before, and whether the place is still there, at the same revision.
    const { revision, results } = await api.txn({
      compares: [],
      success: [
        rangeOp({
          key: prefix,
          range: prefixRange(prefix),
          limit: 1,
          sortTarget: "create",
          sortOrder: "descend",
          maxCreateRevision: place.rev - 1,
          keysOnly: true,
        }),
        rangeOp({ key: place.key, range: "single", keysOnly: true }),
      ],
      failure: [],
    });
    const before = rangeAt(results, 0).kvs[0];
    const own = rangeAt(results, 1).kvs[0];
    if (own?.createRevision !== place.rev) throw new KvError(ended);
    if (before === undefined) return revision;
    await nextDeletion(turns, api, [before.key, place.key], revision + 1, signal);
  }
}

/** Gives a place back, if it is still the same one. */
export async function leave(api: KvApi, { key, rev }: Pick<Place, "key" | "rev">): Promise<number> {
  const { revision } = await api.txn({
    compares: [holds(key, rev)],
    success: [plainDelete(key)],
    failure: [],
  });
  return revision;
}

/** The first place of a queue; undefined when it is empty. */
export async function firstPlace(
  api: KvApi,
  name: Uint8Array,
): Promise<{ readonly kv: KeyValue | undefined; readonly revision: number }> {
  const { kvs, revision } = await api.range(firstOf(queuePrefix(name)));
  return { kv: kvs[0], revision };
}

/** Writes a place's value, if it is still the same one. Undefined when it is not. */
export async function rewrite(
  api: KvApi,
  { key, rev, lease }: Pick<Place, "key" | "rev"> & { readonly lease: bigint },
  value: Uint8Array,
): Promise<number | undefined> {
  const { revision, succeeded } = await api.txn({
    compares: [holds(key, rev)],
    success: [plainPut(key, value, lease)],
    failure: [],
  });
  return succeeded ? revision : undefined;
}

/** Waits for the deletion of one of `keys` at `startRevision` or later. It may return for less: look again. */
async function nextDeletion(
  turns: Turns,
  api: KvApi,
  keys: readonly Uint8Array[],
  startRevision: number,
  signal: AbortSignal,
): Promise<void> {
  const watches = keys.map((key): WatchCreate => ({
    ...WATCH_DEFAULTS,
    key,
    range: "single",
    startRevision,
    noPut: true,
  }));
  for await (const answer of follow(turns, api, watches, signal)) if (answer.events.length > 0) return;
}

const WATCH_DEFAULTS = {
  watchId: 0n,
  prevKv: false,
  progressNotify: false,
  fragmentBytes: 0,
  noPut: false,
  noDelete: false,
} as const;

/** What a watcher of locks and elections asks for besides its keys. */
export function watchOf(query: Pick<WatchCreate, "key" | "range" | "startRevision">): WatchCreate {
  return { ...WATCH_DEFAULTS, ...query };
}

/** The answers with events of some watchers, until the caller leaves. Ends when history was compacted away under one of
 *  them: then there is a newer state to look at.
 *  @throws {KvError} `stopped` when the store stops or `signal` aborts, `tooManyRequests` when a watcher is refused. */
export async function* follow(
  { pause }: Turns,
  api: KvApi,
  watches: readonly WatchCreate[],
  signal: AbortSignal,
): AsyncGenerator<WatchAnswer, void, void> {
  let wake = () => {};
  const stream: ApiWatch = api.openWatch(() => wake());
  const stop = () => {
    stream.close();
    wake();
  };
  signal.addEventListener("abort", stop);
  try {
    if (signal.aborted) throw new KvError("stopped");
    for (const watch of watches) stream.create(watch);
    for (;;) {
      const answer = stream.take();
      if (answer === "again") await pause();
      else if (answer === undefined) {
        if (stream.isClosed) throw new KvError("stopped");
        await new Promise<void>((resolve) => wake = resolve);
      } else if (answer.canceled === true) {
        if ((answer.compactRevision ?? 0) > 0 || answer.created !== true) return;
        throw new KvError("tooManyRequests", answer.cancelReason);
      } else if (answer.events.length > 0) yield answer;
    }
  } finally {
    signal.removeEventListener("abort", stop);
    stream.close();
  }
}

function firstOf(prefix: Uint8Array): RangeQuery {
  return { key: prefix, range: prefixRange(prefix), limit: 1, sortTarget: "create", sortOrder: "ascend" };
}

function holds(key: Uint8Array, rev: number) {
  return { key, range: "single", target: "create", result: "equal", operand: rev } as const;
}

function rangeOp(query: RangeQuery): RangeOp & Op {
  return { kind: "range", query, hasValidSort: true };
}

function rangeAt(results: readonly OpResult[], index: number): RangeResult {
  const result = results[index];
  if (result?.kind !== "range") throw new TypeError("Cannot read a range: another operation was answered");
  return result.result;
}

/** Whether a request named a lease. */
export function hasLease(lease: bigint): boolean {
  return lease !== NO_LEASE;
}
