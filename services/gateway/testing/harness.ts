/** A gateway on a free port in front of a fake service. */
import type { Transport } from "@connectrpc/connect";
import { Registry } from "prom-client";
import { type GatewayConfig, gatewayConfigSchema, type TlsTexts } from "../config.ts";
import { listenTcp } from "../edges/grpc/listener.ts";
import { listenHttp } from "../edges/listener.ts";
import { listenResp } from "../edges/resp.ts";
import type { Peer } from "../../runtime/worker_context.ts";
import type { LimitRedis } from "../limits/shared_limits.ts";
import { createGatewayModule, type GatewayModule } from "../mod.ts";
import { systemTimer, type Timer } from "../timer.ts";
import { testPeer } from "./upstreams.ts";
import { createFakeCredentials, type FakeCredentials } from "./fake_credentials.ts";
import { createFakeKv, type FakeKv } from "./fake_kv.ts";

/** A gateway under test. `await using` stops it. */
export interface TestGateway extends AsyncDisposable {
  readonly url: string;
  readonly kv: FakeKv;
  readonly credentials: FakeCredentials;
  readonly module: GatewayModule;
  readonly timer: ManualTimer;
  readonly logged: { level: string; message: string; fields: Record<string, unknown> | undefined }[];
}

/** Timers that fire when told to; the delays asked for are seen. */
export interface ManualTimer extends Timer {
  /** Fires all that wait for exactly `delayMs` or, without an argument, all. Returns how many there were. */
  fire(delayMs?: number): number;
  readonly waiting: readonly number[];
}

/** Creates timers by hand. */
export function createManualTimer(): ManualTimer {
  const pending = new Set<{ delayMs: number; fn: () => void }>();
  return {
    endOfTurn: (fn) => queueMicrotask(fn),
    after(delayMs, fn) {
      const entry = { delayMs, fn };
      pending.add(entry);
      return () => pending.delete(entry);
    },
    fire(delayMs) {
      const due = [...pending].filter((entry) => delayMs === undefined || entry.delayMs === delayMs);
      for (const entry of due) {
        pending.delete(entry);
        entry.fn();
      }
      return due.length;
    },
    get waiting() {
      return [...pending].map((entry) => entry.delayMs);
    },
  };
}

/** Waits for a pause of `delayMs`, of which up to half is left to chance, and ends it. */
export async function firePause(timer: ManualTimer, delayMs: number): Promise<void> {
  const find = () => timer.waiting.find((ms) => ms > delayMs / 2 && ms <= delayMs);
  for (let turns = 0; find() === undefined; turns++) {
    if (turns > 2_000) throw new Error(`no pause of ${delayMs} ms: ${timer.waiting}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  timer.fire(find());
}

/** What a test sets differently. */
export interface TestGatewayOptions {
  readonly config?: Record<string, unknown>;
  /** Real timers instead of manual ones. */
  readonly realTimers?: boolean;
  /** Certificates of gRPC. */
  readonly tls?: TlsTexts;
  /** How peers but the session worker are reached, if not the fake store for all of them. */
  transport?(peer: string, kv: FakeKv): Transport;
  /** A session worker in a certain state. */
  readonly credentials?: FakeCredentials;
  /** Where it shares its rate limits. */
  readonly limitRedis?: LimitRedis;
  /** What the gateway fetches with. */
  readonly fetch?: typeof fetch;
}

/** Starts one. */
export function startTestGateway(options: TestGatewayOptions = {}): TestGateway {
  const config: GatewayConfig = gatewayConfigSchema.parse(options.config ?? {});
  const kv = createFakeKv();
  const credentials = options.credentials ?? createFakeCredentials();
  const timer = createManualTimer();
  const logged: { level: string; message: string; fields: Record<string, unknown> | undefined }[] = [];
  const log = (level: string) => (message: string, fields?: Record<string, unknown>) => {
    logged.push({ level, message, fields });
  };
  const metrics = new Registry();
  metrics.setDefaultLabels({ worker: "gateway" });
  const instances: Record<string, readonly Peer[]> = {};
  let ids = 0;
  const module = createGatewayModule({
    config,
    name: "gateway",
    peers: {
      names: () => ["kv", "gateway", "host"],
      instances: (service) => instances[service] ??= [testPeer(service)],
      channelStats: () => undefined,
      transport: (peer) =>
        peer === "session" ? credentials.transport : options.transport?.(peer, kv) ?? kv.transport,
    },
    clock: { now: () => performance.now(), wallMs: () => Date.now() },
    fetch: options.fetch ?? (() => Promise.reject(new Error("this test fetches nothing"))),
    timer: options.realTimers === true ? systemTimer : timer,
    rpc: { service() {} },
    newRequestId: () => `id-${++ids}`,
    seed: 1,
    limitRedis: options.limitRedis,
    log: { debug: log("debug"), info: log("info"), error: log("error") },
    metrics,
    residentMemoryBytes: () => 123_456,
    version: { name: "aetherflow", version: "9.9.9" },
    listen: (handler) => listenHttp(handler, { host: "127.0.0.1", port: 0, isShared: false, timer }),
    listenGrpc: (accept, onTlsError) =>
      listenTcp({ host: "127.0.0.1", port: 0, isShared: false, tls: options.tls }, accept, onTlsError),
    listenResp: (kv, gate) =>
      listenResp({
        transport: kv,
        gate,
        config: { ...config.resp, port: 0 },
        isShared: false,
        timer: systemTimer,
        log: { debug: log("debug") },
      }),
  });
  return {
    url: module.addresses.http,
    kv,
    credentials,
    module,
    timer,
    logged,
    async [Symbol.asyncDispose]() {
      const drained = module.drain(60_000);
      timer.fire(); // not the deadline's time: at once
      await drained;
    },
  };
}
