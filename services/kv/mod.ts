/** The key-value service, wired: what the worker, the tests and the simulator start from. */
import { Alarms } from "./maintenance/alarms.ts";
import { AUTH_PREFIX, AuthStore } from "./auth/auth.ts";
import type { KvBackend } from "./api.ts";
import type { KvConfig } from "./config.ts";
import { memoryEngine, type OpenEngine } from "./engine.ts";
import { Guard } from "./auth/guard.ts";
import { GuardedBackend } from "./auth/guarded_api.ts";
import { Lessor } from "./lease/lease.ts";
import { LEASE_PREFIX } from "./lease/lease_entry.ts";
import { LeaseService } from "./lease/lease_service.ts";
import { type BackupFile, Maintenance, MemoryBackupFile } from "./maintenance/maintenance.ts";
import { etcdFiles } from "./stores/etcd_file.ts";
import { LocalBackend } from "./local_api.ts";
import { Logins } from "./auth/logins.ts";
import { createPasswordHasher, type PasswordHasher } from "./auth/passwords.ts";
import { Tokens } from "./auth/tokens.ts";
import { createHandlers } from "./rpc.ts";
import { guardAll, type KvHandlers } from "./served.ts";
import { type KvLogger, KvService } from "./service.ts";
import type { KvStore, OpenStore } from "./store.ts";

export type { KvConfig } from "./config.ts";
export { KV_ERRORS, KvError } from "./errors.ts";
export type { KvService } from "./service.ts";
export type { KvStore, OpenStore } from "./store.ts";

/** What the service needs of its surroundings. */
export interface KvSurroundings {
  readonly config: KvConfig;
  /** Source of the store's identity and of the key hash's seed. */
  readonly random: { fill(target: Uint8Array): Uint8Array };
  readonly log: KvLogger;
  /** Monotonic time in milliseconds. */
  readonly clock: { now(): number };
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
  /** Makes a file for a backup; unset: in memory. */
  readonly openBackupFile?: () => Promise<BackupFile>;
  /** Hashes passwords; unset: as the configuration says. */
  readonly passwords?: PasswordHasher;
}

/** The same with the engine: memory on a store of records, or another one. */
export type KvDeps =
  & KvSurroundings
  & ({ readonly openStore: OpenStore } | { readonly openEngine: OpenEngine });

/** The wired service. */
export interface KvModule {
  readonly service: KvService;
  readonly store: KvStore;
  readonly leases: LeaseService;
  readonly alarms: Alarms;
  readonly maintenance: Maintenance;
  readonly auth: AuthStore;
  /** The store for callers of whom it is known who they are. */
  readonly backend: KvBackend;
  /** The implementations of the RPC services, every method checked. */
  readonly handlers: KvHandlers;
  /** Stops taking writes, ends watches, makes everything durable. Idempotent. */
  close(): Promise<void>;
}

/** Opens the engine and wires the service.
 *  @throws what opening throws, and {RecordError} when the log is not one of this service. */
export async function createKvModule(deps: KvDeps): Promise<KvModule> {
  const words = new DataView(deps.random.fill(new Uint8Array(20)).slice().buffer);
  const openEngine = "openEngine" in deps ? deps.openEngine : memoryEngine(deps.openStore);
  const { state, store, space, entries, identity } = await openEngine({
    hash: words.getUint32(0),
    identity: { clusterId: words.getBigUint64(4), memberId: words.getBigUint64(12) },
  });
  const service = new KvService({
    state,
    store,
    entries,
    identity,
    config: deps.config,
    log: deps.log,
    clock: deps.clock,
    pause: deps.pause,
  });
  const alarms = new Alarms(service);
  const { leases, lessor } = createLeases(service, deps);
  const logins = createLogins(service, deps);
  const { auth, tokens } = logins;
  const guard = new Guard({ auth, tokens, leases: lessor });
  const maintenance = new Maintenance({
    service,
    alarms,
    space,
    format: etcdFiles,
    index: () => store.durableSeq,
    openFile: deps.openBackupFile ?? (() => Promise.resolve(new MemoryBackupFile())),
    member: deps.config.member,
  });
  const backend = new GuardedBackend(new LocalBackend(service, leases), guard, logins);
  return {
    service,
    store,
    alarms,
    leases,
    auth,
    backend,
    maintenance,
    handlers: guardAll(
      guard,
      createHandlers({
        service,
        leases,
        alarms,
        maintenance,
        backend,
        guard,
        logins,
        log: deps.log,
        pause: deps.pause,
      }),
    ),
    async close() {
      await leases.close();
      await service.close();
    },
  };
}

function createLeases(service: KvService, { clock, random, log, config }: KvSurroundings) {
  const { minTtlSeconds, leasesMax, checkpointIntervalMs } = config.lease;
  const lessor = new Lessor({ clock, random, minTtlSeconds, leasesMax });
  service.ownEntries(LEASE_PREFIX, lessor);
  lessor.attachAll(service.state);
  service.onApplied((revision) => lessor.applied(service.state, revision));
  service.useLeases(lessor);
  return { lessor, leases: new LeaseService({ service, lessor, log, checkpointIntervalMs }) };
}

function createLogins(
  service: KvService,
  { clock, random, pause, config, passwords }: KvSurroundings,
): Logins {
  const auth = new AuthStore();
  service.ownEntries(AUTH_PREFIX, auth);
  const hasher = passwords ?? createPasswordHasher({ random, pause, newHashes: config.auth.passwordHash });
  return new Logins(auth, hasher, new Tokens(auth, config.auth, random, clock));
}
