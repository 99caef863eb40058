import { Registry } from "prom-client";

export { Counter, Gauge, Histogram, Registry } from "prom-client";

/** Creates the one registry of a worker. Every figure carries the label `worker`, so that the figures of all workers
 *  can stand on one page. Pass it as `registers: [metrics]` to each Counter, Gauge or Histogram. */
export function createMetrics(worker: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ worker });
  return registry;
}
