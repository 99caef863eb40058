/** What INFO and CLIENT LIST say. */
import { oneLine } from "./errors.ts";
import type { RedisServer } from "./server.ts";
import type { Session } from "./session.ts";

/** The version of Redis whose behaviour this is; clients choose what they send by it. */
export const REDIS_VERSION = "7.0.15";

/** A connection as CLIENT LIST tells of it. */
export function clientLine(session: Session): string {
  const nowMs = session.server.clock.nowMs();
  const fields: readonly (readonly [string, string | number])[] = [
    ["id", session.id],
    ["addr", session.peer.remoteAddress],
    ["laddr", session.peer.localAddress],
    ["fd", session.number],
    ["name", session.name],
    ["age", seconds(nowMs - session.createdMs)],
    ["idle", seconds(nowMs - session.lastActiveMs)],
    ["flags", session.isSubscribed ? "P" : session.queuedCommands >= 0 ? "x" : "N"],
    ["db", 0],
    ["sub", session.channels.size],
    ["psub", session.patterns.size],
    ["ssub", 0],
    ["multi", session.queuedCommands],
    ["watch", session.watchedKeys],
    ["qbuf", session.bufferedBytes],
    ["obl", session.unreadBytes],
    ["cmd", session.lastCommand],
    ["user", session.user],
    ["resp", session.isResp3 ? 3 : 2],
    ["lib-name", session.libraryName],
    ["lib-ver", session.libraryVersion],
  ];
  return fields.map(([name, value]) => `${name}=${value}`).join(" ");
}

type Section = readonly (readonly [string, string | number])[];

/** The sections of INFO, by name in lower case. `keys` is the number of keys. */
export function infoSections(server: RedisServer, keys: number): ReadonlyMap<string, string> {
  const figures = server.figures();
  const nowMs = server.clock.nowMs();
  const sessions = [...server.sessions.values()];
  const all: Record<string, Section> = {
    Server: [
      ["redis_version", REDIS_VERSION],
      ["redis_mode", "standalone"],
      ["aetherflow_version", figures.version],
      ["run_id", server.runId],
      ["server_time_usec", nowMs * 1_000],
      ["uptime_in_seconds", seconds(nowMs - server.startedMs)],
      ["uptime_in_days", Math.floor((nowMs - server.startedMs) / 86_400_000)],
    ],
    Clients: [
      ["connected_clients", sessions.length],
      ["pubsub_clients", sessions.filter((each) => each.isSubscribed).length],
      ["watching_clients", sessions.filter((each) => each.watchedKeys > 0).length],
      ["blocked_clients", 0],
    ],
    Memory: [
      ["used_memory", figures.bytes],
      ["maxmemory", figures.quotaBytes],
      ["maxmemory_policy", "noeviction"],
      ["mem_clients_normal", server.unreadBytes],
    ],
    Persistence: [
      ["loading", 0],
      ["aof_enabled", 1],
      ["aof_last_write_status", figures.isWritable ? "ok" : "err"],
      ["aetherflow_engine", oneLine(figures.engine)],
      ["aetherflow_durability", oneLine(figures.durability)],
      ["aetherflow_revision", server.backend.revision],
    ],
    Stats: [
      ["total_connections_received", server.connectionsReceived],
      ["total_commands_processed", server.commandsProcessed],
      ["client_output_buffer_limit_disconnections", server.connectionsAborted],
      ["evicted_keys", 0],
      ["pubsub_channels", server.pubsub.channelCount],
      ["pubsub_patterns", server.pubsub.patternCount],
    ],
    Replication: [["role", "master"], ["connected_slaves", 0]],
    Cluster: [["cluster_enabled", 0]],
    Keyspace: keys > 0 ? [["db0", `keys=${keys}`]] : [],
  };
  return new Map(
    Object.entries(all).map(([name, fields]) => [
      name.toLowerCase(),
      `# ${name}\r\n${fields.map(([field, value]) => `${field}:${value}\r\n`).join("")}`,
    ]),
  );
}

function seconds(ms: number): number {
  return Math.max(0, Math.floor(ms / 1_000));
}
