/** The Redis protocol on the store, wired. */
import type { RedisService } from "$proto/aetherflow/kv/v1/redis_pb.ts";
import type { ServiceImpl } from "@connectrpc/connect";
import { type RedisDeps, RedisServer } from "./server.ts";

export type { RedisDeps, RedisLimits, StoreFigures } from "./server.ts";

/** The wired service. */
export interface RedisModule {
  readonly server: RedisServer;
  readonly handlers: ServiceImpl<typeof RedisService>;
}

/** Wires the server. */
export function createRedisModule(deps: RedisDeps): RedisModule {
  const server = new RedisServer(deps);
  return { server, handlers: { serve: (requests) => server.serve(requests) } };
}
