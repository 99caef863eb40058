/** Synchronising clients' way through the product in one thread: real sockets, the gateway's edge, calls over a channel in memory, the
 *  document service on a store in memory. Several edges stand for several gateway workers. */
import type { Transport } from "@connectrpc/connect";
import { SyncService } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { DEVELOPER_CALLER } from "../../services/gateway/auth/identity.ts";
import { createSyncEdge, type SyncEdge } from "../../services/gateway/edges/sync.ts";
import { readExchange } from "../../services/gateway/exchange.ts";
import { GatewayError } from "../../services/gateway/problem.ts";
import type { Caller } from "../../services/gateway/stages.ts";
import { type SyncConfig, syncConfigSchema } from "../../services/gateway/sync/config.ts";
import { createSyncMetrics } from "../../services/gateway/sync/metrics.ts";
import { systemTimer } from "../../services/gateway/timer.ts";
import { systemClock } from "../../services/runtime/clock.ts";
import { createLocalServices } from "../../services/runtime/local_services.ts";
import { Registry } from "../../services/runtime/metrics.ts";
import { systemRandom } from "../../services/runtime/random.ts";
import type { Peer } from "../../services/runtime/worker_context.ts";
import { statesyncConfigSchema } from "../../services/statesync/config.ts";
import { createStatesyncModule, type StatesyncModule } from "../../services/statesync/mod.ts";
import { createMemoryStore } from "../../services/statesync/stores/memory.ts";
import { createSyncHandlers, type SyncHandlers } from "../../services/statesync/sync/handlers.ts";

/** What a world is opened with. */
export interface SyncWorldOptions {
  readonly sync?: Partial<SyncConfig>;
  readonly gateways?: number;
  /** Who a token stands for; without, every token is the developer's. */
  authenticate?(token: string): Caller;
  /** Whether a caller still is who it was; without, it is. */
  confirm?(caller: Caller): Promise<void>;
}

/** A gateway of the world. */
export interface WorldGateway {
  /** `http://127.0.0.1:port` */
  readonly url: string;
  readonly edge: SyncEdge;
  readonly metrics: Registry;
}

/** The world. */
export interface SyncWorld extends AsyncDisposable {
  readonly url: string;
  readonly gateways: readonly WorldGateway[];
  readonly statesync: StatesyncModule;
  readonly sync: SyncHandlers;
  /** What was logged as an error. */
  readonly errors: unknown[];
  /** Ends all calls to the service, as its death does; it is back at once. */
  breakLinks(): void;
  /** Sets whether the service is there for new calls. */
  isUp: boolean;
  /** Lets the store keep nothing until the returned function is called. */
  holdCommits(): () => void;
}

/** Opens it. */
export function openSyncWorld(options: SyncWorldOptions = {}): SyncWorld {
  const errors: unknown[] = [];
  const log = { info() {}, error: (text: string, fields?: unknown) => void errors.push([text, fields]) };
  const endOfTurn = (run: () => void) => void setImmediate(run);
  const store = createMemoryStore();
  const commit = store.commit.bind(store);
  let gate = Promise.resolve();
  store.commit = async (changes) => {
    await gate;
    return await commit(changes);
  };
  const statesync = createStatesyncModule({
    store,
    config: statesyncConfigSchema.parse({}),
    clock: systemClock,
    random: systemRandom,
    endOfTurn,
    onTrouble: (text, error) => void errors.push([text, error]),
  });
  const timer = { now: () => systemClock.now(), after: systemTimer.after };
  const sync = createSyncHandlers({ live: statesync.live, endOfTurn, timer, log });
  let isUp = true;
  let life = 1;
  let transport = serve();

  /** A service's life: calls of an earlier one have ended. */
  function serve(): Transport & { end(): void } {
    const services = createLocalServices((method, error) => void errors.push([method, error]));
    services.rpc.service(SyncService, sync.handlers);
    const ending = new AbortController();
    return {
      unary: services.transport.unary,
      stream: (method, signal, ...rest) =>
        services.transport.stream(
          method,
          signal === undefined ? ending.signal : AbortSignal.any([signal, ending.signal]),
          ...rest,
        ),
      end: () => ending.abort(new Error("the service has died")),
    };
  }

  function instances(): Peer[] {
    const address = { hostname: "127.0.0.1", port: 1 };
    const state = isUp ? "up" : "down";
    return [{ name: "statesync", service: "statesync", address, state, incarnation: life }];
  }
  let known = instances();

  const gateways = Array.from(
    { length: options.gateways ?? 1 },
    (): WorldGateway & { stop(): Promise<void> } => {
      const metrics = new Registry();
      const edge = createSyncEdge({
        config: { ...syncConfigSchema.parse({}), ...options.sync },
        peers: { instances: () => known, transport: () => transport },
        authenticator: {
          authenticateCall: ({ authorization }) =>
            options.authenticate?.(authorization!.slice("Bearer ".length)) ?? DEVELOPER_CALLER,
          confirm: (caller) => options.confirm?.(caller) ?? Promise.resolve(),
          follow() {},
          unfollow() {},
        },
        timer: systemTimer,
        clock: systemClock,
        metrics: createSyncMetrics(metrics),
        log,
      });
      const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
        const exchange = readExchange(request, systemClock.now(), 10_000, () => "request");
        exchange.caller = DEVELOPER_CALLER;
        const endpoint = edge.endpoints.find(({ matches }) => matches(exchange.path));
        try {
          return await endpoint?.answer(request, exchange) ?? new Response(null, { status: 404 });
        } catch (error) {
          if (!(error instanceof GatewayError)) throw error;
          return new Response(error.message, { status: error.status });
        }
      });
      return {
        url: `http://127.0.0.1:${server.addr.port}`,
        edge,
        metrics,
        async stop() {
          edge.drain();
          await server.shutdown();
        },
      };
    },
  );

  return {
    url: gateways[0]!.url,
    gateways,
    statesync,
    sync,
    errors,
    breakLinks() {
      life++;
      const old = transport;
      transport = serve();
      known = instances();
      old.end();
    },
    holdCommits() {
      const { promise, resolve } = Promise.withResolvers<void>();
      gate = promise;
      return resolve;
    },
    get isUp() {
      return isUp;
    },
    set isUp(value) {
      isUp = value;
      known = instances();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(gateways.map((gateway) => gateway.stop()));
      await statesync.close();
    },
  };
}
