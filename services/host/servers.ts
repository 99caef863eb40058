/** Servers of others that a configuration asks the workers to use. */
import { limitAddresses } from "../gateway/config.ts";
import { etcdAddresses } from "../kv/config.ts";
import { redisAddresses } from "../session/config.ts";
import { postgresAddresses } from "../statesync/config.ts";
import type { Config } from "./config.ts";

/** One address of such a server. */
export interface ConfiguredServer {
  /** The key of the configuration that names it. */
  readonly key: string;
  /** IPv6 addresses have no brackets. */
  readonly hostname: string;
  readonly port: number;
}

/** All of them, each with the key that names it; none where all storage is embedded. */
export function configuredServers(config: Config): ConfiguredServer[] {
  const { kv, session, statesync, gateway, services } = config;
  const found = [
    ...(services.includes("kv") && kv.engine === "etcd" ? named("kv.etcd.endpoints", etcdAddresses(kv)) : []),
    ...(services.includes("session") ? named("session.redis.nodes", redisAddresses(session)) : []),
    ...(services.includes("statesync") ? named("statesync.postgres", postgresAddresses(statesync)) : []),
    ...(services.includes("gateway")
      ? named("gateway.rateLimit.redis.nodes", limitAddresses(gateway.rateLimit))
      : []),
  ];
  return found.map((server) => ({ ...server, hostname: server.hostname.replace(/^\[|\]$/g, "") }));
}

function named(key: string, addresses: readonly { hostname: string; port: number }[]): ConfiguredServer[] {
  return addresses.map((address) => ({ key, ...address }));
}
