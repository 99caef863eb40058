/** The key-value service, wired: what the worker, the tests and the simulator start from. */
import { Alarms } from "./alarms.ts";
import type { KvConfig } from "./config.ts";
import { Lessor } from "./lease.ts";
import { LEASE_PREFIX } from "./lease_entry.ts";
import { LeaseService } from "./lease_service.ts";
import { LocalBackend } from "./local_api.ts";
import { type Identity, identityRecord, Replay } from "./record.ts";
import { createHandlers, type KvHandlers } from "./rpc.ts";
import { type KvLogger, KvService } from "./service.ts";
import { MvccState } from "./state.ts";
import type { KvStore, OpenStore } from "./store.ts";

export { type KvConfig, kvConfigSchema } from "./config.ts";
export { KV_ERRORS, KvError } from "./errors.ts";
export type { KvService } from "./service.ts";
export type { KvStore, OpenStore } from "./store.ts";

/** What the service needs of its surroundings. */
export interface KvDeps {
  readonly openStore: OpenStore;
  readonly config: KvConfig;
  /** Source of the store's identity and of the key hash's seed. */
  readonly random: { fill(target: Uint8Array): Uint8Array };
  readonly log: KvLogger;
  /** Monotonic time in milliseconds. */
  readonly clock: { now(): number };
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** The wired service. */
export interface KvModule {
  readonly service: KvService;
  readonly store: KvStore;
  readonly leases: LeaseService;
  readonly alarms: Alarms;
  /** The implementations of the three RPC services. */
  readonly handlers: KvHandlers;
  /** Stops taking writes, ends watches, makes everything durable. Idempotent. */
  close(): Promise<void>;
}

/** Opens the store, replays it and wires the service.
 *  @throws what `openStore` throws, and {RecordError} when the log is not one of this service. */
export async function createKvModule(deps: KvDeps): Promise<KvModule> {
  const words = new DataView(deps.random.fill(new Uint8Array(20)).slice().buffer);
  const state = new MvccState(words.getUint32(0));
  const replay = new Replay(state);
  const store = await deps.openStore(replay);
  replay.end();
  const identity = replay.identity ?? await makeIdentity(store, words);
  const service = new KvService({
    state,
    store,
    entries: replay.entries,
    identity,
    config: deps.config,
    log: deps.log,
    clock: deps.clock,
    pause: deps.pause,
  });
  const alarms = new Alarms(service);
  const leases = createLeases(service, deps);
  return {
    service,
    store,
    alarms,
    leases,
    handlers: createHandlers(service, leases, new LocalBackend(service, leases), deps.pause),
    async close() {
      await leases.close();
      await service.close();
    },
  };
}

function createLeases(service: KvService, { clock, random, log, config }: KvDeps): LeaseService {
  const { minTtlSeconds, leasesMax, checkpointIntervalMs } = config.lease;
  const lessor = new Lessor({ clock, random, minTtlSeconds, leasesMax });
  service.ownEntries(LEASE_PREFIX, lessor);
  lessor.attachAll(service.state);
  service.onApplied((revision) => lessor.applied(service.state, revision));
  service.useLeases(lessor);
  return new LeaseService({ service, lessor, log, checkpointIntervalMs });
}

async function makeIdentity(store: KvStore, words: DataView): Promise<Identity> {
  const identity = { clusterId: words.getBigUint64(4), memberId: words.getBigUint64(12) };
  await store.durable(store.append(identityRecord(identity), []));
  return identity;
}
