/** Locks by name: held by a lease, one holder at a time, in the order of asking.
 *
 *  A holder that is paused longer than its lease lives does not know that it lost the lock. What it writes elsewhere is safe
 *  only where the fencing token travels with it: the key's create revision, which grows from holder to holder (and is at
 *  most the header's revision of the answer). Here, a transaction that compares the key's create revision does that. */
import type { KvApi } from "../api.ts";
import { enrol, hasLease, leave, type Turns, waitForTurn } from "./candidates.ts";
import { KvError } from "../errors.ts";

/** Time to live of the lease that is made for a caller that names none, in seconds: that of etcd's sessions. */
export const SESSION_TTL_SECONDS = 60n;

/** What locks and elections need besides the store. */
export interface SessionDeps extends Turns {
  /** Makes a lease for a caller that brought none. */
  grantLease(ttlSeconds: bigint): Promise<bigint>;
  readonly log: { error(message: string, fields?: Record<string, unknown>): void };
}

/** A held lock. */
export interface HeldLock {
  /** The lock is held for as long as this key exists. */
  readonly key: Uint8Array;
  /** The store's revision when it was seen to be held. */
  readonly revision: number;
}

const NO_VALUE = new Uint8Array(0);

/** Waits for the lock `name` and takes it for `lease`. When `signal` aborts, the place in the queue is given back.
 *  @throws {KvError} `leaseNotFound`; `sessionExpired` when the lease ended while it waited. */
export async function lock(
  deps: SessionDeps,
  api: KvApi,
  name: Uint8Array,
  lease: bigint,
  signal: AbortSignal,
): Promise<HeldLock> {
  const session = hasLease(lease) ? lease : await deps.grantLease(SESSION_TTL_SECONDS);
  const place = await enrol(api, name, session, NO_VALUE);
  try {
    const revision = place.isFirst
      ? place.revision
      : await waitForTurn(deps, api, name, place, "sessionExpired", signal);
    // The caller is gone, so nobody would give the lock back before its lease ends.
    if (signal.aborted) throw new KvError("stopped");
    return { key: place.key, revision };
  } catch (error) {
    if (place.isNew) await giveBack(deps, api, place);
    throw error;
  }
}

/** Gives a lock back; resolves with the store's revision. */
export async function unlock(api: KvApi, key: Uint8Array): Promise<number> {
  return (await api.delete({ kind: "delete", key, range: "single", prevKv: false })).revision;
}

/** Gives a place back after a failure. If that fails as well the place goes with its lease, so it is only reported. */
export async function giveBack(
  { log }: SessionDeps,
  api: KvApi,
  place: { readonly key: Uint8Array; readonly rev: number },
): Promise<void> {
  try {
    await leave(api, place);
  } catch (error) {
    log.error("a place in a queue could not be given back; it goes with its lease", { error });
  }
}
