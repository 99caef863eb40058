/** What an embedded engine is to the service: the machine, what makes it durable, and what it found when it was opened. */
import type { Mvcc } from "./mvcc.ts";
import { type Identity, identityRecord, Replay } from "./record.ts";
import { MvccState } from "./state.ts";
import type { KvStore, OpenStore } from "./store.ts";

/** Space that an engine takes. */
export interface Space {
  /** Memory or disk set aside for the store's bytes, in bytes. */
  readonly reservedBytes: number;
  /** Gives back what is free in it, over many turns. */
  defragment(pause: () => Promise<void>): Promise<void>;
}

/** An open engine. */
export interface KvEngine {
  readonly state: Mvcc;
  readonly store: KvStore;
  readonly space: Space;
  /** Named entries that were found; the service's from now on. */
  readonly entries: Map<string, Uint8Array>;
  readonly identity: Identity;
}

/** What an engine takes that is not known before it is opened. */
export interface EngineSeeds {
  /** 32 unpredictable bits for the hash of keys. */
  readonly hash: number;
  /** The identity of a store that is new; an old one keeps its own. */
  readonly identity: Identity;
}

/** Opens an engine, with all that it holds. */
export type OpenEngine = (seeds: EngineSeeds) => Promise<KvEngine>;

/** The engine of everything in memory on a store of records.
 *  @throws what `openStore` throws, and {RecordError} when the log is not one of this service. */
export function memoryEngine(openStore: OpenStore): OpenEngine {
  return async (seeds) => {
    const state = new MvccState(seeds.hash);
    const replay = new Replay(state);
    const store = await openStore(replay);
    replay.end();
    if (replay.identity === undefined) await store.durable(store.append(identityRecord(seeds.identity), []));
    return {
      state,
      store,
      space: spaceOf(state),
      entries: replay.entries,
      identity: replay.identity ?? seeds.identity,
    };
  };
}

function spaceOf(state: MvccState): Space {
  return {
    get reservedBytes() {
      return state.reservedBytes;
    },
    async defragment(pause) {
      for (const _slice of state.reclaim()) await pause();
    },
  };
}
