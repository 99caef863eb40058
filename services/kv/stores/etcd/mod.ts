/** The key-value service on an existing etcd cluster: every RPC of etcd passed on, and the cluster as REST and Redis use it. */
import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { EtcdClient, type EtcdTls } from "../../../../storage/etcd/mod.ts";
import type { KvBackend } from "../../api.ts";
import { etcdAddresses, type EtcdTlsTexts, type KvConfig } from "../../config.ts";
import { EtcdBackend } from "./backend.ts";
import { EtcdCluster } from "./cluster.ts";
import { FORWARDED, type ForwardOptions, forwardService } from "./forward.ts";

/** What the adapter needs of its surroundings. */
export interface EtcdEngineDeps {
  readonly config: KvConfig;
  readonly tlsTexts?: EtcdTlsTexts;
  readonly clock: { now(): number };
  /** A number in [0, 1), for jitter. */
  fraction(): number;
  readonly log: {
    info(message: string, fields?: Record<string, unknown>): void;
    warn(message: string, fields?: Record<string, unknown>): void;
  };
}

/** The adapter at work. */
export interface EtcdEngine {
  readonly backend: KvBackend;
  /** etcd's services and their handlers. */
  readonly services: readonly (readonly [DescService, Partial<ServiceImpl<DescService>>])[];
  /** Whether any member can be reached, and what is wrong with the others. */
  health(): { ok: boolean; detail: string };
  /** Takes no more requests and closes the connections; streams end. Idempotent. */
  close(): void;
}

/** Connects to the cluster. It need not be there yet. */
export function openEtcdEngine(deps: EtcdEngineDeps): EtcdEngine {
  const { config, log } = deps;
  const { etcd } = config;
  const tls = tlsOf(deps);
  const client = new EtcdClient({
    addresses: etcdAddresses(config).map(({ hostname, port }) => `${hostname}:${port}`),
    ...(tls === undefined ? {} : { tls }),
    connectTimeoutMs: etcd.connectTimeoutMs,
    requestTimeoutMs: etcd.requestTimeoutMs,
    keepaliveTimeMs: etcd.keepaliveTimeMs,
    keepaliveTimeoutMs: etcd.keepaliveTimeoutMs,
    clock: deps.clock,
    fraction: deps.fraction,
    onReachable: (isReachable, detail) =>
      isReachable
        ? log.info("the etcd cluster can be reached", { detail })
        : log.warn("the etcd cluster cannot be reached", { detail }),
  });
  const { username, password } = etcd;
  const cluster = new EtcdCluster(client, username === "" ? undefined : { username, password });
  const options: ForwardOptions = {
    cluster,
    requestTimeoutMs: etcd.requestTimeoutMs,
    pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    fraction: deps.fraction,
  };
  const backend = new EtcdBackend(options);
  return {
    backend,
    services: FORWARDED.map((service) => [service, forwardService(service, options)] as const),
    health: () => cluster.health(),
    close() {
      backend.close();
      cluster.close();
    },
  };
}

function tlsOf({ config, tlsTexts }: EtcdEngineDeps): EtcdTls | undefined {
  if (!config.etcd.endpoints.some((endpoint) => endpoint.startsWith("https://"))) return undefined;
  const { serverName } = config.etcd.tls;
  return {
    ...(tlsTexts?.ca === undefined ? {} : { ca: tlsTexts.ca }),
    ...(tlsTexts?.cert === undefined ? {} : { cert: tlsTexts.cert }),
    ...(tlsTexts?.key === undefined ? {} : { key: tlsTexts.key }),
    ...(serverName === "" ? {} : { serverName }),
  };
}
