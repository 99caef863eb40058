/** What runs, in which order, on which ports, and with exactly which permissions: a function of the configuration. */
import {
  type GatewayWorkerConfig,
  issuerAddresses,
  limitAddresses,
  type TlsTexts,
} from "../gateway/config.ts";
import { etcdAddresses, type EtcdTlsTexts, type KvWorkerConfig } from "../kv/config.ts";
import { redisAddresses } from "../session/config.ts";
import { postgresAddresses } from "../statesync/config.ts";
import { clusterNetworks, dialableHost } from "./cluster_config.ts";
import type { Config } from "./config.ts";

/** The host's name among the peers. */
export const HOST_NAME = "host";

/** Services, by stage. A stage starts when the one before it is ready, and drains before it. */
const STAGES = [["kv", "session", "password", "statesync"], ["gateway"]] as const;
export type ServiceName = typeof STAGES[number][number];

/** Services that begin to load only when the rest of their stage serves: keys and sign-in are there sooner then, above all after a
 *  restart of the process, and the gateway, which does not wait, says of these that they are not up yet. They drain with
 *  their stage. */
const LATE: ReadonlySet<ServiceName> = new Set(["statesync"]);

/** Every service, in start order. */
export const SERVICES = STAGES.flat();

/** One worker to run, before ports are known. */
export interface WorkerSlot {
  /** Name among the peers: the service's, with a number where it has several workers. */
  readonly name: string;
  readonly service: ServiceName;
  /** From 1. */
  readonly instance: number;
  /** 0 starts first and drains last. */
  readonly stage: number;
  /** Whether it begins to load when the rest of its stage serves, beside the next one. */
  readonly isLate: boolean;
}

/** The ports that the host found free, or that the configuration fixes. */
export interface Ports {
  /** The host's, then one for each worker, in the order of `listWorkers`. */
  readonly quantum: readonly number[];
  /** The gateway's TCP port of each edge. */
  readonly tcp: Readonly<Record<EdgeName, number>>;
}

/** Edges of the gateway that listen on a TCP port, by their keys in its configuration. */
export const EDGES = ["http", "grpc", "resp"] as const;
export type EdgeName = typeof EDGES[number];

/** Deno's permission object with every key written out, so that nothing is inherited by omission. */
export interface WorkerPermissions {
  readonly env: false;
  readonly ffi: false;
  readonly import: false;
  readonly net: string[];
  readonly read: false | string[];
  readonly run: false;
  readonly sys: false;
  readonly write: false | string[];
}

/** A TCP address that a worker listens on. */
export interface TcpAddress {
  readonly hostname: string;
  readonly port: number;
  /** Whether several workers listen on it together. */
  readonly shared: boolean;
}

/** One worker to run. */
export interface WorkerPlan extends WorkerSlot {
  /** Where its Quantum node listens. */
  readonly listen: { readonly hostname: string; readonly port: number };
  /** Where the other workers of this host reach it. */
  readonly address: { readonly hostname: string; readonly port: number };
  /** TCP addresses it listens on. */
  readonly tcp: readonly TcpAddress[];
  /** The part of the configuration it is given. */
  readonly config: unknown;
  /** The folder that is its own. */
  readonly dataDirectory: string | undefined;
  readonly permissions: WorkerPermissions;
}

/** Everything the supervisor needs. */
export interface Plan {
  readonly host: Pick<WorkerPlan, "listen" | "address">;
  /** In start order. */
  readonly workers: readonly WorkerPlan[];
}

/** The workers that a configuration asks for, in start order. */
export function listWorkers(config: Config): WorkerSlot[] {
  return STAGES.flatMap((services, stage) =>
    services.filter((service) => config.services.includes(service)).flatMap((service) => {
      const count = service === "gateway" ? config.gateway.workers : 1;
      return Array.from({ length: count }, (_, i) => ({
        name: count === 1 ? service : `${service}-${i + 1}`,
        service,
        instance: i + 1,
        stage,
        isLate: LATE.has(service),
      }));
    })
  );
}

/** Whom each service calls. Gateways ask every worker for its figures. */
const CALLED: Readonly<Record<ServiceName, readonly ServiceName[]>> = {
  // Who signs in over the Redis protocol.
  kv: ["session"],
  session: ["password"],
  password: [],
  // Which sessions have ended, and their locks with them.
  statesync: ["session"],
  gateway: ["kv", "session", "password", "statesync", "gateway"],
};

/** Whether two workers call one another. Deno asks for the right to send to an address, answers included. */
function talk(a: WorkerSlot, b: WorkerSlot): boolean {
  return CALLED[a.service].includes(b.service) || CALLED[b.service].includes(a.service);
}

/** Plans the run. `dataDirectory` is the absolute path of `config.data`; `tlsTexts` what the files of `gateway.grpc.tls`
 *  hold, `etcdTlsTexts` those of `kv.etcd.tls`, `httpTlsTexts` those of `gateway.http.tls`. @throws {RangeError} if `ports` does not fit the configuration. */
export function createPlan(
  config: Config,
  ports: Ports,
  dataDirectory: string,
  tlsTexts?: TlsTexts,
  etcdTlsTexts?: EtcdTlsTexts,
  httpTlsTexts?: TlsTexts,
): Plan {
  const slots = listWorkers(config);
  if (ports.quantum.length !== slots.length + 1) {
    throw new RangeError(
      `Cannot plan: ${slots.length + 1} Quantum ports are needed, got ${ports.quantum.length}`,
    );
  }
  const { cluster } = config;
  const nodes = ports.quantum.map((port) => ({
    listen: { hostname: cluster.host, port },
    address: { hostname: dialableHost(cluster.host), port },
  }));
  const quantumNet = nodes.map(({ address }) => hostAndPort(address));
  const networks = clusterNetworks(cluster);
  const workers = slots.map((slot, i): WorkerPlan => {
    const own = quantumNet[i + 1]!;
    const node = nodes[i + 1]!;
    const bound = hostAndPort(node.listen);
    const peers = quantumNet.filter((_, of) => of === 0 || talk(slot, slots[of - 1]!));
    // Passwords stay on the host that keeps their hashes: nobody else calls that worker.
    const others = slot.service === "password" ? [] : networks;
    const net = [...new Set([own, bound, ...peers, ...others])];
    const base = { ...slot, ...node };
    switch (slot.service) {
      case "kv": {
        if (config.kv.engine === "etcd") {
          const workerConfig: KvWorkerConfig = {
            ...config.kv,
            ...(etcdTlsTexts === undefined ? {} : { etcdTlsTexts }),
          };
          return {
            ...base,
            tcp: [],
            config: workerConfig,
            dataDirectory: undefined,
            permissions: permissions({ net: [...net, ...etcdAddresses(config.kv).map(hostAndPort)] }),
          };
        }
        const folder = `${dataDirectory}/kv`;
        return {
          ...base,
          tcp: [],
          config: { ...config.kv, member: memberOf(config, ports) },
          dataDirectory: folder,
          permissions: permissions({ net, folders: [folder] }),
        };
      }
      case "session": {
        const folder = `${dataDirectory}/session`;
        const servers = redisAddresses(config.session).map(hostAndPort);
        return {
          ...base,
          tcp: [],
          config: config.session,
          dataDirectory: folder,
          permissions: permissions({ net: [...net, ...servers], folders: [folder] }),
        };
      }
      case "password":
        return {
          ...base,
          tcp: [],
          config: config.password,
          dataDirectory: undefined,
          permissions: permissions({ net }),
        };
      case "statesync": {
        const folder = config.statesync.engine === "sqlite" ? `${dataDirectory}/statesync` : undefined;
        const servers = postgresAddresses(config.statesync).map(hostAndPort);
        return {
          ...base,
          tcp: [],
          config: config.statesync,
          dataDirectory: folder,
          permissions: permissions({
            net: [...net, ...servers],
            ...(folder === undefined ? {} : { folders: [folder] }),
          }),
        };
      }
      case "gateway": {
        const { gateway } = config;
        const shared = gateway.workers > 1;
        const tcp = EDGES.map((edge) => ({ hostname: gateway[edge].host, port: ports.tcp[edge], shared }));
        const workerConfig: GatewayWorkerConfig = {
          ...gateway,
          http: { ...gateway.http, port: ports.tcp.http },
          grpc: { ...gateway.grpc, port: ports.tcp.grpc },
          resp: { ...gateway.resp, port: ports.tcp.resp },
          ...(tlsTexts === undefined ? {} : { tlsTexts }),
          ...(httpTlsTexts === undefined ? {} : { httpTlsTexts }),
        };
        return {
          ...base,
          tcp,
          config: workerConfig,
          dataDirectory: undefined,
          permissions: permissions({
            net: [
              ...tcp.map(hostAndPort),
              ...net,
              ...limitAddresses(gateway.rateLimit).map(hostAndPort),
              ...issuerAddresses(gateway.auth).map(hostAndPort),
            ],
          }),
        };
      }
    }
  });
  return { host: nodes[0]!, workers };
}

/** `host:port` as permissions and messages write it; IPv6 in brackets. */
export function hostAndPort({ hostname, port }: { hostname: string; port: number }): string {
  return hostname.includes(":") && !hostname.startsWith("[")
    ? `[${hostname}]:${port}`
    : `${hostname}:${port}`;
}

/** What the store says of itself: where clients reach it is the gateway's to know, unless somebody says otherwise. */
function memberOf({ kv, gateway, services }: Config, ports: Ports): Config["kv"]["member"] {
  if (kv.member.clientUrls.length > 0 || !services.includes("gateway")) return kv.member;
  const scheme = gateway.grpc.tls.certFile === "" ? "http" : "https";
  const address = hostAndPort({ hostname: gateway.grpc.host, port: ports.tcp.grpc });
  return { ...kv.member, clientUrls: [`${scheme}://${address}`] };
}

function permissions(granted: { net: string[]; folders?: string[] }): WorkerPermissions {
  return {
    env: false,
    ffi: false,
    import: false,
    net: granted.net,
    read: granted.folders ?? false,
    run: false,
    sys: false,
    write: granted.folders ?? false,
  };
}
