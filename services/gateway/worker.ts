/** The gateway worker: binds the gateway to Deno. */
import { createGuuidSource, formatGuuid } from "../runtime/guuid.ts";
import { runWorker } from "../runtime/run_worker.ts";
import type { GatewayWorkerConfig } from "./config.ts";
import { listenTcp } from "./edges/grpc/listener.ts";
import { listenHttp } from "./edges/listener.ts";
import { listenResp } from "./edges/resp.ts";
import { createGatewayModule } from "./mod.ts";
import { systemTimer } from "./timer.ts";
import { VERSION } from "../runtime/version.ts";

runWorker({
  name: "gateway",
  async start(context) {
    const config = context.config as GatewayWorkerConfig;
    const isShared = config.workers > 1;
    if (isShared && Deno.build.os !== "linux") {
      const why =
        `gateway.workers is ${config.workers}, expected 1: only Linux spreads one port over several workers`;
      throw new Error(why);
    }
    const ids = createGuuidSource({ clock: context.clock, random: context.random });
    const module = createGatewayModule({
      config,
      name: context.name,
      peers: context.peers,
      clock: context.clock,
      timer: systemTimer,
      fetch,
      newRequestId: () => formatGuuid(ids.next()),
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
      listenResp: (kv) =>
        listenResp({ transport: kv, config: config.resp, isShared, timer: systemTimer, log: context.log }),
    });
    await module.listening;
    return {
      get addresses() {
        return module.addresses;
      },
      health: () => module.health(),
      reconfigure: (next) => module.reconfigure(next as GatewayWorkerConfig),
      drain: (deadlineMs) => module.drain(deadlineMs),
    };
  },
});
