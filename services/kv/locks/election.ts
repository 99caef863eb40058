/** Elections by name: the candidate that has waited longest leads, for as long as its lease lives. */
import type { KvApi } from "../api.ts";
import {
  enrol,
  firstPlace,
  follow,
  hasLease,
  leave,
  queuePrefix,
  rewrite,
  type Turns,
  waitForTurn,
  watchOf,
} from "./candidates.ts";
import { KvError } from "../errors.ts";
import { prefixRange } from "../key.ts";
import { giveBack, SESSION_TTL_SECONDS, type SessionDeps } from "./lock.ts";
import type { KeyValue } from "../mvcc.ts";

/** What a leader proves its leadership with. */
export interface Leadership {
  readonly key: Uint8Array;
  /** Create revision of the key: grows from leader to leader, and so is the fencing token. */
  readonly rev: number;
  readonly lease: bigint;
}

/** A won election; `revision` is the store's when the candidate entered. */
export interface Won extends Leadership {
  readonly revision: number;
}

/** Who leads; `revision` is the store's when that was so. */
export interface Leader {
  readonly kv: KeyValue;
  readonly revision: number;
}

/** Enters the election and waits until the candidate leads. When `signal` aborts, the candidacy is withdrawn.
 *  @throws {KvError} `leaseNotFound`; `sessionEnded` when the lease ended while it waited. */
export async function campaign(
  deps: SessionDeps,
  api: KvApi,
  { name, lease, value }: { readonly name: Uint8Array; readonly lease: bigint; readonly value: Uint8Array },
  signal: AbortSignal,
): Promise<Won> {
  const session = hasLease(lease) ? lease : await deps.grantLease(SESSION_TTL_SECONDS);
  const place = await enrol(api, name, session, value);
  const won = { key: place.key, rev: place.rev, lease: session, revision: place.revision };
  try {
    if (place.found !== undefined && !isEqual(place.found.value, value)) await proclaim(api, won, value);
    if (!place.isFirst) await waitForTurn(deps, api, name, place, "sessionEnded", signal);
    if (signal.aborted) throw new KvError("stopped");
    return won;
  } catch (error) {
    if (place.isNew) await giveBack(deps, api, place);
    throw error;
  }
}

/** Changes the leader's value; resolves with the store's revision.
 *  @throws {KvError} `notLeader`, `leaseNotFound`. */
export async function proclaim(api: KvApi, leadership: Leadership, value: Uint8Array): Promise<number> {
  const revision = await rewrite(api, leadership, value);
  if (revision === undefined) throw new KvError("notLeader");
  return revision;
}

/** Gives leadership up; resolves with the store's revision. Does nothing for who does not lead (any more). */
export function resign(api: KvApi, leadership: Leadership): Promise<number> {
  return leave(api, leadership);
}

/** Who leads. @throws {KvError} `noLeader`. */
export async function leaderOf(api: KvApi, name: Uint8Array): Promise<Leader> {
  const { kv, revision } = await firstPlace(api, name);
  if (kv === undefined) throw new KvError("noLeader");
  return { kv, revision };
}

/** Who leads, now and after every change, until the caller leaves. Values that followed one another quickly may be left
 *  out when the leader changes; the newest never is.
 *  @throws {KvError} `stopped` when the store stops or `signal` aborts. */
export async function* observe(
  turns: Turns,
  api: KvApi,
  name: Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<Leader, void, void> {
  for (;;) {
    const found = await firstPlace(api, name);
    const leader = found.kv === undefined
      ? await firstPut(turns, api, name, found.revision + 1, signal)
      : { kv: found.kv, revision: found.revision };
    if (leader === undefined) continue;
    yield leader;
    yield* proclamations(turns, api, leader, signal);
  }
}

/** The first candidate that enters; undefined when history was compacted away and one has to look again. */
async function firstPut(
  turns: Turns,
  api: KvApi,
  name: Uint8Array,
  startRevision: number,
  signal: AbortSignal,
): Promise<Leader | undefined> {
  const prefix = queuePrefix(name);
  const watch = watchOf({ key: prefix, range: prefixRange(prefix), startRevision });
  for await (const { events } of follow(turns, api, [{ ...watch, noDelete: true }], signal)) {
    const { kv } = events[0]!;
    return { kv, revision: kv.modRevision };
  }
  return undefined;
}

/** What a leader proclaims, until it leads no more. */
async function* proclamations(
  turns: Turns,
  api: KvApi,
  leader: Leader,
  signal: AbortSignal,
): AsyncGenerator<Leader, void, void> {
  const watch = watchOf({ key: leader.kv.key, range: "single", startRevision: leader.revision + 1 });
  for await (const { events, revision } of follow(turns, api, [watch], signal)) {
    for (const { kind, kv } of events) {
      if (kind === "delete") return;
      yield { kv, revision };
    }
  }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
