/** Services for tests: every name has one instance behind one transport, unless a test says otherwise. */
import type { Transport } from "@connectrpc/connect";
import { Registry } from "prom-client";
import type { Peer } from "../../runtime/worker_context.ts";
import { upstreamsConfigSchema } from "../resilience/config.ts";
import { createUpstreams, type Upstreams, type UpstreamsDeps } from "../resilience/upstreams.ts";
import { systemTimer } from "../timer.ts";

/** An entry of the address book, up and in its first life. */
export function testPeer(name: string, service = name): Peer {
  return { name, service, address: { hostname: "127.0.0.1", port: 1 }, state: "up", incarnation: 1 };
}

/** Services at `transport`. */
export function createTestUpstreams(
  transport: Transport,
  options: Partial<Omit<UpstreamsDeps, "config">> & { readonly config?: unknown } = {},
): Upstreams {
  const instances: Record<string, readonly Peer[]> = {};
  return createUpstreams({
    fallbacks: [],
    services: [],
    self: "self",
    peers: {
      instances: (service) => instances[service] ??= [testPeer(service)],
      transport: () => transport,
    },
    clock: { now: () => performance.now() },
    timer: systemTimer,
    chance: () => 0,
    waitMs: 0,
    registry: new Registry(),
    log: { info() {} },
    ...options,
    config: upstreamsConfigSchema.parse(options.config),
  });
}
