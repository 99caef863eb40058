/** Collects every worker's metrics into one page. */
import { createClient, type Transport } from "@connectrpc/connect";
import type { Registry } from "prom-client";
import { HostService, WorkerService } from "$proto/aetherflow/host/v1/host_pb.ts";
import { mergeMetricPages, type WorkerPage } from "./metrics_page.ts";

/** What the collector is made of. */
export interface CollectorDeps {
  readonly registry: Registry;
  /** This gateway's own name. */
  readonly self: string;
  /** Names of all workers and `host`. */
  peers(): readonly string[];
  transport(peer: string): Transport;
  /** How long one worker may take. */
  readonly timeoutMs: number;
}

/** Makes pages. */
export interface MetricsCollector {
  /** The page, in the Prometheus text format. Never rejects: a worker that does not answer is down on the page. */
  collect(): Promise<string>;
}

/** Creates the collector. Scrapes that come while one is under way share its page. */
export function createMetricsCollector(deps: CollectorDeps): MetricsCollector {
  let underWay: Promise<string> | undefined;

  async function statsOf(peer: string): Promise<WorkerPage | undefined> {
    const options = { timeoutMs: deps.timeoutMs };
    const transport = deps.transport(peer);
    try {
      const answer = peer === "host"
        ? await createClient(HostService, transport).hostStats({}, options)
        : await createClient(WorkerService, transport).stats({}, options);
      return { worker: peer, text: answer.text };
    } catch {
      return undefined; // shown as aetherflow_worker_up 0
    }
  }

  async function collect(): Promise<string> {
    // Workers of other hosts (`session@10.0.0.2:7402`) are on the pages of theirs.
    const others = deps.peers().filter((peer) => peer !== deps.self && !peer.includes("@"));
    const [own, ...pages] = await Promise.all([deps.registry.metrics(), ...others.map(statsOf)]);
    let up =
      "# HELP aetherflow_worker_up 1 when the worker answered this scrape.\n# TYPE aetherflow_worker_up gauge\n";
    up += `aetherflow_worker_up{worker="${deps.self}"} 1\n`;
    others.forEach((peer, i) =>
      up += `aetherflow_worker_up{worker="${peer}"} ${pages[i] === undefined ? 0 : 1}\n`
    );
    return mergeMetricPages([
      { worker: deps.self, text: up },
      { worker: deps.self, text: own! },
      ...pages.filter((page) => page !== undefined),
    ]);
  }

  return {
    collect: () => underWay ??= collect().finally(() => underWay = undefined),
  };
}
