/** Finds workers on other hosts and tells of our own: keeps the book, asks everybody in it for a sign of life. */
import { isIP } from "node:net";
import { lookup } from "node:dns/promises";
import type { EtcdClientOptions } from "../../../storage/etcd/mod.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Peer } from "../../runtime/worker_context.ts";
import { type ClusterConfig, clusterNetworks, parseAddress, REMOTE_SERVICES } from "../cluster_config.ts";
import { hostAndPort } from "../plan.ts";
import { AddressBook, type BookListener, type Listing, remoteName } from "./address_book.ts";
import { isWithin } from "./networks.ts";

/** Longest wait for the registry to be reached, and for its answer, in milliseconds. */
const CONNECT_TIMEOUT_MS = 2_000;
const REQUEST_TIMEOUT_MS = 5_000;
/** Quiet time after which the registry is asked for a sign of life, and the time for that, in milliseconds. etcd closes
 *  connections that ask more often. */
const KEEPALIVE_TIME_MS = 5_000;
const KEEPALIVE_TIMEOUT_MS = 3_000;

/** What discovery is made of. */
export interface DiscoveryDeps {
  readonly config: ClusterConfig;
  /** Texts of the files of `cluster.discovery.etcd.tls`. */
  readonly tlsTexts: RegistryTlsTexts | undefined;
  readonly clock: Clock;
  /** A number in [0, 1), for jitter. */
  fraction(): number;
  readonly log: Logger;
  /** What others may want to know of this host's workers besides where they are. */
  readonly version: string;
  /** Takes news for the workers of this host. */
  readonly onChange: BookListener;
  /** Asks a worker for its health. Rejects when no answer came in time; `peer.incarnation` differs when a channel to it is
   *  of no use any more. */
  check(peer: Peer): Promise<void>;
}

/** Texts of certificate files; undefined where none is named. */
export interface RegistryTlsTexts {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** Discovery at work. */
export interface Discovery {
  /** Workers of other hosts as they are known now. */
  peers(): Peer[];
  /** The workers of this host that are up, from now on. */
  announce(workers: readonly Peer[]): void;
  /** Takes this host's workers out of the registry and ends. */
  close(): Promise<void>;
}

/** Begins to look; undefined when the configuration does not want it. */
export async function openDiscovery(deps: DiscoveryDeps): Promise<Discovery | undefined> {
  const { config, log } = deps;
  const { kind } = config.discovery;
  if (kind === "none") return undefined;
  const networks = clusterNetworks(config);
  const book = new AddressBook({ trusted: kind === "etcd" }, deps.onChange);
  const checks = watchHealth(book, deps);

  function put(listing: Listing, resolved: Peer["address"]): void {
    const { service, address } = listing;
    if (!isWithin(networks, resolved.hostname)) {
      log.warn("a worker of another host is outside cluster.networks", { service, address });
    } else if (!book.put(listing, resolved)) {
      log.warn("a worker of another host is left out: there are too many", { service, address });
    } else checks.now(remoteName(listing));
  }

  if (kind === "static") {
    const source = await followStatic(config, put, log);
    return {
      peers: () => book.peers(),
      announce() {},
      close() {
        source.close();
        checks.close();
        return Promise.resolve();
      },
    };
  }

  const registry = await followRegistry(deps, book, put);
  return {
    peers: () => book.peers(),
    announce: registry.announce,
    async close() {
      checks.close();
      await registry.close();
    },
  };
}

/** Asks everybody in the book, all the time. */
function watchHealth(
  book: AddressBook,
  { config: { discovery }, log, check }: DiscoveryDeps,
): { now(name: string): void; close(): void } {
  const underWay = new Set<string>();
  // Raised after each failure, so that the next check opens a new channel.
  const attempts = new Map<string, number>();
  /** Of whose silence the log has been told. */
  const silent = new Set<string>();

  async function ask(peer: Peer): Promise<void> {
    const { name } = peer;
    if (underWay.has(name)) return;
    underWay.add(name);
    let problem: unknown;
    let answered = true;
    try {
      await check({ ...peer, state: "up", incarnation: peer.incarnation + (attempts.get(name) ?? 0) });
    } catch (error) {
      answered = false;
      problem = error;
      attempts.set(name, (attempts.get(name) ?? 0) + 1);
    }
    underWay.delete(name);
    if (!book.has(name)) return; // it left meanwhile
    const state = book.checked(name, answered);
    if (state === "up") {
      silent.delete(name);
      log.info("a worker of another host answers", { peer: name });
    } else if (!answered && (state ?? peer.state) === "down" && !silent.has(name)) {
      silent.add(name);
      log.warn("a worker of another host does not answer", { peer: name, error: problem });
    }
  }

  const timer = setInterval(() => {
    const peers = book.peers();
    const names = new Set(peers.map(({ name }) => name));
    for (const name of attempts.keys()) if (!names.has(name)) attempts.delete(name);
    for (const name of silent) if (!names.has(name)) silent.delete(name);
    for (const peer of peers) void ask(peer);
  }, discovery.checkIntervalMs);
  return {
    now(name) {
      const peer = book.peers().find((peer) => peer.name === name);
      if (peer !== undefined) void ask(peer);
    },
    close: () => clearInterval(timer),
  };
}

/** The list of the configuration; names in it are looked up again and again. */
async function followStatic(
  { discovery }: ClusterConfig,
  put: (listing: Listing, resolved: Peer["address"]) => void,
  log: Logger,
): Promise<{ close(): void }> {
  const unknown = new Set<string>();

  async function enter({ service, address }: { service: string; address: string }): Promise<void> {
    const { hostname, port } = parseAddress(address);
    try {
      const found = isIP(hostname) === 0 ? (await lookup(hostname)).address : hostname;
      unknown.delete(hostname);
      put({ service, address, life: "" }, { hostname: found, port });
    } catch (error) {
      if (unknown.has(hostname)) return;
      unknown.add(hostname);
      log.warn("the name of another host cannot be looked up", { address, error });
    }
  }

  await Promise.all(discovery.peers.map(enter));
  const named = discovery.peers.filter(({ address }) => isIP(parseAddress(address).hostname) === 0);
  const timer = setInterval(() => void Promise.all(named.map(enter)), discovery.checkIntervalMs);
  return { close: () => clearInterval(timer) };
}

/** The registry in an etcd. Only here is its client loaded: other hosts need none of it. */
async function followRegistry(
  deps: DiscoveryDeps,
  book: AddressBook,
  put: (listing: Listing, resolved: Peer["address"]) => void,
): Promise<{ announce(workers: readonly Peer[]): void; close(): Promise<void> }> {
  const { config, log, clock } = deps;
  const { etcd } = config.discovery;
  const [{ EtcdClient }, { openEtcdRegistry }] = await Promise.all([
    import("../../../storage/etcd/mod.ts"),
    import("./etcd_registry.ts"),
  ]);
  const tls = tlsOf(deps);
  /** Keys of this host's workers, up or not: they are no other host's. */
  const own = new Set<string>();
  const startedMs = clock.wallMs();

  function enter(key: string, life: string): string | undefined {
    const listing = listingOf(key, life);
    if (listing === undefined || own.has(key)) return undefined;
    put(listing, parseAddress(listing.address));
    return remoteName(listing);
  }

  const registry = openEtcdRegistry({
    client: new EtcdClient({
      addresses: etcd.endpoints.map((endpoint) => hostAndPort(parseAddress(endpoint))),
      ...(tls === undefined ? {} : { tls }),
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      keepaliveTimeMs: KEEPALIVE_TIME_MS,
      keepaliveTimeoutMs: KEEPALIVE_TIMEOUT_MS,
      clock,
      fraction: deps.fraction,
    }),
    prefix: etcd.prefix,
    ttlSeconds: etcd.ttlSeconds,
    account: etcd.username === "" ? undefined : { username: etcd.username, password: etcd.password },
    clock,
    log,
    onAll(entries) {
      const names = [...entries].map(([key, life]) => enter(key, life));
      book.retain(new Set(names.filter((name) => name !== undefined)));
    },
    onChange(key, life) {
      const listing = listingOf(key, "");
      if (listing === undefined) return;
      if (life === undefined) book.remove(remoteName(listing));
      else enter(key, life);
    },
  });

  return {
    announce(workers) {
      const entries = new Map<string, string>();
      for (const { name, service, address: { port }, state, incarnation } of workers) {
        if (!isCallable(service)) continue;
        const hostname = config.advertise === "" ? config.host : config.advertise;
        const address = hostAndPort({ hostname, port });
        const key = `${service}/${address}`;
        own.add(key);
        // It may be there from an earlier life of this host.
        book.remove(remoteName({ service, address }));
        const value = { address, service, name, startedMs, incarnation, version: deps.version };
        if (state === "up") entries.set(key, JSON.stringify(value));
      }
      registry.announce(entries);
    },
    close: () => registry.close(),
  };
}

/** Reads `<service>/<host>:<port>`; undefined for what is no worker that can be called. */
function listingOf(key: string, life: string): Listing | undefined {
  const slash = key.indexOf("/");
  const service = key.slice(0, slash);
  const address = key.slice(slash + 1);
  if (slash < 1 || !isCallable(service) || !/:[0-9]{1,5}$/.test(address)) return undefined;
  return isIP(parseAddress(address).hostname) === 0 ? undefined : { service, address, life };
}

function isCallable(service: string | undefined): service is string {
  return (REMOTE_SERVICES as readonly (string | undefined)[]).includes(service);
}

function tlsOf({ config, tlsTexts }: DiscoveryDeps): EtcdClientOptions["tls"] {
  const { endpoints, tls: { serverName } } = config.discovery.etcd;
  if (!endpoints.some((endpoint) => endpoint.startsWith("https://"))) return undefined;
  return {
    ...(tlsTexts?.ca === undefined ? {} : { ca: tlsTexts.ca }),
    ...(tlsTexts?.cert === undefined ? {} : { cert: tlsTexts.cert }),
    ...(tlsTexts?.key === undefined ? {} : { key: tlsTexts.key }),
    ...(serverName === "" ? {} : { serverName }),
  };
}
