/** The gateway worker: binds the gateway to Deno. */
import { ConfigError } from "../runtime/failure.ts";
import { createGuuidSource, formatGuuid } from "../runtime/guuid.ts";
import { runWorker } from "../runtime/run_worker.ts";
import { exposureWarnings } from "./auth/exposure.ts";
import type { GatewayWorkerConfig, TlsTexts } from "./config.ts";
import { checkCertificate } from "./edges/certificate.ts";
import { listenTcp } from "./edges/grpc/listener.ts";
import { listenHttp } from "./edges/listener.ts";
import { listenResp } from "./edges/resp.ts";
import { createGatewayModule } from "./mod.ts";
import { systemTimer } from "./timer.ts";
import { limitAddresses, type RateLimitConfig } from "./limits/config.ts";
import { LIMIT_SCRIPTS, type LimitRedis } from "./limits/shared_limits.ts";
import type { Logger } from "../runtime/log.ts";
import { VERSION } from "../runtime/version.ts";

runWorker({
  name: "gateway",
  async start(context) {
    const config = context.config as GatewayWorkerConfig;
    const isShared = config.workers > 1;
    if (isShared && Deno.build.os !== "linux") {
      const why =
        `gateway.workers is ${config.workers}, expected 1: only Linux spreads one port over several workers`;
      throw new ConfigError(why);
    }
    for (const warning of exposureWarnings(config)) context.log.warn(warning);
    const ids = createGuuidSource({ clock: context.clock, random: context.random });
    const module = createGatewayModule({
      config,
      name: context.name,
      peers: context.peers,
      clock: context.clock,
      timer: systemTimer,
      rpc: context.rpc,
      fetch,
      newRequestId: () => formatGuuid(ids.next()),
      limitRedis: await openLimitRedis(config.rateLimit, context.log),
      seed: new DataView(context.random.fill(new Uint8Array(4)).buffer).getInt32(0),
      log: context.log,
      metrics: context.metrics,
      residentMemoryBytes: () => Deno.memoryUsage().rss,
      version: { name: "aetherflow", version: VERSION, deno: Deno.version.deno },
      listen: (handler) =>
        listenHttp(handler, {
          ...config.http,
          isShared,
          tls: config.httpTlsTexts,
          hstsMaxAgeS: config.http.tls.hstsMaxAgeS,
          timer: systemTimer,
        }),
      listenGrpc: (accept, onTlsError) =>
        listenTcp({ ...config.grpc, isShared, tls: config.tlsTexts }, accept, onTlsError),
      listenResp: (kv, gate) =>
        listenResp({
          transport: kv,
          gate,
          config: config.resp,
          isShared,
          timer: systemTimer,
          log: context.log,
        }),
    });
    await module.listening;
    let current = config;
    return {
      get addresses() {
        return module.addresses;
      },
      health: () => module.health(),
      reconfigure(value) {
        const next = value as GatewayWorkerConfig;
        const tls = {
          http: changed(current.httpTlsTexts, next.httpTlsTexts),
          grpc: changed(current.tlsTexts, next.tlsTexts),
        };
        // Both before either is taken: all of a configuration or nothing.
        for (const texts of [tls.http, tls.grpc]) if (texts !== undefined) checkCertificate(texts);
        module.reloadTls(tls);
        module.reconfigure(next);
        current = next;
      },
      drain: (deadlineMs) => module.drain(deadlineMs),
    };
  },
});

/** The certificate that a port is to take; undefined when it has it already. */
function changed(from: TlsTexts | undefined, to: TlsTexts | undefined): TlsTexts | undefined {
  return JSON.stringify(from) === JSON.stringify(to) ? undefined : to;
}

/** Undefined where each gateway counts by itself. One that Redis does not answer starts nevertheless. */
async function openLimitRedis(config: RateLimitConfig, log: Logger): Promise<LimitRedis | undefined> {
  const nodes = limitAddresses(config);
  if (nodes.length === 0) return undefined;
  // Only here is its client loaded: a gateway without it needs none of it.
  const { openRedisClient } = await import("../../storage/redis/mod.ts");
  const onState = (isReady: boolean, reason: string) => log.info("Redis of rate limits", { isReady, reason });
  return await openRedisClient({ ...config.redis, nodes, onState }, LIMIT_SCRIPTS);
}
